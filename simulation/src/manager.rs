//! A manager: one node on the store. Its connections use the protocol's own [`Session`] to select
//! what to send (`deliver.rs`). The rest is modelled after `api/stream.rs` and `engine/intake.rs`.
//! A node that crashes loses its connections and the delivery marks that were not committed; the
//! store loses nothing.
//!
//! Several nodes share the store (`cluster.rs`). A node that commits a command for an agent of
//! another node sends it a hint, which can be lost.

use std::time::Duration;

use riposte_protocol::delivery::Session;
use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::defect::Defect;
use crate::effect::Until;
use crate::node::Seat;
use crate::plan::Millis;
use crate::store::Said;
use crate::wire::{ToAgent, ToManager};
use crate::world::{Event, Intake, World};

impl World {
    pub(crate) fn start_manager(&mut self, manager: usize) {
        if self.nodes[manager].is_up {
            return;
        }
        let node = &mut self.nodes[manager];
        (node.is_up, node.undo_at, node.well_since) = (true, Millis::MAX, self.now);
        let life = node.life;
        self.after(0, Event::Renew { manager, life });
        self.after(0, Event::Look { manager, life });
        self.after(0, Event::Sweep { manager, life });
    }

    pub(crate) fn crash_manager(&mut self, manager: usize, away: Millis) {
        let node = &mut self.nodes[manager];
        if node.is_up {
            (node.is_up, node.life) = (false, node.life + 1);
            node.seats.clear();
            node.duties.clear();
            (node.is_undoing, node.paused_until, node.lease_until) = (false, 0, 0);
            self.after(away, Event::ManagerUp { manager });
            let lost: Vec<usize> = (0..self.hosts.len()).filter(|host| self.talks_to(*host, manager)).collect();
            lost.into_iter().for_each(|agent| self.hang_up(agent, 50));
        }
    }

    /// Decides about a request by the configuration in the caches; another step commits it.
    pub(crate) fn decide(
        &mut self,
        manager: usize,
        number: usize,
        on: Option<usize>,
        target: usize,
        lasts: Option<Millis>,
    ) {
        if self.is_serving(manager) {
            let node = &mut self.nodes[manager];
            let (life, pause) = (node.life, node.random.within(1..40));
            let (epoch, is_spared) = (node.epoch, node.configuration.protects(target));
            let intake = Intake { number, on, target, lasts, epoch, is_spared };
            self.after(pause, Event::Intake { manager, life, intake });
        }
    }

    /// Commits what was decided; returns the response. What was decided by an older epoch is
    /// decided again.
    pub(crate) fn commit_intake(&mut self, manager: usize, intake: &Intake) -> Option<usize> {
        if !self.may_commit(manager) {
            return None;
        }
        let &Intake { on, target, lasts, epoch, mut is_spared, .. } = intake;
        if epoch != self.store.cluster.epoch && !self.has(Defect::OldEpoch) {
            is_spared = self.store.cluster.configuration.protects(target);
        }
        if is_spared {
            self.note(|| format!("target {target} is spared: it is protected"));
            return None;
        }
        let found = self.checker.nodes.decided(manager, target);
        self.checker.found(found);
        let now = self.nodes[manager].wall(self.now);
        let until = Until::from(lasts.map(|lasts| now.plus(Duration::from_millis(lasts))));
        let agents: Vec<usize> = on.map_or_else(|| (0..self.hosts.len()).collect(), |agent| vec![agent]);
        let response = self.store.record(&agents, target, until, now);
        self.checker.responded(response, &agents, target, until);
        self.committed(manager, self.database_wall());
        Some(response)
    }

    pub(crate) fn lift(&mut self, manager: usize, response: usize) {
        let is_locked = self.store.cluster.locked_until > self.now;
        if self.is_serving(manager) && !is_locked && self.store.responses[response].is_active {
            let now = self.nodes[manager].wall(self.now);
            self.checker.let_go(response);
            self.store.release(&[response], now);
            self.committed(manager, self.database_wall());
        }
    }

    pub(crate) fn cancel(&mut self, agent: usize) {
        let newest = self.store.owed[agent].values().next_back().copied();
        let now = self.nodes[0].wall(self.now);
        if self.is_serving(0) && newest.is_some_and(|newest| self.store.cancel(newest, now)) {
            self.note(|| format!("command {} is cancelled", newest.unwrap_or_default()));
        }
    }

    /// After each transaction: the checker runs, hints are sent, and the undo stage schedules its
    /// next look.
    pub(crate) fn committed(&mut self, manager: usize, as_of: Timestamp) {
        self.checker.committed(&self.store, as_of);
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
        self.plan_next_undo(manager);
    }

    pub(crate) fn manager_hears(&mut self, manager: usize, agent: usize, talk: u64, message: ToManager) {
        let now = self.nodes[manager].wall(self.now);
        let is_serving = self.nodes[manager].lease_until > self.now || self.has(Defect::NoFence);
        if !is_serving || !self.may_commit(manager) {
            self.nodes[manager].seats.remove(&agent);
            return self.tell_agent(agent, talk, ToAgent::Close);
        }
        if let ToManager::Hello { cursor, since, effects, acks, results, is_poll } = message {
            // A newer connection replaces an older one, never the reverse.
            if self.nodes[manager].seats.get(&agent).is_some_and(|seat| seat.talk >= talk) {
                return;
            }
            let (number, older) = self.store.cluster.connect(agent, manager);
            self.checker.nodes.connected(agent, number);
            if let Some(older) = older.filter(|older| *older != manager)
                && !self.random.chance(10)
            {
                let pause = self.random.within(1..200);
                self.after(pause, Event::Displaced { manager: older, agent, number });
            }
            self.acknowledge(manager, agent, &acks);
            let said = Said { effects, ended: Vec::new(), is_whole: true };
            let (session, opened_at) = (Session::new(cursor), self.now);
            let (is_fetching, is_woken) = (false, false);
            let heard_at = opened_at;
            let seat = Seat { talk, number, opened_at, is_fetching, is_woken, session, is_poll, heard_at, since };
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
        let number = self.nodes[manager].seats[&agent].number;
        if matches!(message, ToManager::Ack(_) | ToManager::Results(_) | ToManager::Effects(..)) {
            if !self.store.cluster.is_newest(agent, number) && !self.has(Defect::OlderStreamBelieved) {
                self.note(|| format!("a commit of manager {manager} is refused: agent {agent} has a newer connection"));
                self.nodes[manager].seats.remove(&agent);
                return self.tell_agent(agent, talk, ToAgent::Close);
            }
            let found = self.checker.nodes.believes(manager, agent, number);
            self.checker.found(found);
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
        self.committed(manager, self.database_wall());
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
        self.committed(manager, self.database_wall());
    }

    /// The managers that accept connections.
    pub(crate) fn up_managers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|manager| self.nodes[*manager].is_up).collect()
    }
}
