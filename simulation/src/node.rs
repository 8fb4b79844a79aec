//! The state of a manager's node: its clock and its connections.

use std::collections::BTreeMap;

use riposte_protocol::delivery::Session;
use riposte_protocol::time::Timestamp;

use crate::instant;
use crate::plan::Millis;

/// One node.
#[derive(Debug, Default)]
pub struct Node {
    /// Whether it runs.
    pub is_up: bool,
    pub(crate) life: u32,
    /// By how much its wall clock is off, in milliseconds.
    pub(crate) clock_off: i64,
    pub(super) seats: BTreeMap<usize, Seat>,
    pub(crate) undo_at: Millis,
}

/// A connection of an agent.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) talk: u64,
    pub(super) session: Session,
    pub(super) is_poll: bool,
    pub(super) heard_at: Millis,
    /// Where a defective manager would continue.
    pub(super) since: Timestamp,
}

impl Node {
    pub(crate) fn wall(&self, now: Millis) -> Timestamp {
        instant::wall(now, self.clock_off)
    }

    pub(crate) fn is_alive(&self, life: u32) -> bool {
        self.is_up && self.life == life
    }
}
