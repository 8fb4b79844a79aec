//! The route of a request, for the log: the path itself may hold a key.

use axum::extract::MatchedPath;
use axum::http::request::Parts;

/// The route, such as `/v1/ingest/{secret}`.
pub fn route(parts: &Parts) -> &str {
    parts.extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str)
}
