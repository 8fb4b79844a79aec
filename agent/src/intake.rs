//! What arrives from the manager, by stream or by poll: each command is believed or not, and put on disk before it is
//! acknowledged. What is not signed by a pinned key for this agent gets no acknowledgement, no execution and no
//! result; it is only logged.

use std::collections::HashSet;
use std::time::Duration;

use riposte_protocol::command::{Command, Refusal};
use riposte_protocol::delivery::Receipt;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::agent::{Agent, Unwritable};
use crate::identity::Identity;
use crate::journal::{Book, Record};

/// At most one line about orders that were not believed in this time: they are an attacker's to send.
const FORGED_LOG_EVERY: Duration = Duration::from_secs(10);

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
    ///
    /// # Errors
    /// When they are not on disk; nothing of this may be acknowledged then.
    pub fn take(&mut self, agent: &Agent, identity: &Identity, tokens: &[String]) -> Result<Receipts, Unwritable> {
        let mut commands = Vec::with_capacity(tokens.len());
        for token in tokens {
            match Command::open(token, identity.pinned(), identity.agent_id()) {
                Ok(command) => commands.push(command),
                Err(refusal) => self.report_forged(&refusal),
            }
        }
        let now = agent.clock.now();
        let mut receipts = Receipts::default();
        agent.write(|book| commands.into_iter().for_each(|command| receive(book, command, now, &mut receipts)))?;
        agent.wake_lanes();
        agent.outbox.notify_one();
        Ok(receipts)
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

fn receive(book: &mut Book, command: Command, now: Timestamp, receipts: &mut Receipts) {
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
    book.add(Record::Received { command: Box::new(command) });
    if let Some(message) = refused {
        tracing::warn!(command = %id, op = op.as_str(), reason = message, "command refused");
        book.add(Record::Finished { result: Box::new(refusal(id, message, now)) });
    }
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
