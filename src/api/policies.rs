//! `/v1/policies`: policies and their versions. The `ETag` is the version, and every change must
//! state the version that it replaces.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::front::auth::{Caller, Needed, Read, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path, Query, reason};
use super::front::page::{cursor_number, limit, page};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::action::hidden;
use crate::domain::fault::Fault;
use crate::domain::policy::Policy;
use crate::domain::principal::Principal;
use crate::domain::right::Right;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::configured::breakers;
use crate::store::configured::policies::{self, PolicyRow};
use crate::views::document::DocumentText;
use crate::views::page::Page;
use crate::views::policies::{AgentBreakerRow, BreakerRow, PolicyVersionRow, PolicyView, ResetBreaker, Rollback};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(list, create))
        .with(operations!(find, replace, delete))
        .with(operations!(versions))
        .with(operations!(rollback))
        .with(operations!(reset))
}

/// The open breakers of one policy: its global one, and those on single agents.
type Breakers = (Option<BreakerRow>, Vec<AgentBreakerRow>);

fn view(engine: &Engine, row: PolicyRow, breakers: Breakers, by: &Principal) -> ApiResult<PolicyView> {
    let (actions, fleet) = (engine.actions.load(), engine.fleet.load());
    let PolicyRow { name, version, document, created_at, updated_at } = row;
    let mut policy = Policy::parse_stored(&document.read::<Value>().map_err(StoreError::from)?, &actions)
        .map_err(|faults| StoreError::Corrupt(format!("policy {name}: {faults:?}")))?;
    let mut warnings = policy.warnings();
    let dead = policy.dead_conditions().into_iter();
    warnings.extend(dead.map(|fault| Fault::at(fault.pointer, format!("never holds: {}", fault.detail))));
    if let Some(action) = actions.find(&policy.respond.action) {
        warnings.extend(policy.fleet_warnings(action, &fleet));
    }
    warnings.extend(engine.approval_warning(&policy));
    let refused = engine.db.seals().refuses("policies", &name);
    warnings.extend(refused.map(|why| Fault::at("", format!("decides nothing: {why}"))));
    if !sees_clear(by) {
        let respond = &mut policy.respond;
        hidden::hide(&respond.action, &mut respond.arguments);
    }
    let policy = DocumentText::of(&policy).map_err(|error| ApiError::internal(&error))?;
    let (stopped, stopped_agents) = breakers;
    Ok(PolicyView { policy, version, created_at, updated_at, warnings, stopped, stopped_agents })
}

/// Who may change a policy reads it as it was written: it is sent back with the change.
fn sees_clear(by: &Principal) -> bool {
    by.may(Right::WritePolicies)
}

fn tagged(status: StatusCode, view: PolicyView) -> Response {
    let tag = format!("\"{}\"", view.version);
    (status, [(header::ETAG, tag)], axum::Json(view)).into_response()
}

async fn stored(state: &AppState, name: &str, by: &Principal) -> ApiResult<PolicyView> {
    let row = policies::find(&state.engine.db, name).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("there is no policy called {name:?}")))?;
    let stopped = breakers::of_policy(&state.engine.db, name).await?.filter(|breaker| breaker.is_open);
    let stopped_agents = breakers::agents_of_policy(&state.engine.db, name).await?;
    view(&state.engine, row, (stopped, stopped_agents), by)
}

/// Filter of a policy list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListPolicies {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists policies by name
#[utoipa::path(get, path = "/v1/policies", tag = "policies", params(ListPolicies),
    responses((status = 200, body = Page<PolicyView>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListPolicies>,
    uri: Uri,
) -> ApiResult<Response> {
    let mut open: HashMap<String, Breakers> = HashMap::new();
    for breaker in breakers::open_policies(&state.engine.db).await? {
        let (stopped, _) = open.entry(breaker.policy.clone()).or_default();
        *stopped = Some(breaker);
    }
    for breaker in breakers::open_agents(&state.engine.db).await? {
        let (_, stopped_agents) = open.entry(breaker.policy.clone()).or_default();
        stopped_agents.push(breaker);
    }
    let visible = Visible::to(&caller, &state.engine);
    let mut page = visible.filling(limit(query.limit)?, query.cursor);
    while let Some((cursor, count)) = page.wants() {
        let mut shown = Vec::new();
        for row in policies::list(&state.engine.db, cursor.as_deref().unwrap_or_default(), count).await? {
            let (name, breakers) = (row.name.clone(), open.remove(&row.name).unwrap_or_default());
            let view =
                if visible.policy(&name) { Some(view(&state.engine, row, breakers, &caller.principal)?) } else { None };
            shown.push((name, view));
        }
        page.add(shown);
    }
    Ok(page.page(&uri))
}

fn seen<R: Needed>(caller: &Caller<R>, state: &AppState, name: &str) -> ApiResult<()> {
    let not_found = || ApiError::not_found(format!("no policy named {name:?} ever existed"));
    Visible::to(caller, &state.engine).policy(name).then_some(()).ok_or_else(not_found)
}

/// Creates a policy
///
/// A policy with faults is refused as a whole, with a pointer to each fault.
#[utoipa::path(post, path = "/v1/policies", tag = "policies", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = Policy, responses((status = 201, body = PolicyView), (status = 409)))]
pub async fn create(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    body: Json<Value>,
) -> ApiResult<Response> {
    let once = body.once(&caller.principal);
    let name = state.engine.create_policy(&body.value, once, &caller.principal).await?;
    Ok(tagged(StatusCode::CREATED, stored(&state, &name, &caller.principal).await?))
}

/// Returns one policy
#[utoipa::path(get, path = "/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = PolicyView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    seen(&caller, &state, &name)?;
    Ok(tagged(StatusCode::OK, stored(&state, &name, &caller.principal).await?))
}

/// Replaces a policy
///
/// `If-Match` must carry the `ETag` that was read. The response is 412 if the policy has changed
/// since, and 428 if the header is missing.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = Policy,
    responses((status = 200, body = PolicyView), (status = 409)))]
pub async fn replace(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
    body: Json<Value>,
) -> ApiResult<Response> {
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.replace_policy(&name, version, &body.value, &caller.principal).await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name, &caller.principal).await?))
}

/// Deletes a policy
///
/// Its responses stay in force and its versions are kept.
#[utoipa::path(delete, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = String, Path), ("If-Match" = String, Header)), responses((status = 204)))]
pub async fn delete(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
) -> ApiResult<StatusCode> {
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.delete_policy(&name, version, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the versions of a policy, newest first
#[utoipa::path(get, path = "/v1/policies/{name}/versions", tag = "policies",
    params(("name" = String, Path), ListPolicies), responses((status = 200, body = Page<PolicyVersionRow>)))]
pub async fn versions(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(query): Query<ListPolicies>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, before) = (limit(query.limit)?, cursor_number(query.cursor.as_deref())?);
    seen(&caller, &state, &name)?;
    let mut rows = policies::versions(&state.engine.db, &name, before, limit + 1).await?;
    if rows.is_empty() && before.is_none() {
        return Err(ApiError::not_found(format!("no policy named {name:?} ever existed")));
    }
    if !sees_clear(&caller.principal) {
        for document in rows.iter_mut().filter_map(|row| row.document.as_mut()) {
            document.hide_in_policy().map_err(StoreError::from)?;
        }
    }
    Ok(page(rows, limit, &uri, |row| row.version.to_string()))
}

/// Restores an earlier version of a policy
///
/// `If-Match` as for a replacement. The earlier version is validated again, because it may use a
/// deleted action.
#[utoipa::path(post, path = "/v1/policies/{name}/rollback", tag = "policies",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = Rollback,
    responses((status = 200, body = PolicyView), (status = 409)))]
pub async fn rollback(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(expected): IfMatch,
    body: Json<Rollback>,
) -> ApiResult<Response> {
    let expected = expected.ok_or_else(ApiError::version_needed)?;
    stored(&state, &name, &caller.principal).await?;
    state.engine.roll_back_policy(&name, expected, body.value.version, &caller.principal).await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name, &caller.principal).await?))
}

/// Closes the breaker of a stopped policy
///
/// Its failure counts start at zero again. The response is 409 if no breaker is open there.
#[utoipa::path(post, path = "/v1/policies/{name}/reset", tag = "policies", params(("name" = String, Path)),
    request_body = ResetBreaker, responses((status = 200, body = PolicyView), (status = 409)))]
pub async fn reset(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<ResetBreaker>,
) -> ApiResult<Response> {
    let why = reason(body.value.reason)?;
    stored(&state, &name, &caller.principal).await?;
    let agent = body.value.agent.as_deref();
    state.engine.reset_breaker(&name, agent, &why, &caller.principal).await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name, &caller.principal).await?))
}
