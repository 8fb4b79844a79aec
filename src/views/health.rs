//! `/readyz`: whether the manager can work, and how its stages are doing.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Readiness of the manager.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Whether the manager is ready.
    pub ready: bool,
    /// Current problems, one sentence each.
    pub problems: Vec<String>,
    /// What needs attention, although the manager can work: a renewed certificate that cannot be
    /// used, for example.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Owners of deadlines: when each last ran, and how late it is.
    pub stages: BTreeMap<String, Round>,
    /// Fill level of the writer's queue, from 0 to 1.
    pub writer_load: f64,
    /// Whether deliveries are frozen.
    pub frozen: bool,
    /// Number of agents with a stream to this node.
    pub agents_streaming: i64,
    /// Number of agents that rejected this manager's commands within the last hour; absent while
    /// the ledger cannot be read.
    pub agents_rejecting: Option<i64>,
}

/// A stage at its last round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Round {
    /// Last round without a fault; absent before the first.
    pub last_finished_at: Option<Timestamp>,
    /// Duration of that round, in milliseconds.
    pub took_millis: u64,
    /// How late the next round is, in milliseconds.
    pub late_millis: u64,
    /// Fault of the last round, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}
