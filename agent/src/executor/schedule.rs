//! Decides what a lane does next: an overdue revert first, then an unfinished command (`turn.rs`
//! selects it), then a look at a held effect, otherwise wait. The result depends only on the
//! journal's state, the retries, the rounds and the time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use riposte_protocol::command::{Command, Op, Script};
use riposte_protocol::delivery::Rank;
use riposte_protocol::target::Target;
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

/// How many effects are changed at once: enough for a storm, and few enough that what is urgent
/// waits a fraction of a second.
const MAX_AT_ONCE: usize = 512;

/// The next step of a lane.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Revert these effects, which have ended: one, or several whose action lifts many at once.
    Undo(Vec<Held>),
    /// Execute these commands: one, or several of one kind whose action does many at once.
    Commands(Vec<Pending>),
    /// Look at these effects.
    Look(Vec<Uuid>),
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

/// At most [`MAX_AT_ONCE`] of these, no two with the same target: what one of them does decides
/// what is left to do for the other.
fn distinct<'a, T: Clone + 'a>(all: impl Iterator<Item = &'a T>, target: impl Fn(&T) -> &Target) -> Vec<T> {
    let mut targets = HashSet::new();
    let mut chosen = Vec::new();
    for one in all {
        if targets.insert(target(one).to_string()) {
            chosen.push(one.clone());
        }
        if chosen.len() == MAX_AT_ONCE {
            break;
        }
    }
    chosen
}

/// The next step at `now` of the lane with the actions for which `of_domain` holds. `is_bulk` says
/// which actions may do many at once.
pub(super) fn next(
    state: &JournalState,
    retries: &Retries,
    rounds: &mut Rounds,
    now: &Moment,
    of_domain: impl Fn(&str, Option<&Script>) -> bool,
    is_bulk: impl Fn(&str) -> bool,
) -> Next {
    let held_here = || state.held().filter(|held| of_domain(&held.action, held.script.as_ref()));
    let (mut due, mut pause): (Vec<&Held>, Option<Duration>) = (Vec::new(), None);
    for held in held_here() {
        let Some(remaining) = held.remaining(now) else { continue };
        let wait = remaining.max(retries.wait(held.effect));
        if wait.is_zero() {
            due.push(held);
        }
        pause = Some(pause.unwrap_or(LOOK_EVERY).min(wait));
    }
    if let Some(first) = due.first() {
        let fits = |held: &&Held| held.action == first.action && held.script.is_none();
        let others = due.iter().skip(1).copied().filter(fits);
        let others = others.take_while(|_| first.script.is_none() && is_bulk(&first.action));
        return Next::Undo(distinct([*first].into_iter().chain(others), |held| &held.target));
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
    if let Some(first) = turn::first(state, is_ours) {
        // A revert is executed by the action that holds the effect.
        let action = |pending: &Pending| match state.held_effect(pending.command.effect) {
            Some(held) if pending.command.op == Op::Revert => held.action.clone(),
            _ => pending.command.action.clone(),
        };
        let named = action(first);
        let ours = || state.pending().filter(&is_ours);
        if !is_bulk(&named) {
            return Next::Commands(vec![first.clone()]);
        }
        // What only moves an end, or shares what another effect holds, takes longer and is executed alone.
        let in_force: HashSet<String> =
            state.held().filter(|held| held.action == named).map(|held| held.target.to_string()).collect();
        let is_simple = |pending: &Pending| match pending.command.op {
            Op::Apply => {
                state.held_effect(pending.command.effect).is_none()
                    && !in_force.contains(&pending.command.target.to_string())
            }
            Op::Revert => state.held_effect(pending.command.effect).is_some(),
        };
        let others = others(ours, first).filter(|pending| action(pending) == named && is_simple(pending));
        let others = others.take_while(|_| is_simple(first));
        return Next::Commands(distinct([first].into_iter().chain(others), |pending| &pending.command.target));
    }
    match rounds.next(held_here(), MAX_AT_ONCE) {
        Ok(effects) => Next::Look(effects),
        Err(look_in) => Next::Wait(pause.into_iter().chain(look_in).min()),
    }
}

/// The commands among `ours` that may be executed together with `first`, by number: of the same
/// operation and rank, not begun, each the oldest of its effect, and none with a custom program.
/// Nothing if `first` goes before a more urgent command of its effect, which must not wait for others.
fn others<'a, I: Iterator<Item = &'a Pending> + 'a>(
    ours: impl Fn() -> I,
    first: &'a Pending,
) -> impl Iterator<Item = &'a Pending> {
    let rank = |pending: &Pending| Rank::of(pending.command.op, pending.command.urgent);
    let is_plain = |pending: &Pending| pending.started.is_none() && pending.command.script.is_none();
    let is_foremost = is_plain(first) && ours().all(|other| rank(first) <= rank(other));
    let mut effects = HashSet::from([first.command.effect]);
    let oldest = ours().filter(move |pending| effects.insert(pending.command.effect));
    oldest.take_while(move |_| is_foremost).filter(move |pending| {
        is_plain(pending) && pending.command.op == first.command.op && rank(pending) == rank(first)
    })
}
