//! What arrives from the manager, by stream or by poll: each command is believed or not, and put on disk before it is
//! acknowledged. What is not signed by a pinned key for this agent gets no acknowledgement, no execution and no
//! result; it is only logged.
//!
//! While the disk takes nothing, an apply is answered with a refusal that says so, and a revert is still carried out:
//! neither is acknowledged, because neither would survive a crash.

use std::collections::HashSet;
use std::time::Duration;

use riposte_protocol::command::{Command, Op, Refusal};
use riposte_protocol::delivery::Receipt;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::agent::{Agent, Unwritable};
use crate::identity::Identity;
use crate::journal::{Book, Ledger, Record};

/// At most one line about orders that were not believed in this time: they are an attacker's to send.
const FORGED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Above this, in bytes, what is pending, held and not yet told leaves no room for more: an apply is not taken in, and
/// not acknowledged, so that it stays owed. A revert makes room and is always taken.
const MAX_WEIGHT_BYTES: usize = 32 * 1024 * 1024;

/// What to tell the manager about the commands that arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// The commands that are in the journal now, or were before.
    pub acks: Vec<Uuid>,
    /// Those of them that had arrived before: their results may have been lost on the way.
    pub duplicates: HashSet<Uuid>,
}

/// Believes or refuses what arrives.
#[derive(Debug, Default)]
pub struct Intake {
    forged: u64,
    logged_at: Option<Instant>,
}

impl Intake {
    /// Takes signed commands in, in their order, as one durable batch, and wakes the lanes.
    pub fn take(&mut self, agent: &Agent, identity: &Identity, tokens: &[String]) -> Receipts {
        let mut commands = Vec::with_capacity(tokens.len());
        for token in tokens {
            match Command::open(token, identity.pinned(), identity.agent_id()) {
                Ok(command) => commands.push(command),
                Err(refusal) => self.report_forged(&refusal),
            }
        }
        let receipts = take_in(agent, commands);
        agent.wake_lanes();
        agent.outbox.notify_one();
        receipts
    }

    fn report_forged(&mut self, refusal: &Refusal) {
        self.forged += 1;
        if self.logged_at.is_none_or(|at| at.elapsed() >= FORGED_LOG_EVERY) {
            tracing::warn!(%refusal, count = self.forged, "an order that is not to be believed was ignored");
            self.forged = 0;
            self.logged_at = Some(Instant::now());
        }
    }
}

/// Takes believed commands in.
pub(crate) fn take_in(agent: &Agent, commands: Vec<Command>) -> Receipts {
    let now = agent.clock.now();
    let mut receipts = Receipts::default();
    let is_full = agent.read(Ledger::weight_bytes) > MAX_WEIGHT_BYTES;
    let commands: Vec<Command> = commands.into_iter().filter(|command| !is_full || command.op == Op::Revert).collect();
    if is_full {
        tracing::error!("the journal is full of results that the manager does not take: no new command is taken in");
    }
    let written = agent.write(|book| commands.iter().for_each(|command| receive(book, command, now, &mut receipts)));
    if let Err(unwritable) = written {
        receipts = Receipts::default();
        for command in commands {
            agent.note_what(|ledger| receive_unwritten(ledger, command, now, &unwritable));
        }
    }
    receipts
}

fn receive(book: &mut Book, command: &Command, now: Timestamp, receipts: &mut Receipts) {
    let (id, op) = (command.jti, command.op);
    receipts.acks.push(id);
    let refused = match book.ledger().inbox().receive(id, command.seq, command.effect) {
        Receipt::Duplicate => {
            receipts.duplicates.insert(id);
            return;
        }
        Receipt::Overtaken => Some("a newer command of the same effect was received before this one"),
        Receipt::New => command.is_expired(now).then_some(EXPIRED),
    };
    tracing::debug!(command = %id, op = op.as_str(), action = command.action, target = %command.target, "command received");
    book.add(Record::Received { command: Box::new(command.clone()) });
    if let Some(message) = refused {
        tracing::warn!(command = %id, op = op.as_str(), reason = message, "command refused");
        book.add(Record::Finished { result: Box::new(refusal(id, message, now)) });
    }
}

fn receive_unwritten(ledger: &Ledger, command: Command, now: Timestamp, unwritable: &Unwritable) -> Vec<Record> {
    if ledger.inbox().receive(command.jti, command.seq, command.effect) != Receipt::New {
        return Vec::new();
    }
    let (id, op) = (command.jti, command.op);
    let mut records = vec![Record::Received { command: Box::new(command) }];
    if op == Op::Apply {
        tracing::warn!(command = %id, op = op.as_str(), reason = %unwritable, "command refused");
        records.push(Record::Finished { result: Box::new(refusal(id, unwritable.to_string(), now)) });
    }
    records
}

/// Why a command that came too late is refused.
pub const EXPIRED: &str = "expired before it could be executed";

/// The result of a command that is not tried.
pub fn refusal(command_id: Uuid, message: impl Into<String>, now: Timestamp) -> CommandResult {
    CommandResult {
        command_id,
        outcome: Outcome::Refused,
        exit_code: None,
        output: String::new(),
        verified: None,
        message: message.into(),
        started_at: now,
        finished_at: now,
    }
}
