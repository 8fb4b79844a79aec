//! The delivery rules, without I/O: the manager's side of one connection ([`Session`]) and the
//! commands that the agent has received ([`Inbox`]). Stream and long poll both use these rules, and
//! no others.
//!
//! Together they keep promises 3 and 4: a command is sent until it is acknowledged, it is executed
//! once, and the commands of one effect are executed in the order of their numbers.
//!
//! The **cursor** is the highest number in the agent's journal, as the agent reports it. Urgent
//! commands are sent before older ones, so there may be gaps below it. Within one effect there are
//! none, because a command is never sent before an earlier one of its effect.
//!
//! A new connection sends a command above the cursor again even during its lease: the frame that
//! held it may be lost. One below the cursor is sent again when its lease has ended, or when a
//! later one of its effect is about to be sent; mostly only its acknowledgement can be lost.

mod inbox;
mod session;

pub use self::inbox::{GAPS, Inbox, REMEMBERED, Receipt};
pub use self::session::{Owed, Session};

use crate::command::Op;

/// Priority of a command, at the manager and at the agent; within one rank the number decides. An
/// earlier command of an effect takes the rank of a later one, so that an effect's commands keep
/// their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A person asked for it and waits.
    Urgent,
    /// It frees room, and lifts what should not be in force any more.
    Revert,
    /// Every other command.
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

    /// Its number in the database; the lowest goes first.
    pub const fn number(self) -> i64 {
        self as i64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::time::Timestamp;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn effect(n: u64) -> Uuid {
        Uuid::from_u128(u128::from(n) << 64)
    }

    /// A lossy world: frames and acknowledgements are dropped, connections end, the agent restarts.
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
        fn each_command_runs_once_and_in_order_despite_losses(events in events()) {
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
                        // As the manager's store sorts: an effect has the rank of its foremost
                        // command.
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
                            // A lost frame means a broken connection: TCP never loses a part in the
                            // middle.
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
