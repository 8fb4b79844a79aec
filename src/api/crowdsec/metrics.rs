//! `/crowdsec/v1/usage-metrics`: what a bouncer says of itself. The last report of each is kept.

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;

use super::caller::Bouncer;
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::Json;
use crate::api::state::AppState;

/// Maximum size of a report, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Keeps the usage metrics of a bouncer, in place of its last ones
#[utoipa::path(post, operation_id = "metrics", path = "/crowdsec/v1/usage-metrics", tag = "crowdsec", security(()),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 201, description = "Kept"), (status = 403)))]
pub(super) async fn keep(
    bouncer: Bouncer,
    State(state): State<AppState>,
    body: Json<Value, MAX_BYTES>,
) -> ApiResult<StatusCode> {
    let report = body.value;
    if !report.is_object() {
        return Err(ApiError::malformed("the body must be a JSON object"));
    }
    let Bouncer { spec, name, address, .. } = bouncer;
    state.engine.writer.keep_feed_metrics(spec.name.clone(), name, address.to_string(), report.to_string()).await?;
    Ok(StatusCode::CREATED)
}
