//! An agent's connection, modelled after `session/stream.rs` and `session/poll.rs`. The agent's own
//! [`Outgoing`] decides which results are sent, and its own [`receive`] what becomes of a command
//! that arrives.

use std::collections::HashSet;

use riposte_protocol::command::Command;
use riposte_protocol::delivery::Receipt;
use riposte_protocol::message::{HeldEffect, MAX_ITEMS};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::defect::Defect;
use crate::host::{Stop, Talk};
use crate::instant;
use crate::journal::{Held, Journal, JournalState, Record, Released};
use crate::outgoing::Outgoing;
use crate::plan::{Millis, SECOND};
use crate::receive::{Receipts, receive, receive_unwritten};
use crate::store::agent_id;
use crate::wire::{Sealed, ToAgent, ToManager};
use crate::world::{Event, World};

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Millis = 15 * SECOND;
/// Interval of heartbeats, and of polls that bring nothing.
const HEARTBEAT: Millis = 30 * SECOND;
/// Longest pause between two attempts to connect.
const LONGEST: Millis = 30 * SECOND;

fn reports(state: &JournalState) -> Vec<HeldEffect> {
    state.held().map(Held::report).chain(state.released().map(Released::report)).collect()
}

impl World {
    pub(crate) fn talks_to(&self, agent: usize, manager: usize) -> bool {
        self.hosts[agent].talk.as_ref().is_some_and(|talk| talk.manager == manager)
    }

    /// Ends the connection, and opens another after a pause that grows.
    pub(crate) fn hang_up(&mut self, agent: usize, pause: Millis) {
        let host = &mut self.hosts[agent];
        host.talk = None;
        if host.journal.is_some() {
            let longest = (500_u64 << host.failures.min(16)).min(LONGEST);
            host.failures += 1;
            let pause = pause + host.random.within(0..longest);
            let life = host.life;
            self.after(pause, Event::Connect { agent, life });
        }
    }

    /// Opens a connection to one of the managers, as a load balancer would choose.
    pub(crate) fn connect(&mut self, agent: usize) {
        let managers = self.up_managers();
        if self.hosts[agent].talk.is_some() {
            return;
        }
        if managers.is_empty() || self.hosts[agent].cut_until > self.now {
            return self.hang_up(agent, SECOND);
        }
        let manager = managers[self.hosts[agent].random.index(managers.len())];
        // Every second agent uses TLS; the others rely on their own clock and on signed orders.
        if agent.is_multiple_of(2) {
            self.checker.clock_set(agent, self.hosts[agent].wall(self.now));
            self.hosts[agent].learn_time(self.nodes[manager].wall(self.now), self.now);
        }
        let (now, is_poll, manager_life) = (self.now, self.shape.polls, self.nodes[manager].life);
        self.next_talk += 1;
        let number = self.next_talk;
        let host = &mut self.hosts[agent];
        host.news.clear();
        let Some(journal) = &host.journal else { return };
        let (state, mut outgoing) = (journal.state(), Outgoing::default());
        let effects = reports(state);
        if !is_poll {
            outgoing.told_of(state, effects.iter().map(|held| held.effect));
        }
        let results = if is_poll { outgoing.next(journal, &HashSet::new()) } else { Vec::new() };
        let unsettled = if is_poll { HashSet::new() } else { state.unsettled() };
        let releases = effects.iter().filter(|held| held.released.is_some()).map(|held| held.effect);
        let releases = releases.filter(|effect| !unsettled.contains(effect)).collect();
        let cursor = state.inbox().cursor();
        host.talk = Some(Talk {
            number,
            manager,
            manager_life,
            is_broken: false,
            holds_up: false,
            last_up: 0,
            last_down: 0,
            outgoing,
            heard_at: now,
            is_open: false,
            releases,
        });
        let (life, since, acks) = (host.life, host.heard_command_at, host.untold_acks.clone());
        self.note(|| format!("agent {agent} opens connection {number} with manager {manager}, cursor {cursor}"));
        self.acked(agent, &acks);
        self.checker.tells(agent, &results);
        let told: Vec<Uuid> = results.iter().map(|result| result.command_id).collect();
        self.tell_manager(agent, ToManager::Hello { cursor, since, effects, acks, results, is_poll });
        self.let_through(agent);
        let wait = if is_poll { HEARTBEAT + CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        self.after(wait, Event::Heartbeat { agent, life, talk: number });
        if self.has(Defect::ResultDropped) && !told.is_empty() {
            let _dead = self.note_down(agent, vec![Record::Acknowledged { ids: told }]);
        }
        self.tell(agent);
    }

    /// What an earlier connection has held up arrives, about when the hello does.
    fn let_through(&mut self, agent: usize) {
        for (manager, life, talk, message) in std::mem::take(&mut self.hosts[agent].held_up) {
            let pause = self.hosts[agent].random.within(1..200);
            self.after(pause, Event::AtManager { manager, life, agent, talk, message: Box::new(message) });
        }
    }

    pub(crate) fn heartbeat(&mut self, agent: usize, number: u64) {
        let (now, is_poll) = (self.now, self.shape.polls);
        let host = &self.hosts[agent];
        let Some(talk) = host.talk.as_ref().filter(|talk| talk.number == number) else { return };
        if is_poll || !talk.is_open || now - talk.heard_at >= 3 * HEARTBEAT {
            return self.hang_up(agent, 1);
        }
        let life = host.life;
        self.tell_manager(agent, ToManager::Ping);
        self.after(HEARTBEAT, Event::Heartbeat { agent, life, talk: number });
    }

    /// `send_results` and `send_news`.
    pub(crate) fn tell(&mut self, agent: usize) {
        let (is_poll, forgets) = (self.shape.polls, self.has(Defect::ResultDropped));
        let is_ordered = self.shape.is_ordered;
        let host = &mut self.hosts[agent];
        let (Some(journal), Some(talk)) = (&host.journal, &mut host.talk) else { return };
        // On an unordered network the hello could be overtaken, and the manager ignores what comes
        // before it.
        if !is_ordered && !talk.is_open {
            return;
        }
        if is_poll {
            // The next exchange carries the results; a busy agent asks for short ones.
            if talk.is_open && !journal.state().outbox().is_empty() {
                let (life, pause) = (host.life, host.random.within(1..SECOND));
                host.talk = None;
                self.after(pause, Event::Connect { agent, life });
            }
            return;
        }
        let results = talk.outgoing.next(journal, &HashSet::new());
        let news: Vec<Uuid> = std::mem::take(&mut host.news).into_iter().collect();
        let (mut effects, mut ended) = (Vec::new(), Vec::new());
        talk.outgoing.told_of(journal.state(), news.iter().copied());
        for effect in news {
            let state = journal.state();
            let released = || state.released().find(|released| released.effect == effect).map(Released::report);
            match state.held_effect(effect).map(Held::report).or_else(released) {
                Some(report) => effects.push(report),
                None => ended.push(effect),
            }
        }
        if !results.is_empty() {
            let ids = results.iter().map(|result| result.command_id).collect();
            self.checker.tells(agent, &results);
            self.tell_manager(agent, ToManager::Results(results));
            if forgets {
                let _dead = self.note_down(agent, vec![Record::Acknowledged { ids }]);
            }
        }
        if !effects.is_empty() || !ended.is_empty() {
            self.tell_manager(agent, ToManager::Effects(effects, ended));
        }
    }

    pub(crate) fn agent_hears(&mut self, agent: usize, message: ToAgent) {
        let now = self.now;
        let host = &mut self.hosts[agent];
        let Some(talk) = &mut host.talk else { return };
        if matches!(message, ToAgent::Close) {
            return self.hang_up(agent, 1);
        }
        talk.heard_at = now;
        if !talk.is_open {
            talk.is_open = true;
            host.failures = 0;
            host.untold_acks.clear();
            let effects = std::mem::take(&mut talk.releases);
            if !effects.is_empty() && self.note_down(agent, vec![Record::ReleaseTold { effects }]).is_err() {
                return;
            }
        }
        match message {
            // By poll it stands for the head of the answer, before the rest.
            ToAgent::Welcome if !self.shape.polls => self.tell(agent),
            ToAgent::Welcome | ToAgent::Pong | ToAgent::Close => {}
            ToAgent::ResultAck(ids) => {
                if let Some(talk) = &mut self.hosts[agent].talk {
                    talk.outgoing.again(&ids);
                }
                self.checker.told(agent, &ids, &self.store);
                let _dead = self.note_down(agent, vec![Record::Acknowledged { ids }]);
                let host = &mut self.hosts[agent];
                if let (Some(journal), Some(talk)) = (&host.journal, &mut host.talk) {
                    host.news.extend(talk.outgoing.take_settled(journal.state()));
                    self.tell(agent);
                }
            }
            ToAgent::Commands(sealed) => self.take_in(agent, &sealed),
        }
    }

    /// `Intake::take`.
    fn take_in(&mut self, agent: usize, sealed: &[Sealed]) {
        let believes_all = self.has(Defect::ForgeryBelieved);
        let opened = sealed.iter().filter_map(|sealed| match (sealed, believes_all) {
            (Sealed::Plain(command, _), true) => Some((**command).clone()),
            _ => self.seal.open(sealed, agent_id(agent)).ok(),
        });
        let commands: Vec<Command> = opened.collect();
        self.hosts[agent].heard_command_at = self.hosts[agent].wall(self.now);
        if self.has(Defect::AckBeforeJournal) {
            let ids: Vec<Uuid> = commands.iter().map(|command| command.jti).collect();
            self.acked(agent, &ids);
            self.tell_manager(agent, ToManager::Ack(ids));
            let life = self.hosts[agent].life;
            self.after(40, Event::LateJournal { agent, life, commands });
            return;
        }
        self.journal(agent, &commands);
    }

    /// `take_in` of the agent: one durable batch, acknowledged only then.
    pub(crate) fn journal(&mut self, agent: usize, commands: &[Command]) {
        let (now, ignores) = (self.hosts[agent].wall(self.now), self.has(Defect::ExpiryIgnored));
        let (mut receipts, mut overtaken) = (Receipts::default(), Vec::new());
        let accepts_duplicates = self.has(Defect::DuplicateAccepted);
        let written = self.write(agent, |journal: &mut Journal| {
            for command in commands {
                match journal.state().inbox().receive(command.jti, command.seq, command.effect) {
                    Receipt::Overtaken => overtaken.push(command.jti),
                    Receipt::Duplicate if accepts_duplicates => {
                        journal.add(Record::Received { command: Box::new(command.clone()) });
                    }
                    Receipt::Duplicate | Receipt::TooLate | Receipt::New => {}
                }
                let now = if ignores { Timestamp::from_millis(command.iat * 1000) } else { now };
                receive(journal, command, now, &mut receipts);
            }
        });
        match written {
            Ok(()) => {
                let latest = instant::wall(self.now + self.furthest, 0);
                overtaken.iter().for_each(|id| self.checker.overtaken(agent, *id, latest, &self.store));
            }
            Err(Stop::Dead) => return,
            Err(Stop::Unwritable) => {
                receipts = Receipts::default();
                for command in commands {
                    let Some(journal) = &self.hosts[agent].journal else { return };
                    let records = receive_unwritten(journal.state(), command.clone(), now, "it is full");
                    if self.note_down(agent, records) == Err(Stop::Dead) {
                        return;
                    }
                }
            }
        }
        self.checker.clock_set(agent, self.hosts[agent].wall(self.now));
        self.hosts[agent].learn_time_of_orders(self.now);
        let is_poll = self.shape.polls;
        self.wake_lanes(agent, 1);
        if is_poll {
            let host = &mut self.hosts[agent];
            host.untold_acks = receipts.acks;
            host.talk = None;
            let (life, pause) = (host.life, host.random.within(1..30));
            self.after(pause, Event::Connect { agent, life });
            return;
        }
        if let Some(talk) = &mut self.hosts[agent].talk {
            talk.outgoing.again(&receipts.duplicates);
        }
        self.acked(agent, &receipts.acks);
        for ids in receipts.acks.chunks(MAX_ITEMS) {
            self.tell_manager(agent, ToManager::Ack(ids.to_vec()));
        }
        self.tell(agent);
    }

    fn acked(&mut self, agent: usize, ids: &[Uuid]) {
        if !ids.is_empty() {
            let commands: Vec<usize> = ids.iter().filter_map(|id| self.store.command_of(*id)).collect();
            self.note(|| format!("agent {agent} acknowledges commands {commands:?}"));
            self.checker.acked(agent, ids);
        }
    }
}
