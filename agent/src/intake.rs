//! What arrives from the manager, by stream or by poll. Each command is verified, and put on disk
//! before it is acknowledged. An order that no pinned key signed for this agent is not
//! acknowledged, not executed and has no result. It is logged, and the number of such orders is
//! reported to the manager.
//!
//! While the disk cannot be written, an apply is refused with that reason, and a revert is still
//! executed. Neither is acknowledged, because neither would survive a crash.

mod receive;

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::command::{Command, Op, TYP};
use riposte_protocol::jws::Unverified;
use riposte_protocol::key_statement::{self, MAX_STATEMENTS};
use riposte_protocol::message::RejectedOrders;
use tokio::time::Instant;

pub use self::receive::{DATED_AHEAD, Receipts};

use self::receive::{receive, receive_unwritten};
use crate::agent::Agent;
use crate::identity::{Identity, LearnError};
use crate::journal::JournalState;

/// Shortest time between two log lines about orders that were not verified: an attacker can send
/// any number of them.
const FORGED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Limit of what is pending, held and not yet reported, in bytes. Above it an apply is neither
/// journaled nor acknowledged, so the manager delivers it again. A revert frees room and is always
/// accepted.
const MAX_WEIGHT_BYTES: usize = 32 * 1024 * 1024;

/// Shortest time between two reports of orders that were not verified.
const REJECTED_TOLD_EVERY: Duration = Duration::from_secs(10);
/// Longest key id in a report, in bytes.
const MAX_KID_BYTES: usize = 64;

/// Verifies or refuses what arrives.
#[derive(Debug, Default)]
pub struct Intake {
    forged: u64,
    logged_at: Option<Instant>,
    /// What is to be reported: how many orders by reason, and the key that signed the last of them.
    rejected: BTreeMap<&'static str, (u32, Option<String>)>,
    told_at: Option<Instant>,
}

impl Intake {
    /// Whether one of these is signed by the manager and dated ahead of this host's time.
    pub fn is_dated_ahead(agent: &Agent, identity: &Identity, tokens: &[String]) -> bool {
        let now = agent.clock.now();
        let opened =
            tokens.iter().filter_map(|token| Command::open(token, identity.pinned(), identity.agent_id()).ok());
        opened.into_iter().any(|command| command.is_dated_ahead(now))
    }

    /// Journals signed commands in their order, as one durable batch, and wakes the lanes.
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

    /// Takes in statements about the manager's keys, in their order. What is not believed is reported
    /// as orders that were not verified are. Returns whether there is an answer for the manager: the
    /// number of the last statement that is durable.
    pub fn learn(&mut self, identity: &mut Identity, statements: &[String]) -> bool {
        let mut is_known = false;
        for statement in statements.iter().take(MAX_STATEMENTS) {
            match identity.learn(statement) {
                Ok(is_news) => {
                    is_known = true;
                    if is_news {
                        let kids = identity.pinned().iter().map(|(kid, _)| kid.as_str()).collect::<Vec<_>>().join(", ");
                        let number = identity.enrolment.key_number;
                        tracing::info!(number, "the manager's keys have changed: orders of {kids} are obeyed");
                    }
                }
                Err(LearnError::Statement(error)) => {
                    let kid = Unverified::parse(statement, key_statement::TYP, false).ok();
                    self.reject(error.word(), 1, kid.and_then(|token| token.header.kid));
                    self.report_forged(&error);
                }
                Err(error) => {
                    let reason = crate::telemetry::chain(&error);
                    tracing::error!(reason, "the manager's keys have changed, and this agent keeps the old ones");
                    break;
                }
            }
        }
        is_known
    }

    fn reject(&mut self, reason: &'static str, count: u32, kid: Option<String>) {
        let (total, last) = self.rejected.entry(reason).or_default();
        *total = total.saturating_add(count);
        *last = kid.filter(|kid| kid.len() <= MAX_KID_BYTES).or(last.take());
    }

    /// The report of orders that were not verified, if there are any and one is due. If the report
    /// is lost, the next such order causes a new one.
    pub fn take_rejected(&mut self) -> Vec<RejectedOrders> {
        if self.rejected.is_empty() || self.told_at.is_some_and(|at| at.elapsed() < REJECTED_TOLD_EVERY) {
            return Vec::new();
        }
        self.told_at = Some(Instant::now());
        let rejected = std::mem::take(&mut self.rejected).into_iter();
        rejected.map(|(reason, (count, kid))| RejectedOrders { reason: reason.to_owned(), count, kid }).collect()
    }

    fn report_forged(&mut self, refusal: &dyn std::error::Error) {
        self.forged += 1;
        if self.logged_at.is_none_or(|at| at.elapsed() >= FORGED_LOG_EVERY) {
            tracing::warn!(%refusal, count = self.forged, "an invalid order was ignored");
            self.forged = 0;
            self.logged_at = Some(Instant::now());
        }
    }
}

/// Journals verified commands.
pub(crate) fn take_in(agent: &Agent, commands: Vec<Command>) -> Receipts {
    let now = agent.clock.now();
    let mut receipts = Receipts::default();
    let is_full = agent.read(JournalState::weight_bytes) > MAX_WEIGHT_BYTES;
    let commands: Vec<Command> = commands.into_iter().filter(|command| !is_full || command.op == Op::Revert).collect();
    if is_full {
        tracing::error!(
            "the journal is full of results that the manager has not committed: no new command is accepted"
        );
    }
    let written =
        agent.write(|journal| commands.iter().for_each(|command| receive(journal, command, now, &mut receipts)));
    if let Err(unwritable) = written {
        receipts = Receipts::default();
        for command in commands {
            agent.note_what(|state| receive_unwritten(state, command, now, &unwritable.to_string()));
        }
    }
    agent.learn_time_of_orders();
    receipts
}
