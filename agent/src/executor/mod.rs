//! Executes what is in the journal. There is one lane per lock domain, and a lane does one thing at a time: what
//! shares a lock never runs at once, the commands of an effect run by their numbers, and an undo by the clock never
//! races a command. A program that hangs holds up its own lane and no other.
//!
//! A lane keeps no queue. It looks into the ledger for what is next, so a restart needs no special path: what was
//! unfinished is simply still there.

mod execute;
mod schedule;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use riposte_protocol::command::Script;
use tokio::sync::Notify;

use self::schedule::{Next, Retries};
use crate::agent::{Agent, Domain, Unwritable};

/// Starts the lanes, and whoever opens one for each custom program when it is first named.
pub fn start(agent: &Arc<Agent>) {
    open_lanes(agent);
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
    for (domain, bell) in agent.open_lanes() {
        agent.tasks.spawn("lane", run_lane(Arc::clone(agent), domain, bell));
    }
}

async fn run_lane(agent: Arc<Agent>, domain: Domain, bell: Arc<Notify>) {
    let mut retries = Retries::default();
    while !agent.tasks.is_stopping() {
        let now = agent.clock.now();
        let of_domain = |action: &str, script: Option<&Script>| agent.domain_of(action, script) == domain;
        let next = agent.read(|ledger| schedule::next(ledger, &retries, now, of_domain));
        let done: Result<(), Unwritable> = match next {
            Next::Undo(held) => execute::undo(&agent, &held)
                .await
                .map(|lifted| if lifted { retries.forget(held.effect) } else { retries.delay(held.effect) }),
            Next::Command(pending) => match pending.started {
                None => execute::command(&agent, &pending.command).await,
                Some(started_at) => execute::resume(&agent, &pending.command, started_at).await,
            },
            Next::Wait(pause) => {
                let alarm = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = bell.notified() => {}
                    () = alarm => {}
                    () = agent.tasks.stopped() => {}
                }
                Ok(())
            }
        };
        if done.is_err() {
            // The journal has stopped the agent; what is unfinished is carried on after the restart.
            return;
        }
    }
}
