//! Requests and faults, drawn up before anything happens: a list that can be shortened until it
//! holds only what a failure needs.

use std::fmt;

use crate::random::Random;

/// Simulated time, in milliseconds since the start.
pub type Millis = u64;

/// One second.
pub const SECOND: Millis = 1000;
/// One minute.
pub const MINUTE: Millis = 60 * SECOND;

/// Size of the world, and kind of its network.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The seed that everything follows from.
    pub seed: u64,
    /// Number of agents.
    pub agents: usize,
    /// Number of managers, on one store.
    pub managers: usize,
    /// Number of targets of responses.
    pub targets: usize,
    /// Whether messages of one connection stay in order, as over TCP. Otherwise each is delayed by
    /// itself.
    pub is_ordered: bool,
    /// Whether agents poll instead of streaming.
    pub polls: bool,
    /// Whether signatures are made and verified.
    pub is_signed: bool,
}

/// A change of configuration that forbids something.
#[expect(missing_docs, reason = "the sentence of each variant says what its fields are")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// No response may touch `target`.
    Protect { target: usize },
    /// Only reverts are delivered.
    Freeze,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protect { target } => write!(f, "the protection of target {target}"),
            Self::Freeze => f.write_str("the freeze"),
        }
    }
}

/// A request or a fault.
#[expect(missing_docs, reason = "the sentence of each variant says what its fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A response blocks `target` on an agent, or on all, for a time or until it is lifted.
    Respond { manager: usize, agent: Option<usize>, target: usize, lasts: Option<Millis> },
    /// An operator lifts the response that the plan's `nth` act has made.
    Lift { manager: usize, nth: usize },
    /// An operator cancels the newest command of an agent.
    Cancel { agent: usize },
    /// The agent's process crashes and is restarted.
    CrashAgent { agent: usize, away: Millis },
    /// After this many writes the agent crashes in one, of which this many parts of 256 reach the
    /// disk.
    TearWrite { agent: usize, writes: usize, parts: usize, away: Millis },
    /// The host is restarted: rules in the kernel are gone, and its boot clock begins at zero.
    Reboot { agent: usize, away: Millis },
    /// The host is reinstalled: the journal and all rules are gone, the identity is not.
    Reimage { agent: usize },
    /// A snapshot of the host's whole state is taken.
    Snapshot { agent: usize },
    /// The host is set back to its last snapshot.
    Restore { agent: usize },
    /// A manager crashes and is restarted.
    CrashManager { manager: usize, away: Millis },
    /// The agent's network is cut.
    Partition { agent: usize, lasts: Millis },
    /// The agent's network drops, doubles and delays messages.
    Noise { agent: usize, lasts: Millis, percent: u64 },
    /// The agent's wall clock is set.
    SetAgentClock { agent: usize, by: i64 },
    /// A manager's wall clock is set.
    SetManagerClock { manager: usize, by: i64 },
    /// The agent's disk is full.
    FillDisk { agent: usize, lasts: Millis },
    /// The agent's actions fail.
    BreakActions { agent: usize, lasts: Millis },
    /// Another program flushes the rules on the host.
    Flush { agent: usize },
    /// An attacker sends the agent an order that is not its manager's, not for it, or no longer
    /// valid.
    Forge { agent: usize, kind: usize },
    /// A manager is asked to change the configuration, and to change it back after a time.
    Configure { manager: usize, change: Change, lasts: Millis },
    /// A manager's process is stopped and continued, perhaps in the middle of a transaction.
    PauseManager { manager: usize, lasts: Millis, in_transaction: bool },
    /// A manager is cut off from the database.
    CutDatabase { manager: usize, lasts: Millis },
    /// What the agent sends by its connection is held up, and arrives once it has opened another.
    HoldUp { agent: usize },
}

/// One entry of a plan; it keeps its number when others are removed.
#[derive(Clone, Debug)]
pub struct Planned {
    /// When it happens.
    pub at: Millis,
    /// Its number in the whole plan.
    pub number: usize,
    /// What happens.
    pub act: Act,
}

/// A plan: all requests and faults with their times.
pub type Plan = Vec<Planned>;

/// Derives the world of `seed`.
pub fn shape(seed: u64) -> Shape {
    let mut random = Random::new(seed, 1);
    Shape {
        seed,
        agents: 1 + random.index(4),
        managers: 1 + random.index(3),
        targets: 1 + random.index(4),
        is_ordered: random.chance(60),
        polls: random.chance(30),
        is_signed: seed.is_multiple_of(8),
    }
}

/// Draws up the plan of `seed` for the time until `end`.
pub fn draw_up(shape: &Shape, end: Millis) -> Plan {
    let mut random = Random::new(shape.seed, 2);
    // Worlds differ in the kind and the rate of their faults.
    let pause = [300, 1000, 3000, 8000][random.index(4)];
    let weights: Vec<u64> = (0..WEIGHTS.len()).map(|_| [0, 1, 1, 4][random.index(4)]).collect();
    let weights: Vec<u64> = WEIGHTS.iter().zip(weights).map(|(base, factor)| base * factor).collect();
    // A new response hides a stuck command: in most worlds faults continue after the last response.
    let asked_until = end * random.within(30..110) / 100;
    let mut plan = Plan::new();
    let mut responses = Vec::new();
    let mut at = 0;
    while at < end {
        at += random.within(1..2 * pause);
        let act = if responses.is_empty() || (at < asked_until && random.chance(35)) {
            responses.push(plan.len());
            plan.push(Planned { at, number: plan.len(), act: respond(&mut random, shape) });
            if !random.chance(20) {
                continue;
            }
            // Faults often come together: another one while the response is being delivered.
            at += random.within(1..120);
            draw(&mut random, shape, &weights, &responses)
        } else {
            draw(&mut random, shape, &weights, &responses)
        };
        let held_up = if let Act::HoldUp { agent } = act { Some(agent) } else { None };
        plan.push(Planned { at, number: plan.len(), act });
        if let Some(agent) = held_up {
            // It has something to send, and connects again at once instead of after some heartbeats.
            let (manager, target) = (random.index(shape.managers), random.index(shape.targets));
            let lasts = Some(random.within(1..60) * SECOND);
            responses.push(plan.len());
            let act = Act::Respond { manager, agent: Some(agent), target, lasts };
            plan.push(Planned { at: at + 1, number: plan.len(), act });
            at += random.within(100..500);
            plan.push(Planned { at, number: plan.len(), act: Act::CrashAgent { agent, away: 0 } });
        }
    }
    plan
}

fn respond(random: &mut Random, shape: &Shape) -> Act {
    let lasts = match random.index(8) {
        0 => None,
        1 => Some(random.within(10..200) * MINUTE),
        2 | 3 => Some(random.within(1..10) * MINUTE),
        _ => Some(random.within(1..60) * SECOND),
    };
    let agent = (!random.chance(20)).then(|| random.index(shape.agents));
    Act::Respond { manager: random.index(shape.managers), agent, target: random.index(shape.targets), lasts }
}

/// How much of a write is done; often nothing or everything.
fn parts(random: &mut Random) -> usize {
    match random.index(4) {
        0 => 0,
        1 => 256,
        _ => random.index(257),
    }
}

/// Weight of each act of [`draw`], before a world varies them.
const WEIGHTS: [u64; 21] = [40, 8, 30, 30, 6, 2, 3, 2, 12, 14, 20, 6, 3, 5, 6, 6, 6, 6, 12, 8, 16];

fn draw(random: &mut Random, shape: &Shape, weights: &[u64], responses: &[usize]) -> Act {
    let total: u64 = weights.iter().sum();
    let mut left = random.within(0..total.max(1));
    let kind = weights.iter().position(|weight| {
        let is_here = left < *weight;
        left = left.saturating_sub(*weight);
        is_here
    });
    let (agent, manager) = (random.index(shape.agents), random.index(shape.managers));
    let away = [0, 200, 5 * SECOND, 45 * SECOND, 5 * MINUTE][random.index(5)] + random.within(0..500);
    let lasts = [SECOND, 20 * SECOND, 2 * MINUTE, 12 * MINUTE][random.index(4)] + random.within(0..SECOND);
    let by = [2, 40, 600, 7200][random.index(4)] * i64::try_from(random.within(0..2000)).unwrap_or(0) - 1000;
    match kind {
        // The latest are the most interesting.
        Some(0) | None => {
            let back = random.index(responses.len().min(12));
            Act::Lift { manager, nth: responses[responses.len() - 1 - back] }
        }
        Some(1) => Act::Cancel { agent },
        Some(2) => Act::CrashAgent { agent, away },
        Some(3) => Act::TearWrite { agent, writes: random.index(4), parts: parts(random), away },
        Some(4) => Act::Reboot { agent, away },
        Some(5) => Act::Reimage { agent },
        Some(6) => Act::Snapshot { agent },
        Some(7) => Act::Restore { agent },
        Some(8) => Act::CrashManager { manager, away },
        Some(9) => Act::Partition { agent, lasts },
        Some(10) => Act::Noise { agent, lasts, percent: random.within(1..40) },
        Some(11) => Act::SetAgentClock { agent, by },
        Some(12) => Act::SetManagerClock { manager, by },
        Some(13) => Act::FillDisk { agent, lasts },
        Some(14) => Act::BreakActions { agent, lasts },
        Some(15) => Act::Flush { agent },
        Some(16) => Act::Forge { agent, kind: random.index(4) },
        Some(17) => {
            let target = random.index(shape.targets);
            let change = if random.chance(60) { Change::Protect { target } } else { Change::Freeze };
            let lasts = [SECOND, 6 * SECOND, 20 * SECOND, 90 * SECOND][random.index(4)] + random.within(0..SECOND);
            Act::Configure { manager, change, lasts }
        }
        // Around the time to live of a lease, and far beyond.
        Some(18) => {
            let lasts = [SECOND, 4 * SECOND, 6 * SECOND, 40 * SECOND][random.index(4)] + random.within(0..SECOND);
            Act::PauseManager { manager, lasts, in_transaction: random.chance(30) }
        }
        Some(19) => Act::CutDatabase { manager, lasts },
        _ => Act::HoldUp { agent },
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |millis: &Millis| format!("{}.{:03} s", millis / 1000, millis % 1000);
        match self {
            Self::Respond { manager, agent, target, lasts } => {
                let agents = agent.map_or_else(|| "all agents".into(), |agent| format!("agent {agent}"));
                let lasts = lasts.as_ref().map_or_else(|| "until lifted".into(), |lasts| format!("for {}", s(lasts)));
                write!(f, "manager {manager} is asked to block target {target} on {agents} {lasts}")
            }
            Self::Lift { manager, nth } => write!(f, "manager {manager} is asked to lift the response of act {nth}"),
            Self::Cancel { agent } => write!(f, "the newest command of agent {agent} is called back"),
            Self::CrashAgent { agent, away } => write!(f, "agent {agent} crashes, is back after {}", s(away)),
            Self::TearWrite { agent, writes, parts, away } => {
                let away = s(away);
                write!(
                    f,
                    "agent {agent} is to crash {writes} writes from now, {parts}/256 of that one done, back after {away}"
                )
            }
            Self::Reboot { agent, away } => write!(f, "host {agent} is restarted, is back after {}", s(away)),
            Self::Reimage { agent } => write!(f, "host {agent} is reinstalled, its journal is gone"),
            Self::Snapshot { agent } => write!(f, "a snapshot of host {agent} is taken"),
            Self::Restore { agent } => write!(f, "host {agent} is set back to its snapshot"),
            Self::CrashManager { manager, away } => write!(f, "manager {manager} crashes, is back after {}", s(away)),
            Self::Partition { agent, lasts } => write!(f, "agent {agent} is cut off for {}", s(lasts)),
            Self::Noise { agent, lasts, percent } => {
                write!(f, "the network of agent {agent} loses, doubles and delays {percent} % for {}", s(lasts))
            }
            Self::SetAgentClock { agent, by } => write!(f, "the clock of agent {agent} is off by {by} ms"),
            Self::SetManagerClock { manager, by } => write!(f, "the clock of manager {manager} is off by {by} ms"),
            Self::FillDisk { agent, lasts } => write!(f, "the disk of agent {agent} is full for {}", s(lasts)),
            Self::BreakActions { agent, lasts } => write!(f, "the actions of agent {agent} fail for {}", s(lasts)),
            Self::Flush { agent } => write!(f, "another program flushes the rules of host {agent}"),
            Self::Forge { agent, kind } => {
                let what = ["of a stranger", "for another agent", "that has expired", "seen before"];
                write!(f, "agent {agent} is sent an order {}", what[kind % what.len()])
            }
            Self::Configure { manager, change, lasts } => {
                write!(f, "manager {manager} is asked for {change}, for {}", s(lasts))
            }
            Self::PauseManager { manager, lasts, in_transaction } => {
                let when = if *in_transaction { " in a transaction" } else { "" };
                write!(f, "manager {manager} is paused{when} for {}", s(lasts))
            }
            Self::HoldUp { agent } => write!(f, "what agent {agent} sends is held up until it connects again"),
            Self::CutDatabase { manager, lasts } => {
                write!(f, "manager {manager} is cut off from the database for {}", s(lasts))
            }
        }
    }
}
