//! One command being executed: how an attempt at it is made, and how it ends with a verdict and the
//! records of it. Applying, reverting and resuming are written in terms of this.

use std::sync::{Mutex, PoisonError};

use riposte_protocol::command::Command;
use riposte_protocol::message::{Actual, CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::lift::{Lifted, overdue};
use crate::actions::{Action, ActionError, Attempt, Times, Transcript};
use crate::agent::Agent;
use crate::journal::{Held, Record};
use crate::refusal::refusal;

/// What came out of a command.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) verified: Option<bool>,
    pub(super) message: String,
    /// Whether it only reports what would have been done.
    pub(super) observed: bool,
}

impl Verdict {
    pub(super) fn new(outcome: Outcome, verified: Option<bool>, message: impl Into<String>) -> Self {
        Self { outcome, verified, message: message.into(), observed: false }
    }

    pub(super) fn of_error(error: &ActionError) -> Self {
        let outcome = match error {
            ActionError::Refused(_) => Outcome::Refused,
            ActionError::TimedOut(_) => Outcome::TimedOut,
            ActionError::Failed(_) => Outcome::Failed,
        };
        Self::new(outcome, None, error.to_string())
    }

    /// A success that only the program's own exit status shows.
    pub(super) fn unseen(done: &str) -> Self {
        Self::new(Outcome::Succeeded, None, format!("{done}, by the word of what was run"))
    }

    /// The result of a step and its verification; `shows` is what a look at the state returned.
    pub(super) fn of_look(shows: Result<bool, ActionError>, good: &str, bad: &str) -> Self {
        match shows {
            Ok(true) => Self::new(Outcome::Succeeded, Some(true), good),
            Ok(false) => Self::new(Outcome::Failed, Some(false), bad),
            Err(error) => Self::new(Outcome::Succeeded, None, format!("{good}, but it could not be verified: {error}")),
        }
    }
}

/// Finishes a command that is not obeyed.
pub(super) fn refuse(agent: &Agent, command: &Command, reason: String) {
    agent.note([finished(agent, refusal(command.jti, reason, agent.clock.now()))]);
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

/// The start of an output, at most `limit` bytes.
fn head(mut output: String, limit: usize) -> String {
    if output.len() > limit {
        let end = (0..=limit).rev().find(|end| output.is_char_boundary(*end)).unwrap_or(0);
        output.truncate(end);
    }
    output
}

/// One command being executed.
pub(super) struct Execution<'a> {
    pub(super) agent: &'a Agent,
    pub(super) command: &'a Command,
    pub(super) action: &'static dyn Action,
    pub(super) started_at: Timestamp,
    pub(super) transcript: Mutex<Transcript>,
    /// State of the host before the execution.
    pub(super) evidence: Option<Box<Value>>,
}

impl<'a> Execution<'a> {
    pub(super) fn new(
        agent: &'a Agent,
        command: &'a Command,
        action: &'static dyn Action,
        started_at: Timestamp,
    ) -> Self {
        Self { agent, command, action, started_at, transcript: Mutex::default(), evidence: None }
    }
}

impl Execution<'_> {
    pub(super) fn attempt<'a>(&'a self, undo: Option<&'a Value>) -> Attempt<'a> {
        let mut attempt = Attempt::new(&self.agent.host, &self.transcript, &self.command.target);
        attempt.effect = self.command.effect;
        attempt.arguments = &self.command.arguments;
        attempt.script = self.command.script.as_ref();
        attempt.alert = self.command.alert.as_ref();
        attempt.times = Some(Times::of(self.command, self.agent.clock.moment()));
        attempt.evidence = self.evidence.as_deref();
        attempt.policy = Some(&self.agent.policy);
        attempt.remaining = self.command.until.map(|until| until.since(self.agent.clock.now()));
        attempt.undo = undo;
        attempt
    }

    /// Whether the effect is held after it was applied, until it is lifted.
    pub(super) fn is_undoable(&self) -> bool {
        self.command.script.as_ref().map_or(self.action.about().undoable, |script| script.undoable)
    }

    /// Ends a command that lifts what is held. What could not be lifted stays held, and overdue: the clock goes on trying.
    pub(super) fn finish_lifting(self, held: Held, lifted: Result<Lifted, ActionError>, message: &str) {
        self.agent.note(self.end_of_lifting(held, lifted, message));
    }

    /// The records of [`Execution::finish_lifting`].
    pub(super) fn end_of_lifting(&self, held: Held, lifted: Result<Lifted, ActionError>, message: &str) -> Vec<Record> {
        match lifted {
            Ok(how) => {
                let verdict = match how {
                    Lifted::Seen => Verdict::new(Outcome::Succeeded, Some(true), message),
                    Lifted::Unseen => Verdict::unseen(message),
                    Lifted::Shared => {
                        Verdict::new(Outcome::Succeeded, None, format!("{message}; another effect holds the same"))
                    }
                };
                self.end(verdict, Some(Record::Lifted { effect: held.effect }))
            }
            Err(error) => {
                let mut verdict = Verdict::of_error(&error);
                verdict.message.push_str("; it is retried");
                self.end(verdict, Some(overdue(self.agent, held, &error)))
            }
        }
    }

    pub(super) fn finish(&self, verdict: Verdict, change: Option<Record>) {
        self.agent.note(self.end(verdict, change));
    }

    /// The records of [`Execution::finish`].
    pub(super) fn end(&self, verdict: Verdict, change: Option<Record>) -> Vec<Record> {
        let transcript = std::mem::take(&mut *self.transcript.lock().unwrap_or_else(PoisonError::into_inner));
        let result = CommandResult {
            command_id: self.command.jti,
            outcome: verdict.outcome,
            exit_code: transcript.exit_code,
            output: head(transcript.output, self.agent.policy.max_output_bytes),
            verified: verdict.verified,
            message: verdict.message,
            evidence: self.evidence.clone(),
            started_at: self.started_at,
            finished_at: self.agent.clock.now(),
            observed: verdict.observed,
        };
        change.into_iter().chain([finished(self.agent, result)]).collect()
    }

    /// What is held of the command's effect.
    pub(super) fn held_now(&self) -> Option<Held> {
        self.agent.read(|state| state.held_effect(self.command.effect).cloned())
    }

    pub(super) fn begun(&self) -> Record {
        Record::Started { id: self.command.jti, at: self.started_at, evidence: self.evidence.clone() }
    }

    pub(super) fn held(&self, undo: Value) -> Held {
        let mut held = Held {
            effect: self.command.effect,
            action: self.command.action.clone(),
            target: self.command.target.clone(),
            arguments: self.command.arguments.clone(),
            until: None,
            term: None,
            undo,
            script: self.command.script.clone(),
            actual: None,
            drifts: 0,
            failing: None,
            in_log: false,
        };
        held.end_at(self.command.until, &self.agent.clock.moment());
        held
    }
}

pub(super) fn seen(held: Held, in_force: bool) -> Record {
    Record::Held { held: Box::new(Held { actual: Some(actual(in_force)), ..held }) }
}

pub(super) fn actual(in_force: bool) -> Actual {
    if in_force { Actual::InForce } else { Actual::Drifted }
}
