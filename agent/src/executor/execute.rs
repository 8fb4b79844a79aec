//! One command, from its first record to its last: what may be done is decided first, then what is about to be done is
//! written down, then it is done and looked at, then what came out is written down. The program may die between any two
//! of these; what is on disk then decides how it goes on.

use std::sync::{Mutex, PoisonError};

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, CommandResult, Outcome};
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::lift::{lift, lift_unheld, within};
use crate::actions::{Action, ActionError, Attempt, Transcript};
use crate::agent::Agent;
use crate::intake::{EXPIRED, refusal};
use crate::journal::{Held, Record};

/// What came out of a command.
struct Verdict {
    outcome: Outcome,
    verified: Option<bool>,
    message: String,
}

impl Verdict {
    fn new(outcome: Outcome, verified: Option<bool>, message: impl Into<String>) -> Self {
        Self { outcome, verified, message: message.into() }
    }

    fn of_error(error: &ActionError) -> Self {
        let outcome = match error {
            ActionError::Refused(_) => Outcome::Refused,
            ActionError::TimedOut(_) => Outcome::TimedOut,
            ActionError::Failed(_) => Outcome::Failed,
        };
        Self::new(outcome, None, error.to_string())
    }

    /// What was done, and whether it shows: `shows` is the answer of a look at the state.
    fn of_look(shows: Result<bool, ActionError>, good: &str, bad: &str) -> Self {
        match shows {
            Ok(true) => Self::new(Outcome::Succeeded, Some(true), good),
            Ok(false) => Self::new(Outcome::Failed, Some(false), bad),
            Err(error) => {
                Self::new(Outcome::Succeeded, None, format!("{good}, but it could not be looked at: {error}"))
            }
        }
    }
}

/// Executes a command that was never begun.
pub(super) async fn command(agent: &Agent, command: &Command) {
    if command.op == Op::Apply && command.target.kind() == TargetKind::Ip {
        agent.surroundings.await_manager().await;
    }
    let started_at = agent.clock.now();
    let refuse = |message: String| agent.note([finished(agent, refusal(command.jti, message, agent.clock.now()))]);
    if command.is_expired(started_at) {
        return refuse(EXPIRED.into());
    }
    let action = match admit(agent, command) {
        Ok(action) => action,
        Err(reason) => return refuse(reason),
    };
    let execution = Execution { agent, command, action, started_at, transcript: Mutex::default() };
    // An agent that only observes still lifts what is in force from before: that only ever restores.
    let is_held = || agent.read(|ledger| ledger.held_effect(command.effect).is_some());
    if agent.policy.observe && (command.op == Op::Apply || !is_held()) {
        return execution.observe();
    }
    if let Err(reason) = action.availability() {
        let message = format!("{} cannot be run here: {reason}", action.name());
        return execution.finish(Verdict::new(Outcome::Failed, None, message), None);
    }
    match command.op {
        Op::Apply => execution.apply().await,
        Op::Revert => execution.revert().await,
    }
}

/// Finishes a command that was begun in an earlier life of the agent. It is not executed again: what is there is
/// looked at, and told.
pub(super) async fn resume(agent: &Agent, command: &Command, started_at: Timestamp) {
    let Some(action) = agent.action(&command.action) else {
        return agent.note([finished(agent, refusal(command.jti, unknown(&command.action), agent.clock.now()))]);
    };
    let execution = Execution { agent, command, action, started_at, transcript: Mutex::default() };
    match command.op {
        Op::Apply => execution.resume_apply().await,
        Op::Revert => execution.resume_revert().await,
    }
}

/// The action, if this agent obeys this command at all. The manager has checked the same; the agent does not rely on it.
fn admit(agent: &Agent, command: &Command) -> Result<&'static dyn Action, String> {
    let action = agent.action(&command.action).ok_or_else(|| unknown(&command.action))?;
    if let Some(kind) = action.target_kind().filter(|kind| *kind != command.target.kind()) {
        return Err(format!("{} takes a target of kind {kind}, not {}", action.name(), command.target.kind()));
    }
    // What is protected or forbidden may still be released: a revert only ever restores.
    if command.op == Op::Apply {
        if let Some(reason) = agent.policy.forbids(&command.action) {
            return Err(reason);
        }
        if let Some(reason) = agent.protects(&command.target) {
            return Err(format!("the target is protected: {reason}"));
        }
    }
    Ok(action)
}

fn unknown(action: &str) -> String {
    format!("this agent does not know the action {}", action.escape_debug())
}

fn finished(agent: &Agent, result: CommandResult) -> Record {
    let (command, outcome) = (result.command_id, result.outcome.as_str());
    match result.outcome {
        Outcome::Succeeded => tracing::info!(%command, outcome, reason = result.message, "command done"),
        Outcome::Refused | Outcome::Failed | Outcome::TimedOut => {
            tracing::warn!(%command, outcome, reason = result.message, "command not done");
        }
    }
    agent.outbox.notify_one();
    Record::Finished { result: Box::new(result) }
}

/// The beginning of an output, at most `limit` bytes.
fn head(mut output: String, limit: usize) -> String {
    if output.len() > limit {
        let end = (0..=limit).rev().find(|end| output.is_char_boundary(*end)).unwrap_or(0);
        output.truncate(end);
    }
    output
}

/// One command being executed.
struct Execution<'a> {
    agent: &'a Agent,
    command: &'a Command,
    action: &'static dyn Action,
    started_at: Timestamp,
    transcript: Mutex<Transcript>,
}

impl Execution<'_> {
    fn attempt<'a>(&'a self, undo: Option<&'a Value>) -> Attempt<'a> {
        let mut attempt = Attempt::new(&self.agent.runner, &self.transcript, &self.command.target);
        attempt.arguments = &self.command.arguments;
        attempt.remaining = self.command.until.map(|until| until.since(self.agent.clock.now()));
        attempt.undo = undo;
        attempt
    }

    /// Says what would be done. Nothing is run and nothing is held.
    fn observe(&self) {
        let plan = self.action.plan(self.command.op, &self.attempt(None));
        let message = format!("observe: would have run: {plan}");
        self.finish(Verdict::new(Outcome::Succeeded, None, message), None);
    }

    async fn apply(self) {
        let command = self.command;
        if command.until.is_some_and(|until| until <= self.started_at) {
            return self.apply_that_is_over().await;
        }
        let before = self.agent.read(|ledger| {
            let held = ledger.held_effect(command.effect);
            let twin = || ledger.twin(command.effect, &command.action, &command.target);
            (held.is_some(), held.or_else(twin).map(|held| held.undo.clone()))
        });
        // While the effect is in force, the state before it cannot be seen any more: what was written down is kept.
        let (is_refresh, undo) = match before {
            (is_refresh, Some(undo)) => (is_refresh, undo),
            (is_refresh, None) => match within(self.agent, self.action.prepare(&self.attempt(None))).await {
                Ok(undo) => (is_refresh, undo),
                Err(error) => return self.finish(Verdict::of_error(&error), None),
            },
        };
        let held = self.held(undo);
        // Without a memory of it the effect would never be lifted: no record, no execution.
        if let Err(unwritable) = self.agent.record([Record::Held { held: Box::new(held.clone()) }, self.begun()]) {
            // The command is in the journal, its refusal cannot be: after a crash it would be executed.
            self.agent.hold_back(command.jti);
            return self.finish(Verdict::new(Outcome::Refused, None, unwritable.to_string()), None);
        }
        let attempt = self.attempt(Some(&held.undo));
        let verdict = match within(self.agent, self.action.apply(&attempt)).await {
            Ok(()) => Verdict::of_look(
                within(self.agent, self.action.is_in_force(&attempt)).await,
                "in force",
                "it was applied without a complaint but is not in force",
            ),
            Err(error) => Verdict::of_error(&error),
        };
        // A refresh that failed leaves what was in force before, and the duty to lift it.
        if verdict.outcome == Outcome::Succeeded || is_refresh {
            let seen = verdict.verified.map(|in_force| seen(held, in_force));
            self.finish(verdict, seen);
        } else {
            self.abandon(held, verdict).await;
        }
    }

    /// The end that the command sets has passed: nothing is brought into force, and what is, is lifted.
    async fn apply_that_is_over(self) {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        match held {
            None => self
                .finish(Verdict::new(Outcome::Refused, None, "its end had passed before it could be executed"), None),
            Some(held) => {
                self.agent.note([self.begun()]);
                let lifted = lift(self.agent, self.action, &held, &self.transcript).await;
                self.finish_lifting(Some(held), lifted, "its end had passed, it is lifted");
            }
        }
    }

    async fn revert(self) {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        // Lifting twice does no harm, so a journal that cannot be written does not stand in its way.
        self.agent.note([self.begun()]);
        let lifted = match &held {
            Some(held) => lift(self.agent, self.action, held, &self.transcript).await,
            None => lift_unheld(self.agent, self.action, &self.held(Value::Null), &self.transcript).await,
        };
        let message = if held.is_some() { "lifted" } else { "it was not held any more; nothing of it is left" };
        self.finish_lifting(held, lifted, message);
    }

    async fn resume_apply(self) {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        let Some(held) = held else {
            let message = "the agent was stopped during the execution, and the effect has ended meanwhile";
            return self.finish(Verdict::new(Outcome::Failed, Some(false), message), None);
        };
        let in_force = within(self.agent, self.action.is_in_force(&self.attempt(Some(&held.undo)))).await;
        let verdict = Verdict::of_look(
            in_force,
            "in force; the agent was stopped during the execution",
            "not in force: the agent was stopped during the execution",
        );
        if verdict.outcome == Outcome::Succeeded {
            let seen = verdict.verified.map(|in_force| seen(held, in_force));
            return self.finish(verdict, seen);
        }
        // What was half done is cleaned up now. But it may yet come into force: a program that the agent had started can
        // outlive it. So the effect stays held, and is lifted at its end like any other; lifting what is not there does
        // no harm.
        if held.until.is_none() {
            return self.abandon(held, verdict).await;
        }
        match lift(self.agent, self.action, &held, &self.transcript).await {
            Ok(()) => {
                // Held only for its end: whoever looks at it later must not take it for drift and apply it again.
                let actual = Some(Actual::Absent);
                self.finish(verdict, Some(Record::Held { held: Box::new(Held { actual, ..held }) }));
            }
            Err(_) => self.abandon(held, verdict).await,
        }
    }

    async fn resume_revert(self) {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        let undo = held.as_ref().map(|held| &held.undo);
        let lifted = match within(self.agent, self.action.is_lifted(&self.attempt(undo))).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ActionError::Failed("still in force: the agent was stopped during the execution".into())),
            Err(error) => Err(error),
        };
        self.finish_lifting(held, lifted, "lifted; the agent was stopped during the execution");
    }

    /// Cleans up after an apply that did not work. What cannot be cleaned up is held, and overdue: the clock goes on trying.
    async fn abandon(self, held: Held, mut verdict: Verdict) {
        let record = match lift(self.agent, self.action, &held, &self.transcript).await {
            Ok(()) => Record::Lifted { effect: held.effect },
            Err(error) => {
                verdict.message = format!("{}; cleaning up failed too and is tried again: {error}", verdict.message);
                super::lift::overdue(self.agent, held, &error)
            }
        };
        self.finish(verdict, Some(record));
    }

    /// Ends a command that lifts. What could not be lifted stays held, and overdue: the clock goes on trying.
    fn finish_lifting(self, held: Option<Held>, lifted: Result<(), ActionError>, message: &str) {
        match (lifted, held) {
            (Ok(()), held) => {
                let lifted = held.map(|held| Record::Lifted { effect: held.effect });
                self.finish(Verdict::new(Outcome::Succeeded, Some(true), message), lifted);
            }
            (Err(error), None) => self.finish(Verdict::of_error(&error), None),
            (Err(error), Some(held)) => {
                let mut verdict = Verdict::of_error(&error);
                verdict.message.push_str("; it is tried again");
                self.finish(verdict, Some(super::lift::overdue(self.agent, held, &error)));
            }
        }
    }

    fn finish(&self, verdict: Verdict, change: Option<Record>) {
        let transcript = std::mem::take(&mut *self.transcript.lock().unwrap_or_else(PoisonError::into_inner));
        let result = CommandResult {
            command_id: self.command.jti,
            outcome: verdict.outcome,
            exit_code: transcript.exit_code,
            output: head(transcript.output, self.agent.policy.max_output_bytes),
            verified: verdict.verified,
            message: verdict.message,
            started_at: self.started_at,
            finished_at: self.agent.clock.now(),
        };
        self.agent.note(change.into_iter().chain([finished(self.agent, result)]));
    }

    fn begun(&self) -> Record {
        Record::Started { id: self.command.jti, at: self.started_at }
    }

    fn held(&self, undo: Value) -> Held {
        let mut held = Held {
            effect: self.command.effect,
            action: self.command.action.clone(),
            target: self.command.target.clone(),
            arguments: self.command.arguments.clone(),
            until: None,
            term: None,
            undo,
            actual: None,
            drifts: 0,
            failing: None,
        };
        held.end_at(self.command.until, &self.agent.clock.moment());
        held
    }
}

fn seen(mut held: Held, in_force: bool) -> Record {
    held.actual = Some(if in_force { Actual::InForce } else { Actual::Drifted });
    Record::Held { held: Box::new(held) }
}
