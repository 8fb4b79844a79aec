//! The service: the routes behind what every request passes.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;

use super::crowdsec::worded;
use super::front::address;
use super::front::auth::CallerCell;
use super::front::error::ApiError;
use super::front::limits::AllowanceCell;
use super::front::request_id::{self, REQUEST_ID, RandomId};
use super::openc2;
use super::routes::routes;
use super::state::AppState;
use super::taxii;
use super::wazuh::shape;
use crate::telemetry::ByRoute;

/// Seconds after which a client tries again while the manager has no lease.
const LEASE_RETRY_SECS: u64 = 2;

/// The service.
pub fn router(state: AppState) -> Router {
    routes::<Router<AppState>>()
        .fallback(|| async { ApiError::not_found("the path does not exist") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        // Handlers apply their own body limits.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), observe))
        .layer(from_fn(shape::speak))
        .layer(from_fn(openc2::shape::speak))
        .layer(from_fn(worded::speak))
        .layer(from_fn(taxii::worded::speak))
        // What comes from here on is outermost last: an id is checked or made, and then returned.
        .layer(from_fn(request_id::remember))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, RandomId))
        .layer(map_request(request_id::check))
        // Credentials are not shown where a request is printed for debugging.
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .with_state(state)
}

/// Counts requests by route, and sends the time to agents.
async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    // Fixed methods: a client may invent others, and every label is kept for ever.
    const METHODS: [Method; 7] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    let known = METHODS.contains(request.method());
    let method = if known { request.method().as_str() } else { "other" }.to_owned();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let is_agents = request.uri().path().starts_with("/v1/agent/");
    // Ingest has no rate limit, and many requests.
    let is_ingest = route == "/v1/alerts" || route == "/v1/ingest/{secret}";
    let is_counted = !is_ingest || request.method() != Method::POST;
    let standing = is_counted.then(AllowanceCell::default);
    if let Some(standing) = &standing {
        request.extensions_mut().insert(standing.clone());
    }
    let caller = CallerCell::default();
    request.extensions_mut().insert(caller.clone());
    warn_of_proxy(&state, &request);
    let begun = std::time::Instant::now();
    let path = request.uri().path();
    let is_ours = ["/v1/", "/feeds/", "/taxii2/", "/approval/"].iter().any(|own| route.starts_with(own));
    let needs_lease = is_ours || shape::is_wazuh(path) || openc2::shape::is_openc2(path);
    let mut response = if needs_lease && !state.engine.lease.is_held() {
        // Not even whether a key is valid: it may have been revoked by another manager.
        let why = state.engine.lease.trouble().map_or_else(String::new, |why| format!(": {why}"));
        let said = format!("this manager has no lease on the ledger at the moment{why}");
        ApiError::unavailable(said, LEASE_RETRY_SECS).into_response()
    } else {
        next.run(request).await
    };
    if let Some(standing) = standing.and_then(|standing| standing.get()) {
        standing.tell(response.headers_mut());
    }
    if response.status() == StatusCode::FORBIDDEN
        && let Some((actor, address)) = caller.get()
    {
        state.engine.denials.note(actor, format!("{method} {route}"), *address);
    }
    if is_agents && let Ok(now) = state.engine.clock.now().to_string().try_into() {
        response.headers_mut().insert(HeaderName::from_static(riposte_protocol::TIME_HEADER), now);
    }
    let labels = ByRoute { method, route, status: format!("{}xx", response.status().as_u16() / 100) };
    state.engine.metrics.request_seconds.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    state.engine.metrics.requests.get_or_create(&labels).inc();
    response
}

/// Warns once that a proxy forwards requests while `public_url` is not set.
fn warn_of_proxy(state: &AppState, request: &Request) {
    if state.public_url.is_empty()
        && let Some(header) = address::of_proxy(request.headers())
        && !state.proxy_seen.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            header,
            "a proxy passes requests on ({header}), and public_url is not set: agents cannot be enrolled through it. Set \
             public_url to the address that agents see, such as https://riposte.example.org"
        );
    }
}

fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    ApiError::internal(&"a handler panicked").into_response()
}
