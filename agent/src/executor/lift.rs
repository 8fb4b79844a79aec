//! Lifting: by the clock, by hand, and as the last step of commands. What cannot be lifted stays held and overdue, is
//! an incident until it is lifted, and is tried for ever.

use std::sync::Mutex;
use std::time::Duration;

use riposte_protocol::command::Op;

use super::admit::{find, unknown};
use crate::actions::{Action, ActionError, Attempt, Step, Transcript};
use crate::agent::Agent;
use crate::journal::{Failing, Held, Ledger, Record};
use crate::responses_log::Note;

/// The longest reason of an incident: some hundred of them fit into a message.
const MAX_REASON_CHARS: usize = 300;
/// A program that may take the whole time of its step is ended by its runner, which asks it first and keeps what it said;
/// a little later the step is stopped, whatever it is doing.
const MANNERS: Duration = Duration::from_secs(3);

/// How it is known that an effect is lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifted {
    /// It was looked for, and nothing of it is left.
    Seen,
    /// By the word of what was run: nothing shows it.
    Unseen,
    /// Another effect holds the same, so nothing was run.
    Shared,
}

/// Undoes an effect whose time is up; gives whether it is lifted. If not, it stays held, to be tried again.
pub(super) async fn undo(agent: &Agent, held: &Held) -> bool {
    let (effect, action, target) = (held.effect, &held.action, &held.target);
    match lift_by_name(agent, held).await {
        Ok(_) => {
            agent.note([Record::Lifted { effect }]);
            tracing::info!(%effect, action, %target, "effect lifted, its time was up");
            agent.tell_of(effect);
            true
        }
        Err(error) => {
            tracing::error!(%effect, action, %target, %error, "incident: an effect could not be lifted; it is tried again");
            fail(agent, held, &error);
            false
        }
    }
}

/// What came out of [`release`].
#[derive(Debug, Default)]
pub struct Release {
    /// The effects that are lifted.
    pub lifted: Vec<Held>,
    /// Those that are not, and why.
    pub failed: Vec<(Held, String)>,
    /// How many commands that had not been begun are refused.
    pub refused: usize,
}

/// Lifts everything that is held, on purpose, and refuses what was received and not begun. What cannot be lifted is
/// overdue from now on, so the next run of the agent goes on trying. Not for an agent whose lanes run: one of them could
/// be repairing what is lifted here.
pub async fn release(agent: &Agent, reason: &str) -> Release {
    let mut release = Release::default();
    agent.note_what(|ledger| {
        let waiting = ledger.pending().filter(|pending| pending.started.is_none());
        let refused = waiting.map(|pending| {
            let result = crate::intake::refusal(pending.command.jti, reason, agent.clock.now());
            Record::Finished { result: Box::new(result) }
        });
        let refused: Vec<Record> = refused.collect();
        release.refused = refused.len();
        refused
    });
    let all: Vec<Held> = agent.read(|ledger| ledger.held().cloned().collect());
    for held in all {
        match lift_by_name(agent, &held).await {
            Ok(_) => {
                agent.note([held.released(agent.clock.now(), reason)]);
                release.lifted.push(held);
            }
            Err(error) => {
                agent.note([overdue(agent, held.clone(), &error)]);
                release.failed.push((held, error.to_string()));
            }
        }
    }
    release
}

async fn lift_by_name(agent: &Agent, held: &Held) -> Result<Lifted, ActionError> {
    match find(agent, &held.action, held.script.as_ref()) {
        None => Err(ActionError::Failed(unknown(&held.action))),
        Some(action) => lift(agent, action, held, &Mutex::default()).await,
    }
}

/// Reverts an effect and looks that nothing of it is left, where that shows.
pub(super) async fn lift(
    agent: &Agent,
    action: &dyn Action,
    held: &Held,
    transcript: &Mutex<Transcript>,
) -> Result<Lifted, ActionError> {
    let attempt = &attempt(agent, held, transcript);
    // Another effect wants the same: the state is its own now, and so is what was before.
    let twin = |ledger: &Ledger| ledger.twin(held.effect, &held.action, held.program(), &held.target).cloned();
    if let Some(twin) = agent.read(twin) {
        agent.host.keys.forget(held.effect);
        // The block that the log knows of ends with the last that holds it.
        if held.in_log && !twin.in_log {
            agent.note([Record::Held { held: Box::new(Held { in_log: true, ..twin }) }]);
        }
        return Ok(Lifted::Shared);
    }
    within(agent, action.revert(attempt)).await?;
    if !within(agent, action.is_lifted(attempt)).await? {
        return Err(ActionError::Failed("it was reverted but is still in force".into()));
    }
    if held.in_log {
        agent.host.note(&Note::of(Op::Revert, &held.action, action.about(), attempt), agent.clock.now());
    }
    Ok(if action.about().looks { Lifted::Seen } else { Lifted::Unseen })
}

/// An attempt at what is held. The alert of a custom program is in what is needed to undo it.
pub(super) fn attempt<'a>(agent: &'a Agent, held: &'a Held, transcript: &'a Mutex<Transcript>) -> Attempt<'a> {
    let mut attempt = Attempt::new(&agent.host, transcript, &held.target);
    attempt.effect = held.effect;
    attempt.arguments = &held.arguments;
    attempt.script = held.script.as_ref();
    attempt.undo = Some(&held.undo);
    attempt
}

/// An effect that should have been lifted by now and could not be: from now on the clock lifts it.
pub(super) fn overdue(agent: &Agent, mut held: Held, error: &ActionError) -> Record {
    let now = agent.clock.moment();
    held.end_at(Some(now.wall), &now);
    let since = held.failing.map_or(now.wall, |failing| failing.since);
    held.failing = Some(Failing { since, reason: sentence(error) });
    agent.tell_of(held.effect);
    Record::Held { held: Box::new(held) }
}

/// What went wrong, short enough to be told with every effect that fails.
fn sentence(error: &ActionError) -> String {
    error.to_string().chars().take(MAX_REASON_CHARS).collect()
}

/// Writes down that the effect is an incident, unless that is known already.
fn fail(agent: &Agent, held: &Held, error: &ActionError) {
    let reason = sentence(error);
    if held.failing.as_ref().is_none_or(|failing| failing.reason != reason) {
        let since = held.failing.as_ref().map_or_else(|| agent.clock.now(), |failing| failing.since);
        let failing = Some(Failing { since, reason });
        agent.note([Record::Held { held: Box::new(Held { failing, ..held.clone() }) }]);
        agent.tell_of(held.effect);
    }
}

/// One step of an action, within the time that the local policy gives it and a little more, as above. What it had
/// started is killed with it.
pub(super) async fn within<T>(agent: &Agent, step: Step<'_, T>) -> Result<T, ActionError> {
    let limit = agent.policy.timeout;
    let late = || format!("it did not end within {} s and was stopped", limit.as_secs());
    tokio::time::timeout(limit + MANNERS, step).await.unwrap_or_else(|_| Err(ActionError::TimedOut(late())))
}
