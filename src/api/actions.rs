//! `/v1/actions`: the actions that agents can run. Built-in actions are fixed; operators add
//! programs from the agents' own folder.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::AppState;
use super::front::auth::{Caller, Read, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path};
use super::front::page::{Page, page};
use crate::domain::action::{Action, Catalogue};
use crate::store::StoreError;
use crate::store::configured::actions;
use crate::store::database::columns::Millis;

/// An action at its current version.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ActionView {
    /// The action.
    #[serde(flatten)]
    pub action: Action,
    /// Current version, equal to the `ETag`; absent for built-in actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Time of the last change; absent for built-in actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Millis>,
}

/// Lists the actions by name
#[utoipa::path(get, path = "/v1/actions", tag = "actions", responses((status = 200, body = Page<ActionView>)))]
pub async fn list(_: Caller<Read>, State(state): State<AppState>, uri: Uri) -> ApiResult<Response> {
    let custom = actions::all(&state.engine.db).await?;
    let views = Catalogue::built_in().iter().map(|action| Ok(own(action)));
    let custom = custom.into_iter().map(|row| {
        Ok(ActionView { action: row.action()?, version: Some(row.version), updated_at: Some(row.updated_at) })
    });
    let mut views = views.chain(custom).collect::<Result<Vec<_>, StoreError>>()?;
    views.sort_by(|a, b| a.action.name.cmp(&b.action.name));
    Ok(page(views, i64::MAX, &uri, |view| view.action.name.clone()))
}

fn own(action: &Action) -> ActionView {
    ActionView { action: action.clone(), version: None, updated_at: None }
}

fn answer(status: StatusCode, view: ActionView) -> Response {
    match view.version {
        Some(version) => (status, [(header::ETAG, format!("\"{version}\""))], axum::Json(view)).into_response(),
        None => (status, axum::Json(view)).into_response(),
    }
}

async fn stored(state: &AppState, name: &str) -> ApiResult<ActionView> {
    if let Some(action) = Catalogue::built_in().find(name) {
        return Ok(own(action));
    }
    let row = actions::find(&state.engine.db, name).await?.ok_or_else(|| unknown(name))?;
    Ok(ActionView { action: row.action()?, version: Some(row.version), updated_at: Some(row.updated_at) })
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("action {name:?} does not exist"))
}

/// Returns one action
#[utoipa::path(get, path = "/v1/actions/{name}", tag = "actions", params(("name" = String, Path)), responses((status = 200, body = ActionView)))]
pub async fn find(_: Caller<Read>, State(state): State<AppState>, Path(name): Path<String>) -> ApiResult<Response> {
    Ok(answer(StatusCode::OK, stored(&state, &name).await?))
}

/// A custom action as submitted.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "parsed by hand, to report all faults at once; this is its schema")]
pub struct CustomAction {
    /// Unique name: a-z, 0-9, '-', '_' and '.', at most 64 characters; not the name of a built-in
    /// action.
    name: String,
    /// What the action does, in one sentence.
    summary: Option<String>,
    /// File name of the program in the agents' program folder.
    executable: String,
    /// How the program is invoked; absent: as in Wazuh 4.2 and later.
    style: Option<riposte_protocol::command::ScriptStyle>,
    /// Kinds of target that it accepts; absent: `none`.
    target_kinds: Option<Vec<riposte_protocol::target::TargetKind>>,
    /// Accounts that it accepts as a target of kind `user`; absent: `local`.
    user: Option<crate::domain::action::Accounts>,
    /// Default observable to target, if the policy names none.
    default_target: Option<crate::domain::alert::TargetField>,
    /// Whether the program runs again to undo the action; absent: no.
    undoable: Option<bool>,
    /// Supported operating systems; absent: all.
    platforms: Option<Vec<String>>,
    /// JSON Schema of its arguments, an array of strings; absent: any.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Whether the command includes the alert; absent: yes.
    wants_alert: Option<bool>,
}

/// Creates a custom action
#[utoipa::path(post, path = "/v1/actions", tag = "actions", request_body = CustomAction, responses((status = 201, body = ActionView)))]
pub async fn create(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    body: Json<Value>,
) -> ApiResult<Response> {
    let once = body.once(&caller.principal);
    let name = state.engine.create_action(&body.value, once, &caller.principal.name).await?;
    Ok(answer(StatusCode::CREATED, stored(&state, &name).await?))
}

/// Replaces a custom action
///
/// `If-Match` must carry the `ETag` that was read. Policies that use the action must be valid with
/// the new version.
#[utoipa::path(put, path = "/v1/actions/{name}", tag = "actions",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = CustomAction, responses((status = 200, body = ActionView)))]
pub async fn replace(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
    body: Json<Value>,
) -> ApiResult<Response> {
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.replace_action(&name, version, &body.value, &caller.principal.name).await?;
    Ok(answer(StatusCode::OK, stored(&state, &name).await?))
}

/// Deletes a custom action
///
/// The response is 409 while a policy uses the action or one of its effects is in force, because
/// undoing needs it.
#[utoipa::path(delete, path = "/v1/actions/{name}", tag = "actions",
    params(("name" = String, Path), ("If-Match" = String, Header)), responses((status = 204)))]
pub async fn delete(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
) -> ApiResult<StatusCode> {
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.delete_action(&name, version, &caller.principal.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
