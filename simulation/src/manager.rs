//! A manager: one node on the store. Its connections use the protocol's own [`Session`] to select
//! what to send. The rest is modelled after `api/stream.rs`, `engine/deliver.rs`, `engine/undo.rs`
//! and `engine/sweep.rs`. A node that crashes loses its connections and the delivery marks that
//! were not committed; the store loses nothing.
//!
//! Several nodes share the store. A node that commits a command for an agent of another node sends
//! it a hint, which can be lost; each node looks itself with every sweep.

use std::time::Duration;

use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::{Owed, Session};
use riposte_protocol::message::{CommandResult, MAX_ITEMS};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::command::CommandState;
use crate::defect::Defect;
use crate::effect::Until;
use crate::instant;
use crate::node::Seat;
use crate::plan::{Millis, SECOND};
use crate::store::{Row, Said, agent_id, command_id, effect_id};
use crate::wire::{ToAgent, ToManager};
use crate::world::{Event, World};

/// Lease of a delivered command: without an acknowledgement it is sent again afterwards.
const LEASE: Duration = Duration::from_secs(30);
/// How long a signed revert is valid.
const REVERT_VALIDITY: Duration = Duration::from_hours(24);
/// Longest pause between two looks for responses that have ended.
const MAX_WAIT: Millis = 30 * SECOND;
/// Interval of sweeps.
const PERIOD: Millis = 5 * SECOND;
/// A connection without a message for this long is closed.
const SILENCE: Millis = 100 * SECOND;
/// Limit of commands in one frame.
const FRAME: usize = MAX_ITEMS / 4;

impl World {
    pub(crate) fn start_manager(&mut self, manager: usize) {
        if self.nodes[manager].is_up {
            return;
        }
        let node = &mut self.nodes[manager];
        (node.is_up, node.undo_at) = (true, self.now);
        let (life, at) = (node.life, self.now);
        self.after(0, Event::Undo { manager, life, at });
        self.after(PERIOD, Event::Sweep { manager, life });
    }

    pub(crate) fn crash_manager(&mut self, manager: usize, away: Millis) {
        let node = &mut self.nodes[manager];
        if node.is_up {
            (node.is_up, node.life) = (false, node.life + 1);
            node.seats.clear();
            self.after(away, Event::ManagerUp { manager });
            let lost: Vec<usize> = (0..self.hosts.len()).filter(|host| self.talks_to(*host, manager)).collect();
            lost.into_iter().for_each(|agent| self.hang_up(agent, 50));
        }
    }

    /// Commits a response; `None` if the manager is down.
    pub(crate) fn respond(
        &mut self,
        manager: usize,
        agent: Option<usize>,
        target: usize,
        lasts: Option<Millis>,
    ) -> Option<usize> {
        if !self.nodes[manager].is_up {
            return None;
        }
        let now = self.nodes[manager].wall(self.now);
        let until = Until::from(lasts.map(|lasts| now.plus(Duration::from_millis(lasts))));
        let agents: Vec<usize> = agent.map_or_else(|| (0..self.hosts.len()).collect(), |agent| vec![agent]);
        let response = self.store.record(&agents, target, until, now);
        self.checker.responded(response, &agents, target, until);
        self.committed(manager);
        Some(response)
    }

    pub(crate) fn lift(&mut self, manager: usize, response: usize) {
        if self.nodes[manager].is_up && self.store.responses[response].is_active {
            let now = self.nodes[manager].wall(self.now);
            self.checker.let_go(response);
            self.store.release(&[response], now);
            self.committed(manager);
        }
    }

    pub(crate) fn cancel(&mut self, agent: usize) {
        let newest = self.store.owed[agent].values().next_back().copied();
        let now = self.nodes[0].wall(self.now);
        if newest.is_some_and(|newest| self.store.cancel(newest, now)) {
            self.note(|| format!("command {} is cancelled", newest.unwrap_or_default()));
        }
    }

    /// After each transaction: the checker runs, hints are sent, and the undo stage schedules its
    /// next look.
    fn committed(&mut self, manager: usize) {
        let now = self.nodes[manager].wall(self.now);
        self.checker.committed(&self.store, now);
        for agent in std::mem::take(&mut self.store.woken) {
            for other in 0..self.nodes.len() {
                let Some(seat) = self.nodes[other].seats.get(&agent) else { continue };
                let talk = seat.talk;
                if other == manager || !self.random.chance(10) {
                    let pause = if other == manager { 1 } else { self.random.within(1..200) };
                    self.after(pause, Event::Fetch { manager: other, agent, talk });
                }
            }
        }
        let off = self.nodes[manager].clock_off;
        if let Some(next) = self.store.next_due().map(|due| instant::of(due, off).max(self.now))
            && next < self.nodes[manager].undo_at
        {
            self.plan_undo(manager, next);
        }
    }

    fn plan_undo(&mut self, manager: usize, at: Millis) {
        self.nodes[manager].undo_at = at;
        let life = self.nodes[manager].life;
        self.at(at, Event::Undo { manager, life, at });
    }

    /// `engine/undo.rs`.
    pub(crate) fn undo(&mut self, manager: usize) {
        let now = self.nodes[manager].wall(self.now);
        self.nodes[manager].undo_at = self.now + MAX_WAIT;
        let due = self.store.due(now);
        if !due.is_empty() {
            self.store.release(&due, now);
        }
        while self.store.retry_reverts(now) > 0 {}
        let off = self.nodes[manager].clock_off;
        let next = self.store.next_due().map_or(Millis::MAX, |due| instant::of(due, off));
        self.committed(manager);
        // A jump of this node's clock can put the due time into the past: the next look is a little
        // later.
        self.plan_undo(manager, next.max(self.now + 1).min(self.now + MAX_WAIT));
    }

    /// `engine/sweep.rs` and its effects: dead connections are closed, and lost hints are replaced.
    pub(crate) fn sweep(&mut self, manager: usize) {
        let now = self.nodes[manager].wall(self.now);
        self.store.expire(now);
        self.store.time_out(now);
        self.committed(manager);
        let dead = self.now.saturating_sub(SILENCE);
        self.nodes[manager].seats.retain(|_, seat| seat.heard_at >= dead);
        let waiting: Vec<(usize, u64)> = self.nodes[manager]
            .seats
            .iter()
            .filter(|(agent, _)| !self.store.owed[**agent].is_empty())
            .map(|(agent, seat)| (*agent, seat.talk))
            .collect();
        waiting.into_iter().for_each(|(agent, talk)| self.fetch(manager, agent, talk));
        let life = self.nodes[manager].life;
        self.after(PERIOD, Event::Sweep { manager, life });
    }

    pub(crate) fn manager_hears(&mut self, manager: usize, agent: usize, talk: u64, message: ToManager) {
        let now = self.nodes[manager].wall(self.now);
        if let ToManager::Hello { cursor, since, effects, acks, results, is_poll } = message {
            // A newer connection replaces an older one, never the reverse.
            if self.nodes[manager].seats.get(&agent).is_some_and(|seat| seat.talk >= talk) {
                return;
            }
            self.acknowledge(manager, agent, &acks);
            let said = Said { effects, ended: Vec::new(), is_whole: true };
            let seat = Seat { talk, session: Session::new(cursor), is_poll, heard_at: self.now, since };
            self.nodes[manager].seats.insert(agent, seat);
            self.tell_agent(agent, talk, ToAgent::Welcome);
            self.settle(manager, agent, talk, results);
            self.store.detect_rollback(agent, cursor);
            self.meet(manager, agent, &said, now);
            self.fetch(manager, agent, talk);
            return;
        }
        match self.nodes[manager].seats.get_mut(&agent) {
            Some(seat) if seat.talk == talk => seat.heard_at = self.now,
            _ => return,
        }
        match message {
            ToManager::Hello { .. } => {}
            ToManager::Ping => self.tell_agent(agent, talk, ToAgent::Pong),
            ToManager::Ack(ids) => self.acknowledge(manager, agent, &ids),
            ToManager::Results(results) => self.settle(manager, agent, talk, results),
            ToManager::Effects(effects, ended) => {
                self.meet(manager, agent, &Said { effects, ended, is_whole: false }, now);
            }
        }
    }

    fn meet(&mut self, manager: usize, agent: usize, said: &Said, now: Timestamp) {
        let released = self.store.converge(agent, said, now);
        released.into_iter().for_each(|effect| self.checker.released(agent, self.store.effects[effect].target));
        self.committed(manager);
        self.undo(manager);
    }

    fn acknowledge(&mut self, manager: usize, agent: usize, ids: &[Uuid]) {
        let now = self.nodes[manager].wall(self.now);
        for command in self.store.acknowledge(agent, ids, now) {
            self.note(|| format!("the store has command {command} as acknowledged"));
        }
    }

    fn settle(&mut self, manager: usize, agent: usize, talk: u64, results: Vec<CommandResult>) {
        if results.is_empty() {
            return;
        }
        let now = self.nodes[manager].wall(self.now);
        let ids: Vec<Uuid> = results.iter().map(|result| result.command_id).collect();
        if self.has(Defect::ResultAckBeforeCommit) {
            self.tell_agent(agent, talk, ToAgent::ResultAck(ids));
            let life = self.nodes[manager].life;
            self.after(30, Event::LateCommit { manager, life, agent, results });
            return;
        }
        self.commit_results(manager, agent, &results, now);
        self.tell_agent(agent, talk, ToAgent::ResultAck(ids));
    }

    pub(crate) fn commit_results(&mut self, manager: usize, agent: usize, results: &[CommandResult], now: Timestamp) {
        self.store.settle(agent, results, now);
        for result in results {
            let command = self.store.command_of(result.command_id);
            self.note(|| format!("the store has command {} as {}", command.unwrap_or(0), result.outcome.as_str()));
        }
        self.committed(manager);
    }

    /// `Conversation::next` and `send_owed`.
    pub(crate) fn fetch(&mut self, manager: usize, agent: usize, talk: u64) {
        let (now, true_now) = (self.nodes[manager].wall(self.now), self.now);
        let defect = self.defect;
        // Alerts in the commands may be so large that a message holds fewer.
        let fits = if self.random.chance(10) { 1 + self.random.index(FRAME) } else { FRAME };
        let Some(seat) = self.nodes[manager].seats.get_mut(&agent).filter(|seat| seat.talk == talk) else { return };
        let mut owed = self.store.owed(agent);
        owed.retain(|command| self.store.commands[*command].expires_at.is_none_or(|at| at > now));
        if defect == Some(Defect::CursorFromClock) {
            owed.retain(|command| self.store.commands[*command].created_at > seat.since);
            seat.since = now;
        }
        let states = owed.iter().map(|command| &self.store.commands[*command]);
        let state = |row: &Row| Owed { seq: row.seq, effect: effect_id(row.effect), lease_until: row.lease_until };
        let states: Vec<Owed> = states.map(state).collect();
        let lease_until = if defect == Some(Defect::LeaseNeverEnds) { Timestamp::MAX } else { now.plus(LEASE) };
        let mut chosen = seat.session.choose(&states, now, lease_until, FRAME);
        let has_more = chosen.len() > fits || chosen.len() == FRAME;
        chosen.drain(fits.min(chosen.len())..).for_each(|position| seat.session.take_back(states[position].seq));
        let is_over = seat.is_poll && !chosen.is_empty();
        let next = seat.session.next_lease_end();
        if is_over {
            self.nodes[manager].seats.remove(&agent);
        } else if let Some(end) = next.filter(|end| *end < Timestamp::MAX) {
            let at = instant::of(end, self.nodes[manager].clock_off).max(true_now + 1);
            self.at(at, Event::Fetch { manager, agent, talk });
        }
        if chosen.is_empty() {
            return;
        }
        let commands: Vec<usize> = chosen.iter().map(|position| owed[*position]).collect();
        self.note(|| format!("manager {manager} sends commands {commands:?} to agent {agent}"));
        let signed = commands.iter().map(|command| self.seal.sign(self.claims(*command, now), false)).collect();
        self.tell_agent(agent, talk, ToAgent::Commands(signed));
        let (life, pause) = (self.nodes[manager].life, self.random.within(1..40));
        // The delivery mark may be lost: then the commands are sent again.
        if !self.random.chance(3) {
            self.after(pause, Event::Delivered { manager, life, commands, lease_until });
        }
        if has_more && !is_over {
            self.after(0, Event::Fetch { manager, agent, talk });
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

    /// The managers that accept connections.
    pub(crate) fn up_managers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|manager| self.nodes[*manager].is_up).collect()
    }
}
