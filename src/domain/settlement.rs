//! Settlement: what the end of a command says about its effect. A command ends with a result of its
//! agent, or the manager gives it up. `store/ledger/settle.rs` reads and writes the rows; the
//! simulation compiles this file too.
//!
//! Results can be late, repeated and out of order. Only the newest command of an effect counts.

use std::collections::HashMap;
use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::command::CommandState;
use super::effect::{Actual, Desired, LastApply};

/// Time limit for a result after the acknowledgement: the longest execution and a lost connection.
pub const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// First delay before a failed revert is retried; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(2);
/// Maximum delay between two reverts.
const RETRY_MAX: Duration = Duration::from_mins(5);
/// Message prefix of an observed command from agents without the `observed` field.
const OBSERVED: &str = "observe: would have run";

/// Delay before the next revert, after `failed` failed ones in a row.
pub fn retry_delay(failed: i64) -> Duration {
    RETRY_MIN.saturating_mul(1 << failed.clamp(0, 10)).min(RETRY_MAX)
}

/// Whether the agent only observed.
pub fn is_observed(result: &CommandResult) -> bool {
    result.observed || result.message.starts_with(OBSERVED)
}

/// One result per command and agent: the first of equal ones, or the last that replaces an earlier
/// one.
pub fn last_results(results: Vec<(Uuid, CommandResult)>) -> Vec<(Uuid, CommandResult)> {
    let mut places = HashMap::with_capacity(results.len());
    let mut kept: Vec<(Uuid, CommandResult)> = Vec::with_capacity(results.len());
    for (agent, result) in results {
        let place = *places.entry((agent, result.command_id)).or_insert(kept.len());
        match kept.get_mut(place) {
            None => kept.push((agent, result)),
            Some((_, earlier)) if CommandState::from(earlier.outcome).can_become(result.outcome.into()) => {
                *earlier = result;
            }
            Some(_) => {}
        }
    }
    kept
}

/// How the manager gives up a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It was not acknowledged in time, or was withdrawn after it was sent.
    Expired,
    /// It was acknowledged and got no result in time.
    TimedOut,
    /// It was withdrawn before it was sent.
    Cancelled,
}

impl GivenUp {
    /// How a command in the state `from` is withdrawn: if it was sent, it may have arrived.
    pub fn withdrawn(from: CommandState) -> Self {
        if from == CommandState::Queued { Self::Cancelled } else { Self::Expired }
    }

    /// The state of the command.
    pub const fn state(self) -> CommandState {
        match self {
            Self::Expired => CommandState::Expired,
            Self::TimedOut => CommandState::TimedOut,
            Self::Cancelled => CommandState::Cancelled,
        }
    }

    const fn last_apply(self) -> LastApply {
        match self {
            Self::Expired => LastApply::Expired,
            Self::TimedOut => LastApply::TimedOut,
            Self::Cancelled => LastApply::Cancelled,
        }
    }
}

/// What the end of a command says about its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectFinding {
    /// An apply was executed: the state of the effect, and the outcome of the apply.
    Applied(Actual, LastApply),
    /// A one-shot command ended. It leaves nothing in force.
    Done,
    /// The agent refused an apply, and changed nothing.
    Refused,
    /// An apply was given up: the assumed state of the effect, and the outcome of the apply.
    Lost(Actual, LastApply),
    /// The effect was lifted.
    Lifted,
    /// A revert had no success. The effect may still be in force.
    RevertFailed,
}

impl EffectFinding {
    /// What an agent's result says.
    pub fn of_result(op: Op, is_one_shot: bool, result: &CommandResult) -> Self {
        match (op, result.outcome, result.verified) {
            (Op::Apply, _, _) if is_one_shot => Self::Done,
            (Op::Apply, Outcome::Succeeded, _) if is_observed(result) => {
                Self::Applied(Actual::Unknown, LastApply::Observed)
            }
            (Op::Apply, Outcome::Succeeded | Outcome::Failed | Outcome::TimedOut, Some(true)) => {
                Self::Applied(Actual::InForce, LastApply::Verified)
            }
            (Op::Apply, Outcome::Succeeded, Some(false)) => Self::Applied(Actual::Drifted, LastApply::Failed),
            // The action cannot be verified; the agent's result is all the evidence.
            (Op::Apply, Outcome::Succeeded, None) => Self::Applied(Actual::Unknown, LastApply::Unverified),
            (Op::Apply, Outcome::Failed, _) => Self::Applied(Actual::Absent, LastApply::Failed),
            (Op::Apply, Outcome::TimedOut, _) => Self::Applied(Actual::Absent, LastApply::TimedOut),
            (Op::Apply, Outcome::Refused, _) => Self::Refused,
            (Op::Revert, Outcome::Succeeded, Some(true) | None) => Self::Lifted,
            (Op::Revert, _, _) => Self::RevertFailed,
        }
    }

    /// What it says that a command in the state `from` is given up. `None` if its effect stays as it
    /// is.
    pub fn of_silence(op: Op, is_one_shot: bool, from: CommandState, given_up: GivenUp) -> Option<Self> {
        match op {
            Op::Apply if is_one_shot => None,
            // A command that was sent may have been executed.
            Op::Apply if from == CommandState::Queued => Some(Self::Lost(Actual::Absent, given_up.last_apply())),
            Op::Apply => Some(Self::Lost(Actual::Drifted, given_up.last_apply())),
            Op::Revert => (given_up == GivenUp::TimedOut).then_some(Self::RevertFailed),
        }
    }

    /// Whether an apply is over and its effect is not in force, so that responses may have failed.
    pub const fn is_in_vain(self) -> bool {
        match self {
            Self::Applied(_, last_apply) | Self::Lost(_, last_apply) => !last_apply.is_in_force(),
            Self::Refused => true,
            Self::Done | Self::Lifted | Self::RevertFailed => false,
        }
    }
}

/// The end of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Number of the command.
    pub seq: i64,
    /// What it says about the effect.
    pub finding: EffectFinding,
    /// The agent's or the manager's words for it.
    pub reason: String,
}

/// What is known of an effect from the ends of its commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectState {
    /// Wanted state.
    pub desired: Desired,
    /// Last reported state.
    pub actual: Actual,
    /// Number of the command that reported it.
    pub actual_seq: i64,
    /// Outcome of the newest apply that is over.
    pub last_apply: Option<LastApply>,
    /// The reason for `last_apply`.
    pub last_reason: String,
    /// When it first came into force since it is wanted.
    pub in_force_at: Option<Timestamp>,
    /// Consecutive failed reverts.
    pub failed_reverts: i64,
    /// When the next revert is sent.
    pub next_revert_at: Option<Timestamp>,
}

impl EffectState {
    /// Takes in the end of a command. `is_revert_under_way` says whether a revert is queued,
    /// delivered or acknowledged. Returns whether the state changed: not if a newer command has
    /// reported already.
    pub fn settle(&mut self, end: &CommandEnd, is_revert_under_way: bool, now: Timestamp) -> bool {
        if self.actual_seq > end.seq {
            return false;
        }
        match end.finding {
            EffectFinding::Applied(actual, last_apply) => {
                self.actual = actual;
                self.apply_ended(last_apply, &end.reason);
                if last_apply.is_in_force() {
                    self.in_force_at.get_or_insert(now);
                }
                self.reported(end.seq);
                // It succeeded after its last hold ended.
                let is_unwanted = self.desired == Desired::Absent && actual != Actual::Absent;
                if is_unwanted && !is_revert_under_way {
                    self.next_revert_at.get_or_insert(now);
                }
            }
            EffectFinding::Done => {
                self.actual = Actual::Absent;
                self.reported(end.seq);
            }
            EffectFinding::Refused => {
                // A refused apply changes nothing: an earlier state stays.
                let is_unverified = self.last_apply == Some(LastApply::Unverified);
                if self.actual != Actual::InForce && !is_unverified {
                    self.last_apply = Some(LastApply::Refused);
                }
                if self.actual == Actual::Unknown && !is_unverified {
                    self.actual = Actual::Absent;
                }
                self.last_reason.clone_from(&end.reason);
                self.reported(end.seq);
            }
            EffectFinding::Lost(actual, last_apply) => {
                self.actual = actual;
                self.apply_ended(last_apply, &end.reason);
            }
            EffectFinding::Lifted => {
                self.actual = Actual::Absent;
                self.next_revert_at = None;
                self.reported(end.seq);
            }
            EffectFinding::RevertFailed => {
                let next = now.plus(retry_delay(self.failed_reverts));
                self.actual = Actual::Drifted;
                self.actual_seq = end.seq;
                self.failed_reverts += 1;
                self.next_revert_at = (self.desired == Desired::Absent).then_some(next);
            }
        }
        true
    }

    fn apply_ended(&mut self, last_apply: LastApply, reason: &str) {
        self.last_apply = Some(last_apply);
        reason.clone_into(&mut self.last_reason);
    }

    /// A report ends the series of failed reverts.
    const fn reported(&mut self, seq: i64) {
        self.actual_seq = seq;
        self.failed_reverts = 0;
    }
}

// With its path: the simulation includes this file by a path too.
#[cfg(test)]
#[path = "settlement/tests.rs"]
mod tests;
