//! `/v1/holds`: what no retention removes.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::columns::Millis;

/// A legal hold.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LegalHoldRow {
    /// UUIDv7.
    pub id: String,
    /// Name, such as the number of the case.
    pub name: String,
    /// Reason that the administrator entered.
    pub reason: String,
    /// What it covers: `response`, `policy`, `agent`, `target` or `time`.
    pub kind: String,
    /// Id, name or target; empty for `time`.
    pub value: String,
    /// Beginning of a range of times, inclusive; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// End of a range of times, exclusive; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// Time of creation.
    pub created_at: Millis,
    /// Principal that created it.
    pub created_by: String,
}

/// A legal hold to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLegalHold {
    /// Name, such as the number of the case; no other hold has it.
    #[schema(min_length = 1, max_length = 128, format = "one-line", example = "case-2026-17")]
    pub name: String,
    /// Reason.
    #[schema(format = "reason")]
    pub reason: String,
    /// What it covers: `response`, `policy`, `agent`, `target` or `time`.
    #[schema(example = "policy")]
    pub kind: String,
    /// Id of a response, name of a policy, id or name of an agent, or a target; absent for `time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, format = "one-line", example = "ssh-brute-force")]
    pub value: Option<String>,
    /// Only for `time`: beginning, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only for `time`: end, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}
