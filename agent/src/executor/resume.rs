//! Resumes a command that was begun in an earlier run of the agent. Nothing is brought into force
//! again. The state is looked at and reported; a half-done apply is cleaned up, and a half-done
//! revert is completed.

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, Outcome};
use riposte_protocol::time::Timestamp;

use super::admit::{find, unknown};
use super::execution::{Execution, Verdict, refuse, seen};
use super::lift::{Lifted, attempt, lift, within};
use super::unapply;
use crate::actions::ActionError;
use crate::agent::Agent;
use crate::journal::{Held, Pending, Record};

/// Finishes a command that was begun in an earlier run of the agent.
pub(super) async fn resume(agent: &Agent, pending: &Pending, started_at: Timestamp) {
    let command = &pending.command;
    if command.op == Op::Revert {
        return resume_revert(agent, command, started_at).await;
    }
    let Some(action) = find(agent, &command.action, command.script.as_ref()) else {
        return refuse(agent, command, unknown(&command.action));
    };
    let mut execution = Execution::new(agent, command, action, started_at);
    execution.evidence.clone_from(&pending.evidence);
    if execution.is_undoable() { execution.resume_apply().await } else { execution.resume_once().await }
}

impl Execution<'_> {
    /// An action without a lasting effect cannot be cleaned up. Only its beginning is known, unless
    /// its result can be seen.
    async fn resume_once(self) {
        let unknown = "the agent was stopped during the execution: it may have been done, and is not done again";
        let verdict = if self.action.about().looks {
            let shows = within(self.agent, self.action.is_in_force(&self.attempt(None))).await;
            Verdict::of_look(shows, "done; the agent was stopped during the execution", unknown)
        } else {
            Verdict::new(Outcome::Failed, None, unknown)
        };
        self.finish(verdict, None);
    }

    async fn resume_apply(self) {
        let Some(held) = self.held_now() else {
            let message = "the agent was stopped during the execution, and the effect has ended meanwhile";
            return self.finish(Verdict::new(Outcome::Failed, Some(false), message), None);
        };
        let in_force = within(self.agent, self.action.is_in_force(&self.attempt(Some(&held.undo)))).await;
        let mut verdict = Verdict::of_look(
            in_force,
            "in force; the agent was stopped during the execution",
            "not in force: the agent was stopped during the execution",
        );
        verdict.verified = verdict.verified.filter(|_| self.action.about().looks);
        if verdict.outcome == Outcome::Succeeded {
            let seen = verdict.verified.map(|in_force| seen(held, in_force));
            return self.finish(verdict, seen);
        }
        // A half-done apply is cleaned up now. But it may yet come into force: a program that the
        // agent had started can outlive it. So the effect stays held and is lifted at its end like
        // any other; lifting what is not there does no harm.
        if held.until.is_none() {
            return self.abandon(held, verdict).await;
        }
        match lift(self.agent, self.action, &held, &self.transcript).await {
            Ok(_) => {
                // Held only for its end: a later look must not take it for drift and apply it again.
                let actual = Some(Actual::Absent);
                self.finish(verdict, Some(Record::Held { held: Box::new(Held { actual, ..held }) }));
            }
            Err(_) => self.abandon(held, verdict).await,
        }
    }
}

async fn resume_revert(agent: &Agent, command: &Command, started_at: Timestamp) {
    let Some(held) = agent.read(|state| state.held_effect(command.effect).cloned()) else {
        return unapply::answer(agent, command, started_at).await;
    };
    let action = find(agent, &held.action, held.script.as_ref());
    // Whether it was lifted cannot be seen: it is lifted again, which does no harm.
    let Some(action) = action.filter(|action| action.about().looks) else {
        return unapply::lift_held(agent, command, held, started_at).await;
    };
    let execution = Execution::new(agent, command, action, started_at);
    let attempt = attempt(agent, &held, &execution.transcript);
    let lifted = match within(agent, action.is_lifted(&attempt)).await {
        Ok(true) => Ok(Lifted::Seen),
        Ok(false) => Err(ActionError::Failed("still in force: the agent was stopped during the execution".into())),
        Err(error) => Err(error),
    };
    execution.finish_lifting(held, lifted, "lifted; the agent was stopped during the execution");
}
