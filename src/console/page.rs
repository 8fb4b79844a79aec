//! What every page and every answer of the console is made of: the headers that keep a page from
//! running anything that is not ours, the page of a failure, and how a template becomes a response.

use askama::Template;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use riposte_protocol::visible::is_hidden;

use super::assets;
use super::client::Trouble;
use crate::engine::secrets::new_secret;

/// Permissions that no page needs.
const PERMISSIONS: (HeaderName, HeaderValue) = (
    HeaderName::from_static("permissions-policy"),
    HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
);

/// The number that a page's own scripts carry; a script without it does not run.
#[derive(Clone, Debug, Default)]
pub(super) struct Nonce(pub(super) String);

/// Adds the headers of a page, with a fresh nonce.
pub(super) async fn secure(mut request: Request, next: Next) -> Response {
    let Ok(nonce) = new_secret() else {
        return PageFailure::system("the system has no randomness").into_response();
    };
    request.extensions_mut().insert(Nonce(nonce.clone()));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(PERMISSIONS.0, PERMISSIONS.1);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A page that cannot be shown, or a change that was not made.
#[derive(Debug)]
pub(super) struct PageFailure {
    status: StatusCode,
    detail: String,
}

impl PageFailure {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// Whether something has changed meanwhile.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT
    }

    pub(super) fn system(detail: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl From<Trouble> for PageFailure {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble.status(), trouble.to_string())
    }
}

impl From<askama::Error> for PageFailure {
    fn from(error: askama::Error) -> Self {
        Self::system(&format!("the page cannot be written: {error}"))
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    assets: String,
    title: &'a str,
    detail: &'a str,
}

impl IntoResponse for PageFailure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), "a page of the console cannot be shown: {}", self.detail);
        }
        let title = match self.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => "It has changed meanwhile",
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => "This cannot be done as it was asked",
            StatusCode::TOO_MANY_REQUESTS => "Too many requests",
            _ => "The manager cannot answer now",
        };
        let page = FailurePage { assets: assets::base(), title, detail: &self.detail };
        let html = page.render().unwrap_or_else(|_| title.to_owned());
        (self.status, Html(legible(html))).into_response()
    }
}

/// What a handler of a page returns.
pub(super) type PageResult = Result<Response, PageFailure>;

/// A place in this console; `/` instead of any other.
pub(super) fn local(place: &str) -> &str {
    let is_local = place.starts_with('/') && !place.starts_with("//") && !place.starts_with("/\\");
    if is_local && place.chars().all(|c| !c.is_control()) { place } else { "/" }
}

/// `html` with hidden characters as U+FFFD, so that no text of a stranger turns the words around it.
/// What is edited in a `textarea` stays as it is: it comes back to be stored.
fn legible(html: String) -> String {
    let is_misleading = |c: char| is_hidden(c) && !matches!(c, '\n' | '\r' | '\t');
    if !html.contains(is_misleading) {
        return html;
    }
    let mut shown = String::with_capacity(html.len());
    for (i, part) in html.split("<textarea").enumerate() {
        let edited = if i == 0 { 0 } else { part.find("</textarea>").unwrap_or(part.len()) };
        if i > 0 {
            shown.push_str("<textarea");
        }
        shown.push_str(&part[..edited]);
        shown.extend(part[edited..].chars().map(|c| if is_misleading(c) { '\u{fffd}' } else { c }));
    }
    shown
}

/// A page.
pub(super) fn html(page: &impl Template) -> PageResult {
    with_status(StatusCode::OK, page)
}

/// A page with another status than 200.
pub(super) fn with_status(status: StatusCode, page: &impl Template) -> Result<Response, PageFailure> {
    let mut response = (status, legible(page.render()?)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_seen_but_for_a_text_that_is_edited() {
        let html = "<p>\u{202e}a\u{1b}[1m\n</p><textarea>\u{200d}</textarea>\u{feff}<textarea>\u{200d}".to_owned();
        let shown = "<p>\u{fffd}a\u{fffd}[1m\n</p><textarea>\u{200d}</textarea>\u{fffd}<textarea>\u{200d}";
        assert_eq!(legible(html), shown);
    }

    #[test]
    fn only_places_in_the_console_are_gone_to() {
        for place in ["/", "/agents?label=env%3Dprod", "/responses/1#x"] {
            assert_eq!(local(place), place);
        }
        for place in ["https://elsewhere", "//elsewhere", "/\\elsewhere", "javascript:alert(1)", "", "/a\nb"] {
            assert_eq!(local(place), "/", "{place}");
        }
    }
}
