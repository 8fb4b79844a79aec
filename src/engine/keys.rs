//! API keys: made with a fresh secret of which only a hash is stored, and revoked.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use super::secrets::{hash_secret, new_secret};
use crate::domain::actor::Actor;
use crate::domain::api_key;
use crate::domain::client_certificate::{ClientCertificate, Fingerprint};
use crate::domain::ledger_key::LEDGER_KEY_BYTES;
use crate::domain::pipeline::is_name;
use crate::domain::principal::{Credentials, Principal, Role};
use crate::domain::right::Right;
use crate::domain::scope::Scope;
use crate::store::configured::caches::Cache;
use crate::store::configured::keys::{self, NewKey, StoredKey};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;

/// A key that is asked for.
#[derive(Clone, Debug)]
pub struct AskedKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The pipeline that it speaks for.
    pub pipeline: Option<String>,
    /// For how long it is valid; until it is revoked if absent, 90 days for a personal key.
    pub lifetime: Option<Duration>,
    /// Whether its sender signs instead of sending it.
    pub is_webhook: bool,
    /// The client certificate that is its only credential.
    pub certificate: Option<ClientCertificate>,
    /// What it may do at most, as the request has it.
    pub scope: Option<Value>,
    /// The person whose key it will be, with the role of the request; `None` for a service key.
    pub owner: Option<(String, Role)>,
}

/// Validity of a personal key that asks for none.
const PERSONAL_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Longest validity of a personal key.
const LONGEST_PERSONAL: Duration = Duration::from_hours(365 * 24);
/// Valid personal keys of one name: two, so that one replaces the other without a gap.
const PERSONAL_OF_NAME: i64 = 2;
/// Valid personal keys of one person: every key is in memory, and a viewer may make keys too.
const PERSONAL_KEYS: i64 = 100;

/// A key that was made.
#[derive(Clone, Debug)]
pub struct MadeKey {
    /// Its public part.
    pub id: String,
    /// The whole key; absent when the request is repeated, because it is not stored, and of a key with a certificate.
    pub key: Option<String>,
    /// Whether this request has made it, and no earlier one.
    pub is_new: bool,
    /// Until when it is valid.
    pub expires_at: Option<Timestamp>,
}

impl Engine {
    /// Makes an API key, once for each idempotency key.
    ///
    /// # Errors
    /// Faults of what is asked.
    pub async fn create_key(self: &Arc<Self>, asked: AskedKey, once: Option<Once>, by: &Actor) -> UseCase<MadeKey> {
        let request = IdempotentRequest::find(&self.db, once).await?;
        let AskedKey { name, role, pipeline, lifetime, is_webhook, certificate, scope, owner } = asked;
        if name.is_empty() || name.chars().count() > 128 || name.chars().any(char::is_control) {
            return Err(Refusal::fault("/name", "must be 1 to 128 characters without control characters"));
        }
        if let Some(why) = pipeline.as_deref().and_then(|pipeline| pipeline_fault(pipeline, role)) {
            return Err(Refusal::fault("/pipeline", why));
        }
        if let Some((_, own)) = &owner {
            check_personal(role, *own, pipeline.as_deref(), lifetime)?;
        }
        if is_webhook && role != Role::Ingest {
            return Err(Refusal::Conflict("a sender that signs has the role ingest".to_owned()));
        }
        let scope = self.read_scope(scope.as_ref(), role)?.unwrap_or_default();
        if certificate.is_some()
            && (owner.is_some() || is_webhook || !(role.may(Right::PullFeeds) && scope.feeds_alone().is_some()))
        {
            let why = "is for consumers of feeds alone: service keys whose scope has the right pull_feeds alone and names feeds";
            return Err(Refusal::fault("/certificate", why));
        }
        let lifetime = lifetime.or_else(|| owner.is_some().then_some(PERSONAL_LIFETIME));
        if let Some(id) = request.answered() {
            self.refresh(Cache::Keys).await?;
            let expires_at = self.keys.load().get(id).and_then(|row| row.key.expires_at).map(Timestamp::from);
            return Ok(MadeKey { id: id.into(), key: None, is_new: false, expires_at });
        }
        let now = self.clock.now();
        let ends = [lifetime.map(|lifetime| now.plus(lifetime)), certificate.map(|certificate| certificate.not_after)];
        let expires_at = ends.into_iter().flatten().min();
        let (new, key) = make(name, role, expires_at)?;
        let fingerprint = certificate.map(|certificate| certificate.fingerprint);
        let hash = fingerprint.map_or(new.hash, Fingerprint::credential_hash);
        let user = owner.map(|(user, _)| user);
        let new = NewKey { hash, pipeline, user, scope, is_webhook, certificate: fingerprint, ..new };
        let mut ledger = LedgerTx::begin(&self.db).await?;
        if let Some(fingerprint) = fingerprint
            && let Some(other) = keys::of_certificate(&mut ledger, fingerprint, now).await?
        {
            return Err(Refusal::Conflict(format!(
                "this certificate belongs to the key {other}: revoke that key first"
            )));
        }
        if let Some(user) = &new.user
            && keys::live_of_name(&mut ledger, user, &new.name, now).await? >= PERSONAL_OF_NAME
        {
            let name = &new.name;
            return Err(Refusal::Conflict(format!(
                "two of your keys are called {name:?}: revoke one, or choose another name"
            )));
        }
        if let Some(user) = &new.user
            && keys::live(&mut ledger, user, now).await? >= PERSONAL_KEYS
        {
            return Err(Refusal::Conflict(format!(
                "you have {PERSONAL_KEYS} valid keys, which is the most: revoke some"
            )));
        }
        keys::create(&mut ledger, &new, by, now).await?;
        request.keep(&mut ledger, 201, &new.id, now).await?;
        self.commit_and_refresh(ledger).await?;
        let (key, is_new) = (certificate.is_none().then_some(key), true);
        Ok(MadeKey { id: new.id, key, is_new, expires_at })
    }

    /// The secret that the sender with the key `id` signs with. It is not stored: it follows from the ledger key.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn webhook_secret(&self, id: &str) -> UseCase<[u8; LEDGER_KEY_BYTES]> {
        self.ledger_key.derive(&format!("webhook {id}")).map_err(|error| Refusal::System(error.to_string()))
    }

    /// Revokes an API key; without the right to administer only one of the caller's own.
    ///
    /// # Errors
    /// If there is no such key, or it is the one of this request.
    pub async fn revoke_key(self: &Arc<Self>, id: &str, by: &Principal) -> UseCase<()> {
        if matches!(&by.via, Credentials::Key(own) if own == id) {
            let why = "a key cannot revoke itself: create another key, or log in, and revoke it from there";
            return Err(Refusal::Conflict(why.to_owned()));
        }
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let user = if by.may(Right::Administer) { None } else { by.person() };
        keys::revoke(&mut ledger, id, user, &by.at(), self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Makes an admin key if there is none that is valid, and returns it. So losing the last one costs a restart, not the
    /// ledger. `write_down` gets it before it is committed: a key that counts and that no operator has would lock everyone out.
    ///
    /// # Errors
    /// If it cannot be written down or stored.
    pub async fn first_key(
        self: &Arc<Self>,
        write_down: impl FnOnce(&str) -> std::io::Result<()>,
    ) -> UseCase<Option<String>> {
        let now = self.clock.now();
        let is_valid_admin =
            |stored: &StoredKey| stored.key.role == Role::Admin && stored.key.user.is_none() && stored.is_valid(now);
        if self.keys.load().values().any(is_valid_admin) {
            return Ok(None);
        }
        let (new, key) = make("first admin key".into(), Role::Admin, None)?;
        write_down(&key).map_err(|error| Refusal::System(format!("the first key cannot be written down: {error}")))?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        keys::create(&mut ledger, &new, &Actor::Riposte, self.clock.now()).await?;
        self.commit_and_refresh(ledger).await?;
        Ok(Some(key))
    }
}

/// A fresh key: what is stored of it, and the key itself.
fn make(name: String, role: Role, expires_at: Option<Timestamp>) -> UseCase<(NewKey, String)> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Refusal::System(error.to_string()))?;
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    let secret = new_secret()?;
    let key = format!("{}{id}_{secret}", api_key::PREFIX);
    Ok((
        NewKey {
            id,
            name,
            hash: hash_secret(&secret),
            role,
            pipeline: None,
            user: None,
            expires_at,
            scope: Scope::default(),
            is_webhook: false,
            certificate: None,
        },
        key,
    ))
}

/// Checks a personal key of `role` that is asked for with the role `own`.
fn check_personal(role: Role, own: Role, pipeline: Option<&str>, lifetime: Option<Duration>) -> UseCase<()> {
    if role == Role::Ingest || pipeline.is_some() {
        let why = "keys of pipelines are service keys: an administrator creates them";
        return Err(Refusal::fault(if pipeline.is_some() { "/pipeline" } else { "/role" }, why));
    }
    if !role.is_at_most(own) {
        return Err(Refusal::fault("/role", format!("must be at most your own role, which is {}", own.as_str())));
    }
    if lifetime.is_some_and(|lifetime| lifetime > LONGEST_PERSONAL) {
        return Err(Refusal::fault("/expires_in", "must be at most 365d for a personal key"));
    }
    Ok(())
}

/// Why a key of this role cannot speak for a pipeline, if so.
fn pipeline_fault(pipeline: &str, role: Role) -> Option<String> {
    if !is_name(pipeline) {
        Some("must be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'".to_owned())
    } else if !role.may(Right::Ingest) {
        Some(format!("is not allowed: the role {} cannot ingest alerts", role.as_str()))
    } else {
        None
    }
}
