//! Which statement about the manager's keys each agent has made durable. Agents say so whenever they
//! connect and at each poll, so memory suffices: the sweep writes it down for agents that are away.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

/// How long statements are not sent to an agent again that does not take them.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Uuid, u64>,
    unwritten: HashSet<Uuid>,
    /// Agents that have said a number since the manager started.
    said: HashSet<Uuid>,
    /// When statements were sent last, and from which number on.
    sent: HashMap<Uuid, (u64, Timestamp)>,
}

/// The statements that agents have confirmed.
#[derive(Debug, Default)]
pub(super) struct KeyNumbers(Mutex<Known>);

impl KeyNumbers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is stored.
    pub(super) fn load(&self, stored: Vec<(Uuid, u64)>) {
        self.known().numbers.extend(stored);
    }

    /// The number of an agent; 0 if none is known.
    pub(super) fn of(&self, agent: Uuid) -> u64 {
        self.known().numbers.get(&agent).copied().unwrap_or_default()
    }

    /// Whether an agent has said a number since the manager started, so that it learns keys.
    pub(super) fn has_said(&self, agent: Uuid) -> bool {
        self.known().said.contains(&agent)
    }

    /// An agent says which statement it has made durable. A restored host may say less than before.
    pub(super) fn say(&self, agent: Uuid, number: u64) {
        let mut known = self.known();
        known.said.insert(agent);
        if known.numbers.insert(agent, number).unwrap_or_default() != number {
            known.unwritten.insert(agent);
        }
    }

    /// An agent has enrolled with the keys that follow from this statement.
    pub(super) fn enrol(&self, agent: Uuid, number: u64) {
        let mut known = self.known();
        if number > 0 && known.numbers.insert(agent, number) != Some(number) {
            known.unwritten.insert(agent);
        }
    }

    /// Takes what is not written yet.
    pub(super) fn take_unwritten(&self) -> Vec<(Uuid, u64)> {
        let mut known = self.known();
        let unwritten = std::mem::take(&mut known.unwritten);
        unwritten.into_iter().filter_map(|agent| known.numbers.get(&agent).map(|number| (agent, *number))).collect()
    }

    /// It could not be written.
    pub(super) fn put_back(&self, agents: &[(Uuid, u64)]) {
        self.known().unwritten.extend(agents.iter().map(|(agent, _)| *agent));
    }

    /// Whether the statements after `number` are to be sent to an agent now.
    pub(super) fn may_send(&self, agent: Uuid, number: u64, now: Timestamp) -> bool {
        let mut known = self.known();
        let is_recent = |(before, at): &(u64, Timestamp)| *before == number && now.since(*at) < AGAIN_AFTER;
        if known.sent.get(&agent).is_some_and(is_recent) {
            return false;
        }
        known.sent.insert(agent, (number, now));
        true
    }

    /// What was sent to an agent may be lost.
    pub(super) fn forget_sent(&self, agent: Uuid) {
        self.known().sent.remove(&agent);
    }

    /// There is a new statement: it is sent at once.
    pub(super) fn send_again(&self) {
        self.known().sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_say_is_written_once_and_sent_at_a_pace() {
        let (numbers, agent) = (KeyNumbers::default(), Uuid::from_u128(1));
        numbers.load(vec![(agent, 2)]);
        assert!(!numbers.has_said(agent));
        numbers.say(agent, 2);
        assert!(numbers.has_said(agent) && numbers.take_unwritten().is_empty(), "nothing has changed");
        numbers.say(agent, 1);
        let unwritten = numbers.take_unwritten();
        assert_eq!((numbers.of(agent), unwritten.as_slice()), (1, [(agent, 1)].as_slice()));
        assert!(numbers.take_unwritten().is_empty());
        numbers.put_back(&unwritten);
        assert_eq!(numbers.take_unwritten(), [(agent, 1)]);

        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let sends = [(1, 0), (1, 29), (2, 29), (2, 58), (2, 59)]
            .map(|(number, secs)| numbers.may_send(agent, number, at(secs)));
        assert_eq!(sends, [true, false, true, false, true]);
        numbers.send_again();
        assert!(numbers.may_send(agent, 2, at(60)));
    }
}
