//! `/v1/ingest/{secret}`: alerts from senders that cannot set a header of ours. Either the key is in the
//! address, or the address names a key and the request is signed. Only keys of the role `ingest` are accepted
//! here, and the address is in no log line.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};

use super::alerts;
use super::front::auth::{Caller, Ingest, of_webhook};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Path, Payload};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::webhook::WebhookHeaders;
use crate::views::alerts::Intake;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(create))
}

/// Ingests alerts of a sender that cannot set a header of Riposte
///
/// `secret` is an API key with the role `ingest`. If the request has the headers of Standard Webhooks,
/// `secret` is the id of a key that was made with `webhook`, and the signature proves the sender; a
/// request that is sent again with the same `webhook-id` gets the same response. Otherwise as `POST /v1/alerts`.
#[utoipa::path(post, operation_id = "ingest", path = "/v1/ingest/{secret}", tag = "alerts",
    params(("secret" = String, Path), ("Idempotency-Key" = Option<String>, Header)), security(()),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 202, description = "Committed", body = Intake), (status = 401)))]
pub async fn create(
    Path(secret): Path<String>,
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<(StatusCode, axum::Json<Intake>)> {
    let (parts, body) = request.into_parts();
    let Some(signed) = signed(&parts.headers) else {
        let sender = Caller::<Ingest>::of_pipeline(&parts, &state, &secret)?;
        return alerts::ingest(&sender, &state, Request::from_parts(parts, body)).await;
    };
    let refuse = |parts: &Parts, why: &str| state.auth_failures.refuse(&state.engine, parts, why);
    let engine = &state.engine;
    signed.check(engine.clock.now()).map_err(|error| refuse(&parts, &error.to_string()))?;
    let unknown = "this is no valid key of a sender that signs";
    let sender = of_webhook(engine, &secret).ok_or_else(|| refuse(&parts, unknown))?;
    // The signature is of the bytes as they are sent.
    if parts.headers.contains_key("content-encoding") {
        return Err(ApiError::unsupported("a signed request must not have a Content-Encoding"));
    }
    let request = Request::from_parts(parts.clone(), body);
    let payload = Payload::read(request, state.limits.max_body_bytes, &state.memory.alerts).await?;
    let key = engine.webhook_secret(&secret)?;
    signed.verify(&key, &payload.bytes).map_err(|error| refuse(&parts, &error.to_string()))?;
    // Only now is the sender known.
    let sender = Caller::<Ingest>::admit(&parts, &state, sender)?;
    alerts::take_in(&sender, &state, &parts.headers, Some(signed.id.to_owned()), payload).await
}

/// The headers of Standard Webhooks, if there is a signature.
fn signed(headers: &HeaderMap) -> Option<WebhookHeaders<'_>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    headers.contains_key("webhook-signature").then(|| WebhookHeaders {
        id: text("webhook-id"),
        timestamp: text("webhook-timestamp"),
        signature: text("webhook-signature"),
    })
}
