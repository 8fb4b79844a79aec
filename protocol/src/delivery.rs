//! The delivery rules, without I/O: the manager's side of one conversation ([`Session`]) and the agent's memory
//! of what it has received ([`Inbox`]). Stream and long poll are two ways to carry the same conversation, so
//! both drive these and nothing else.
//!
//! Together they keep promises 3 and 4: a command stays owed until it is acknowledged, it is executed once,
//! and the commands of one effect are executed in the order of their numbers.
//!
//! The **cursor** is the agent's word: "the highest number that is in my journal". What is urgent is sent before what was
//! queued earlier, so there may be gaps below it; within one effect there are none, because a command never leaves before
//! an earlier one of its effect. A command above the cursor is sent again on a new conversation whatever its lease says (the
//! frame that held it may be lost), and one below is sent again when its lease has run out or when a later one of its effect
//! is about to leave (mostly only its acknowledgement can be lost).

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use crate::command::Op;
use crate::time::Timestamp;

/// A command that the manager still owes to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Its number.
    pub seq: u64,
    /// The effect it is about.
    pub effect: Uuid,
    /// Until when the last delivery is given the benefit of the doubt; `None` if it was never delivered.
    pub lease_until: Option<Timestamp>,
}

/// What goes first, at the manager and at the agent; within one rank the number decides. An earlier command of an effect
/// takes the rank of a later one, so that an effect's commands keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Somebody waits for it: a person asked for it.
    Urgent,
    /// It makes room, and lifts what should not be in force any more.
    Revert,
    /// Everything else.
    Apply,
}

impl Rank {
    /// The rank of a command.
    pub const fn of(op: Op, is_urgent: bool) -> Self {
        match (op, is_urgent) {
            (_, true) => Self::Urgent,
            (Op::Revert, false) => Self::Revert,
            (Op::Apply, false) => Self::Apply,
        }
    }

    /// Its number in the database: the lowest goes first.
    pub const fn number(self) -> i64 {
        self as i64
    }
}

/// The manager's side of one conversation with one agent: one stream, or one poll.
#[derive(Debug)]
pub struct Session {
    cursor: u64,
    /// Numbers sent in this conversation and when their lease ends. The store learns of a delivery a little
    /// later than the agent does; until then this is what prevents a second sending.
    sent: BTreeMap<u64, Timestamp>,
    /// The earliest end of the leases that earlier conversations left behind.
    left_behind: Option<Timestamp>,
}

impl Session {
    /// Begins a conversation with an agent whose journal holds `cursor` and nothing above it.
    pub fn new(cursor: u64) -> Self {
        Self { cursor, sent: BTreeMap::new(), left_behind: None }
    }

    /// Chooses what to send now from `owed`, at most `max`, and remembers it as sent with a lease until `lease_until`. Gives
    /// positions in `owed`, ascending. `owed` is in the order of sending, that is by [`Rank`] and number, so the commands
    /// of one effect are in the order of their numbers.
    pub fn choose(&mut self, owed: &[Owed], now: Timestamp, lease_until: Timestamp, max: usize) -> Vec<usize> {
        // What is not owed any more was acknowledged, cancelled or expired, in whatever order.
        let still: HashSet<u64> = owed.iter().map(|command| command.seq).collect();
        self.sent.retain(|seq, _| still.contains(seq));
        self.left_behind = None;
        let is_due = |command: &Owed| match (self.sent.get(&command.seq), command.lease_until) {
            (Some(lease), _) => *lease <= now,
            (None, Some(lease)) => command.seq > self.cursor || lease <= now,
            (None, None) => true,
        };
        let mut due: Vec<bool> = owed.iter().map(is_due).collect();
        // Before a command that this conversation has not seen yet, and that the agent may not have, no later one of its
        // effect may leave: it would be executed first, and the earlier one refused. So that goes along, once more.
        let mut leaving: HashSet<Uuid> = HashSet::new();
        for (position, command) in owed.iter().enumerate().rev() {
            if due[position] {
                leaving.insert(command.effect);
            } else if command.seq != self.cursor && !self.sent.contains_key(&command.seq) {
                due[position] = leaving.contains(&command.effect);
            }
        }
        let mut chosen = Vec::new();
        for (position, command) in owed.iter().enumerate() {
            if due[position] {
                if chosen.len() < max {
                    self.sent.insert(command.seq, lease_until);
                    chosen.push(position);
                }
            } else if let (None, Some(lease)) = (self.sent.get(&command.seq), command.lease_until) {
                self.left_behind = Some(self.left_behind.map_or(lease, |earliest| earliest.min(lease)));
            }
        }
        chosen
    }

    /// When the next lease runs out, of this conversation or of one before: then there may be something to send again.
    pub fn next_lease_end(&self) -> Option<Timestamp> {
        self.sent.values().copied().chain(self.left_behind).min()
    }

    /// Forgets a command that was acknowledged.
    pub fn acknowledged(&mut self, seq: u64) {
        self.sent.remove(&seq);
    }
}

/// What the agent does with a command that has just arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// New: write it to the journal, acknowledge it, execute it.
    New,
    /// Already in the journal: acknowledge it again, and send its result again if it is still in the outbox.
    Duplicate,
    /// A later command of the same effect is already in the journal: refuse it, or it would undo the later one.
    Overtaken,
    /// So many later commands have been received before it that it is not known any more whether one of its effect was
    /// among them: refuse it.
    TooLate,
}

/// How many commands the agent remembers one by one: those with the highest numbers. Of those below it remembers only which
/// numbers are missing.
pub const REMEMBERED: usize = 4096;
/// How many gaps of missing numbers the agent remembers; the lowest are forgotten first, as if they had been received.
/// Numbers that expired or were called back before they were sent are missing for ever.
pub const GAPS: usize = 1024;

/// The agent's memory of what it has received; rebuilt from its journal at start.
#[derive(Debug, Default)]
pub struct Inbox {
    cursor: u64,
    forgotten_up_to: u64,
    /// The effect of each, by number, and by id for a manager that would use one number twice.
    received: BTreeMap<(u64, Uuid), Uuid>,
    /// The same by id alone: whatever its number says, what has been executed is not executed again.
    ids: HashSet<Uuid>,
    /// Up to `forgotten_up_to`: the first and the last number of each gap.
    missing: BTreeMap<u64, u64>,
    last_of_effect: HashMap<Uuid, u64>,
    /// The highest number that `last_of_effect` has forgotten.
    effects_forgotten_up_to: u64,
}

impl Inbox {
    /// An inbox that has never received anything.
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

    /// Up to that number: the first and the last number of each gap; a compacted journal has to keep them.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.missing.iter().map(|(first, last)| (*first, *last))
    }

    /// Starts from a compacted journal.
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

    /// It has come after all.
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

    /// The command is in the journal.
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

    /// What is remembered, by number, for a compacted journal: id, number and effect of each command.
    pub fn remembered(&self) -> impl Iterator<Item = (Uuid, u64, Uuid)> + '_ {
        self.received.iter().map(|((seq, id), effect)| (*id, *seq, *effect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const LATER: Timestamp = Timestamp::from_millis(1_030_000);

    /// Commands of effects of their own, never sent.
    fn owed(seqs: &[u64]) -> Vec<Owed> {
        seqs.iter().map(|seq| Owed { seq: *seq, effect: effect(*seq), lease_until: None }).collect()
    }

    /// The same, sent in a conversation that is over.
    fn leased(seqs: &[u64]) -> Vec<Owed> {
        owed(seqs).into_iter().map(|owed| Owed { lease_until: Some(LATER), ..owed }).collect()
    }

    fn effect(n: u64) -> Uuid {
        Uuid::from_u128(u128::from(n) << 64)
    }

    #[test]
    fn everything_owed_is_sent_once_in_order() {
        let mut session = Session::new(0);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 2), [0, 1]);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 2), [2]);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 2), Vec::<usize>::new());
    }

    #[test]
    fn an_unacknowledged_command_is_sent_again_when_its_lease_ends() {
        let mut session = Session::new(0);
        session.choose(&owed(&[3]), NOW, LATER, 9);
        assert_eq!(session.next_lease_end(), Some(LATER));
        assert_eq!(session.choose(&owed(&[3]), LATER, LATER, 9), [0]);
        session.acknowledged(3);
        assert_eq!(session.next_lease_end(), None);
    }

    #[test]
    fn a_new_conversation_resends_above_the_cursor_whatever_the_lease_says() {
        let leased = leased(&[3, 5, 9]);
        assert_eq!(Session::new(0).choose(&leased, NOW, LATER, 9), [0, 1, 2]);
        assert_eq!(Session::new(5).choose(&leased, NOW, LATER, 9), [2]);
        assert_eq!(Session::new(9).choose(&leased, NOW, LATER, 9), Vec::<usize>::new());
        assert_eq!(Session::new(9).choose(&leased, LATER, LATER, 9), [0, 1, 2]);
        assert_eq!(Session::new(9).choose(&owed(&[3]), NOW, LATER, 9), [0], "journaled, but never marked delivered");
    }

    #[test]
    fn what_was_acknowledged_out_of_order_leaves_no_lease_behind() {
        let mut session = Session::new(0);
        session.choose(&owed(&[3, 5]), NOW, LATER, 9);
        // 5 is acknowledged, 3 never is.
        session.choose(&owed(&[3]), LATER, Timestamp::from_millis(1_060_000), 9);
        assert_eq!(session.next_lease_end(), Some(Timestamp::from_millis(1_060_000)));
    }

    #[test]
    fn a_lease_of_an_earlier_conversation_is_waited_for() {
        let mut session = Session::new(9);
        let leased = leased(&[3]);
        assert_eq!(session.choose(&leased, NOW, LATER, 9), Vec::<usize>::new());
        assert_eq!(session.next_lease_end(), Some(LATER));
    }

    #[test]
    fn what_is_urgent_is_sent_in_the_order_given_and_once() {
        let mut session = Session::new(0);
        assert_eq!(session.choose(&owed(&[3, 5]), NOW, LATER, 9), [0, 1]);
        assert_eq!(session.choose(&owed(&[9, 3, 5, 7]), NOW, LATER, 1), [0], "9 is urgent");
        assert_eq!(session.choose(&owed(&[9, 3, 5, 7]), NOW, LATER, 9), [3]);
        session.acknowledged(9);
        assert_eq!(session.choose(&owed(&[3, 5, 7]), LATER, LATER, 9), [0, 1, 2]);
    }

    #[test]
    fn an_earlier_command_goes_along_when_a_later_one_of_its_effect_leaves() {
        // The agent has 9, which was urgent; the frame with 3 was lost.
        let mut session = Session::new(9);
        let mut commands = leased(&[3, 5, 7]);
        commands.extend(owed(&[10]));
        commands[3].effect = effect(3);
        assert_eq!(session.choose(&commands, NOW, LATER, 9), [0, 3], "3 before 10");
        assert_eq!(session.choose(&commands, NOW, LATER, 9), Vec::<usize>::new());
        assert_eq!(session.next_lease_end(), Some(LATER), "5 and 7 are waited for");
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
    fn an_id_is_new_once_whatever_number_it_comes_with() {
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
    fn memory_is_bounded_and_what_is_forgotten_is_still_a_duplicate() {
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

    /// A lossy world: frames and acknowledgements are dropped, conversations end, the agent restarts.
    #[derive(Debug, Clone)]
    enum Event {
        Queue { effect: u8, rank: Rank },
        Deliver { lost: bool, acks_lost: bool },
        Reconnect,
        WaitForLease,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let rank = prop_oneof![Just(Rank::Urgent), Just(Rank::Revert), Just(Rank::Apply)];
        let event = prop_oneof![
            (0u8..3, rank).prop_map(|(effect, rank)| Event::Queue { effect, rank }),
            (any::<bool>(), any::<bool>()).prop_map(|(lost, acks_lost)| Event::Deliver { lost, acks_lost }),
            Just(Event::Reconnect),
            Just(Event::WaitForLease),
        ];
        proptest::collection::vec(event, 1..80)
    }

    proptest! {
        #[test]
        fn whatever_is_lost_each_command_runs_once_and_in_order(events in events()) {
            let mut now = NOW;
            let lease = std::time::Duration::from_secs(30);
            let mut owed: Vec<(Owed, Rank)> = Vec::new();
            let mut inbox = Inbox::new();
            let mut session = Session::new(0);
            let mut executed: Vec<(u64, Uuid)> = Vec::new();
            let mut seq = 0;
            let mut run = |event: &Event, now: &mut Timestamp, owed: &mut Vec<(Owed, Rank)>, inbox: &mut Inbox, session: &mut Session| {
                match event {
                    Event::Queue { effect: of, rank } => {
                        seq += 1;
                        owed.push((Owed { seq, effect: effect(u64::from(*of)), lease_until: None }, *rank));
                    }
                    Event::Reconnect => *session = Session::new(inbox.cursor()),
                    Event::WaitForLease => *now = now.plus(lease),
                    Event::Deliver { lost, acks_lost } => {
                        // As the manager's store sorts: an effect has the rank of its foremost command.
                        let ranks: HashMap<Uuid, Rank> = owed.iter().fold(HashMap::new(), |mut ranks, (command, rank)| {
                            ranks.entry(command.effect).and_modify(|known| *known = (*known).min(*rank)).or_insert(*rank);
                            ranks
                        });
                        owed.sort_by_key(|(command, _)| (ranks[&command.effect], command.seq));
                        let view: Vec<Owed> = owed.iter().map(|(command, _)| *command).collect();
                        let chosen = session.choose(&view, *now, now.plus(lease), 4);
                        let mut acked = Vec::new();
                        for position in chosen {
                            owed[position].0.lease_until = Some(now.plus(lease));
                            let (command, _) = owed[position];
                            // A lost frame means a broken connection: TCP loses nothing in the middle.
                            if *lost { continue; }
                            let id = Uuid::from_u128(u128::from(command.seq));
                            match inbox.receive(id, command.seq, command.effect) {
                                Receipt::New => {
                                    inbox.journaled(id, command.seq, command.effect);
                                    executed.push((command.seq, command.effect));
                                }
                                Receipt::Duplicate => {}
                                Receipt::Overtaken | Receipt::TooLate => panic!("the manager let a command be overtaken"),
                            }
                            acked.push(command.seq);
                        }
                        if *lost { *session = Session::new(inbox.cursor()); }
                        if !*acks_lost {
                            owed.retain(|(command, _)| !acked.contains(&command.seq));
                            for seq in &acked { session.acknowledged(*seq); }
                        }
                    }
                }
            };
            for event in &events {
                run(event, &mut now, &mut owed, &mut inbox, &mut session);
            }
            // Quiescence: nothing is lost any more.
            for _ in 0..200 {
                run(&Event::WaitForLease, &mut now, &mut owed, &mut inbox, &mut session);
                run(&Event::Deliver { lost: false, acks_lost: false }, &mut now, &mut owed, &mut inbox, &mut session);
            }
            prop_assert!(owed.is_empty());
            let mut seqs: Vec<u64> = executed.iter().map(|(seq, _)| *seq).collect();
            prop_assert!(executed.len() == usize::try_from(seq).unwrap(), "each exactly once");
            for nth in 0..3 {
                let of: Vec<u64> = executed.iter().filter(|(_, of)| *of == effect(nth)).map(|(seq, _)| *seq).collect();
                prop_assert!(of.is_sorted());
            }
            seqs.sort_unstable();
            seqs.dedup();
            prop_assert_eq!(seqs.len(), executed.len());
        }
    }
}
