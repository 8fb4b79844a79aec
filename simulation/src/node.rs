//! The state of a manager's node: its clock and its connections.

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::delivery::Session;
use riposte_protocol::time::Timestamp;

use crate::instant;
use crate::plan::Millis;
use crate::random::Random;
use crate::store::{Configuration, Duty};

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Whether it runs.
    pub is_up: bool,
    pub(crate) life: u32,
    /// By how much its wall clock is off, in milliseconds.
    pub(crate) clock_off: i64,
    pub(super) seats: BTreeMap<usize, Seat>,
    pub(crate) undo_at: Millis,
    /// What was due is being committed.
    pub(crate) is_undoing: bool,
    /// Until then its process is stopped.
    pub(crate) paused_until: Millis,
    /// Until then it does not reach the database.
    pub(crate) cut_until: Millis,
    /// Since when it can do everything.
    pub(crate) well_since: Millis,
    /// Until when it may act, by its own monotonic clock.
    pub(crate) lease_until: Millis,
    /// The configuration in its caches, and the epoch of that.
    pub(crate) configuration: Configuration,
    pub(crate) epoch: u64,
    /// The duties that it owns, each with its fence.
    pub(crate) duties: BTreeMap<Duty, u64>,
    pub(crate) random: Random,
}

/// A connection of an agent.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) talk: u64,
    /// The number of the connection in the ledger.
    pub(super) number: u64,
    pub(super) opened_at: Millis,
    /// Pending commands were read and are about to be sent; then, whether to look once more.
    pub(super) is_fetching: bool,
    pub(super) is_woken: bool,
    pub(super) session: Session,
    pub(super) is_poll: bool,
    pub(super) heard_at: Millis,
    /// Where a defective manager would continue.
    pub(super) since: Timestamp,
}

impl Node {
    /// A node that was never started.
    pub fn new(manager: usize, seed: u64) -> Self {
        Self {
            is_up: false,
            life: 0,
            clock_off: 0,
            seats: BTreeMap::new(),
            undo_at: 0,
            is_undoing: false,
            paused_until: 0,
            cut_until: 0,
            well_since: 0,
            lease_until: 0,
            configuration: Configuration::default(),
            epoch: 0,
            duties: BTreeMap::new(),
            random: Random::new(seed, 200 + manager as u64),
        }
    }

    /// Its clock is so far from the database's that it must not undo.
    pub(crate) fn is_clock_off(&self, most: Duration) -> bool {
        u128::from(self.clock_off.unsigned_abs()) > most.as_millis()
    }

    pub(crate) fn wall(&self, now: Millis) -> Timestamp {
        instant::wall(now, self.clock_off)
    }

    pub(crate) fn is_alive(&self, life: u32) -> bool {
        self.is_up && self.life == life
    }
}
