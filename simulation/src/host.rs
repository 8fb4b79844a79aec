//! The state of a host and of the agent on it: its disk, its clocks, what its lane does, and its
//! connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::command::Command;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::disk::MemoryDisk;
use crate::instant;
use crate::journal::{Held, Journal};
use crate::manager_time::ManagerTime;
use crate::moment::Moment;
use crate::outgoing::Outgoing;
use crate::plan::Millis;
use crate::random::Random;
use crate::wire::ToManager;

/// A host with its agent.
#[derive(Debug)]
pub struct Host {
    pub(crate) disk: MemoryDisk,
    /// The agent's journal; `None` while it does not run.
    pub journal: Option<Journal>,
    /// Counts the starts of the process.
    pub life: u32,
    /// Counts the states that do not follow from the one before: reinstalled, set back to a
    /// snapshot.
    pub incarnation: u32,
    /// The blocked targets.
    pub in_force: BTreeSet<usize>,
    pub(crate) clock_off: i64,
    /// What the process knows of the manager's time; lost in a crash.
    pub(crate) manager_time: ManagerTime,
    pub(crate) booted_at: Millis,
    pub(crate) boot: Arc<str>,
    pub(crate) boots: u32,
    /// When the agent was started.
    pub up_since: Millis,
    pub(crate) executing: Option<Execution>,
    pub(crate) retries: BTreeMap<Uuid, Retry>,
    pub(crate) round_at: Option<Millis>,
    pub(crate) todo: Vec<Uuid>,
    pub(crate) lane_at: Millis,
    pub(crate) news: BTreeSet<Uuid>,
    pub(crate) talk: Option<Talk>,
    /// What it has sent by a connection that holds it up: the manager, its life, the connection.
    pub(crate) held_up: Vec<(usize, u32, u64, ToManager)>,
    /// By poll: the acknowledgements for the next exchange.
    pub(crate) untold_acks: Vec<Uuid>,
    /// What a defective agent uses as its cursor.
    pub(crate) heard_command_at: Timestamp,
    pub(crate) failures: u32,
    pub(crate) random: Random,
    pub(crate) cut_until: Millis,
    pub(crate) noise_until: Millis,
    pub(crate) noise_percent: u64,
    /// Until then its actions fail.
    pub actions_fail_until: Millis,
    /// Until then its disk is full.
    pub disk_full_until: Millis,
    pub(crate) tear_away: Millis,
    pub(crate) snapshot: Option<(Vec<u8>, BTreeSet<usize>)>,
}

/// The step that the lane is in: a program runs.
#[derive(Debug)]
pub(crate) enum Execution {
    Apply { command: Command, held: Held, is_refresh: bool, started_at: Timestamp },
    AfterApply { command: Command, held: Held, is_refresh: bool, started_at: Timestamp, worked: bool },
    Revert { command: Command, held: Option<Held>, started_at: Timestamp },
    AfterRevert { command: Command, held: Option<Held>, started_at: Timestamp, worked: bool },
    Undo(Held),
}

/// When a failed revert is retried.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pub(crate) failures: u32,
    pub(crate) at: Millis,
}

/// A connection, as the agent sees it.
#[derive(Debug)]
pub struct Talk {
    pub(crate) number: u64,
    pub(crate) manager: usize,
    pub(crate) manager_life: u32,
    /// The connection is broken, but neither side has noticed.
    pub(crate) is_broken: bool,
    /// What is sent arrives only after the next connection is open.
    pub(crate) holds_up: bool,
    pub(crate) last_up: Millis,
    pub(crate) last_down: Millis,
    pub(crate) outgoing: Outgoing,
    pub(crate) heard_at: Millis,
    pub(crate) is_open: bool,
    pub(crate) releases: Vec<Uuid>,
}

/// The agent cannot continue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It crashed in a write.
    Dead,
    /// It cannot write its journal.
    Unwritable,
}

impl Host {
    /// A host that was just installed.
    pub fn new(agent: usize, seed: u64) -> Self {
        Self {
            disk: MemoryDisk::default(),
            journal: None,
            life: 0,
            incarnation: 0,
            in_force: BTreeSet::new(),
            clock_off: 0,
            manager_time: ManagerTime::default(),
            booted_at: 0,
            boot: "boot 0".into(),
            boots: 0,
            up_since: 0,
            executing: None,
            retries: BTreeMap::new(),
            round_at: None,
            todo: Vec::new(),
            lane_at: Millis::MAX,
            news: BTreeSet::new(),
            talk: None,
            held_up: Vec::new(),
            untold_acks: Vec::new(),
            heard_command_at: Timestamp::MIN,
            failures: 0,
            random: Random::new(seed, 100 + agent as u64),
            cut_until: 0,
            noise_until: 0,
            noise_percent: 0,
            actions_fail_until: 0,
            disk_full_until: 0,
            tear_away: 0,
            snapshot: None,
        }
    }

    /// The agent's current time: the host's wall clock, unless it is known to be off.
    pub fn wall(&self, now: Millis) -> Timestamp {
        self.manager_time.read(&self.clocks(now))
    }

    pub(crate) fn moment(&self, now: Millis) -> Moment {
        Moment { wall: self.wall(now), ..self.clocks(now) }
    }

    /// Both clocks as the host has them, uncorrected.
    pub(crate) fn clocks(&self, now: Millis) -> Moment {
        let since_boot = Duration::from_millis(now - self.booted_at);
        Moment { wall: instant::wall(now, self.clock_off), since_boot, boot: Arc::clone(&self.boot) }
    }

    /// Learns from the latest order that the manager's time is not before it.
    pub(crate) fn learn_time_of_orders(&self, now: Millis) {
        if let Some(iat) = self.journal.as_ref().and_then(|journal| journal.state().latest_order()) {
            self.manager_time.learn_order(iat, &self.clocks(now));
        }
    }

    /// Learns over a private connection that the manager's time is `wall`.
    pub(crate) fn learn_time(&self, wall: Timestamp, now: Millis) {
        self.manager_time.learn(wall, &self.clocks(now));
    }

    pub(crate) fn talk_number(&self) -> Option<u64> {
        self.talk.as_ref().map(|talk| talk.number)
    }

    pub(crate) fn heal(&mut self, now: Millis) {
        (self.clock_off, self.cut_until, self.noise_until) = (0, 0, 0);
        // The time of the last failure is kept: an agent whose actions fail is not late.
        self.actions_fail_until = self.actions_fail_until.min(now);
        self.disk_full_until = 0;
        let mut platter = self.disk.platter();
        (platter.is_full, platter.tear) = (false, None);
    }

    pub(crate) fn feel_disk(&mut self, now: Millis) {
        self.disk.platter().is_full = self.disk_full_until > now;
    }

    pub(crate) fn boot(&mut self, now: Millis) {
        self.boots += 1;
        (self.booted_at, self.boot) = (now, format!("boot {}", self.boots).into());
    }
}
