//! A small model of the protocol, explored completely: one agent, an apply and its revert, two
//! crashes of either side, and a network that loses, doubles and reorders. The delivery rules are
//! the protocol's own [`Session`] and [`Inbox`], rebuilt for each step from what survives.

use std::collections::BTreeSet;

use riposte_protocol::delivery::{Inbox, Owed, Receipt, Session};
use riposte_protocol::time::Timestamp;
use stateright::{Checker, Model, Property};
use uuid::Uuid;

const COMMANDS: u64 = 2;
const CRASHES: u8 = 2;
const EFFECT: Uuid = Uuid::from_u128(1);

/// The protocol, right or with a mistake.
#[derive(Clone, Copy, Default)]
struct Protocol {
    acknowledges_first: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// The store: unacknowledged commands, whether each has a lease, and which are answered.
    owed: Vec<(u64, bool)>,
    answered: BTreeSet<u64>,
    /// The connection: the cursor at its beginning, and what was sent on it.
    cursor: u64,
    sent: BTreeSet<u64>,
    /// The network.
    commands: BTreeSet<u64>,
    acks: BTreeSet<u64>,
    results: BTreeSet<u64>,
    /// The agent's journal, in its order: number, whether it is begun, whether it is done (or
    /// refused).
    journal: Vec<(u64, bool, bool)>,
    refused: BTreeSet<u64>,
    /// What a defective agent has acknowledged and not journaled yet.
    unwritten: BTreeSet<u64>,
    /// The host: executed commands, in their order.
    executed: Vec<u64>,
    crashes: u8,
    said: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Send,
    LeaseEnds,
    LoseCommand(u64),
    Arrive(u64, bool),
    Write,
    AckArrives(u64, bool),
    Execute,
    Tell(u64),
    ResultArrives(u64, bool),
    CrashAgent,
    CrashManager,
}

fn inbox(state: &State) -> Inbox {
    let mut inbox = Inbox::new();
    for (seq, ..) in &state.journal {
        inbox.journaled(Uuid::from_u128(u128::from(*seq) + 10), *seq, EFFECT);
    }
    inbox
}

fn receive(state: &mut State, seq: u64) {
    match inbox(state).receive(Uuid::from_u128(u128::from(seq) + 10), seq, EFFECT) {
        Receipt::New => state.journal.push((seq, false, false)),
        Receipt::Overtaken => {
            state.journal.push((seq, false, true));
            state.refused.insert(seq);
        }
        Receipt::Duplicate => {}
        Receipt::TooLate => unreachable!("two commands are remembered"),
    }
}

/// A new connection. Messages of the old one may still arrive at the manager, but not at the agent.
fn reconnect(state: &mut State) {
    state.cursor = inbox(state).cursor();
    state.sent.clear();
    state.commands.clear();
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State { owed: (1..=COMMANDS).map(|seq| (seq, false)).collect(), ..State::default() }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.extend([Step::Send, Step::LeaseEnds, Step::Execute, Step::Write]);
        for seq in &state.commands {
            steps.extend([Step::Arrive(*seq, false), Step::Arrive(*seq, true), Step::LoseCommand(*seq)]);
        }
        steps.extend(state.acks.iter().flat_map(|seq| [Step::AckArrives(*seq, true), Step::AckArrives(*seq, false)]));
        steps.extend(state.journal.iter().filter(|entry| entry.2).map(|entry| Step::Tell(entry.0)));
        let results = state.results.iter();
        steps.extend(results.flat_map(|seq| [Step::ResultArrives(*seq, true), Step::ResultArrives(*seq, false)]));
        if state.crashes < CRASHES {
            steps.extend([Step::CrashAgent, Step::CrashManager]);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        let (now, later) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        match step {
            Step::Send => {
                let owed = |(seq, leased): &(u64, bool)| Owed {
                    seq: *seq,
                    effect: EFFECT,
                    lease_until: leased.then_some(later),
                };
                let owed: Vec<Owed> = state.owed.iter().map(owed).collect();
                let mut session = Session::new(state.cursor);
                // Already sent on this connection: selected once, so not due again.
                let sent: Vec<Owed> = owed.iter().filter(|owed| state.sent.contains(&owed.seq)).copied().collect();
                let unleased = sent.iter().map(|owed| Owed { lease_until: None, ..*owed }).collect::<Vec<_>>();
                session.choose(&unleased, now, later, usize::MAX);
                for position in session.choose(&owed, now, later, usize::MAX) {
                    state.commands.insert(owed[position].seq);
                    state.sent.insert(owed[position].seq);
                    state.owed[position].1 = true;
                }
            }
            Step::LeaseEnds => {
                state.sent.clear();
                state.owed.iter_mut().for_each(|owed| owed.1 = false);
            }
            Step::LoseCommand(seq) => {
                state.commands.remove(&seq);
            }
            Step::Arrive(seq, is_doubled) => {
                if !is_doubled {
                    state.commands.remove(&seq);
                }
                if self.acknowledges_first {
                    state.unwritten.insert(seq);
                } else {
                    receive(&mut state, seq);
                }
                state.acks.insert(seq);
                state.said.insert(seq);
            }
            Step::Write => {
                let seq = state.unwritten.pop_first()?;
                receive(&mut state, seq);
            }
            Step::AckArrives(seq, is_heard) => {
                state.acks.remove(&seq);
                if is_heard {
                    state.owed.retain(|owed| owed.0 != seq);
                }
            }
            Step::Execute => {
                // Two steps, between which the agent can crash: the beginning is recorded first,
                // the result last.
                let next = state.journal.iter_mut().filter(|entry| !entry.2).min_by_key(|entry| entry.0)?;
                if next.1 {
                    next.2 = true;
                } else {
                    next.1 = true;
                    let seq = next.0;
                    state.executed.push(seq);
                }
            }
            Step::Tell(seq) => {
                state.results.insert(seq);
            }
            Step::ResultArrives(seq, is_heard) => {
                state.results.remove(&seq);
                if is_heard {
                    state.answered.insert(seq);
                    state.owed.retain(|owed| owed.0 != seq);
                }
            }
            Step::CrashAgent => {
                state.crashes += 1;
                state.unwritten.clear();
                reconnect(&mut state);
            }
            Step::CrashManager => {
                state.crashes += 1;
                reconnect(&mut state);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("3: never executed twice", |_, state: &State| {
                let once: BTreeSet<&u64> = state.executed.iter().collect();
                once.len() == state.executed.len()
            }),
            Property::always("4: a revert never overtakes its apply", |_, state: &State| state.executed.is_sorted()),
            Property::always("3: an acknowledged command is in the journal", |_, state: &State| {
                let is_owed = |seq: u64| state.owed.iter().any(|owed| owed.0 == seq);
                let is_known = |seq: u64| state.journal.iter().any(|entry| entry.0 == seq);
                let may_be_written = |seq: u64| state.unwritten.contains(&seq);
                (1..=COMMANDS).all(|seq| is_owed(seq) || is_known(seq) || may_be_written(seq))
            }),
            Property::always("9: an answered command was done, or refused", |_, state: &State| {
                state.answered.iter().all(|seq| state.executed.contains(seq) || state.refused.contains(seq))
            }),
            Property::sometimes("everything is done after two crashes", |_, state: &State| {
                let is_all = state.answered.len() as u64 == COMMANDS && state.executed.len() as u64 == COMMANDS;
                is_all && state.crashes == CRASHES && state.owed.is_empty()
            }),
        ]
    }
}

#[test]
fn no_order_of_events_breaks_a_promise() {
    let explored = Protocol::default().checker().spawn_bfs().join();
    println!("{} states", explored.unique_state_count());
    explored.assert_properties();
    assert!(explored.unique_state_count() > 10_000, "{}", explored.unique_state_count());
}

#[test]
fn an_acknowledgement_before_the_journal_is_found() {
    let explored = Protocol { acknowledges_first: true }.checker().spawn_bfs().join();
    assert!(explored.discovery("3: an acknowledged command is in the journal").is_some());
}
