//! Many commands of one action at once, and many lifts: the same steps as for one, each for all of
//! them before the next. The journal has what is about to be done for all before anything is done
//! for one, as for a single command. A crash in between leaves all of them begun; each is then
//! looked at by itself (`resume.rs`).
//!
//! The lane chose them (`schedule.rs`): no two have the same effect or the same target, and nothing is
//! held of those that are applied.

use std::sync::Mutex;

use riposte_protocol::message::Outcome;
use uuid::Uuid;

use super::execute::{self, NOT_IN_FORCE};
use super::execution::{Execution, Verdict, actual, refuse};
use super::lift::{self, Lifted, all_within};
use crate::actions::{Action, ActionError, Attempt, Bulk, Step, Transcript};
use crate::agent::Agent;
use crate::journal::{Held, Pending, Record};
use crate::refusal::EXPIRED;

/// Executes applies that were not begun before, and of whose effects and targets nothing is held.
pub(super) async fn apply(agent: &Agent, action: &'static dyn Action, bulk: &dyn Bulk, pending: &[Pending]) {
    let mut new: Vec<(Execution<'_>, Held)> = Vec::new();
    for pending in pending {
        let Some(execution) = execute::begin(agent, &pending.command).await else { continue };
        if execution.command.until.is_some_and(|until| until <= execution.started_at) {
            execution.apply().await;
            continue;
        }
        match lift::within(agent, action.prepare(&execution.attempt(None))).await {
            Ok(undo) => {
                let held = execution.held(undo);
                new.push((execution, held));
            }
            Err(error) => execution.finish(Verdict::of_error(&error), None),
        }
    }
    if new.is_empty() {
        return;
    }
    // Without a record the effects would never be lifted, so they are not applied.
    let begun =
        new.iter().flat_map(|(execution, held)| [Record::Held { held: Box::new(held.clone()) }, execution.begun()]);
    if let Err(unwritable) = agent.record(begun) {
        for (execution, _) in &new {
            execution.refuse_unwritten(&unwritable);
        }
        return;
    }
    let verdicts = apply_and_look(agent, bulk, &new).await;
    let (mut records, mut failed) = (Vec::new(), Vec::new());
    for ((execution, mut held), verdict) in new.into_iter().zip(verdicts) {
        if verdict.outcome == Outcome::Succeeded {
            execution.log_applied();
            held.in_log = true;
            held.actual = verdict.verified.map_or(held.actual, |shows| Some(actual(shows)));
            records.extend(execution.end(verdict, Some(Record::Held { held: Box::new(held) })));
        } else {
            failed.push((execution, held, verdict));
        }
    }
    agent.note(records);
    clean_up(agent, action, bulk, failed).await;
}

/// Lifts what failed applies may have left. What cannot be lifted is held and overdue.
async fn clean_up(
    agent: &Agent,
    action: &'static dyn Action,
    bulk: &dyn Bulk,
    failed: Vec<(Execution<'_>, Held, Verdict)>,
) {
    // The results are about the failures, not about the clean-up.
    let cleaning: Vec<Mutex<Transcript>> = failed.iter().map(|_| Mutex::default()).collect();
    let effects = failed.iter().map(|(_, held, _)| held).zip(&cleaning).collect();
    let lifted = lift(agent, action, bulk, effects).await;
    let ends = failed.into_iter().zip(lifted);
    let records =
        ends.flat_map(|((execution, held, verdict), lifted)| execution.end_of_cleaning(held, verdict, lifted));
    agent.note(records.collect::<Vec<_>>());
}

async fn apply_and_look(agent: &Agent, bulk: &dyn Bulk, new: &[(Execution<'_>, Held)]) -> Vec<Verdict> {
    let attempts: Vec<Attempt<'_>> = new.iter().map(|(execution, held)| execution.attempt(Some(&held.undo))).collect();
    let applied = in_parts(agent, &attempts, |attempts| bulk.apply_all(attempts)).await;
    let shown = all_within(agent, attempts.len(), bulk.are_in_force(&attempts)).await;
    let verdict = |(applied, shows): (Result<(), ActionError>, Result<bool, ActionError>)| match applied {
        Ok(()) => Verdict::of_look(shows, "in force", NOT_IN_FORCE),
        Err(error) => Verdict::of_error(&error),
    };
    applied.into_iter().zip(shown).map(verdict).collect()
}

/// Executes reverts that were not begun before, of effects that are held.
pub(super) async fn revert(agent: &Agent, action: &'static dyn Action, bulk: &dyn Bulk, pending: &[Pending]) {
    let mut known: Vec<(Execution<'_>, Held)> = Vec::new();
    for pending in pending {
        let (command, started_at) = (&pending.command, agent.clock.now());
        if agent.read(|state| state.is_expired(command, started_at)) {
            refuse(agent, command, EXPIRED.into());
            continue;
        }
        if let Some(held) = agent.read(|state| state.held_effect(command.effect).cloned()) {
            known.push((Execution::new(agent, command, action, started_at), held));
        }
    }
    // Lifting twice does no harm, so a journal that cannot be written does not prevent it.
    agent.note(known.iter().map(|(execution, _)| execution.begun()));
    let effects = known.iter().map(|(execution, held)| (held, &execution.transcript)).collect();
    let lifted = lift(agent, action, bulk, effects).await;
    let records = known
        .iter()
        .zip(lifted)
        .flat_map(|((execution, held), lifted)| execution.end_of_lifting(held.clone(), lifted, "lifted"));
    agent.note(records.collect::<Vec<_>>());
}

/// Undoes effects whose time is up; returns whether each is lifted. What is not stays held, to be
/// tried again.
pub(super) async fn undo(
    agent: &Agent,
    action: &'static dyn Action,
    bulk: &dyn Bulk,
    held: Vec<Held>,
) -> Vec<(Uuid, bool)> {
    let transcripts: Vec<Mutex<Transcript>> = held.iter().map(|_| Mutex::default()).collect();
    let lifted = lift(agent, action, bulk, held.iter().zip(&transcripts).collect()).await;
    let ends = held.iter().zip(lifted).map(|(held, lifted)| {
        let (record, is_lifted) = lift::end_of_undo(agent, held, lifted);
        (record, (held.effect, is_lifted))
    });
    let (records, results): (Vec<Option<Record>>, Vec<(Uuid, bool)>) = ends.unzip();
    agent.note(records.into_iter().flatten());
    results
}

/// Reverts effects and looks that nothing of them is left.
async fn lift(
    agent: &Agent,
    action: &'static dyn Action,
    bulk: &dyn Bulk,
    effects: Vec<(&Held, &Mutex<Transcript>)>,
) -> Vec<Result<Lifted, ActionError>> {
    let is_shared: Vec<bool> = effects.iter().map(|(held, _)| lift::hand_over(agent, held)).collect();
    let alone = || effects.iter().zip(&is_shared).filter(|(_, is_shared)| !**is_shared).map(|(effect, _)| *effect);
    let attempts: Vec<Attempt<'_>> = alone().map(|(held, transcript)| lift::attempt(agent, held, transcript)).collect();
    if attempts.is_empty() {
        return is_shared.iter().map(|_| Ok(Lifted::Shared)).collect();
    }
    let reverted = in_parts(agent, &attempts, |attempts| bulk.revert_all(attempts)).await;
    let shown = all_within(agent, attempts.len(), bulk.are_lifted(&attempts)).await;
    let mut results = alone().zip(&attempts).zip(reverted.into_iter().zip(shown)).map(
        |(((held, _), attempt), (reverted, is_lifted))| {
            reverted.and_then(|()| lift::lifted(agent, action, held, attempt, is_lifted))
        },
    );
    let missing = || Err(ActionError::Failed("its action returned no result".into()));
    let result = |is_shared: bool| if is_shared { Ok(Lifted::Shared) } else { results.next().unwrap_or_else(missing) };
    is_shared.iter().copied().map(result).collect()
}

/// Takes a step for all attempts. If it fails, for each half of them, and so on, so that one that
/// fails, fails alone. Each part has the whole time limit, and the agent does other things between
/// two. After a time-out or while the agent stops there are no smaller parts.
async fn in_parts<'a>(
    agent: &Agent,
    attempts: &'a [Attempt<'a>],
    step: impl Fn(&'a [Attempt<'a>]) -> Step<'a, ()>,
) -> Vec<Result<(), ActionError>> {
    let mut results = Vec::with_capacity(attempts.len());
    let mut parts = vec![attempts];
    while let Some(part) = parts.pop() {
        let done = lift::within(agent, step(part)).await;
        match done {
            Ok(()) => results.extend(part.iter().map(|_| Ok(()))),
            Err(ActionError::Failed(_) | ActionError::Refused(_)) if part.len() > 1 && !agent.tasks.is_stopping() => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => results.extend(part.iter().map(|_| Err(error.clone()))),
        }
        tokio::task::yield_now().await;
    }
    results
}
