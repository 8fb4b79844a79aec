//! Capabilities of agents, with a rate limit: each change costs a row, an audit entry and a cache
//! refresh, and a faulty agent must not flood them. The last announcement wins; excess ones wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::message::Capability;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use crate::store::audit::LedgerTx;
use crate::store::{StoreError, agents};

/// Changes per agent that are stored without delay.
const AT_ONCE: u32 = 4;
/// Interval after which the budget is full again.
const PERIOD: Duration = Duration::from_mins(1);

/// Recent announcements of agents.
#[derive(Debug, Default)]
pub struct Announcements {
    of: Mutex<HashMap<Uuid, Announced>>,
}

#[derive(Debug)]
struct Announced {
    since: Timestamp,
    changes: u32,
    /// The latest list, if it exceeded the rate limit.
    waiting: Option<Vec<Capability>>,
}

impl Announcements {
    /// Records a change. Returns it if it may be stored now; otherwise it replaces the waiting one.
    fn announce(&self, agent: Uuid, list: Vec<Capability>, now: Timestamp) -> Option<Vec<Capability>> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = of.entry(agent).or_insert(Announced { since: now, changes: 0, waiting: None });
        if now.since(announced.since) >= PERIOD {
            (announced.since, announced.changes) = (now, 0);
        }
        if announced.changes < AT_ONCE {
            announced.changes += 1;
            announced.waiting = None;
            return Some(list);
        }
        if announced.waiting.replace(list).is_none() {
            tracing::warn!(
                %agent,
                "agent {agent} has changed its capabilities {AT_ONCE} times within a minute: the latest change is delayed"
            );
        }
        None
    }

    /// Drops the waiting list of an agent that announces the stored one.
    fn unchanged(&self, agent: Uuid) {
        if let Some(announced) = self.of.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&agent) {
            announced.waiting = None;
        }
    }

    /// Returns the lists whose wait is over, and forgets idle agents.
    fn due(&self, now: Timestamp) -> Vec<(Uuid, Vec<Capability>)> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        of.retain(|agent, announced| {
            if now.since(announced.since) < PERIOD {
                return true;
            }
            let Some(list) = announced.waiting.take() else { return false };
            (announced.since, announced.changes) = (now, 1);
            due.push((*agent, list));
            true
        });
        due
    }
}

impl Engine {
    /// Stores an agent's capabilities if they have changed, within the rate limit.
    ///
    /// # Errors
    /// If they cannot be written.
    pub async fn announce(self: &Arc<Self>, agent: Uuid, list: Vec<Capability>) -> Result<(), StoreError> {
        let known = self.fleet.load().get(agent).map(|agent| agent.capabilities == list);
        if list.is_empty() || known.is_none() {
            return Ok(());
        }
        if known == Some(true) {
            self.announcements.unchanged(agent);
            return Ok(());
        }
        match self.announcements.announce(agent, list, self.clock.now()) {
            Some(list) => self.set_capabilities(agent, list).await,
            None => Ok(()),
        }
    }

    async fn set_capabilities(self: &Arc<Self>, agent: Uuid, list: Vec<Capability>) -> Result<(), StoreError> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        agents::set_capabilities(&mut ledger, agent, &list, self.clock.now()).await?;
        self.carry_through(ledger, move |engine| async move { engine.reload_agent(agent).await }).await
    }
}

/// Stores the lists whose wait is over.
pub(super) async fn take_in(engine: &Arc<Engine>) {
    for (agent, list) in engine.announcements.due(engine.clock.now()) {
        if engine.fleet.load().get(agent).is_none() {
            continue;
        }
        if let Err(error) = engine.set_capabilities(agent, list.clone()).await {
            tracing::warn!(%agent, "the capabilities of agent {agent} could not be stored, retrying: {error}");
            engine.announcements.announce(agent, list, engine.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(reason: u32) -> Vec<Capability> {
        vec![Capability { action: "a".into(), available: false, reason: Some(reason.to_string()) }]
    }

    #[test]
    fn promise_11_capability_changes_are_rate_limited_and_the_last_one_wins() {
        let (announcements, agent) = (Announcements::default(), Uuid::from_u128(1));
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let now = (0..1000).filter(|n| announcements.announce(agent, list(*n), at(0)).is_some()).count();
        assert_eq!(now, 4);
        assert!(announcements.announce(Uuid::from_u128(2), list(1), at(0)).is_some(), "another one is not held up");
        assert_eq!(announcements.due(at(59)), []);
        assert_eq!(announcements.due(at(60)), [(agent, list(999))]);
        assert_eq!(announcements.due(at(61)), []);
        // A waiting list must not overwrite a newer, stored one.
        (0..9).for_each(|n| drop(announcements.announce(agent, list(n), at(61))));
        announcements.unchanged(agent);
        assert_eq!(announcements.due(at(200)), []);
        assert!(announcements.of.lock().unwrap().is_empty(), "who is done is forgotten");
    }
}
