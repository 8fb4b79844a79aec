//! `/v1/freeze`: the emergency stop.

use serde::{Deserialize, Serialize};

use super::columns::Millis;

/// State of the freeze.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FreezeRow {
    /// Whether deliveries are frozen.
    pub frozen: bool,
    /// Reason of the last change.
    pub reason: String,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Principal that made it.
    pub changed_by: String,
}

/// The state of the freeze.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Freeze {
    /// Whether deliveries are frozen.
    pub frozen: bool,
    /// Number of commands that wait because of it; 0 without a freeze. Reverts never wait.
    #[serde(default)]
    pub held_back: i64,
    /// The last change; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_change: Option<FreezeRow>,
}

/// A change of the freeze.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetFreeze {
    /// True to freeze, false to thaw.
    pub frozen: bool,
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
}
