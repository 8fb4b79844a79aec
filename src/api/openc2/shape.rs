//! The form of errors of `/openc2` and `/.well-known/openc2`: those of the front door, of the router and of
//! handlers become responses of OpenC2, with the nearest of its statuses. It stands around the routes.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use riposte_protocol::time::Timestamp;

use crate::api::front::error::ApiError;
use crate::compat::openc2::answer::{OpenC2Answer, OpenC2Status, ProducerHeaders};
use crate::views::problem::Problem;

/// Media type of answers. Producers read the version from it.
pub(super) const MEDIA_TYPE: &str = "application/openc2+json;version=1.0";
/// Most bytes of an error's body; those of this program are far smaller.
const MAX_ERROR_BYTES: usize = 1024 * 1024;

/// Whether a path takes OpenC2.
pub fn is_openc2(path: &str) -> bool {
    path == "/openc2" || path == "/.well-known/openc2"
}

/// Puts errors of these paths into OpenC2's form.
pub async fn speak(request: Request, next: Next) -> Response {
    let is_ours = is_openc2(request.uri().path());
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_ours || kind.is_none_or(|kind| kind.as_bytes() != b"application/problem+json") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let problem = match to_bytes(body, MAX_ERROR_BYTES).await {
        Ok(bytes) => serde_json::from_slice::<Problem>(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let problem = match problem {
        Ok(problem) => problem,
        Err(error) => return ApiError::internal(&error).into_response(),
    };
    if parts.status == StatusCode::UNPROCESSABLE_ENTITY {
        parts.status = StatusCode::BAD_REQUEST;
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    // What was sent may not have been read: the envelope knows no request.
    let written = of_problem(&problem).write(Some(&ProducerHeaders::default()), Timestamp::from_millis(0));
    Response::from_parts(parts, Body::from(written.to_string()))
}

/// The answer that OpenC2 has for a problem.
pub(super) fn of_problem(problem: &Problem) -> OpenC2Answer {
    let status = match problem.status {
        401 => OpenC2Status::Unauthorized,
        403 => OpenC2Status::Forbidden,
        404 => OpenC2Status::NotFound,
        429 | 503 => OpenC2Status::Unavailable,
        status if status >= 500 => OpenC2Status::InternalError,
        _ => OpenC2Status::BadRequest,
    };
    let faults = problem.errors.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail).trim().to_owned());
    let faults: Vec<String> = faults.collect();
    OpenC2Answer::new(status, if faults.is_empty() { problem.detail.clone() } else { faults.join("; ") })
}
