//! Which rows are sealed, and which of their columns grant something. Those of a [`SealedSet`] are counted
//! as a set too, so that one that is missing is found; those of a [`SealedTable`] come and go with each
//! response, and are looked at one by one where they are used.

/// Rows that are sealed one by one.
#[derive(Debug)]
pub struct SealedTable {
    /// The table, which is what the rows are called too.
    pub table: &'static str,
    /// The columns that name a row.
    pub id: &'static [&'static str],
    /// The columns that grant something, with those of `id`, in the order in which they are sealed.
    pub columns: &'static [&'static str],
}

/// Rows that are sealed one by one and as a set.
#[derive(Debug)]
pub struct SealedSet {
    /// The rows.
    pub rows: SealedTable,
    /// The columns of all rows.
    pub(super) all: &'static str,
    /// The columns of the row with a name.
    pub(super) one: &'static str,
    /// Writes the seal of the row with a name.
    pub(super) write: &'static str,
}

macro_rules! sealed_sets {
    ($($(#[doc = $doc:literal])+ $name:ident = $table:literal by $key:literal [$($id:literal),+], $first:literal $(, $column:literal)*;)+) => {
        $($(#[doc = $doc])+ pub static $name: SealedSet = SealedSet {
            rows: SealedTable { table: $table, id: &[$($id),+], columns: &[$first $(, $column)*] },
            all: concat!("SELECT ", $first $(, ", ", $column)*, ", seal FROM ", $table),
            one: concat!("SELECT ", $first $(, ", ", $column)*, ", seal FROM ", $table, " WHERE ", $key, " = $1"),
            write: concat!("UPDATE ", $table, " SET seal = $2 WHERE ", $key, " = $1"),
        };)+

        /// All sets.
        pub(super) static SETS: &[&SealedSet] = &[$(&$name),+];

        /// Every statement of the sets.
        pub(in crate::store) const STATEMENTS: &[(&str, &str)] = &[$(
            (concat!($table, " all"), concat!("SELECT ", $first $(, ", ", $column)*, ", seal FROM ", $table)),
            (concat!($table, " one"), concat!("SELECT ", $first $(, ", ", $column)*, ", seal FROM ", $table, " WHERE ", $key, " = $1")),
            (concat!($table, " write"), concat!("UPDATE ", $table, " SET seal = $2 WHERE ", $key, " = $1")),
        )+];
    };
}

sealed_sets! {
    /// API keys.
    KEYS = "api_keys" by "id" ["id"],
        "id", "name", "hash", "role", "user_name", "pipeline", "expires_at", "revoked_at", "scope", "is_webhook";
    /// People.
    USERS = "users" by "name" ["name"],
        "name", "role", "version", "password", "must_change_password", "totp_secret", "disabled_at", "deleted_at", "scope";
    /// Subjects of OpenID providers that are users.
    IDENTITIES = "identities" by "issuer || ' ' || subject" ["issuer", "subject"],
        "issuer", "subject", "user_name", "role_from_groups";
    /// Sessions of people.
    SESSIONS = "sessions" by "id" ["id"], "id", "user_name", "hash", "expires_at", "ended_at";
    /// Policies at their current version.
    POLICIES = "policies" by "name" ["name"], "name", "version", "document";
    /// Actions that people added.
    ACTIONS = "actions" by "name" ["name"], "name", "version", "document";
    /// Protected entries.
    PROTECTED = "protected_entries" by "id" ["id"], "id", "kind", "value", "policies", "expires_at";
    /// Agents.
    AGENTS = "agents" by "id" ["id"], "id", "name", "public_key", "previous_key", "labels", "revoked_at";
    /// The freeze.
    FREEZE = "freezes" by "CAST(id AS TEXT)" ["id"], "id", "frozen";
    /// Enrolment tokens.
    ENROLMENT_TOKENS = "enrollment_tokens" by "id" ["id"], "id", "hash", "labels", "uses_left", "expires_at";
    /// Secrets, with the actions that may receive them.
    SECRETS = "secrets" by "name" ["name"], "name", "actions", "sealed";
    /// Webhooks: where events go, and which.
    WEBHOOKS = "webhooks" by "name" ["name"],
        "name", "version", "document", "url", "secret", "previous_secret", "previous_until", "agreed_by";
    /// Feeds: what firewalls are told to block.
    FEEDS = "feeds" by "name" ["name"], "name", "version", "document";
    /// Legal holds.
    LEGAL_HOLDS = "legal_holds" by "id" ["id"], "id", "kind", "value", "since", "until", "first_id", "last_id";
}

/// Commands: all that is signed of one.
pub static COMMANDS: SealedTable = SealedTable {
    table: "commands",
    id: &["id"],
    columns: &[
        "id",
        "agent_id",
        "seq",
        "effect_id",
        "response_id",
        "op",
        "action",
        "target_kind",
        "target_value",
        "arguments",
        "until",
        "created_at",
        "expires_at",
    ],
};

/// Effects: what is to be in force, and until when.
pub static EFFECTS: SealedTable = SealedTable {
    table: "effects",
    id: &["id"],
    columns: &["id", "agent_id", "action", "target_kind", "target_value", "arguments", "desired", "until"],
};

/// Responses: what is carried out after an approval, after a silence, or with the next wave.
pub static RESPONSES: SealedTable = SealedTable {
    table: "responses",
    id: &["id"],
    columns: &[
        "id",
        "policy",
        "policy_version",
        "action",
        "target_kind",
        "target_value",
        "arguments",
        "agents",
        "until",
        "requested_by",
        "quorum",
        "answer_by",
        "on_silence",
        "duration_millis",
        "waves",
        "one_shot",
    ],
};

/// Decisions of people.
pub static ANSWERS: SealedTable = SealedTable {
    table: "answers",
    id: &["response_id", "principal"],
    columns: &["response_id", "principal", "answer"],
};

/// Versions of policies, with their authors.
pub static POLICY_VERSIONS: SealedTable = SealedTable {
    table: "policy_versions",
    id: &["name", "version"],
    columns: &["name", "version", "document", "changed_by"],
};
