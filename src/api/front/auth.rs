//! Authentication. A handler that takes a [`Caller<R>`] runs only for a principal with the right
//! `R`. A handler that takes an [`AgentCaller`] runs only for an agent that is not revoked. Both
//! are extractors that run before the body is read, so an unauthenticated client gets no body
//! parsed.
//!
//! Failed attempts are limited per address. Valid credentials are checked first, so an attacker
//! behind the same address cannot lock out a legitimate client.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use riposte_protocol::identity::{self, TokenError};
use riposte_protocol::jws::JwsError;
use riposte_protocol::key::VerifyingKey;
use riposte_protocol::time::Timestamp;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::error::{ApiError, ApiResult};
use super::listen::{Newcomer, Transport};
use super::route::route;
use crate::api::state::AppState;
use crate::domain::access_token::{AccessTokenError, KeyClaims};
use crate::domain::actor::Actor;
use crate::domain::agent::Agent;
use crate::domain::api_key;
use crate::domain::client_certificate::Fingerprint;
use crate::domain::principal::{Credentials, Principal, Role};
use crate::domain::right::Right;
use crate::domain::scope::Scopes;
use crate::engine::Engine;
use crate::engine::secrets::hash_secret;
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
    /// Right to fetch the lists of feeds.
    PullFeeds => PullFeeds;
    /// Right to ingest alerts.
    Ingest => Ingest;
    /// Right to respond.
    Respond => Respond;
    /// Right to approve, reject and confirm responses.
    Approve => Approve;
    /// Right to change policies.
    WritePolicies => WritePolicies;
    /// Right to manage agents.
    ManageAgents => ManageAgents;
    /// Right to administer.
    Administer => Administer;
    /// Right to manage one's own keys.
    OwnKeys => OwnKeys;
    /// Right to ask which principal one is.
    Identify => Identify;
}

/// An authenticated principal that has the right `R`.
#[derive(Debug)]
pub struct Caller<R: Needed> {
    /// The principal.
    pub principal: Principal,
    /// Client address of the request.
    pub address: IpAddr,
    right: PhantomData<R>,
}

impl<R: Needed> Caller<R> {
    /// The name of the person.
    ///
    /// # Errors
    /// 403 for a service key; `what` says what needs a person.
    pub fn person(&self, what: &str) -> ApiResult<&str> {
        self.principal.person().ok_or_else(|| {
            ApiError::forbidden(format!(
                "{what}: a service key is none (role {}); log in (`riposte login`), or use a personal API key",
                self.principal.role.as_str()
            ))
        })
    }

    /// The name of the person, who has logged in. A key is easier to steal than a session, so it cannot
    /// change how the person comes in.
    ///
    /// # Errors
    /// 403 for every key; `what` says what needs a session.
    pub fn logged_in(&self, what: &str) -> ApiResult<&str> {
        let person = self.person(what)?;
        match &self.principal.via {
            Credentials::Session(_) => Ok(person),
            Credentials::Link(_) => Err(ApiError::forbidden(format!("{what}, who has logged in"))),
            Credentials::Key(_) => Err(ApiError::forbidden(format!(
                "{what}, who has logged in: a personal key cannot do it, whatever its role ({}); log in (`riposte login`)",
                self.principal.role.as_str()
            ))),
        }
    }

    /// Checks a further right.
    ///
    /// # Errors
    /// 403 without it.
    pub fn may(&self, right: Right) -> ApiResult<()> {
        if self.principal.may(right) { Ok(()) } else { Err(lacks(&self.principal)) }
    }
}

fn lacks(principal: &Principal) -> ApiError {
    let what = if principal.scopes.all().is_empty() { "" } else { ", or your scope takes it away" };
    ApiError::forbidden(format!("the role {} does not have the required right{what}", principal.role.as_str()))
}

impl<R: Needed> FromRequestParts<AppState> for Caller<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let engine = &state.engine;
        let given = bearer(parts)
            .ok_or_else(|| "an API key or an access token is required: Authorization: Bearer …".to_owned());
        let principal = match given.and_then(|given| authenticate(engine, given)) {
            Ok(principal) => principal,
            // A pipeline may send its key as a password.
            Err(why) => match basic(parts) {
                Some((_, key)) => return Self::of_pipeline(parts, state, &key),
                None => return Err(state.auth_failures.refuse(engine, parts, &why)),
            },
        };
        Self::admit(parts, state, principal)
    }
}

impl<R: Needed> Caller<R> {
    /// The caller with the key of a pipeline that did not come as a bearer token. Other keys are not accepted
    /// that way: an address is in the logs of proxies, and a password in the configuration of many programs.
    ///
    /// # Errors
    /// 401 for any other text; 403 without the right.
    pub fn of_pipeline(parts: &Parts, state: &AppState, key: &str) -> ApiResult<Self> {
        match of_key(&state.engine, key) {
            Some(principal) if principal.role == Role::Ingest => Self::admit(parts, state, principal),
            _ => {
                let why = "this is no valid API key of the role ingest";
                Err(state.auth_failures.refuse(&state.engine, parts, why))
            }
        }
    }

    /// The caller with the key of a consumer of feeds that did not come as a bearer token. Other keys are not accepted
    /// that way: the password of a firewall must not read alerts.
    ///
    /// # Errors
    /// 401 for any other text; 403 without the right.
    pub fn of_feed(parts: &Parts, state: &AppState, key: &str) -> ApiResult<Self> {
        match of_key(&state.engine, key) {
            Some(principal) if principal.feeds().is_some() => Self::admit(parts, state, principal),
            _ => {
                let why =
                    "this is no valid API key of a feed: its scope has the right pull_feeds alone, and names feeds";
                Err(state.auth_failures.refuse(&state.engine, parts, why))
            }
        }
    }

    /// The caller with the client certificate of a consumer of feeds; `None` if the client has shown none.
    ///
    /// # Errors
    /// 401 if the certificate belongs to no valid key of a feed; 403 without the right.
    pub fn of_certificate(parts: &Parts, state: &AppState) -> Option<ApiResult<Self>> {
        let certificate = parts.extensions.get::<Transport>().and_then(|transport| transport.certificate)?;
        Some(match of_certificate(&state.engine, certificate) {
            Some(principal) if principal.feeds().is_some() => Self::admit(parts, state, principal),
            _ => {
                let why = format!("the client certificate {certificate} belongs to no valid key of a feed");
                Err(state.auth_failures.refuse(&state.engine, parts, &why))
            }
        })
    }

    /// The caller, whose credentials are proven, if it may do this. The connection, and the last use of the key,
    /// count from here on.
    ///
    /// # Errors
    /// 401 without a client certificate where one is needed; 403 without the right; 429 over the limit; 503 where
    /// another program has changed who may call.
    pub fn admit(parts: &Parts, state: &AppState, mut principal: Principal) -> ApiResult<Self> {
        let engine = &state.engine;
        if principal.role != Role::Ingest
            && let Some(breach) = engine.db.seals().refuses_callers()
        {
            let what = breach.describe();
            tracing::error!("a request of {} is refused: {what}", principal.actor);
            return Err(ApiError::unavailable(format!("{what}; on the manager, `riposte doctor` says what to do"), 60));
        }
        let address = state.auth_failures.origin(parts);
        principal.address = Some(address);
        if let Credentials::Key(id) = &principal.via {
            engine.key_uses.note(id, engine.clock.now(), address);
        }
        if principal.role == Role::Ingest {
            certified(state, parts)?;
        }
        known(parts);
        if let Some(cell) = parts.extensions.get::<CallerCell>() {
            cell.set(&principal.actor, address);
        }
        // Ingest is limited by memory permits instead.
        if R::RIGHT != Right::Ingest {
            state.caller_limits.count_key(parts, &principal.actor)?;
        }
        if !principal.may(R::RIGHT) {
            let (name, path) = (principal.actor.to_string(), route(parts));
            tracing::warn!(principal = name, path, "{name} made a request without the right");
            return Err(lacks(&principal));
        }
        if let Some(user) = principal.person()
            && !parts.method.is_safe()
        {
            // The audit log names the person only.
            let (via, method, path) = (principal.via.to_string(), parts.method.as_str(), parts.uri.path());
            tracing::info!(user, via, %address, method, path, "user {user} asks for a change, by {via}");
        }
        Ok(Self { principal, address, right: PhantomData })
    }
}

/// Carries the caller and its address from the extractor to the layer that sees the response.
#[derive(Clone, Debug, Default)]
pub struct CallerCell(Arc<OnceLock<(Actor, IpAddr)>>);

impl CallerCell {
    /// The caller, if the request had valid credentials of one.
    pub fn get(&self) -> Option<&(Actor, IpAddr)> {
        self.0.get()
    }

    fn set(&self, actor: &Actor, address: IpAddr) {
        // A request has one caller; an extractor that runs twice finds the same one.
        let _ = self.0.set((actor.clone(), address));
    }
}

/// An authenticated agent that is not revoked.
#[derive(Debug)]
pub struct AgentCaller {
    /// Id of the agent.
    pub id: Uuid,
    /// The version of its program, as its `User-Agent` says; none if it says something else.
    pub version: Option<String>,
    /// The key that signed its token.
    pub key: VerifyingKey,
}

impl AgentCaller {
    /// Whether it may go on: it is not revoked, and its key was not replaced since.
    pub fn is_current(&self, engine: &Engine) -> bool {
        engine.fleet.load().get(self.id).is_some_and(|agent| agent.key.public == self.key)
    }
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
        let claims = match identity::check(token, &agent.key.public, agent.id, now) {
            Ok(claims) => claims,
            // The agent itself, or an old token of its: it is told the time, and comes again with a token that is right.
            Err(error @ TokenError::Time(_)) => {
                return Err(state.auth_failures.dated(engine, agent, ApiError::wrong_time(error.to_string())));
            }
            Err(error) => {
                let replaced = Box::pin(replaced_key(engine, agent, token)).await?;
                return Err(refuse(&replaced.unwrap_or_else(|| error.to_string())));
            }
        };
        certified(state, parts)?;
        known(parts);
        state.caller_limits.count_agent(parts, agent.id)?;
        // After the limit, which bounds how many are remembered.
        if !engine.agent_tokens.take(&claims, now) {
            let agent = agent.id;
            tracing::warn!(%agent, path = parts.uri.path(), "a token of agent {agent} was used a second time");
            let used = "this agent token was used before: each is good for one request, so make a new one";
            return Err(state.auth_failures.count(engine, parts, ApiError::conflict(used)));
        }
        engine.hub.heard(agent.id, now);
        Ok(Self { id: agent.id, version: agent_version(&parts.headers), key: agent.key.public })
    }
}

/// Why a token is refused that the replaced key of the agent signed; `None` if it did not. Long after
/// the rotation, it shows that the key was copied.
async fn replaced_key(engine: &Engine, agent: &Agent, token: &str) -> ApiResult<Option<String>> {
    let Some(previous) = &agent.key.previous else { return Ok(None) };
    let Ok(claims) = identity::check(token, previous, agent.id, engine.clock.now()) else { return Ok(None) };
    let since = agent.key.since;
    if agent.key.shows_copy(Timestamp::from_millis(claims.iat.saturating_mul(1000))) {
        engine.flag_copied_key(agent).await?;
    }
    Ok(Some(format!(
        "this agent's key was replaced at {since}: if that was not this host, another one has a copy of its key; revoke the \
         agent and enrol this host anew"
    )))
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
    let has_one = || parts.extensions.get::<Transport>().is_some_and(|transport| transport.certificate.is_some());
    if !is_wanted || has_one() {
        return Ok(());
    }
    let why = "agents and pipelines of this manager must show a client certificate of its tls_client_ca";
    Err(state.auth_failures.refuse(&state.engine, parts, why))
}

/// The name and the password of Basic authentication (RFC 7617).
pub fn basic(parts: &Parts) -> Option<(String, String)> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(text.trim()).ok())??;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The principal of an API key or an access token, as it is now.
///
/// # Errors
/// Why it is not valid, in a sentence for the caller.
fn authenticate(engine: &Engine, given: &str) -> Result<Principal, String> {
    if let Some(principal) = of_key(engine, given) {
        return Ok(principal);
    }
    let claims = match engine.access_tokens.verify(given, engine.clock.now()) {
        Ok(claims) => claims,
        // Another kind of credentials, which the form of a key explains.
        Err(AccessTokenError::Jws(JwsError::Malformed | JwsError::Kind)) => {
            let invalid = || "this API key is not valid (unknown, revoked or expired)".to_owned();
            return Err(api_key::form_fault(given).unwrap_or_else(invalid));
        }
        Err(error) => return Err(error.to_string()),
    };
    let ended = || "the session has ended: log in again".to_owned();
    let session = engine.sessions.read().unwrap_or_else(PoisonError::into_inner).get(&claims.sid).cloned();
    let session = session.filter(|session| session.user == claims.sub).ok_or_else(ended)?;
    let (role, scope) = engine.role_of(&claims.sub).ok_or_else(ended)?;
    let actor = Actor::User(session.user);
    let via = Credentials::Session(claims.sid);
    let (scopes, expires_at) = (Scopes::of([scope]), Some(session.expires_at));
    Ok(Principal { actor, role, scopes, pipeline: None, via, expires_at, address: None })
}

/// Whether a caller that was admitted may go on with a stream: its credentials are still valid, and neither its role
/// nor its scope has changed.
pub fn may_go_on(engine: &Engine, admitted: &Principal) -> bool {
    if engine.db.seals().refuses_callers().is_some() {
        return false;
    }
    let now = engine.clock.now();
    let (role, scopes) = match &admitted.via {
        // A link follows nothing.
        Credentials::Link(_) => return false,
        Credentials::Key(id) => {
            let keys = engine.keys.load();
            let stored = keys.get(id).filter(|stored| stored.is_valid(now));
            let Some(current) = stored.and_then(|stored| principal_of(engine, id, stored)) else { return false };
            (current.role, current.scopes)
        }
        Credentials::Session(id) => {
            let sessions = engine.sessions.read().unwrap_or_else(PoisonError::into_inner);
            let Some(session) = sessions.get(id).filter(|session| session.expires_at > now) else { return false };
            let Some((role, scope)) = engine.role_of(&session.user) else { return false };
            (role, Scopes::of([scope]))
        }
    };
    role == admitted.role && scopes == admitted.scopes
}

/// The principal of a token that stands for an API key, or why the token is not valid; `None` if the request has
/// other credentials. Only Wazuh's API takes such tokens.
pub fn of_key_token(engine: &Engine, parts: &Parts) -> Option<Result<Principal, String>> {
    let of_claims = |claims: KeyClaims| {
        let keys = engine.keys.load();
        let principal = keys.get(&claims.sub).and_then(|stored| principal_of(engine, &claims.sub, stored));
        let principal = principal.ok_or_else(|| "the user of the API key is disabled".to_owned())?;
        let ends = Timestamp::from_millis(claims.exp.saturating_mul(1000));
        Ok(Principal { expires_at: Some(ends), ..principal })
    };
    Some(engine.key_of_token(bearer(parts)?)?.and_then(of_claims))
}

/// The principal of an API key, if the key is valid now. A key of a sender that signs is no bearer token.
pub fn of_key(engine: &Engine, key: &str) -> Option<Principal> {
    let (id, secret) = key.strip_prefix(api_key::PREFIX)?.split_once('_')?;
    let keys = engine.keys.load();
    let stored = keys.get(id)?;
    let same: bool = hash_secret(secret).as_slice().ct_eq(&stored.hash).into();
    let is_valid = same && !stored.key.is_webhook && stored.is_valid(engine.clock.now());
    is_valid.then(|| principal_of(engine, id, stored)).flatten()
}

/// The principal of the valid key whose client certificate this is.
fn of_certificate(engine: &Engine, certificate: Fingerprint) -> Option<Principal> {
    let (hash, now) = (certificate.credential_hash(), engine.clock.now());
    let keys = engine.keys.load();
    let (id, stored) = keys.iter().find(|(_, stored)| stored.hash == hash && stored.is_valid(now))?;
    principal_of(engine, id, stored)
}

/// The principal of the valid key `id`, whose sender signs. The signature is still to be checked.
pub fn of_webhook(engine: &Engine, id: &str) -> Option<Principal> {
    let keys = engine.keys.load();
    let stored = keys.get(id).filter(|stored| stored.key.is_webhook && stored.is_valid(engine.clock.now()))?;
    principal_of(engine, id, stored)
}

/// The principal of a valid key.
fn principal_of(engine: &Engine, id: &str, stored: &StoredKey) -> Option<Principal> {
    let row = &stored.key;
    let (actor, role, scopes) = match &row.user {
        None => (Actor::Key(id.to_owned()), row.role, Scopes::of([row.scope.clone()])),
        // A person who has lost rights since has no more of them by an older key.
        Some(user) => {
            let (own, scope) = engine.role_of(user)?;
            let role = if row.role.is_at_most(own) { row.role } else { own };
            (Actor::User(user.clone()), role, Scopes::of([scope, row.scope.clone()]))
        }
    };
    let (pipeline, via) = (row.pipeline.clone(), Credentials::Key(id.to_owned()));
    let expires_at = row.expires_at.map(Timestamp::from);
    Some(Principal { actor, role, scopes, pipeline, via, expires_at, address: None })
}
