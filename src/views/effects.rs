//! `/v1/effects`: what is in force where, why and until when.

use serde::{Deserialize, Serialize};

use super::columns::Millis;
use super::field_errors;
use crate::domain::effect::{Actual, Desired, LastApply};

/// One effect.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EffectRow {
    /// UUIDv7.
    pub id: String,
    /// Id of the agent.
    pub agent_id: String,
    /// Name of the action.
    pub action: String,
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
    /// Wanted state: `in_force` or `absent`.
    #[schema(value_type = String)]
    pub desired: Desired,
    /// Last reported state: `unknown`, `in_force`, `absent` or `drifted`.
    #[schema(value_type = String)]
    pub actual: Actual,
    /// End of the longest hold; absent if lifted by hand.
    pub until: Option<Millis>,
    /// Consecutive failed reverts; more than 0 is an incident.
    pub failed_reverts: i64,
    /// Time of the next revert attempt.
    pub next_revert_at: Option<Millis>,
    /// Creation time.
    pub created_at: Millis,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Outcome of the newest finished apply: `verified`, `unverified` (it cannot be verified),
    /// `observed`, `failed`, `refused`, `timed_out`, `expired` or `cancelled`. Absent before the
    /// first one finishes.
    #[schema(value_type = Option<String>)]
    pub last_apply: Option<LastApply>,
    /// Message of the agent or the manager for `last_apply`.
    pub last_reason: String,
    /// Whether its agent was revoked: `actual` is what that agent said last, and nothing is known of it any more.
    pub agent_revoked: bool,
}

/// A response that holds an effect.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HolderRow {
    /// Id of the response.
    pub response_id: String,
    /// End of the hold; absent if lifted by hand.
    pub until: Option<Millis>,
}

/// A feed that lists or listed the target of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EffectFeed {
    /// Name of the feed.
    pub feed: String,
    /// Whether the target was removed from its list; then the fetches of the removal are counted.
    pub is_removed: bool,
    /// Number of the feed's consumers that have fetched a list with it, or without it if it was removed.
    pub fetched_by: i64,
    /// Number of the feed's consumers.
    pub consumers: i64,
}

/// An effect and its holds.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EffectView {
    /// The effect.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub effect: EffectRow,
    /// The responses that hold it; the longest hold wins.
    pub held_by: Vec<HolderRow>,
    /// The feeds that list or listed its target, and how many of their consumers know. What a consumer has fetched is
    /// not verified by an agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feeds: Vec<EffectFeed>,
}
