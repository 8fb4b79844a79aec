//! `/v1/webhooks`: who is sent the events of the feed.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::front::auth::{Administer, Approve, Caller};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path, Query};
use super::front::page::{cursor_number, limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::store::ledger::webhook_messages;
use crate::views::page::Page;
use crate::views::webhooks::{
    AgreeToWebhook, CreateWebhook, ReplayWebhook, UpdateWebhook, WebhookMessage, WebhookReplay, WebhookSecretView,
    WebhookTrial, WebhookView,
};

/// Why a scope does not fit.
const ALL: &str = "webhooks are sent events of the whole installation";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(list, create))
        .with(operations!(find, replace, delete))
        .with(operations!(replace_secret))
        .with(operations!(send_test))
        .with(operations!(messages))
        .with(operations!(replay))
        .with(operations!(agree))
}

/// Lists webhooks by name, with how each is doing
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", params(ListWebhooks),
    responses((status = 200, body = Page<WebhookView>)))]
pub async fn list(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Query(query): Query<ListWebhooks>,
    uri: Uri,
) -> ApiResult<Response> {
    caller.unlimited(ALL)?;
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().unwrap_or_default();
    // There are few.
    let mut views = state.engine.webhooks().await?;
    views.retain(|view| view.name.as_str() > after);
    Ok(page(views, limit, &uri, |view: &WebhookView| view.name.clone()))
}

/// Creates a webhook
///
/// From then on each event that its settings ask for is sent in a POST: a `CloudEvent` with a signature by Standard Webhooks. What
/// is not taken with a 2xx is tried again for three days after the event, and kept after that. The response has the secret,
/// which is not shown again.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateWebhook, responses((status = 201, body = WebhookSecretView), (status = 409)))]
pub async fn create(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<CreateWebhook>,
) -> ApiResult<(StatusCode, axum::Json<WebhookSecretView>)> {
    caller.unlimited(ALL)?;
    let once = body.once(&caller.principal);
    let made = state.engine.create_webhook(body.value, once, &caller.principal).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// Returns one webhook
#[utoipa::path(get, path = "/v1/webhooks/{name}", tag = "webhooks", params(("name" = String, Path)),
    responses((status = 200, body = WebhookView)))]
pub async fn find(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    caller.unlimited(ALL)?;
    stored(&state, &name).await
}

async fn stored(state: &AppState, name: &str) -> ApiResult<Response> {
    let found = state.engine.webhooks().await?.into_iter().find(|webhook| webhook.name == name);
    let found = found.ok_or_else(|| ApiError::not_found(format!("the webhook {name:?} does not exist")))?;
    Ok(([(header::ETAG, format!("\"{}\"", found.version))], axum::Json(found)).into_response())
}

/// Changes a webhook
#[utoipa::path(put, path = "/v1/webhooks/{name}", tag = "webhooks",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header)), request_body = UpdateWebhook,
    responses((status = 200, body = WebhookView), (status = 412)))]
pub async fn replace(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(expected): IfMatch,
    body: Json<UpdateWebhook>,
) -> ApiResult<Response> {
    caller.unlimited(ALL)?;
    state.engine.update_webhook(&name, body.value, expected, &caller.principal).await?;
    stored(&state, &name).await
}

/// Deletes a webhook with the messages that it has not taken
#[utoipa::path(delete, path = "/v1/webhooks/{name}", tag = "webhooks", params(("name" = String, Path)),
    responses((status = 204)))]
pub async fn delete(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    caller.unlimited(ALL)?;
    state.engine.delete_webhook(&name, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces the secret of a webhook
///
/// Messages have the signatures of both secrets for a day.
#[utoipa::path(post, path = "/v1/webhooks/{name}/secret", tag = "webhooks", params(("name" = String, Path)),
    responses((status = 200, body = WebhookSecretView)))]
pub async fn replace_secret(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<axum::Json<WebhookSecretView>> {
    caller.unlimited(ALL)?;
    Ok(axum::Json(state.engine.replace_webhook_secret(&name, &caller.principal).await?))
}

/// Sends a webhook a test message
///
/// The response says whether it was taken, and if not, why.
#[utoipa::path(post, path = "/v1/webhooks/{name}/test", tag = "webhooks", params(("name" = String, Path)),
    responses((status = 200, body = WebhookTrial), (status = 409)))]
pub async fn send_test(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<axum::Json<WebhookTrial>> {
    caller.unlimited(ALL)?;
    Ok(axum::Json(state.engine.try_webhook(&name).await?))
}

/// Page of webhooks, or of their messages.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListWebhooks {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists the messages that a webhook has not taken, by the number of their event
#[utoipa::path(get, path = "/v1/webhooks/{name}/messages", tag = "webhooks", params(("name" = String, Path), ListWebhooks),
    responses((status = 200, body = Page<WebhookMessage>)))]
pub async fn messages(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(query): Query<ListWebhooks>,
    uri: Uri,
) -> ApiResult<Response> {
    caller.unlimited(ALL)?;
    stored(&state, &name).await?;
    let (limit, after) = (limit(query.limit)?, cursor_number(query.cursor.as_deref())?.unwrap_or(-1));
    let rows = webhook_messages::list(&state.engine.db, &name, after, limit + 1).await?;
    Ok(page(rows, limit, &uri, |message: &WebhookMessage| message.seq.to_string()))
}

/// Sends messages again that were given up
#[utoipa::path(post, path = "/v1/webhooks/{name}/replay", tag = "webhooks", params(("name" = String, Path)),
    request_body = ReplayWebhook, responses((status = 200, body = WebhookReplay)))]
pub async fn replay(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<ReplayWebhook>,
) -> ApiResult<axum::Json<WebhookReplay>> {
    caller.unlimited(ALL)?;
    Ok(axum::Json(state.engine.replay_webhook(&name, body.value, &caller.principal).await?))
}

/// Agrees to decide by links in the messages of a webhook
///
/// The person whom they are for does it once, logged in, with the code that stands in the messages. After a change of the URL or the
/// person it is to be done again.
#[utoipa::path(post, path = "/v1/webhooks/{name}/agreement", tag = "webhooks", params(("name" = String, Path)),
    request_body = AgreeToWebhook, responses((status = 204)))]
pub async fn agree(
    caller: Caller<Approve>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    body: Json<AgreeToWebhook>,
) -> ApiResult<StatusCode> {
    let user = caller.logged_in("links are for a person")?;
    state.engine.agree_to_webhook(&name, &body.value, user, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}
