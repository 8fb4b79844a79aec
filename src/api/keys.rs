//! `/v1/api-keys`: service keys of programs, which administrators manage, and personal keys, which
//! each person manages. A secret is shown once, at creation.

use crate::engine::keys::{AskedKey, MadeKey};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use riposte_protocol::time::Timestamp;
use serde::Deserialize;

use super::front::auth::{Caller, OwnKeys};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query};
use super::front::page::{limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::client_certificate::ClientCertificate;
use crate::domain::duration::Span;
use crate::domain::forgotten::PSEUDONYM_PREFIX;
use crate::domain::right::Right;
use crate::domain::webhook::sender_secret;
use crate::engine::key_uses::expires_soon;
use crate::engine::refusal::Refusal;
use crate::store::configured::keys;
use crate::views::keys::{CreateKey, CreatedKey, KeyKind, KeyRow, KeyView};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list, create)).with(operations!(revoke))
}

/// Creates an API key
///
/// A service key needs the right to administer. A personal key is the caller's own, who must be a
/// person that has logged in: a key that was stolen makes no other one.
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateKey, responses((status = 201, body = CreatedKey), (status = 409)))]
pub async fn create(
    caller: Caller<OwnKeys>,
    State(state): State<AppState>,
    body: Json<CreateKey>,
) -> ApiResult<(StatusCode, axum::Json<CreatedKey>)> {
    let once = body.once(&caller.principal);
    let CreateKey { name, kind, role, pipeline, expires_in, webhook: is_webhook, certificate, scope } = body.value;
    let owner = match kind {
        KeyKind::Personal => {
            Some((caller.logged_in("a personal key belongs to a person")?.to_owned(), caller.principal.role))
        }
        KeyKind::Service => caller.may(Right::Administer).map(|()| None)?,
    };
    let lifetime = expires_in.map(Span::duration);
    let certificate = certificate.map(|text| read_certificate(&state, &text)).transpose()?;
    let asked = AskedKey { name, role, pipeline: pipeline.clone(), lifetime, is_webhook, certificate, scope, owner };
    let MadeKey { id, key, is_new, expires_at } = state.engine.create_key(asked, once, &caller.principal.at()).await?;
    // The key of a sender that signs is no bearer token, so it is of no use.
    let key = key.filter(|_| !is_webhook);
    let secret = (is_webhook && is_new).then(|| state.engine.webhook_secret(&id)).transpose()?;
    let webhook_secret = secret.map(|secret| sender_secret(&secret));
    Ok((StatusCode::CREATED, axum::Json(CreatedKey { id, key, webhook_secret, kind, role, pipeline, expires_at })))
}

/// Reads the client certificate of a request.
fn read_certificate(state: &AppState, text: &str) -> ApiResult<ClientCertificate> {
    let tls = state.tls.as_ref().ok_or("needs tls_cert and tls_client_ca: this manager speaks plain HTTP");
    let read = tls.map_err(str::to_owned).and_then(|tls| tls.client_certificate(text));
    read.map_err(|why| ApiError::from(Refusal::fault("/certificate", why)))
}

fn view(state: &AppState, mut key: KeyRow) -> KeyView {
    let now = state.engine.clock.now();
    let is_forgotten = key.user.as_deref().is_some_and(|user| user.starts_with(PSEUDONYM_PREFIX));
    // The stored use is up to a minute old. Of a person who was forgotten only what is stored is shown.
    if let Some((at, from)) = state.engine.key_uses.last(&key.id).filter(|_| !is_forgotten) {
        (key.last_used_at, key.last_used_from) = (Some(at.into()), Some(from.to_string()));
    }
    let kind = if key.user.is_some() { KeyKind::Personal } else { KeyKind::Service };
    let is_live = key.revoked_at.is_none();
    let expires_soon = is_live && expires_soon(key.expires_at.map(Timestamp::from), now);
    KeyView { key, kind, expires_soon }
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
///
/// An administrator gets all keys, any other person the own ones.
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", params(ListKeys),
    responses((status = 200, body = Page<KeyView>)))]
pub async fn list(
    caller: Caller<OwnKeys>,
    State(state): State<AppState>,
    Query(query): Query<ListKeys>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, after) = (limit(query.limit)?, query.cursor.as_deref().unwrap_or_default());
    let rows = keys::list(&state.engine.db, owner(&caller)?, after, limit + 1).await?;
    let views = rows.into_iter().map(|row| view(&state, row)).collect();
    Ok(page(views, limit, &uri, |view: &KeyView| view.key.id.clone()))
}

/// Revokes an API key
///
/// An administrator can revoke every key but the one of the request, any other person the own ones.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "api keys", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub async fn revoke(
    caller: Caller<OwnKeys>,
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    owner(&caller)?;
    state.engine.revoke_key(&id, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The person whose keys the caller may see and revoke; `None`: all keys.
fn owner(caller: &Caller<OwnKeys>) -> ApiResult<Option<&str>> {
    if caller.principal.may(Right::Administer) {
        Ok(None)
    } else {
        caller.person("own keys belong to a person").map(Some)
    }
}
