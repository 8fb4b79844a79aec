//! What a manager does because there are several: it renews its lease, looks for what hints did not
//! tell, brings changes of configuration into force, and owns duties. Modelled after
//! `src/store/database/nodes.rs`, `engine/{cache,undo,sweep}.rs`.
//!
//! A manager that cannot renew its lease drops its connections, and its agents go to another one.
//! On its own a manager has its database beside it: their clocks are the same, and nothing cuts it
//! off.

use riposte_protocol::time::Timestamp;

use crate::checker::MAX_CLOCK_OFF;
use crate::defect::Defect;
use crate::instant;
use crate::plan::{Change, Millis, SECOND};
use crate::store::{Duty, TTL};
use crate::wire::ToAgent;
use crate::world::{Event, World};

/// Interval between renewals of a lease.
const RENEW_EVERY: Millis = SECOND;
/// Longest pause between two looks for responses that have ended.
const MAX_WAIT: Millis = 30 * SECOND;
/// Interval of sweeps.
const PERIOD: Millis = 5 * SECOND;
/// A connection without a message for this long is closed.
const SILENCE: Millis = 100 * SECOND;
/// How often a change that waits for other managers looks at them.
const ANSWER_EVERY: Millis = 100;

impl World {
    /// The time by the database's clock.
    pub(crate) fn database_wall(&self) -> Timestamp {
        let off = if self.nodes.len() == 1 { self.nodes[0].clock_off } else { 0 };
        instant::wall(self.now, off)
    }

    /// Whether a manager answers requests.
    pub(crate) fn is_serving(&self, manager: usize) -> bool {
        let (node, now) = (&self.nodes[manager], self.now);
        node.is_up && node.paused_until <= now && node.cut_until <= now && node.lease_until > now
    }

    /// Whether a transaction of a manager is committed: it reads the lease under the lock of the
    /// audit head.
    pub(crate) fn may_commit(&mut self, manager: usize) -> bool {
        let is_live = self.has(Defect::NoFence) || self.store.cluster.is_live(manager, self.now);
        if !is_live {
            self.note(|| format!("a commit of manager {manager} is refused: its lease has ended"));
        }
        is_live && self.nodes[manager].cut_until <= self.now
    }

    fn may_do(&mut self, manager: usize, duty: Duty, fence: u64) -> bool {
        let is_owner = self.has(Defect::NoFence) || self.store.cluster.is_fence(duty, fence);
        if !is_owner {
            self.note(|| format!("a commit of manager {manager} is refused: fence {fence} of {duty:?} is old"));
        }
        is_owner && self.may_commit(manager)
    }

    /// The steps of a manager that are not about one agent.
    pub(crate) fn happen_at_manager(&mut self, event: Event) {
        match event {
            Event::Renew { manager, life } if self.nodes[manager].is_alive(life) => self.renew(manager),
            Event::Look { manager, life } if self.nodes[manager].is_alive(life) => self.look_at_ledger(manager),
            Event::Configuration { manager, life }
                if self.nodes[manager].is_alive(life) && self.nodes[manager].cut_until <= self.now =>
            {
                self.apply_configuration(manager);
            }
            Event::Answer { manager, life, change, epoch } if self.nodes[manager].is_alive(life) => {
                self.answer(manager, change, epoch);
            }
            Event::Displaced { manager, agent, number } => self.displace(manager, agent, number),
            Event::Undo { manager, life, at }
                if self.nodes[manager].is_alive(life) && self.nodes[manager].undo_at == at =>
            {
                self.undo(manager);
            }
            Event::CommitUndo { manager, life, fence, due, now, as_of } if self.nodes[manager].is_alive(life) => {
                self.commit_undo(manager, fence, &due, now, as_of);
            }
            Event::Sweep { manager, life } if self.nodes[manager].is_alive(life) => self.sweep(manager),
            Event::TakeBack { manager, change } => self.configure(manager, change, None),
            _ => {}
        }
    }

    /// Renews the lease and the duties, and reads what has changed.
    fn renew(&mut self, manager: usize) {
        let now = self.now;
        if self.nodes[manager].lease_until <= now {
            self.close_all(manager);
            self.nodes[manager].duties.clear();
        }
        if self.nodes[manager].cut_until <= now {
            if self.nodes[manager].lease_until <= now {
                self.nodes[manager].well_since = now;
                self.note(|| format!("manager {manager} takes a lease"));
            }
            self.apply_configuration(manager);
            let node = &mut self.nodes[manager];
            node.lease_until = now + TTL;
            self.store.cluster.renew(manager, node.epoch, now);
            self.take_duties(manager);
        }
        let life = self.nodes[manager].life;
        self.after(RENEW_EVERY, Event::Renew { manager, life });
    }

    fn close_all(&mut self, manager: usize) {
        for (agent, seat) in std::mem::take(&mut self.nodes[manager].seats) {
            self.tell_agent(agent, seat.talk, ToAgent::Close);
        }
    }

    fn take_duties(&mut self, manager: usize) {
        if self.is_clock_off(manager) {
            self.nodes[manager].duties.clear();
            return;
        }
        for duty in Duty::ALL {
            let held = self.nodes[manager].duties.get(&duty).copied();
            let fence = self.store.cluster.take(duty, manager, held, self.now);
            if fence != held {
                self.nodes[manager].duties.remove(&duty);
                if let Some(fence) = fence {
                    self.note(|| format!("manager {manager} takes the duty {duty:?}, fence {fence}"));
                    self.nodes[manager].duties.insert(duty, fence);
                    if duty == Duty::Undo {
                        self.plan_undo(manager, self.now);
                    }
                }
            }
        }
    }

    fn is_clock_off(&self, manager: usize) -> bool {
        self.nodes.len() > 1 && self.nodes[manager].is_clock_off(MAX_CLOCK_OFF)
    }

    /// Brings the configuration into force.
    pub(crate) fn apply_configuration(&mut self, manager: usize) {
        let (epoch, node) = (self.store.cluster.epoch, &mut self.nodes[manager]);
        if node.epoch != epoch || node.configuration != self.store.cluster.configuration {
            (node.epoch, node.configuration) = (epoch, self.store.cluster.configuration.clone());
            self.store.cluster.applied(manager, epoch);
            self.note(|| format!("manager {manager} has epoch {epoch} in force"));
        }
    }

    /// Looks for what hints did not tell: newer connections elsewhere, commands, work of a duty.
    fn look_at_ledger(&mut self, manager: usize) {
        self.watch_waits();
        let node = &mut self.nodes[manager];
        let pause = node.random.within(SECOND..2 * SECOND);
        let (life, is_well) = (node.life, node.cut_until <= self.now && node.lease_until > self.now);
        self.after(pause, Event::Look { manager, life });
        if !is_well || self.has(Defect::NoLook) {
            return;
        }
        let seats: Vec<(usize, u64, u64)> =
            self.nodes[manager].seats.iter().map(|(agent, seat)| (*agent, seat.talk, seat.number)).collect();
        for (agent, talk, number) in seats {
            if !self.store.cluster.is_newest(agent, number) {
                self.displace(manager, agent, number + 1);
            } else if !self.store.owed[agent].is_empty() {
                self.fetch(manager, agent, talk);
            }
        }
        self.plan_next_undo(manager);
    }

    /// The commands that could be sent at once, for the checker.
    fn watch_waits(&mut self) {
        let (mut waiting, now) = (Vec::new(), self.now);
        for (agent, host) in self.hosts.iter().enumerate() {
            let Some(talk) = host.talk.as_ref().filter(|talk| talk.is_open && !talk.is_broken) else { continue };
            let node = &self.nodes[talk.manager];
            let is_serving = self.is_serving(talk.manager) && node.is_alive(talk.manager_life);
            let Some(seat) = node.seats.get(&agent).filter(|seat| is_serving && seat.talk == talk.number) else {
                continue;
            };
            if !self.store.cluster.is_newest(agent, seat.number) {
                continue;
            }
            let since = node.well_since.max(seat.opened_at).max(self.store.cluster.changed_at);
            let wall = node.wall(now);
            for command in self.store.owed(agent) {
                let row = &self.store.commands[command];
                let is_forbidden = node.configuration.holds_back(row.op)
                    || node.configuration.protects(self.store.effects[row.effect].target);
                let is_over = row.expires_at.is_some_and(|at| at <= wall);
                if row.lease_until.is_none() && !is_forbidden && !is_over {
                    waiting.push((command, since));
                }
            }
        }
        let found = self.checker.nodes.waits(&waiting, now);
        self.checker.found(found);
    }

    /// A newer connection of the agent is known: the older one is closed.
    fn displace(&mut self, manager: usize, agent: usize, number: u64) {
        let seats = &mut self.nodes[manager].seats;
        if seats.get(&agent).is_some_and(|seat| seat.number < number)
            && let Some(seat) = seats.remove(&agent)
        {
            self.note(|| format!("manager {manager} closes an older connection of agent {agent}"));
            self.tell_agent(agent, seat.talk, ToAgent::Close);
        }
    }

    /// Makes a change of configuration, to be taken back after `lasts`; without `lasts`, takes it
    /// back.
    pub(crate) fn configure(&mut self, manager: usize, change: Change, lasts: Option<Millis>) {
        let is_on = lasts.is_some();
        let is_locked = self.store.cluster.locked_until > self.now;
        if !self.is_serving(manager) || is_locked || !self.may_commit(manager) {
            // A person who wants it back in service asks again, another manager if need be.
            if !is_on {
                let manager = (manager + 1) % self.nodes.len();
                self.after(5 * SECOND, Event::TakeBack { manager, change });
            }
            return;
        }
        let epoch = self.store.cluster.change(change, is_on, self.now);
        self.note(|| format!("epoch {epoch}: {change}, {}", if is_on { "made" } else { "taken back" }));
        self.checker.nodes.changed(change, is_on, epoch);
        self.apply_configuration(manager);
        if let (Change::Protect { target }, true) = (change, is_on) {
            let lifted: Vec<usize> = self.store.against(target).into_iter().collect();
            lifted.iter().for_each(|response| self.checker.let_go(*response));
            self.store.release(&lifted, self.nodes[manager].wall(self.now));
        }
        self.committed(manager, self.database_wall());
        for other in 0..self.nodes.len() {
            if other != manager && !self.random.chance(10) {
                let (life, pause) = (self.nodes[other].life, self.random.within(1..200));
                self.after(pause, Event::Configuration { manager: other, life });
            }
        }
        if let Some(lasts) = lasts {
            let life = self.nodes[manager].life;
            self.after(1, Event::Answer { manager, life, change, epoch });
            self.after(lasts, Event::TakeBack { manager, change });
        }
    }

    /// Answers once every live manager has the change in force.
    fn answer(&mut self, manager: usize, change: Change, epoch: u64) {
        let is_known = self.nodes[manager].cut_until <= self.now;
        if is_known && self.store.cluster.is_in_force(epoch, self.now) {
            self.note(|| format!("manager {manager} answers: {change} is in force"));
            return self.checker.nodes.answered(change, epoch);
        }
        let life = self.nodes[manager].life;
        self.after(ANSWER_EVERY, Event::Answer { manager, life, change, epoch });
    }

    pub(crate) fn plan_undo(&mut self, manager: usize, at: Millis) {
        self.nodes[manager].undo_at = at;
        let life = self.nodes[manager].life;
        self.at(at, Event::Undo { manager, life, at });
    }

    /// Lets the owner of the duty undo what is due earlier than it has planned.
    pub(crate) fn plan_next_undo(&mut self, manager: usize) {
        let node = &self.nodes[manager];
        let off = node.clock_off;
        if let Some(next) = self.store.next_due().map(|due| instant::of(due, off).max(self.now))
            && !node.is_undoing
            && node.duties.contains_key(&Duty::Undo)
            && next < node.undo_at
        {
            self.plan_undo(manager, next);
        }
    }

    /// `engine/undo.rs`: reads what is due; another step commits it.
    fn undo(&mut self, manager: usize) {
        let now = self.nodes[manager].wall(self.now);
        let owned = self.nodes[manager].duties.get(&Duty::Undo).copied();
        let is_well = self.nodes[manager].cut_until <= self.now && !self.is_clock_off(manager);
        let Some(fence) = owned.filter(|_| is_well && !self.nodes[manager].is_undoing) else { return };
        let due = self.store.due(now);
        if due.is_empty() && self.store.due_retries(now).is_empty() {
            return self.plan_after_undo(manager);
        }
        self.nodes[manager].is_undoing = true;
        let life = self.nodes[manager].life;
        let (pause, as_of) = (self.nodes[manager].random.within(1..20), self.database_wall());
        self.after(pause, Event::CommitUndo { manager, life, fence, due, now, as_of });
    }

    /// The transaction of what was due when the node's clock read `now`, and the database's
    /// `as_of`. A response that a person has lifted meanwhile is not ended again.
    fn commit_undo(&mut self, manager: usize, fence: u64, due: &[usize], now: Timestamp, as_of: Timestamp) {
        self.nodes[manager].is_undoing = false;
        if self.may_do(manager, Duty::Undo, fence) {
            let found = self.checker.nodes.does(manager, Duty::Undo, fence);
            self.checker.found(found);
            let active: Vec<usize> =
                due.iter().copied().filter(|response| self.store.responses[*response].is_active).collect();
            let found = self.checker.nodes.ends(manager, &active);
            self.checker.found(found);
            if !active.is_empty() {
                self.store.release(&active, now);
            }
            while self.store.retry_reverts(now) > 0 {}
            self.committed(manager, as_of);
        }
        self.plan_after_undo(manager);
    }

    /// A jump of this node's clock can put the due time into the past: the next look is a little
    /// later.
    fn plan_after_undo(&mut self, manager: usize) {
        let off = self.nodes[manager].clock_off;
        let next = self.store.next_due().map_or(Millis::MAX, |due| instant::of(due, off));
        self.plan_undo(manager, next.max(self.now + 1).min(self.now + MAX_WAIT));
    }

    /// `engine/sweep.rs`: dead connections are closed; the owner of the duty ends what waited too
    /// long.
    fn sweep(&mut self, manager: usize) {
        let owned = self.nodes[manager].duties.get(&Duty::Sweep).copied();
        if let Some(fence) = owned
            && !self.is_clock_off(manager)
            && self.may_do(manager, Duty::Sweep, fence)
        {
            let found = self.checker.nodes.does(manager, Duty::Sweep, fence);
            self.checker.found(found);
            let now = self.nodes[manager].wall(self.now);
            self.store.expire(now);
            self.store.time_out(now);
            self.committed(manager, self.database_wall());
        }
        let dead = self.now.saturating_sub(SILENCE);
        self.nodes[manager].seats.retain(|_, seat| seat.heard_at >= dead);
        let life = self.nodes[manager].life;
        self.after(PERIOD, Event::Sweep { manager, life });
    }

    /// The process is stopped until then. In a transaction it holds the audit head, until it goes
    /// on or the database ends the transaction.
    pub(crate) fn pause_manager(&mut self, manager: usize, lasts: Millis, in_transaction: bool) {
        let until = self.now + lasts;
        if !self.nodes[manager].is_up || self.nodes[manager].paused_until > self.now {
            return;
        }
        if in_transaction && self.is_serving(manager) {
            self.store.cluster.locked_until = until.min(self.now + 5 * SECOND);
        }
        let node = &mut self.nodes[manager];
        (node.paused_until, node.well_since) = (until, node.well_since.max(until));
    }

    /// The database is not reached until then.
    pub(crate) fn cut_database(&mut self, manager: usize, lasts: Millis) {
        if self.nodes.len() > 1 {
            let until = self.now + lasts;
            let node = &mut self.nodes[manager];
            (node.cut_until, node.well_since) = (until, node.well_since.max(until));
        }
    }
}
