//! What all handlers share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use prometheus_client::registry::Registry;

use super::front::address::TrustedProxies;
use super::front::auth_failures::AuthFailures;
use super::front::follower_slots::FollowerSlots;
use super::front::limits::CallerLimits;
use super::front::memory::MemoryBudgets;
use super::front::poll_slots::PollSlots;
use super::front::tls::Tls;
use super::front::validators::FeedValidators;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::ledger_gauges::LedgerGauges;

/// Limits from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Maximum size of an alert body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum number of alerts per request.
    pub max_batch: usize,
    /// Maximum number of requests per minute with one key.
    pub requests_per_minute: u32,
}

/// State shared by all handlers. A request clones it several times, so that it is one pointer.
#[derive(Clone, Debug)]
pub struct AppState(Arc<SharedState>);

impl Deref for AppState {
    type Target = SharedState;

    fn deref(&self) -> &SharedState {
        &self.0
    }
}

/// What the state holds.
#[derive(Debug)]
pub struct SharedState {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Counter of failed authentication.
    pub auth_failures: Arc<AuthFailures>,
    /// Registry behind `/metrics`.
    pub registry: Arc<Registry>,
    /// Those of its gauges that are read from the ledger.
    pub ledger_gauges: Arc<LedgerGauges>,
    /// URL under which agents reach this manager; empty: as at enrolment.
    pub public_url: Arc<str>,
    /// Limits from the configuration.
    pub limits: RequestLimits,
    /// Memory budgets for bodies.
    pub memory: MemoryBudgets,
    /// Limits on each agent's concurrent requests.
    pub poll_slots: PollSlots,
    /// Limits on streams of events.
    pub follower_slots: FollowerSlots,
    /// Rate limits by caller.
    pub caller_limits: Arc<CallerLimits>,
    /// Proxies whose forwarding headers are trusted.
    pub proxies: TrustedProxies,
    /// When each list of a feed was first seen as it is.
    pub feed_validators: Arc<FeedValidators>,
    /// The listener's certificate; `None` for plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Whether a proxied request was seen while `public_url` is not set.
    pub(super) proxy_seen: Arc<AtomicBool>,
}

impl AppState {
    /// Builds the state around a running engine.
    pub fn new(engine: Arc<Engine>, config: &Config, proxies: TrustedProxies, tls: Option<Arc<Tls>>) -> Self {
        let mut registry = Registry::default();
        engine.metrics.register(&mut registry);
        let ledger_gauges = Arc::<LedgerGauges>::default();
        ledger_gauges.register(&mut registry);
        Self(Arc::new(SharedState {
            engine,
            auth_failures: Arc::new(AuthFailures::new(proxies.clone())),
            registry: Arc::new(registry),
            ledger_gauges,
            public_url: config.server.public_url.as_str().into(),
            memory: MemoryBudgets::new(config.limits.max_pending_bytes),
            poll_slots: PollSlots::default(),
            follower_slots: FollowerSlots::default(),
            caller_limits: Arc::new(CallerLimits::new(config)),
            proxies,
            feed_validators: Arc::default(),
            tls,
            proxy_seen: Arc::default(),
            limits: RequestLimits {
                max_body_bytes: config.limits.max_body_bytes,
                max_batch: config.limits.max_batch,
                requests_per_minute: config.limits.requests_per_minute,
            },
        }))
    }
}
