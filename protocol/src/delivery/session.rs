//! The manager's side of delivery: which commands are sent when.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use crate::time::Timestamp;

/// A command that the agent has not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The command's number.
    pub seq: u64,
    /// The effect it is about.
    pub effect: Uuid,
    /// End of the lease of the last delivery: until then it is assumed to have arrived. `None` if
    /// it was never delivered.
    pub lease_until: Option<Timestamp>,
}

/// The manager's side of one connection with one agent: one stream, or one poll.
#[derive(Debug)]
pub struct Session {
    cursor: u64,
    /// Numbers sent on this connection, and when their lease ends. The store learns of a delivery a
    /// little later than the agent; until then this prevents a second delivery.
    sent: BTreeMap<u64, Timestamp>,
    /// The earliest end of the leases of earlier connections.
    left_behind: Option<Timestamp>,
}

impl Session {
    /// Starts a session with an agent whose journal holds `cursor` and nothing above it.
    pub fn new(cursor: u64) -> Self {
        Self { cursor, sent: BTreeMap::new(), left_behind: None }
    }

    /// Selects what to send now from `owed`, at most `max`, and marks it as sent with a lease until
    /// `lease_until`. Returns ascending positions in `owed`.
    ///
    /// `owed` must be in the order of sending, by [`super::Rank`] and number, so the commands of
    /// one effect are in the order of their numbers.
    pub fn choose(&mut self, owed: &[Owed], now: Timestamp, lease_until: Timestamp, max: usize) -> Vec<usize> {
        // A missing number was acknowledged, cancelled or has expired.
        let still: HashSet<u64> = owed.iter().map(|command| command.seq).collect();
        self.sent.retain(|seq, _| still.contains(seq));
        self.left_behind = None;
        let is_due = |command: &Owed| match (self.sent.get(&command.seq), command.lease_until) {
            (Some(lease), _) => *lease <= now,
            (None, Some(lease)) => command.seq > self.cursor || lease <= now,
            (None, None) => true,
        };
        let mut due: Vec<bool> = owed.iter().map(is_due).collect();
        // A command must not be sent before an earlier one of its effect that the agent may lack:
        // it would be executed first, and the earlier one refused. So the earlier one is sent again
        // with it.
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

    /// A selected command is not sent after all, nor is any later one of its effect: it is selected
    /// again next time.
    pub fn take_back(&mut self, seq: u64) {
        self.sent.remove(&seq);
    }

    /// When the next lease ends, of this connection or an earlier one: then a command may have to
    /// be sent again.
    pub fn next_lease_end(&self) -> Option<Timestamp> {
        self.sent.values().copied().chain(self.left_behind).min()
    }

    /// Forgets a command that was acknowledged.
    pub fn acknowledged(&mut self, seq: u64) {
        self.sent.remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const LATER: Timestamp = Timestamp::from_millis(1_030_000);

    /// Commands of one effect each, never sent.
    fn owed(seqs: &[u64]) -> Vec<Owed> {
        seqs.iter().map(|seq| Owed { seq: *seq, effect: effect(*seq), lease_until: None }).collect()
    }

    /// The same, sent on a connection that has ended.
    fn leased(seqs: &[u64]) -> Vec<Owed> {
        owed(seqs).into_iter().map(|owed| Owed { lease_until: Some(LATER), ..owed }).collect()
    }

    fn effect(n: u64) -> Uuid {
        Uuid::from_u128(u128::from(n) << 64)
    }

    #[test]
    fn every_pending_command_is_sent_once_in_order() {
        let mut session = Session::new(0);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 2), [0, 1]);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 2), [2]);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 2), Vec::<usize>::new());
    }

    #[test]
    fn a_command_that_does_not_fit_is_chosen_for_the_next_message() {
        let mut session = Session::new(0);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 9), [0, 1, 2]);
        session.take_back(5);
        session.take_back(9);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 9), [1, 2]);
        assert_eq!(session.choose(&owed(&[3, 5, 9]), NOW, LATER, 9), Vec::<usize>::new());
        // A lease that ended: a command that is taken back is still due.
        assert_eq!(session.choose(&leased(&[3, 5, 9]), LATER, LATER, 9), [0, 1, 2]);
        session.take_back(9);
        assert_eq!(session.choose(&leased(&[3, 5, 9]), LATER, Timestamp::from_millis(1_060_000), 9), [0, 1, 2]);
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
    fn a_new_connection_resends_above_the_cursor_even_during_a_lease() {
        let leased = leased(&[3, 5, 9]);
        assert_eq!(Session::new(0).choose(&leased, NOW, LATER, 9), [0, 1, 2]);
        assert_eq!(Session::new(5).choose(&leased, NOW, LATER, 9), [2]);
        assert_eq!(Session::new(9).choose(&leased, NOW, LATER, 9), Vec::<usize>::new());
        assert_eq!(Session::new(9).choose(&leased, LATER, LATER, 9), [0, 1, 2]);
        assert_eq!(Session::new(9).choose(&owed(&[3]), NOW, LATER, 9), [0], "journaled, but never marked delivered");
    }

    #[test]
    fn an_acknowledgement_out_of_order_leaves_no_lease_behind() {
        let mut session = Session::new(0);
        session.choose(&owed(&[3, 5]), NOW, LATER, 9);
        // 5 is acknowledged, 3 is not.
        session.choose(&owed(&[3]), LATER, Timestamp::from_millis(1_060_000), 9);
        assert_eq!(session.next_lease_end(), Some(Timestamp::from_millis(1_060_000)));
    }

    #[test]
    fn a_lease_of_an_earlier_connection_is_waited_for() {
        let mut session = Session::new(9);
        let leased = leased(&[3]);
        assert_eq!(session.choose(&leased, NOW, LATER, 9), Vec::<usize>::new());
        assert_eq!(session.next_lease_end(), Some(LATER));
    }

    #[test]
    fn urgent_commands_are_sent_in_the_given_order_and_once() {
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
}
