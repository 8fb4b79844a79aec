//! `/v1/ingest/{secret}`: alerts from senders that cannot set a header. The key is in the address, so only
//! keys of the role `ingest` are accepted here, and the address is in no log line.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::alerts;
use super::front::auth::{Caller, Ingest};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Path;
use super::state::AppState;
use crate::views::alerts::Intake;

/// The operations of this resource.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// The sender, by the key in the address.
#[derive(Debug)]
pub struct Sender(Caller<Ingest>);

impl FromRequestParts<AppState> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let Path(secret) = Path::<String>::from_request_parts(parts, state).await?;
        Caller::of_pipeline(parts, state, &secret).map(Self)
    }
}

/// Ingests alerts of a sender that cannot set a header
///
/// `secret` is an API key with the role `ingest`. Otherwise as `POST /v1/alerts`.
#[utoipa::path(post, operation_id = "ingest", path = "/v1/ingest/{secret}", tag = "alerts",
    params(("secret" = String, Path), ("Idempotency-Key" = Option<String>, Header)), security(()),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 202, description = "Committed", body = Intake), (status = 401)))]
pub async fn create(
    Sender(caller): Sender,
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<(StatusCode, axum::Json<Intake>)> {
    alerts::ingest(&caller, &state, request).await
}
