//! `/v1/forwarders`: the programs that bring alerts. They report themselves each minute, so that one that has stopped is not
//! taken for a quiet night.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;

use super::front::auth::{Administer, Caller, Ingest, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query};
use super::front::page::{limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::fault::Fault;
use crate::store::StoreError;
use crate::store::ledger::forwarders;
use crate::views::forwarders::{ForwarderReport, ForwarderRow};
use crate::views::page::Page;

/// Longest name, in characters.
const MAX_NAME: usize = 256;
/// Longest version, in characters.
const MAX_VERSION: usize = 64;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list)).with(operations!(report, forget))
}

/// Page of forwarders.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListForwarders {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists forwarders by name, with when each was heard last and how far it is behind
#[utoipa::path(get, path = "/v1/forwarders", tag = "forwarders", params(ListForwarders),
    responses((status = 200, body = Page<ForwarderRow>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListForwarders>,
    uri: Uri,
) -> ApiResult<Response> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().unwrap_or_default();
    let mut rows = forwarders::list(&state.engine.db, after, limit + 1).await?;
    if caller.principal.scopes.limit_agents() {
        // They bring the alerts of all agents.
        rows.clear();
    }
    Ok(page(rows, limit, &uri, |row: &ForwarderRow| row.name.clone()))
}

/// Reports a forwarder
///
/// `riposte forward` sends it each minute. After five minutes without a report the event `incident.forwarder_silent` is told,
/// and `incident.forwarder_back` with the next one.
#[utoipa::path(put, path = "/v1/forwarders/{name}", tag = "forwarders", params(("name" = String, Path)),
    request_body = ForwarderReport, responses((status = 204), (status = 409)))]
pub async fn report(
    caller: Caller<Ingest>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<ForwarderReport>,
) -> ApiResult<StatusCode> {
    if !caller.principal.scopes.speak_for(&name) {
        return Err(ApiError::forbidden("the scope of the key does not include this Wazuh manager"));
    }
    let is_line =
        |text: &str, most: usize| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    let mut faults = Vec::new();
    if !is_line(&name, MAX_NAME) {
        faults.push(Fault::at("", format!("the name must be one line of 1 to {MAX_NAME} characters")));
    }
    if !is_line(&body.value.version, MAX_VERSION) {
        faults.push(Fault::at("/version", format!("must be one line of 1 to {MAX_VERSION} characters")));
    }
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    let (now, by) = (state.engine.clock.now(), &caller.principal.actor);
    forwarders::report(&state.engine.db, &name, &body.value, by, now).await.map_err(|error| match error {
        StoreError::Conflict => ApiError::conflict("there are too many forwarders; forget those that are no more"),
        error => error.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a forwarder that is no more
#[utoipa::path(delete, path = "/v1/forwarders/{name}", tag = "forwarders", params(("name" = String, Path)),
    responses((status = 204)))]
pub async fn forget(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    caller.unlimited("forwarders bring the alerts of all agents")?;
    let (engine, by) = (&state.engine, caller.principal.at());
    let was_known = forwarders::delete(&engine.db, &name, &by, engine.clock.now()).await?;
    if was_known { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found("there is no such forwarder")) }
}
