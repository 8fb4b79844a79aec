//! What the agent knows, rebuilt from the journal: what it received, what is still to be done, what it holds and
//! what it still has to tell. It changes by records alone, live and at start, so both are the same code.

use std::collections::{BTreeMap, HashMap};

use riposte_protocol::command::Command;
use riposte_protocol::delivery::{Inbox, REMEMBERED};
use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::record::{Held, Record};

/// A command that is received and not finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The command.
    pub command: Command,
    /// When its execution began, if it did.
    pub started: Option<Timestamp>,
}

/// The state that follows from the records.
#[derive(Debug, Default)]
pub struct Ledger {
    inbox: Inbox,
    /// The effect of each remembered command: the inbox does not give it back, and compaction needs it.
    effect_of: HashMap<Uuid, Uuid>,
    /// By number, and by id for a manager that would use one twice.
    pending: BTreeMap<(u64, Uuid), Pending>,
    held: BTreeMap<Uuid, Held>,
    outbox: Vec<CommandResult>,
}

impl Ledger {
    /// Takes note of one record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Inbox { cursor, forgotten_up_to } => self.inbox = Inbox::restore(cursor, forgotten_up_to),
            Record::Seen { id, seq, effect } => self.remember(id, seq, effect),
            Record::Pending { command, started } => {
                self.pending.insert((command.seq, command.jti), Pending { command: *command, started });
            }
            Record::Received { command } => {
                self.remember(command.jti, command.seq, command.effect);
                self.pending.insert((command.seq, command.jti), Pending { command: *command, started: None });
            }
            Record::Started { id, at } => {
                if let Some(pending) = self.pending.values_mut().find(|pending| pending.command.jti == id) {
                    pending.started = Some(at);
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
                self.held.insert(held.effect, *held);
            }
            Record::Lifted { effect } => {
                self.held.remove(&effect);
            }
        }
    }

    /// The fewest records that lead to this state.
    pub fn records(&self) -> Vec<Record> {
        let (cursor, forgotten_up_to) = (self.inbox.cursor(), self.inbox.forgotten_up_to());
        let mut records = vec![Record::Inbox { cursor, forgotten_up_to }];
        records.extend(self.inbox.remembered().filter_map(|(id, seq)| {
            let effect = *self.effect_of.get(&id)?;
            Some(Record::Seen { id, seq, effect })
        }));
        records.extend(
            self.pending.values().map(|pending| Record::Pending {
                command: Box::new(pending.command.clone()),
                started: pending.started,
            }),
        );
        records.extend(self.held.values().map(|held| Record::Held { held: Box::new(held.clone()) }));
        records.extend(self.outbox.iter().map(|result| Record::Finished { result: Box::new(result.clone()) }));
        records
    }

    /// What was received before.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
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

    /// Another effect in force that does the same to the same target. Lifting one of them must not lift the other,
    /// and what was there before the first must not be forgotten by the second.
    pub fn twin(&self, effect: Uuid, action: &str, target: &riposte_protocol::target::Target) -> Option<&Held> {
        self.held.values().find(|held| held.effect != effect && held.action == action && held.target == *target)
    }

    /// The results that the manager has not committed yet, oldest first.
    pub fn outbox(&self) -> &[CommandResult] {
        &self.outbox
    }

    fn remember(&mut self, id: Uuid, seq: u64, effect: Uuid) {
        self.inbox.journaled(id, seq, effect);
        self.effect_of.insert(id, effect);
        if self.effect_of.len() > 2 * REMEMBERED {
            let remembered: std::collections::HashSet<Uuid> = self.inbox.remembered().map(|(id, _)| id).collect();
            self.effect_of.retain(|id, _| remembered.contains(id));
        }
    }
}
