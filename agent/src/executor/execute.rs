//! One command, or one undo, from its first record to its last: what may be done is decided first, then what is about
//! to be done is written down, then it is done and looked at, then what came out is written down. The program may die
//! between any two of these; what is on disk then decides how it goes on.

use std::sync::{Mutex, PoisonError};

use riposte_protocol::command::{Command, Op, Script};
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use serde_json::Value;

use crate::actions::{self, Action, ActionError, Attempt, Transcript};
use crate::agent::{Agent, Unwritable};
use crate::intake::{EXPIRED, refusal};
use crate::journal::{Held, Record};
use crate::responses_log::Note;
use crate::scripts;

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

    /// What was done, where nothing shows it but the program's own word.
    fn unseen(done: &str) -> Self {
        Self::new(Outcome::Succeeded, None, format!("{done}, by the word of what was run"))
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
pub(super) async fn command(agent: &Agent, command: &Command) -> Result<(), Unwritable> {
    let started_at = agent.clock.now();
    let refuse = |message: String| agent.record([finished(agent, refusal(command.jti, message, agent.clock.now()))]);
    if command.is_expired(started_at) {
        return refuse(EXPIRED.into());
    }
    let action = match admit(agent, command) {
        Ok(action) => action,
        Err(reason) => return refuse(reason),
    };
    let execution = Execution { agent, command, action, started_at, transcript: Mutex::default() };
    // An agent that only observes still lifts what is in force from before: that only ever restores.
    if agent.observe && (command.op == Op::Apply || agent.read(|ledger| ledger.held_effect(command.effect).is_none())) {
        return execution.observe();
    }
    if let Err(reason) = actions::availability(action, &agent.host) {
        let message = format!("{} cannot be run here: {reason}", action.name());
        return execution.finish(Verdict::new(Outcome::Failed, None, message), None);
    }
    match command.op {
        Op::Apply if !execution.is_undoable() => execution.apply_once().await,
        Op::Apply => execution.apply().await,
        Op::Revert if !execution.is_undoable() => {
            let message = "there is nothing to undo: the action was complete in itself";
            execution.finish(Verdict::new(Outcome::Succeeded, None, message), None)
        }
        Op::Revert => execution.revert().await,
    }
}

/// Finishes a command that was begun in an earlier life of the agent. It is not executed again: what is there is
/// looked at, and told.
pub(super) async fn resume(agent: &Agent, command: &Command, started_at: Timestamp) -> Result<(), Unwritable> {
    let action = match admit(agent, command) {
        Ok(action) => action,
        Err(reason) => return agent.record([finished(agent, refusal(command.jti, reason, agent.clock.now()))]),
    };
    let execution = Execution { agent, command, action, started_at, transcript: Mutex::default() };
    match command.op {
        Op::Apply if !execution.is_undoable() => execution.resume_once().await,
        Op::Apply => execution.resume_apply().await,
        Op::Revert => execution.resume_revert().await,
    }
}

/// Undoes an effect whose time is up; gives whether it is lifted. If not, it stays held, to be tried again.
pub(super) async fn undo(agent: &Agent, held: &Held) -> Result<bool, Unwritable> {
    let lifted = match find(agent, &held.action, held.script.as_ref()) {
        None => Err(ActionError::Failed(format!("this agent does not know the action {}", held.action))),
        Some(action) => lift(agent, action, held, &Mutex::default()).await,
    };
    let (effect, action, target) = (held.effect, &held.action, &held.target);
    match lifted {
        Ok(()) => {
            agent.record([Record::Lifted { effect }])?;
            tracing::info!(%effect, action, %target, "effect lifted, its time was up");
            Ok(true)
        }
        Err(error) => {
            tracing::error!(%effect, action, %target, %error, "an effect could not be lifted; it is tried again");
            Ok(false)
        }
    }
}

/// The action, if this agent obeys this command at all. The manager has checked the same; the agent does not rely on it.
fn admit(agent: &Agent, command: &Command) -> Result<&'static dyn Action, String> {
    let name = command.action.escape_debug();
    let action = find(agent, &command.action, command.script.as_ref())
        .ok_or_else(|| format!("this agent does not know the action {name}"))?;
    if command.script.is_some() && agent.action(&command.action).is_some() {
        return Err(format!("{name} is an action of this agent's own, so it cannot be the name of a custom one"));
    }
    action.about().check_target(&command.target)?;
    // What is protected may still be released, whatever the arguments were: a revert only ever restores.
    if command.op == Op::Revert {
        return Ok(action);
    }
    if let Some(reason) = command.target.always_protected() {
        return Err(format!("the target is protected: {reason}"));
    }
    action.about().check_arguments(&command.arguments)?;
    Ok(action)
}

/// The action of that name, or the one that runs custom programs.
fn find(agent: &Agent, name: &str, script: Option<&Script>) -> Option<&'static dyn Action> {
    if script.is_some() { Some(&scripts::SCRIPT) } else { agent.action(name) }
}

/// Reverts an effect and looks that nothing of it is left.
async fn lift(
    agent: &Agent,
    action: &dyn Action,
    held: &Held,
    transcript: &Mutex<Transcript>,
) -> Result<(), ActionError> {
    // Another effect wants the same: the state is its own now, and so is what was before.
    if agent.read(|ledger| ledger.twin(held.effect, &held.action, &held.target).is_some()) {
        agent.host.keys.forget(held.effect);
        return Ok(());
    }
    let mut attempt = Attempt::new(&agent.host, transcript, &held.target);
    attempt.effect = held.effect;
    attempt.arguments = &held.arguments;
    attempt.script = held.script.as_ref();
    attempt.undo = Some(&held.undo);
    revert_and_look(agent, action, &attempt, &held.action).await
}

async fn revert_and_look(
    agent: &Agent,
    action: &dyn Action,
    attempt: &Attempt<'_>,
    name: &str,
) -> Result<(), ActionError> {
    action.revert(attempt).await?;
    if !action.is_lifted(attempt).await? {
        return Err(ActionError::Failed("it was reverted but is still in force".into()));
    }
    agent.host.note(&Note::of(Op::Revert, name, action.about(), attempt), agent.clock.now());
    Ok(())
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
        let mut attempt = Attempt::new(&self.agent.host, &self.transcript, &self.command.target);
        attempt.effect = self.command.effect;
        attempt.arguments = &self.command.arguments;
        attempt.script = self.command.script.as_ref();
        attempt.alert = self.command.alert.as_ref();
        attempt.remaining = self.command.until.map(|until| until.since(self.agent.clock.now()));
        attempt.undo = undo;
        attempt
    }

    /// Whether the effect is held after it was applied, and lifted one day.
    fn is_undoable(&self) -> bool {
        self.command.script.as_ref().map_or(self.action.about().undoable, |script| script.undoable)
    }

    /// Says what would be done. Nothing is run and nothing is held.
    fn observe(&self) -> Result<(), Unwritable> {
        let plan = self.action.plan(self.command.op, &self.attempt(None));
        let message = format!("observe: would have run: {plan}");
        self.finish(Verdict::new(Outcome::Succeeded, None, message), None)
    }

    async fn apply(self) -> Result<(), Unwritable> {
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
            (is_refresh, None) => match self.action.prepare(&self.attempt(None)).await {
                Ok(undo) => (is_refresh, undo),
                Err(error) => return self.finish(Verdict::of_error(&error), None),
            },
        };
        let held = self.held(undo);
        self.agent.record([Record::Held { held: Box::new(held.clone()) }, self.begun()])?;
        let attempt = self.attempt(Some(&held.undo));
        let verdict = self.apply_and_look(&attempt, "in force", "is not in force").await;
        // A refresh that failed leaves what was in force before, and the duty to lift it.
        if verdict.outcome == Outcome::Succeeded || is_refresh {
            self.finish(verdict, None)
        } else {
            self.abandon(held, verdict).await
        }
    }

    /// An action that is complete in itself: nothing is held after it.
    async fn apply_once(self) -> Result<(), Unwritable> {
        self.agent.record([self.begun()])?;
        let verdict = self.apply_and_look(&self.attempt(None), "done", "it does not show").await;
        self.finish(verdict, None)
    }

    async fn apply_and_look(&self, attempt: &Attempt<'_>, good: &str, bad: &str) -> Verdict {
        if let Err(error) = self.action.apply(attempt).await {
            return Verdict::of_error(&error);
        }
        let verdict = if self.action.about().looks {
            let shows = self.action.is_in_force(attempt).await;
            Verdict::of_look(shows, good, &format!("it was applied without a complaint but {bad}"))
        } else {
            Verdict::unseen(good)
        };
        if verdict.outcome == Outcome::Succeeded {
            let note = Note::of(Op::Apply, &self.command.action, self.action.about(), attempt);
            self.agent.host.note(&note, self.agent.clock.now());
        }
        verdict
    }

    /// The end that the command sets has passed: nothing is brought into force, and what is, is lifted.
    async fn apply_that_is_over(self) -> Result<(), Unwritable> {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        match held {
            None => self
                .finish(Verdict::new(Outcome::Refused, None, "its end had passed before it could be executed"), None),
            Some(held) => {
                self.agent.record([self.begun()])?;
                let lifted = lift(self.agent, self.action, &held, &self.transcript).await;
                self.finish_lifting(Some(held), lifted, "its end had passed, it is lifted")
            }
        }
    }

    async fn revert(self) -> Result<(), Unwritable> {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        self.agent.record([self.begun()])?;
        let lifted = match &held {
            Some(held) => lift(self.agent, self.action, held, &self.transcript).await,
            None => self.lift_unheld().await,
        };
        let message = if held.is_some() { "lifted" } else { "it was not held any more; nothing of it is left" };
        self.finish_lifting(held, lifted, message)
    }

    /// Makes sure that nothing is left of an effect that is not held, such as after a lost journal.
    async fn lift_unheld(&self) -> Result<(), ActionError> {
        let unheld = self.held(Value::Null);
        let twin =
            |ledger: &crate::journal::Ledger| ledger.twin(unheld.effect, &unheld.action, &unheld.target).is_some();
        if self.agent.read(twin) {
            return Ok(());
        }
        revert_and_look(self.agent, self.action, &self.attempt(None), &self.command.action).await
    }

    /// What is complete in itself cannot be cleaned up; that it was begun is all that is known, unless it shows.
    async fn resume_once(self) -> Result<(), Unwritable> {
        let unknown = "the agent was stopped during the execution: it may have been done, and is not done again";
        let looks = self.action.about().looks;
        let verdict = match looks.then_some(self.action.is_in_force(&self.attempt(None))) {
            Some(shows) => Verdict::of_look(shows.await, "done; the agent was stopped during the execution", unknown),
            None => Verdict::new(Outcome::Failed, None, unknown),
        };
        self.finish(verdict, None)
    }

    async fn resume_apply(self) -> Result<(), Unwritable> {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        let Some(held) = held else {
            let message = "the agent was stopped during the execution, and the effect has ended meanwhile";
            return self.finish(Verdict::new(Outcome::Failed, Some(false), message), None);
        };
        let in_force = self.action.is_in_force(&self.attempt(Some(&held.undo))).await;
        let mut verdict = Verdict::of_look(
            in_force,
            "in force; the agent was stopped during the execution",
            "not in force: the agent was stopped during the execution",
        );
        verdict.verified = verdict.verified.filter(|_| self.action.about().looks);
        if verdict.outcome == Outcome::Succeeded {
            return self.finish(verdict, None);
        }
        // What was half done is cleaned up now. But it may yet come into force: a program that the agent had started can
        // outlive it. So the effect stays held, and is lifted at its end like any other; lifting what is not there does
        // no harm.
        if held.until.is_none() {
            return self.abandon(held, verdict).await;
        }
        match lift(self.agent, self.action, &held, &self.transcript).await {
            Ok(()) => self.finish(verdict, None),
            Err(_) => self.abandon(held, verdict).await,
        }
    }

    async fn resume_revert(self) -> Result<(), Unwritable> {
        let held = self.agent.read(|ledger| ledger.held_effect(self.command.effect).cloned());
        let undo = held.as_ref().map(|held| &held.undo);
        let lifted = match self.action.is_lifted(&self.attempt(undo)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ActionError::Failed("still in force: the agent was stopped during the execution".into())),
            Err(error) => Err(error),
        };
        self.finish_lifting(held, lifted, "lifted; the agent was stopped during the execution")
    }

    /// Cleans up after an apply that did not work. What cannot be cleaned up is held, and overdue: the clock goes on trying.
    async fn abandon(self, mut held: Held, mut verdict: Verdict) -> Result<(), Unwritable> {
        // The result is about what did not work, not about the cleaning up.
        let cleaning = Mutex::default();
        let record = match lift(self.agent, self.action, &held, &cleaning).await {
            Ok(()) => Record::Lifted { effect: held.effect },
            Err(error) => {
                verdict.message = format!("{}; cleaning up failed too and is tried again: {error}", verdict.message);
                held.until = Some(self.agent.clock.now());
                Record::Held { held: Box::new(held) }
            }
        };
        self.finish(verdict, Some(record))
    }

    /// Ends a command that lifts. What could not be lifted stays held, and overdue: the clock goes on trying.
    fn finish_lifting(
        self,
        held: Option<Held>,
        lifted: Result<(), ActionError>,
        message: &str,
    ) -> Result<(), Unwritable> {
        match (lifted, held) {
            (Ok(()), held) => {
                let lifted = held.map(|held| Record::Lifted { effect: held.effect });
                self.finish(Verdict::new(Outcome::Succeeded, Some(true), message), lifted)
            }
            (Err(error), None) => self.finish(Verdict::of_error(&error), None),
            (Err(error), Some(mut held)) => {
                let mut verdict = Verdict::of_error(&error);
                verdict.message.push_str("; it is tried again");
                held.until = Some(self.agent.clock.now());
                self.finish(verdict, Some(Record::Held { held: Box::new(held) }))
            }
        }
    }

    fn finish(&self, verdict: Verdict, change: Option<Record>) -> Result<(), Unwritable> {
        let transcript = std::mem::take(&mut *self.transcript.lock().unwrap_or_else(PoisonError::into_inner));
        let result = CommandResult {
            command_id: self.command.jti,
            outcome: verdict.outcome,
            exit_code: transcript.exit_code,
            output: transcript.output,
            verified: verdict.verified,
            message: verdict.message,
            started_at: self.started_at,
            finished_at: self.agent.clock.now(),
        };
        self.agent.record(change.into_iter().chain([finished(self.agent, result)]))
    }

    fn begun(&self) -> Record {
        Record::Started { id: self.command.jti, at: self.started_at }
    }

    fn held(&self, undo: Value) -> Held {
        Held {
            effect: self.command.effect,
            action: self.command.action.clone(),
            target: self.command.target.clone(),
            arguments: self.command.arguments.clone(),
            until: self.command.until,
            undo,
            script: self.command.script.clone(),
        }
    }
}
