//! `/v1/secrets`: values that policies refer to. They can be set and deleted, and never read.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;

use super::front::auth::{Caller, Read, WritePolicies};
use super::front::error::ApiResult;
use super::front::extract::{Json, Path, Query};
use super::front::page::{limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::store::configured::secrets;
use crate::views::page::Page;
use crate::views::secrets::{SecretView, SetSecret};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list)).with(operations!(set, delete))
}

/// Filter of a list of secrets.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSecrets {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists secrets, without their values
#[utoipa::path(get, path = "/v1/secrets", tag = "secrets", params(ListSecrets),
    responses((status = 200, body = Page<SecretView>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListSecrets>,
    uri: Uri,
) -> ApiResult<Response> {
    let limit = limit(query.limit)?;
    let rows = secrets::list(&state.engine.db, query.cursor.as_deref().unwrap_or_default(), limit + 1).await?;
    let views =
        rows.into_iter().map(|secret| SecretView { used_by: state.engine.users_of_secret(&secret.name), secret });
    Ok(page(views.collect(), limit, &uri, |view: &SecretView| view.secret.name.clone()))
}

/// Sets a secret
///
/// An argument of a policy refers to it as `secret:NAME` or `KEY=secret:NAME`. The value is put into a
/// command when it is signed for its agent, and shown nowhere.
#[utoipa::path(put, path = "/v1/secrets/{name}", tag = "secrets",
    params(("name" = String, Path)), request_body = SetSecret, responses((status = 204)))]
pub async fn set(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<SetSecret>,
) -> ApiResult<StatusCode> {
    caller.unlimited("secrets are for all policies")?;
    state.engine.set_secret(&name, body.value, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a secret
///
/// The response is 409 while a policy refers to it.
#[utoipa::path(delete, path = "/v1/secrets/{name}", tag = "secrets",
    params(("name" = String, Path)), responses((status = 204), (status = 409)))]
pub async fn delete(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    caller.unlimited("secrets are for all policies")?;
    state.engine.delete_secret(&name, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}
