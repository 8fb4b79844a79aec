//! Executes one command, from its first record to its last. First it decides what may be done and
//! records what is about to be done. Then it acts and verifies, and records the result. The program
//! may crash between any two of these steps; the journal then decides how to continue.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, CommandResult, Outcome};
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::admit::{admit, find, unknown};
use super::lift::{Lifted, lift, within};
use crate::actions::{self, Action, ActionError, Attempt, Times, Transcript};
use crate::agent::{Agent, Unwritable};
use crate::intake::{EXPIRED, refusal};
use crate::journal::{Held, Record};
use crate::responses_log::Note;

/// Time limit for collecting evidence: what is to be stopped continues meanwhile.
const EVIDENCE_TIME: Duration = Duration::from_secs(2);

/// How much of what it would have run an agent that only observes tells in its reason, in characters: one line of a table.
const MAX_PLAN_CHARS: usize = 160;

/// What came out of a command.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) verified: Option<bool>,
    message: String,
    /// Whether it only reports what would have been done.
    observed: bool,
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
    fn unseen(done: &str) -> Self {
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

/// Executes a command that was not begun before.
pub(super) async fn command(agent: &Agent, command: &Command) {
    if command.op == Op::Apply && command.target.kind() == TargetKind::Ip {
        agent.self_protection.await_manager().await;
    }
    let started_at = agent.clock.now();
    if agent.read(|state| state.is_expired(command, started_at)) {
        return refuse(agent, command, EXPIRED.into());
    }
    if command.op == Op::Revert {
        return super::unapply::command(agent, command, started_at).await;
    }
    let action = match admit(agent, command) {
        Ok(action) => action,
        Err(reason) => {
            refuse(agent, command, reason);
            // What is in force from before its target became protected does not wait for the next look at what is held.
            if agent.protects(&command.target).is_some() {
                super::converge::look(agent, command.effect).await;
            }
            return;
        }
    };
    let execution = Execution::new(agent, command, action, started_at);
    if agent.policy.observe {
        return execution.observe();
    }
    if let Err(reason) = actions::availability(action, &agent.host) {
        let message = format!("{} cannot be run here: {reason}", action.name());
        return execution.finish(Verdict::new(Outcome::Failed, None, message), None);
    }
    if execution.is_undoable() { execution.apply().await } else { execution.apply_once().await }
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

/// The first line of `plan`, cut at a word; all of it is in the output.
fn first_words(plan: &str) -> String {
    let line = plan.trim().lines().next().unwrap_or_default().trim_end();
    if line == plan.trim() && line.chars().count() <= MAX_PLAN_CHARS {
        return line.to_owned();
    }
    // Room for the mark that it goes on.
    let end = line.char_indices().nth(MAX_PLAN_CHARS - 2).map_or(line.len(), |(end, _)| end);
    let whole_words = if end < line.len() { line[..end].rfind(' ').unwrap_or(end) } else { end };
    format!("{} …", line[..whole_words].trim_end())
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

    /// Reports what would be done. Runs nothing and holds nothing.
    pub(super) fn observe(&self) {
        let plan = self.action.plan(self.command.op, &self.attempt(None));
        let message = format!("the agent only observes; it would have run: {}", first_words(&plan));
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).output = plan;
        let verdict = Verdict { observed: true, ..Verdict::new(Outcome::Succeeded, None, message) };
        self.finish(verdict, None);
    }

    /// Records the state of the target before the execution. If it cannot be seen, the command is
    /// executed anyway and the result says so.
    async fn find_evidence(&mut self, undo: Option<&Value>) {
        let found = {
            let attempt = self.attempt(undo);
            let late = || json!({ "unseen": format!("it took longer than {} s", EVIDENCE_TIME.as_secs()) });
            let found = self.action.evidence(&attempt);
            tokio::time::timeout(EVIDENCE_TIME, found).await.unwrap_or_else(|_| Some(late()))
        };
        self.evidence = found.map(Box::new);
    }

    async fn apply(mut self) {
        let command = self.command;
        if command.until.is_some_and(|until| until <= self.started_at) {
            return self.apply_that_is_over().await;
        }
        let program = command.script.as_ref().map(|script| script.executable.as_str());
        let (held, twin) = self.agent.read(|state| {
            let twin = state.twin(command.effect, &command.action, program, &command.target);
            (state.held_effect(command.effect).cloned(), twin.map(|twin| twin.undo.clone()))
        });
        let (is_new, has_twin) = (held.is_none(), twin.is_some());
        // While the effect is in force, the state before it cannot be seen any more: what was
        // recorded is kept.
        let held = match (held, twin) {
            (Some(held), _) => match self.refresh(held) {
                Ok(held) => held,
                Err(reason) => return self.finish(Verdict::new(Outcome::Refused, None, reason), None),
            },
            (None, Some(undo)) => self.held(undo),
            (None, None) => match within(self.agent, self.action.prepare(&self.attempt(None))).await {
                Ok(undo) => self.held(undo),
                Err(error) => return self.finish(Verdict::of_error(&error), None),
            },
        };
        if is_new && !has_twin {
            self.find_evidence(Some(&held.undo)).await;
        }
        // Without a record the effect would never be lifted, so it is not applied.
        if let Err(unwritable) = self.agent.record([Record::Held { held: Box::new(held.clone()) }, self.begun()]) {
            return self.refuse_unwritten(&unwritable);
        }
        let mut attempt = self.attempt(Some(&held.undo));
        attempt.script = held.script.as_ref();
        attempt.arguments = &held.arguments;
        // A custom program is started once for an effect; the agent itself keeps track of the end.
        let is_known = !is_new && held.script.is_some() && is_believed_in_force(&held);
        let verdict =
            if is_known { Verdict::unseen("in force") } else { self.apply_and_look(&attempt, "in force").await };
        match verdict.outcome {
            Outcome::Succeeded => {
                let mut held = held;
                // A longer term, or an effect that another response holds too, is no new block in
                // the log.
                if !held.in_log && !has_twin {
                    self.log_applied();
                    held.in_log = true;
                }
                held.actual = verdict.verified.map_or(held.actual, |shows| Some(actual(shows)));
                self.finish(verdict, Some(Record::Held { held: Box::new(held) }));
            }
            // A failed refresh leaves in force what was there before, and it must still be lifted.
            _ if !is_new => self.finish(verdict, None),
            _ => self.abandon(held, verdict).await,
        }
    }

    /// The held effect with the end that the command sets. A custom program is not run again. So
    /// the effect is lifted by the program that brought it into force, with the same input.
    fn refresh(&self, old: Held) -> Result<Held, String> {
        let command = self.command;
        if old.action != command.action
            || old.target != command.target
            || old.script.is_some() != command.script.is_some()
        {
            return Err(format!("the effect is held here by {} on {}", old.action, old.target));
        }
        let mut held = self.held(old.undo.clone());
        if let (Some(program), Some(new)) = (old.program(), held.program()) {
            if program != new && !is_believed_in_force(&old) {
                return Err(format!(
                    "the effect is held here by the program {program} and has to be lifted by it first"
                ));
            }
            (held.script, held.arguments) = (old.script, old.arguments);
            (held.actual, held.drifts, held.failing) = (old.actual, old.drifts, old.failing);
        }
        held.in_log = old.in_log;
        Ok(held)
    }

    /// Applies an action without a lasting effect: nothing is held after it.
    async fn apply_once(mut self) {
        self.find_evidence(None).await;
        // Without a record a restart would do it again, so it is not done.
        if let Err(unwritable) = self.agent.record([self.begun()]) {
            return self.refuse_unwritten(&unwritable);
        }
        let verdict = self.apply_and_look(&self.attempt(None), "done").await;
        if verdict.outcome == Outcome::Succeeded {
            self.log_applied();
        }
        self.finish(verdict, None);
    }

    async fn apply_and_look(&self, attempt: &Attempt<'_>, good: &str) -> Verdict {
        if let Err(error) = within(self.agent, self.action.apply(attempt)).await {
            return Verdict::of_error(&error);
        }
        if self.action.about().looks {
            let shows = within(self.agent, self.action.is_in_force(attempt)).await;
            let shown = if self.is_undoable() { "is not in force" } else { "it does not show" };
            Verdict::of_look(shows, good, &format!("it was applied without an error but {shown}"))
        } else {
            Verdict::unseen(good)
        }
    }

    fn log_applied(&self) {
        let attempt = self.attempt(None);
        let note = Note::of(Op::Apply, &self.command.action, self.action.about(), &attempt);
        self.agent.host.note(&note, self.agent.clock.now());
    }

    /// The command is in the journal, but its refusal cannot be written: after a crash the command
    /// would be executed. So the refusal is not reported yet.
    fn refuse_unwritten(&self, unwritable: &Unwritable) {
        self.agent.hold_back(self.command.jti);
        self.finish(Verdict::new(Outcome::Refused, None, unwritable.to_string()), None);
    }

    /// The command's end has passed: nothing is brought into force, and what is in force is lifted.
    async fn apply_that_is_over(self) {
        let held = self.held_now();
        match held {
            None => self
                .finish(Verdict::new(Outcome::Refused, None, "its end had passed before it could be executed"), None),
            Some(held) => {
                self.agent.note([self.begun()]);
                let lifted = match find(self.agent, &held.action, held.script.as_ref()) {
                    Some(action) => lift(self.agent, action, &held, &self.transcript).await,
                    None => Err(ActionError::Failed(unknown(&held.action))),
                };
                self.finish_lifting(held, lifted, "its end had passed, it is lifted");
            }
        }
    }

    /// Cleans up after a failed apply. What cannot be cleaned up is held and overdue, so the clock
    /// retries it.
    pub(super) async fn abandon(self, held: Held, mut verdict: Verdict) {
        // The result is about the failure, not about the clean-up.
        let cleaning = Mutex::default();
        let record = match lift(self.agent, self.action, &held, &cleaning).await {
            Ok(_) => Record::Lifted { effect: held.effect },
            Err(error) => {
                verdict.message = format!("{}; cleaning up failed too and is retried: {error}", verdict.message);
                super::lift::overdue(self.agent, held, &error)
            }
        };
        self.finish(verdict, Some(record));
    }

    /// Ends a command that lifts what is held. What could not be lifted stays held, and overdue: the clock goes on trying.
    pub(super) fn finish_lifting(self, held: Held, lifted: Result<Lifted, ActionError>, message: &str) {
        match lifted {
            Ok(how) => {
                let verdict = match how {
                    Lifted::Seen => Verdict::new(Outcome::Succeeded, Some(true), message),
                    Lifted::Unseen => Verdict::unseen(message),
                    Lifted::Shared => {
                        Verdict::new(Outcome::Succeeded, None, format!("{message}; another effect holds the same"))
                    }
                };
                self.finish(verdict, Some(Record::Lifted { effect: held.effect }));
            }
            Err(error) => {
                let mut verdict = Verdict::of_error(&error);
                verdict.message.push_str("; it is retried");
                self.finish(verdict, Some(super::lift::overdue(self.agent, held, &error)));
            }
        }
    }

    pub(super) fn finish(&self, verdict: Verdict, change: Option<Record>) {
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
        self.agent.note(change.into_iter().chain([finished(self.agent, result)]));
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

fn actual(in_force: bool) -> Actual {
    if in_force { Actual::InForce } else { Actual::Drifted }
}

/// Whether an effect that cannot be seen can be assumed to be in force: it was not cleaned up, and
/// no attempt to lift it failed.
fn is_believed_in_force(held: &Held) -> bool {
    held.failing.is_none() && held.actual != Some(Actual::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_been_run_is_told_in_one_line_that_ends_with_a_word() {
        assert_eq!(first_words("apply alice"), "apply alice");
        assert_eq!(first_words("\nadd table inet riposte\nadd set inet riposte v4\n"), "add table inet riposte …");
        let words = "blocked ".repeat(40);
        let told = first_words(&words);
        assert!(told.ends_with("blocked …") && told.chars().count() <= MAX_PLAN_CHARS, "{told}");
        let one = "é".repeat(400);
        assert_eq!(first_words(&one).chars().count(), MAX_PLAN_CHARS);
        assert_eq!(first_words(&"x".repeat(MAX_PLAN_CHARS)).chars().count(), MAX_PLAN_CHARS, "what fits is whole");
        assert_eq!(first_words(""), "");
    }
}
