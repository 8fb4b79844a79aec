//! `/openapi.json` and `/docs`: the contract, and a page that shows it. The page loads no external
//! font, script or style.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::contract_text::contract_json;
use super::front::table::{Table, operations};

const PAGE: &str = include_str!("docs.html");
const SCRIPT: &str = include_str!("docs.js");
const STYLE: &str = include_str!("docs.css");

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(contract)).with(operations!(page)).with(operations!(script)).with(operations!(style))
}

/// Content Security Policy: only this page's own files, and no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The contract as JSON
#[utoipa::path(get, path = "/openapi.json", tag = "docs", security(()),
    responses((status = 200, content_type = "application/json")))]
pub async fn contract() -> Response {
    file("application/json", contract_json())
}

/// The contract as a page
#[utoipa::path(get, path = "/docs", tag = "docs", security(()), responses((status = 200, content_type = "text/html")))]
pub async fn page() -> Response {
    file("text/html; charset=utf-8", PAGE)
}

/// The page's script
#[utoipa::path(get, path = "/docs/docs.js", tag = "docs", security(()),
    responses((status = 200, content_type = "text/javascript")))]
pub async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

/// The page's style
#[utoipa::path(get, path = "/docs/docs.css", tag = "docs", security(()),
    responses((status = 200, content_type = "text/css")))]
pub async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

fn file(content_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    let mut response = body.into().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
