//! Decides what a lane does next: an overdue revert first, then an unfinished command (`turn.rs`
//! selects it), then a look at a held effect, otherwise wait. The result depends only on the
//! journal's state, the retries, the rounds and the time.

use std::collections::HashMap;
use std::time::Duration;

use riposte_protocol::command::{Command, Script};
use tokio::time::Instant;
use uuid::Uuid;

use super::converge::Rounds;
use super::turn;
use crate::journal::{Held, JournalState, Pending};
use crate::moment::Moment;

/// How often the wall clock is read while an effect with an end is held: the clock may jump, and
/// the timers of a suspended host do not count the time it slept.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Longest pause between two attempts to revert the same effect.
const MAX_RETRY: Duration = Duration::from_mins(1);

/// The next step of a lane.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Revert this effect, which has ended.
    Undo(Box<Held>),
    /// Execute this command.
    Command(Box<Pending>),
    /// Look at this effect.
    Look(Uuid),
    /// Wait for this long, or until the lane is notified.
    Wait(Option<Duration>),
}

/// Failed reverts, and when each is retried. In memory only: after a restart they are retried at
/// once.
#[derive(Debug, Default)]
pub(super) struct Retries(HashMap<Uuid, Retry>);

#[derive(Debug)]
struct Retry {
    failures: u32,
    at: Instant,
}

impl Retries {
    /// The revert failed again: the pause is 1 s, 2 s, 4 s … 60 s, for ever.
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

/// The next step at `now` of the lane with the actions for which `of_domain` holds.
pub(super) fn next(
    state: &JournalState,
    retries: &Retries,
    rounds: &mut Rounds,
    now: &Moment,
    of_domain: impl Fn(&str, Option<&Script>) -> bool,
) -> Next {
    let held_here = || state.held().filter(|held| of_domain(&held.action, held.script.as_ref()));
    let mut pause: Option<Duration> = None;
    for held in held_here() {
        let Some(remaining) = held.remaining(now) else { continue };
        let wait = remaining.max(retries.wait(held.effect));
        if wait.is_zero() {
            return Next::Undo(Box::new(held.clone()));
        }
        pause = Some(pause.unwrap_or(LOOK_EVERY).min(wait));
    }
    // The commands of an effect share the lane of the held effect, or of its first command.
    // Otherwise a revert that names another program could overtake its apply.
    let mut firsts: HashMap<Uuid, &Command> = HashMap::new();
    for pending in state.pending().filter(|pending| pending.command.script.is_some()) {
        firsts.entry(pending.command.effect).or_insert(&pending.command);
    }
    let is_ours = |pending: &&Pending| match state.held_effect(pending.command.effect) {
        Some(held) => of_domain(&held.action, held.script.as_ref()),
        None => {
            let first = firsts.get(&pending.command.effect).copied().unwrap_or(&pending.command);
            of_domain(&first.action, first.script.as_ref())
        }
    };
    if let Some(pending) = turn::first(state, is_ours) {
        return Next::Command(Box::new(pending.clone()));
    }
    match rounds.next(held_here()) {
        Ok(effect) => Next::Look(effect),
        Err(look_in) => Next::Wait(pause.into_iter().chain(look_in).min()),
    }
}
