//! The agent's side of delivery: whether a command is new, a duplicate or overtaken.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

/// What the agent does with a command that has just arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// New: write it to the journal, acknowledge it, execute it.
    New,
    /// Already in the journal: acknowledge it again, and send its result again if it is still in
    /// the outbox.
    Duplicate,
    /// A later command of the same effect is already in the journal: refuse it, because it would
    /// undo the later one.
    Overtaken,
    /// Too many later commands were received before it, so it is unknown whether one of its effect
    /// was among them: refuse it.
    TooLate,
}

/// How many commands the agent remembers one by one: those with the highest numbers. Of those below
/// it remembers only the missing numbers.
pub const REMEMBERED: usize = 4096;
/// How many gaps of missing numbers the agent remembers. The lowest are forgotten first, as if they
/// had been received. The numbers of commands that expired or were cancelled before delivery are
/// missing for ever.
pub const GAPS: usize = 1024;

/// The commands that the agent has received; rebuilt from its journal at start.
#[derive(Debug, Default)]
pub struct Inbox {
    cursor: u64,
    forgotten_up_to: u64,
    /// The effect of each command, by number, and by id in case a manager uses a number twice.
    received: BTreeMap<(u64, Uuid), Uuid>,
    /// The same by id alone: a command is executed only once, even under another number.
    ids: HashSet<Uuid>,
    /// The gaps up to `forgotten_up_to`: first and last number of each.
    missing: BTreeMap<u64, u64>,
    last_of_effect: HashMap<Uuid, u64>,
    /// The highest number that `last_of_effect` has forgotten.
    effects_forgotten_up_to: u64,
}

impl Inbox {
    /// An inbox that has never received a command.
    pub fn new() -> Self {
        Self::default()
    }

    /// The highest number that is in the journal.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The highest number whose id has been forgotten; a compacted journal has to keep it.
    pub fn forgotten_up_to(&self) -> u64 {
        self.forgotten_up_to
    }

    /// The gaps up to that number, each with its first and last number; a compacted journal has to
    /// keep them.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.missing.iter().map(|(first, last)| (*first, *last))
    }

    /// Builds the inbox of a compacted journal.
    pub fn restore(cursor: u64, forgotten_up_to: u64, missing: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let missing = missing.into_iter().collect();
        Self { cursor, forgotten_up_to, missing, effects_forgotten_up_to: forgotten_up_to, ..Self::default() }
    }

    /// What to do with this command. Changes nothing: call [`Inbox::journaled`] once it is on disk.
    pub fn receive(&self, id: Uuid, seq: u64, effect: Uuid) -> Receipt {
        let is_forgotten = seq <= self.forgotten_up_to && !self.is_missing(seq);
        if self.ids.contains(&id) || is_forgotten {
            Receipt::Duplicate
        } else if self.last_of_effect.get(&effect).is_some_and(|last| *last >= seq) {
            Receipt::Overtaken
        } else if seq <= self.effects_forgotten_up_to {
            Receipt::TooLate
        } else {
            Receipt::New
        }
    }

    fn is_missing(&self, seq: u64) -> bool {
        self.missing.range(..=seq).next_back().is_some_and(|(_, last)| *last >= seq)
    }

    /// A missing number has been received.
    fn fill(&mut self, seq: u64) {
        let Some((first, last)) = self.missing.range(..=seq).next_back().map(|(first, last)| (*first, *last)) else {
            return;
        };
        if last < seq {
            return;
        }
        self.missing.remove(&first);
        if first < seq {
            self.missing.insert(first, seq - 1);
        }
        if seq < last {
            self.missing.insert(seq + 1, last);
        }
    }

    /// Records that the command is in the journal.
    pub fn journaled(&mut self, id: Uuid, seq: u64, effect: Uuid) {
        self.cursor = self.cursor.max(seq);
        if self.ids.insert(id) {
            self.received.insert((seq, id), effect);
        }
        self.fill(seq);
        let last = self.last_of_effect.entry(effect).or_insert(0);
        *last = (*last).max(seq);
        while self.received.len() > REMEMBERED {
            let Some(((seq, id), _)) = self.received.pop_first() else { break };
            self.ids.remove(&id);
            if seq > self.forgotten_up_to + 1 {
                self.missing.insert(self.forgotten_up_to + 1, seq - 1);
            }
            self.forgotten_up_to = self.forgotten_up_to.max(seq);
        }
        while self.missing.len() > GAPS {
            self.missing.pop_first();
        }
        if self.last_of_effect.len() > 2 * REMEMBERED {
            let forgotten = self.forgotten_up_to;
            let of_forgotten = self.last_of_effect.values().copied().filter(|last| *last <= forgotten);
            self.effects_forgotten_up_to = of_forgotten.max().unwrap_or(0).max(self.effects_forgotten_up_to);
            self.last_of_effect.retain(|_, last| *last > forgotten);
        }
    }

    /// The remembered commands for a compacted journal, by number: id, number and effect of each.
    pub fn remembered(&self) -> impl Iterator<Item = (Uuid, u64, Uuid)> + '_ {
        self.received.iter().map(|((seq, id), effect)| (*id, *seq, *effect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(n: u64) -> Uuid {
        Uuid::from_u128(u128::from(n) << 64)
    }

    #[test]
    fn a_command_that_many_have_overtaken_is_still_new() {
        let mut inbox = Inbox::new();
        let receive = |inbox: &mut Inbox, seq: u64| {
            let receipt = inbox.receive(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
            inbox.journaled(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
            receipt
        };
        let many = u64::try_from(REMEMBERED).unwrap() + 2000;
        for seq in 11..=many {
            assert_eq!(receive(&mut inbox, seq), Receipt::New);
        }
        assert!(inbox.forgotten_up_to() > 1000);
        // As after a compaction, in the middle of it.
        let missing: Vec<_> = inbox.missing().collect();
        assert_eq!(missing, [(1, 10)]);
        for seq in [5, 1, 10, 2, 3, 4, 6, 7, 8, 9] {
            assert_eq!(receive(&mut inbox, seq), Receipt::New, "{seq}");
            assert_eq!(receive(&mut inbox, seq), Receipt::Duplicate, "{seq}");
        }
        assert_eq!(inbox.missing().count(), 0);
        assert_eq!(receive(&mut inbox, 11), Receipt::Duplicate);
        let restored = Inbox::restore(many, 2000, missing);
        assert_eq!(restored.receive(Uuid::from_u128(5), 5, effect(5)), Receipt::TooLate, "its effect may be forgotten");
        assert_eq!(restored.receive(Uuid::from_u128(11), 11, effect(11)), Receipt::Duplicate);
    }

    #[test]
    fn gaps_are_bounded_and_nothing_received_is_ever_new_again() {
        let mut inbox = Inbox::new();
        let last = 3 * u64::try_from(REMEMBERED).unwrap();
        for seq in (2..=last).step_by(2) {
            inbox.journaled(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
        }
        for seq in (last + 1)..=(last + 2 * u64::try_from(REMEMBERED).unwrap()) {
            inbox.journaled(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
        }
        assert_eq!(inbox.missing().count(), GAPS);
        for seq in (2..=last).step_by(2) {
            assert_eq!(inbox.receive(Uuid::from_u128(u128::from(seq)), seq, effect(seq)), Receipt::Duplicate, "{seq}");
        }
        let first = Uuid::from_u128(1);
        assert_eq!(inbox.receive(first, 1, effect(1)), Receipt::Duplicate, "the lowest gaps are forgotten");
    }

    #[test]
    fn a_command_is_new_once() {
        let mut inbox = Inbox::new();
        let (id, effect) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(inbox.receive(id, 1, effect), Receipt::New);
        inbox.journaled(id, 1, effect);
        assert_eq!(inbox.receive(id, 1, effect), Receipt::Duplicate);
    }

    #[test]
    fn an_id_is_new_once_even_with_another_number() {
        let mut inbox = Inbox::new();
        inbox.journaled(Uuid::from_u128(1), 5, effect(1));
        assert_eq!(inbox.receive(Uuid::from_u128(1), 6, effect(2)), Receipt::Duplicate);
        inbox.journaled(Uuid::from_u128(1), 6, effect(2));
        assert_eq!(inbox.remembered().count(), 1);
        for seq in 10..10 + u64::try_from(REMEMBERED).unwrap() {
            inbox.journaled(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
        }
        assert_eq!((inbox.ids.len(), inbox.received.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn an_older_command_of_the_same_effect_never_follows_a_newer_one() {
        let mut inbox = Inbox::new();
        let (effect, other) = (Uuid::from_u128(2), Uuid::from_u128(3));
        inbox.journaled(Uuid::from_u128(10), 5, effect);
        assert_eq!(inbox.receive(Uuid::from_u128(11), 4, effect), Receipt::Overtaken);
        assert_eq!(inbox.receive(Uuid::from_u128(11), 4, other), Receipt::New);
    }

    #[test]
    fn memory_is_bounded_and_a_forgotten_command_is_still_a_duplicate() {
        let mut inbox = Inbox::new();
        let count = u64::try_from(REMEMBERED).unwrap() * 4;
        for seq in 1..=count {
            inbox.journaled(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
        }
        assert_eq!(inbox.received.len(), REMEMBERED);
        assert!(inbox.last_of_effect.len() <= 2 * REMEMBERED);
        assert_eq!(inbox.missing().count(), 0);
        for seq in [1, 2, count - 1, count] {
            let receipt = inbox.receive(Uuid::from_u128(u128::from(seq)), seq, effect(seq));
            assert_eq!(receipt, Receipt::Duplicate, "{seq}");
        }
    }
}
