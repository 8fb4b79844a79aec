//! `/v1/api-keys`: keys for people and pipelines. A secret is shown once, at creation.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::AppState;
use super::auth::{Administer, Caller, hash_secret, new_secret};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Path, Query};
use super::once;
use super::page::{Page, limit, page};
use crate::domain::api_key;
use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::pipeline::is_name;
use crate::domain::principal::{Right, Role};
use crate::engine::Engine;
use crate::store::audit::LedgerTx;
use crate::store::keys::{self, KeyRow, NewKey};

/// An API key to create.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Purpose of the key.
    name: String,
    /// Role, which decides the key's rights.
    role: Role,
    /// The pipeline that the key sends alerts for. Alerts are deduplicated among keys of the same
    /// pipeline. A replacement key, or a second sender of the same alerts, names the same pipeline.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "siem-1")]
    pipeline: Option<String>,
    /// Validity; absent: until revoked.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "90d")]
    expires_in: Option<Span>,
}

/// A new API key; its secret is shown once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CreatedKey {
    /// Public part of the key.
    pub id: String,
    /// The whole key, `rip_ID_SECRET`; absent in the response to a retry, because only its hash is
    /// stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Role, which decides the key's rights.
    pub role: Role,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// Expiry time; absent: until revoked.
    pub expires_at: Option<Timestamp>,
}

/// Creates an API key
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", request_body = CreateKey, responses((status = 201, body = CreatedKey)))]
pub async fn create(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<CreateKey>,
) -> ApiResult<(StatusCode, axum::Json<CreatedKey>)> {
    let claim = once::claim(&state, body.once(&caller.principal)).await?;
    let CreateKey { name, role, pipeline, expires_in } = body.value;
    if name.is_empty() || name.chars().count() > 128 || name.chars().any(char::is_control) {
        let detail = "must be 1 to 128 characters without control characters";
        return Err(ApiError::invalid(vec![Fault::at("/name", detail)]));
    }
    if let Some(fault) = pipeline.as_deref().and_then(|pipeline| pipeline_fault(pipeline, role)) {
        return Err(ApiError::invalid(vec![fault]));
    }
    if let Some(id) = claim.answered() {
        state.engine.reload_keys().await?;
        let keys = state.engine.keys.load();
        let expires_at = keys.get(id).and_then(|row| row.expires_at).map(Timestamp::from);
        let created = CreatedKey { id: id.into(), key: None, role, pipeline, expires_at };
        return Ok((StatusCode::CREATED, axum::Json(created)));
    }
    let now = state.engine.clock.now();
    let expires_at = expires_in.map(|span| now.plus(span.duration()));
    let (new, key) = make(name, role, expires_at)?;
    let new = NewKey { pipeline: pipeline.clone(), ..new };
    let mut ledger = LedgerTx::begin(&state.engine.db).await?;
    keys::create(&mut ledger, &new, &caller.principal.name, now).await?;
    claim.keep(&mut ledger, 201, &new.id, now).await?;
    state.engine.carry_through(ledger, |engine| async move { engine.reload_keys().await }).await?;
    Ok((StatusCode::CREATED, axum::Json(CreatedKey { id: new.id, key: Some(key), role, pipeline, expires_at })))
}

fn pipeline_fault(pipeline: &str, role: Role) -> Option<Fault> {
    let detail = if !is_name(pipeline) {
        "must be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'".to_owned()
    } else if !role.may(Right::Ingest) {
        format!("is not allowed: the role {} cannot ingest alerts", role.as_str())
    } else {
        return None;
    };
    Some(Fault::at("/pipeline", detail))
}

/// Generates a key: its stored form, and the key itself.
pub fn make(name: String, role: Role, expires_at: Option<Timestamp>) -> ApiResult<(NewKey, String)> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::internal(&error))?;
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    let secret = new_secret()?;
    let key = format!("{}{id}_{secret}", api_key::PREFIX);
    Ok((NewKey { id, name, hash: hash_secret(&secret), role, pipeline: None, expires_at }, key))
}

/// Creates an admin key if no valid one exists, and returns it. Losing the last admin key thus
/// costs a restart, not the ledger. `write_down` receives the key before it is committed: a
/// committed key that was not written down would lock out every operator.
///
/// # Errors
/// If the key cannot be written down or stored.
pub async fn first(engine: &Engine, write_down: impl FnOnce(&str) -> std::io::Result<()>) -> ApiResult<Option<String>> {
    let now = engine.clock.now();
    let is_valid_admin = |row: &KeyRow| {
        let expired = row.expires_at.is_some_and(|at| Timestamp::from(at) <= now);
        row.role == Role::Admin.as_str() && row.revoked_at.is_none() && !expired
    };
    if engine.keys.load().values().any(is_valid_admin) {
        return Ok(None);
    }
    let (new, key) = make("first admin key".into(), Role::Admin, None)?;
    write_down(&key).map_err(|error| ApiError::internal(&format!("the first key cannot be written down: {error}")))?;
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    keys::create(&mut ledger, &new, "riposte", engine.clock.now()).await?;
    ledger.commit().await?;
    engine.reload_keys().await?;
    Ok(Some(key))
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
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", params(ListKeys), responses((status = 200, body = Page<KeyRow>)))]
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
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "api keys", params(("id" = String, Path)), responses((status = 204)))]
pub async fn revoke(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    if caller.principal.name == format!("key:{id}") {
        return Err(ApiError::conflict("a key cannot revoke itself: create another admin key and use it"));
    }
    let mut ledger = LedgerTx::begin(&state.engine.db).await?;
    keys::revoke(&mut ledger, &id, &caller.principal.name, state.engine.clock.now()).await?;
    state.engine.carry_through(ledger, |engine| async move { engine.reload_keys().await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
