//! `POST /v1/responses/lift`: lifts many responses by policy, rule, alert, target or time. If the
//! filter matches none, the response says which of its names do not exist.

use axum::extract::State;
use axum::http::StatusCode;
use uuid::Uuid;

use super::front::auth::{Caller, Respond};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, reason};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::canonical;
use crate::domain::fault::Fault;
use crate::domain::formats::wazuh::canonical_rule_id;
use crate::domain::policy::Selector;
use crate::domain::response::{EndReason, ResponseEnd};
use crate::engine::refusal::Refusal;
use crate::store::configured::policies;
use crate::store::database::columns::id;
use crate::store::ledger::responses::{self, LiftFilter, ResponseFilter};
use crate::store::ledger::{alerts, lift_plans};
use crate::views::responses::{LiftMany, LiftPlan, Lifted};

/// Responses lifted per transaction.
const LIFT_BATCH: usize = 500;
/// Maximum length of a filter, in characters: that of the longest path.
const MAX_FILTER: usize = 4096;
/// Maximum number of responses that are named.
const MAX_NAMED: usize = 500;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(lift_many))
}

/// Names in the filter that the ledger does not contain: a typing error looks like an empty result.
async fn names_nothing(state: &AppState, filter: &LiftFilter) -> ApiResult<Vec<Fault>> {
    let mut warnings = Vec::new();
    if let Some(name) = &filter.policy
        && policies::versions(&state.engine.db, name, None, 1).await?.is_empty()
    {
        warnings.push(Fault::at("/policy", format!("no policy named {name:?} ever existed")));
    }
    if let Some(alert) = filter.alert
        && alerts::find(&state.engine.db, alert).await?.is_none()
    {
        warnings.push(no_alert());
    }
    if let Some(rule) = &filter.rule {
        let names = |selector: &Selector| selector.rule_ids.iter().any(|id| id == rule);
        let policies = state.engine.policies.load();
        let is_named = policies.policies().iter().any(|versioned| versioned.policy.selectors.iter().any(names));
        if !is_named && !responses::has_rule(&state.engine.db, rule).await? {
            let newest = responses::NEWEST;
            warnings.push(Fault::at(
                "/rule_id",
                format!("no policy names the rule {rule:?}, and none of the newest {newest} responses is due to it"),
            ));
        }
    }
    if let Some(target) = &filter.target {
        let same = ResponseFilter { target: Some(target.clone()), ..ResponseFilter::default() };
        if responses::list(&state.engine.db, same, None, 1).await?.is_empty() {
            warnings.push(Fault::at(
                "/target",
                format!("no response ever had the target {target:?}; write it in canonical form"),
            ));
        }
    }
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since >= until
    {
        warnings.push(Fault::at("/until", "is not after since, so the filter matches nothing"));
    }
    Ok(warnings)
}

fn no_alert() -> Fault {
    Fault::at("/alert_id", "is not a stored alert, neither by Riposte's id nor by its pipeline's")
}

/// The id of the alert that `word` names; `None` if there is none.
///
/// # Errors
/// 409 if several alerts have that id.
async fn alert_named(state: &AppState, visible: &Visible<'_>, word: &str) -> ApiResult<Option<Uuid>> {
    if let Ok(id) = word.parse() {
        return Ok(Some(id));
    }
    match super::alerts::named(state, visible, word).await {
        Ok(row) => Ok(Some(id(&row.id)?)),
        Err(error) if error.status() == StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

/// Those of the responses that the caller's scope covers.
async fn within_scope(state: &AppState, caller: &Caller<Respond>, found: Vec<Uuid>) -> ApiResult<Vec<Uuid>> {
    if caller.principal.scopes.all().is_empty() {
        return Ok(found);
    }
    let mut within = Vec::with_capacity(found.len());
    for id in found {
        let Some(row) = responses::find(&state.engine.db, id).await? else { continue };
        match state.engine.check_scope_of_response(&row, &caller.principal) {
            Ok(()) => within.push(id),
            Err(Refusal::NotFound(_) | Refusal::Forbidden(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(within)
}

/// What a lift would do. A policy that the caller's scope hides is not named.
async fn plan(state: &AppState, caller: &Caller<Respond>, responses: &[Uuid]) -> ApiResult<LiftPlan> {
    let visible = Visible::to(caller, &state.engine);
    let mut plan = lift_plans::of(&state.engine.db, responses).await?;
    plan.staying.retain(|effect| effect.policy.as_deref().is_none_or(|policy| visible.policy(policy)));
    Ok(plan)
}

/// Lifts many responses at once
///
/// Responses outside the caller's scope are left out.
/// An effect that no other response holds is reverted on every agent. A dry run says how many those are, and
/// what stays because another response holds it.
#[utoipa::path(post, path = "/v1/responses/lift", tag = "responses", request_body = LiftMany,
    responses((status = 200, body = Lifted), (status = 409)))]
pub async fn lift_many(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    body: Json<LiftMany>,
) -> ApiResult<axum::Json<Lifted>> {
    let LiftMany {
        policy,
        alert_id,
        rule_id,
        target,
        target_kind,
        since,
        until,
        responses: ids,
        everything,
        count,
        dry_run,
        reason: why,
    } = body.value;
    let why = reason(why)?;
    let texts = [("/policy", &policy), ("/alert_id", &alert_id), ("/rule_id", &rule_id), ("/target", &target)];
    for (pointer, text) in texts {
        if text.as_ref().is_some_and(|text| text.contains('\0') || text.chars().count() > MAX_FILTER) {
            let detail = format!("is longer than {MAX_FILTER} characters or contains NUL");
            return Err(ApiError::invalid(vec![Fault::at(pointer, detail)]));
        }
    }
    if ids.len() > MAX_NAMED {
        let detail = format!("has {} ids; at most {MAX_NAMED} can be lifted at once", ids.len());
        return Err(ApiError::invalid(vec![Fault::at("/responses", detail)]));
    }
    let (policy, target) = (policy.map(|name| canonical::name(&name)), target.map(|text| canonical::target(&text)));
    let alert = match &alert_id {
        Some(word) => match alert_named(&state, &Visible::to(&caller, &state.engine), word.trim()).await? {
            Some(alert) => Some(alert),
            None => {
                return Ok(axum::Json(Lifted {
                    count: 0,
                    responses: Vec::new(),
                    plan: None,
                    warnings: vec![no_alert()],
                }));
            }
        },
        None => None,
    };
    let rule = rule_id.map(|id| canonical_rule_id(&id));
    let filter = LiftFilter { policy, alert, rule, target, target_kind, since, until };
    if filter == LiftFilter::default() && ids.is_empty() && !everything {
        let detail = "the filter is empty; set everything to true to lift all responses";
        return Err(ApiError::invalid(vec![Fault::at("", detail)]));
    }
    let matching = responses::to_lift(&state.engine.db, &filter, &ids).await?;
    let responses = within_scope(&state, &caller, matching).await?;
    let found = responses.len();
    match count {
        None if everything && !dry_run => {
            let detail = format!("count is missing: this lifts {found} responses; send count {found} to lift them");
            return Err(ApiError::conflict(detail));
        }
        Some(count) if count != found => {
            let detail = format!("says {count}, and {found} responses would be lifted now; nothing was lifted");
            return Err(ApiError::conflict(detail));
        }
        _ => {}
    }
    if !dry_run {
        for some in responses.chunks(LIFT_BATCH) {
            let why = ResponseEnd { reason: EndReason::Lifted, detail: why.clone(), by: caller.principal.at() };
            state.engine.writer.release(some.to_vec(), why).await?;
        }
    }
    // The names of what a scope hides are not told.
    let warnings = if responses.is_empty() && caller.principal.scopes.all().is_empty() {
        names_nothing(&state, &filter).await?
    } else {
        Vec::new()
    };
    let plan = if dry_run { Some(plan(&state, &caller, &responses).await?) } else { None };
    Ok(axum::Json(Lifted { count: responses.len(), responses, plan, warnings }))
}
