//! One attempt at one step of an action: its target, and a record of the programs it ran. The
//! record is kept on failure too: a failed result must quote the program's own error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::command::{Command, Script};
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::Host;
use crate::clock::Moment;
use crate::local_policy::LocalPolicy;
use crate::runner::{self, Exit, Program, RunError};

/// Why a step did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The action will not do this to this target.
    #[error("{0}")]
    Refused(String),
    /// A program was killed because it took too long.
    #[error("{0}")]
    TimedOut(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// What the programs of one execution said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The exit code of the last program that was to change something.
    pub exit_code: Option<i32>,
    /// What they printed, bounded.
    pub output: String,
}

/// When a step was ordered, and what time it is now.
#[derive(Clone, Debug)]
pub struct Times {
    /// When what the order speaks of was there, as [`Command::as_of`]; from a manager that does not say, the second in which
    /// it was issued, to its end.
    pub as_of: Timestamp,
    /// Whether the manager said so itself.
    pub is_told: bool,
    /// When it was issued, in whole seconds, by the manager's clock.
    pub issued: Timestamp,
    /// Now, by this host's clocks.
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

/// What a step is aimed at, and how it runs programs.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// What the action is aimed at.
    pub target: &'a Target,
    /// Parameters of the action.
    pub arguments: &'a [String],
    /// How long the effect is to last from now; `None` means until it is lifted.
    pub remaining: Option<Duration>,
    /// What [`super::Action::prepare`] wrote down; `None` if the effect is not held.
    pub undo: Option<&'a Value>,
    /// The effect it is about.
    pub effect: Uuid,
    /// The program, where the action is a custom one.
    pub script: Option<&'a Script>,
    /// The alert behind it, if it is known.
    pub alert: Option<&'a Value>,
    /// When it was ordered, and what time it is; for actions whose target may have become another's since.
    pub times: Option<Times>,
    /// What [`super::Action::evidence`] found before it acts.
    pub evidence: Option<&'a Value>,
    /// What is protected on this host; for actions that hold what they are aimed at, and have to ask again then.
    pub policy: Option<&'a LocalPolicy>,
    /// Where it is done.
    pub host: &'a Host,
    transcript: &'a Mutex<Transcript>,
    seen_in_force: AtomicBool,
}

impl<'a> Attempt<'a> {
    /// An attempt at `target` whose programs are written down in `transcript`.
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

    /// Notes that the last thing `apply` did was to look, and that the effect was in force.
    pub(super) fn saw_in_force(&self) {
        self.seen_in_force.store(true, Ordering::Relaxed);
    }

    /// Whether `apply` has just looked; it counts once.
    pub(super) fn take_seen_in_force(&self) -> bool {
        self.seen_in_force.swap(false, Ordering::Relaxed)
    }

    /// Runs a program that changes something and must succeed; what it says goes into the result.
    ///
    /// # Errors
    /// When it cannot be started, takes too long, or ends with a failure.
    pub async fn run(&self, program: &Program) -> Result<Exit, ActionError> {
        let exit = self.change(program).await?;
        if exit.is_success() { Ok(exit) } else { Err(failure(program, &exit)) }
    }

    /// Runs a program that changes something and may fail for a reason that the caller knows.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub async fn change(&self, program: &Program) -> Result<Exit, ActionError> {
        match self.host.runner.run(program).await {
            Ok(exit) => {
                self.note(Some(exit.code), &runner::join(&exit.stdout, &exit.stderr));
                Ok(exit)
            }
            Err(error) => Err(self.not_ended(&error)),
        }
    }

    /// Runs a program that only looks; a failure is an answer, and nothing goes into the result.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub async fn look(&self, program: &Program) -> Result<Exit, ActionError> {
        self.host.runner.run(program).await.map_err(|error| self.not_ended(&error))
    }

    /// The sentence for a program that did not end by itself, with what it said until then in the result.
    pub(crate) fn not_ended(&self, error: &RunError) -> ActionError {
        match error {
            RunError::TimedOut { output, .. } => {
                self.note(None, output);
                ActionError::TimedOut(error.to_string())
            }
            RunError::Start { .. } => ActionError::Failed(error.to_string()),
        }
    }

    /// Puts what a program said into the result.
    pub(crate) fn note(&self, exit_code: Option<i32>, output: &str) {
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        transcript.exit_code = exit_code;
        transcript.output = runner::join(&transcript.output, output);
    }
}

/// The sentence for a program that ended with a failure: its name, its code, and the first thing it complained.
pub(crate) fn failure(program: &Program, exit: &Exit) -> ActionError {
    let complaint = exit.stderr.lines().chain(exit.stdout.lines()).find(|line| !line.trim().is_empty());
    let complaint = complaint.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    ActionError::Failed(format!("{} ended with {}{complaint}", program.name(), exit.code))
}
