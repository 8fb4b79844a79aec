//! The agent's state, rebuilt from the journal: what it received, what is pending, what it holds
//! and what it has to report. Only records change it, at run time and at start, so both use the
//! same code.

use std::collections::{BTreeMap, HashSet, VecDeque};

use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::Inbox;
use riposte_protocol::message::CommandResult;
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::record::{Held, Record, Released};

/// A command that was received and is not finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The signed command.
    pub command: Command,
    /// When its execution began; `None` if it has not.
    pub started: Option<Timestamp>,
    /// State of the host before the execution.
    pub evidence: Option<Box<serde_json::Value>>,
}

/// The state that follows from the records.
#[derive(Debug, Default)]
pub struct JournalState {
    inbox: Inbox,
    /// By number, and by id in case a manager uses a number twice.
    pending: BTreeMap<(u64, Uuid), Pending>,
    held: BTreeMap<Uuid, Held>,
    outbox: Vec<CommandResult>,
    /// Effects that were lifted locally, until the manager knows.
    released: BTreeMap<Uuid, Released>,
    /// Effects that were held and are lifted, the latest last: a second revert is answered from
    /// here.
    lifted: VecDeque<Uuid>,
    /// Whether every effect that was ever held is known here.
    is_whole: bool,
    /// When the latest order that was received was issued, in Unix seconds.
    latest_iat: Option<i64>,
}

/// Weight of a command, a result or an effect without its texts, in bytes.
const ENTRY_BYTES: usize = 512;
/// Limit of releases that are kept for the manager.
const MAX_RELEASED: usize = 4096;
/// Limit of lifted effects that are kept. A whole journal needs none of them: an effect that it
/// does not hold is lifted or was never applied.
const MAX_LIFTED: usize = 2048;
/// The number of the first command that a manager sends to an agent.
const FIRST: u64 = 1;

impl JournalState {
    /// Builds the state that follows from `records`.
    pub fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut state = Self::default();
        records.into_iter().for_each(|record| state.apply(record));
        state
    }

    /// Applies one record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Inbox { cursor, forgotten_up_to, missing, whole, latest_iat } => {
                // Older versions did not write it. An inbox that has the first command means the
                // same.
                let has_first = forgotten_up_to >= FIRST && missing.iter().all(|(first, _)| *first > FIRST);
                self.is_whole |= whole || has_first;
                self.inbox = Inbox::restore(cursor, forgotten_up_to, missing);
                self.latest_iat = self.latest_iat.max(latest_iat);
            }
            Record::Seen { id, seq, effect } => self.journaled(id, seq, effect),
            Record::Pending { command, started, evidence } => {
                self.latest_iat = self.latest_iat.max(Some(command.iat));
                self.pending.insert((command.seq, command.jti), Pending { command: *command, started, evidence });
            }
            Record::Received { command } => {
                self.latest_iat = self.latest_iat.max(Some(command.iat));
                self.journaled(command.jti, command.seq, command.effect);
                let pending = Pending { command: *command, started: None, evidence: None };
                self.pending.insert((pending.command.seq, pending.command.jti), pending);
            }
            Record::Started { id, at, evidence } => {
                if let Some(pending) = self.pending.values_mut().find(|pending| pending.command.jti == id) {
                    pending.started = Some(at);
                    pending.evidence = evidence;
                }
            }
            Record::Finished { result } => {
                let finished = self.pending.keys().find(|(_, id)| *id == result.command_id).copied();
                if let Some(key) = finished {
                    self.pending.remove(&key);
                }
                self.outbox.retain(|older| older.command_id != result.command_id);
                self.outbox.push(*result);
            }
            Record::Acknowledged { ids } => self.outbox.retain(|result| !ids.contains(&result.command_id)),
            Record::Held { held } => {
                self.released.remove(&held.effect);
                self.lifted.retain(|lifted| *lifted != held.effect);
                self.held.insert(held.effect, *held);
            }
            Record::Lifted { effect } => self.lift(effect),
            Record::Released { released } => {
                self.lift(released.effect);
                if self.released.len() < MAX_RELEASED {
                    self.released.insert(released.effect, *released);
                }
            }
            Record::ReleaseTold { effects } => self.released.retain(|effect, _| !effects.contains(effect)),
        }
    }

    fn journaled(&mut self, id: Uuid, seq: u64, effect: Uuid) {
        self.inbox.journaled(id, seq, effect);
        // No effect can have been applied before the first command.
        self.is_whole |= seq == FIRST;
    }

    fn lift(&mut self, effect: Uuid) {
        self.held.remove(&effect);
        self.lifted.retain(|lifted| *lifted != effect);
        if self.lifted.len() >= MAX_LIFTED {
            self.lifted.pop_front();
        }
        self.lifted.push_back(effect);
    }

    /// Returns the smallest list of records that leads to this state.
    pub fn records(&self) -> Vec<Record> {
        let (cursor, forgotten_up_to) = (self.inbox.cursor(), self.inbox.forgotten_up_to());
        let missing = self.inbox.missing().collect();
        let mut records =
            vec![Record::Inbox { cursor, forgotten_up_to, missing, whole: self.is_whole, latest_iat: self.latest_iat }];
        records.extend(self.inbox.remembered().map(|(id, seq, effect)| Record::Seen { id, seq, effect }));
        records.extend(self.pending.values().map(|pending| Record::Pending {
            command: Box::new(pending.command.clone()),
            started: pending.started,
            evidence: pending.evidence.clone(),
        }));
        records
            .extend(self.released.values().map(|released| Record::Released { released: Box::new(released.clone()) }));
        // After the releases, which lift too, so that both are kept in the same order.
        records.extend(self.lifted.iter().map(|effect| Record::Lifted { effect: *effect }));
        records.extend(self.held.values().map(|held| Record::Held { held: Box::new(held.clone()) }));
        records.extend(self.outbox.iter().map(|result| Record::Finished { result: Box::new(result.clone()) }));
        records
    }

    /// The numbers and ids of the commands received so far.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// When the latest order that was received was issued. The current time cannot be earlier.
    pub fn latest_order(&self) -> Option<Timestamp> {
        self.latest_iat.map(|secs| Timestamp::from_millis(secs.saturating_mul(1000)))
    }

    /// Whether a command came too late at `now`.
    ///
    /// An apply is never judged by a time before the latest order: a clock that is set back must
    /// not make an old order valid. A revert only restores, so this rule does not apply to it.
    pub fn is_expired(&self, command: &Command, now: Timestamp) -> bool {
        let floor = self.latest_order().filter(|_| command.op == Op::Apply);
        command.is_expired(floor.map_or(now, |floor| now.max(floor)))
    }

    /// The unfinished commands, by number.
    pub fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.values()
    }

    /// The effects in force.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// One effect in force.
    pub fn held_effect(&self, effect: Uuid) -> Option<&Held> {
        self.held.get(&effect)
    }

    /// Whether this effect was held here once and is lifted.
    pub fn has_lifted(&self, effect: Uuid) -> bool {
        self.lifted.contains(&effect)
    }

    /// Whether every effect that was ever in force for this agent is known. Then an effect that is
    /// not held is lifted, or was never applied.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns another effect in force that does the same to the same target, by the same program
    /// if it is a custom action. Lifting one of them must not lift the other. The second must keep
    /// the undo of the first.
    pub fn twin(&self, effect: Uuid, action: &str, program: Option<&str>, target: &Target) -> Option<&Held> {
        let is_same = |held: &&Held| held.action == action && held.program() == program && held.target == *target;
        self.held.values().find(|held| held.effect != effect && is_same(held))
    }

    /// Effects that were released locally, of which the manager may not know yet.
    pub fn released(&self) -> impl Iterator<Item = &Released> {
        self.released.values()
    }

    /// Approximate size of the live part of the journal, in bytes: what is pending, held, and not
    /// yet reported.
    pub fn weight_bytes(&self) -> usize {
        let command = |pending: &Pending| {
            let alert = pending.command.alert.as_ref().map_or(0, |alert| alert.to_string().len());
            let evidence = pending.evidence.as_ref().map_or(0, |evidence| evidence.to_string().len());
            alert + evidence + pending.command.arguments.iter().map(String::len).sum::<usize>() + ENTRY_BYTES
        };
        let held = |held: &Held| held.arguments.iter().map(String::len).sum::<usize>() + ENTRY_BYTES;
        let result = |result: &CommandResult| {
            let evidence = result.evidence.as_ref().map_or(0, |evidence| evidence.to_string().len());
            evidence + result.output.len() + result.message.len() + ENTRY_BYTES
        };
        self.pending.values().map(command).sum::<usize>()
            + self.held.values().map(held).sum::<usize>()
            + self.outbox.iter().map(result).sum::<usize>()
    }

    /// The effects with a result that the manager has not committed yet.
    pub fn unsettled(&self) -> HashSet<Uuid> {
        if self.outbox.is_empty() {
            return HashSet::new();
        }
        let untold: HashSet<Uuid> = self.outbox.iter().map(|result| result.command_id).collect();
        self.inbox.remembered().filter(|(id, _, _)| untold.contains(id)).map(|(_, _, effect)| effect).collect()
    }

    /// The results that the manager has not committed yet, oldest first.
    pub fn outbox(&self) -> &[CommandResult] {
        &self.outbox
    }
}
