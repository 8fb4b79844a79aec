//! `/v1/actions`: the actions that agents can run. Built-in actions are fixed; operators add
//! programs from the agents' own folder.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::front::auth::{Caller, Read, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path};
use super::front::page::page_until;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::action::{Action, Catalogue};
use crate::store::configured::actions::{self, ActionRow};
use crate::views::actions::{ActionView, CustomAction};
use crate::views::document::DocumentText;
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list, create)).with(operations!(find, replace, delete))
}

/// Lists the actions by name
#[utoipa::path(get, path = "/v1/actions", tag = "actions", responses((status = 200, body = Page<ActionView>)))]
pub async fn list(_: Caller<Read>, State(state): State<AppState>, uri: Uri) -> ApiResult<Response> {
    let own = Catalogue::built_in().iter().map(|action| Ok((action.name.clone(), built_in(action)?)));
    let rows = actions::all(&state.engine.db).await?;
    let custom = rows.iter().map(|row| Ok((row.name.clone(), custom(row)?)));
    let views = own.chain(custom).collect::<ApiResult<BTreeMap<_, _>>>()?;
    Ok(page_until(views.into_values().collect(), None, &uri))
}

fn built_in(action: &Action) -> ApiResult<ActionView> {
    let action = DocumentText::of(action).map_err(|error| ApiError::internal(&error))?;
    Ok(ActionView { action, version: None, updated_at: None })
}

fn custom(row: &ActionRow) -> ApiResult<ActionView> {
    let view = built_in(&row.action()?)?;
    Ok(ActionView { version: Some(row.version), updated_at: Some(row.updated_at), ..view })
}

fn answer(status: StatusCode, view: ActionView) -> Response {
    match view.version {
        Some(version) => (status, [(header::ETAG, format!("\"{version}\""))], axum::Json(view)).into_response(),
        None => (status, axum::Json(view)).into_response(),
    }
}

async fn stored(state: &AppState, name: &str) -> ApiResult<ActionView> {
    if let Some(action) = Catalogue::built_in().find(name) {
        return built_in(action);
    }
    let row = actions::find(&state.engine.db, name).await?.ok_or_else(|| unknown(name))?;
    custom(&row)
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("action {name:?} does not exist"))
}

/// Returns one action
#[utoipa::path(get, path = "/v1/actions/{name}", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = ActionView)))]
pub async fn find(_: Caller<Read>, State(state): State<AppState>, Path(name): Path<String>) -> ApiResult<Response> {
    Ok(answer(StatusCode::OK, stored(&state, &name).await?))
}

/// Creates a custom action
#[utoipa::path(post, path = "/v1/actions", tag = "actions", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CustomAction, responses((status = 201, body = ActionView), (status = 409)))]
pub async fn create(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    body: Json<Value>,
) -> ApiResult<Response> {
    caller.unlimited("actions are for all policies")?;
    let once = body.once(&caller.principal);
    let name = state.engine.create_action(&body.value, once, &caller.principal).await?;
    Ok(answer(StatusCode::CREATED, stored(&state, &name).await?))
}

/// Replaces a custom action
///
/// `If-Match` must carry the `ETag` that was read. Policies that use the action must be valid with
/// the new version.
#[utoipa::path(put, path = "/v1/actions/{name}", tag = "actions",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = CustomAction,
    responses((status = 200, body = ActionView), (status = 409)))]
pub async fn replace(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
    body: Json<Value>,
) -> ApiResult<Response> {
    caller.unlimited("actions are for all policies")?;
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.replace_action(&name, version, &body.value, &caller.principal).await?;
    Ok(answer(StatusCode::OK, stored(&state, &name).await?))
}

/// Deletes a custom action
///
/// The response is 409 while a policy uses the action or one of its effects is in force, because
/// undoing needs it.
#[utoipa::path(delete, path = "/v1/actions/{name}", tag = "actions",
    params(("name" = String, Path), ("If-Match" = String, Header)), responses((status = 204), (status = 409)))]
pub async fn delete(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
) -> ApiResult<StatusCode> {
    caller.unlimited("actions are for all policies")?;
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.delete_action(&name, version, &caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}
