//! `src/store/ledger/holds.rs`: how responses hold effects, how holds end, and which commands that
//! needs.

use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;

use super::{Effect, Response, Row, Store};
use crate::command::CommandState;
use crate::defect::Defect;
use crate::effect::{Actual, Desired, Release, Standing, Until, let_go, take_hold};
use crate::settlement::EffectState;

/// How long an apply waits for an absent agent, unless the block would end before.
const COMMAND_TTL: Duration = Duration::from_hours(24);

struct NewCommand {
    effect: usize,
    response: usize,
    op: Op,
    until: Until,
}

impl Store {
    /// Commits a response that acts on `target` on these agents; returns its number.
    pub fn record(&mut self, agents: &[usize], target: usize, until: Until, now: Timestamp) -> usize {
        let response = self.responses.len();
        self.responses.push(Response { until, is_active: true });
        self.active.insert(response);
        let mut commands = Vec::new();
        for agent in agents {
            let found = self.by_key.get(&(*agent, target)).copied();
            let effect = found.unwrap_or_else(|| self.insert_effect(*agent, target, until));
            let row = &mut self.effects[effect];
            let state = &mut row.state;
            let before = Standing { desired: state.desired, actual: state.actual, until: row.until };
            let standing = (found.is_some() || before.desired == Desired::InForce).then_some(before);
            row.holds.insert(response, until);
            row.last_holder = response;
            let is_shortest = self.defect == Some(Defect::ExtensionIgnored) && before.desired == Desired::InForce;
            if let Some(until) = take_hold(standing, until).filter(|_| !is_shortest) {
                let extended = before.desired == Desired::InForce && before.actual == Actual::InForce;
                let actual = if extended { Actual::InForce } else { Actual::Unknown };
                if before.desired == Desired::Absent {
                    state.in_force_at = None;
                }
                if before.desired == Desired::Absent || before.actual != actual {
                    state.last_apply = None;
                    state.last_reason.clear();
                }
                (state.desired, state.actual, row.until) = (Desired::InForce, actual, until);
                self.upsert(effect);
                commands.push(NewCommand { effect, response, op: Op::Apply, until });
            }
        }
        self.queue(commands, now);
        response
    }

    fn insert_effect(&mut self, agent: usize, target: usize, until: Until) -> usize {
        let effect = self.effects.len();
        self.effects.push(Effect {
            agent,
            target,
            state: EffectState {
                desired: Desired::Absent,
                actual: Actual::Unknown,
                actual_seq: 0,
                last_apply: None,
                last_reason: String::new(),
                in_force_at: None,
                failed_reverts: 0,
                next_revert_at: None,
            },
            until,
            under_way: [].into(),
            holds: [].into(),
            last_holder: 0,
        });
        self.by_key.insert((agent, target), effect);
        effect
    }

    /// The updates of `UPSERT_EFFECTS` beside those of its caller.
    fn upsert(&mut self, effect: usize) {
        self.effects[effect].state.failed_reverts = 0;
        self.set_next_revert(effect, None);
    }

    fn queue(&mut self, commands: Vec<NewCommand>, now: Timestamp) {
        for NewCommand { effect, response, op, until } in commands {
            let agent = self.effects[effect].agent;
            self.last_seq[agent] += 1;
            let expires_at = match op {
                Op::Apply => Until::At(now.plus(COMMAND_TTL)).min(until).instant(),
                Op::Revert => None,
            };
            self.commands.push(Row {
                agent,
                seq: self.last_seq[agent],
                effect,
                response,
                op,
                until,
                state: CommandState::Queued,
                created_at: now,
                expires_at,
                lease_until: None,
                acknowledged_at: None,
            });
            self.set_state(self.commands.len() - 1, CommandState::Queued);
            self.woken.insert(agent);
        }
    }

    /// Ends active responses: all their holds are released.
    pub fn release(&mut self, responses: &[usize], now: Timestamp) {
        let held = |response: &usize| {
            let holders = self.effects.iter().enumerate().filter(|(_, effect)| effect.holds.contains_key(response));
            holders.map(|(effect, _)| (*response, effect)).collect::<Vec<_>>()
        };
        let holds: Vec<(usize, usize)> = responses.iter().flat_map(held).collect();
        self.release_holds(&holds, now);
    }

    /// Releases single holds: an effect without another hold is lifted, and a response without
    /// holds ends.
    pub(super) fn release_holds(&mut self, holds: &[(usize, usize)], now: Timestamp) {
        let mut touched = std::collections::BTreeSet::new();
        for (response, effect) in holds {
            if self.effects[*effect].holds.remove(response).is_some() {
                touched.insert(*effect);
            }
        }
        for (response, _) in holds {
            if self.effects.iter().all(|effect| !effect.holds.contains_key(response)) {
                self.responses[*response].is_active = false;
                self.active.remove(response);
            }
        }
        let mut commands = Vec::new();
        for effect in touched {
            let is_counted = !self.has(Defect::HoldsNotCounted);
            let row = &mut self.effects[effect];
            if row.state.desired == Desired::Absent {
                continue;
            }
            let longest = row.holds.values().max().copied().filter(|_| is_counted);
            let op = match let_go(row.until, longest) {
                Release::Nothing => continue,
                Release::Shorten(until) => {
                    row.until = until;
                    Op::Apply
                }
                Release::Lift => {
                    row.state.desired = Desired::Absent;
                    Op::Revert
                }
            };
            commands.push(self.follow_up(op, effect));
            self.upsert(effect);
        }
        self.queue(commands, now);
    }

    fn follow_up(&self, op: Op, effect: usize) -> NewCommand {
        let Effect { last_holder: response, until, .. } = self.effects[effect];
        NewCommand { effect, response, op, until }
    }

    /// Queues another apply for effects that should be in force and are not, or not until their
    /// end.
    pub(super) fn apply_again(&mut self, effects: Vec<usize>, now: Timestamp) {
        let wanted = effects.into_iter().filter(|effect| self.effects[*effect].state.desired == Desired::InForce);
        let commands = wanted.map(|effect| self.follow_up(Op::Apply, effect)).collect();
        self.queue(commands, now);
    }

    /// The effects whose last revert failed and is due again (`effects::due_retries`).
    pub fn due_retries(&self, now: Timestamp) -> Vec<usize> {
        let is_due = |effect: &usize| {
            let row = &self.effects[*effect];
            row.state.desired == Desired::Absent && row.state.next_revert_at.is_some_and(|at| at <= now)
        };
        self.retries.iter().copied().filter(is_due).collect()
    }

    /// Queues another revert for effects whose last one failed; returns how many.
    pub fn retry_reverts(&mut self, now: Timestamp) -> usize {
        let due = self.due_retries(now);
        let commands = due.iter().map(|effect| self.follow_up(Op::Revert, *effect)).collect();
        due.iter().for_each(|effect| self.set_next_revert(*effect, None));
        self.queue(commands, now);
        due.len()
    }
}
