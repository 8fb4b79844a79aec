//! Authentication. A handler that takes a [`Caller<R>`] runs only for a principal with the right
//! `R`. A handler that takes an [`AgentCaller`] runs only for an agent that is not revoked. Both
//! are extractors that run before the body is read, so an unauthenticated client gets no body
//! parsed.
//!
//! Failed attempts are limited per address. Valid credentials are checked first, so an attacker
//! behind the same address cannot lock out a legitimate client.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use riposte_protocol::identity::{self, TokenError};
use riposte_protocol::time::Timestamp;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::error::{ApiError, ApiResult};
use super::listen::{Newcomer, Transport};
use crate::api::state::AppState;
use crate::domain::actor::Actor;
use crate::domain::api_key;
use crate::domain::principal::{Principal, Right, Role};
use crate::engine::Engine;
use crate::engine::keys::hash_secret;
use crate::store::configured::keys::StoredKey;

/// A right, as a type.
pub trait Needed: Send + Sync {
    /// The right.
    const RIGHT: Right;
}

macro_rules! needed {
    ($($(#[$doc:meta])* $name:ident => $right:ident;)*) => {
        $($(#[$doc])* #[derive(Debug)] pub struct $name; impl Needed for $name { const RIGHT: Right = Right::$right; })*
    };
}

needed! {
    /// Right to read.
    Read => Read;
    /// Right to ingest alerts.
    Ingest => Ingest;
    /// Right to respond.
    Respond => Respond;
    /// Right to change policies.
    WritePolicies => WritePolicies;
    /// Right to manage agents.
    ManageAgents => ManageAgents;
    /// Right to administer.
    Administer => Administer;
}

/// An authenticated principal that has the right `R`.
#[derive(Debug)]
pub struct Caller<R: Needed> {
    /// The principal.
    pub principal: Principal,
    right: PhantomData<R>,
}

impl<R: Needed> FromRequestParts<AppState> for Caller<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let engine = &state.engine;
        let given = bearer(parts);
        let Some(principal) = given.and_then(|key| principal(engine, key)) else {
            let why = given.map_or_else(
                || "an API key is required: Authorization: Bearer rip_…".to_owned(),
                |key| {
                    api_key::form_fault(key)
                        .unwrap_or_else(|| "this API key is not valid (unknown, revoked or expired)".into())
                },
            );
            return Err(state.auth_failures.refuse(engine, parts, &why));
        };
        if principal.role == Role::Ingest {
            certified(state, parts)?;
        }
        known(parts);
        // Ingest is limited by memory permits instead.
        if R::RIGHT != Right::Ingest {
            state.caller_limits.count_key(parts, &principal.actor)?;
        }
        if !principal.role.may(R::RIGHT) {
            let Principal { actor, role, .. } = principal;
            let name = actor.to_string();
            tracing::warn!(principal = name, path = parts.uri.path(), "{name} made a request without the right");
            return Err(ApiError::forbidden(format!("the role {} does not have the required right", role.as_str())));
        }
        Ok(Self { principal, right: PhantomData })
    }
}

/// An authenticated agent that is not revoked.
#[derive(Debug)]
pub struct AgentCaller {
    /// Id of the agent.
    pub id: Uuid,
    /// The version of its program, as its `User-Agent` says; none if it says something else.
    pub version: Option<String>,
}

impl FromRequestParts<AppState> for AgentCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let engine = &state.engine;
        let Some(token) = bearer(parts) else {
            return Err(state.auth_failures.refuse(
                engine,
                parts,
                "an agent token is required: Authorization: Bearer …",
            ));
        };
        let refuse = |detail: &str| state.auth_failures.refuse(engine, parts, detail);
        let claimed = identity::claimed_agent(token).map_err(|error| refuse(&error.to_string()))?;
        let fleet = engine.fleet.load();
        let Some(agent) = fleet.get(claimed) else {
            if fleet.is_revoked(claimed) {
                tracing::warn!(agent = %claimed, "revoked agent {claimed} tried to connect");
                return Err(state.auth_failures.count(engine, parts, ApiError::forbidden("this agent was revoked")));
            }
            return Err(refuse("the agent is not enrolled"));
        };
        let now = engine.clock.now();
        identity::check(token, &agent.public_key, agent.id, now).map_err(|error| match error {
            // The agent itself, or an old token of its: it is told the time, and comes again with a token that is right.
            TokenError::Time(_) => state.auth_failures.dated(engine, agent, ApiError::wrong_time(error.to_string())),
            other => refuse(&other.to_string()),
        })?;
        certified(state, parts)?;
        known(parts);
        state.caller_limits.count_agent(parts, agent.id)?;
        engine.hub.heard(agent.id, now);
        Ok(Self { id: agent.id, version: agent_version(&parts.headers) })
    }
}

/// The version in `User-Agent: riposte-agent/VERSION`. It becomes a row and a line of the audit log, so it is short and plain.
fn agent_version(headers: &HeaderMap) -> Option<String> {
    const LONGEST: usize = 64;
    let version = headers.get(USER_AGENT)?.to_str().ok()?.strip_prefix("riposte-agent/")?;
    let is_plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte));
    (is_plain && (1..=LONGEST).contains(&version.len())).then(|| version.to_owned())
}

/// A caller on this connection has shown who it is.
fn known(parts: &Parts) {
    if let Some(newcomer) = parts.extensions.get::<Newcomer>() {
        newcomer.is_known();
    }
}

/// Refuses a request without a client certificate, where agents and pipelines must show one.
///
/// # Errors
/// 401, or 429 after too many attempts.
pub fn certified(state: &AppState, parts: &Parts) -> ApiResult<()> {
    let is_wanted = state.tls.as_ref().is_some_and(|tls| tls.wants_client_certificates());
    let has_one = || parts.extensions.get::<Transport>().is_some_and(|transport| transport.has_certificate);
    if !is_wanted || has_one() {
        return Ok(());
    }
    let why = "agents and pipelines of this manager must show a client certificate of its tls_client_ca";
    Err(state.auth_failures.refuse(&state.engine, parts, why))
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The principal of an API key, if the key is valid now.
fn principal(engine: &Engine, key: &str) -> Option<Principal> {
    let (id, secret) = key.strip_prefix("rip_")?.split_once('_')?;
    let keys = engine.keys.load();
    let StoredKey { key: row, hash } = keys.get(id)?;
    let same: bool = hash_secret(secret).as_slice().ct_eq(hash).into();
    let expired = row.expires_at.is_some_and(|at| Timestamp::from(at) <= engine.clock.now());
    let is_valid = same && !expired && row.revoked_at.is_none();
    is_valid.then(|| Principal { actor: Actor::Key(id.to_owned()), role: row.role, pipeline: row.pipeline.clone() })
}
