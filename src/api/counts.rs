//! `/v1/policies/{name}/counts`: what a policy did, would have done, and was kept from doing.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use riposte_protocol::time::Timestamp;
use serde::Deserialize;

use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::{Path, Query};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::duration::Span;
use crate::domain::outcome::ResponseOutcome;
use crate::domain::response::ResponseState;
use crate::store::ledger::responses::{self, StateCount};
use crate::views::policies::PolicyCounts;

/// Default range of the counts.
const DEFAULT_WITHIN: std::time::Duration = std::time::Duration::from_hours(24);

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(find))
}

/// Range of the counts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Within {
    /// Length of the range, which ends now; default 24h.
    #[param(value_type = Option<String>, example = "24h")]
    within: Option<Span>,
}

/// Counts a policy's responses by state and reason
#[utoipa::path(get, operation_id = "counts", path = "/v1/policies/{name}/counts", tag = "policies",
    params(("name" = String, Path), Within), responses((status = 200, body = PolicyCounts)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(policy): Path<String>,
    Query(query): Query<Within>,
) -> ApiResult<axum::Json<PolicyCounts>> {
    let within = query.within.map_or(DEFAULT_WITHIN, Span::duration);
    let since = state.engine.clock.now().minus(within);
    let (mut by_state, mut ended) = (BTreeMap::new(), BTreeMap::new());
    let (mut spared, mut observed) = (BTreeMap::new(), BTreeMap::new());
    let visible = Visible::to(&caller, &state.engine);
    let (counts, targets) = counted(&state, &visible, &policy, since).await?;
    for row in counts {
        match row.state {
            ResponseState::Ended => {
                let outcome = if row.in_vain { ResponseOutcome::Failed } else { ResponseOutcome::Lifted };
                *ended.entry(outcome.as_str().to_owned()).or_insert(0) += row.count;
            }
            ResponseState::Spared => *spared.entry(row.reason).or_insert(0) += row.count,
            ResponseState::Observed if row.reason.is_empty() => {
                *observed.entry("would_act".to_owned()).or_insert(0) += row.count;
            }
            ResponseState::Observed => *observed.entry(row.reason).or_insert(0) += row.count,
            ResponseState::AwaitingApproval
            | ResponseState::Active
            | ResponseState::Rejected
            | ResponseState::Lapsed => {}
        }
        *by_state.entry(row.state.as_str().to_owned()).or_insert(0) += row.count;
    }
    let conditions_failed = state.engine.conditions.of(&policy);
    let responses = by_state;
    Ok(axum::Json(PolicyCounts { policy, since, responses, ended, spared, observed, conditions_failed, targets }))
}

/// The responses and the number of targets of `policy`, as far as they are visible.
async fn counted(
    state: &AppState,
    visible: &Visible<'_>,
    policy: &str,
    since: Timestamp,
) -> ApiResult<(Vec<StateCount>, i64)> {
    let db = &state.engine.db;
    if !visible.policy(policy) {
        return Ok((Vec::new(), 0));
    }
    if !visible.hides_agents() {
        return Ok((responses::counts(db, policy, since).await?, responses::targets(db, policy, since).await?));
    }
    let (mut counts, mut targets) = (Vec::new(), BTreeSet::new());
    for row in responses::counts_by_agents(db, policy, since).await? {
        if visible.any_agent(&row.agents)? {
            counts.push(row.count);
        }
    }
    for row in responses::targets_by_agents(db, policy, since).await? {
        if visible.any_agent(&row.agents)? {
            targets.extend(row.target_value);
        }
    }
    Ok((counts, i64::try_from(targets.len()).unwrap_or(i64::MAX)))
}
