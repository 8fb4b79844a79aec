//! The checker: it keeps its own records of what was requested, done and reported, and checks every
//! step against the promises of the design (numbers in brackets).
//!
//! It does not trust the model's state. What is in force is read from the hosts' rules, and what is
//! held follows from the requests.

mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::Receipt;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use self::nodes::{Broken, NodeRecords};
use crate::command::CommandState;
use crate::effect::{Actual, Desired, Until};
use crate::host::Host;
use crate::journal::{Journal, JournalState, Record};
use crate::plan::{Millis, SECOND};
use crate::store::{Store, effect_id};

/// How late a revert may be on a running host with working actions: the longest pause between two
/// attempts, the longest interval between two looks at the clocks, and many other reverts before
/// it.
const LATE: Millis = 120 * SECOND;
/// By how much the clock of a manager that undoes may differ from the database's.
pub const MAX_CLOCK_OFF: Duration = Duration::from_secs(5);

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: &'static str,
    /// How it was broken.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.detail)
    }
}

/// When an effect in force has to end.
#[derive(Clone, Debug)]
struct End {
    until: Option<Timestamp>,
    /// Its duration, by the agent's clock at that time.
    lasts: Option<Millis>,
    /// Earliest time at which the boot clock may end it.
    not_before: Millis,
    /// Latest time of its end, if the agent runs.
    due: Option<Millis>,
    /// It may end at any time: an operator has lifted it, or the wall clock has passed its end.
    is_over: bool,
}

#[derive(Clone, Debug, Default)]
struct Truth {
    acknowledged: BTreeSet<Uuid>,
    finished: BTreeSet<Uuid>,
    executed: BTreeSet<Uuid>,
    durable: BTreeSet<Uuid>,
    last_seq: BTreeMap<Uuid, u64>,
    ends: BTreeMap<usize, End>,
    snapshot: BTreeMap<usize, End>,
    is_carried: bool,
    is_disturbed: bool,
}

/// The checker's state.
#[derive(Debug)]
pub struct Checker {
    /// The first broken promise.
    pub violation: Option<Violation>,
    is_ordered: bool,
    /// Number of commands that were seen.
    queued: usize,
    /// What several managers have done.
    pub(crate) nodes: NodeRecords,
    agents: Vec<Truth>,
    /// The active responses, each with its end and its effects.
    wanted: BTreeMap<usize, (Until, Vec<(usize, usize)>)>,
    holds: BTreeMap<(usize, usize), BTreeMap<usize, Until>>,
}

impl Checker {
    /// A checker for so many agents; `is_ordered` says that the network keeps messages in order.
    pub fn new(agents: usize, is_ordered: bool) -> Self {
        let agents = vec![Truth { is_carried: true, ..Truth::default() }; agents];
        Self {
            violation: None,
            is_ordered,
            queued: 0,
            nodes: NodeRecords::default(),
            agents,
            wanted: BTreeMap::new(),
            holds: BTreeMap::new(),
        }
    }

    pub(crate) fn broken(&mut self, promise: &'static str, detail: String) {
        self.violation.get_or_insert(Violation { promise, detail });
    }

    /// What the records about several managers found.
    pub(crate) fn found(&mut self, broken: Broken) {
        if let Some((promise, detail)) = broken {
            self.broken(promise, detail);
        }
    }

    /// A response was created.
    pub(crate) fn responded(&mut self, response: usize, agents: &[usize], target: usize, until: Until) {
        let on: Vec<(usize, usize)> = agents.iter().map(|agent| (*agent, target)).collect();
        for place in &on {
            self.holds.entry(*place).or_default().insert(response, until);
        }
        self.wanted.insert(response, (until, on));
    }

    /// A response was lifted or has ended.
    pub(crate) fn let_go(&mut self, response: usize) {
        if let Some((_, on)) = self.wanted.remove(&response) {
            for place in on {
                self.holds.entry(place).or_default().remove(&response);
            }
        }
    }

    /// An operator on the host has released it.
    pub(crate) fn released(&mut self, agent: usize, target: usize) {
        self.holds.remove(&(agent, target));
    }

    /// A transaction was committed, decided when the database's clock read `now`. The longest hold
    /// wins, and nothing ends early (5, 6).
    pub(crate) fn committed(&mut self, store: &Store, now: Timestamp) {
        let ended: Vec<(usize, Until)> = self
            .wanted
            .iter()
            .filter(|(response, _)| !store.responses[**response].is_active)
            .map(|(response, (until, _))| (*response, *until))
            .collect();
        for (response, until) in ended {
            if !until.is_over(now.plus(MAX_CLOCK_OFF)) {
                self.broken(
                    "5: nothing is lifted early",
                    format!("response {response} has ended early, without a request"),
                );
            }
            self.let_go(response);
        }
        for (number, effect) in store.effects.iter().enumerate() {
            let holds = self.holds.get(&(effect.agent, effect.target));
            let longest = holds.and_then(|holds| holds.values().max().copied());
            let stands = (effect.state.desired == Desired::InForce).then_some(effect.until);
            if stands != longest {
                let detail = format!("effect {number} stands until {stands:?}, but is wanted until {longest:?}");
                self.broken("6: the longest wins", detail);
            }
        }
        // An undo that was decided before a new hold must not undo that one.
        let new = std::mem::replace(&mut self.queued, store.commands.len());
        for row in store.commands[new..].iter().filter(|row| row.op == Op::Revert) {
            let place = (row.agent, store.effects[row.effect].target);
            if self.holds.get(&place).is_some_and(|holds| !holds.is_empty()) {
                let detail = format!("a revert is queued for target {} on agent {}, which is held", place.1, place.0);
                self.broken("5: nothing is undone that is held", detail);
            }
        }
    }

    /// An agent acknowledges commands: from now on it is responsible for them (3).
    pub(crate) fn acked(&mut self, agent: usize, ids: &[Uuid]) {
        self.agents[agent].acknowledged.extend(ids);
    }

    /// A command was refused because a newer one of its effect had come first (4). A command may
    /// have been skipped if it has expired by any manager's clock; `latest` is the latest of these
    /// clocks.
    pub(crate) fn overtaken(&mut self, agent: usize, id: Uuid, latest: Timestamp, store: &Store) {
        let is_owed = |row: &crate::store::Row| row.agent == agent && row.expires_at.is_none_or(|at| at > latest);
        let is_own = store
            .command_of(id)
            .is_some_and(|command| is_owed(&store.commands[command]) && !self.nodes.is_kept_back(command));
        if self.is_ordered && is_own && !self.agents[agent].is_disturbed {
            let detail = format!("agent {agent} got command {:?} after a newer one", store.command_of(id));
            self.broken("4: commands arrive in order", detail);
        }
    }

    /// An agent receives old commands again: commands that were lost when its journal was replaced
    /// may be overtaken.
    pub(crate) fn replayed(&mut self, agent: usize) {
        self.agents[agent].is_disturbed = true;
    }

    /// An agent has begun a command: only what its manager ordered, for this agent, in time (8).
    pub(crate) fn begins(&mut self, agent: usize, command: &Command, now: Timestamp, at: Millis, store: &Store) {
        let found = store.command_of(command.jti).map(|found| &store.commands[found]);
        let is_ordered = found.is_some_and(|row| {
            let what = (row.agent, row.seq, row.op, effect_id(row.effect), row.until.instant());
            what == (agent, command.seq, command.op, command.effect, command.until)
        });
        if !is_ordered {
            let detail = format!("agent {agent} executes number {}, which is no order of its manager's", command.seq);
            return self.broken("8: no forged order", detail);
        }
        if now.as_secs() > command.exp {
            let detail = format!("agent {agent} executes number {} after it has expired", command.seq);
            self.broken("8: no expired order", detail);
        }
        self.ends_at(agent, command, now, at, store);
    }

    fn ends_at(&mut self, agent: usize, command: &Command, now: Timestamp, at: Millis, store: &Store) {
        let Some(effect) = store.effect_of(command.effect).filter(|_| command.op == Op::Apply) else { return };
        let lasts = command.until.map(|until| millis(until.since(now)));
        let due = lasts.map(|lasts| at.saturating_add(lasts));
        let end = End { until: command.until, lasts, not_before: due.unwrap_or(Millis::MAX), due, is_over: false };
        self.agents[agent].ends.insert(store.effects[effect].target, end);
    }

    /// An agent has executed a command: once, and in order (3, 4). A revert that could not be
    /// recorded, because the disk was full, may be executed again: lifting twice does no harm, and
    /// waiting for the disk would.
    pub(crate) fn executed(&mut self, agent: usize, command: &Command, store: &Store, is_written: bool) {
        let number = store.command_of(command.jti);
        let truth = &mut self.agents[agent];
        if command.op == Op::Revert && !is_written {
            return;
        }
        let is_first = truth.executed.insert(command.jti);
        let last = truth.last_seq.insert(command.effect, command.seq);
        if !is_first {
            self.broken("3: never executed twice", format!("agent {agent} executes command {number:?} again"));
        } else if let Some(last) = last.filter(|last| *last > command.seq) {
            let detail = format!("agent {agent} executes number {} of an effect after number {last}", command.seq);
            self.broken("4: in order", detail);
        }
    }

    /// An effect could not be lifted when it should have been. From now on it may be lifted at any
    /// time; if that is recorded, it must be (5).
    pub(crate) fn overdue(&mut self, agent: usize, target: usize, now: Millis, is_written: bool) {
        if let Some(end) = self.agents[agent].ends.get_mut(&target) {
            end.is_over = true;
            if is_written {
                end.due = Some(end.due.map_or(now, |due| due.min(now)));
            }
        }
    }

    /// An agent has lifted an effect in force because of a clock (5).
    pub(crate) fn lifted_by_clock(&mut self, agent: usize, target: usize, wall: Timestamp, now: Millis) {
        let Some(end) = self.agents[agent].ends.get(&target) else { return };
        let is_over = end.is_over || now >= end.not_before || end.until.is_some_and(|until| until <= wall);
        if !is_over {
            let detail = format!("agent {agent} lifts target {target}, which ends {:?}", end.until);
            self.broken("5: nothing is lifted early", detail);
        }
    }

    /// An agent's wall clock is about to be set; it read `wall` before.
    pub(crate) fn clock_set(&mut self, agent: usize, wall: Timestamp) {
        for end in self.agents[agent].ends.values_mut() {
            end.is_over |= end.until.is_some_and(|until| until <= wall);
        }
    }

    /// The host's boot clock starts at zero again: the agent uses the wall clock once.
    pub(crate) fn rebooted(&mut self, agent: usize) {
        self.agents[agent].is_carried = false;
    }

    /// An agent starts: its journal holds what it has acknowledged (3), and what is recorded there
    /// is done (9).
    pub(crate) fn started(&mut self, agent: usize, state: &JournalState, wall: Timestamp, now: Millis, store: &Store) {
        let lost = self.agents[agent].acknowledged.iter().find(|id| {
            store.command_of(**id).is_some_and(|command| {
                let row = &store.commands[command];
                state.inbox().receive(**id, row.seq, effect_id(row.effect)) != Receipt::Duplicate
            })
        });
        if let Some(lost) = lost.map(|id| store.command_of(*id)) {
            let detail = format!("agent {agent} has acknowledged command {lost:?}, which is not in its journal");
            self.broken("3: acknowledged means journaled", detail);
        }
        // A write that was torn after its last byte has happened, but was not reported.
        for pending in state.pending().filter(|pending| pending.command.op == Op::Apply) {
            if let Some(started) = pending.started {
                let at = now.saturating_sub(millis(wall.since(started)));
                let known = store.effect_of(pending.command.effect).map(|effect| store.effects[effect].target);
                let end = known.and_then(|target| self.agents[agent].ends.get(&target));
                if end.is_none_or(|end| end.is_over || end.until != pending.command.until) {
                    self.ends_at(agent, &pending.command, started, at, store);
                    // The wall clock may have been set since: when the command began is uncertain.
                    if let Some(end) = known.and_then(|target| self.agents[agent].ends.get_mut(&target)) {
                        end.due = end.lasts.map(|lasts| now.saturating_add(lasts));
                        end.is_over = true;
                    }
                }
            }
        }
        if !self.agents[agent].is_carried {
            for end in self.agents[agent].ends.values_mut() {
                let (Some(until), Some(lasts)) = (end.until, end.lasts) else { continue };
                let from_here = now + lasts.min(millis(until.since(wall)));
                end.not_before = end.not_before.min(from_here);
                end.due = end.due.map(|due| due.max(from_here));
            }
        }
        self.finished(agent, state.outbox().iter().map(|result| result.command_id));
    }

    fn finished(&mut self, agent: usize, results: impl Iterator<Item = Uuid>) {
        for id in results {
            self.agents[agent].finished.insert(id);
            self.agents[agent].durable.insert(id);
        }
    }

    /// An agent reports results. They must be on its disk; otherwise a crash makes it execute the
    /// command again, later (3, 4).
    pub(crate) fn tells(&mut self, agent: usize, results: &[CommandResult]) {
        let truth = &self.agents[agent];
        let is_rash =
            |result: &&CommandResult| result.outcome != Outcome::Refused && !truth.durable.contains(&result.command_id);
        if let Some(result) = results.iter().find(is_rash) {
            let detail = format!("agent {agent} reports command {}, which is not in its journal", result.command_id);
            self.broken("9: reported means journaled", detail);
        }
    }

    /// An agent has recorded the new boot of its host on disk.
    pub(crate) fn carried(&mut self, agent: usize) {
        self.agents[agent].is_carried = true;
    }

    /// Records are on an agent's disk.
    pub(crate) fn noted(&mut self, agent: usize, records: &[Record]) {
        let results = records.iter().filter_map(|record| match record {
            Record::Finished { result } => Some(result.command_id),
            _ => None,
        });
        self.finished(agent, results);
    }

    /// An agent's journal can be written again.
    pub(crate) fn mended(&mut self, agent: usize, journal: Option<&Journal>) {
        let outbox = journal.into_iter().flat_map(|journal| journal.state().outbox()).map(|result| result.command_id);
        self.finished(agent, outbox);
    }

    /// A manager tells an agent to forget results: they are committed (9).
    pub(crate) fn told(&mut self, agent: usize, ids: &[Uuid], store: &Store) {
        for id in ids {
            self.agents[agent].finished.remove(id);
            if let Some(command) = store.command_of(*id).filter(|command| !store.results.contains_key(command)) {
                let detail =
                    format!("agent {agent} may forget the result of command {command}, which is not committed");
                self.broken("9: no lost result", detail);
            }
        }
    }

    /// A snapshot is taken of a host.
    pub(crate) fn snapshot(&mut self, agent: usize) {
        self.agents[agent].snapshot = self.agents[agent].ends.clone();
    }

    /// A host starts again, empty or from its snapshot: its earlier acknowledgements are void.
    pub(crate) fn replaced(&mut self, agent: usize, is_restored: bool) {
        let Truth { snapshot, is_disturbed, .. } = std::mem::take(&mut self.agents[agent]);
        let ends = if is_restored { snapshot.clone() } else { BTreeMap::new() };
        self.agents[agent] = Truth { ends, snapshot, is_disturbed, ..Truth::default() };
    }

    /// No effect is in force long after its end, on a host that runs (5).
    pub(crate) fn late(&mut self, now: Millis, hosts: &[Host]) {
        for (agent, host) in hosts.iter().enumerate().filter(|(_, host)| host.journal.is_some()) {
            for target in &host.in_force {
                let Some(due) = self.agents[agent].ends.get(target).and_then(|end| end.due) else { continue };
                if now > due.max(host.up_since).max(host.actions_fail_until).saturating_add(LATE) {
                    let detail =
                        format!("target {target} on agent {agent} had to end at {} s and is in force", due / 1000);
                    return self.broken("5: every block is lifted", detail);
                }
            }
        }
    }

    /// Without faults for a while, every command has ended and no result is missing. What is in
    /// force is what is held, or the store reports the difference (3, 5, 9, 10, 11).
    pub(crate) fn settled(&mut self, store: &Store, hosts: &[Host], now: Timestamp) {
        for (number, row) in store.commands.iter().enumerate() {
            use CommandState::{Acknowledged, Delivered, Queued};
            if matches!(row.state, Queued | Delivered | Acknowledged) {
                self.broken("11: every command ends", format!("command {number} is still {}", row.state.as_str()));
            }
        }
        for (agent, truth) in self.agents.iter().enumerate() {
            let missing = truth.finished.iter().filter_map(|id| store.command_of(*id));
            if let Some(lost) = missing.filter(|command| !store.results.contains_key(command)).min() {
                let detail = format!("agent {agent} had a result of command {lost}, the store has none");
                return self.broken("9: no lost result", detail);
            }
        }
        for (number, effect) in store.effects.iter().enumerate() {
            let is_in_force = hosts[effect.agent].in_force.contains(&effect.target);
            let is_wanted = effect.state.desired == Desired::InForce && !effect.until.is_over(now);
            let detail = || format!("effect {number}, target {} on agent {}", effect.target, effect.agent);
            let is_lifted = effect.state.actual != Actual::Drifted && effect.state.failed_reverts == 0;
            if effect.state.desired == Desired::Absent && !is_lifted {
                self.broken("5: a revert is tried until it is verified", format!("{} is still an incident", detail()));
            }
            if !is_wanted && is_in_force {
                self.broken("10: an effect without a hold is lifted", detail());
            } else if (effect.state.actual == Actual::InForce) != is_in_force {
                let detail = format!("{} is reported as {}", detail(), effect.state.actual.as_str());
                self.broken("10: the store matches the hosts", detail);
            } else if is_wanted && !is_in_force {
                let of_effect = |row: &&crate::store::Row| row.effect == number && row.op == Op::Apply;
                let last = store.commands.iter().rfind(of_effect);
                if last.is_none_or(|row| row.state == CommandState::Succeeded) {
                    self.broken("10: a wanted effect is in force", detail());
                }
            }
        }
    }
}

fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
