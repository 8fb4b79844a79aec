//! Rate limits per minute: by API key, by agent id, and by address for enrolments. Responses report
//! the remaining allowance (`RateLimit`, `RateLimit-Policy`); over the limit they are 429 with
//! `Retry-After`. Alerts are not counted here: the memory budget for uncommitted alerts limits
//! them.

use std::fmt::Write as _;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use uuid::Uuid;

use super::error::{ApiError, ApiResult};
use crate::config::Config;
use crate::domain::actor::Actor;

/// Maximum number of counted addresses. Beyond it, addresses idle for a minute are forgotten, and
/// if that is not enough, all.
const ADDRESSES: usize = 10_000;
const MINUTE: Duration = Duration::from_mins(1);
/// Effects of one agent that may turn out otherwise than the ledger has them in a minute: each can be a row, a command and an
/// entry in the audit log.
pub const NEWS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(600).unwrap();
/// As many may be news at once: a host whose firewall was flushed while it was away has lost all that it held.
pub const NEWS_AT_ONCE: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

/// Steps of logins at OpenID providers in a minute from one address: each begun login takes memory for ten minutes, and each
/// finished one asks the provider.
const SIGN_ONS_PER_MINUTE: u32 = 120;

/// The limit for one kind of caller.
struct Limit<K: Hash + Eq + Clone> {
    per_minute: NonZeroU32,
    callers: RateLimiter<K, HashMapStateStore<K>, DefaultClock, StateInformationMiddleware>,
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for Limit<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limit").field("per_minute", &self.per_minute).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(per_minute: u32) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        Self { per_minute, callers: RateLimiter::hashmap(Quota::per_minute(per_minute)).with_middleware() }
    }

    /// Forgets callers that were idle for a minute, if there are many.
    fn forget_idle(&self) {
        if self.callers.len() > ADDRESSES {
            self.callers.retain_recent();
            self.callers.shrink_to_fit();
        }
    }

    /// Counts a request; returns the remaining allowance, and the wait if it is exceeded.
    fn count(&self, caller: &K) -> (Allowance, Option<Duration>) {
        let standing = |remaining| Allowance { per_minute: self.per_minute.get(), remaining };
        match self.callers.check_key(caller) {
            Ok(left) => (standing(left.remaining_burst_capacity()), None),
            Err(not_until) => (standing(0), Some(not_until.wait_time_from(DefaultClock::default().now()))),
        }
    }
}

/// A caller's remaining allowance, for the response headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    per_minute: u32,
    remaining: u32,
}

impl Allowance {
    /// Sets the headers (draft-ietf-httpapi-ratelimit-headers).
    pub fn tell(self, headers: &mut HeaderMap) {
        const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
        const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
        let Self { per_minute, remaining } = self;
        // Time until the allowance is full again.
        let used = u64::from(per_minute.saturating_sub(remaining));
        let secs = (used * MINUTE.as_secs()).div_ceil(u64::from(per_minute.max(1)));
        let (mut policy, mut limit) = (String::new(), String::new());
        let written = write!(policy, "\"caller\";q={per_minute};w={}", MINUTE.as_secs())
            .and_then(|()| write!(limit, "\"caller\";r={remaining};t={secs}"));
        if written.is_ok()
            && let (Ok(policy), Ok(limit)) = (HeaderValue::try_from(policy), HeaderValue::try_from(limit))
        {
            headers.insert(POLICY, policy);
            headers.insert(LIMIT, limit);
        }
    }
}

/// Carries the caller's remaining allowance from the extractors to the layer that writes the
/// response headers.
#[derive(Clone, Debug, Default)]
pub struct AllowanceCell(Arc<OnceLock<Allowance>>);

impl AllowanceCell {
    /// The remaining allowance, if the request was counted.
    pub fn get(&self) -> Option<Allowance> {
        self.0.get().copied()
    }
}

/// The limits for all kinds of callers.
#[derive(Debug)]
pub struct CallerLimits {
    keys: Limit<Actor>,
    agents: Limit<Uuid>,
    enrolments: Limit<IpAddr>,
    sign_ons: Limit<IpAddr>,
    news: RateLimiter<Uuid, HashMapStateStore<Uuid>, DefaultClock>,
}

impl CallerLimits {
    /// The limits from the configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            keys: Limit::new(config.limits.requests_per_minute),
            agents: Limit::new(config.limits.agent_requests_per_minute),
            enrolments: Limit::new(config.limits.enrolments_per_minute),
            sign_ons: Limit::new(SIGN_ONS_PER_MINUTE),
            news: RateLimiter::hashmap(Quota::per_minute(NEWS_PER_MINUTE).allow_burst(NEWS_AT_ONCE)),
        }
    }

    /// Counts a request with an API key.
    ///
    /// # Errors
    /// 429 over the limit.
    pub fn count_key(&self, parts: &Parts, principal: &Actor) -> ApiResult<()> {
        let what = || format!("{principal} has exceeded {} requests per minute", self.keys.per_minute);
        settle(Some(parts), self.keys.count(principal), what)
    }

    /// Counts a request of an agent.
    ///
    /// # Errors
    /// 429 over the limit.
    pub fn count_agent(&self, parts: &Parts, agent: Uuid) -> ApiResult<()> {
        let what = || format!("agent {agent} has exceeded {} requests per minute", self.agents.per_minute);
        settle(Some(parts), self.agents.count(&agent), what)
    }

    /// Counts what an agent says of its effects that the ledger has otherwise.
    ///
    /// # Errors
    /// 429 over the limit.
    pub fn count_news(&self, agent: Uuid, effects: usize) -> ApiResult<()> {
        let effects = u32::try_from(effects).unwrap_or(u32::MAX).min(NEWS_AT_ONCE.get());
        let Some(effects) = NonZeroU32::new(effects) else { return Ok(()) };
        // As many as fit in at once are asked for, so what is refused can be waited for.
        let wait = match self.news.check_key_n(&agent, effects) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until.wait_time_from(DefaultClock::default().now()),
            Err(_) => MINUTE,
        };
        tracing::warn!(%agent, effects, "agent {agent} has told more changes of effects than are taken in: it waits");
        let what = format!("agent {agent} has told more than {NEWS_PER_MINUTE} changes of effects in a minute");
        Err(ApiError::too_many(what, wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
    }

    /// Counts an enrolment that is asked for from an address, before anything else is done about it.
    ///
    /// # Errors
    /// 429 over the limit.
    pub fn count_enrolment(&self, peer: IpAddr) -> ApiResult<()> {
        self.enrolments.forget_idle();
        let what = || format!("the address has exceeded {} enrolments per minute", self.enrolments.per_minute);
        settle(None, self.enrolments.count(&network(peer)), what)
    }

    /// Counts a step of a login at an OpenID provider, from a [`network`].
    ///
    /// # Errors
    /// 429 over the limit.
    pub fn count_sign_on(&self, network: IpAddr) -> ApiResult<()> {
        self.sign_ons.forget_idle();
        let what = || format!("the address has exceeded {SIGN_ONS_PER_MINUTE} steps of logins per minute");
        settle(None, self.sign_ons.count(&network), what)
    }
}

fn settle(
    parts: Option<&Parts>,
    (standing, wait): (Allowance, Option<Duration>),
    what: impl Fn() -> String,
) -> ApiResult<()> {
    if let Some(cell) = parts.and_then(|parts| parts.extensions.get::<AllowanceCell>()) {
        // The caller is counted first and only once.
        let _ = cell.0.set(standing);
    }
    match wait {
        None => Ok(()),
        Some(wait) => Err(ApiError::too_many(what(), wait.as_secs() + u64::from(wait.subsec_nanos() > 0))),
    }
}

/// The unit that rate limits count as one address: for IPv6 the /64 network, because one client
/// controls all of it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_over_its_limit_gets_429_with_retry_after() {
        let limit = Limit::new(3);
        let counts: Vec<u32> = (0..3).map(|_| limit.count(&"a").0.remaining).collect();
        assert_eq!(counts, [2, 1, 0]);
        let (standing, wait) = limit.count(&"a");
        let wait = wait.unwrap();
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(limit.count(&"b"), (Allowance { per_minute: 3, remaining: 2 }, None));
        let mut headers = HeaderMap::new();
        standing.tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"caller\";q=3;w=60");
        assert_eq!(headers["ratelimit"], "\"caller\";r=0;t=60");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let [one, other, far, v4] = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "203.0.113.7"]
            .map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(network(one), network(other));
        assert_ne!(network(one), network(far));
        assert_eq!(network("::ffff:203.0.113.7".parse().unwrap()), network(v4));
    }
}
