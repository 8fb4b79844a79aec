//! `/v1/targets`: what is blocked, one row per target: where, why, by whom and until when.

use serde::{Deserialize, Serialize};

use super::columns::Millis;
use super::effects::{EffectFeed, EffectRow, HolderRow};
use super::field_errors;
use super::protected::ProtectedRow;
use super::responses::JudgedResponse;
use crate::domain::outcome::EffectOutcome;

/// A target that is wanted or in force on an agent. The numbers of effects by outcome add up to `effects`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetRow {
    /// Kind of the target.
    pub kind: String,
    /// Target in canonical form.
    pub value: String,
    /// Number of agents.
    pub agents: i64,
    /// Number of effects: one for each agent and action.
    pub effects: i64,
    /// Number of effects that are in force and verified.
    pub in_force: i64,
    /// Number of effects that are in force and cannot be verified.
    pub unverified: i64,
    /// Number of effects that are not in force yet, with a command in flight.
    pub pending: i64,
    /// Number of effects that are not in force, without a command in flight.
    pub failed: i64,
    /// Number of effects that were in force and were lost, without a command in flight.
    pub drifted: i64,
    /// Number of effects that are no longer wanted and still there.
    pub reverting: i64,
    /// Number of those whose last revert failed.
    pub failing: i64,
    /// Names of the actions.
    pub actions: Vec<String>,
    /// Latest end of the effects that are wanted; absent if one of them is lifted by hand, or none is wanted.
    pub until: Option<Millis>,
    /// Active responses, newest first, at most 5.
    pub held_by: Vec<TargetHolder>,
    /// Number of active responses.
    pub responses: i64,
    /// Time of the last change of an effect; absent if nothing is wanted or in force.
    pub changed_at: Option<Millis>,
}

/// An active response to a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetHolder {
    /// Id of the response.
    pub response_id: String,
    /// Policy that decided; absent for a manual response.
    pub policy: Option<String>,
    /// Requester: `policy:NAME`, `user:NAME` or `key:ID`.
    pub requested_by: String,
    /// Name of the action.
    pub action: String,
    /// Rule of its alert; absent for a manual response.
    pub rule: Option<HolderRule>,
    /// Reason that the requester entered.
    pub note: String,
    /// End of the response; absent if lifted by hand.
    pub until: Option<Millis>,
    /// Decision time.
    pub created_at: Millis,
}

/// The rule of an alert that a response is due to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HolderRule {
    /// Rule id.
    pub id: String,
    /// Level.
    pub level: u8,
    /// Description in the alert.
    pub description: String,
}

/// An effect on a target.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetEffect {
    /// The effect.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub effect: EffectRow,
    /// Name of the agent.
    pub agent: String,
    /// What became of it; absent if its agent was revoked.
    pub outcome: Option<EffectOutcome>,
    /// The responses that hold it.
    pub held_by: Vec<HolderRow>,
}

/// Everything known of a target.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetView {
    /// What is wanted or in force.
    pub target: TargetRow,
    /// Its effects that are wanted or in force, at most 500.
    pub effects: Vec<TargetEffect>,
    /// Responses of every state, newest first, at most 50.
    pub responses: Vec<JudgedResponse>,
    /// The protected entries that cover it.
    pub protected: Vec<ProtectedRow>,
    /// The feeds that list or listed it.
    pub feeds: Vec<EffectFeed>,
}
