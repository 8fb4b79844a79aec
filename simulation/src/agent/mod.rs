//! An agent on its host. Its journal and everything that follows from it are the agent's own code
//! on a disk in memory. The lane ([`executor`]) and the connection ([`session`]) are modelled after
//! `executor/` and `session/`, function by function, because the originals are tasks over sockets
//! and timers. The host's rules are a set of targets.
//!
//! Left out: several lock domains, local policies, two effects that do the same.

mod executor;
mod session;

use std::collections::BTreeSet;
use std::path::Path;

use crate::defect::Defect;
use crate::host::Stop;
use crate::journal::{Held, Journal, Record};
use crate::manager_time::ManagerTime;
use crate::plan::{Act, Millis, SECOND};
use crate::world::{Event, World};

/// Pause before the journal is written again after a failure.
const MEND_AFTER: Millis = 2 * SECOND;

impl World {
    pub(crate) fn start_agent(&mut self, agent: usize) {
        let is_full = self.hosts[agent].disk_full_until > self.now;
        let host = &mut self.hosts[agent];
        {
            let mut platter = host.disk.platter();
            (platter.is_dead, platter.is_full) = (false, is_full);
        }
        let opened = Journal::open_on(Path::new("journal"), Box::new(host.disk.clone()));
        let journal = match opened {
            Ok(journal) => journal,
            Err(error) => return self.checker.broken("the journal can be read", format!("agent {agent}: {error}")),
        };
        host.manager_time = ManagerTime::default();
        if let Some(iat) = journal.state().latest_order() {
            host.manager_time.learn_order(iat, &host.clocks(self.now));
        }
        self.checker.started(agent, journal.state(), host.wall(self.now), self.now, &self.store);
        let is_broken = journal.broken().is_some();
        host.journal = Some(journal);
        (host.up_since, host.lane_at, host.round_at) = (self.now, Millis::MAX, Some(self.now));
        let life = host.life;
        if is_broken {
            self.after(MEND_AFTER, Event::Mend { agent, life });
        }
        self.carry_over(agent);
        if self.hosts[agent].journal.as_ref().is_some_and(|journal| journal.broken().is_none()) {
            self.checker.carried(agent);
        }
        if self.has(Defect::UndoLostOnRestart) || self.has(Defect::RestartLiftsAll) {
            self.forget_or_lift(agent);
        }
        self.wake_lanes(agent, 1);
        let pause = self.hosts[agent].random.within(1..500);
        self.after(pause, Event::Connect { agent, life });
    }

    fn carry_over(&mut self, agent: usize) {
        let now = self.hosts[agent].moment(self.now);
        let Some(journal) = &self.hosts[agent].journal else { return };
        let carried = journal.state().held().filter_map(|held: &Held| {
            let mut held = held.clone();
            held.carry_over(&now).then(|| Record::Held { held: Box::new(held) })
        });
        let carried: Vec<Record> = carried.collect();
        if !carried.is_empty() {
            let _dead = self.note_down(agent, carried);
        }
    }

    /// What defective agents do when they start.
    fn forget_or_lift(&mut self, agent: usize) {
        let Some(journal) = &self.hosts[agent].journal else { return };
        let held: Vec<Held> = journal.state().held().cloned().collect();
        let records = held.iter().map(|held| Record::Lifted { effect: held.effect }).collect();
        if self.has(Defect::RestartLiftsAll) {
            held.iter().for_each(|held| self.lift_by_clock(agent, held));
        }
        let _dead = self.note_down(agent, records);
    }

    /// `Agent::write`.
    pub(crate) fn write<T>(&mut self, agent: usize, decide: impl FnOnce(&mut Journal) -> T) -> Result<T, Stop> {
        self.hosts[agent].feel_disk(self.now);
        let Some(journal) = &mut self.hosts[agent].journal else { return Err(Stop::Dead) };
        if journal.broken().is_some() {
            return Err(Stop::Unwritable);
        }
        let answer = decide(journal);
        let committed = journal.commit();
        self.look_after(agent, committed.is_err())?;
        Ok(answer)
    }

    /// `Agent::note`.
    pub(crate) fn note_down(&mut self, agent: usize, records: Vec<Record>) -> Result<(), Stop> {
        self.hosts[agent].feel_disk(self.now);
        let Some(journal) = &mut self.hosts[agent].journal else { return Err(Stop::Dead) };
        let was_broken = journal.broken().is_some();
        let noted = journal.note(records.clone());
        let is_broken = journal.broken().is_some();
        if !was_broken && self.look_after(agent, noted.is_err()) == Err(Stop::Dead) {
            return Err(Stop::Dead);
        }
        if !is_broken {
            self.checker.noted(agent, &records);
        }
        for record in &records {
            if let Record::Finished { result } = record {
                let command = self.store.command_of(result.command_id).unwrap_or(usize::MAX);
                let (outcome, message) = (result.outcome.as_str(), &result.message);
                self.note(|| format!("agent {agent} has finished command {command}: {outcome}, {message}"));
            }
        }
        Ok(())
    }

    fn look_after(&mut self, agent: usize, is_unreadable: bool) -> Result<(), Stop> {
        if self.hosts[agent].disk.platter().is_dead {
            self.note(|| format!("agent {agent} crashes in a write"));
            let away = self.hosts[agent].tear_away;
            self.crash_agent(agent, away);
            return Err(Stop::Dead);
        }
        let broken = self.hosts[agent].journal.as_ref().and_then(Journal::broken).map(str::to_owned);
        if is_unreadable {
            self.checker.broken("the journal can be read", format!("agent {agent}: {broken:?}"));
        }
        if let Some(why) = broken {
            self.note(|| format!("agent {agent} cannot write its journal: {why}"));
            let life = self.hosts[agent].life;
            self.after(MEND_AFTER, Event::Mend { agent, life });
            return Err(Stop::Unwritable);
        }
        Ok(())
    }

    /// `mend_journal`.
    pub(crate) fn mend(&mut self, agent: usize) {
        self.hosts[agent].feel_disk(self.now);
        let host = &mut self.hosts[agent];
        let Some(journal) = &mut host.journal else { return };
        if journal.broken().is_none() {
            return;
        }
        journal.mend();
        let (is_mended, life) = (journal.broken().is_none(), host.life);
        if is_mended {
            self.note(|| format!("agent {agent} can write its journal again"));
            self.checker.mended(agent, self.hosts[agent].journal.as_ref());
            self.wake_lanes(agent, 0);
            self.tell(agent);
        } else {
            self.after(MEND_AFTER, Event::Mend { agent, life });
        }
    }

    pub(crate) fn crash_agent(&mut self, agent: usize, away: Millis) {
        let host = &mut self.hosts[agent];
        if host.journal.take().is_none() {
            return;
        }
        host.life += 1;
        (host.executing, host.talk, host.lane_at) = (None, None, Millis::MAX);
        host.retries.clear();
        host.todo.clear();
        host.news.clear();
        host.untold_acks.clear();
        host.disk.platter().tear = None;
        let life = host.life;
        self.after(away, Event::AgentUp { agent, life });
    }

    /// Applies an act of the plan to a host.
    pub(crate) fn befall(&mut self, act: Act) {
        let now = self.now;
        match act {
            Act::CrashAgent { agent, away } => self.crash_agent(agent, away),
            Act::TearWrite { agent, writes, parts, away } => {
                self.hosts[agent].disk.platter().tear = Some((writes, parts));
                self.hosts[agent].tear_away = away;
            }
            Act::Reboot { agent, away } => {
                self.crash_agent(agent, away);
                self.hosts[agent].boot(now);
                // Some rules are in the kernel, some in files.
                self.hosts[agent].in_force.retain(|target| !target.is_multiple_of(2));
                self.checker.rebooted(agent);
            }
            Act::Reimage { agent } => self.replace(agent, None),
            Act::Snapshot { agent } => {
                let host = &mut self.hosts[agent];
                let bytes = host.disk.platter().bytes.clone();
                host.snapshot = Some((bytes, host.in_force.clone()));
                self.checker.snapshot(agent);
            }
            Act::Restore { agent } => {
                if let Some(snapshot) = self.hosts[agent].snapshot.clone() {
                    self.replace(agent, Some(snapshot));
                }
            }
            Act::HoldUp { agent } => {
                if let Some(talk) = &mut self.hosts[agent].talk {
                    talk.holds_up = true;
                }
            }
            Act::Partition { agent, lasts } => self.hosts[agent].cut_until = now + lasts,
            Act::Noise { agent, lasts, percent } => {
                (self.hosts[agent].noise_until, self.hosts[agent].noise_percent) = (now + lasts, percent);
            }
            Act::SetAgentClock { agent, by } => {
                self.checker.clock_set(agent, self.hosts[agent].wall(now));
                self.hosts[agent].clock_off = by;
            }
            Act::FillDisk { agent, lasts } => {
                self.hosts[agent].disk_full_until = now + lasts;
                self.hosts[agent].disk.platter().is_full = true;
            }
            Act::BreakActions { agent, lasts } => self.hosts[agent].actions_fail_until = now + lasts,
            Act::Flush { agent } => self.hosts[agent].in_force.clear(),
            Act::Forge { agent, kind } => self.forge(agent, kind),
            _ => {}
        }
    }

    /// Replaces the host by another one with the same identity.
    fn replace(&mut self, agent: usize, snapshot: Option<(Vec<u8>, BTreeSet<usize>)>) {
        let is_restored = snapshot.is_some();
        let (bytes, in_force) = snapshot.unwrap_or_default();
        self.crash_agent(agent, 3 * SECOND);
        let now = self.now;
        let host = &mut self.hosts[agent];
        host.disk.platter().bytes = bytes;
        host.in_force = in_force;
        host.incarnation += 1;
        host.boot(now);
        self.checker.replaced(agent, is_restored);
    }
}
