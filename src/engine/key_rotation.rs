//! The rotation of the signing key: a new key is made and announced by a statement that the old key
//! signs; agents make it durable and confirm it; once all have, a statement of the new key ends the
//! old one. Each step is stored before it counts, so a killed manager continues where it was.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::MANAGER;
use riposte_protocol::command::ManagerKey;
use riposte_protocol::key::SigningKey;
use riposte_protocol::key_statement::KeyStatement;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use super::signer::{NamedKey, Ring};
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::presence::Presence;
use crate::store::StoreError;
use crate::store::configured::key_statements::{self, StoredStatement};
use crate::store::configured::signing_keys;
use crate::store::ledger::audit::LedgerTx;

/// How long the writing of the key file may take: argon2id takes a part of a second.
const STORE_TIMEOUT: Duration = Duration::from_mins(1);
/// Maximum number of agents named in the audit log.
const NAMED: usize = 50;

/// A rotation that is under way.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The key that signs after it.
    pub next: ManagerKey,
    /// When it was started.
    pub started_at: Timestamp,
    /// Who started it.
    pub started_by: String,
    /// Number of agents that have confirmed.
    pub confirmed: usize,
    /// Agents that have not.
    pub waiting: Vec<Unconfirmed>,
}

/// An agent that has not confirmed the new key.
#[derive(Clone, Debug)]
pub struct Unconfirmed {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Why, for people.
    pub reason: &'static str,
}

impl Engine {
    /// The key that signs, and the rotation that is under way.
    pub fn signing_key(&self) -> (ManagerKey, Option<Rotation>) {
        let ring = self.signer.ring();
        let rotation = ring.rotation().map(|statement| {
            let is_next = |key: &&ManagerKey| key.kid != ring.current.kid;
            let next = statement.keys.iter().find(is_next).cloned().unwrap_or_else(|| ring.current.public());
            let (started_at, started_by) = (statement.made_at, statement.made_by.clone());
            let waiting = self.waiting(statement.number);
            Rotation { next, started_at, started_by, confirmed: self.living().saturating_sub(waiting.len()), waiting }
        });
        (ring.current.public(), rotation)
    }

    fn living(&self) -> usize {
        self.fleet.load().iter().filter(|agent| agent.revoked_at.is_none()).count()
    }

    fn waiting(&self, number: u64) -> Vec<Unconfirmed> {
        let (fleet, now) = (self.fleet.load(), self.clock.now());
        let waits = |id: Uuid| self.signer.numbers.of(id) < number;
        let living = fleet.iter().filter(|agent| agent.revoked_at.is_none() && waits(agent.id));
        let mut waiting: Vec<Unconfirmed> = living
            .map(|agent| {
                let reason = match self.hub.presence(agent.id, now) {
                    Presence::Away => "it is away; it learns the new key when it connects, if its version can",
                    _ if self.signer.numbers.has_said(agent.id) => "it was told and has not confirmed yet",
                    _ => "its version learns no keys: update riposte-agent on its host",
                };
                Unconfirmed { id: agent.id, name: agent.name.clone(), reason }
            })
            .collect();
        waiting.sort_by(|one, other| one.name.cmp(&other.name));
        waiting
    }

    /// An agent says which statement about the keys it has made durable. Costs no I/O.
    pub fn confirm_keys(&self, agent: Uuid, number: u64) {
        let ring = self.signer.ring();
        let (last, believable) = (ring.last_number(), ring.believable(number));
        if number > last && self.signer.numbers.of(agent) != believable {
            tracing::error!(
                %agent,
                "agent {agent} has accepted the keys of statement {number}, and this ledger knows {last}: it was restored \
                 from a backup of before a rotation of the signing key. Restore a later signing.key and ledger, or enrol the \
                 agent again"
            );
        }
        self.signer.numbers.say(agent, believable);
    }

    /// An agent has enrolled, and pins the keys that follow from this statement.
    pub fn confirm_enrolment(&self, agent: Uuid, number: u64) {
        self.signer.numbers.enrol(agent, number);
    }

    /// Begins a rotation: makes a key and announces it to all agents.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if one is under way.
    pub async fn rotate_signing_key(self: &Arc<Self>, by: &Actor) -> UseCase<()> {
        let changing = self.signer.changing.lock().await;
        let ring = self.signer.ring();
        if let Some(rotation) = ring.rotation() {
            return Err(Refusal::Conflict(format!(
                "a rotation was started at {} and is under way: finish or cancel it first",
                rotation.made_at
            )));
        }
        self.check_alone().await?;
        let next = new_key()?;
        self.signer.add(&next);
        // Before it is announced: an announced key that is lost would be trusted for nothing.
        self.store_keys().await?;
        let keys = vec![ring.current.public(), next.public()];
        let statement = self.statement(&ring, &ring.current, keys, by)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        key_statements::add(&mut ledger, &statement, by).await?;
        let detail = format!("to take the place of {}", ring.current.kid);
        record(&mut ledger, AuditEvent::SigningKeyRotationStarted, &next.kid, detail, by, statement.made_at);
        self.commit_and_refresh(ledger).await?;
        drop(changing);
        Ok(())
    }

    /// A new key is in the file of one manager. The others on the same database could sign nothing with it.
    async fn check_alone(&self) -> UseCase<()> {
        let nodes = self.lease.nodes().await?;
        let others = nodes.iter().filter(|node| node.serves() && node.id != self.lease.node());
        let names: Vec<&str> = others.map(|node| node.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Refusal::Conflict(format!(
            "other managers run on this ledger and would not have the new key: {}. Stop them, rotate, copy signing.key to their \
             data directories, and start them",
            names.join("; ")
        )))
    }

    /// Ends a rotation: from now on the new key signs, and agents drop the old one. Without `force`
    /// only if all living agents have confirmed. Returns the agents that have not: those that learn
    /// keys still learn it when they connect, the others have to be enrolled again.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if none is under way, or agents have not confirmed.
    pub async fn finish_rotation(self: &Arc<Self>, force: bool, by: &Actor) -> UseCase<Vec<Unconfirmed>> {
        let changing = self.signer.changing.lock().await;
        let ring = self.signer.ring();
        let number = ring.rotation().map(|rotation| rotation.number).ok_or_else(none_under_way)?;
        let waiting = self.waiting(number);
        if !force && !waiting.is_empty() {
            return Err(Refusal::Conflict(format!(
                "{} agents have not confirmed the new key: {}. The rotation ends by itself when they have; `force` ends \
                 it now",
                waiting.len(),
                names(&waiting)
            )));
        }
        let Some(next) = &ring.next else {
            return Err(Refusal::Conflict(
                "the private half of the new key is not in signing.key, which was restored: cancel the rotation".into(),
            ));
        };
        let statement = self.statement(&ring, next, vec![next.public()], by)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        key_statements::add(&mut ledger, &statement, by).await?;
        let left_behind =
            if waiting.is_empty() { String::new() } else { format!("; not confirmed by {}", names(&waiting)) };
        let why = format!("after a rotation from {}{left_behind}", ring.current.kid);
        signing_keys::adopt(&mut ledger, &next.public(), &why, by, statement.made_at).await?;
        self.commit_and_refresh(ledger).await?;
        // After the commit: the ledger says which key of the file signs. If it fails, the next start
        // takes the old key out.
        if let Err(error) = self.store_keys().await {
            tracing::error!("the old signing key is still in signing.key: {error}; the next start takes it out");
        }
        drop(changing);
        Ok(waiting)
    }

    /// Takes a rotation back: agents drop the new key.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if none is under way.
    pub async fn cancel_rotation(self: &Arc<Self>, by: &Actor) -> UseCase<()> {
        let changing = self.signer.changing.lock().await;
        let ring = self.signer.ring();
        let rotation = ring.rotation().ok_or_else(none_under_way)?;
        let announced = rotation.keys.iter().map(|key| key.kid.clone()).find(|kid| *kid != ring.current.kid);
        let statement = self.statement(&ring, &ring.current, vec![ring.current.public()], by)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        key_statements::add(&mut ledger, &statement, by).await?;
        let kid = announced.unwrap_or_default();
        let detail = format!("{} signs as before", ring.current.kid);
        record(&mut ledger, AuditEvent::SigningKeyRotationCancelled, &kid, detail, by, statement.made_at);
        self.commit_and_refresh(ledger).await?;
        if let Err(error) = self.store_keys().await {
            tracing::error!(
                "the key of the cancelled rotation is still in signing.key: {error}; the next start takes it out"
            );
        }
        drop(changing);
        Ok(())
    }

    pub(super) fn statement(
        &self,
        ring: &Ring,
        signer: &NamedKey,
        keys: Vec<ManagerKey>,
        by: &Actor,
    ) -> UseCase<StoredStatement> {
        self.statement_with(ring, signer, keys, ring.recovery().cloned(), by)
    }

    /// The same, with another recovery key.
    pub(super) fn statement_with(
        &self,
        ring: &Ring,
        signer: &NamedKey,
        keys: Vec<ManagerKey>,
        recovery: Option<String>,
        by: &Actor,
    ) -> UseCase<StoredStatement> {
        let (number, now) = (ring.last_number() + 1, self.clock.now());
        let claims = KeyStatement {
            iss: MANAGER.into(),
            number,
            keys: keys.clone(),
            iat: now.as_secs(),
            recovery: recovery.clone(),
            revocation: None,
        };
        let token = claims.sign(&signer.key, &signer.kid).map_err(|error| Refusal::System(error.to_string()))?;
        let (signed_by, made_by) = (signer.kid.clone(), by.to_string());
        let (token, revocation) = (Some(token), None);
        Ok(StoredStatement { number, token, signed_by, keys, recovery, revocation, made_at: now, made_by })
    }

    /// Follows the ledger's statements and its key, and tells all agents if there is something new.
    ///
    /// # Errors
    /// If the store cannot be read, or names a key that this manager does not have.
    pub(super) async fn refresh_signing_keys(&self) -> Result<(), StoreError> {
        let _alone = self.reloading.lock().await;
        let statements = key_statements::all(&self.db).await?;
        let Some(known) = signing_keys::current(&self.db).await? else { return Ok(()) };
        if self.signer.follow(&known.kid, statements)? {
            self.access_tokens.follow(&self.signer.root(), self.signer.next_root().as_ref(), self.clock.now());
            self.signer.numbers.send_again();
            self.hub.wake_all();
        }
        Ok(())
    }

    pub(super) async fn store_keys(self: &Arc<Self>) -> UseCase<()> {
        let engine = Arc::clone(self);
        let stored = tokio::task::spawn_blocking(move || engine.signer.store());
        let stored = tokio::time::timeout(STORE_TIMEOUT, stored).await;
        let stored =
            stored.map_err(|_| Refusal::System("the file of the signing key cannot be written in time".into()))?;
        stored.map_err(|error| Refusal::System(error.to_string()))?.map_err(Refusal::System)
    }
}

/// What the sweep owes a rotation: writes what agents have confirmed, and ends it once all have.
pub(super) async fn step(engine: &Arc<Engine>) -> Result<(), StoreError> {
    let unwritten = engine.signer.numbers.take_unwritten();
    if !unwritten.is_empty()
        && let Err(error) = write(engine, &unwritten).await
    {
        engine.signer.numbers.put_back(&unwritten);
        return Err(error);
    }
    let ring = engine.signer.ring();
    let Some(rotation) = ring.rotation() else { return Ok(()) };
    if ring.next.is_none() || !engine.waiting(rotation.number).is_empty() {
        return Ok(());
    }
    match engine.finish_rotation(false, &Actor::Riposte).await {
        Ok(_) | Err(Refusal::Conflict(_)) => Ok(()),
        Err(Refusal::Store(error)) => Err(error),
        Err(other) => Err(StoreError::Corrupt(other.to_string())),
    }
}

async fn write(engine: &Engine, unwritten: &[(Uuid, u64)]) -> Result<(), StoreError> {
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    key_statements::set_numbers(&mut ledger, unwritten).await?;
    ledger.commit().await
}

/// A new private key.
pub(super) fn new_key() -> UseCase<NamedKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Refusal::System(error.to_string()))?;
    let key = SigningKey::from_seed(&seed).map_err(|error| Refusal::System(error.to_string()))?;
    Ok(NamedKey { kid: key.verifying_key().kid(), key })
}

fn none_under_way() -> Refusal {
    Refusal::Conflict("no rotation of the signing key is under way".into())
}

fn names(waiting: &[Unconfirmed]) -> String {
    let named: Vec<&str> = waiting.iter().take(NAMED).map(|agent| agent.name.as_str()).collect();
    let more = waiting.len().saturating_sub(NAMED);
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

pub(super) fn record(ledger: &mut LedgerTx, event: AuditEvent, kid: &str, detail: String, by: &Actor, at: Timestamp) {
    ledger.record(AuditEntry { at, actor: by.clone(), event, noun_id: kid.to_owned(), detail });
}
