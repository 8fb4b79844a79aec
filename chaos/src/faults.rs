//! The schedule of faults, which depends only on the seed. Every kind of fault comes once before
//! any comes a second time. Two faults of one thing (the manager, its store, …) never overlap, so
//! that each ends in the state that it began in.

use std::collections::BTreeMap;

use crate::proxy::Cut;
use crate::random::Random;

/// The database of the manager's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Database {
    /// A file in its data directory.
    Sqlite,
    /// A server of its own.
    Postgres,
}

impl Database {
    /// Name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    ManagerKilled,
    ManagerStopped,
    ManagerPaused,
    AgentsKilled,
    AgentsStopped,
    AgentsPaused,
    NetworkReset,
    NetworkClosed,
    NetworkHalfClosed,
    NetworkStalled,
    NetworkThrottled,
    NetworkRefusing,
    PipelineReset,
    PipelineStalled,
    StoreFull,
    StoreSlow,
    StoreFlushFails,
    StoreReadOnly,
    StoreLocked,
    PostgresCrashed,
    PostgresRestarted,
    PostgresDisconnects,
    AgentsDiskFull,
    AgentsDiskSlow,
    AgentsFlushFails,
    SigningKeyRotated,
    AgentsKeysRotated,
    ForwarderKilled,
    ForwarderKilledAtRotation,
    ForwarderPaused,
    ForwarderDiskFull,
    NodeKilled,
    NodePaused,
    NodeCutOff,
}

impl FaultKind {
    const BOTH: [Self; 28] = [
        Self::ManagerKilled,
        Self::ManagerStopped,
        Self::ManagerPaused,
        Self::AgentsKilled,
        Self::AgentsStopped,
        Self::AgentsPaused,
        Self::NetworkReset,
        Self::NetworkClosed,
        Self::NetworkHalfClosed,
        Self::NetworkStalled,
        Self::NetworkThrottled,
        Self::NetworkRefusing,
        Self::PipelineReset,
        Self::PipelineStalled,
        Self::StoreFull,
        Self::StoreSlow,
        Self::StoreFlushFails,
        Self::StoreReadOnly,
        Self::StoreLocked,
        Self::AgentsDiskFull,
        Self::AgentsDiskSlow,
        Self::AgentsFlushFails,
        Self::SigningKeyRotated,
        Self::AgentsKeysRotated,
        Self::ForwarderKilled,
        Self::ForwarderKilledAtRotation,
        Self::ForwarderPaused,
        Self::ForwarderDiskFull,
    ];
    const POSTGRES: [Self; 3] = [Self::PostgresCrashed, Self::PostgresRestarted, Self::PostgresDisconnects];

    const CLUSTER: [Self; 3] = [Self::NodeKilled, Self::NodePaused, Self::NodeCutOff];

    /// All kinds that are possible with so many managers on `database`.
    pub(crate) fn of(database: Database, managers: usize) -> Vec<Self> {
        let mut kinds = Self::BOTH.to_vec();
        if database == Database::Postgres {
            kinds.extend(Self::POSTGRES);
        }
        if managers > 1 {
            kinds.extend(Self::CLUSTER);
            // The new key would be in one data directory: it is refused.
            kinds.retain(|kind| *kind != Self::SigningKeyRotated);
        }
        kinds
    }

    /// Name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ManagerKilled => "manager: kill -9, started again",
            Self::ManagerStopped => "manager: SIGTERM, started again",
            Self::ManagerPaused => "manager: SIGSTOP, SIGCONT",
            Self::AgentsKilled => "agents: kill -9, started again",
            Self::AgentsStopped => "agents: SIGTERM, started again",
            Self::AgentsPaused => "agents: SIGSTOP, SIGCONT",
            Self::NetworkReset => "agents' network: connections reset",
            Self::NetworkClosed => "agents' network: connections closed",
            Self::NetworkHalfClosed => "agents' network: connections half closed",
            Self::NetworkStalled => "agents' network: no data moves",
            Self::NetworkThrottled => "agents' network: throttled",
            Self::NetworkRefusing => "agents' network: new connections refused, old ones reset",
            Self::PipelineReset => "pipeline's network: connections reset",
            Self::PipelineStalled => "pipeline's network: no data moves",
            Self::StoreFull => "store: disk full",
            Self::StoreSlow => "store: slow flushes",
            Self::StoreFlushFails => "store: flushes fail (EIO)",
            Self::StoreReadOnly => "store: read-only",
            Self::StoreLocked => "store: locked by another process",
            Self::PostgresCrashed => "PostgreSQL: immediate shutdown, started again",
            Self::PostgresRestarted => "PostgreSQL: fast shutdown, started again",
            Self::PostgresDisconnects => "PostgreSQL: every connection terminated",
            Self::AgentsDiskFull => "agents: disk full",
            Self::AgentsDiskSlow => "agents: slow flushes",
            Self::AgentsFlushFails => "agents: flushes fail (EIO)",
            Self::SigningKeyRotated => "manager: signing key rotated",
            Self::AgentsKeysRotated => "agents: keys rotated",
            Self::ForwarderKilled => "forwarder: kill -9, started again",
            Self::ForwarderKilledAtRotation => {
                "forwarder: kill -9 in the middle of a line, two rotations, started again"
            }
            Self::ForwarderPaused => "forwarder: SIGSTOP, SIGCONT",
            Self::ForwarderDiskFull => "forwarder: disk of the cursor full",
            Self::NodeKilled => "another manager: kill -9, started again",
            Self::NodePaused => "another manager: SIGSTOP for longer than its lease, SIGCONT",
            Self::NodeCutOff => "another manager: cut off from PostgreSQL for longer than its lease",
        }
    }

    /// The thing that must be repaired before its next fault.
    const fn thing(self) -> &'static str {
        match self {
            // A store that cannot be written includes a restart of the manager on it.
            Self::ManagerKilled
            | Self::ManagerStopped
            | Self::ManagerPaused
            | Self::StoreFull
            | Self::StoreSlow
            | Self::StoreFlushFails
            | Self::StoreReadOnly
            | Self::StoreLocked
            | Self::PostgresCrashed
            | Self::PostgresRestarted
            | Self::PostgresDisconnects
            // A rotation is asked for while the manager works. It may be killed, and agents too, before all have followed.
            | Self::SigningKeyRotated
            | Self::AgentsKeysRotated
            // PostgreSQL that recovers from a failed flush while sessions are cut off may take longer than the run waits.
            | Self::NodeCutOff => "manager",
            Self::AgentsKilled | Self::AgentsStopped | Self::AgentsPaused => "agents",
            Self::AgentsDiskFull | Self::AgentsDiskSlow | Self::AgentsFlushFails => "agents' disk",
            Self::PipelineReset | Self::PipelineStalled => "pipeline",
            Self::ForwarderKilled | Self::ForwarderKilledAtRotation | Self::ForwarderPaused => "forwarder",
            // It may be killed meanwhile: what it could not note is sent again.
            Self::ForwarderDiskFull => "forwarder's disk",
            Self::NodeKilled | Self::NodePaused => "another manager",
            _ => "network",
        }
    }

    /// Shortest and longest duration, in milliseconds.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Self::NetworkReset
            | Self::NetworkClosed
            | Self::NetworkHalfClosed
            | Self::PipelineReset
            | Self::PostgresDisconnects
            | Self::SigningKeyRotated
            | Self::AgentsKeysRotated => (1, 1),
            Self::ManagerKilled
            | Self::AgentsKilled
            | Self::AgentsStopped
            | Self::ForwarderKilled
            | Self::ForwarderKilledAtRotation => (1, 2500),
            Self::ManagerStopped => (500, 2000),
            Self::StoreFlushFails | Self::AgentsFlushFails => (500, 2500),
            Self::PostgresCrashed | Self::PostgresRestarted => (300, 2000),
            // Fourteen kinds stop the manager or PostgreSQL, one after the other. If all lasted
            // long, both would hardly ever work at the same time, and little load would reach them.
            Self::ManagerPaused
            | Self::StoreFull
            | Self::StoreSlow
            | Self::StoreReadOnly
            | Self::PipelineStalled
            | Self::ForwarderPaused => (500, 3000),
            Self::NodePaused | Self::NodeCutOff => (5500, 9000),
            _ => (1000, 6000),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// Numbers of the agents, for faults of agents.
    pub(crate) agents: Vec<usize>,
    /// Share of connections, in percent.
    pub(crate) percent: u64,
    pub(crate) cut: Cut,
    /// Bytes a second, milliseconds a flush, or which of the other managers.
    pub(crate) amount: u64,
}

/// The start or the end of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Time since the start of the run, in milliseconds.
    pub(crate) at_ms: u64,
    /// Whether the fault begins; otherwise it ends.
    pub(crate) begins: bool,
    pub(crate) fault: Fault,
}

/// The schedule of `total_ms`, with a fault of these kinds about every `gap_ms`. Every fault ends within it.
pub(crate) fn schedule(seed: u64, kinds: &[FaultKind], agents: usize, total_ms: u64, gap_ms: u64) -> Vec<Step> {
    let mut random = Random::new(seed, 0xfa_0175);
    let (mut steps, mut deck, mut free) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut at_ms = gap_ms;
    while at_ms < total_ms {
        if deck.is_empty() {
            deck = shuffled(kinds.to_vec(), &mut random);
        }
        // The first kind whose thing is whole; if there is none, a little later.
        let free_at = |kind: &FaultKind, free: &BTreeMap<_, u64>| free.get(kind.thing()).copied().unwrap_or(0) <= at_ms;
        let Some(position) = deck.iter().position(|kind| free_at(kind, &free)) else {
            at_ms += 200;
            continue;
        };
        let kind = deck.remove(position);
        let (from, to) = kind.lasts();
        let ends_ms = at_ms + random.between(from, to);
        if ends_ms < total_ms {
            free.insert(kind.thing(), ends_ms + 1000);
            let fault = draw(kind, agents, &mut random);
            steps.push(Step { at_ms, begins: true, fault: fault.clone() });
            steps.push(Step { at_ms: ends_ms, begins: false, fault });
        }
        at_ms += random.between(gap_ms / 2, gap_ms * 3 / 2);
    }
    steps.sort_by_key(|step| (step.at_ms, !step.begins));
    steps
}

fn draw(kind: FaultKind, agents: usize, random: &mut Random) -> Fault {
    let percent = random.between(10, 100);
    let chosen = (0..agents).filter(|_| random.chance(percent.min(60))).collect();
    let cut = if random.chance(50) { Cut::HalfUp } else { Cut::HalfDown };
    let amount = match kind {
        FaultKind::NetworkThrottled => random.between(2_000, 20_000),
        _ => random.between(20, 300),
    };
    Fault { kind, agents: chosen, percent, cut, amount }
}

fn shuffled(mut kinds: Vec<FaultKind>, random: &mut Random) -> Vec<FaultKind> {
    for last in (1..kinds.len()).rev() {
        let other = usize::try_from(random.between(0, last as u64)).unwrap_or(0);
        kinds.swap(last, other);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_schedule_and_every_fault_ends() {
        let all = FaultKind::of(Database::Postgres, 3);
        for seed in 0..50 {
            let steps = schedule(seed, &all, 50, 300_000, 2500);
            assert_eq!(steps, schedule(seed, &all, 50, 300_000, 2500));
            let begun = steps.iter().filter(|step| step.begins).count();
            assert_eq!(begun * 2, steps.len());
            assert!(begun > 50, "{begun}");
            let kinds: std::collections::BTreeSet<FaultKind> = steps.iter().map(|step| step.fault.kind).collect();
            assert_eq!(kinds.len(), all.len());
        }
    }
}
