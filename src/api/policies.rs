//! `/v1/policies`: policies and their versions. The `ETag` is the version, and every change must
//! state the version that it replaces.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AppState;
use super::front::auth::{Caller, Read, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path, Query, reason};
use super::front::page::{Page, cursor_number, limit, page};
use crate::domain::action::Catalogue;
use crate::domain::fault::Fault;
use crate::domain::fleet::Fleet;
use crate::domain::policy::Policy;
use crate::store::StoreError;
use crate::store::configured::breakers::{self, AgentBreakerRow, BreakerRow};
use crate::store::configured::policies::{self, PolicyRow, PolicyVersionRow};
use crate::store::database::columns::Millis;

/// A policy at its current version.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PolicyView {
    /// The policy.
    #[serde(flatten)]
    pub policy: Policy,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped_agents: Vec<AgentBreakerRow>,
}

impl PolicyView {
    fn read(row: PolicyRow, actions: &Catalogue, fleet: &Fleet) -> Result<Self, StoreError> {
        let PolicyRow { name, version, document, created_at, updated_at } = row;
        let policy = Policy::parse_stored(&document.read::<Value>()?, actions)
            .map_err(|faults| StoreError::Corrupt(format!("policy {name}: {faults:?}")))?;
        let mut warnings = policy.warnings();
        let dead = policy.dead_conditions().into_iter();
        warnings.extend(dead.map(|fault| Fault::at(fault.pointer, format!("never holds: {}", fault.detail))));
        if let Some(action) = actions.find(&policy.respond.action) {
            warnings.extend(policy.fleet_warnings(action, fleet));
        }
        Ok(Self { policy, version, created_at, updated_at, warnings, stopped: None, stopped_agents: Vec::new() })
    }
}

fn tagged(status: StatusCode, view: PolicyView) -> Response {
    let tag = format!("\"{}\"", view.version);
    (status, [(header::ETAG, tag)], axum::Json(view)).into_response()
}

async fn stored(state: &AppState, name: &str) -> ApiResult<PolicyView> {
    let row = policies::find(&state.engine.db, name).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("there is no policy called {name:?}")))?;
    let view = PolicyView::read(row, &state.engine.actions.load(), &state.engine.fleet.load())?;
    let breaker = breakers::of_policy(&state.engine.db, name).await?;
    let stopped_agents = breakers::agents_of_policy(&state.engine.db, name).await?;
    Ok(PolicyView { stopped: breaker.filter(|breaker| breaker.is_open), stopped_agents, ..view })
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
#[utoipa::path(get, path = "/v1/policies", tag = "policies", params(ListPolicies), responses((status = 200, body = Page<PolicyView>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListPolicies>,
    uri: Uri,
) -> ApiResult<Response> {
    let limit = limit(query.limit)?;
    let rows = policies::list(&state.engine.db, query.cursor.as_deref().unwrap_or_default(), limit + 1).await?;
    let (actions, fleet) = (state.engine.actions.load(), state.engine.fleet.load());
    let mut views =
        rows.into_iter().map(|row| PolicyView::read(row, &actions, &fleet)).collect::<Result<Vec<_>, _>>()?;
    for breaker in breakers::open_policies(&state.engine.db).await? {
        if let Some(view) = views.iter_mut().find(|view| view.policy.name == breaker.policy) {
            view.stopped = Some(breaker);
        }
    }
    for breaker in breakers::open_agents(&state.engine.db).await? {
        if let Some(view) = views.iter_mut().find(|view| view.policy.name == breaker.policy) {
            view.stopped_agents.push(breaker);
        }
    }
    Ok(page(views, limit, &uri, |view| view.policy.name.clone()))
}

/// Creates a policy
///
/// A policy with faults is refused as a whole, with a pointer to each fault.
#[utoipa::path(post, path = "/v1/policies", tag = "policies", request_body = Policy, responses((status = 201, body = PolicyView)))]
pub async fn create(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    body: Json<Value>,
) -> ApiResult<Response> {
    let once = body.once(&caller.principal);
    let name = state.engine.create_policy(&body.value, once, &caller.principal.name).await?;
    Ok(tagged(StatusCode::CREATED, stored(&state, &name).await?))
}

/// Returns one policy
#[utoipa::path(get, path = "/v1/policies/{name}", tag = "policies", params(("name" = String, Path)), responses((status = 200, body = PolicyView)))]
pub async fn find(_: Caller<Read>, State(state): State<AppState>, Path(name): Path<String>) -> ApiResult<Response> {
    Ok(tagged(StatusCode::OK, stored(&state, &name).await?))
}

/// Replaces a policy
///
/// `If-Match` must carry the `ETag` that was read. The response is 412 if the policy has changed
/// since, and 428 if the header is missing.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = Policy, responses((status = 200, body = PolicyView)))]
pub async fn replace(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
    body: Json<Value>,
) -> ApiResult<Response> {
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.replace_policy(&name, version, &body.value, &caller.principal.name).await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name).await?))
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
    state.engine.delete_policy(&name, version, &caller.principal.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the versions of a policy, newest first
#[utoipa::path(get, path = "/v1/policies/{name}/versions", tag = "policies", params(("name" = String, Path), ListPolicies),
    responses((status = 200, body = Page<PolicyVersionRow>)))]
pub async fn versions(
    _: Caller<Read>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(query): Query<ListPolicies>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, before) = (limit(query.limit)?, cursor_number(query.cursor.as_deref())?);
    let rows = policies::versions(&state.engine.db, &name, before, limit + 1).await?;
    if rows.is_empty() && before.is_none() {
        return Err(ApiError::not_found(format!("no policy named {name:?} ever existed")));
    }
    Ok(page(rows, limit, &uri, |row| row.version.to_string()))
}

/// A rollback of a policy.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The version whose document becomes current again.
    version: i64,
}

/// Restores an earlier version of a policy
///
/// `If-Match` as for a replacement. The earlier version is validated again, because it may use a
/// deleted action.
#[utoipa::path(post, path = "/v1/policies/{name}/rollback", tag = "policies",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = Rollback, responses((status = 200, body = PolicyView)))]
pub async fn rollback(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(expected): IfMatch,
    body: Json<Rollback>,
) -> ApiResult<Response> {
    let expected = expected.ok_or_else(ApiError::version_needed)?;
    stored(&state, &name).await?;
    state.engine.roll_back_policy(&name, expected, body.value.version, &caller.principal.name).await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name).await?))
}

/// A reset of a policy's breaker.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetBreaker {
    /// Reason; recorded in the audit log.
    reason: String,
    /// Agent, by id or name; absent: the global breaker and those of all agents.
    #[serde(default)]
    agent: Option<String>,
}

/// Closes the breaker of a stopped policy
///
/// Its failure counts start at zero again. The response is 409 if no breaker is open there.
#[utoipa::path(post, path = "/v1/policies/{name}/reset", tag = "policies", params(("name" = String, Path)),
    request_body = ResetBreaker, responses((status = 200, body = PolicyView)))]
pub async fn reset(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<ResetBreaker>,
) -> ApiResult<Response> {
    let why = reason(body.value.reason)?;
    stored(&state, &name).await?;
    let agent = body.value.agent.as_deref();
    state.engine.reset_breaker(&name, agent, &why, &caller.principal.name).await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name).await?))
}
