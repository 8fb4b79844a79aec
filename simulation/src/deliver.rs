//! Delivery: a connection reads what is owed to its agent, and sends it a moment later, as
//! `engine/deliver.rs` does. The manager may be paused between the two, so its lease and the
//! configuration are checked when the commands leave.

use std::time::Duration;

use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::Owed;
use riposte_protocol::message::MAX_ITEMS;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::command::CommandState;
use crate::defect::Defect;
use crate::instant;
use crate::store::{Row, agent_id, command_id, effect_id};
use crate::wire::ToAgent;
use crate::world::{Event, World};

/// Lease of a delivered command: without an acknowledgement it is sent again afterwards.
const LEASE: Duration = Duration::from_secs(30);
/// How long a signed revert is valid.
const REVERT_VALIDITY: Duration = Duration::from_hours(24);
/// Limit of commands in one frame.
const FRAME: usize = MAX_ITEMS / 4;

impl World {
    /// `Conversation::next`: reads what is owed, and the epoch with it.
    pub(crate) fn fetch(&mut self, manager: usize, agent: usize, talk: u64) {
        let is_cut = self.nodes[manager].cut_until > self.now;
        let Some(seat) = self.nodes[manager].seats.get_mut(&agent).filter(|seat| seat.talk == talk) else { return };
        if std::mem::replace(&mut seat.is_fetching, true) {
            seat.is_woken = true;
            return;
        }
        if is_cut {
            // The next look tries again.
            seat.is_fetching = false;
            return;
        }
        if !self.has(Defect::OldEpoch) {
            self.apply_configuration(manager);
        }
        let owed = self.store.owed(agent).into_iter().map(|command| {
            let row = &self.store.commands[command];
            (command, Owed { seq: row.seq, effect: effect_id(row.effect), lease_until: row.lease_until })
        });
        let owed: Vec<(usize, Owed)> = owed.collect();
        if owed.is_empty() {
            return self.send(manager, agent, talk, owed);
        }
        let pause = self.nodes[manager].random.within(0..15);
        self.after(pause, Event::Send { manager, agent, talk, owed });
    }

    /// Sends what was read. A command that must not be sent is withdrawn, or kept back in a freeze.
    pub(crate) fn send(&mut self, manager: usize, agent: usize, talk: u64, mut owed: Vec<(usize, Owed)>) {
        let (now, true_now) = (self.nodes[manager].wall(self.now), self.now);
        let (defect, node) = (self.defect, &mut self.nodes[manager]);
        let Some(seat) = node.seats.get_mut(&agent).filter(|seat| seat.talk == talk) else { return };
        seat.is_fetching = false;
        let is_woken = std::mem::take(&mut seat.is_woken);
        if node.lease_until <= true_now && defect != Some(Defect::NoFence) {
            self.note(|| format!("manager {manager} sends nothing to agent {agent}: its lease has ended"));
            return;
        }
        // Alerts in the commands may be so large that a message holds fewer.
        let fits = if self.random.chance(10) { 1 + self.random.index(FRAME) } else { FRAME };
        owed.retain(|(command, _)| self.store.commands[*command].expires_at.is_none_or(|at| at > now));
        let owed = self.without_forbidden(manager, owed, now);
        let Some(seat) = self.nodes[manager].seats.get_mut(&agent) else { return };
        let mut owed = owed;
        if defect == Some(Defect::CursorFromClock) {
            owed.retain(|(command, _)| self.store.commands[*command].created_at > seat.since);
            seat.since = now;
        }
        let states: Vec<Owed> = owed.iter().map(|(_, state)| *state).collect();
        let lease_until = if defect == Some(Defect::LeaseNeverEnds) { Timestamp::MAX } else { now.plus(LEASE) };
        let mut chosen = seat.session.choose(&states, now, lease_until, FRAME);
        let has_more = chosen.len() > fits || chosen.len() == FRAME || is_woken;
        chosen.drain(fits.min(chosen.len())..).for_each(|position| seat.session.take_back(states[position].seq));
        let is_over = seat.is_poll && !chosen.is_empty();
        let next = seat.session.next_lease_end();
        if is_over {
            self.nodes[manager].seats.remove(&agent);
        } else if let Some(end) = next.filter(|end| *end < Timestamp::MAX) {
            let at = instant::of(end, self.nodes[manager].clock_off).max(true_now + 1);
            self.at(at, Event::Fetch { manager, agent, talk });
        }
        if !chosen.is_empty() {
            let commands = chosen.iter().map(|position| owed[*position].0).collect();
            self.hand_over(manager, agent, talk, commands, lease_until);
        }
        if has_more && !is_over {
            self.after(0, Event::Fetch { manager, agent, talk });
        }
    }

    /// What the configuration lets a manager send.
    fn without_forbidden(&mut self, manager: usize, owed: Vec<(usize, Owed)>, now: Timestamp) -> Vec<(usize, Owed)> {
        let configuration = self.nodes[manager].configuration.clone();
        let (mut kept, mut withdrawn) = (Vec::new(), Vec::new());
        for (command, state) in owed {
            let row = &self.store.commands[command];
            if row.op == Op::Apply && configuration.protects(self.store.effects[row.effect].target) {
                withdrawn.push(command);
            } else if configuration.holds_back(row.op) {
                self.checker.nodes.keeps_back(command);
            } else {
                kept.push((command, state));
            }
        }
        if !withdrawn.is_empty() && self.may_commit(manager) {
            self.note(|| format!("manager {manager} withdraws commands {withdrawn:?}"));
            self.store.withdraw(&withdrawn, now);
            self.committed(manager, self.database_wall());
        }
        kept
    }

    fn hand_over(&mut self, manager: usize, agent: usize, talk: u64, commands: Vec<usize>, lease_until: Timestamp) {
        let now = self.nodes[manager].wall(self.now);
        self.note(|| format!("manager {manager} sends commands {commands:?} to agent {agent}"));
        let found = self.checker.nodes.sends(manager, &commands, &self.store);
        self.checker.found(found);
        let signed = commands.iter().map(|command| self.seal.sign(self.claims(*command, now), false)).collect();
        self.tell_agent(agent, talk, ToAgent::Commands(signed));
        let (life, pause) = (self.nodes[manager].life, self.random.within(1..40));
        // The delivery mark may be lost: then the commands are sent again.
        if !self.random.chance(3) {
            self.after(pause, Event::Delivered { manager, life, commands, lease_until });
        }
    }

    /// `engine::deliver::claims`.
    pub(crate) fn claims(&self, command: usize, now: Timestamp) -> Command {
        let row = &self.store.commands[command];
        let exp = row.expires_at.unwrap_or_else(|| now.plus(REVERT_VALIDITY)).as_secs();
        Command {
            iss: MANAGER.into(),
            aud: agent_id(row.agent),
            jti: command_id(command),
            seq: row.seq,
            iat: row.created_at.as_secs(),
            exp,
            op: row.op,
            effect: effect_id(row.effect),
            action: "block".into(),
            target: self.targets[self.store.effects[row.effect].target % self.targets.len()].clone(),
            arguments: Vec::new(),
            until: row.until.instant(),
            response: Uuid::from_u128((0xb << 64) + row.response as u128),
            alert: None,
            script: None,
            as_of: None,
            urgent: self.store.is_urgent(command),
        }
    }

    /// An order that is not the manager's, not for this agent, has expired, or was executed before.
    pub(crate) fn forge(&mut self, agent: usize, kind: usize) {
        use CommandState::{Acknowledged, Expired, Failed, Refused, Succeeded};
        let is_material = |row: &Row| match kind {
            0 => row.agent == agent,
            1 => row.agent != agent,
            2 => row.agent == agent && row.state == Expired,
            _ => row.agent == agent && matches!(row.state, Acknowledged | Succeeded | Failed | Refused),
        };
        let Some(command) = self.store.commands.iter().rposition(is_material) else { return };
        let mut claims = self.claims(command, self.nodes[0].wall(self.now));
        if kind == 0 {
            claims.jti = Uuid::from_u128((0xf << 64) + u128::from(self.now));
            (claims.seq, claims.op) = (claims.seq + 1_000_000, Op::Apply);
        }
        if kind > 1 {
            self.checker.replayed(agent);
        }
        let sealed = self.seal.sign(claims, kind == 0);
        if let Some(talk) = self.hosts[agent].talk_number() {
            let life = self.hosts[agent].life;
            let message = Box::new(ToAgent::Commands(vec![sealed]));
            self.after(1, Event::AtAgent { agent, life, talk, message });
        }
    }
}
