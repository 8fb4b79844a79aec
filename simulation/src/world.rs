//! The world: the queue of events, the clocks, the network, and what the plan does to all of them.
//! One event is one step. Everything in a step happens at once; a program can crash between any two
//! steps.
//!
//! The network is modelled twice. Ordered, as a TCP connection is: a lost message breaks the
//! connection. Unordered: each message is lost, doubled and overtaken alone. The promises hold on
//! both.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use riposte_protocol::delivery::Owed;
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;

use crate::checker::{Checker, Violation};
use crate::defect::Defect;
use crate::host::Host;
use crate::instant;
use crate::node::Node;
use crate::plan::{Act, Change, MINUTE, Millis, Plan, SECOND, Shape};
use crate::random::Random;
use crate::store::Store;
use crate::wire::{Seal, ToAgent, ToManager};

/// The targets of responses.
const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Time after the last fault until everything must have settled: the manager's longest wait for a
/// result, its longest pause before a revert, and a round of the agents' looks.
const QUIET: Millis = 25 * MINUTE;

/// A world with more events than this repeats itself; the largest have a tenth of them.
const MOST_EVENTS: u64 = 500_000;

/// The next event.
#[expect(missing_docs, reason = "the sentence of each variant says what its fields are")]
#[derive(Clone, Debug)]
pub enum Event {
    /// An entry of the plan.
    Planned(usize),
    /// A message reaches a manager.
    AtManager { manager: usize, life: u32, agent: usize, talk: u64, message: Box<ToManager> },
    /// A message reaches an agent.
    AtAgent { agent: usize, life: u32, talk: u64, message: Box<ToAgent> },
    /// An agent's process starts.
    AgentUp { agent: usize, life: u32 },
    /// A manager starts.
    ManagerUp { manager: usize },
    /// The agent opens a connection.
    Connect { agent: usize, life: u32 },
    /// The agent's heartbeat.
    Heartbeat { agent: usize, life: u32, talk: u64 },
    /// The agent's lane looks for its next step.
    Lane { agent: usize, life: u32 },
    /// The running program of the agent's lane continues.
    Work { agent: usize, life: u32 },
    /// The agent tries to rewrite its journal.
    Mend { agent: usize, life: u32 },
    /// A defective agent journals late what it has acknowledged.
    LateJournal { agent: usize, life: u32, commands: Vec<riposte_protocol::command::Command> },
    /// A defective manager commits late what it has acknowledged.
    LateCommit { manager: usize, life: u32, agent: usize, results: Vec<riposte_protocol::message::CommandResult> },
    /// A manager's connection looks for commands to send.
    Fetch { manager: usize, agent: usize, talk: u64 },
    /// The delivery marks of commands are committed.
    Delivered { manager: usize, life: u32, commands: Vec<usize>, lease_until: Timestamp },
    /// A manager's connection sends what it has read.
    Send { manager: usize, agent: usize, talk: u64, owed: Vec<(usize, Owed)> },
    /// A manager commits what it has decided about a request.
    Intake { manager: usize, life: u32, intake: Intake },
    /// A manager renews its lease.
    Renew { manager: usize, life: u32 },
    /// A manager looks for what hints did not tell.
    Look { manager: usize, life: u32 },
    /// A hint: the configuration has changed.
    Configuration { manager: usize, life: u32 },
    /// A manager answers a change of configuration, or waits for the others.
    Answer { manager: usize, life: u32, change: Change, epoch: u64 },
    /// A change of configuration is taken back.
    TakeBack { manager: usize, change: Change },
    /// A hint: the agent has the connection `number`, elsewhere.
    Displaced { manager: usize, agent: usize, number: u64 },
    /// A manager looks for responses to end and reverts to retry.
    Undo { manager: usize, life: u32, at: Millis },
    /// A manager commits what was due when its clock read `now`, and the database's `as_of`.
    CommitUndo { manager: usize, life: u32, fence: u64, due: Vec<usize>, now: Timestamp, as_of: Timestamp },
    /// A manager's sweep.
    Sweep { manager: usize, life: u32 },
    /// A manager is restarted, as for an update.
    Restart { manager: usize },
    /// The faults are over.
    Heal,
    /// Everything must have settled.
    Judge,
}

/// A request that is decided and not yet committed.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The act of the plan.
    pub(crate) number: usize,
    /// The agent; all, without one.
    pub(crate) on: Option<usize>,
    pub(crate) target: usize,
    pub(crate) lasts: Option<Millis>,
    /// The epoch that it was decided by.
    pub(crate) epoch: u64,
    /// The target is protected.
    pub(crate) is_spared: bool,
}

impl Event {
    /// The manager whose process takes this step.
    fn of_manager(&self) -> Option<usize> {
        match self {
            Self::AtManager { manager, .. }
            | Self::LateCommit { manager, .. }
            | Self::Fetch { manager, .. }
            | Self::Delivered { manager, .. }
            | Self::Send { manager, .. }
            | Self::Intake { manager, .. }
            | Self::Renew { manager, .. }
            | Self::Look { manager, .. }
            | Self::Configuration { manager, .. }
            | Self::Answer { manager, .. }
            | Self::Displaced { manager, .. }
            | Self::Undo { manager, .. }
            | Self::CommitUndo { manager, .. }
            | Self::Sweep { manager, .. } => Some(*manager),
            _ => None,
        }
    }

    /// Whether it waits for the audit head.
    fn commits(&self) -> bool {
        let writes = matches!(self, Self::AtManager { .. } | Self::LateCommit { .. } | Self::Intake { .. });
        writes || matches!(self, Self::Delivered { .. } | Self::CommitUndo { .. } | Self::Sweep { .. })
    }

    /// The beat of a manager, which is not counted as a step.
    fn is_beat(&self) -> bool {
        matches!(self, Self::Renew { .. } | Self::Look { .. })
    }
}

/// A running world.
#[derive(Debug)]
pub struct World {
    pub(crate) shape: Shape,
    pub(crate) defect: Option<Defect>,
    plan: Plan,
    pub(crate) now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    /// Number of events so far.
    pub steps: u64,
    /// Number of events with those that are not counted as steps.
    events_in_all: u64,
    pub(crate) random: Random,
    pub(crate) seal: Seal,
    pub(crate) store: Store,
    pub(crate) nodes: Vec<Node>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) checker: Checker,
    pub(crate) next_talk: u64,
    pub(crate) targets: Vec<Target>,
    /// The furthest that a manager's clock was ever ahead: times recorded then are due only later.
    pub(crate) furthest: Millis,
    /// The response of each act of the plan.
    made: BTreeMap<usize, usize>,
    /// The events so far, if they are recorded.
    pub trace: Option<Vec<String>>,
}

impl World {
    /// A world that runs `plan`, with faults until `end`.
    pub fn new(shape: &Shape, plan: Plan, end: Millis, defect: Option<Defect>) -> Self {
        let mut world = Self {
            defect,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            steps: 0,
            events_in_all: 0,
            random: Random::new(shape.seed, 3),
            seal: Seal::new(shape.is_signed),
            store: Store::new(shape.agents, shape.managers, defect),
            nodes: (0..shape.managers).map(|manager| Node::new(manager, shape.seed)).collect(),
            hosts: (0..shape.agents).map(|agent| Host::new(agent, shape.seed)).collect(),
            checker: Checker::new(shape.agents, shape.is_ordered),
            next_talk: 0,
            targets: NAMES.iter().filter_map(|name| Target::parse(TargetKind::User, name).ok()).collect(),
            furthest: 0,
            made: BTreeMap::new(),
            trace: None,
            shape: shape.clone(),
            plan,
        };
        for number in 0..world.plan.len() {
            world.at(world.plan[number].at, Event::Planned(number));
        }
        (0..shape.managers).for_each(|manager| world.start_manager(manager));
        (0..shape.agents).for_each(|agent| world.start_agent(agent));
        world.at(end, Event::Heal);
        world
    }

    /// Runs until everything has settled, or a promise is broken.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn play(&mut self) -> Result<(), Violation> {
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else { continue };
            self.events_in_all += 1;
            if self.events_in_all > MOST_EVENTS {
                // After an order of a manager whose clock was far ahead, an agent refuses applies as
                // expired, and an agent that polls is sent the next one at once
                // (docs/reliability.md).
                if self.shape.polls && self.furthest > MINUTE {
                    self.note(|| "the world is left: an agent refuses one apply after the other".into());
                    return Ok(());
                }
                self.checker.broken("11: nothing goes round in circles", format!("the last event is {event:?}"));
            }
            self.now = at;
            if let Some(until) = self.put_off(&event) {
                // With its number, it stays before what happens later.
                self.queue.push(Reverse((until, number)));
                self.events.insert(number, event);
                continue;
            }
            self.steps += u64::from(!event.is_beat());
            let is_over = matches!(event, Event::Judge);
            let is_judged = is_over && !self.is_ending();
            if is_over && !is_judged {
                self.after(MINUTE, Event::Judge);
            }
            self.happen(event);
            if is_judged || self.steps.is_multiple_of(64) {
                self.checker.late(self.now, &self.hosts);
            }
            if is_judged {
                self.checker.settled(&self.store, &self.hosts, self.nodes[0].wall(self.now));
            }
            if let Some(violation) = self.checker.violation.take() {
                self.note(|| format!("BROKEN: {violation}"));
                return Err(violation);
            }
            if is_judged {
                break;
            }
        }
        Ok(())
    }

    /// Until when a step has to wait: its manager is paused, or waits for the audit head. Timers of
    /// a process that goes on fire in no order.
    fn put_off(&mut self, event: &Event) -> Option<Millis> {
        let node = &mut self.nodes[event.of_manager()?];
        if node.paused_until > self.now {
            let jitter = if event.is_beat() { node.random.within(0..50) } else { 0 };
            return Some(node.paused_until + jitter);
        }
        let locked_until = self.store.cluster.locked_until;
        (event.commits() && locked_until > self.now).then_some(locked_until)
    }

    /// Whether a block has just ended or is about to: its commands are still under way, or an agent
    /// whose clock was ahead has lifted it within the tolerance of `Store::converge`.
    fn is_ending(&self) -> bool {
        let now = instant::wall(self.now, 0);
        let minute = Duration::from_millis(MINUTE);
        let just_now = now.minus(minute)..=now.plus(minute);
        self.store.effects.iter().any(|effect| effect.until.instant().is_some_and(|until| just_now.contains(&until)))
    }

    /// Number of commands that were queued.
    pub fn commands(&self) -> u64 {
        self.store.commands.len() as u64
    }

    /// Schedules an event at `at`.
    pub(crate) fn at(&mut self, at: Millis, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((at.max(self.now), self.next_event)));
        self.events.insert(self.next_event, event);
    }

    /// Schedules an event after `pause`.
    pub(crate) fn after(&mut self, pause: Millis, event: Event) {
        self.at(self.now + pause, event);
    }

    /// Records what happens, if a trace was asked for.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6}.{:03}  {}", self.now / 1000, self.now % 1000, what()));
        }
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Planned(index) => self.act(index),
            Event::AtManager { manager, life, agent, talk, message } => {
                if self.nodes[manager].is_alive(life) {
                    self.manager_hears(manager, agent, talk, *message);
                }
            }
            Event::AtAgent { agent, life, talk, message } => {
                if self.is_alive(agent, life) && self.hosts[agent].talk_number() == Some(talk) {
                    self.agent_hears(agent, *message);
                }
            }
            Event::AgentUp { agent, life } => {
                if self.hosts[agent].life == life && self.hosts[agent].journal.is_none() {
                    self.start_agent(agent);
                }
            }
            Event::ManagerUp { manager } => self.start_manager(manager),
            Event::Fetch { manager, agent, talk } => self.fetch(manager, agent, talk),
            Event::Delivered { manager, life, commands, lease_until } => {
                if self.nodes[manager].is_alive(life) && self.may_commit(manager) {
                    self.store.delivered(&commands, lease_until);
                }
            }
            Event::LateCommit { manager, life, agent, results } => {
                if self.nodes[manager].is_alive(life) {
                    let now = self.nodes[manager].wall(self.now);
                    self.commit_results(manager, agent, &results, now);
                }
            }
            Event::Send { manager, agent, talk, owed } => self.send(manager, agent, talk, owed),
            Event::Intake { manager, life, intake } => {
                if self.nodes[manager].is_alive(life)
                    && let Some(response) = self.commit_intake(manager, &intake)
                {
                    self.made.insert(intake.number, response);
                }
            }
            Event::Restart { manager } => self.crash_manager(manager, 0),
            Event::Heal => self.heal(),
            Event::Connect { agent, life } if self.is_alive(agent, life) => self.connect(agent),
            Event::Heartbeat { agent, life, talk } if self.is_alive(agent, life) => self.heartbeat(agent, talk),
            Event::Lane { agent, life } if self.is_alive(agent, life) => self.lane(agent),
            Event::Work { agent, life } if self.is_alive(agent, life) => self.work(agent),
            Event::Mend { agent, life } if self.is_alive(agent, life) => self.mend(agent),
            Event::LateJournal { agent, life, commands } if self.is_alive(agent, life) => {
                self.journal(agent, &commands);
            }
            of_manager => self.happen_at_manager(of_manager),
        }
    }

    pub(crate) fn is_alive(&self, agent: usize, life: u32) -> bool {
        self.hosts[agent].life == life && self.hosts[agent].journal.is_some()
    }

    /// Everything works again, the clocks are set, and every agent connects again.
    fn heal(&mut self) {
        self.note(|| "everything works again".into());
        for manager in 0..self.nodes.len() {
            (self.nodes[manager].clock_off, self.nodes[manager].cut_until) = (0, self.now);
            // A process that is still stopped is killed.
            if self.nodes[manager].paused_until > self.now {
                self.crash_manager(manager, 0);
            } else if !self.nodes[manager].is_up {
                self.start_manager(manager);
            }
        }
        for agent in 0..self.hosts.len() {
            self.checker.clock_set(agent, self.hosts[agent].wall(self.now));
            self.hosts[agent].heal(self.now);
            if self.hosts[agent].journal.is_none() {
                self.start_agent(agent);
            }
        }
        self.after(QUIET + self.furthest, Event::Judge);
        // Again, for reports that came before the last command ended.
        for manager in 0..self.nodes.len() {
            self.at(self.now + self.furthest + QUIET / 2, Event::Restart { manager });
        }
    }

    /// The delays after which a message that is sent now arrives: none if it is lost, two if it is
    /// doubled. `Err` if the connection breaks.
    fn fate(&mut self, agent: usize) -> Result<Vec<Millis>, ()> {
        let (now, is_ordered) = (self.now, self.shape.is_ordered);
        let host = &mut self.hosts[agent];
        let latency = 1 + host.random.within(0..20);
        if host.cut_until > now {
            // A connection survives a short cut: messages that are sent meanwhile arrive after it.
            let left = host.cut_until - now;
            return if is_ordered && left < 30 * SECOND { Ok(vec![left + latency]) } else { Err(()) };
        }
        if host.noise_until <= now || !host.random.chance(host.noise_percent) {
            return Ok(vec![latency]);
        }
        match host.random.index(4) {
            0 | 1 if is_ordered => Err(()),
            0 => Ok(vec![]),
            1 => Ok(vec![latency, latency + host.random.within(0..20 * SECOND)]),
            2 => Ok(vec![latency + host.random.within(0..2 * SECOND)]),
            _ => Ok(vec![latency + host.random.within(0..40 * SECOND)]),
        }
    }

    /// Sends to the manager that the agent is connected to.
    pub(crate) fn tell_manager(&mut self, agent: usize, message: ToManager) {
        let fate = self.fate(agent);
        let (now, is_ordered) = (self.now, self.shape.is_ordered);
        let Some(talk) = &mut self.hosts[agent].talk else { return };
        let (number, manager, life) = (talk.number, talk.manager, talk.manager_life);
        if talk.holds_up {
            self.hosts[agent].held_up.push((manager, life, number, message));
            return;
        }
        for at in arrivals(&mut talk.is_broken, &mut talk.last_up, fate, is_ordered, now) {
            let message = Box::new(message.clone());
            self.at(at, Event::AtManager { manager, life, agent, talk: number, message });
        }
    }

    /// Sends to the agent on a connection, if it is still open.
    pub(crate) fn tell_agent(&mut self, agent: usize, number: u64, message: ToAgent) {
        let fate = self.fate(agent);
        let (now, is_ordered) = (self.now, self.shape.is_ordered);
        let host = &mut self.hosts[agent];
        let life = host.life;
        let Some(talk) = host.talk.as_mut().filter(|talk| talk.number == number) else { return };
        for at in arrivals(&mut talk.is_broken, &mut talk.last_down, fate, is_ordered, now) {
            let message = Box::new(message.clone());
            self.at(at, Event::AtAgent { agent, life, talk: number, message });
        }
    }

    fn act(&mut self, index: usize) {
        let (number, act) = (self.plan[index].number, self.plan[index].act.clone());
        self.note(|| format!("[{number}] {act}"));
        match act {
            Act::Respond { manager, agent, target, lasts } => {
                self.decide(manager, number, agent, target, lasts);
            }
            Act::Lift { manager, nth } => {
                if let Some(response) = self.made.get(&nth).copied() {
                    self.lift(manager, response);
                }
            }
            Act::Cancel { agent } => self.cancel(agent),
            Act::CrashManager { manager, away } => self.crash_manager(manager, away),
            Act::SetManagerClock { manager, by } => {
                (self.nodes[manager].clock_off, self.nodes[manager].well_since) = (by, self.now);
                self.furthest = self.furthest.max(Millis::try_from(by).unwrap_or(0));
            }
            Act::Configure { manager, change, lasts } => self.configure(manager, change, Some(lasts)),
            Act::PauseManager { manager, lasts, in_transaction } => self.pause_manager(manager, lasts, in_transaction),
            Act::CutDatabase { manager, lasts } => self.cut_database(manager, lasts),
            host => self.befall(host),
        }
    }
}

/// When the copies of a message arrive: none on a broken connection, or on one that this loss
/// breaks.
fn arrivals(
    is_broken: &mut bool,
    last: &mut Millis,
    fate: Result<Vec<Millis>, ()>,
    is_ordered: bool,
    now: Millis,
) -> Vec<Millis> {
    *is_broken |= is_ordered && fate.is_err();
    if *is_broken {
        return Vec::new();
    }
    let at = |delay: Millis| {
        if !is_ordered {
            return now + delay;
        }
        *last = (now + delay).max(*last + 1);
        *last
    };
    fate.unwrap_or_default().into_iter().map(at).collect()
}
