//! Errors that other APIs say in other words: their problem documents are read back, wherever they came from, so that also an
//! unknown path and a wrong method are answered in the form of that API.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header;
use axum::http::response::Parts;
use axum::middleware::Next;
use axum::response::Response;

use super::error::ApiError;
use crate::views::problem::Problem;

/// Most bytes of an error's body; those of this program are far smaller.
const MAX_ERROR_BYTES: usize = 1024 * 1024;

/// The problem that a response tells, and its head, which takes another body. Any other response comes back as it is.
///
/// # Errors
/// The response, if it is no problem document.
pub async fn problem_of(response: Response) -> Result<(Parts, Problem), Box<Response>> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes() != b"application/problem+json") {
        return Err(Box::new(response));
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let problem = match to_bytes(body, MAX_ERROR_BYTES).await {
        Ok(bytes) => serde_json::from_slice::<Problem>(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Ok((parts, problem.unwrap_or_else(|error| ApiError::internal(&error).problem())))
}

/// Answers a request, and says its error, if it `is_ours`, as `write` does, which also changes the head.
pub async fn speak(
    request: Request,
    next: Next,
    is_ours: impl Fn(&str) -> bool,
    write: impl FnOnce(&mut Parts, Problem) -> Body,
) -> Response {
    let is_ours = is_ours(request.uri().path());
    let response = next.run(request).await;
    if !is_ours {
        return response;
    }
    match problem_of(response).await {
        Ok((mut parts, problem)) => {
            let body = write(&mut parts, problem);
            Response::from_parts(parts, body)
        }
        Err(response) => *response,
    }
}
