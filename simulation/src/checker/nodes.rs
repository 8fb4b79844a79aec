//! What the checker records about several managers: changes that were answered, fences, the newest
//! connection of each agent, and commands that wait.

use std::collections::{BTreeMap, BTreeSet};

use riposte_protocol::command::Op;

use crate::plan::{Change, Millis, SECOND};
use crate::store::{Duty, Store};

/// Longest wait of a command for a manager that is well: the longest interval between two looks,
/// and a second for the look.
const LONGEST_WAIT: Millis = 3 * SECOND;

/// A promise, and how it was broken.
pub(crate) type Broken = Option<(&'static str, String)>;

/// The records.
#[derive(Debug, Default)]
pub(crate) struct NodeRecords {
    /// The changes in force: the epoch of each, and whether it was answered.
    changes: BTreeMap<Change, (u64, bool)>,
    fences: BTreeMap<Duty, u64>,
    newest: BTreeMap<usize, u64>,
    held_back: BTreeSet<usize>,
    sent: BTreeSet<usize>,
    /// Since when commands wait.
    waiting: BTreeMap<usize, Millis>,
    ended: BTreeSet<usize>,
}

impl NodeRecords {
    /// A change of configuration is about to be committed.
    pub(crate) fn changed(&mut self, change: Change, is_on: bool, epoch: u64) {
        if is_on {
            self.changes.insert(change, (epoch, false));
        } else {
            self.changes.remove(&change);
        }
    }

    /// A change was answered: it holds on every manager.
    pub(crate) fn answered(&mut self, change: Change, epoch: u64) {
        if let Some((of, is_answered)) = self.changes.get_mut(&change) {
            *is_answered |= *of == epoch;
        }
    }

    /// A response was committed: not against a target that was protected by then (7).
    pub(crate) fn decided(&self, manager: usize, target: usize) -> Broken {
        let change = self.changes.get(&Change::Protect { target });
        let detail =
            |epoch| format!("manager {manager} commits a response to target {target}, protected by epoch {epoch}");
        change.map(|(epoch, _)| ("7: decided by the configuration of its commit", detail(epoch)))
    }

    /// A manager sends commands: no apply that an answered change forbids (7).
    pub(crate) fn sends(&mut self, manager: usize, commands: &[usize], store: &Store) -> Broken {
        self.sent.extend(commands);
        let is_answered = |change: Change| self.changes.get(&change).is_some_and(|(_, is_answered)| *is_answered);
        let applies = commands.iter().filter(|command| store.commands[**command].op == Op::Apply);
        applies.copied().find_map(|command| {
            let target = store.effects[store.commands[command].effect].target;
            if is_answered(Change::Protect { target }) {
                let detail = format!("manager {manager} sends command {command} to target {target} after the answer");
                return Some(("7: protected means protected", detail));
            }
            let detail = || format!("manager {manager} sends command {command} after the freeze was answered");
            is_answered(Change::Freeze).then(|| ("7: a freeze holds on every manager", detail()))
        })
    }

    /// A freeze keeps a command back; a newer one of its effect may be sent before it.
    pub(crate) fn keeps_back(&mut self, command: usize) {
        self.held_back.insert(command);
    }

    /// Whether a freeze has ever kept a command back.
    pub(crate) fn is_kept_back(&self, command: usize) -> bool {
        self.held_back.contains(&command)
    }

    /// A transaction of a duty was committed: never after one with a higher fence (5).
    pub(crate) fn does(&mut self, manager: usize, duty: Duty, fence: u64) -> Broken {
        let last = self.fences.entry(duty).or_default();
        if fence < *last {
            let detail = format!("manager {manager} does {duty:?} by fence {fence}, after fence {last}");
            return Some(("5: one manager undoes", detail));
        }
        *last = fence;
        None
    }

    /// Responses were ended because their time is up: each once (5).
    pub(crate) fn ends(&mut self, manager: usize, responses: &[usize]) -> Broken {
        let again = responses.iter().find(|response| !self.ended.insert(**response));
        again.map(|response| ("5: undone once", format!("manager {manager} ends response {response} again")))
    }

    /// The ledger has recorded a connection of an agent.
    pub(crate) fn connected(&mut self, agent: usize, number: u64) {
        self.newest.insert(agent, number);
    }

    /// The ledger believes what came by a connection: only by the newest one (10).
    pub(crate) fn believes(&self, manager: usize, agent: usize, number: u64) -> Broken {
        let newest = self.newest.get(&agent).copied().unwrap_or_default();
        let detail = || {
            format!("manager {manager} believes agent {agent} by connection number {number}, the newest is {newest}")
        };
        (number < newest).then(|| ("10: the newest connection is believed", detail()))
    }

    /// These commands could be sent at once, `since` a time at the earliest (11).
    pub(crate) fn waits(&mut self, waiting: &[(usize, Millis)], now: Millis) -> Broken {
        let before = std::mem::take(&mut self.waiting);
        let unsent = waiting.iter().filter(|(command, _)| !self.sent.contains(command));
        self.waiting = unsent
            .map(|(command, since)| (*command, before.get(command).copied().unwrap_or(now).max(*since)))
            .collect();
        let (command, since) = self.waiting.iter().find(|(_, since)| now.saturating_sub(**since) > LONGEST_WAIT)?;
        let detail = format!("command {command} waits since {} s, and its manager is well", since / SECOND);
        Some(("11: a lost hint costs no more than a look", detail))
    }
}
