//! `/v1/policies/{name}/counts`: what a policy did, would have done, and was kept from doing.

use std::collections::BTreeMap;

use axum::extract::State;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::AppState;
use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::{Path, Query};
use crate::domain::duration::Span;
use crate::domain::outcome::ResponseOutcome;
use crate::engine::conditions::FailedConditions;
use crate::store::ledger::responses;

/// Default range of the counts.
const DEFAULT_WITHIN: std::time::Duration = std::time::Duration::from_hours(24);

/// Range of the counts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Within {
    /// Length of the range, which ends now; default 24h.
    #[param(value_type = Option<String>, example = "24h")]
    within: Option<Span>,
}

/// Counts of a policy's responses.
#[derive(Debug, Serialize, utoipa::ToSchema)]
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

/// Counts a policy's responses by state and reason
#[utoipa::path(get, operation_id = "counts", path = "/v1/policies/{name}/counts", tag = "policies", params(("name" = String, Path), Within),
    responses((status = 200, body = PolicyCounts)))]
pub async fn find(
    _: Caller<Read>,
    State(state): State<AppState>,
    Path(policy): Path<String>,
    Query(query): Query<Within>,
) -> ApiResult<axum::Json<PolicyCounts>> {
    let within = query.within.map_or(DEFAULT_WITHIN, Span::duration);
    let since = state.engine.clock.now().minus(within);
    let db = &state.engine.db;
    let (mut by_state, mut ended) = (BTreeMap::new(), BTreeMap::new());
    let (mut spared, mut observed) = (BTreeMap::new(), BTreeMap::new());
    for row in responses::counts(db, &policy, since).await? {
        match row.state.as_str() {
            "ended" => {
                let outcome = if row.in_vain { ResponseOutcome::Failed } else { ResponseOutcome::Lifted };
                *ended.entry(outcome.as_str().to_owned()).or_insert(0) += row.count;
            }
            "spared" => *spared.entry(row.reason).or_insert(0) += row.count,
            "observed" if row.reason.is_empty() => *observed.entry("would_act".to_owned()).or_insert(0) += row.count,
            "observed" => *observed.entry(row.reason).or_insert(0) += row.count,
            _ => {}
        }
        *by_state.entry(row.state).or_insert(0) += row.count;
    }
    let targets = responses::targets(db, &policy, since).await?;
    let conditions_failed = state.engine.conditions.of(&policy);
    let responses = by_state;
    Ok(axum::Json(PolicyCounts { policy, since, responses, ended, spared, observed, conditions_failed, targets }))
}
