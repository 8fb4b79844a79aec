//! `/v1/policies`: policies with their versions, breakers and counts.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::{JsonText, Millis};
use super::document::DocumentText;
use crate::domain::fault::Fault;
use crate::domain::policy::Policy;

/// A policy at its current version.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyView {
    /// The policy.
    #[serde(flatten)]
    #[schema(value_type = Policy)]
    pub policy: DocumentText,
    /// Current version, equal to the `ETag`.
    pub version: i64,
    /// Creation time.
    pub created_at: Millis,
    /// Time of the last change.
    pub updated_at: Millis,
    /// Warnings about the policy itself, and about the currently enrolled agents.
    pub warnings: Vec<Fault>,
    /// Its open global breaker, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<BreakerRow>,
    /// Its open breakers on single agents, at most 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped_agents: Vec<AgentBreakerRow>,
}

/// What a client reads of a policy's document.
#[derive(Debug, Deserialize)]
pub struct PolicySummary {
    /// Unique name.
    pub name: String,
    /// What it does when it matches: `enforce`, `approve` or `observe`.
    pub mode: String,
    /// The response.
    pub respond: RespondSummary,
    /// Whether it has a circuit breaker.
    pub breaker: Option<IgnoredAny>,
}

/// What a client reads of the response of a policy.
#[derive(Debug, Deserialize)]
pub struct RespondSummary {
    /// Name of the action.
    pub action: String,
    /// Agents on which it acts: a word, or an object.
    pub on: Value,
    /// Duration; absent: until lifted by hand.
    #[serde(rename = "for")]
    pub duration: Option<String>,
}

/// A rollback of a policy.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The version whose document becomes current again.
    #[schema(minimum = 1)]
    pub version: i64,
}

/// A reset of a policy's breaker.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetBreaker {
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
    /// Agent, by id or name; absent: the global breaker and those of all agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "agent-word")]
    pub agent: Option<String>,
}

/// One version of a policy.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyVersionRow {
    /// Version number.
    pub version: i64,
    /// The policy at this version; absent if this version deleted it.
    pub document: Option<JsonText>,
    /// Time of the change.
    pub changed_at: Millis,
    /// Principal that made it.
    pub changed_by: String,
}

/// The global breaker of a policy.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BreakerRow {
    /// Policy name.
    pub policy: String,
    /// Whether the policy is stopped.
    pub is_open: bool,
    /// Reason of the last change.
    pub reason: String,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Principal or component that made it.
    pub changed_by: String,
}

/// An open breaker of a policy on one agent.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentBreakerRow {
    /// Policy name.
    pub policy: String,
    /// Id of the agent on which the policy is stopped.
    pub agent_id: String,
    /// Name of the agent.
    pub agent: String,
    /// Reason of the last change.
    pub reason: String,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Principal or component that made it.
    pub changed_by: String,
}

/// Counts of a policy's responses.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyCounts {
    /// Name of the policy.
    pub policy: String,
    /// Start of the range.
    pub since: Timestamp,
    /// Number of responses by state.
    pub responses: BTreeMap<String, i64>,
    /// Those that have ended, by what became of them: `failed` (in force, or done, on no agent) or `lifted`.
    pub ended: BTreeMap<String, i64>,
    /// Those that were spared, by reason.
    pub spared: BTreeMap<String, i64>,
    /// Number of observed responses: `would_act`, or the guardrail that would have stopped them.
    pub observed: BTreeMap<String, i64>,
    /// Failures of its conditions (`when`) since the manager started; a failed condition counts as
    /// false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions_failed: Option<FailedConditions>,
    /// Number of distinct targets, without spared responses.
    pub targets: i64,
}

/// How often the conditions of one policy failed since the manager started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FailedConditions {
    /// Failures because of a missing field, which is normal if a condition fits only some alerts.
    pub missing_field: u64,
    /// Failures for other reasons, such as an invalid address.
    pub fault: u64,
    /// Reason of the last failure.
    pub last: String,
    /// Time of the last failure.
    pub last_at: Timestamp,
}
