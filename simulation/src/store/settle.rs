//! `src/store/ledger/settle.rs`: the states of a command after it was queued: delivered,
//! acknowledged, answered, or abandoned.

use riposte_protocol::command::Op;
use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Store;
use crate::command::CommandState;
use crate::defect::Defect;
use crate::settlement::{ANSWER_TIMEOUT, CommandEnd, EffectFinding, GivenUp};

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
            let finding = EffectFinding::of_result(self.commands[command].op, false, result);
            self.settle_effect(command, finding, &result.message, now);
        }
    }

    /// What the end of a command says about its effect (`settle/effects.rs`).
    fn settle_effect(&mut self, command: usize, finding: EffectFinding, reason: &str, now: Timestamp) {
        let row = &self.commands[command];
        let (effect, seq) = (row.effect, i64::try_from(row.seq).unwrap_or(i64::MAX));
        let end = CommandEnd { seq, finding, reason: reason.to_owned() };
        let is_revert_under_way =
            self.effects[effect].under_way.iter().any(|other| self.commands[*other].op == Op::Revert);
        let state = &mut self.effects[effect].state;
        state.settle(&end, is_revert_under_way, now);
        let next = state.next_revert_at;
        self.set_next_revert(effect, next);
    }

    /// A command ends without a result.
    fn give_up(&mut self, command: usize, given_up: GivenUp, now: Timestamp) {
        let (op, state) = (self.commands[command].op, self.commands[command].state);
        self.set_state(command, given_up.state());
        if let Some(finding) = EffectFinding::of_silence(op, false, state, given_up) {
            self.settle_effect(command, finding, "", now);
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
            self.give_up(command, GivenUp::Expired, now);
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
            self.give_up(command, GivenUp::TimedOut, now);
        }
    }

    /// Withdraws commands that must not be delivered (`settle::withdraw`).
    pub fn withdraw(&mut self, commands: &[usize], now: Timestamp) {
        for command in commands {
            let state = self.commands[*command].state;
            if matches!(state, CommandState::Queued | CommandState::Delivered) {
                self.give_up(*command, GivenUp::withdrawn(state), now);
            }
        }
    }

    /// Cancels an apply that was not sent yet; returns whether it could.
    pub fn cancel(&mut self, command: usize, now: Timestamp) -> bool {
        let row = &self.commands[command];
        if row.state != CommandState::Queued || row.op != Op::Apply {
            return false;
        }
        self.give_up(command, GivenUp::Cancelled, now);
        true
    }
}
