//! `/v1/responses`: reading responses, and creating and lifting them by hand.

use crate::engine::respond::Order;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::alerts;
use super::front::auth::{Caller, Read, Respond};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query, reason, traceparent};
use super::front::page::{cursor_id, limit, page_until};
use super::outcomes;
use super::state::AppState;
use crate::domain::canonical;
use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::outcome::ResponseOutcome;
use crate::domain::response::{Decision, EndReason, ResponseEnd, ResponseState};
use crate::store::database::columns;
use crate::store::ledger::approvals::{self, ApprovalOutcome};
use crate::store::ledger::commands::{self, CommandFilter};
use crate::store::ledger::effects;
use crate::store::ledger::responses::{self, ResponseFilter};
use crate::views::page::Page;
use crate::views::responses::{JudgedResponse, Lift, ManualTarget, NewManualResponse, ResponseView, Say};

/// Maximum number of commands, results and effects shown with a response; the lists have all.
const SHOWN: i64 = 500;

/// The operations of this resource.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(find))
        .routes(routes!(lift))
        .routes(routes!(approve))
        .routes(routes!(reject))
        .routes(routes!(confirm))
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
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListResponses>,
    uri: Uri,
) -> ApiResult<Response> {
    let ListResponses { limit: asked, cursor, state: in_state, policy, alert_id, target, action, outcome } = query;
    let no_outcome = || ApiError::invalid(vec![Fault::at("/outcome", "is not a response outcome")]);
    let of_outcome = outcome.map(|word| ResponseOutcome::parse(&word).ok_or_else(no_outcome)).transpose()?;
    let no_state = || ApiError::invalid(vec![Fault::at("/state", "is not a response state")]);
    let in_state = in_state.map(|word| ResponseState::parse(&word).ok_or_else(no_state)).transpose()?;
    let (limit, before) = (limit(asked)?, cursor_id(cursor.as_deref())?);
    let alert = match alert_id.as_deref().map(|word| (word, word.parse::<Uuid>())) {
        None => None,
        Some((_, Ok(id))) => Some(id),
        Some((word, Err(_))) => Some(columns::id(&alerts::named(&state, word).await?.id)?),
    };
    let policy = policy.map(|name| canonical::name(&name));
    let (target, action) = (target.map(|text| canonical::target(&text)), action.map(|name| canonical::name(&name)));
    let filter = ResponseFilter { state: in_state, policy, alert, target, action };
    let (found, next) = outcomes::page_of(&state, filter, of_outcome, before, limit).await?;
    Ok(page_until(found, next, &uri))
}

/// Returns one response with its effects, commands and results
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "responses", params(("id" = Uuid, Path)),
    responses((status = 200, body = ResponseView)))]
pub async fn find(
    _: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<ResponseView>> {
    Ok(axum::Json(view(&state, id).await?))
}

async fn view(state: &AppState, id: Uuid) -> ApiResult<ResponseView> {
    let db = &state.engine.db;
    let response = responses::find(db, id).await?.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    let filter = CommandFilter { response: Some(id), ..CommandFilter::default() };
    let response = outcomes::judge(state, vec![response], SHOWN).await?.pop();
    let response = response.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    Ok(ResponseView {
        response,
        effects: effects::of_response(db, id, SHOWN).await?,
        commands: commands::list(db, filter, None, SHOWN).await?,
        results: commands::results_of_response(db, id, SHOWN).await?,
        answers: approvals::of_response(db, id).await?,
    })
}

/// Creates a manual response
#[utoipa::path(post, path = "/v1/responses", tag = "responses",
    params(("Idempotency-Key" = Option<String>, Header)), request_body = NewManualResponse,
    responses((status = 201, body = ResponseView)))]
pub async fn create(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Json<NewManualResponse>,
) -> ApiResult<(StatusCode, axum::Json<ResponseView>)> {
    let once = body.once(&caller.principal);
    let NewManualResponse { action, target, agents, duration, reason, arguments } = body.value;
    let order = Order {
        action,
        target: target.map(|target| match target {
            ManualTarget::Value(value) => (None, value),
            ManualTarget::Full { kind, value } => (Some(kind), value),
        }),
        agents,
        duration: duration.map(Span::duration),
        reason,
        arguments,
        trace: traceparent(&headers).map(str::to_owned),
    };
    let id = state.engine.respond(order, once, &caller.principal.actor).await?;
    Ok((StatusCode::CREATED, axum::Json(view(&state, id).await?)))
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
    match standing.state {
        ResponseState::Active => {
            let why = ResponseEnd { reason: EndReason::Lifted, detail: reason, by: caller.principal.actor };
            state.engine.writer.release(vec![id], why).await?;
        }
        ResponseState::Ended => {}
        other => {
            return Err(ApiError::conflict(format!("the response is {}; there is nothing to lift", other.as_str())));
        }
    }
    Ok(axum::Json(view(&state, id).await?))
}

async fn decide(
    caller: Caller<Respond>,
    state: AppState,
    id: Uuid,
    said: Say,
    decision: Decision,
) -> ApiResult<axum::Json<ResponseView>> {
    if decision == Decision::Approve {
        caller.person("approvals count people")?;
    }
    let reason = reason(said.reason)?;
    let before = responses::find(&state.engine.db, id).await?;
    let before = before.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    match state.engine.writer.decide(id, caller.principal.actor, decision, reason).await? {
        ApprovalOutcome::Counted => {}
        ApprovalOutcome::Carried => state.engine.undo.look_again(),
        ApprovalOutcome::NotWaiting => {
            return Err(ApiError::conflict(format!(
                "the response is {}, and does not wait for this decision",
                before.state.as_str()
            )));
        }
        ApprovalOutcome::NotYours => {
            return Err(ApiError::conflict(
                "the requester of a response cannot approve it, and each principal decides once",
            ));
        }
        ApprovalOutcome::OwnPolicy => {
            return Err(ApiError::conflict(
                "you wrote this version of the policy that made the response: another person must approve it",
            ));
        }
    }
    Ok(axum::Json(view(&state, id).await?))
}

/// Approves a response that waits for approval
///
/// It is carried out once the policy's quorum of people has approved. A service key gets 403: people
/// approve, by a session or a personal key. The requester of the response and the author of the
/// policy's version get 409.
#[utoipa::path(post, path = "/v1/responses/{id}/approve", tag = "responses", params(("id" = Uuid, Path)),
    request_body = Say, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn approve(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Say>,
) -> ApiResult<axum::Json<ResponseView>> {
    decide(caller, state, id, body.value, Decision::Approve).await
}

/// Rejects a response that waits for approval
///
/// One rejection ends it.
#[utoipa::path(post, path = "/v1/responses/{id}/reject", tag = "responses", params(("id" = Uuid, Path)),
    request_body = Say, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn reject(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Say>,
) -> ApiResult<axum::Json<ResponseView>> {
    decide(caller, state, id, body.value, Decision::Reject).await
}

/// Confirms a response that acted first
///
/// Without a confirmation in time the response is undone.
#[utoipa::path(post, path = "/v1/responses/{id}/confirm", tag = "responses", params(("id" = Uuid, Path)),
    request_body = Say, responses((status = 200, body = ResponseView), (status = 409)))]
pub async fn confirm(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Say>,
) -> ApiResult<axum::Json<ResponseView>> {
    decide(caller, state, id, body.value, Decision::Confirm).await
}
