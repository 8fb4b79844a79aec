//! What every answer of TAXII has: its media type, and a client that takes it.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::front::error::{ApiError, ApiResult};
use crate::compat::taxii::TAXII;

/// Refuses clients that take another version only: TAXII says 406.
pub(super) async fn negotiate(request: Request, next: Next) -> Response {
    if takes_taxii(request.headers()) {
        next.run(request).await
    } else {
        ApiError::not_acceptable(format!("answers are {TAXII}; send Accept: {TAXII}")).into_response()
    }
}

/// Whether a client takes TAXII 2.1. One without the header takes anything.
fn takes_taxii(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    named.peek().is_none()
        || named.flat_map(|list| list.split(',')).any(|range| {
            let mut words = range.split(';').map(|word| word.trim().to_ascii_lowercase());
            let kind = words.next().unwrap_or_default();
            let version = words
                .find_map(|word| word.strip_prefix("version=").map(|version| version.trim_matches('"').to_owned()));
            let is_ours = ["*/*", "application/*", "application/taxii+json"].contains(&kind.as_str());
            is_ours && version.is_none_or(|version| version == "2.1")
        })
}

/// An answer of TAXII.
pub(super) fn answer(body: &impl Serialize) -> ApiResult<Response> {
    let body = serde_json::to_vec(body).map_err(|error| ApiError::internal(&error))?;
    let head = [(header::CONTENT_TYPE, HeaderValue::from_static(TAXII))];
    let mut response = (StatusCode::OK, head, body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_version_is_refused() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            takes_taxii(&headers)
        };
        assert!(takes_taxii(&HeaderMap::new()));
        for good in [TAXII, "*/*", "application/taxii+json", "text/html, application/taxii+json; version=\"2.1\""] {
            assert!(of(good), "{good}");
        }
        for wrong in ["application/taxii+json;version=2.0", "application/json", "application/vnd.oasis.taxii+json", ""]
        {
            assert!(!of(wrong), "{wrong}");
        }
    }
}
