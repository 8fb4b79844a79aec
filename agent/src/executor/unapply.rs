//! Reverts. A held effect is lifted exactly as the journal recorded it: by that action, that
//! program and those arguments. What the command names, or what the host's own rules forbid by now,
//! does not matter.
//!
//! A revert of an effect that is not held never runs a custom program: it would be an order that no
//! rule of this host has checked. The journal answers if it can. Otherwise the effect is looked for
//! if its action can see it, and only what is certainly the agent's own is removed.

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::Outcome;
use riposte_protocol::time::Timestamp;

use super::admit::{find, unknown};
use super::execution::{Execution, Verdict, refuse};
use super::lift::{self, within};
use crate::actions::{self, ActionError, Attempt};
use crate::agent::Agent;
use crate::journal::{Held, JournalState};

/// Executes a revert that was not begun before.
pub(super) async fn command(agent: &Agent, command: &Command, started_at: Timestamp) {
    match agent.read(|state| state.held_effect(command.effect).cloned()) {
        Some(held) => lift_held(agent, command, held, started_at).await,
        None => answer(agent, command, started_at).await,
    }
}

/// Lifts a held effect.
pub(super) async fn lift_held(agent: &Agent, command: &Command, held: Held, started_at: Timestamp) {
    let Some(action) = find(agent, &held.action, held.script.as_ref()) else {
        return refuse(agent, command, unknown(&held.action));
    };
    let execution = Execution::new(agent, command, action, started_at);
    // Lifting twice does no harm, so a journal that cannot be written does not prevent it.
    agent.note([execution.begun()]);
    let lifted = lift::lift(agent, action, &held, &execution.transcript).await;
    execution.finish_lifting(held, lifted, "lifted");
}

/// Answers a revert of an effect that is not held.
pub(super) async fn answer(agent: &Agent, command: &Command, started_at: Timestamp) {
    let Some(action) = find(agent, &command.action, command.script.as_ref()) else {
        return refuse(agent, command, unknown(&command.action));
    };
    if let Err(reason) = action.about().check_target(&command.target) {
        return refuse(agent, command, reason);
    }
    let execution = Execution::new(agent, command, action, started_at);
    if !execution.is_undoable() {
        let message = "there is nothing to undo: the action was complete in itself";
        return execution.finish(Verdict::new(Outcome::Succeeded, None, message), None);
    }
    execution.answer_unheld().await;
}

/// What a look shows of an effect that is not held.
enum Trace {
    /// Nothing of it is there.
    None,
    /// Something is there that is or may be the effect.
    Some,
    /// It was there, was certainly the agent's own, and is removed.
    Removed,
}

impl Execution<'_> {
    async fn answer_unheld(self) {
        let (agent, command) = (self.agent, self.command);
        let effect = command.effect;
        // What the journal says was not looked at.
        let known = |message: &str| Verdict::new(Outcome::Succeeded, None, message);
        let program = command.script.as_ref().map(|script| script.executable.as_str());
        let (is_lifted, is_whole, has_twin) = agent.read(|state: &JournalState| {
            let has_twin = state.twin(effect, &command.action, program, &command.target).is_some();
            (state.has_lifted(effect), state.is_whole(), has_twin)
        });
        if is_lifted {
            return self.finish(known("this agent has lifted it before; nothing was done again"), None);
        }
        if has_twin {
            return self.finish(known("it was not held; another effect holds the same"), None);
        }
        agent.note([self.begun()]);
        let never = "this agent's journal shows that it was never applied, or is lifted; nothing was run";
        let verdict = match self.trace().await {
            Ok(Some(Trace::None | Trace::Removed)) => {
                Verdict::new(Outcome::Succeeded, Some(true), "it was not held any more; nothing of it is left")
            }
            // What shows is not the agent's own, or cannot be seen: the journal knows.
            _ if is_whole => known(never),
            Ok(Some(Trace::Some)) => Verdict::new(
                Outcome::Failed,
                Some(false),
                "it is not held, and something like it is there, of an unknown owner: check it, and remove it by hand",
            ),
            Ok(None) => Verdict::new(
                Outcome::Failed,
                None,
                "it is not held, the journal does not go back far enough to say that it was never applied, and nothing shows \
                 it: no program was run; lift it by hand, then run riposte-agent release --lifted EFFECT",
            ),
            Err(error) => Verdict::of_error(&error),
        };
        if verdict.outcome != Outcome::Succeeded {
            let (action, target) = (&command.action, &command.target);
            tracing::error!(%effect, action, %target, "incident: an effect that is not held cannot be lifted");
        }
        self.finish(verdict, None);
    }

    /// Looks for the effect, and removes what is certainly the agent's own; `None` if it cannot be
    /// seen.
    async fn trace(&self) -> Result<Option<Trace>, ActionError> {
        if !self.action.about().looks || self.command.script.is_some() {
            return Ok(None);
        }
        if let Err(reason) = actions::availability(self.action, &self.agent.host) {
            return Err(ActionError::Failed(format!("{} cannot be run here: {reason}", self.action.name())));
        }
        let attempt = self.attempt(None);
        if self.is_gone(&attempt).await? {
            return Ok(Some(Trace::None));
        }
        if self.agent.policy.observe {
            return Ok(Some(Trace::Some));
        }
        within(self.agent, self.action.revert(&attempt)).await?;
        if !self.is_gone(&attempt).await? {
            return Ok(Some(Trace::Some));
        }
        let note = attempt.log_line(Op::Revert, &self.command.action, self.action.about());
        self.agent.host.note(&note, self.agent.clock.now());
        Ok(Some(Trace::Removed))
    }

    /// Whether neither the effect nor a part of it shows.
    async fn is_gone(&self, attempt: &Attempt<'_>) -> Result<bool, ActionError> {
        Ok(within(self.agent, self.action.is_lifted(attempt)).await?
            && !within(self.agent, self.action.is_in_force(attempt)).await?)
    }
}
