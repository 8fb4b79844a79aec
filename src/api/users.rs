//! `/v1/users`: the people who may log in.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::front::auth::{Administer, Caller};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path, Query};
use super::front::page::{limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::store::configured::users;
use crate::views::page::Page;
use crate::views::users::{ChangeUser, CreateUser, CreatedUser, ForgottenUser, NewPassword, ResetPassword, UserRow};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(list, create))
        .with(operations!(find, change, delete))
        .with(operations!(reset_password))
        .with(operations!(forget))
}

async fn stored(state: &AppState, name: &str) -> ApiResult<UserRow> {
    let row = users::find(&state.engine.db, name).await?;
    row.ok_or_else(|| ApiError::not_found(format!("there is no user called {name:?}")))
}

fn tagged(user: UserRow) -> Response {
    let tag = HeaderValue::try_from(format!("\"{}\"", user.version)).unwrap_or_else(|_| HeaderValue::from_static(""));
    ([(header::ETAG, tag)], axum::Json(user)).into_response()
}

/// Filter of a user list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListUsers {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists users by name, including deleted ones
#[utoipa::path(get, path = "/v1/users", tag = "users", params(ListUsers),
    responses((status = 200, body = Page<UserRow>)))]
pub async fn list(
    _: Caller<Administer>,
    State(state): State<AppState>,
    Query(query): Query<ListUsers>,
    uri: Uri,
) -> ApiResult<Response> {
    let limit = limit(query.limit)?;
    let rows = users::list(&state.engine.db, query.cursor.as_deref().unwrap_or_default(), limit + 1).await?;
    Ok(page(rows, limit, &uri, |row| row.name.clone()))
}

/// Creates a user
///
/// Without a password a temporary one is generated, which must be changed at the first login. A
/// name is given once: the response is 409 also after the user was deleted.
#[utoipa::path(post, path = "/v1/users", tag = "users", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateUser, responses((status = 201, body = CreatedUser), (status = 409)))]
pub async fn create(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<CreateUser>,
) -> ApiResult<(StatusCode, axum::Json<CreatedUser>)> {
    let (once, name) = (body.once(&caller.principal), body.value.name.clone());
    let temporary_password = state.engine.create_user(body.value, once, &caller.principal.at()).await?;
    Ok((StatusCode::CREATED, axum::Json(CreatedUser { user: stored(&state, &name).await?, temporary_password })))
}

/// Returns one user
#[utoipa::path(get, path = "/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 200, body = UserRow)))]
pub async fn find(
    _: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    Ok(tagged(stored(&state, &name).await?))
}

/// Changes a user's role, or disables or enables the user
///
/// `If-Match` must carry the `ETag` that was read. A disabled user's sessions end and personal keys
/// stop at once.
#[utoipa::path(patch, path = "/v1/users/{name}", tag = "users",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = ChangeUser,
    responses((status = 200, body = UserRow), (status = 409)))]
pub async fn change(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
    body: Json<ChangeUser>,
) -> ApiResult<Response> {
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.change_user(&name, version, body.value, &caller.principal.at()).await?;
    Ok(tagged(stored(&state, &name).await?))
}

/// Deletes a user
///
/// The user is disabled for ever, and the name is never given again.
#[utoipa::path(delete, path = "/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 204), (status = 409)))]
pub async fn delete(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    state.engine.delete_user(&name, &caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a deleted user
///
/// A pseudonym takes the place of the name, and texts of the audit log that can name the person are removed; the log
/// stays verifiable. This cannot be undone. After a failure the request is repeated, and goes on.
#[utoipa::path(post, path = "/v1/users/{name}/forget", tag = "users", params(("name" = String, Path)),
    responses((status = 200, body = ForgottenUser), (status = 409)))]
pub async fn forget(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<axum::Json<ForgottenUser>> {
    let pseudonym = state.engine.forget_user(&name, &caller.principal.at()).await?;
    Ok(axum::Json(ForgottenUser { pseudonym }))
}

/// Sets a temporary password
///
/// All sessions of the user end, and lock-outs after failed logins too.
#[utoipa::path(post, path = "/v1/users/{name}/reset-password", tag = "users", params(("name" = String, Path)),
    request_body = ResetPassword, responses((status = 200, body = NewPassword)))]
pub async fn reset_password(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<ResetPassword>,
) -> ApiResult<axum::Json<NewPassword>> {
    let by = &caller.principal.at();
    let temporary_password = state.engine.reset_password(&name, body.value.remove_totp, by).await?;
    Ok(axum::Json(NewPassword { temporary_password }))
}
