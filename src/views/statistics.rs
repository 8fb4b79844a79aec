//! `/v1/statistics`: how many alerts, responses and failures there were over time.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::command::CommandState;

/// Counts of a range of time.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Statistics {
    /// Begin of the first step.
    pub since: Timestamp,
    /// End of the last step.
    pub until: Timestamp,
    /// The steps, oldest first.
    pub steps: Vec<StatisticsStep>,
    /// Commands of the range that did not succeed, by action.
    pub failures: Vec<ActionFailures>,
}

/// Counts of one step.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatisticsStep {
    /// Its begin.
    pub at: Timestamp,
    /// Number of alerts that were received and are stored.
    pub alerts: i64,
    /// Number of responses that were decided, by their state now.
    pub responses: BTreeMap<String, i64>,
}

/// Commands of one action that did not succeed.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ActionFailures {
    /// Name of the action.
    pub action: String,
    /// `failed`, `timed_out`, `refused` or `expired`.
    #[schema(value_type = String)]
    pub state: CommandState,
    /// Number of commands.
    pub count: i64,
}
