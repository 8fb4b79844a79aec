//! `/v1/api-keys`: keys for people and pipelines. A secret is shown once, at creation.

use crate::engine::keys::{AskedKey, MadeKey};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::front::auth::{Administer, Caller};
use super::front::error::ApiResult;
use super::front::extract::{Json, Path, Query};
use super::front::page::{limit, page};
use super::state::AppState;
use crate::domain::duration::Span;
use crate::store::configured::keys;
use crate::views::keys::{CreateKey, CreatedKey, KeyRow};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// Creates an API key
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateKey, responses((status = 201, body = CreatedKey), (status = 409)))]
pub async fn create(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<CreateKey>,
) -> ApiResult<(StatusCode, axum::Json<CreatedKey>)> {
    let once = body.once(&caller.principal);
    let CreateKey { name, role, pipeline, expires_in } = body.value;
    let asked = AskedKey { name, role, pipeline: pipeline.clone(), lifetime: expires_in.map(Span::duration) };
    let MadeKey { id, key, expires_at } = state.engine.create_key(asked, once, &caller.principal.actor).await?;
    Ok((StatusCode::CREATED, axum::Json(CreatedKey { id, key, role, pipeline, expires_at })))
}

/// Filter of a key list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListKeys {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists API keys, without their secrets
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", params(ListKeys),
    responses((status = 200, body = Page<KeyRow>)))]
pub async fn list(
    _: Caller<Administer>,
    State(state): State<AppState>,
    Query(query): Query<ListKeys>,
    uri: Uri,
) -> ApiResult<Response> {
    let limit = limit(query.limit)?;
    let rows = keys::list(&state.engine.db, query.cursor.as_deref().unwrap_or_default(), limit + 1).await?;
    Ok(page(rows, limit, &uri, |row| row.id.clone()))
}

/// Revokes an API key
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "api keys", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub async fn revoke(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    state.engine.revoke_key(&id, &caller.principal.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
