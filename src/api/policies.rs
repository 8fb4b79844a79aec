//! `/v1/policies`: policies and their versions. The `ETag` is the version, and every change must
//! state the version that it replaces.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AppState;
use super::auth::{Caller, Read, WritePolicies};
use super::error::{ApiError, ApiResult};
use super::extract::{IfMatch, Json, Path, Query, reason};
use super::once;
use super::page::{Page, cursor_number, limit, page};
use crate::domain::action::Catalogue;
use crate::domain::fault::Fault;
use crate::domain::fleet::Fleet;
use crate::domain::policy::Policy;
use crate::engine::rehearse::rehearse;
use crate::store::StoreError;
use crate::store::actions;
use crate::store::audit::LedgerTx;
use crate::store::breakers::{self, AgentBreakerRow, BreakerRow};
use crate::store::columns::Millis;
use crate::store::policies::{self, PolicyRow, PolicyVersionRow};

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
    let claim = once::claim(&state, body.once(&caller.principal)).await?;
    // A retry is not validated again: the first request succeeded.
    if claim.answered().is_some() {
        state.engine.reload_policies().await?;
        let name = body.value["name"].as_str().unwrap_or_default();
        return Ok(tagged(StatusCode::CREATED, stored(&state, name).await?));
    }
    let policy = checked(&state, &body.value)?;
    let mut ledger = LedgerTx::begin(&state.engine.db).await?;
    let created = policies::create(&mut ledger, &policy, &caller.principal.name, state.engine.clock.now()).await;
    created.map_err(|error| taken(error, &policy.name))?;
    agree(&mut ledger, &policy).await?;
    claim.keep(&mut ledger, 201, "", state.engine.clock.now()).await?;
    state.engine.carry_through(ledger, |engine| async move { engine.reload_policies().await }).await?;
    Ok(tagged(StatusCode::CREATED, stored(&state, &policy.name).await?))
}

/// Parses a policy document and runs the policy's own tests.
pub(super) fn checked(state: &AppState, document: &Value) -> ApiResult<Policy> {
    let actions = state.engine.actions.load();
    let policy = Policy::parse(document, &actions).map_err(ApiError::invalid)?;
    let faults = rehearse(&policy, &state.engine.sources);
    if faults.is_empty() { Ok(policy) } else { Err(ApiError::invalid(faults)) }
}

/// Checks the policy against the actions in this transaction; the cache may lag behind another
/// change.
async fn agree(ledger: &mut LedgerTx, policy: &Policy) -> ApiResult<()> {
    let document = serde_json::to_value(policy).map_err(|error| ApiError::internal(&error))?;
    let parsed = Policy::parse(&document, &actions::catalogue(ledger).await?);
    parsed.map(|_| ()).map_err(|faults| not_right(&policy.name, &faults))
}

/// 409: the change would make the policy invalid.
pub(super) fn not_right(name: &str, faults: &[Fault]) -> ApiError {
    let fault = faults.first().map_or_else(String::new, |Fault { pointer, detail }| format!(": {pointer} {detail}"));
    ApiError::conflict(format!("policy {name} would be invalid with the current actions{fault}"))
}

fn taken(error: StoreError, name: &str) -> ApiError {
    match error {
        StoreError::Duplicate => ApiError::conflict(format!("a policy named {name} exists already")),
        other => other.into(),
    }
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
    let policy = checked(&state, &body.value)?;
    if policy.name != name {
        return Err(ApiError::invalid(vec![Fault::at(
            "/name",
            "must equal the name in the path; a policy keeps its name",
        )]));
    }
    let version = version.ok_or_else(ApiError::version_needed)?;
    let mut ledger = LedgerTx::begin(&state.engine.db).await?;
    let now = state.engine.clock.now();
    policies::update(&mut ledger, &policy, version, &caller.principal.name, now).await.map_err(|e| stale(e, &name))?;
    agree(&mut ledger, &policy).await?;
    state.engine.carry_through(ledger, |engine| async move { engine.reload_policies().await }).await?;
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
    let mut ledger = LedgerTx::begin(&state.engine.db).await?;
    let now = state.engine.clock.now();
    policies::delete(&mut ledger, &name, version, &caller.principal.name, now).await.map_err(|e| stale(e, &name))?;
    state.engine.carry_through(ledger, |engine| async move { engine.reload_policies().await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn stale(error: StoreError, name: &str) -> ApiError {
    match error {
        StoreError::NotFound => ApiError::not_found(format!("there is no policy called {name:?}")),
        StoreError::Conflict => {
            ApiError::changed(format!("policy {name} has another version than If-Match states; read it again"))
        }
        other => other.into(),
    }
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
    let row = policies::version(&state.engine.db, &name, body.value.version).await?;
    let document = row.and_then(|row| row.document).ok_or_else(|| {
        ApiError::invalid(vec![Fault::at("/version", "is not a version of this policy, or is the one that deleted it")])
    })?;
    let policy = checked(&state, &document.read::<Value>()?)?;
    let (mut ledger, now) = (LedgerTx::begin(&state.engine.db).await?, state.engine.clock.now());
    policies::update(&mut ledger, &policy, expected, &caller.principal.name, now).await.map_err(|e| stale(e, &name))?;
    agree(&mut ledger, &policy).await?;
    state.engine.carry_through(ledger, |engine| async move { engine.reload_policies().await }).await?;
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
    let fleet = state.engine.fleet.load();
    let agent = body.value.agent.as_deref().map(|word| {
        let unknown = || ApiError::invalid(vec![Fault::at("/agent", "is not an enrolled agent")]);
        fleet.called(word).ok_or_else(unknown)
    });
    let agent = agent.transpose()?.map(|agent| (agent.id, agent.name.as_str()));
    let (mut ledger, now) = (LedgerTx::begin(&state.engine.db).await?, state.engine.clock.now());
    let closed = breakers::reset(&mut ledger, &name, agent, &caller.principal.name, &why, now).await;
    closed.map_err(|error| match error {
        StoreError::Conflict => ApiError::conflict(format!("policy {name} has no open breaker there")),
        other => other.into(),
    })?;
    ledger.commit().await?;
    Ok(tagged(StatusCode::OK, stored(&state, &name).await?))
}
