//! Convergence: held effects are looked at from time to time, because other programs flush rules,
//! unban by hand and restore backups. Drift is repaired or only reported, as the local policy says.
//! An effect on a target that is protected by now is lifted. A lane that holds nothing never wakes
//! for it.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use riposte_protocol::message::Actual;
use tokio::time::Instant;
use uuid::Uuid;

use super::admit::{find, find_bulk};
use super::lift::{self, within};
use crate::actions::{self, Action, ActionError, Attempt};
use crate::agent::Agent;
use crate::journal::{Held, Record};
use crate::local_policy::Drift;

/// An effect this close to its end is not looked at: its own time-out may come a moment before the
/// agent's.
const TOO_LATE: Duration = Duration::from_secs(2);

/// The rounds of one lane: when the next begins, and what is left of the current one.
#[derive(Debug)]
pub(super) struct Rounds {
    every: Duration,
    next_at: Option<Instant>,
    todo: VecDeque<Uuid>,
}

impl Rounds {
    /// The first round begins at once: the host may have changed while the agent was away.
    pub(super) fn new(every: Duration) -> Self {
        Self { every, next_at: Some(Instant::now()), todo: VecDeque::new() }
    }

    /// Returns the next effects to look at, at most `limit`, or the time until there are some; `None`
    /// while nothing is held.
    pub(super) fn next<'a>(
        &mut self,
        mut held: impl Iterator<Item = &'a Held>,
        limit: usize,
    ) -> Result<Vec<Uuid>, Option<Duration>> {
        if !self.todo.is_empty() {
            return Ok(self.todo.drain(..limit.min(self.todo.len())).collect());
        }
        let mut held = held.by_ref().peekable();
        if held.peek().is_none() {
            self.next_at = None;
            return Err(None);
        }
        let now = Instant::now();
        match self.next_at {
            Some(at) if at <= now => {
                self.todo = held.map(|held| held.effect).collect();
                self.next_at = Some(now + jittered(self.every));
                Ok(self.todo.drain(..limit.min(self.todo.len())).collect())
            }
            Some(at) => Err(Some(at - now)),
            None => {
                let pause = jittered(self.every);
                self.next_at = Some(now + pause);
                Err(Some(pause))
            }
        }
    }

    /// Puts effects back that are still to be looked at, before all others.
    pub(super) fn put_back(&mut self, effects: Vec<Uuid>) {
        for effect in effects.into_iter().rev() {
            self.todo.push_front(effect);
        }
    }
}

/// Three quarters to all of the interval, so that a fleet that was started at once spreads its
/// looks.
fn jittered(every: Duration) -> Duration {
    let fraction = getrandom::u32().unwrap_or(u32::MAX);
    every.mul_f64(0.75 + 0.25 * f64::from(fraction) / f64::from(u32::MAX))
}

/// Looks at effects: at those whose action looks at many at once together, and at the first of the
/// others by itself. Returns the rest, for the next turn: what is due must not wait for all of them.
pub(super) async fn look_at_some(agent: &Agent, mut effects: Vec<Uuid>) -> Vec<Uuid> {
    let in_force = in_force(agent, &effects).await;
    effects.retain(|effect| !in_force.contains(effect));
    if effects.is_empty() {
        return effects;
    }
    let rest = effects.split_off(1);
    for effect in effects {
        look(agent, effect).await;
    }
    rest
}

/// Looks at those of these effects whose action does many at once, and returns which are in force;
/// what is new in that is noted. The others have to be looked at one by one.
async fn in_force(agent: &Agent, effects: &[Uuid]) -> HashSet<Uuid> {
    let now = agent.clock.moment();
    let known = |effect: &Uuid| agent.read(|state| state.held_effect(*effect).cloned());
    let is_looked_at = |held: &Held| {
        let is_late = held.remaining(&now).is_some_and(|remaining| remaining < TOO_LATE);
        !is_late && held.actual != Some(Actual::Absent) && held.script.is_none()
    };
    let held: Vec<Held> = effects.iter().filter_map(known).filter(is_looked_at).collect();
    let mut in_force = HashSet::new();
    for name in held.iter().map(|held| held.action.as_str()).collect::<BTreeSet<_>>() {
        let Some((action, bulk)) = find_bulk(agent, Some(name)) else { continue };
        if actions::availability(action, &agent.host).is_err() {
            continue;
        }
        let these = held.iter().filter(|held| held.action == name && agent.protects(&held.target).is_none());
        let these: Vec<&Held> = these.collect();
        let transcript = Mutex::default();
        let attempts: Vec<Attempt<'_>> = these.iter().map(|held| lift::attempt(agent, held, &transcript)).collect();
        let shown = lift::all_within(agent, attempts.len(), bulk.are_in_force(&attempts)).await;
        let mut news = Vec::new();
        for (held, _) in these.iter().zip(shown).filter(|(_, shown)| matches!(shown, Ok(true))) {
            in_force.insert(held.effect);
            if held.actual != Some(Actual::InForce) || held.failing.is_some() {
                let seen = Held { actual: Some(Actual::InForce), failing: None, ..(*held).clone() };
                news.push(Record::Held { held: Box::new(seen) });
                agent.tell_of(held.effect);
            }
        }
        agent.note(news);
    }
    in_force
}

/// Looks at one effect.
pub(super) async fn look(agent: &Agent, effect: Uuid) {
    let Some(held) = agent.read(|state| state.held_effect(effect).cloned()) else { return };
    let remaining = held.remaining(&agent.clock.moment());
    if remaining.is_some_and(|remaining| remaining < TOO_LATE) || held.actual == Some(Actual::Absent) {
        return;
    }
    // An effect that could not be lifted while the clock was ahead had not ended at all.
    let held = Held { failing: None, ..held };
    // An effect without a runnable action cannot be looked at; the clock tries to lift it.
    let Some(action) = find(agent, &held.action, held.script.as_ref()) else { return };
    if let Err(reason) = actions::availability(action, &agent.host) {
        let (action, target) = (&held.action, &held.target);
        tracing::warn!(%effect, action, %target, reason, "an effect cannot be looked at: its action cannot be run here");
        return;
    }
    if let Some(reason) = agent.protects(&held.target) {
        return let_go(agent, action, held, &reason).await;
    }
    // An effect that cannot be seen cannot be seen to drift either: it must not be applied again.
    if !action.about().looks {
        return;
    }
    let transcript = Mutex::default();
    let mut attempt = lift::attempt(agent, &held, &transcript);
    attempt.remaining = remaining;
    match within(agent, action.is_in_force(&attempt)).await {
        Ok(true) => note(agent, held.clone(), Actual::InForce),
        Ok(false) => {
            let mut drifted = held.clone();
            if held.actual != Some(Actual::Drifted) {
                drifted.drifts = held.drifts.saturating_add(1);
            }
            let actual =
                if may_repair(agent, &held) { repair(agent, action, &held, &attempt).await } else { Actual::Drifted };
            if actual == Actual::Drifted && held.actual != Some(Actual::Drifted) {
                let (action, target) = (&held.action, &held.target);
                tracing::error!(%effect, action, %target, "incident: an effect is not in force any more and is not repaired");
            }
            note(agent, drifted, actual);
        }
        Err(error) => {
            let (action, target) = (&held.action, &held.target);
            tracing::warn!(%effect, action, %target, %error, "an effect could not be looked at");
        }
    }
}

fn may_repair(agent: &Agent, held: &Held) -> bool {
    agent.policy.drift == Drift::Repair
        && !agent.policy.observe
        && agent.policy.forbids(&held.action, held.program()).is_none()
}

async fn repair(agent: &Agent, action: &dyn Action, held: &Held, attempt: &Attempt<'_>) -> Actual {
    let (effect, name, target) = (held.effect, &held.action, &held.target);
    let again = match within(agent, action.apply(attempt)).await {
        Ok(()) => within(agent, action.is_in_force(attempt)).await,
        Err(error) => Err(error),
    };
    let again = again.and_then(|in_force| {
        if in_force {
            Ok(())
        } else {
            Err(ActionError::Failed("it was applied again and is still not in force".into()))
        }
    });
    match again {
        Ok(()) => {
            tracing::warn!(%effect, action = name, %target, "an effect was not in force any more: applied again");
            Actual::InForce
        }
        Err(error) => {
            tracing::warn!(%effect, action = name, %target, %error, "an effect that drifted could not be applied again");
            Actual::Drifted
        }
    }
}

/// Lifts an effect whose target is protected now and was not before.
async fn let_go(agent: &Agent, action: &dyn Action, held: Held, reason: &str) {
    let reason = format!("lifted: the target is protected now: {reason}");
    let (effect, name, target) = (held.effect, &held.action, &held.target);
    match lift::lift(agent, action, &held, &Mutex::default()).await {
        Ok(_) => {
            tracing::warn!(%effect, action = name, %target, reason, "an effect was lifted before its end");
            agent.note([held.released(agent.clock.now(), reason)]);
            agent.tell_of(effect);
        }
        Err(error) => {
            tracing::error!(%effect, action = name, %target, %error, "incident: an effect on a protected target could not be lifted");
            agent.note([lift::overdue(agent, held, &error)]);
        }
    }
}

/// Records the observed state, if it has changed.
fn note(agent: &Agent, seen: Held, actual: Actual) {
    let effect = seen.effect;
    let is_news = agent.read(|state| {
        let is_other =
            |held: &Held| held.actual != Some(actual) || held.drifts != seen.drifts || held.failing != seen.failing;
        state.held_effect(effect).is_some_and(is_other)
    });
    if is_news {
        agent.note([Record::Held { held: Box::new(Held { actual: Some(actual), ..seen }) }]);
        agent.tell_of(effect);
    }
}
