//! Executes one command, from its first record to its last. First it decides what may be done and
//! records what is about to be done. Then it acts and verifies, and records the result. The program
//! may crash between any two of these steps; the journal then decides how to continue.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, Outcome};
use riposte_protocol::target::TargetKind;
use serde_json::{Value, json};

use super::admit::{admit, find, unknown};
use super::execution::{Execution, Verdict, actual, refuse};
use super::lift::{Lifted, lift, overdue, within};
use crate::actions::{self, ActionError, Attempt};
use crate::agent::{Agent, Unwritable};
use crate::journal::{Held, Record};
use crate::refusal::EXPIRED;

/// Time limit for collecting evidence: what is to be stopped continues meanwhile.
const EVIDENCE_TIME: Duration = Duration::from_secs(2);

/// What is said of an apply that did not fail and does not show.
pub(super) const NOT_IN_FORCE: &str = "it was applied without an error but is not in force";
const NOT_SHOWN: &str = "it was applied without an error but it does not show";

/// How much of what it would have run an agent that only observes tells in its reason, in characters: one line of a table.
const MAX_PLAN_CHARS: usize = 160;

/// Executes a command that was not begun before.
pub(super) async fn command(agent: &Agent, command: &Command) {
    if command.op == Op::Revert {
        let started_at = agent.clock.now();
        if agent.read(|state| state.is_expired(command, started_at)) {
            return refuse(agent, command, EXPIRED.into());
        }
        return super::unapply::command(agent, command, started_at).await;
    }
    if let Some(execution) = begin(agent, command).await {
        if execution.is_undoable() { execution.apply().await } else { execution.apply_once().await }
    }
}

/// Decides whether an apply is executed; `None` if it was answered instead.
pub(super) async fn begin<'a>(agent: &'a Agent, command: &'a Command) -> Option<Execution<'a>> {
    if command.target.kind() == TargetKind::Ip {
        agent.self_protection.await_manager().await;
    }
    let started_at = agent.clock.now();
    if agent.read(|state| state.is_expired(command, started_at)) {
        refuse(agent, command, EXPIRED.into());
        return None;
    }
    let action = match admit(agent, command) {
        Ok(action) => action,
        Err(reason) => {
            refuse(agent, command, reason);
            // What is in force from before its target became protected does not wait for the next look at what is held.
            if agent.protects(&command.target).is_some() {
                super::converge::look(agent, command.effect).await;
            }
            return None;
        }
    };
    let execution = Execution::new(agent, command, action, started_at);
    if agent.policy.observe {
        execution.observe();
        return None;
    }
    if let Err(reason) = actions::availability(action, &agent.host) {
        let message = format!("{} cannot be run here: {reason}", action.name());
        execution.finish(Verdict::new(Outcome::Failed, None, message), None);
        return None;
    }
    Some(execution)
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

impl Execution<'_> {
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

    pub(super) async fn apply(mut self) {
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
            Verdict::of_look(shows, good, if self.is_undoable() { NOT_IN_FORCE } else { NOT_SHOWN })
        } else {
            Verdict::unseen(good)
        }
    }

    pub(super) fn log_applied(&self) {
        let attempt = self.attempt(None);
        let note = attempt.log_line(Op::Apply, &self.command.action, self.action.about());
        self.agent.host.note(&note, self.agent.clock.now());
    }

    /// The command is in the journal, but its refusal cannot be written: after a crash the command
    /// would be executed. So the refusal is not reported yet.
    pub(super) fn refuse_unwritten(&self, unwritable: &Unwritable) {
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
    pub(super) async fn abandon(self, held: Held, verdict: Verdict) {
        // The result is about the failure, not about the clean-up.
        let cleaning = Mutex::default();
        let lifted = lift(self.agent, self.action, &held, &cleaning).await;
        self.agent.note(self.end_of_cleaning(held, verdict, lifted));
    }

    /// The records of a failed apply that was cleaned up.
    pub(super) fn end_of_cleaning(
        &self,
        held: Held,
        mut verdict: Verdict,
        lifted: Result<Lifted, ActionError>,
    ) -> Vec<Record> {
        let record = match lifted {
            Ok(_) => Record::Lifted { effect: held.effect },
            Err(error) => {
                verdict.message = format!("{}; cleaning up failed too and is retried: {error}", verdict.message);
                overdue(self.agent, held, &error)
            }
        };
        self.end(verdict, Some(record))
    }
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
