//! The rotation of agents' own keys: by the agent, by an order of a user, or by age. From the commit on
//! the new key alone is accepted; use of the old one later shows that it was copied.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::key_change::ChangedKeys;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use crate::domain::agent::Agent;
use crate::domain::principal::Principal;
use crate::store::StoreError;
use crate::store::configured::{agent_keys, agents};
use crate::store::ledger::audit::LedgerTx;

impl Engine {
    /// Replaces the key of an agent; returns since when the new one counts. A repeated change has the
    /// same result.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if the agent has another key by now.
    pub async fn change_agent_key(self: &Arc<Self>, agent: Uuid, keys: &ChangedKeys) -> UseCase<Timestamp> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let now = self.clock.now();
        if agent_keys::replace(&mut ledger, agent, keys, now).await? {
            self.commit_and_refresh(ledger).await?;
            tracing::info!(%agent, "agent {agent} rotated its key");
            return Ok(now);
        }
        let row = agents::find_in(&mut ledger, agent).await?.filter(|row| row.revoked_at.is_none());
        let known = Agent::try_from(row.ok_or(StoreError::NotFound)?)?.key;
        if known.public == keys.new && known.previous == Some(keys.old) {
            return Ok(known.since);
        }
        Err(Refusal::Conflict("the agent has another key than the one that is to be replaced".into()))
    }

    /// Orders an agent to replace its key. It does when it is connected, if its version can.
    ///
    /// # Errors
    /// If no such agent is enrolled, or it is out of scope.
    pub async fn order_agent_key(self: &Arc<Self>, id: Uuid, by: &Principal) -> UseCase<()> {
        let unknown = || Refusal::NotFound("the agent does not exist".to_owned());
        Self::check_scope_of_agent(self.fleet.load().get(id).ok_or_else(unknown)?, by)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        agent_keys::order(&mut ledger, id, &by.actor, self.clock.now()).await?;
        let then = move |engine: Arc<Self>| async move {
            engine.hub.wake(&[id]);
            Ok(())
        };
        Ok(self.commit_refresh_then(ledger, then).await?)
    }

    /// The key that an agent is to replace now, if it is to.
    pub fn key_to_rotate(&self, agent: Uuid) -> Option<String> {
        let fleet = self.fleet.load();
        let key = &fleet.get(agent)?.key;
        key.is_due(self.agent_key_max_age, self.clock.now()).then(|| key.public.text())
    }

    /// Records that the old key of an agent was used long after it was replaced.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub async fn flag_copied_key(&self, agent: &Agent) -> Result<(), StoreError> {
        // A read costs less than the write connection, and the holder of the copy can come often.
        if agents::find(&self.db, agent.id).await?.is_none_or(|row| row.incident.is_some()) {
            return Ok(());
        }
        let mut ledger = LedgerTx::begin(&self.db).await?;
        agent_keys::flag_copy(&mut ledger, agent.id, agent.key.since, self.clock.now()).await?;
        ledger.commit().await
    }
}

/// The configured age of keys: a duration, or `none`.
///
/// # Errors
/// What is wrong with the text.
pub fn max_age(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "none" => Ok(None),
        text => text
            .parse::<crate::domain::duration::Span>()
            .map(|span| Some(span.duration()))
            .map_err(|error| error.to_string()),
    }
}
