//! Executes what is in the journal. There is one lane per lock domain, and a lane does one thing at
//! a time. So actions that share a lock never run at once, and the commands of an effect run by
//! their numbers. A revert by the clock never races a command. A program that hangs blocks only its
//! own lane.
//!
//! A lane has no queue of its own. It reads the journal for what is next, so a restart needs no
//! special path: unfinished commands are still there.

mod admit;
mod bulk;
#[cfg(test)]
mod bulk_tests;
#[cfg(test)]
mod campaign;
mod converge;
mod execute;
mod execution;
mod lift;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod real_drift;
mod resume;
mod schedule;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust_tests;
mod turn;
#[cfg(test)]
mod turn_tests;
mod unapply;

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::command::{Op, Script};
use tokio::sync::Notify;
use uuid::Uuid;

pub use self::lift::{Release, release};

use self::admit::find_bulk;
use self::converge::Rounds;
use self::schedule::{Next, Retries};
use crate::actions::Domain;
use crate::agent::Agent;
use crate::journal::{Held, Pending, Record};

/// Pause before the journal is written again after a failure; it doubles up to a minute.
const MEND_AFTER: Duration = Duration::from_secs(2);
const MEND_AT_LEAST_EVERY: Duration = Duration::from_mins(1);

/// Carries over the state of an earlier run and starts the lanes. Also starts a task that opens one
/// lane for each custom program when it is first named.
pub fn start(agent: &Arc<Agent>) {
    carry_over(agent);
    open_lanes(agent);
    agent.tasks.spawn("journal", mend_journal(Arc::clone(agent)));
    let agent = Arc::clone(agent);
    Arc::clone(&agent).tasks.spawn("lanes", async move {
        while !agent.tasks.is_stopping() {
            tokio::select! {
                () = agent.wait_for_lanes() => open_lanes(&agent),
                () = agent.tasks.stopped() => {}
            }
        }
    });
}

fn open_lanes(agent: &Arc<Agent>) {
    for (domain, wakeup) in agent.open_lanes() {
        agent.tasks.spawn("lane", run_lane(Arc::clone(agent), domain, wakeup));
    }
}

fn carry_over(agent: &Agent) {
    let now = agent.clock.moment();
    agent.note_what(|state| {
        let carried = state.held().filter_map(|held: &Held| {
            let mut held = held.clone();
            held.carry_over(&now).then(|| Record::Held { held: Box::new(held) })
        });
        carried.collect()
    });
}

async fn run_lane(agent: Arc<Agent>, domain: Domain, wakeup: Arc<Notify>) {
    let mut retries = Retries::default();
    let mut rounds = Rounds::new(agent.policy.verify_every);
    while !agent.tasks.is_stopping() {
        let now = agent.clock.moment();
        let of_domain = |action: &str, script: Option<&Script>| agent.domain_of(action, script) == domain;
        let is_bulk = |action: &str| agent.action(action).is_some_and(|action| action.bulk().is_some());
        let next = agent.read(|state| schedule::next(state, &retries, &mut rounds, &now, of_domain, is_bulk));
        match next {
            Next::Undo(held) => {
                for (effect, is_lifted) in undo(&agent, held).await {
                    if is_lifted {
                        retries.forget(effect);
                    } else {
                        retries.delay(effect);
                    }
                }
            }
            Next::Commands(pending) => {
                for effect in execute(&agent, pending).await {
                    wait_if_failing(&agent, effect, &mut retries);
                }
            }
            Next::Look(effects) => {
                rounds.put_back(converge::look_at_some(&agent, effects.clone()).await);
                for effect in effects {
                    wait_if_failing(&agent, effect, &mut retries);
                }
            }
            Next::Wait(pause) => {
                let alarm = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = wakeup.notified() => {}
                    () = alarm => {}
                    () = agent.tasks.stopped() => {}
                }
            }
        }
        // A turn may have waited for nothing, and the agent has one thread.
        tokio::task::yield_now().await;
    }
}

/// Undoes effects that have ended: all together if their action can do that here, otherwise the
/// first. Returns which of them were tried, and whether each is lifted.
async fn undo(agent: &Agent, held: Vec<Held>) -> Vec<(Uuid, bool)> {
    match (find_bulk(agent, held.first().map(|held| held.action.as_str())), held.as_slice()) {
        (Some((action, bulk)), [_, _, ..]) => bulk::undo(agent, action, bulk, held).await,
        (_, [first, ..]) => vec![(first.effect, lift::undo(agent, first).await)],
        (_, []) => Vec::new(),
    }
}

/// Executes commands: all together if their action can do that here, otherwise the first. Returns
/// the effects of those that were executed.
async fn execute(agent: &Agent, pending: Vec<Pending>) -> Vec<Uuid> {
    let Some(first) = pending.first() else { return Vec::new() };
    let held_by = agent.read(|state| state.held_effect(first.command.effect).map(|held| held.action.clone()));
    let action = held_by.filter(|_| first.command.op == Op::Revert).unwrap_or_else(|| first.command.action.clone());
    let effects = pending.iter().map(|pending| pending.command.effect).collect();
    match (find_bulk(agent, Some(&action)), first.started) {
        (Some((action, bulk)), _) if pending.len() > 1 => {
            match first.command.op {
                Op::Apply => bulk::apply(agent, action, bulk, &pending).await,
                Op::Revert => bulk::revert(agent, action, bulk, &pending).await,
            }
            return effects;
        }
        (_, None) => execute::command(agent, &first.command).await,
        (_, Some(started_at)) => resume::resume(agent, first, started_at).await,
    }
    vec![first.command.effect]
}

/// An effect that could not be lifted a moment ago is not retried at once: the cause is still
/// there.
fn wait_if_failing(agent: &Agent, effect: Uuid, retries: &mut Retries) {
    let is_failing = agent.read(|state| state.held_effect(effect).is_some_and(|held| held.failing.is_some()));
    if is_failing && retries.wait(effect).is_zero() {
        retries.delay(effect);
    }
}

/// Sleeps until the journal breaks, and then retries to rewrite it.
async fn mend_journal(agent: Arc<Agent>) {
    let mut pause = MEND_AFTER;
    while !agent.tasks.is_stopping() {
        if agent.unwritable().is_none() {
            pause = MEND_AFTER;
            tokio::select! {
                () = agent.journal_broke.notified() => {}
                () = agent.tasks.stopped() => {}
            }
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = agent.tasks.stopped() => return,
        }
        pause = (2 * pause).min(MEND_AT_LEAST_EVERY);
        if agent.mend_journal() {
            tracing::info!("the journal can be written again");
            // Reports were held back until now.
            agent.outbox.notify_one();
        }
    }
    // Records that were only noted have one more chance to be written.
    if agent.unwritable().is_some() {
        agent.mend_journal();
    }
}
