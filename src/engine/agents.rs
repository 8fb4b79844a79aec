//! Agents: enrolled with a token, labelled, revoked. A token alone enrols no host a second time, and pushes none aside that may
//! be alive.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::message::{EnrollRequest, WazuhIdentity};
use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use super::scopes::check_labels;
use super::secrets::{hash_secret, new_secret};
use crate::domain::actor::Actor;
use crate::domain::agent::Agent;
use crate::domain::fault::Fault;
use crate::domain::formats::wazuh::canonical_agent_id;
use crate::domain::host_name::is_same_host;
use crate::domain::id::new_id;
use crate::domain::labels::{WAZUH_NAME, parse_labels};
use crate::domain::presence::Presence;
use crate::domain::principal::Principal;
use crate::store::StoreError;
use crate::store::configured::agents::{self, Enrollment, NewToken};
use crate::store::configured::enrolment::{self, EnrolmentOutcome};
use crate::store::database::columns;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::resync;

/// How long a host has to be silent before another agent may take its place, in seconds: longer than an agent waits between two
/// attempts to connect.
const QUIET_SECS: u64 = 120;
/// The most agents that one enrolment token may enrol.
const MAX_USES: i64 = 100_000;

/// An enrolment token that is asked for.
#[derive(Clone, Debug)]
pub struct AskedToken {
    /// Labels of the agents that enrol with it.
    pub labels: Map<String, Value>,
    /// How many agents may use it.
    pub uses: i64,
    /// For how long it is valid.
    pub lifetime: Duration,
}

/// An enrolment token that was made.
#[derive(Clone, Debug)]
pub struct MadeToken {
    /// Its id.
    pub id: Uuid,
    /// The token; absent when the request is repeated, because it is not stored.
    pub token: Option<String>,
    /// Until when it is valid.
    pub expires_at: Timestamp,
}

impl Engine {
    /// Enrols an agent. Returns its id, or `None` if the token is not valid.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if another agent has the name or the number, or the one to be replaced may be alive.
    pub async fn enroll(self: &Arc<Self>, asked: EnrollRequest) -> UseCase<Option<Uuid>> {
        let now = self.clock.now();
        // A read costs less than the write connection, and clients without a token can ask as often as they like.
        if !agents::is_token(&self.db, hash_secret(&asked.token), now).await? {
            return Ok(None);
        }
        let EnrollRequest { token, name, public_key, platform, version, capabilities, replace, wazuh } = asked;
        let agent = Enrollment { id: new_id(now), name: name.clone(), public_key, platform, version, capabilities };
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let enrolled = enrolment::enroll(&mut ledger, hash_secret(&token), agent, replace, now).await;
        let (id, replaced) = match enrolled {
            Ok(EnrolmentOutcome::Enrolled { agent, replaced }) => (agent, replaced),
            Ok(EnrolmentOutcome::Taken(why)) => return Err(Refusal::Conflict(why)),
            Err(StoreError::NotFound) => return Ok(None),
            Err(StoreError::Duplicate) => {
                let hint = "use --replace if this is the same host, reinstalled";
                return Err(Refusal::Conflict(format!("an agent named {name} is already enrolled; {hint}")));
            }
            Err(other) => return Err(other.into()),
        };
        for old in &replaced {
            if let Some(why) = self.may_be_alive(&mut ledger, *old, now).await? {
                return Err(Refusal::Conflict(format!(
                    "{why}: stop it on its host and wait for {QUIET_SECS} s, or revoke it, and enrol again"
                )));
            }
        }
        self.commit_and_refresh(ledger).await?;
        if !replaced.is_empty() {
            tracing::info!(agent = %id, ?replaced, "agent {name} replaced the former agent of its host");
        }
        if let Some(WazuhIdentity { id: number, name }) = wazuh
            && self.fleet.load().get(id).is_some_and(|agent| agent.wazuh_id().is_none())
        {
            let number = canonical_agent_id(&number).unwrap_or(number);
            self.claim_wazuh_agent(id, number, name).await?;
        }
        Ok(Some(id))
    }

    /// Why an agent may be alive, if so: a token alone must not push it aside, and take over what is ordered to its host. One
    /// that polls is silent in between, and after a restart of the manager every agent is away for a moment.
    async fn may_be_alive(&self, ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> UseCase<Option<String>> {
        let quiet = Duration::from_secs(QUIET_SECS);
        if self.presence(agent, &self.elsewhere().await?, now) != Presence::Away {
            return Ok(Some(format!("agent {agent} is connected now")));
        }
        // One that was never heard of may have been, and the manager was killed before it wrote that down.
        let row = agents::find_in(ledger, agent).await?.ok_or(StoreError::NotFound)?;
        let stored = row.last_seen_at.unwrap_or(row.enrolled_at);
        let heard = self.hub.last_heard(agent).max(Some(stored.into())).unwrap_or(now);
        if now.since(heard) < quiet {
            return Ok(Some(format!("agent {agent} was heard of {} s ago", now.since(heard).as_secs())));
        }
        let is_new = now.since(self.started_at) < quiet;
        Ok(is_new.then(|| format!("this manager has just started, and agent {agent} may come back")))
    }

    /// Changes labels of an agent; `null` removes one.
    ///
    /// # Errors
    /// Faults of the labels, with pointers relative to them, or another agent that has the number or the name.
    pub async fn label_agent(self: &Arc<Self>, id: Uuid, changes: Map<String, Value>, by: &Principal) -> UseCase<()> {
        self.change_labels(id, changes, Some(by), &by.at()).await
    }

    /// As [`Engine::label_agent`]; without a principal no scope is checked.
    pub(super) async fn change_labels(
        self: &Arc<Self>,
        id: Uuid,
        changes: Map<String, Value>,
        scoped: Option<&Principal>,
        by: &Actor,
    ) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let current = agents::find_in(&mut ledger, id).await?;
        let current = current.ok_or_else(|| Refusal::NotFound("the agent does not exist".to_owned()))?;
        let mut labels: Map<String, Value> = current.labels.read().map_err(StoreError::from)?;
        for (key, value) in changes {
            if value.is_null() {
                labels.remove(&key);
            } else {
                labels.insert(key, value);
            }
        }
        let labels = parse_labels(&labels).map_err(Refusal::Invalid)?;
        // A duplicate that is there already may stay while something else is changed.
        let agent = Agent::try_from(current)?;
        if let Some(by) = scoped {
            Self::check_scope_of_agent(&agent, by)?;
            check_labels(&Agent { labels: labels.clone(), ..agent.clone() }, "", by)?;
        }
        if agent.revoked_at.is_none() && !(agent.wazuh_id().is_some() && agent.shares_wazuh_id(&labels)) {
            let holders = enrolment::of_number(&mut ledger, &labels).await?;
            if let Some(holder) = holders.iter().find(|holder| holder.id != id) {
                let hint = "take it from that one first, or tell two Wazuh managers apart by the label wazuh_manager";
                return Err(Refusal::Conflict(format!("{}; {hint}", enrolment::number_taken(holder))));
            }
        }
        let name = labels.get(WAZUH_NAME).filter(|name| !is_same_host(name, agent.wazuh_name()));
        if let Some(name) = name.filter(|_| agent.revoked_at.is_none()) {
            let holders = enrolment::of_name(&mut ledger, name, &labels).await?;
            if let Some(holder) = holders.iter().find(|holder| holder.id != id) {
                let hint =
                    "alerts that name it would find both; tell two Wazuh managers apart by the label wazuh_manager";
                return Err(Refusal::Conflict(format!("{}; {hint}", enrolment::name_taken(holder))));
            }
        }
        agents::set_labels(&mut ledger, id, &labels, by, self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Revokes an agent: its stream ends, its token is refused, and what was queued for it is cancelled.
    ///
    /// # Errors
    /// If no such agent is enrolled.
    pub async fn revoke_agent(self: &Arc<Self>, id: Uuid, by: &Principal) -> UseCase<()> {
        if let Some(agent) = self.fleet.load().get(id) {
            Self::check_scope_of_agent(agent, by)?;
        } else if by.scopes.limit_agents() {
            return Err(Refusal::NotFound("the agent does not exist".to_owned()));
        }
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let wake = agents::revoke(&mut ledger, id, &by.at(), self.clock.now()).await?;
        let then = |engine: Arc<Self>| async move {
            engine.hub.wake(&wake);
            Ok(())
        };
        Ok(self.commit_refresh_then(ledger, then).await?)
    }

    /// Makes an enrolment token, once for each idempotency key.
    ///
    /// # Errors
    /// Faults of what is asked.
    pub async fn create_token(&self, asked: AskedToken, once: Option<Once>, by: &Principal) -> UseCase<MadeToken> {
        let request = IdempotentRequest::find(&self.db, once).await?;
        if let Some(before) = request.answered() {
            let (id, expires_at) = read_kept(before)?;
            return Ok(MadeToken { id, token: None, expires_at });
        }
        let AskedToken { labels, uses, lifetime } = asked;
        let placed = |faults: Vec<Fault>| {
            Refusal::Invalid(
                faults.into_iter().map(|fault| Fault::at(format!("/labels{}", fault.pointer), fault.detail)).collect(),
            )
        };
        let labels = parse_labels(&labels).map_err(placed)?;
        check_labels(&labels, "/labels", by)?;
        if !(1..=MAX_USES).contains(&uses) {
            return Err(Refusal::fault("/uses", format!("must be from 1 to {MAX_USES}")));
        }
        let now = self.clock.now();
        let (id, secret, expires_at) = (new_id(now), format!("rit_{}", new_secret()?), now.plus(lifetime));
        let token = NewToken { id, hash: hash_secret(&secret), labels, uses, expires_at };
        let mut ledger = LedgerTx::begin(&self.db).await?;
        agents::create_token(&mut ledger, &token, &by.at(), now).await?;
        request.keep(&mut ledger, 201, &format!("{id} {expires_at}"), now).await?;
        ledger.commit().await?;
        Ok(MadeToken { id, token: Some(secret), expires_at })
    }

    /// Records that two programs speak for one agent: an incident, because each executes what the other has acknowledged.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub async fn flag_clone(&self, agent: Uuid) -> Result<(), StoreError> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        resync::flag_clone(&mut ledger, agent, self.clock.now()).await?;
        ledger.commit().await
    }

    /// Deletes an enrolment token.
    ///
    /// # Errors
    /// If there is no such token.
    pub async fn delete_token(&self, id: Uuid, by: &Actor) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        agents::delete_token(&mut ledger, id, by, self.clock.now()).await?;
        Ok(ledger.commit().await?)
    }
}

/// The id and the end of a token, as an earlier answer keeps them.
fn read_kept(kept: &str) -> UseCase<(Uuid, Timestamp)> {
    let unreadable = || StoreError::Corrupt(format!("the answer that was kept: {kept}"));
    let (id, expires_at) = kept.split_once(' ').ok_or_else(unreadable)?;
    let expires_at = expires_at.parse().map_err(|_| unreadable())?;
    Ok((columns::id(id)?, expires_at))
}
