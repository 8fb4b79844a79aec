//! What an export holds: every table with its columns and their kinds. `tests/it/storage.rs` compares the
//! list with the schemas of both databases, so that a migration that adds a table or a column adds it here
//! too. The tables refer to each other without foreign keys, so their order is free.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// An integer or a time in milliseconds.
    Int,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// A boolean.
    Bool,
}

/// A table that an export holds.
#[derive(Debug)]
pub struct ExportedTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns, in the order in which an export holds them.
    pub columns: &'static [(&'static str, ColumnKind)],
    /// All rows. Without an order: sorting a large table would need as much disk again.
    pub(super) all: &'static str,
    /// The number of rows.
    pub(super) count: &'static str,
    /// Inserts rows.
    pub(super) insert: &'static str,
}

/// Tables and columns that stay behind, with the reason.
pub const LEFT_OUT: &[(&str, Option<&str>, &str)] = &[
    ("nodes", None, "who runs on a ledger now"),
    ("probes", None, "test writes of `/readyz`"),
    ("duties", None, "who does what now"),
    ("presence", None, "whom agents talk to now"),
    ("changes", None, "what caches of other managers have to read again; each one reads everything at its start"),
    ("audit_head", Some("holder"), "of earlier versions: the manager that runs on the ledger"),
    ("_sqlx_migrations", None, "written by the migrations of the target"),
];

macro_rules! exported_tables {
    ($($name:literal $width:literal [$first:literal: $first_kind:ident $(, $column:literal: $kind:ident)*];)+) => {
        /// Every table of an export.
        pub static TABLES: &[ExportedTable] = &[$(ExportedTable {
            name: $name,
            columns: &[($first, ColumnKind::$first_kind) $(, ($column, ColumnKind::$kind))*],
            all: concat!("SELECT ", $first $(, ", ", $column)*, " FROM ", $name),
            count: concat!("SELECT COUNT(*) AS count FROM ", $name),
            insert: concat!("INSERT INTO ", $name, " (", $first $(, ", ", $column)*, ") VALUES {", $width, "}"),
        }),+];

        $(const _: () = assert!([$first $(, $column)*].len() == $width, "the number of columns is wrong");)+

        /// Every statement of the tables.
        pub(in crate::store) const STATEMENTS: &[(&str, &str)] = &[$(
            (concat!($name, " export"), concat!("SELECT ", $first $(, ", ", $column)*, " FROM ", $name)),
            (concat!($name, " count"), concat!("SELECT COUNT(*) AS count FROM ", $name)),
            (
                concat!($name, " import"),
                concat!("INSERT INTO ", $name, " (", $first $(, ", ", $column)*, ") VALUES {", $width, "}"),
            ),
        )+];
    };
}

exported_tables! {
    "actions" 7 [
        "name": Text, "version": Int, "document": Text, "created_at": Int, "updated_at": Int,
        "updated_by": Text, "seal": Bytes
    ];
    "agent_breakers" 6 [
        "policy": Text, "agent_id": Text, "is_open": Bool, "reason": Text, "changed_at": Int,
        "changed_by": Text
    ];
    "agents" 22 [
        "id": Text, "name": Text, "public_key": Text, "labels": Text, "platform": Text,
        "version": Text, "capabilities": Text, "enrolled_at": Int, "revoked_at": Int,
        "last_seen_at": Int, "last_seq": Int, "incident": Text, "rejected_orders": Int,
        "rejected_reason": Text, "rejected_at": Int, "clock_skew_seconds": Int,
        "key_number": Int, "previous_key": Text, "key_since": Int, "key_ordered_at": Int,
        "seal": Bytes,
        "queued_entry": Int
    ];
    "alerts" 10 [
        "id": Text, "dedupe": Bytes, "pipeline": Text, "time": Int, "agent_id": Text,
        "rule_id": Text, "rule_level": Int, "raw": Bytes, "pipeline_id": Text, "is_astray": Bool
    ];
    "answers" 6 [
        "response_id": Text, "principal": Text, "answer": Text, "reason": Text, "at": Int,
        "seal": Bytes
    ];
    "api_keys" 17 [
        "id": Text, "name": Text, "hash": Bytes, "role": Text, "created_at": Int,
        "created_by": Text, "expires_at": Int, "revoked_at": Int, "pipeline": Text,
        "user_name": Text, "last_used_at": Int, "last_used_from": Text, "scope": Text,
        "is_webhook": Bool, "seal": Bytes, "token_generation": Int, "certificate": Text
    ];
    "audit" 9 [
        "seq": Int, "at": Int, "actor": Text, "verb": Text, "noun": Text, "noun_id": Text,
        "detail": Text, "hash": Bytes, "commitments": Bytes
    ];
    "audit_checkpoints" 3 [
        "seq": Int, "at": Int, "token": Text
    ];
    "audit_head" 6 [
        "id": Int, "seq": Int, "hash": Bytes, "epoch": Int, "deciding_epoch": Int, "events": Int
    ];
    "breakers" 5 [
        "policy": Text, "is_open": Bool, "reason": Text, "changed_at": Int, "changed_by": Text
    ];
    "commands" 23 [
        "id": Text, "agent_id": Text, "seq": Int, "effect_id": Text, "response_id": Text,
        "op": Text, "action": Text, "target_kind": Text, "target_value": Text,
        "arguments": Text, "until": Int, "state": Text, "detail": Text, "created_at": Int,
        "expires_at": Int, "lease_until": Int, "deliveries": Int, "delivered_at": Int,
        "acknowledged_at": Int, "finished_at": Int, "one_shot": Bool, "rank": Int,
        "seal": Bytes
    ];
    "effects" 19 [
        "id": Text, "agent_id": Text, "action": Text, "target_kind": Text,
        "target_value": Text, "arguments": Text, "desired": Text, "actual": Text,
        "actual_seq": Int, "until": Int, "failed_reverts": Int, "next_revert_at": Int,
        "created_at": Int, "changed_at": Int, "last_apply": Text, "last_reason": Text,
        "in_force_at": Int, "wanted_at": Int, "seal": Bytes
    ];
    "wazuh_agents" 3 ["manager": Text, "id": Text, "name": Text];
    "wazuh_claims" 4 ["agent_id": Text, "number": Text, "name": Text, "doubt": Text];
    "openc2_rules" 4 ["number": Int, "principal": Text, "command_id": Text, "response_id": Text];
    "rejected_alerts" 10 [
        "id": Text, "digest": Bytes, "sender": Text, "pipeline": Text, "last_at": Int, "count": Int, "errors": Text, "size": Int,
        "is_kept": Bool, "raw": Bytes
    ];
    "events" 15 [
        "seq": Int, "at": Int, "type": Text, "subject": Text, "actor": Text, "detail": Text,
        "alert_id": Text, "response_id": Text, "command_id": Text, "effect_id": Text,
        "agent_id": Text, "policy": Text, "action": Text, "target_kind": Text, "target_value": Text
    ];
    "enrollment_tokens" 9 [
        "id": Text, "hash": Bytes, "labels": Text, "uses": Int, "uses_left": Int,
        "expires_at": Int, "created_at": Int, "created_by": Text, "seal": Bytes
    ];
    "forwarders" 7 [
        "name": Text, "principal": Text, "version": Text, "heard_at": Int, "behind_bytes": Int,
        "last_alert_at": Int, "is_silent": Bool
    ];
    "feeds" 7 [
        "name": Text, "version": Int, "document": Text, "created_at": Int, "updated_at": Int,
        "updated_by": Text, "seal": Bytes
    ];
    "feed_lists" 5 [
        "feed": Text, "revision": Int, "event": Int, "floor": Int, "over_since": Int
    ];
    "feed_entries" 8 [
        "feed": Text, "value": Text, "policy": Text, "until": Int, "revision": Int,
        "changed_at": Int, "first_at": Int, "is_listed": Bool
    ];
    "feed_consumers" 11 [
        "feed": Text, "consumer": Text, "first_at": Int, "last_at": Int, "address": Text,
        "revision": Int, "before": Int, "event": Int, "silent_since": Int, "metrics": Text,
        "metrics_at": Int
    ];
    "freezes" 6 [
        "id": Int, "frozen": Bool, "reason": Text, "changed_at": Int, "changed_by": Text,
        "seal": Bytes
    ];
    "holds" 6 [
        "response_id": Text, "effect_id": Text, "until": Int, "released_at": Int,
        "left_as": Text, "left_reason": Text
    ];
    "idempotency" 6 [
        "principal": Text, "key": Text, "fingerprint": Bytes, "status": Int, "body": Text,
        "created_at": Int
    ];
    "identities" 7 [
        "issuer": Text, "subject": Text, "user_name": Text, "role_from_groups": Bool,
        "created_at": Int, "created_by": Text, "seal": Bytes
    ];
    "late_alerts" 5 ["pipeline": Text, "count": Int, "first_time": Int, "last_time": Int, "seen_at": Int];
    "key_statements" 8 [
        "number": Int, "token": Text, "signed_by": Text, "keys": Text, "recovery": Text,
        "revocation": Int, "made_at": Int, "made_by": Text
    ];
    "legal_holds" 12 [
        "id": Text, "name": Text, "reason": Text, "kind": Text, "value": Text, "since": Int,
        "until": Int, "first_id": Text, "last_id": Text, "created_at": Int, "created_by": Text,
        "seal": Bytes
    ];
    "offences" 5 [
        "policy": Text, "target_kind": Text, "target_value": Text, "count": Int, "last_at": Int
    ];
    "policies" 6 [
        "name": Text, "version": Int, "document": Text, "created_at": Int, "updated_at": Int,
        "seal": Bytes
    ];
    "policy_versions" 6 [
        "name": Text, "version": Int, "document": Text, "changed_at": Int, "changed_by": Text,
        "seal": Bytes
    ];
    "protected_entries" 9 [
        "id": Text, "kind": Text, "value": Text, "policies": Text, "reason": Text,
        "expires_at": Int, "created_at": Int, "created_by": Text, "seal": Bytes
    ];
    "responses" 30 [
        "id": Text, "alert_id": Text, "policy": Text, "policy_version": Int, "action": Text,
        "target_kind": Text, "target_value": Text, "arguments": Text, "agents": Text,
        "until": Int, "state": Text, "reason": Text, "detail": Text, "requested_by": Text,
        "note": Text, "trace": Text, "created_at": Int, "ended_at": Int, "quorum": Int,
        "answer_by": Int, "on_silence": Text, "duration_millis": Int, "confirm_by": Int,
        "one_shot": Bool, "waves": Text, "break_glass": Text, "seal": Bytes, "case_ref": Text, "tlp": Text,
        "mitre": Text
    ];
    "results" 11 [
        "command_id": Text, "outcome": Text, "exit_code": Int, "output": Text,
        "verified": Bool, "message": Text, "started_at": Int, "finished_at": Int,
        "received_at": Int, "observed": Bool, "evidence": Text
    ];
    "webhooks" 14 [
        "name": Text, "version": Int, "document": Text, "place": Text, "url": Bytes, "secret": Bytes,
        "previous_secret": Bytes, "previous_until": Int, "created_at": Int, "created_by": Text,
        "changed_at": Int, "changed_by": Text, "agreed_by": Text, "seal": Bytes
    ];
    "webhook_states" 9 [
        "webhook": Text, "mark": Int, "failures": Int, "is_failing": Bool, "delivered": Int,
        "missed": Int, "delivered_at": Int, "failed_at": Int, "fault": Text
    ];
    "webhook_messages" 8 [
        "webhook": Text, "seq": Int, "at": Int, "type": Text, "body": Text, "tries": Int,
        "next_at": Int, "fault": Text
    ];
    "seals" 2 [
        "id": Int, "state": Bytes
    ];
    "secrets" 6 [
        "name": Text, "actions": Text, "changed_at": Int, "changed_by": Text, "sealed": Bytes,
        "seal": Bytes
    ];
    "sessions" 10 [
        "id": Text, "user_name": Text, "hash": Bytes, "created_at": Int, "used_at": Int,
        "expires_at": Int, "address": Text, "ended_at": Int, "issuer": Text, "seal": Bytes
    ];
    "sightings" 4 [
        "policy": Text, "counted": Text, "alert_id": Text, "at": Int
    ];
    "signing_keys" 4 [
        "kid": Text, "public_key": Text, "adopted_at": Int, "retired_at": Int
    ];
    "used_refresh_tokens" 3 [
        "hash": Bytes, "session_id": Text, "used_at": Int
    ];
    "users" 18 [
        "name": Text, "role": Text, "version": Int, "password": Text,
        "must_change_password": Bool, "totp_secret": Bytes, "totp_offered": Bytes,
        "totp_step": Int, "created_at": Int, "created_by": Text, "changed_at": Int,
        "disabled_at": Int, "deleted_at": Int, "last_login_at": Int, "last_login_from": Text,
        "known_networks": Text, "scope": Text, "seal": Bytes
    ];
    "waves" 4 [
        "response_id": Text, "nth": Int, "agents": Text, "due_at": Int
    ];
}
