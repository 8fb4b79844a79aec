//! `/v1/nodes`: the managers on one ledger.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a manager is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It has a lease, and serves.
    Serving,
    /// It has a lease, and reads the configuration before it serves.
    Starting,
    /// Its lease has ended: it was killed, stands still, or cannot reach the database.
    Lost,
}

impl NodeState {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Starting => "starting",
            Self::Lost => "lost",
        }
    }
}

/// A duty that one manager at a time has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeDuty {
    /// `undo`, `sweep` or `checkpoints`.
    pub name: String,
    /// By how many seconds the latest of its rounds is late. Only known of the manager that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_seconds: Option<i64>,
}

/// A manager.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Node {
    /// This run of it, a UUID.
    pub id: String,
    /// Host, process and address.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// What it is doing.
    pub state: NodeState,
    /// Whether it is the one that was asked.
    pub asked: bool,
    /// How many changes of the configuration are not in force there.
    pub changes_behind: i64,
    /// Its clock minus the database's, in milliseconds.
    pub clock_off_millis: i64,
    /// The duties that it has.
    pub duties: Vec<NodeDuty>,
}
