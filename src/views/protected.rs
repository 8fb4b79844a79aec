//! `/v1/protected`: what no response may touch.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::columns::{JsonText, Millis};
use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::response::Hold;

/// A protected entry.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProtectedRow {
    /// UUIDv7.
    pub id: String,
    /// `ip`, `user`, `file`, `process`, `host` or `agent`.
    pub kind: String,
    /// Address, network, account, path, process number or agent id; in canonical form.
    pub value: String,
    /// Policies that the entry applies to; empty: every response.
    #[schema(value_type = Vec<String>)]
    pub policies: JsonText,
    /// Reason that the operator entered.
    pub reason: String,
    /// Expiry time; absent: until it is deleted.
    pub expires_at: Option<Millis>,
    /// Creation time.
    pub created_at: Millis,
    /// Principal that created it.
    pub created_by: String,
}

/// A protected entry to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProtected {
    /// `ip`, `user`, `file`, `process`, `host` or `agent`.
    #[schema(example = "ip")]
    pub kind: String,
    /// An address or network, an account, a file or folder, a process number, or (`host`, `agent`)
    /// an agent's id or name.
    #[schema(example = "203.0.113.0/24")]
    pub value: String,
    /// Policies that the entry applies to; empty: every response.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Reason for the protection.
    #[schema(format = "reason")]
    pub reason: String,
    /// Validity; absent: until it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "duration-text", example = "30d")]
    pub expires_in: Option<Span>,
}

/// A new entry, and the effects that it lifts.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedProtected {
    /// UUIDv7; absent for a dry run.
    pub id: Option<Uuid>,
    /// Kind of the entry.
    pub kind: String,
    /// Protected value in canonical form.
    pub value: String,
    /// Expiry time; absent: until it is deleted.
    pub expires_at: Option<Timestamp>,
    /// Holds that the entry ends, or would end.
    pub lifts: Vec<Hold>,
    /// Warnings about the entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Fault>,
}
