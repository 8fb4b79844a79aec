//! `src/store/ledger/converge.rs`: compares what an agent reports as held with what the ledger
//! wants.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use riposte_protocol::message::{self, HeldEffect};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::{Row, Store};
use crate::command::CommandState;
use crate::defect::Defect;
use crate::effect::{Actual, Desired};
use crate::settlement::GivenUp;

/// An agent whose clock is ahead by no more than this has not ended an effect too soon.
const SKEW: Duration = Duration::from_mins(1);

/// An agent's report of its effects.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Effects in their current state.
    pub effects: Vec<HeldEffect>,
    /// Effects that have ended and of which nothing is left.
    pub ended: Vec<Uuid>,
    /// Whether `effects` is everything that the agent holds.
    pub is_whole: bool,
}

impl Store {
    /// Commands that a newer one of their effect had overtaken are not sent to an agent that has
    /// lost the newer one (`resync::detect_rollback`).
    pub fn detect_rollback(&mut self, agent: usize, cursor: u64) {
        let is_forgotten = |newer: &usize| {
            let row = &self.commands[*newer];
            let was_taken_in =
                row.acknowledged_at.is_some() || matches!(row.state, CommandState::Succeeded | CommandState::Failed);
            row.seq > cursor && was_taken_in
        };
        let forgotten: BTreeMap<usize, u64> = (0..self.commands.len())
            .filter(|command| self.commands[*command].agent == agent)
            .filter(is_forgotten)
            .map(|command| (self.commands[command].effect, self.commands[command].seq))
            .collect();
        for command in self.owed[agent].values().copied().collect::<Vec<_>>() {
            let Row { effect, seq, state, .. } = self.commands[command];
            if forgotten.get(&effect).is_some_and(|newest| *newest > seq) {
                self.set_state(command, GivenUp::withdrawn(state).state());
            }
        }
    }

    /// Converges the ledger and the agent; returns the effects that were released on the host.
    pub fn converge(&mut self, agent: usize, said: &Said, now: Timestamp) -> Vec<usize> {
        if self.has(Defect::ReportIgnored) {
            return Vec::new();
        }
        let (mut again, mut released) = (Vec::new(), Vec::new());
        let mut named = BTreeSet::new();
        // As one SQL statement would: effects without a pending command are selected before
        // anything changes.
        let standing = |store: &Self, id: Uuid| {
            let found = store.effect_of(id);
            found.filter(|effect| store.effects[*effect].agent == agent && store.effects[*effect].under_way.is_empty())
        };
        for held in &said.effects {
            named.extend(self.effect_of(held.effect));
            let Some(effect) = standing(self, held.effect) else { continue };
            if held.released.is_some() {
                released.push(effect);
            } else if self.effects[effect].state.desired == Desired::Absent {
                self.unwanted(held, effect, now);
            } else if held.actual == Some(message::Actual::Absent) {
                let row = &self.effects[effect];
                let is_thought_there = matches!(row.state.actual, Actual::InForce | Actual::Drifted);
                again.extend((is_thought_there && !row.until.is_over(now)).then_some(effect));
                self.note(effect, Actual::Absent);
            } else {
                let is_drifted = held.actual == Some(message::Actual::Drifted);
                if held.actual.is_some() {
                    self.note(effect, if is_drifted { Actual::Drifted } else { Actual::InForce });
                }
                if held.until != self.effects[effect].until.instant() && !is_drifted {
                    again.push(effect);
                }
            }
        }
        for ended in &said.ended {
            named.extend(self.effect_of(*ended));
            if let Some(effect) = standing(self, *ended) {
                self.note(effect, Actual::Absent);
                let row = &self.effects[effect];
                if row.state.desired == Desired::InForce && !row.until.is_over(now.plus(SKEW)) {
                    again.push(effect);
                }
            }
        }
        if said.is_whole {
            for effect in 0..self.effects.len() {
                let row = &self.effects[effect];
                let is_thought_there = matches!(row.state.actual, Actual::InForce | Actual::Drifted);
                if row.agent != agent || !is_thought_there || !row.under_way.is_empty() || named.contains(&effect) {
                    continue;
                }
                if row.state.desired == Desired::InForce && !row.until.is_over(now) {
                    again.push(effect);
                }
                self.note(effect, Actual::Absent);
            }
        }
        self.apply_again(again, now);
        for effect in &released {
            let holds: Vec<(usize, usize)> =
                self.effects[*effect].holds.keys().map(|response| (*response, *effect)).collect();
            self.release_holds(&holds, now);
        }
        released
    }

    fn unwanted(&mut self, held: &HeldEffect, effect: usize, now: Timestamp) {
        if held.actual == Some(message::Actual::Absent) {
            return self.note(effect, Actual::Absent);
        }
        if self.effects[effect].state.next_revert_at.is_none() {
            self.set_next_revert(effect, Some(now));
        }
        let row = &mut self.effects[effect];
        if held.failing.is_some() && row.state.failed_reverts == 0 {
            (row.state.actual, row.state.failed_reverts) = (Actual::Drifted, 1);
        }
    }

    fn note(&mut self, effect: usize, actual: Actual) {
        if self.effects[effect].state.actual != actual {
            self.effects[effect].state.actual = actual;
            if actual == Actual::Absent {
                self.effects[effect].state.failed_reverts = 0;
                self.set_next_revert(effect, None);
            }
        }
    }
}
