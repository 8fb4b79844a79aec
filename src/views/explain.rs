//! `/v1/alerts/{id}/explain`: why each policy does or does not match an alert.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::responses::JudgedResponse;

/// Whether a selector holds, and why not.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SelectorVerdict {
    /// Whether all its conditions hold.
    pub holds: bool,
    /// The first condition that does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A policy's decision on the alert now.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyVerdict {
    /// Name of the policy.
    pub policy: String,
    /// Version of the policy.
    pub version: i64,
    /// Whether the policy matches.
    pub fires: bool,
    /// Its selectors, in order.
    pub selectors: Vec<SelectorVerdict>,
    /// `act`, `ask` (request approval), `observe` or `spare`; absent if it does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Why the response is spared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The responses to an alert, and the policies' decisions on it now.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// Id of the alert.
    pub alert_id: Uuid,
    /// The enrolled agent that the alert comes from, if known.
    pub origin: Option<Uuid>,
    /// Why the originating agent is ambiguous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_ambiguous: Option<String>,
    /// Responses decided at intake.
    pub decided: Vec<JudgedResponse>,
    /// Decision of every policy now.
    pub now: Vec<PolicyVerdict>,
}
