//! `/v1/policies/backtest`: a draft over the stored alerts.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::problem::Problem;
use crate::domain::policy::Policy;

/// A draft, and the range of alerts for its test.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBacktest {
    /// The policy; it need not be stored.
    #[schema(value_type = Policy)]
    pub policy: Value,
    /// Earliest event time, inclusive.
    #[serde(default, alias = "from", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// Latest event time, exclusive.
    #[serde(default, alias = "to", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// Number of examples, at most 1000; default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1000, default = 20)]
    pub samples: Option<usize>,
}

/// An example of what the draft would have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Sample {
    /// Id of the alert.
    pub alert_id: Uuid,
    /// Event time of the alert.
    pub time: Timestamp,
    /// Rule of the alert.
    pub rule_id: String,
    /// `act`, `ask` (request approval) or `spare`.
    pub outcome: String,
    /// Why it would have been spared, or held for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its number of agents.
    pub agents: usize,
}

/// Result of a backtest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Report)]
pub struct BacktestReport {
    /// Number of alerts read.
    pub alerts_scanned: u64,
    /// Number of matching alerts, before guardrails.
    pub matched: u64,
    /// Number of responses that would have acted or been held for approval.
    pub responses: u64,
    /// Number of responses held for approval.
    pub awaiting_approval: u64,
    /// Number of distinct targets.
    pub targets: u64,
    /// Number of distinct agents.
    pub agents: u64,
    /// Number of spared responses by reason.
    pub spared: BTreeMap<String, u64>,
    /// Maximum number of responses within one minute.
    pub peak_per_minute: u64,
    /// Examples.
    pub samples: Vec<Sample>,
}

/// One line of a streamed backtest: how far it is, and last its result or an error.
#[derive(Debug, Serialize, Deserialize)]
pub struct BacktestLine<R = BacktestReport> {
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<BacktestProgress>,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<R>,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

impl<R> Default for BacktestLine<R> {
    fn default() -> Self {
        Self { progress: None, result: None, error: None }
    }
}

/// How far a backtest is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BacktestProgress {
    /// Number of alerts read.
    pub scanned: u64,
    /// Number of alerts in the range.
    pub total: u64,
}
