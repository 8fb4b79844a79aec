//! One attempt at one step of an action: its target, and a record of the programs it ran. The
//! record is kept on failure too: a failed result must quote the program's own error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::command::{Command, Op, Script};
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::error::failure;
use super::{About, ActionError, Host};
use crate::conventions::minimal_alert;
use crate::local_policy::LocalPolicy;
use crate::moment::Moment;
use crate::responses_log::Note;
use crate::runner::{self, Exit, Program, RunError};

/// Output of the programs of one execution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Exit code of the last program that changes something.
    pub exit_code: Option<i32>,
    /// Their output, up to the limit of a result.
    pub output: String,
}

/// The times of an order, and the current time.
#[derive(Clone, Debug)]
pub struct Times {
    /// When the order's target was seen, as [`Command::as_of`]. If the manager does not send it,
    /// the end of the second in which the order was issued.
    pub as_of: Timestamp,
    /// Whether the manager sent `as_of`.
    pub is_told: bool,
    /// When it was issued, in whole seconds, on the manager's clock.
    pub issued: Timestamp,
    /// The current time on this host's clocks.
    pub now: Moment,
}

impl Times {
    /// The times of `command` at `now`.
    pub fn of(command: &Command, now: Moment) -> Self {
        let issued = Timestamp::from_millis(command.iat.saturating_mul(1000));
        let as_of = command.as_of.unwrap_or_else(|| issued.plus(Duration::from_millis(999)));
        Self { as_of, is_told: command.as_of.is_some(), issued, now }
    }
}

/// The input of a step, and how it runs programs.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The target of the action.
    pub target: &'a Target,
    /// Parameters of the action.
    pub arguments: &'a [String],
    /// How long the effect lasts from now; `None` means until it is lifted.
    pub remaining: Option<Duration>,
    /// The value that [`super::Action::prepare`] returned; `None` if the effect is not held.
    pub undo: Option<&'a Value>,
    /// The effect it is about.
    pub effect: Uuid,
    /// The program of a custom action.
    pub script: Option<&'a Script>,
    /// The alert that caused it, if it is known.
    pub alert: Option<&'a Value>,
    /// The times of the order, for actions whose target may have been replaced by another one
    /// since.
    pub times: Option<Times>,
    /// The value that [`super::Action::evidence`] returned.
    pub evidence: Option<&'a Value>,
    /// The local policy, for actions that hold their target and have to check its protection again
    /// then.
    pub policy: Option<&'a LocalPolicy>,
    /// The host that it runs on.
    pub host: &'a Host,
    transcript: &'a Mutex<Transcript>,
    seen_in_force: AtomicBool,
}

impl<'a> Attempt<'a> {
    /// An attempt at `target` whose programs are recorded in `transcript`.
    pub fn new(host: &'a Host, transcript: &'a Mutex<Transcript>, target: &'a Target) -> Self {
        Self {
            target,
            arguments: &[],
            remaining: None,
            undo: None,
            effect: Uuid::nil(),
            script: None,
            alert: None,
            times: None,
            evidence: None,
            policy: None,
            host,
            transcript,
            seen_in_force: AtomicBool::new(false),
        }
    }

    /// Records that `apply` ended with a look, and that the effect was in force.
    pub(super) fn saw_in_force(&self) {
        self.seen_in_force.store(true, Ordering::Relaxed);
    }

    /// Whether `apply` ended with a look; returns true only once.
    pub(super) fn take_seen_in_force(&self) -> bool {
        self.seen_in_force.swap(false, Ordering::Relaxed)
    }

    /// Runs a program that changes something and must succeed; its output goes into the result.
    ///
    /// # Errors
    /// When it cannot be started, times out, or ends with a failure.
    pub async fn run(&self, program: &Program) -> Result<Exit, ActionError> {
        let exit = self.change(program).await?;
        if exit.is_success() { Ok(exit) } else { Err(failure(program, &exit)) }
    }

    /// Runs a program that changes something and may fail for a reason that the caller knows.
    ///
    /// # Errors
    /// When it cannot be started or times out.
    pub async fn change(&self, program: &Program) -> Result<Exit, ActionError> {
        match self.host.runner.run(program).await {
            Ok(exit) => {
                self.note(Some(exit.code), &runner::join(&exit.stdout, &exit.stderr));
                Ok(exit)
            }
            Err(error) => Err(self.not_ended(&error)),
        }
    }

    /// Runs a program that only looks. Its failure is an answer, and its output is not in the
    /// result.
    ///
    /// # Errors
    /// When it cannot be started, times out, or prints more than can be read.
    pub async fn look(&self, program: &Program) -> Result<Exit, ActionError> {
        self.host.runner.ask(program).await.map_err(|error| self.not_ended(&error))
    }

    /// The error of a program that was killed; its output until then goes into the result.
    pub(crate) fn not_ended(&self, error: &RunError) -> ActionError {
        match error {
            RunError::TimedOut { output, .. } => {
                self.note(None, output);
                ActionError::TimedOut(error.to_string())
            }
            RunError::Start { .. } | RunError::NoAnswer { .. } => ActionError::Failed(error.to_string()),
        }
    }

    /// The line for the log of responses: what the action of that name did. `about` says whether
    /// its arguments may be shown.
    pub fn log_line(&self, op: Op, action: &'a str, about: &About) -> Note<'a> {
        let program = self.script.map_or(action, |script| script.executable.as_str());
        let arguments = if about.has_secrets() { &[] } else { self.arguments };
        Note::new(op, program, arguments, self.alert, minimal_alert(self.target, action))
    }

    /// Adds a program's output to the result.
    pub(crate) fn note(&self, exit_code: Option<i32>, output: &str) {
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        transcript.exit_code = exit_code;
        transcript.output = runner::join(&transcript.output, output);
    }
}
