//! Counts failed authentication by address, and answers too many attempts with 429.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::address::TrustedProxies;
use super::error::ApiError;
use super::limits::network;
use super::route::route;
use crate::domain::agent::Agent;
use crate::engine::Engine;

/// Failed attempts that an address may make in a minute before it is answered 429.
const FAILURES_PER_MINUTE: u32 = 600;
/// Maximum number of counted addresses; beyond it the counters are reset.
const ADDRESSES: usize = 10_000;
const MINUTE: Duration = Duration::from_mins(1);
/// Tokens of one agent that are dated wrongly which are told the time in a minute, before the answer is 429: after the first, an
/// agent goes by the manager's clock.
const DATED_PER_MINUTE: u32 = 60;

/// Counts failed authentication per address.
#[derive(Debug, Default)]
pub struct AuthFailures {
    /// Proxies whose forwarding headers are trusted.
    proxies: TrustedProxies,
    failures: Mutex<HashMap<IpAddr, (Timestamp, u32)>>,
    /// Agents whose tokens are right but for their time: at most as many as are enrolled.
    dated: Mutex<HashMap<Uuid, (Timestamp, u32)>>,
}

impl AuthFailures {
    /// A counter without failed attempts; `proxies` decides which address a request comes from.
    pub fn new(proxies: TrustedProxies) -> Self {
        Self { proxies, ..Self::default() }
    }

    /// The client address of a request.
    pub fn origin(&self, parts: &Parts) -> IpAddr {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        self.proxies.origin(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), &parts.headers)
    }

    /// The response to invalid credentials: 401, or 429 after too many attempts.
    pub fn refuse(&self, engine: &Engine, parts: &Parts, detail: &str) -> ApiError {
        self.count(engine, parts, ApiError::unauthenticated(detail))
    }

    /// The answer to an agent whose token is its own and dated wrongly: no stranger, so it does not count against the address that
    /// it comes from. Gives `answer`, or 429 where that does not help.
    pub(super) fn dated(&self, engine: &Engine, agent: &Agent, answer: ApiError) -> ApiError {
        let now = engine.clock.now();
        let mut dated = self.dated.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = dated.entry(agent.id).or_insert((now, 0));
        if now.since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count == 1 {
            let (id, name) = (agent.id, &agent.name);
            tracing::info!(agent = %id, name, "agent {name} is told the manager's time: {answer}");
        }
        if *count <= DATED_PER_MINUTE {
            return answer;
        }
        let left = MINUTE.saturating_sub(now.since(*since)).as_secs().max(1);
        ApiError::too_many("too many tokens that are dated wrongly: the agent does not go by the manager's time", left)
    }

    /// Counts a failed attempt; gives `answer`, or 429 after too many.
    pub fn count(&self, engine: &Engine, parts: &Parts, answer: ApiError) -> ApiError {
        self.count_from(engine, self.origin(parts), route(parts), answer)
    }

    /// The same without request parts.
    pub fn count_from(&self, engine: &Engine, peer: IpAddr, path: &str, answer: ApiError) -> ApiError {
        engine.metrics.unauthenticated.inc();
        let (now, address) = (engine.clock.now(), network(peer));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES && !failures.contains_key(&address) {
            failures.clear();
        }
        let (since, count) = failures.entry(address).or_insert((now, 0));
        if now.since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count <= FAILURES_PER_MINUTE {
            // Log the first failures one by one, and a flood once.
            if *count <= 10 || *count == FAILURES_PER_MINUTE {
                tracing::warn!(%peer, path, attempt = *count, "a request from {peer} without valid credentials: {answer}");
            }
            return answer;
        }
        let left = MINUTE.saturating_sub(now.since(*since)).as_secs().max(1);
        ApiError::too_many("too many attempts without valid credentials", left)
    }
}
