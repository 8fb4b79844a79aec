//! An agent's lane, modelled after `executor/{schedule, execute, lift, converge}.rs`: the same
//! functions between the same records. It is cut where the original waits for a program, so that
//! the agent can crash there.

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::defect::Defect;
use crate::host::{Execution, Stop};
use crate::journal::{Failing, Held, Pending, Record};
use crate::plan::{MINUTE, Millis, SECOND};
use crate::refusal::{EXPIRED, refusal};
use crate::turn;
use crate::world::{Event, World};

/// How often the clocks are read while an effect with an end is held.
const LOOK_EVERY: Millis = 30 * SECOND;
/// Longest pause between two attempts to revert the same effect.
const MAX_RETRY: Millis = MINUTE;
/// Interval between two rounds of looks.
const VERIFY_EVERY: Millis = 5 * MINUTE;
/// An effect this close to its end is not looked at, in milliseconds.
const TOO_LATE: u128 = 2000;

enum Next {
    Undo(Held),
    Command(Pending),
    Look(Uuid),
    Wait(Millis),
}

const FAILED: &str = "the action failed";

impl World {
    /// Makes the lane look for its next step, after `pause`.
    pub(crate) fn wake_lanes(&mut self, agent: usize, pause: Millis) {
        let at = self.now + pause;
        let host = &mut self.hosts[agent];
        if at < host.lane_at {
            host.lane_at = at;
            let life = host.life;
            self.at(at, Event::Lane { agent, life });
        }
    }

    /// One turn of `run_lane`.
    pub(crate) fn lane(&mut self, agent: usize) {
        if self.hosts[agent].lane_at > self.now {
            return;
        }
        self.hosts[agent].lane_at = Millis::MAX;
        if self.hosts[agent].executing.is_some() {
            return;
        }
        match self.next(agent) {
            Next::Undo(held) => self.go_on(agent, Execution::Undo(held)),
            Next::Command(Pending { command, started, .. }) => {
                match started.filter(|_| !self.has(Defect::BegunAgainAfterCrash)) {
                    None => self.begin(agent, command),
                    Some(started_at) => self.resume(agent, command, started_at),
                }
                self.wake_lanes(agent, 0);
            }
            Next::Look(effect) => {
                self.look(agent, effect);
                self.wake_lanes(agent, 0);
            }
            Next::Wait(pause) if pause < Millis::MAX => self.wake_lanes(agent, pause.max(1)),
            Next::Wait(_) => {}
        }
    }

    /// `schedule::next`.
    fn next(&mut self, agent: usize) -> Next {
        let (now, has_timer) = (self.now, !self.has(Defect::NoTimerOnAgent));
        let reverts_first = self.has(Defect::RevertOvertakesApply);
        let host = &mut self.hosts[agent];
        let moment = host.moment(now);
        let Some(journal) = &host.journal else { return Next::Wait(Millis::MAX) };
        let first = if reverts_first {
            let revert = journal.state().pending().find(|pending| pending.command.op == Op::Revert);
            revert.or_else(|| journal.state().pending().next())
        } else {
            turn::first(journal.state(), |_| true)
        };
        let mut pause = Millis::MAX;
        for held in journal.state().held().filter(|_| has_timer) {
            let Some(remaining) = held.remaining(&moment) else { continue };
            let retry = host.retries.get(&held.effect).map_or(0, |retry| retry.at.saturating_sub(now));
            let wait = Millis::try_from(remaining.as_millis()).unwrap_or(Millis::MAX).max(retry);
            if wait == 0 {
                return Next::Undo(held.clone());
            }
            pause = pause.min(LOOK_EVERY).min(wait);
        }
        if let Some(pending) = first {
            return Next::Command(pending.clone());
        }
        if let Some(effect) = host.todo.pop() {
            return Next::Look(effect);
        }
        if journal.state().held().next().is_none() {
            host.round_at = None;
            return Next::Wait(pause);
        }
        match host.round_at {
            Some(at) if at <= now => {
                host.todo = journal.state().held().map(|held| held.effect).collect();
                host.round_at = Some(now + host.random.within(VERIFY_EVERY * 3 / 4..VERIFY_EVERY));
                host.todo.pop().map_or(Next::Wait(pause), Next::Look)
            }
            Some(at) => Next::Wait(pause.min(at - now)),
            None => {
                host.round_at = Some(now + VERIFY_EVERY);
                Next::Wait(pause.min(VERIFY_EVERY))
            }
        }
    }

    fn go_on(&mut self, agent: usize, execution: Execution) {
        let host = &mut self.hosts[agent];
        host.executing = Some(execution);
        let (life, pause) = (host.life, host.random.within(1..30));
        self.after(pause, Event::Work { agent, life });
    }

    /// `execute::command`.
    fn begin(&mut self, agent: usize, command: Command) {
        let started_at = self.hosts[agent].wall(self.now);
        let journal = self.hosts[agent].journal.as_ref();
        let is_expired = journal.is_some_and(|journal| journal.state().is_expired(&command, started_at));
        if is_expired && !self.has(Defect::ExpiryIgnored) {
            return self.refuse(agent, &command, EXPIRED);
        }
        let held = self.held(agent, command.effect);
        let is_over = command.until.is_some_and(|until| until <= started_at);
        let began = Record::Started { id: command.jti, at: started_at, evidence: None };
        match (command.op, held) {
            (Op::Apply, None) if is_over => self.refuse(agent, &command, "its end had passed"),
            (Op::Apply, held) if !is_over => {
                let is_refresh = held.is_some();
                let held = self.new_held(agent, &command);
                let records = [Record::Held { held: Box::new(held.clone()) }, began];
                match self.write(agent, |journal| records.into_iter().for_each(|record| journal.add(record))) {
                    Ok(()) => {
                        self.checker.begins(agent, &command, started_at, self.now, &self.store);
                        self.go_on(agent, Execution::Apply { command, held, is_refresh, started_at });
                    }
                    Err(Stop::Unwritable) => self.refuse(agent, &command, "the journal cannot be written"),
                    Err(Stop::Dead) => {}
                }
            }
            (_, held) => {
                self.checker.begins(agent, &command, started_at, self.now, &self.store);
                if self.note_down(agent, vec![began]) != Err(Stop::Dead) {
                    self.go_on(agent, Execution::Revert { command, held, started_at });
                }
            }
        }
    }

    /// The running program ends, or continues.
    pub(crate) fn work(&mut self, agent: usize) {
        let Some(execution) = self.hosts[agent].executing.take() else { return };
        let works = self.hosts[agent].actions_fail_until <= self.now;
        match execution {
            Execution::Apply { command, held, is_refresh, started_at } => {
                // A program that fails may have done half of its work.
                if works || self.hosts[agent].random.chance(50) {
                    self.block(agent, held.effect);
                }
                self.note(|| format!("agent {agent} executes number {} of its commands, apply", command.seq));
                self.done(agent, &command);
                self.go_on(agent, Execution::AfterApply { command, held, is_refresh, started_at, worked: works });
            }
            Execution::AfterApply { command, held, is_refresh, started_at, worked } => {
                let verified = worked.then(|| self.is_in_force(agent, held.effect));
                if verified == Some(true) || is_refresh {
                    let outcome = if verified == Some(true) { Outcome::Succeeded } else { Outcome::Failed };
                    let actual = verified.map(|shows| if shows { Actual::InForce } else { Actual::Drifted });
                    let seen = actual.map(|actual| Held { actual: Some(actual), ..held });
                    let change = seen.map(|held| Record::Held { held: Box::new(held) });
                    self.finish(agent, &command, started_at, outcome, verified, change);
                } else {
                    self.abandon(agent, &command, started_at, held, verified);
                }
            }
            Execution::Revert { command, held, started_at } => {
                let worked = self.unblock(agent, command.effect);
                self.note(|| format!("agent {agent} executes number {} of its commands, revert", command.seq));
                self.done(agent, &command);
                self.go_on(agent, Execution::AfterRevert { command, held, started_at, worked });
            }
            Execution::AfterRevert { command, held, started_at, worked } => {
                let lifted = worked && !self.is_in_force(agent, command.effect);
                self.finish_lifting(agent, &command, started_at, held, lifted);
            }
            Execution::Undo(held) => self.undo_one(agent, held),
        }
        self.wake_lanes(agent, 0);
    }

    fn done(&mut self, agent: usize, command: &Command) {
        let is_written = self.hosts[agent].journal.as_ref().is_some_and(|journal| journal.broken().is_none());
        self.checker.executed(agent, command, &self.store, is_written);
    }

    /// `execute::resume`.
    fn resume(&mut self, agent: usize, command: Command, started_at: Timestamp) {
        let held = self.held(agent, command.effect);
        match (command.op, held) {
            (Op::Apply, None) => self.finish(agent, &command, started_at, Outcome::Failed, Some(false), None),
            (Op::Apply, Some(held)) if self.is_in_force(agent, held.effect) => {
                let seen = Record::Held { held: Box::new(Held { actual: Some(Actual::InForce), ..held }) };
                self.finish(agent, &command, started_at, Outcome::Succeeded, Some(true), Some(seen));
            }
            (Op::Apply, Some(held)) if held.until.is_some() && self.unblock(agent, held.effect) => {
                let kept = Record::Held { held: Box::new(Held { actual: Some(Actual::Absent), ..held }) };
                self.finish(agent, &command, started_at, Outcome::Failed, Some(false), Some(kept));
            }
            (Op::Apply, Some(held)) => self.abandon(agent, &command, started_at, held, Some(false)),
            (Op::Revert, held) => {
                let lifted = !self.is_in_force(agent, command.effect);
                self.finish_lifting(agent, &command, started_at, held, lifted);
            }
        }
    }

    fn abandon(&mut self, agent: usize, command: &Command, started_at: Timestamp, held: Held, verified: Option<bool>) {
        let change = if self.unblock(agent, held.effect) {
            Record::Lifted { effect: held.effect }
        } else {
            self.overdue(agent, held)
        };
        self.finish(agent, command, started_at, Outcome::Failed, verified, Some(change));
    }

    fn finish_lifting(
        &mut self,
        agent: usize,
        command: &Command,
        started_at: Timestamp,
        held: Option<Held>,
        lifted: bool,
    ) {
        let change = match held {
            Some(held) if lifted => Some(Record::Lifted { effect: held.effect }),
            Some(held) => Some(self.overdue(agent, held)),
            None => None,
        };
        let (outcome, verified) = if lifted { (Outcome::Succeeded, Some(true)) } else { (Outcome::Failed, None) };
        self.finish(agent, command, started_at, outcome, verified, change);
    }

    fn finish(
        &mut self,
        agent: usize,
        command: &Command,
        started_at: Timestamp,
        outcome: Outcome,
        verified: Option<bool>,
        change: Option<Record>,
    ) {
        let finished_at = self.hosts[agent].wall(self.now);
        let message = if outcome == Outcome::Succeeded { "done" } else { FAILED };
        let told = refusal(command.jti, message, finished_at);
        let result = CommandResult { outcome, verified, started_at, ..told };
        let finished = Record::Finished { result: Box::new(result) };
        let is_overdue = matches!(&change, Some(Record::Held { held }) if held.failing.is_some());
        if self.note_down(agent, change.into_iter().chain([finished]).collect()) != Err(Stop::Dead) {
            // A crash loses what a full disk did not store: the revert is still pending, and is
            // delivered again.
            let is_written = self.hosts[agent].journal.as_ref().is_some_and(|journal| journal.broken().is_none());
            if let Some(target) = self.target_of(command.effect).filter(|_| is_overdue && is_written) {
                self.checker.overdue(agent, target, self.now, true);
            }
            self.tell(agent);
        }
    }

    fn refuse(&mut self, agent: usize, command: &Command, why: &str) {
        let result = Box::new(refusal(command.jti, why, self.hosts[agent].wall(self.now)));
        if self.note_down(agent, vec![Record::Finished { result }]) != Err(Stop::Dead) {
            self.tell(agent);
        }
    }

    /// `lift::undo`.
    fn undo_one(&mut self, agent: usize, held: Held) {
        let effect = held.effect;
        if self.hosts[agent].actions_fail_until <= self.now {
            self.lift_by_clock(agent, &held);
            self.hosts[agent].retries.remove(&effect);
            if self.note_down(agent, vec![Record::Lifted { effect }]) == Err(Stop::Dead) {
                return;
            }
        } else {
            let retry = self.hosts[agent].retries.entry(effect).or_default();
            retry.at = self.now + (SECOND << retry.failures.min(6)).min(MAX_RETRY);
            retry.failures += 1;
            if held.failing.is_some() {
                return;
            }
            let failing = Some(Failing { since: self.hosts[agent].wall(self.now), reason: FAILED.into() });
            let failing = Record::Held { held: Box::new(Held { failing, ..held }) };
            if self.note_down(agent, vec![failing]) == Err(Stop::Dead) {
                return;
            }
        }
        self.hosts[agent].news.insert(effect);
        self.tell(agent);
    }

    pub(crate) fn lift_by_clock(&mut self, agent: usize, held: &Held) {
        if let Some(target) = self.target_of(held.effect) {
            self.note(|| format!("agent {agent} lifts target {target}: it has ended"));
            if self.hosts[agent].in_force.remove(&target) {
                let wall = self.hosts[agent].wall(self.now);
                self.checker.lifted_by_clock(agent, target, wall, self.now);
            }
        }
    }

    /// `lift::overdue`.
    fn overdue(&mut self, agent: usize, mut held: Held) -> Record {
        let now = self.hosts[agent].moment(self.now);
        held.end_at(Some(now.wall), &now);
        held.failing = Some(Failing { since: now.wall, reason: FAILED.into() });
        self.hosts[agent].news.insert(held.effect);
        if let Some(target) = self.target_of(held.effect) {
            self.checker.overdue(agent, target, self.now, false);
        }
        Record::Held { held: Box::new(held) }
    }

    /// `converge::look`.
    fn look(&mut self, agent: usize, effect: Uuid) {
        let Some(held) = self.held(agent, effect) else { return };
        let remaining = held.remaining(&self.hosts[agent].moment(self.now));
        let is_ending = remaining.is_some_and(|remaining| remaining.as_millis() < TOO_LATE);
        if is_ending || held.actual == Some(Actual::Absent) {
            return;
        }
        let mut seen = Held { failing: None, ..held.clone() };
        if self.is_in_force(agent, effect) {
            seen.actual = Some(Actual::InForce);
        } else {
            if held.actual != Some(Actual::Drifted) {
                seen.drifts = held.drifts.saturating_add(1);
            }
            let works = self.hosts[agent].actions_fail_until <= self.now;
            if works {
                self.note(|| format!("agent {agent} finds that an effect has drifted, and applies it again"));
                self.block(agent, effect);
            }
            seen.actual = Some(if works { Actual::InForce } else { Actual::Drifted });
        }
        if seen != held && self.note_down(agent, vec![Record::Held { held: Box::new(seen) }]) != Err(Stop::Dead) {
            self.hosts[agent].news.insert(effect);
            self.tell(agent);
        }
    }

    fn held(&self, agent: usize, effect: Uuid) -> Option<Held> {
        self.hosts[agent].journal.as_ref().and_then(|journal| journal.state().held_effect(effect).cloned())
    }

    fn new_held(&self, agent: usize, command: &Command) -> Held {
        let mut held = Held {
            script: None,
            effect: command.effect,
            action: command.action.clone(),
            target: command.target.clone(),
            arguments: Vec::new(),
            until: None,
            term: None,
            undo: Value::Null,
            actual: None,
            drifts: 0,
            failing: None,
            in_log: true,
        };
        held.end_at(command.until, &self.hosts[agent].moment(self.now));
        held
    }

    fn target_of(&self, effect: Uuid) -> Option<usize> {
        self.store.effect_of(effect).map(|effect| self.store.effects[effect].target)
    }

    fn is_in_force(&self, agent: usize, effect: Uuid) -> bool {
        self.target_of(effect).is_some_and(|target| self.hosts[agent].in_force.contains(&target))
    }

    fn block(&mut self, agent: usize, effect: Uuid) {
        if let Some(target) = self.target_of(effect) {
            self.hosts[agent].in_force.insert(target);
        }
    }

    /// Reverts; returns whether that succeeded.
    fn unblock(&mut self, agent: usize, effect: Uuid) -> bool {
        let works = self.hosts[agent].actions_fail_until <= self.now;
        if let Some(target) = self.target_of(effect).filter(|_| works) {
            self.hosts[agent].in_force.remove(&target);
        }
        works
    }
}
