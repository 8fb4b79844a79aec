//! What agents announce about themselves, at a pace: each change costs a row, an entry in the audit log and a fresh copy, and an
//! agent that has gone wrong must not fill them. What it says last counts; in between it waits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::message::Capability;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::agent::Agent;

/// Changes per agent that are stored without delay.
const AT_ONCE: u32 = 4;
/// Interval after which the budget is full again.
const PERIOD: Duration = Duration::from_mins(1);

/// What an agent announces; what it leaves out stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The version of its program.
    pub version: Option<String>,
    /// What it can do.
    pub capabilities: Option<Vec<Capability>>,
}

impl Announcement {
    /// Leaves only what differs from what is known of `agent`.
    pub(super) fn news(mut self, agent: &Agent) -> Self {
        self.version = self.version.filter(|version| *version != agent.version);
        self.capabilities = self.capabilities.filter(|list| !list.is_empty() && *list != agent.capabilities);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.version.is_none() && self.capabilities.is_none()
    }

    /// Takes the place of what `earlier` said about the same.
    fn over(self, earlier: Self) -> Self {
        Self { version: self.version.or(earlier.version), capabilities: self.capabilities.or(earlier.capabilities) }
    }
}

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
    waiting: Option<Announcement>,
}

impl Announcements {
    /// An agent announces a change. Returns it, with what has waited, if it is to be taken in now; else it waits.
    pub(super) fn announce(&self, agent: Uuid, said: Announcement, now: Timestamp) -> Option<Announcement> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = of.entry(agent).or_insert(Announced { since: now, changes: 0, waiting: None });
        if now.since(announced.since) >= PERIOD {
            (announced.since, announced.changes) = (now, 0);
        }
        let waited = announced.waiting.take();
        let is_first = waited.is_none();
        let said = said.over(waited.unwrap_or_default());
        if announced.changes < AT_ONCE {
            announced.changes += 1;
            return Some(said);
        }
        announced.waiting = Some(said);
        if is_first {
            tracing::warn!(
                %agent,
                "agent {agent} has changed its capabilities {AT_ONCE} times within a minute: the latest change is delayed"
            );
        }
        None
    }

    /// An agent says what is known already: what waits about the same is out of date.
    pub(super) fn unchanged(&self, agent: Uuid, version: bool, capabilities: bool) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = of.get_mut(&agent).and_then(|announced| announced.waiting.as_mut()) else { return };
        if version {
            waiting.version = None;
        }
        if capabilities {
            waiting.capabilities = None;
        }
    }

    /// What has waited for long enough. Forgets the agents that are done.
    pub(super) fn due(&self, now: Timestamp) -> Vec<(Uuid, Announcement)> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        of.retain(|agent, announced| {
            if now.since(announced.since) < PERIOD {
                return true;
            }
            let Some(said) = announced.waiting.take().filter(|said| !said.is_empty()) else { return false };
            (announced.since, announced.changes) = (now, 1);
            due.push((*agent, said));
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(reason: u32) -> Announcement {
        let list = vec![Capability { action: "a".into(), available: false, reason: Some(reason.to_string()) }];
        Announcement { version: None, capabilities: Some(list) }
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
        announcements.unchanged(agent, true, true);
        assert_eq!(announcements.due(at(200)), []);
        assert!(announcements.of.lock().unwrap().is_empty(), "an agent without news is forgotten");
    }

    #[test]
    fn a_version_and_what_an_agent_can_do_wait_together_and_neither_drives_out_the_other() {
        let (announcements, agent) = (Announcements::default(), Uuid::from_u128(1));
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let version = |text: &str| Announcement { version: Some(text.into()), capabilities: None };
        (0..4).for_each(|n| drop(announcements.announce(agent, list(n), at(0))));
        assert_eq!(announcements.announce(agent, version("1.1"), at(1)), None);
        assert_eq!(announcements.announce(agent, list(9), at(2)), None);
        assert_eq!(announcements.announce(agent, version("1.2"), at(3)), None);
        let both = Announcement { version: Some("1.2".into()), ..list(9) };
        assert_eq!(announcements.due(at(60)), [(agent, both)]);
    }
}
