//! `/feeds/{name}`: the list of a feed, as firewalls and proxies fetch it. A list is whole or an error: never a
//! shorter one. Keys that are bound to feeds are consumers, and what each was given is noted; any other caller with
//! the right looks only.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};

use super::feeds::unknown;
use super::front::auth::{Caller, PullFeeds, basic};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Path;
use super::front::table::{Table, operations};
use super::front::validators::Validators;
use super::state::AppState;
use crate::compat::feed_forms;
use crate::engine::pull_feeds::kept::ServedList;

/// `Retry-After` in seconds while a feed is too long: people have to change something first.
const TOO_LONG_RETRY_SECS: u64 = 60;
/// Media type of every form.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(fetch)).layer(map_response(challenged))
}

/// Clients that send a password only after they were asked for one get the question.
pub(super) async fn challenged(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        let basic = HeaderValue::from_static("Basic realm=\"riposte\", charset=\"UTF-8\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, basic);
    }
    response
}

/// A caller that may fetch feeds: by a bearer token, by the key of a consumer as the password of Basic
/// authentication, or by the client certificate of a consumer.
#[derive(Debug)]
pub struct Puller(pub(super) Caller<PullFeeds>);

impl FromRequestParts<AppState> for Puller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        match basic(parts) {
            Some((_, key)) => Caller::of_feed(parts, state, &key).map(Self),
            None if !parts.headers.contains_key(header::AUTHORIZATION)
                && let Some(caller) = Caller::of_certificate(parts, state) =>
            {
                caller.map(Self)
            }
            None => Caller::from_request_parts(parts, state).await.map(Self),
        }
    }
}

/// Returns the list of a feed, in its form
///
/// Takes an API key or an access token as a bearer token, the key of a consumer as the password of Basic
/// authentication, with any name, or the client certificate of a consumer. `ETag` and `Last-Modified` can be sent back in `If-None-Match` and
/// `If-Modified-Since`. While there is more to list than the feed may hold, the answer is 503 with the number in
/// plain text.
#[utoipa::path(get, path = "/feeds/{name}", tag = "feeds", params(("name" = String, Path)),
    responses((status = 200, description = "The list", body = String, content_type = "text/plain"),
        (status = 304, description = "The list is the one that the client has"),
        (status = 503, description = "The list is too long, or the manager is overloaded or unavailable",
            body = String, content_type = "text/plain")))]
pub async fn fetch(
    Puller(caller): Puller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let engine = &state.engine;
    let served = served(&caller, &state, &name).await?;
    if let Some(count) = served.too_many {
        return Ok(too_long(&served, count));
    }
    let now = engine.clock.now();
    let body = feed_forms::text(served.spec.form, &name, served.list.listed(), now);
    let validators = state.feed_validators.of(&name, body.as_bytes(), now);
    let has_it = validators.are_met_by(&headers);
    // A HEAD is no fetch, and a bouncer is told of changes elsewhere: what is read here must not count as told.
    let is_fetch = method == Method::GET && !served.spec.form.tells_changes();
    if let Some(consumer) = engine.consumer_name(&caller.principal).filter(|_| is_fetch) {
        let before = engine.feed_consumer(&name, &consumer).await?;
        engine.note_fetch(&served, &consumer, before.as_ref(), caller.address);
    }
    let mut response = if has_it { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    describe(response.headers_mut(), &validators);
    Ok(response)
}

/// The list of a feed that the caller may have.
async fn served(caller: &Caller<PullFeeds>, state: &AppState, name: &str) -> ApiResult<ServedList> {
    let scopes = &caller.principal.scopes;
    if !scopes.take_feed(name) {
        let own: Vec<&str> = scopes.all().iter().flat_map(|scope| &scope.feeds).map(String::as_str).collect();
        return Err(ApiError::forbidden(format!("this key is bound to other feeds: {}", own.join(", "))));
    }
    if caller.principal.feeds().is_none() {
        caller.unlimited("a feed lists what concerns all agents and policies")?;
    }
    let spec = state.engine.feed_spec(name).ok_or_else(|| unknown(name))?;
    Ok(state.engine.feed_list(&spec).await?)
}

fn describe(headers: &mut HeaderMap, validators: &Validators) {
    headers.insert(header::CONTENT_TYPE, TEXT);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(etag) = HeaderValue::from_str(&validators.etag) {
        headers.insert(header::ETAG, etag);
    }
    if let Some(at) = validators.last_modified.as_deref().and_then(|at| HeaderValue::from_str(at).ok()) {
        headers.insert(header::LAST_MODIFIED, at);
    }
}

/// 503: a shorter list would unblock what it leaves out.
fn too_long(served: &ServedList, count: usize) -> Response {
    let (name, most) = (&served.spec.name, served.spec.max_entries);
    let text = format!(
        "503 the feed {name} has {count} entries and may hold {most}, so it is not served: a shorter list would lift blocks. \
         Raise max_entries to what the consumers take, or divide the feed by policies or labels.\n"
    );
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, TEXT)], text).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(TOO_LONG_RETRY_SECS));
    response
}
