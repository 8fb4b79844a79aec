//! The API layer. [`routes`] is the table of contents; each resource is one file with its operations
//! (its `routes`) and their handlers. The bodies are in `views/`. [`front`] is what every request
//! passes before its handler. A handler extracts, calls one function of a lower layer, and maps the
//! result.

pub mod actions;
pub mod agents;
pub mod alerts;
pub mod audit;
pub mod backtest;
pub mod commands;
mod contract;
pub mod counts;
pub mod docs;
pub mod effects;
pub mod exchange;
pub mod explain;
pub mod freeze;
pub mod front;
pub mod health;
pub mod import;
pub mod keys;
pub mod lift;
pub mod outcomes;
pub mod policies;
pub mod poll;
pub mod protected;
pub mod responses;
pub mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, Method};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, RefOr, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use crate::config::Config;
use crate::engine::Engine;
use crate::telemetry::ByRoute;
use crate::views::problem::Problem;
pub use contract::{contract, contract_yaml};
use front::address::{self, TrustedProxies};
use front::auth::AuthFailures;
use front::error::ApiError;
use front::extract::MemoryBudgets;
use front::limits::{AllowanceCell, CallerLimits};
use front::poll_slots::PollSlots;

/// Time limit of a request, including the body, for which [`front::extract::BODY_TIMEOUT`] is the limit.
/// Streams and polls have their own limits.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
/// Time limit of a poll: the longest wait plus the processing before it.
const POLL_TIMEOUT: Duration = Duration::from_secs(85);

/// Time limit of operations that may read the whole ledger: a backtest, the audit chain, lifting
/// many responses.
const LONG_TIMEOUT: Duration = Duration::from_mins(10);

/// Limits from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Maximum size of an alert body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum number of alerts per request.
    pub max_batch: usize,
}

/// State shared by all handlers; cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Counter of failed authentication.
    pub auth_failures: Arc<AuthFailures>,
    /// Registry behind `/metrics`.
    pub registry: Arc<Registry>,
    /// The contract as JSON text.
    pub contract: Arc<str>,
    /// URL under which agents reach this manager; empty: as at enrolment.
    pub public_url: Arc<str>,
    /// Limits from the configuration.
    pub limits: RequestLimits,
    /// Memory budgets for bodies.
    pub memory: MemoryBudgets,
    /// Limits on each agent's concurrent requests.
    pub poll_slots: PollSlots,
    /// Rate limits by caller.
    pub caller_limits: Arc<CallerLimits>,
    /// Proxies whose forwarding headers are trusted.
    pub proxies: TrustedProxies,
    /// Whether a proxied request was seen while `public_url` is not set.
    proxy_seen: Arc<AtomicBool>,
}

impl AppState {
    /// Builds the state around a running engine.
    pub fn new(engine: Arc<Engine>, config: &Config, proxies: TrustedProxies) -> Self {
        let mut registry = Registry::default();
        engine.metrics.register(&mut registry);
        Self {
            engine,
            auth_failures: Arc::new(AuthFailures::new(proxies.clone())),
            registry: Arc::new(registry),
            contract: contract().to_string().into(),
            public_url: config.public_url.as_str().into(),
            memory: MemoryBudgets::new(config.max_pending_bytes),
            poll_slots: PollSlots::default(),
            caller_limits: Arc::new(CallerLimits::new(config)),
            proxies,
            proxy_seen: Arc::default(),
            limits: RequestLimits { max_body_bytes: config.max_body_bytes, max_batch: config.max_batch },
        }
    }
}

/// Every route with its documentation, by how long a request may take.
fn routes() -> OpenApiRouter<AppState> {
    let quick = merged([
        actions::routes(),
        agents::routes(),
        alerts::routes(),
        audit::routes(),
        commands::routes(),
        counts::routes(),
        docs::routes(),
        effects::routes(),
        explain::routes(),
        freeze::routes(),
        health::routes(),
        import::routes(),
        keys::routes(),
        policies::routes(),
        protected::routes(),
        responses::routes(),
    ]);
    let quick = quick.layer(from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    let long = merged([audit::long_routes(), backtest::routes(), lift::routes()]);
    let long = long.layer(from_fn(|request, next| within(LONG_TIMEOUT, request, next)));
    let polls = poll::routes().layer(from_fn(|request, next| within(POLL_TIMEOUT, request, next)));
    merged([quick, long, polls, stream::routes()])
}

fn merged<const N: usize>(resources: [OpenApiRouter<AppState>; N]) -> OpenApiRouter<AppState> {
    resources.into_iter().fold(OpenApiRouter::new(), OpenApiRouter::merge)
}

/// The service.
pub fn router(state: AppState) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(|| async { ApiError::not_found("the path does not exist") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        // Handlers apply their own body limits.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), observe))
        .with_state(state)
}

/// The contract from the handlers' annotations; `contract/` completes it.
fn generated() -> OpenApi {
    let (_, mut api) = routes().split_for_parts();
    let info = InfoBuilder::new()
        .title("Riposte")
        .version("1")
        .description(Some(
            "Alerts in, commands out, every block lifted again. Errors are problem+json (RFC 9457); lists are paged by \
             cursor; times are RFC 3339 in UTC; durations are texts such as 10m; a POST that creates takes an Idempotency-Key. \
             What is not HTTP/1.1 at all is answered 400, 414 or 431 without a body.",
        ))
        .build();
    let mut components = api.components.take().unwrap_or_default();
    let schema = <Problem as utoipa::PartialSchema>::schema();
    components.schemas.insert("Problem".into(), schema);
    components.schemas.insert("Fault".into(), <crate::domain::fault::Fault as utoipa::PartialSchema>::schema());
    for (name, format) in [("api_key", "rip_ID_SECRET"), ("agent_token", "JWT")] {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some(format.into());
        components.security_schemes.insert(name.into(), RefOr::T(SecurityScheme::Http(scheme)));
    }
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            // Handlers of different resources share names, but an operation's id must be unique.
            let tag = operation.tags.as_ref().and_then(|tags| tags.first()).map_or("api", String::as_str);
            let own = operation.operation_id.clone().unwrap_or_default();
            operation.operation_id = Some(format!("{}_{own}", tag.replace(' ', "_")));
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    response.description = "Done".into();
                }
            }
        }
    }
    let security = SecurityRequirement::new("api_key", Vec::<String>::new());
    OpenApiBuilder::from(api).info(info).components(Some(components)).security(Some([security])).build()
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unanswered().into_response(),
    }
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
    let is_counted = request.uri().path() != "/v1/alerts" || request.method() != Method::POST;
    let standing = is_counted.then(AllowanceCell::default);
    if let Some(standing) = &standing {
        request.extensions_mut().insert(standing.clone());
    }
    warn_of_proxy(&state, &request);
    let begun = std::time::Instant::now();
    let mut response = next.run(request).await;
    if let Some(standing) = standing.and_then(|standing| standing.get()) {
        standing.tell(response.headers_mut());
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower_service::Service as _;

    use super::*;

    /// Promise 11: a request that timed out gets a 503 that says that it may have been carried out,
    /// with `Retry-After`.
    #[tokio::test]
    async fn promise_11_a_timed_out_request_gets_503_and_retry_after() {
        let never = || std::future::pending::<()>();
        let within = from_fn(|request, next| within(Duration::from_millis(10), request, next));
        let mut router: Router = Router::new().route("/", axum::routing::get(never)).layer(within);
        let answer = router.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "5");
    }
}
