//! `src/store/ledger/settle.rs`: the states of a command after it was queued: delivered,
//! acknowledged, answered, or abandoned.

use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Store;
use crate::command::CommandState;
use crate::defect::Defect;
use crate::effect::{Actual, Desired};

/// Time limit for the result of an acknowledged command.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// First pause before a failed revert is retried; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest pause between two reverts.
const RETRY_MAX: Duration = Duration::from_mins(5);

#[derive(PartialEq)]
enum How {
    Apply,
    IfUnknown,
    Revert,
}

impl Store {
    /// Commands were handed to an agent's connection.
    pub fn delivered(&mut self, sent: &[usize], lease_until: Timestamp) {
        for command in sent {
            if matches!(self.commands[*command].state, CommandState::Queued | CommandState::Delivered) {
                self.commands[*command].lease_until = Some(lease_until);
                self.set_state(*command, CommandState::Delivered);
            }
        }
    }

    /// An agent acknowledges commands. Returns those that were not acknowledged before.
    pub fn acknowledge(&mut self, agent: usize, acks: &[Uuid], now: Timestamp) -> Vec<usize> {
        let own = acks.iter().filter_map(|id| self.command_of(*id)).filter(|command| {
            let row = &self.commands[*command];
            row.agent == agent && matches!(row.state, CommandState::Queued | CommandState::Delivered)
        });
        let own: Vec<usize> = own.collect();
        for command in &own {
            let row = &mut self.commands[*command];
            (row.acknowledged_at, row.lease_until) = (Some(now), None);
            self.set_state(*command, CommandState::Acknowledged);
        }
        own
    }

    /// An agent reports results. Repetitions, and ids of other agents, change nothing.
    pub fn settle(&mut self, agent: usize, results: &[CommandResult], now: Timestamp) {
        for result in results {
            let Some(command) = self.command_of(result.command_id) else { continue };
            let next = CommandState::from(result.outcome);
            if self.commands[command].agent != agent || !self.commands[command].state.can_become(next) {
                continue;
            }
            self.set_state(command, next);
            self.results.insert(command, result.clone());
            match News::of(self.commands[command].op, result) {
                Some((actual, how)) => self.set_actual(command, actual, &how, now),
                None => self.revert_failed(command, now),
            }
        }
    }

    fn set_actual(&mut self, command: usize, actual: Actual, how: &How, now: Timestamp) {
        let (seq, effect) = (self.commands[command].seq, self.commands[command].effect);
        let is_lifted_soon = self.effects[effect].under_way.iter().any(|other| self.commands[*other].op == Op::Revert);
        let row = &mut self.effects[effect];
        if row.actual_seq > seq {
            return;
        }
        if *how != How::IfUnknown || row.actual == Actual::Unknown {
            row.actual = actual;
        }
        (row.actual_seq, row.failed_reverts) = (seq, 0);
        if *how == How::Revert {
            self.set_next_revert(effect, None);
        } else if row.desired == Desired::Absent
            && actual != Actual::Absent
            && row.next_revert_at.is_none()
            && !is_lifted_soon
        {
            self.set_next_revert(effect, Some(now));
        }
    }

    fn revert_failed(&mut self, command: usize, now: Timestamp) {
        let (seq, effect) = (self.commands[command].seq, self.commands[command].effect);
        let row = &mut self.effects[effect];
        let wait = RETRY_MIN.saturating_mul(1 << row.failed_reverts.min(10)).min(RETRY_MAX);
        if row.actual_seq <= seq {
            (row.actual, row.actual_seq) = (Actual::Drifted, seq);
            row.failed_reverts += 1;
            let again = row.desired == Desired::Absent;
            self.set_next_revert(effect, again.then(|| now.plus(wait)));
        }
    }

    /// Expires commands that were not acknowledged in time.
    pub fn expire(&mut self, now: Timestamp) {
        let is_overdue = |command: &usize| {
            let row = &self.commands[*command];
            row.expires_at.is_some_and(|at| at <= now) && row.lease_until.is_none_or(|at| at <= now)
        };
        let overdue: Vec<usize> = self.owed.iter().flat_map(|owed| owed.values().copied()).filter(is_overdue).collect();
        for command in overdue {
            let was_sent = self.commands[command].state == CommandState::Delivered;
            self.set_state(command, CommandState::Expired);
            self.lose(command, if was_sent { Actual::Drifted } else { Actual::Absent });
        }
    }

    /// Abandons commands that were acknowledged and never answered.
    pub fn time_out(&mut self, now: Timestamp) {
        if self.has(Defect::SilenceWaitedForEver) {
            return;
        }
        let since = now.minus(ANSWER_TIMEOUT);
        let is_silent = |command: &usize| self.commands[*command].acknowledged_at.is_some_and(|at| at <= since);
        let silent: Vec<usize> = self.acknowledged.iter().copied().filter(is_silent).collect();
        for command in silent {
            self.set_state(command, CommandState::TimedOut);
            match self.commands[command].op {
                Op::Revert => self.revert_failed(command, now),
                Op::Apply => self.lose(command, Actual::Drifted),
            }
        }
    }

    /// An apply had no effect, so the next response that wants the effect must send one again.
    fn lose(&mut self, command: usize, actual: Actual) {
        let row = &self.commands[command];
        let effect = &mut self.effects[row.effect];
        if row.op == Op::Apply && effect.actual_seq <= row.seq {
            effect.actual = actual;
        }
    }

    /// Cancels an apply that was not sent yet; returns whether it could.
    pub fn cancel(&mut self, command: usize) -> bool {
        let row = &self.commands[command];
        if row.state != CommandState::Queued || row.op != Op::Apply {
            return false;
        }
        self.set_state(command, CommandState::Cancelled);
        self.lose(command, Actual::Absent);
        true
    }
}

/// The change that a result makes to its effect.
struct News;

impl News {
    fn of(op: Op, result: &CommandResult) -> Option<(Actual, How)> {
        match (op, result.outcome, result.verified) {
            (Op::Apply, Outcome::Succeeded | Outcome::Failed | Outcome::TimedOut, Some(true)) => {
                Some((Actual::InForce, How::Apply))
            }
            (Op::Apply, Outcome::Succeeded, Some(false)) => Some((Actual::Drifted, How::Apply)),
            (Op::Apply, Outcome::Succeeded, None) => Some((Actual::Unknown, How::Apply)),
            (Op::Apply, Outcome::Failed | Outcome::TimedOut, _) => Some((Actual::Absent, How::Apply)),
            (Op::Apply, Outcome::Refused, _) => Some((Actual::Absent, How::IfUnknown)),
            (Op::Revert, Outcome::Succeeded, Some(true) | None) => Some((Actual::Absent, How::Revert)),
            (Op::Revert, _, _) => None,
        }
    }
}
