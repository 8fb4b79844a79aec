//! What a lane does next: an overdue undo before anything else, then an unfinished command (`turn.rs` says which), then a look
//! at what is held, else wait. A function of the ledger, the retries, the rounds and the time.

use std::collections::HashMap;
use std::time::Duration;

use riposte_protocol::command::{Command, Script};
use tokio::time::Instant;
use uuid::Uuid;

use super::converge::Rounds;
use super::turn;
use crate::clock::Moment;
use crate::journal::{Held, Ledger, Pending};

/// While something with an end is held, the wall clock is looked at this often: it may jump, and a suspended host's
/// timers do not count the time it slept.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The longest pause between two attempts to undo the same effect.
const MAX_RETRY: Duration = Duration::from_mins(1);

/// What a lane does next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Undo this effect, its time is up.
    Undo(Box<Held>),
    /// Execute this command.
    Command(Box<Pending>),
    /// Look at this effect.
    Look(Uuid),
    /// Nothing, for this long or until the bell.
    Wait(Option<Duration>),
}

/// The undos that have failed and when they are tried again. In memory only: after a restart they are tried at once.
#[derive(Debug, Default)]
pub(super) struct Retries(HashMap<Uuid, Retry>);

#[derive(Debug)]
struct Retry {
    failures: u32,
    at: Instant,
}

impl Retries {
    /// The undo failed again: 1 s, 2 s, 4 s … 60 s, for ever.
    pub(super) fn delay(&mut self, effect: Uuid) {
        let retry = self.0.entry(effect).or_insert_with(|| Retry { failures: 0, at: Instant::now() });
        let pause = Duration::from_secs(1 << retry.failures.min(6)).min(MAX_RETRY);
        retry.failures = retry.failures.saturating_add(1);
        retry.at = Instant::now() + pause;
    }

    /// The effect is lifted.
    pub(super) fn forget(&mut self, effect: Uuid) {
        self.0.remove(&effect);
    }

    pub(super) fn wait(&self, effect: Uuid) -> Duration {
        self.0.get(&effect).map_or(Duration::ZERO, |retry| retry.at.saturating_duration_since(Instant::now()))
    }
}

/// What the lane of the actions for which `of_domain` holds does at `now`.
pub(super) fn next(
    ledger: &Ledger,
    retries: &Retries,
    rounds: &mut Rounds,
    now: &Moment,
    of_domain: impl Fn(&str, Option<&Script>) -> bool,
) -> Next {
    let held_here = || ledger.held().filter(|held| of_domain(&held.action, held.script.as_ref()));
    let mut pause: Option<Duration> = None;
    for held in held_here() {
        let Some(remaining) = held.remaining(now) else { continue };
        let wait = remaining.max(retries.wait(held.effect));
        if wait.is_zero() {
            return Next::Undo(Box::new(held.clone()));
        }
        pause = Some(pause.unwrap_or(LOOK_EVERY).min(wait));
    }
    // The commands of an effect share the lane of what holds it, or of its first: another program under the same effect must
    // not let a revert overtake its apply.
    let mut firsts: HashMap<Uuid, &Command> = HashMap::new();
    for pending in ledger.pending().filter(|pending| pending.command.script.is_some()) {
        firsts.entry(pending.command.effect).or_insert(&pending.command);
    }
    let is_ours = |pending: &&Pending| match ledger.held_effect(pending.command.effect) {
        Some(held) => of_domain(&held.action, held.script.as_ref()),
        None => {
            let first = firsts.get(&pending.command.effect).copied().unwrap_or(&pending.command);
            of_domain(&first.action, first.script.as_ref())
        }
    };
    if let Some(pending) = turn::first(ledger, is_ours) {
        return Next::Command(Box::new(pending.clone()));
    }
    match rounds.next(held_here()) {
        Ok(effect) => Next::Look(effect),
        Err(look_in) => Next::Wait(pause.into_iter().chain(look_in).min()),
    }
}
