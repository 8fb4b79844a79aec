//! `/v1/responses`: reading responses, and creating and lifting them by hand.

use std::sync::Arc;

use crate::engine::respond::{JudgedOrder, Order, may_break_glass};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::alerts;
use super::front::auth::{self, Caller, Read, Respond};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query, reason, traceparent};
use super::front::page::{cursor_id, limit, page_until};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::outcomes;
use super::state::AppState;
use crate::domain::agent::Agent;
use crate::domain::canonical;
use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::filing::Filing;
use crate::domain::outcome::ResponseOutcome;
use crate::domain::principal::Principal;
use crate::domain::response::{Decision, EndReason, ResponseEnd, ResponseState, Spared, Verdict};
use crate::store::database::columns;
use crate::store::ledger::approvals::{self, ApprovalDecision, ApprovalOutcome};
use crate::store::ledger::commands::{self, CommandFilter};
use crate::store::ledger::effects;
use crate::store::ledger::responses::{self, ResponseFilter};
use crate::views::page::Page;
use crate::views::responses::{
    AlreadyHeld, ApproveResponse, FileResponse, JudgedResponse, Lift, ManualPreview, ManualTarget, NewManualResponse,
    PreviewAgent, ResponseView, Say, UnableAgent,
};

/// Maximum number of commands, results and effects shown with a response; the lists have all.
const SHOWN: i64 = 500;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(list, create))
        .with(operations!(find))
        .with(operations!(lift))
        .with(operations!(file))
        .with(operations!(approve))
        .with(operations!(reject))
        .with(operations!(confirm))
}

/// Filter of a response list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListResponses {
    limit: Option<i64>,
    cursor: Option<String>,
    /// State.
    #[param(inline)]
    state: Option<String>,
    /// Policy that decided.
    policy: Option<String>,
    /// Alert that caused it: Riposte's id or the pipeline's.
    alert_id: Option<String>,
    /// Target; an address in any notation.
    target: Option<String>,
    /// Name of the action.
    action: Option<String>,
    /// Case that they belong to.
    case: Option<String>,
    /// Outcome: `pending`, `in_force`, `partly`, `failed` or `lifted`.
    #[param(inline)]
    outcome: Option<String>,
}

/// Lists responses, newest first
///
/// Outcomes are computed when read: a page filtered by `outcome` may be short or empty and still
/// have a next one.
#[utoipa::path(get, path = "/v1/responses", tag = "responses", params(ListResponses),
    responses((status = 200, body = Page<JudgedResponse>), (status = 404), (status = 409)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListResponses>,
    uri: Uri,
) -> ApiResult<Response> {
    let ListResponses { limit: asked, cursor, state: in_state, policy, alert_id, target, action, case, outcome } =
        query;
    let no_outcome = || ApiError::invalid(vec![Fault::at("/outcome", "is not a response outcome")]);
    let of_outcome = outcome.map(|word| ResponseOutcome::parse(&word).ok_or_else(no_outcome)).transpose()?;
    let no_state = || ApiError::invalid(vec![Fault::at("/state", "is not a response state")]);
    let in_state = in_state.map(|word| ResponseState::parse(&word).ok_or_else(no_state)).transpose()?;
    let (limit, before) = (limit(asked)?, cursor_id(cursor.as_deref())?);
    let visible = Visible::to(&caller, &state.engine);
    let alert = match alert_id.as_deref().map(|word| (word, word.parse::<Uuid>())) {
        None => None,
        Some((_, Ok(id))) => Some(id),
        Some((word, Err(_))) => Some(columns::id(&alerts::named(&state, &visible, word).await?.id)?),
    };
    let policy = policy.map(|name| canonical::name(&name));
    let (target, action) = (target.map(|text| canonical::target(&text)), action.map(|name| canonical::name(&name)));
    let filter = ResponseFilter { state: in_state, policy, alert, target, action, case };
    let (found, next) = outcomes::page_of(&state, &visible, filter, of_outcome, before, limit).await?;
    Ok(page_until(found, next, &uri))
}

/// Returns one response with its effects, commands and results
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "responses", params(("id" = Uuid, Path)),
    responses((status = 200, body = ResponseView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<ResponseView>> {
    Ok(axum::Json(view(&state, &Visible::to(&caller, &state.engine), id, SHOWN).await?))
}

/// A response with at most `shown` effects, commands, results and agents.
///
/// # Errors
/// 404 if it does not exist, or is hidden.
pub(super) async fn view(state: &AppState, visible: &Visible<'_>, id: Uuid, shown: i64) -> ApiResult<ResponseView> {
    let db = &state.engine.db;
    let response = responses::find(db, id).await?.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    let filter = CommandFilter { response: Some(id), ..CommandFilter::default() };
    let response = outcomes::judge(state, visible, vec![response], shown).await?.pop();
    let response = response.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    let mut view = ResponseView {
        response,
        effects: effects::of_response(db, id, shown).await?,
        commands: commands::list(db, filter, None, shown).await?,
        results: commands::results_of_response(db, id, shown).await?,
        answers: approvals::of_response(db, id).await?,
    };
    visible.cut(&mut view);
    Ok(view)
}

/// Creates a manual response
///
/// On more agents than the configuration allows one person, and for some actions on more than one,
/// it waits for the approval of a second person. `break_glass` acts at once, with an entry of its own
/// in the audit log.
#[utoipa::path(post, path = "/v1/responses", tag = "responses",
    params(("Idempotency-Key" = Option<String>, Header)), request_body = NewManualResponse,
    responses((status = 201, body = ResponseView), (status = 409),
        (status = 200, description = "A dry run", body = ManualPreview)))]
pub async fn create(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Json<NewManualResponse>,
) -> ApiResult<Response> {
    let once = body.once(&caller.principal);
    let NewManualResponse { action, target, agents, on, duration, reason, arguments, break_glass, dry_run, case, tlp } =
        body.value;
    let filing = Filing::read(case.as_deref(), tlp.as_deref()).map_err(ApiError::invalid)?;
    let order = Order {
        action,
        target: target.map(|target| match target {
            ManualTarget::Value(value) => (None, value),
            ManualTarget::Full { kind, value } => (Some(kind), value),
        }),
        agents,
        on,
        break_glass,
        duration: duration.map(Span::duration),
        reason,
        arguments,
        trace: traceparent(&headers).map(str::to_owned),
        filing,
    };
    if dry_run {
        let decided = state.engine.preview(order, &caller.principal)?;
        let preview = preview(&state, &Visible::to(&caller, &state.engine), decided).await?;
        return Ok(axum::Json(preview).into_response());
    }
    let id = state.engine.respond(order, once, &caller.principal).await?;
    let view = view(&state, &Visible::to(&caller, &state.engine), id, SHOWN).await?;
    Ok((StatusCode::CREATED, axum::Json(view)).into_response())
}

async fn preview(state: &AppState, visible: &Visible<'_>, decided: JudgedOrder) -> ApiResult<ManualPreview> {
    let JudgedOrder { response, unable } = decided;
    let fleet = state.engine.fleet.load();
    let agents: Vec<PreviewAgent> = response
        .agents
        .iter()
        .filter_map(|id| fleet.get(*id))
        .map(|agent| PreviewAgent { id: agent.id, name: agent.name.clone() })
        .collect();
    let held = match &response.target {
        Some(target) if !response.one_shot => {
            effects::held_on(&state.engine.db, &response.agents, &response.action, target).await?
        }
        _ => Vec::new(),
    };
    let already_held = agents.iter().filter_map(|agent| {
        let held = held.iter().find(|held| held.agent_id == agent.id.to_string())?;
        Some(AlreadyHeld { id: agent.id, name: agent.name.clone(), effect_id: held.id.clone(), until: held.until })
    });
    let (protected, unable): (Vec<_>, Vec<_>) = unable.iter().partition(|(_, why)| matches!(why, Spared::Protected(_)));
    let enrolled = visible.enrolled_count();
    Ok(ManualPreview {
        state: response.first_state(),
        detail: match &response.verdict {
            Verdict::Spare(spared) => spared.detail(),
            _ => response.remark.clone(),
        },
        target: response.target.as_ref().map(|target| target.value().to_owned()),
        quorum: if let Verdict::Await(waits) = &response.verdict { Some(waits.quorum) } else { None },
        unable: unable.into_iter().map(left_out).collect(),
        protected: protected.into_iter().map(left_out).collect(),
        already_held: already_held.collect(),
        enrolled,
        share: share(agents.len(), enrolled),
        agents,
    })
}

fn left_out((agent, why): &(Arc<Agent>, Spared)) -> UnableAgent {
    UnableAgent { id: agent.id, name: agent.name.clone(), reason: why.detail() }
}

#[expect(clippy::cast_precision_loss, reason = "no fleet has 2^52 agents")]
fn share(agents: usize, enrolled: usize) -> f64 {
    if enrolled == 0 { 0.0 } else { agents as f64 / enrolled as f64 }
}

/// Lifts a response
///
/// An effect that no other response holds is reverted on every agent. Lifting an ended response
/// changes nothing.
#[utoipa::path(post, path = "/v1/responses/{id}/lift", tag = "responses", params(("id" = Uuid, Path)),
    request_body = Lift, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn lift(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Lift>,
) -> ApiResult<axum::Json<ResponseView>> {
    let reason = reason(body.value.reason)?;
    let standing = responses::find(&state.engine.db, id).await?;
    let standing = standing.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    state.engine.check_scope_of_response(&standing, &caller.principal)?;
    match standing.state {
        ResponseState::Active => {
            let why = ResponseEnd { reason: EndReason::Lifted, detail: reason, by: caller.principal.actor.clone() };
            state.engine.writer.release(vec![id], why).await?;
        }
        ResponseState::Ended => {}
        other => {
            return Err(ApiError::conflict(format!("the response is {}; there is nothing to lift", other.as_str())));
        }
    }
    Ok(axum::Json(view(&state, &Visible::to(&caller, &state.engine), id, SHOWN).await?))
}

/// Files a response under a case of a system elsewhere, or sets how confidential it is
///
/// Both are carried by its events from then on, and replace what was set before.
#[utoipa::path(put, path = "/v1/responses/{id}/case", tag = "responses", params(("id" = Uuid, Path)),
    request_body = FileResponse, responses((status = 200, body = ResponseView)))]
pub async fn file(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<FileResponse>,
) -> ApiResult<axum::Json<ResponseView>> {
    let FileResponse { case, tlp } = body.value;
    let filing = Filing::read(case.as_deref(), tlp.as_deref()).map_err(ApiError::invalid)?;
    let standing = responses::find(&state.engine.db, id).await?;
    let standing = standing.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    state.engine.check_scope_of_response(&standing, &caller.principal)?;
    state.engine.file_response(id, &filing, &caller.principal).await?;
    Ok(axum::Json(view(&state, &Visible::to(&caller, &state.engine), id, SHOWN).await?))
}

/// Records what a person decides on a response.
///
/// # Errors
/// 409 if it does not wait, or not for this person; 422 without a reason.
pub(super) async fn decide_as(
    state: &AppState,
    principal: &Principal,
    id: Uuid,
    decision: Decision,
    (text, break_glass): (String, bool),
) -> ApiResult<()> {
    let reason = reason(text)?;
    let before = responses::find(&state.engine.db, id).await?;
    let before = before.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    state.engine.check_scope_of_response(&before, principal)?;
    let said = ApprovalDecision { decision, break_glass, per_hour: principal.scopes.responses_per_hour(), reason };
    match state.engine.decide_response(id, said, principal).await? {
        // The engine refuses an approval over the limit of the scope.
        ApprovalOutcome::Counted | ApprovalOutcome::Carried | ApprovalOutcome::Full(_) => Ok(()),
        ApprovalOutcome::NotWaiting => Err(ApiError::conflict(format!(
            "the response is {}, and does not wait for this decision",
            before.state.as_str()
        ))),
        ApprovalOutcome::NotYours => {
            Err(ApiError::conflict("the requester of a response cannot approve it, and each principal decides once"))
        }
        ApprovalOutcome::OwnPolicy => Err(ApiError::conflict(
            "you wrote this version of the policy that made the response: another person must approve it",
        )),
    }
}

async fn decide(
    caller: Caller<auth::Approve>,
    state: AppState,
    id: Uuid,
    decision: Decision,
    (text, break_glass): (String, bool),
) -> ApiResult<axum::Json<ResponseView>> {
    if break_glass {
        may_break_glass(&caller.principal)?;
    } else if decision == Decision::Approve {
        caller.person("approvals count people")?;
    }
    decide_as(&state, &caller.principal, id, decision, (text, break_glass)).await?;
    Ok(axum::Json(view(&state, &Visible::to(&caller, &state.engine), id, SHOWN).await?))
}

/// Approves a response that waits for approval
///
/// It is carried out once the policy's quorum of people has approved. A service key gets 403: people
/// approve, by a session or a personal key. The requester of the response and the author of the
/// policy's version get 409.
#[utoipa::path(post, path = "/v1/responses/{id}/approve", tag = "responses", params(("id" = Uuid, Path)),
    request_body = ApproveResponse, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn approve(
    caller: Caller<auth::Approve>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<ApproveResponse>,
) -> ApiResult<axum::Json<ResponseView>> {
    let ApproveResponse { reason, break_glass } = body.value;
    decide(caller, state, id, Decision::Approve, (reason, break_glass)).await
}

/// Rejects a response that waits for approval
///
/// One rejection ends it.
#[utoipa::path(post, path = "/v1/responses/{id}/reject", tag = "responses", params(("id" = Uuid, Path)),
    request_body = Say, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn reject(
    caller: Caller<auth::Approve>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Say>,
) -> ApiResult<axum::Json<ResponseView>> {
    decide(caller, state, id, Decision::Reject, (body.value.reason, false)).await
}

/// Confirms a response that acted first
///
/// Without a confirmation in time the response is undone.
#[utoipa::path(post, path = "/v1/responses/{id}/confirm", tag = "responses", params(("id" = Uuid, Path)),
    request_body = Say, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn confirm(
    caller: Caller<auth::Approve>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Say>,
) -> ApiResult<axum::Json<ResponseView>> {
    decide(caller, state, id, Decision::Confirm, (body.value.reason, false)).await
}
