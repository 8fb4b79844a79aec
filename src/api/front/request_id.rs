//! Request ids: every response has one (`X-Request-Id`), and the log names it where a request fails.
//! A client's own id is kept if it is short and plain, because it is written to the log.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::{MakeRequestId, RequestId};

/// The header, in requests and responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a client's id.
const MAX_LENGTH: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Makes ids of 64 random bits.
#[derive(Clone, Copy, Debug)]
pub struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = format!("{:016x}", getrandom::u64().ok()?);
        HeaderValue::try_from(id).ok().map(RequestId::new)
    }
}

/// Removes a client's id that is not 1 to 64 letters, digits, `-`, `_` or `.`, and one of several.
pub async fn check(mut request: Request) -> Request {
    let ids: Vec<&HeaderValue> = request.headers().get_all(REQUEST_ID).iter().collect();
    if !matches!(ids[..], [only] if is_plain(only.as_bytes())) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

fn is_plain(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(is_plain)
}

/// Makes the id known to what the request does.
pub async fn remember(request: Request, next: Next) -> Response {
    match request.extensions().get::<RequestId>().cloned() {
        Some(id) => CURRENT.scope(id, next.run(request)).await,
        None => next.run(request).await,
    }
}

/// The id of the request that the current task answers, for the log.
pub fn current() -> Option<String> {
    CURRENT.try_with(|id| id.header_value().to_str().ok().map(str::to_owned)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_and_plain_id_is_kept() {
        for (id, is_kept) in [
            ("7f3a-01.b_Z", true),
            (&*"x".repeat(64), true),
            (&*"x".repeat(65), false),
            ("", false),
            ("a b", false),
            ("a\u{1b}[31m", false),
            ("id=\"x\"", false),
        ] {
            assert_eq!(is_plain(id.as_bytes()), is_kept, "{id}");
        }
    }
}
