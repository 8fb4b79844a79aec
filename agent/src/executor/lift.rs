//! Lifting: by the clock, by hand, and as the last step of commands. An effect that cannot be
//! lifted stays held and overdue, is an incident, and is retried until it is lifted.

use std::sync::Mutex;
use std::time::Duration;

use riposte_protocol::command::Op;

use super::admit::{find, unknown};
use crate::actions::{Action, ActionError, Attempt, Looks, Step, Transcript};
use crate::agent::Agent;
use crate::journal::{Failing, Held, JournalState, Record};

/// Longest reason of an incident, in characters: some hundred of them fit into a message.
const MAX_REASON_CHARS: usize = 300;
/// Extra time of a step beyond its limit. A program that uses the whole limit is ended by its
/// runner, which sends SIGTERM first and keeps its output. After this extra time the step is
/// dropped.
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

/// Undoes an effect whose time is up; returns whether it is lifted. If not, it stays held, to be tried again.
pub(super) async fn undo(agent: &Agent, held: &Held) -> bool {
    let (record, is_lifted) = end_of_undo(agent, held, lift_by_name(agent, held).await);
    agent.note(record);
    is_lifted
}

/// The record of an undo, if there is anything new to record, and whether the effect is lifted.
pub(super) fn end_of_undo(agent: &Agent, held: &Held, undone: Result<Lifted, ActionError>) -> (Option<Record>, bool) {
    let (effect, action, target) = (held.effect, &held.action, &held.target);
    match undone {
        Ok(_) => {
            tracing::info!(%effect, action, %target, "effect lifted at its end");
            agent.tell_of(effect);
            (Some(Record::Lifted { effect }), true)
        }
        Err(error) => {
            tracing::error!(%effect, action, %target, %error, "incident: an effect could not be lifted; it is retried");
            (failing(agent, held, &error), false)
        }
    }
}

/// Result of [`release`].
#[derive(Debug, Default)]
pub struct Release {
    /// The effects that were lifted.
    pub lifted: Vec<Held>,
    /// The effects that could not be lifted, each with the reason.
    pub failed: Vec<(Held, String)>,
    /// Number of commands that were refused because they had not been begun.
    pub refused: usize,
}

/// Lifts everything that is held, on purpose, and refuses commands that were not begun. What cannot
/// be lifted is overdue from now on, so the next run of the agent retries it.
///
/// Must not run while the lanes run: one of them could repair what is lifted here.
pub async fn release(agent: &Agent, reason: &str) -> Release {
    let mut release = Release::default();
    agent.note_what(|state| {
        let waiting = state.pending().filter(|pending| pending.started.is_none());
        let refused = waiting.map(|pending| {
            let result = crate::refusal::refusal(pending.command.jti, reason, agent.clock.now());
            Record::Finished { result: Box::new(result) }
        });
        let refused: Vec<Record> = refused.collect();
        release.refused = refused.len();
        refused
    });
    let all: Vec<Held> = agent.read(|state| state.held().cloned().collect());
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
    if hand_over(agent, held) {
        return Ok(Lifted::Shared);
    }
    let attempt = &attempt(agent, held, transcript);
    within(agent, action.revert(attempt)).await?;
    lifted(agent, action, held, attempt, within(agent, action.is_lifted(attempt)).await)
}

/// Hands the state and the undo over to another effect that needs the same; returns whether there is
/// one.
pub(super) fn hand_over(agent: &Agent, held: &Held) -> bool {
    let twin = |state: &JournalState| state.twin(held.effect, &held.action, held.program(), &held.target).cloned();
    let Some(twin) = agent.read(twin) else { return false };
    agent.host.keys.forget(held.effect);
    // The block in the log ends with the last effect that holds it.
    if held.in_log && !twin.in_log {
        agent.note([Record::Held { held: Box::new(Held { in_log: true, ..twin }) }]);
    }
    true
}

/// What is known of a reverted effect after a look; notes its end in the log of responses.
pub(super) fn lifted(
    agent: &Agent,
    action: &dyn Action,
    held: &Held,
    attempt: &Attempt<'_>,
    is_lifted: Result<bool, ActionError>,
) -> Result<Lifted, ActionError> {
    if !is_lifted? {
        return Err(ActionError::Failed("it was reverted but is still in force".into()));
    }
    if held.in_log {
        agent.host.note(&attempt.log_line(Op::Revert, &held.action, action.about()), agent.clock.now());
    }
    Ok(if action.about().looks { Lifted::Seen } else { Lifted::Unseen })
}

/// An attempt at a held effect. The alert of a custom program is in its undo data.
pub(super) fn attempt<'a>(agent: &'a Agent, held: &'a Held, transcript: &'a Mutex<Transcript>) -> Attempt<'a> {
    let mut attempt = Attempt::new(&agent.host, transcript, &held.target);
    attempt.effect = held.effect;
    attempt.arguments = &held.arguments;
    attempt.script = held.script.as_ref();
    attempt.undo = Some(&held.undo);
    attempt
}

/// Marks an effect that should have been lifted by now: the clock lifts it from now on.
pub(super) fn overdue(agent: &Agent, mut held: Held, error: &ActionError) -> Record {
    let now = agent.clock.moment();
    held.end_at(Some(now.wall), &now);
    let since = held.failing.map_or(now.wall, |failing| failing.since);
    held.failing = Some(Failing { since, reason: sentence(error) });
    agent.tell_of(held.effect);
    Record::Held { held: Box::new(held) }
}

/// The error, short enough to be reported with every effect that fails.
fn sentence(error: &ActionError) -> String {
    error.to_string().chars().take(MAX_REASON_CHARS).collect()
}

/// The record of the incident, unless it is recorded already.
fn failing(agent: &Agent, held: &Held, error: &ActionError) -> Option<Record> {
    let reason = sentence(error);
    if held.failing.as_ref().is_some_and(|failing| failing.reason == reason) {
        return None;
    }
    let since = held.failing.as_ref().map_or_else(|| agent.clock.now(), |failing| failing.since);
    agent.tell_of(held.effect);
    Some(Record::Held { held: Box::new(Held { failing: Some(Failing { since, reason }), ..held.clone() }) })
}

/// Runs one step of an action within the time limit of the local policy and the extra time above.
/// Programs that it started are killed with it.
pub(super) async fn within<T>(agent: &Agent, step: Step<'_, T>) -> Result<T, ActionError> {
    let limit = agent.policy.timeout;
    tokio::time::timeout(limit + MANNERS, step).await.unwrap_or_else(|_| Err(late(limit)))
}

/// The same for a look at `count` effects.
pub(super) async fn all_within(agent: &Agent, count: usize, looks: Looks<'_>) -> Vec<Result<bool, ActionError>> {
    let limit = agent.policy.timeout;
    let all_late = |_| (0..count).map(|_| Err(late(limit))).collect();
    tokio::time::timeout(limit + MANNERS, looks).await.unwrap_or_else(all_late)
}

fn late(limit: Duration) -> ActionError {
    ActionError::TimedOut(format!("it did not end within {} s and was stopped", limit.as_secs()))
}
