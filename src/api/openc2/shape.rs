//! The form of errors of `/openc2` and `/.well-known/openc2`: those of the front door, of the router and of
//! handlers become responses of OpenC2, with the nearest of its statuses. It stands around the routes.

use axum::body::Body;
use axum::extract::Request;
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use riposte_protocol::time::Timestamp;

use crate::api::front::reworded;
use crate::compat::openc2::answer::{OpenC2Answer, OpenC2Status, ProducerHeaders};
use crate::views::problem::Problem;

/// Media type of answers. Producers read the version from it.
pub(super) const MEDIA_TYPE: &str = "application/openc2+json;version=1.0";

/// Whether a path takes OpenC2.
pub fn is_openc2(path: &str) -> bool {
    path == "/openc2" || path == "/.well-known/openc2"
}

/// Puts errors of these paths into OpenC2's form.
pub async fn speak(request: Request, next: Next) -> Response {
    let write = |parts: &mut Parts, problem: Problem| {
        if parts.status == StatusCode::UNPROCESSABLE_ENTITY {
            parts.status = StatusCode::BAD_REQUEST;
        }
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        // What was sent may not have been read: the envelope knows no request.
        let written = of_problem(&problem).write(Some(&ProducerHeaders::default()), Timestamp::from_millis(0));
        Body::from(written.to_string())
    };
    reworded::speak(request, next, is_openc2, write).await
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
