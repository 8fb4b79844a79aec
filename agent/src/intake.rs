//! What arrives from the manager, by stream or by poll: each command is believed or not, and put on disk before it is
//! acknowledged. What is not signed by a pinned key for this agent gets no acknowledgement, no execution and no
//! result; it is only logged.
//!
//! While the disk takes nothing, an apply is answered with a refusal that says so, and a revert is still carried out:
//! neither is acknowledged, because neither would survive a crash.

mod receive;

use std::time::Duration;

use riposte_protocol::command::{Command, Op, Refusal};
use tokio::time::Instant;

pub use self::receive::{EXPIRED, Receipts, refusal};

use self::receive::{receive, receive_unwritten};
use crate::agent::Agent;
use crate::identity::Identity;
use crate::journal::Ledger;

/// At most one line about orders that were not believed in this time: they are an attacker's to send.
const FORGED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Above this, in bytes, what is pending, held and not yet told leaves no room for more: an apply is not taken in, and
/// not acknowledged, so that it stays owed. A revert makes room and is always taken.
const MAX_WEIGHT_BYTES: usize = 32 * 1024 * 1024;

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
            agent.note_what(|ledger| receive_unwritten(ledger, command, now, &unwritable.to_string()));
        }
    }
    receipts
}
