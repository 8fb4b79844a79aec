//! What agents say they can do, at a pace: each change is a row, an entry in the audit log and a fresh copy, and an agent that has
//! gone wrong must not fill them. What it says last counts; in between it waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::message::Capability;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use crate::store::audit::LedgerTx;
use crate::store::{StoreError, agents};

/// Changes of one agent that are taken in at once.
const AT_ONCE: u32 = 4;
/// After so long, as many again.
const PERIOD: Duration = Duration::from_mins(1);

/// What agents have announced lately.
#[derive(Debug, Default)]
pub struct Announcements {
    of: Mutex<HashMap<Uuid, Announced>>,
}

#[derive(Debug)]
struct Announced {
    since: Timestamp,
    changes: u32,
    /// The latest, if it came too soon after others.
    waiting: Option<Vec<Capability>>,
}

impl Announcements {
    /// An agent announces a change. Returns it if it is to be taken in now; else it waits, in the place of what waited before.
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
                "agent {agent} has changed what it can do {AT_ONCE} times within a minute: the latest is taken in when that is over"
            );
        }
        None
    }

    /// An agent says what is known already: what waits is out of date.
    fn unchanged(&self, agent: Uuid) {
        if let Some(announced) = self.of.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&agent) {
            announced.waiting = None;
        }
    }

    /// What has waited for long enough. Forgets the agents that are done.
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
    /// Takes in what an agent says it can do, if that is news; now, or when it has not changed too often.
    ///
    /// # Errors
    /// If it cannot be written.
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

/// Takes in what has waited.
pub(super) async fn take_in(engine: &Arc<Engine>) {
    for (agent, list) in engine.announcements.due(engine.clock.now()) {
        if engine.fleet.load().get(agent).is_none() {
            continue;
        }
        if let Err(error) = engine.set_capabilities(agent, list.clone()).await {
            tracing::warn!(%agent, "what agent {agent} can do could not be written down, trying again: {error}");
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
    fn promise_11_an_agent_that_changes_all_the_time_is_heard_at_a_pace_and_to_its_last_word() {
        let (announcements, agent) = (Announcements::default(), Uuid::from_u128(1));
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let now = (0..1000).filter(|n| announcements.announce(agent, list(*n), at(0)).is_some()).count();
        assert_eq!(now, 4);
        assert!(announcements.announce(Uuid::from_u128(2), list(1), at(0)).is_some(), "another one is not held up");
        assert_eq!(announcements.due(at(59)), []);
        assert_eq!(announcements.due(at(60)), [(agent, list(999))]);
        assert_eq!(announcements.due(at(61)), []);
        // What is known again by then is not written over by what waited.
        (0..9).for_each(|n| drop(announcements.announce(agent, list(n), at(61))));
        announcements.unchanged(agent);
        assert_eq!(announcements.due(at(200)), []);
        assert!(announcements.of.lock().unwrap().is_empty(), "who is done is forgotten");
    }
}
