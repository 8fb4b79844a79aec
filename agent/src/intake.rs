//! What arrives from the manager, by stream or by poll: each command is believed or not, and put on disk before it is
//! acknowledged. What is not signed by a pinned key for this agent gets no acknowledgement, no execution and no
//! result; it is logged, and the manager is told how many such orders there were.
//!
//! While the disk takes nothing, an apply is answered with a refusal that says so, and a revert is still carried out:
//! neither is acknowledged, because neither would survive a crash.

mod receive;

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::command::{Command, Op, Refusal, TYP};
use riposte_protocol::jws::Unverified;
use riposte_protocol::message::RejectedOrders;
use tokio::time::Instant;

pub use self::receive::{DATED_AHEAD, EXPIRED, Receipts, refusal};

use self::receive::{receive, receive_unwritten};
use crate::agent::Agent;
use crate::identity::Identity;
use crate::journal::Ledger;

/// At most one line about orders that were not believed in this time: they are an attacker's to send.
const FORGED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Above this, in bytes, what is pending, held and not yet told leaves no room for more: an apply is not taken in, and
/// not acknowledged, so that it stays owed. A revert makes room and is always taken.
const MAX_WEIGHT_BYTES: usize = 32 * 1024 * 1024;

/// The manager is told of orders that were not believed at most once in this time.
const REJECTED_TOLD_EVERY: Duration = Duration::from_secs(10);
/// The longest key id that is told, in bytes.
const MAX_KID_BYTES: usize = 64;

/// Believes or refuses what arrives.
#[derive(Debug, Default)]
pub struct Intake {
    forged: u64,
    logged_at: Option<Instant>,
    /// What the manager is still to be told of: how many by reason, and the key that signed the last of them.
    rejected: BTreeMap<&'static str, (u32, Option<String>)>,
    told_at: Option<Instant>,
}

impl Intake {
    /// Whether one of these is signed by the manager and dated ahead of the time that this host goes by.
    pub fn is_dated_ahead(agent: &Agent, identity: &Identity, tokens: &[String]) -> bool {
        let now = agent.clock.now();
        let opened =
            tokens.iter().filter_map(|token| Command::open(token, identity.pinned(), identity.agent_id()).ok());
        opened.into_iter().any(|command| command.is_dated_ahead(now))
    }

    /// Takes signed commands in, in their order, as one durable batch, and wakes the lanes.
    pub fn take(&mut self, agent: &Agent, identity: &Identity, tokens: &[String]) -> Receipts {
        let mut commands = Vec::with_capacity(tokens.len());
        for token in tokens {
            match Command::open(token, identity.pinned(), identity.agent_id()) {
                Ok(command) => commands.push(command),
                Err(refusal) => {
                    let kid = Unverified::parse(token, TYP, false).ok().and_then(|token| token.header.kid);
                    self.reject(refusal.word(), 1, kid);
                    self.report_forged(&refusal);
                }
            }
        }
        let receipts = take_in(agent, commands);
        if receipts.expired > 0 {
            self.reject("expired", receipts.expired, None);
        }
        if receipts.dated_ahead > 0 {
            self.reject("future", receipts.dated_ahead, None);
        }
        agent.wake_lanes();
        agent.outbox.notify_one();
        receipts
    }

    fn reject(&mut self, reason: &'static str, count: u32, kid: Option<String>) {
        let (total, last) = self.rejected.entry(reason).or_default();
        *total = total.saturating_add(count);
        *last = kid.filter(|kid| kid.len() <= MAX_KID_BYTES).or(last.take());
    }

    /// What to tell the manager of orders that were not believed, if there are any and it is time. What is taken and gets lost is
    /// told again by the next order: it stays owed.
    pub fn take_rejected(&mut self) -> Vec<RejectedOrders> {
        if self.rejected.is_empty() || self.told_at.is_some_and(|at| at.elapsed() < REJECTED_TOLD_EVERY) {
            return Vec::new();
        }
        self.told_at = Some(Instant::now());
        let rejected = std::mem::take(&mut self.rejected).into_iter();
        rejected.map(|(reason, (count, kid))| RejectedOrders { reason: reason.to_owned(), count, kid }).collect()
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
    agent.learn_time_of_orders();
    receipts
}
