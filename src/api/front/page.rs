//! Pagination: a limit, an opaque cursor, and the URL of the next page in `Link`.

use axum::Extension;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::compression::IsList;
use super::error::{ApiError, ApiResult};
use crate::domain::fault::Fault;
use crate::views::page::Page;

/// Default number of items per page.
const DEFAULT_LIMIT: i64 = 50;
/// Maximum number of items per page.
const MAX_LIMIT: i64 = 500;

/// Checks the limit, or returns the default.
///
/// # Errors
/// 422 if it is out of range.
pub fn limit(asked: Option<i64>) -> ApiResult<i64> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(ApiError::invalid(vec![Fault::at("/limit", format!("must be from 1 to {MAX_LIMIT}"))])),
    }
}

/// Decodes a cursor to an id.
///
/// # Errors
/// 422 if it is not a cursor of this API.
pub fn cursor_id(cursor: Option<&str>) -> ApiResult<Option<Uuid>> {
    let parse = |text: &str| text.parse().map_err(|_| bad_cursor());
    cursor.map(parse).transpose()
}

/// Decodes a cursor to a number.
///
/// # Errors
/// As [`cursor_id`].
pub fn cursor_number(cursor: Option<&str>) -> ApiResult<Option<i64>> {
    let parse = |text: &str| text.parse().map_err(|_| bad_cursor());
    cursor.map(parse).transpose()
}

fn bad_cursor() -> ApiError {
    ApiError::invalid(vec![Fault::at("/cursor", "is not a cursor of this API")])
}

/// Builds a page from `items` fetched with `limit` plus one.
pub fn page<T: Serialize>(items: Vec<T>, limit: i64, uri: &Uri, cursor_of: impl Fn(&T) -> String) -> Response {
    let (items, next_cursor) = cut(items, limit, cursor_of);
    page_until(items, next_cursor, uri)
}

/// Cuts `items`, fetched with `limit` plus one, to the limit. Returns the cursor of the next page
/// too, if the extra item proves that there is one.
pub fn cut<T>(mut items: Vec<T>, limit: i64, cursor_of: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > most;
    items.truncate(most);
    let next_cursor = if more { items.last().map(cursor_of) } else { None };
    (items, next_cursor)
}

/// Builds a page from all `items`, with the given next cursor.
pub fn page_until<T: Serialize>(items: Vec<T>, next_cursor: Option<String>, uri: &Uri) -> Response {
    let link = next_cursor.as_ref().map(|cursor| next_link(uri, cursor));
    let mut response = (Extension(IsList), axum::Json(Page { items, next_cursor })).into_response();
    if let Some(Ok(link)) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

fn next_link(uri: &Uri, cursor: &str) -> Result<HeaderValue, axum::http::header::InvalidHeaderValue> {
    let kept =
        uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty() && !part.starts_with("cursor="));
    let cursor = format!("cursor={cursor}");
    let query: Vec<&str> = kept.chain(std::iter::once(cursor.as_str())).collect();
    HeaderValue::from_str(&format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_linked_with_the_same_filters() {
        let uri: Uri = "/v1/alerts?limit=2&cursor=1&rule_id=5763".parse().unwrap();
        let response = page(vec![1, 2, 3], 2, &uri, ToString::to_string);
        let link = response.headers()[header::LINK].to_str().unwrap();
        assert_eq!(link, r#"</v1/alerts?limit=2&rule_id=5763&cursor=2>; rel="next""#);
        assert!(page(vec![1, 2], 2, &uri, ToString::to_string).headers().get(header::LINK).is_none());
    }

    #[test]
    fn limits_have_bounds() {
        assert_eq!(limit(None).unwrap(), 50);
        assert_eq!(limit(Some(500)).unwrap(), 500);
        assert!(limit(Some(501)).is_err() && limit(Some(0)).is_err());
        assert!(cursor_id(Some("x")).is_err() && cursor_number(Some("x")).is_err());
    }
}
