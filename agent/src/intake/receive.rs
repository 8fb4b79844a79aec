//! Turns one verified command into journal records: it is new, a duplicate, overtaken or expired.
//! The result depends only on the journal and the time, so the simulation runs the same code.

use std::collections::HashSet;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::Receipt;
use riposte_protocol::time::{Timestamp, difference};
use uuid::Uuid;

use crate::journal::{Journal, JournalState, Record};
use crate::refusal::{EXPIRED, refusal};

/// The report to the manager about commands that arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// The commands that are in the journal, from now or from before.
    pub acks: Vec<Uuid>,
    /// Those of them that had arrived before: their results may have been lost on the network.
    pub duplicates: HashSet<Uuid>,
    /// How many of them came too late to be executed.
    pub expired: u32,
    /// How many of them are dated ahead.
    pub dated_ahead: u32,
}

/// Adds a command to the journal's batch, if it is new, and to the receipts. The receipts are valid
/// once the batch is durable.
pub(crate) fn receive(journal: &mut Journal, command: &Command, now: Timestamp, receipts: &mut Receipts) {
    let (id, op) = (command.jti, command.op);
    receipts.acks.push(id);
    let receipt = journal.state().inbox().receive(id, command.seq, command.effect);
    if receipt == Receipt::New && command.is_dated_ahead(now) {
        receipts.dated_ahead += 1;
        // Not journaled as other orders are: its date must not become the time that later orders
        // are judged by.
        let message = dated_ahead(command, now);
        tracing::warn!(command = %id, op = op.as_str(), reason = message, "command refused");
        journal.add(Record::Seen { id, seq: command.seq, effect: command.effect });
        journal.add(Record::Finished { result: Box::new(refusal(id, message, now)) });
        return;
    }
    let refused = match receipt {
        Receipt::Duplicate => {
            receipts.duplicates.insert(id);
            return;
        }
        Receipt::Overtaken => Some("a newer command of the same effect was received before this one"),
        Receipt::TooLate => Some("too many newer commands were received before this one"),
        Receipt::New => journal.state().is_expired(command, now).then_some(EXPIRED),
    };
    receipts.expired += u32::from(refused == Some(EXPIRED));
    tracing::debug!(command = %id, op = op.as_str(), action = command.action, target = %command.target, "command received");
    journal.add(Record::Received { command: Box::new(command.clone()) });
    if let Some(message) = refused {
        tracing::warn!(command = %id, op = op.as_str(), reason = message, "command refused");
        journal.add(Record::Finished { result: Box::new(refusal(id, message, now)) });
    }
}

/// The records of a command while the disk cannot be written: an apply is refused for `unwritable`,
/// a revert is executed.
pub(crate) fn receive_unwritten(
    state: &JournalState,
    command: Command,
    now: Timestamp,
    unwritable: &str,
) -> Vec<Record> {
    if state.inbox().receive(command.jti, command.seq, command.effect) != Receipt::New {
        return Vec::new();
    }
    let (id, op) = (command.jti, command.op);
    if command.is_dated_ahead(now) {
        let message = dated_ahead(&command, now);
        tracing::warn!(command = %id, op = op.as_str(), reason = message, "command refused");
        let seen = Record::Seen { id, seq: command.seq, effect: command.effect };
        return vec![seen, Record::Finished { result: Box::new(refusal(id, message, now)) }];
    }
    let mut records = vec![Record::Received { command: Box::new(command) }];
    if op == Op::Apply {
        tracing::warn!(command = %id, op = op.as_str(), reason = unwritable, "command refused");
        records.push(Record::Finished { result: Box::new(refusal(id, unwritable, now)) });
    }
    records
}

/// Start of the refusal of a command that is dated ahead.
pub const DATED_AHEAD: &str = "dated ahead of this host's time";

/// The refusal of a command that is dated ahead: the difference of the clocks, and how to fix it.
fn dated_ahead(command: &Command, now: Timestamp) -> String {
    let issued = Timestamp::from_millis(command.iat.saturating_mul(1000));
    let ahead = difference(issued.as_millis() - now.as_millis());
    format!(
        "{DATED_AHEAD}: issued at {issued}, {ahead} {now}; set the clock that is wrong, this host's or the manager's"
    )
}
