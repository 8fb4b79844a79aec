//! `src/store/database/nodes.rs` and the tables beside it: the leases of the managers, the
//! configuration with its epoch, the owners of duties, and which connection of an agent is the
//! newest. Times are those of the database's clock.

use std::collections::BTreeMap;

use riposte_protocol::command::Op;

use crate::plan::{Change, Millis, SECOND};

/// How long a lease is valid after a renewal.
pub const TTL: Millis = 5 * SECOND;

/// What one manager at a time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Ending responses and retrying reverts.
    Undo,
    /// Expiring commands.
    Sweep,
}

impl Duty {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Undo, Self::Sweep];
}

/// What is configured: each change that is in force, with the epoch that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration(BTreeMap<Change, u64>);

impl Configuration {
    /// Whether no response may touch `target`.
    pub fn protects(&self, target: usize) -> bool {
        self.0.contains_key(&Change::Protect { target })
    }

    /// Whether a freeze keeps a command from being sent.
    pub fn holds_back(&self, op: Op) -> bool {
        op == Op::Apply && self.0.contains_key(&Change::Freeze)
    }
}

/// A row of `duties`.
#[derive(Clone, Copy, Debug, Default)]
struct DutyRow {
    owner: usize,
    fence: u64,
    until: Millis,
}

/// A row of `nodes`.
#[derive(Clone, Copy, Debug, Default)]
struct NodeRow {
    lease_until: Millis,
    epoch: u64,
}

/// The tables about managers.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeRow>,
    duties: BTreeMap<Duty, DutyRow>,
    /// By agent: the manager of its newest connection, and the connection's number.
    presence: BTreeMap<usize, (usize, u64)>,
    /// The number of the last change of configuration.
    pub epoch: u64,
    /// What is configured.
    pub configuration: Configuration,
    /// When the configuration changed last.
    pub changed_at: Millis,
    /// Until then a manager that was paused in a transaction holds the audit head.
    pub locked_until: Millis,
}

impl Cluster {
    /// Tables for this many managers.
    pub fn new(managers: usize) -> Self {
        Self { nodes: vec![NodeRow::default(); managers], ..Self::default() }
    }

    /// Renews a lease; the manager has everything up to `epoch` in force.
    pub fn renew(&mut self, manager: usize, epoch: u64, now: Millis) {
        self.nodes[manager] = NodeRow { lease_until: now + TTL, epoch };
    }

    /// Records which epoch a manager has in force.
    pub fn applied(&mut self, manager: usize, epoch: u64) {
        self.nodes[manager].epoch = epoch;
    }

    /// Whether the lease of a manager is valid.
    pub fn is_live(&self, manager: usize, now: Millis) -> bool {
        self.nodes[manager].lease_until > now
    }

    /// Changes the configuration; returns the epoch of the change.
    pub fn change(&mut self, change: Change, is_on: bool, now: Millis) -> u64 {
        self.epoch += 1;
        self.changed_at = now;
        if is_on {
            self.configuration.0.insert(change, self.epoch);
        } else {
            self.configuration.0.remove(&change);
        }
        self.epoch
    }

    /// Whether every live manager has `epoch` in force.
    pub fn is_in_force(&self, epoch: u64, now: Millis) -> bool {
        self.nodes.iter().all(|node| node.epoch >= epoch || node.lease_until <= now)
    }

    /// Takes a duty, or keeps it; returns the fence. `held` is the fence by which this run of the
    /// manager owns it so far.
    pub fn take(&mut self, duty: Duty, manager: usize, held: Option<u64>, now: Millis) -> Option<u64> {
        let row = self.duties.entry(duty).or_default();
        let is_own = row.owner == manager && held == Some(row.fence);
        if !is_own {
            if row.until > now {
                return None;
            }
            (row.owner, row.fence) = (manager, row.fence + 1);
        }
        row.until = now + TTL;
        Some(row.fence)
    }

    /// Whether `fence` is still the duty's: read in each transaction of the duty.
    pub fn is_fence(&self, duty: Duty, fence: u64) -> bool {
        self.duties.get(&duty).is_some_and(|row| row.fence == fence)
    }

    /// An agent has connected to a manager. Returns the number of the connection, and the manager
    /// that had the one before.
    pub fn connect(&mut self, agent: usize, manager: usize) -> (u64, Option<usize>) {
        let before = self.presence.get(&agent).copied();
        let number = before.map_or(0, |(_, number)| number) + 1;
        self.presence.insert(agent, (manager, number));
        (number, before.map(|(manager, _)| manager))
    }

    /// Whether no newer connection of the agent is known: read in each transaction about what came
    /// by a connection.
    pub fn is_newest(&self, agent: usize, number: u64) -> bool {
        self.presence.get(&agent).is_none_or(|(_, newest)| *newest <= number)
    }
}
