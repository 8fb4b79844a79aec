//! The crash campaign: the same scenario again and again, and each time the agent crashes at
//! another point: before, within and after each write to the disk and each change of the world.
//! Then it is restarted, and the manager delivers again what was not acknowledged. At the end every
//! guarantee is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::target::TargetKind;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::tests::{NOW, command};
use crate::actions::{About, Action, ActionError, Attempt, Bulk, Form, Host, Looks, Parameter, Step};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::journal::{Disk, Journal, Record};
use crate::local_policy::LocalPolicy;
use crate::runner::Runner;
use crate::self_protection::SelfProtection;

/// How long the last run of a scenario lasts: every effect with an end has ended long before.
const LAST_LIFE: Duration = Duration::from_secs(75);
/// How late a revert may be: the manager of this scenario polls every half second.
const LATE: Duration = Duration::from_secs(1);

/// Where in a step the agent crashes.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Before,
    /// After so many bytes of an append to the journal.
    Torn(usize),
    After,
}

/// What survives a crash: the disk, the world, and the number of the run that is alive.
#[derive(Debug, Default)]
struct World {
    disk: Vec<u8>,
    in_force: BTreeSet<String>,
    /// The commands whose apply was executed.
    applied: Vec<String>,
    /// Effects that were lifted while in force, and when.
    lifted: Vec<(String, Duration)>,
    life: usize,
    dead: bool,
    steps: usize,
    /// The step at which each run crashes; runs beyond the list do not crash.
    crashes: Vec<(usize, Mode)>,
    /// Length of each append to the journal, by step of the first run.
    lengths: BTreeMap<usize, usize>,
    began: Option<Instant>,
}

type Shared = Arc<Mutex<World>>;

impl World {
    /// One more step of run `life`; returns where in it the agent crashes, if it does. `Err` if it
    /// has crashed already.
    fn step(&mut self, life: usize) -> Result<Option<Mode>, ()> {
        if self.dead || life != self.life {
            return Err(());
        }
        self.steps += 1;
        let crash = self.crashes.get(life).filter(|(step, _)| *step == self.steps).map(|(_, mode)| *mode);
        self.dead = crash.is_some();
        Ok(crash)
    }
}

#[derive(Debug)]
struct MortalDisk {
    world: Shared,
    life: usize,
}

impl MortalDisk {
    fn write(&self, change: impl FnOnce(&mut Vec<u8>, Option<usize>), length: Option<usize>) -> io::Result<()> {
        let dead = || io::Error::other("dead");
        let mut world = self.world.lock().unwrap();
        let crash = world.step(self.life).map_err(|()| dead())?;
        if let (0, Some(length)) = (self.life, length) {
            let step = world.steps;
            world.lengths.insert(step, length);
        }
        match crash {
            None => change(&mut world.disk, None),
            Some(Mode::Before) => return Err(dead()),
            Some(Mode::Torn(bytes)) => {
                change(&mut world.disk, Some(bytes));
                return Err(dead());
            }
            Some(Mode::After) => {
                change(&mut world.disk, None);
                return Err(dead());
            }
        }
        Ok(())
    }
}

impl Disk for MortalDisk {
    fn load(&self) -> io::Result<Vec<u8>> {
        Ok(self.world.lock().unwrap().disk.clone())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let add = |disk: &mut Vec<u8>, torn: Option<usize>| disk.extend(&bytes[..torn.unwrap_or(bytes.len())]);
        self.write(add, Some(bytes.len()))
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.write(|disk, _| disk.truncate(usize::try_from(length).unwrap()), None)
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(|disk, _| *disk = bytes.into(), None)
    }
}

/// The number of the command shows which one was applied.
const PARAMETERS: &[Parameter] = &[Parameter { form: Form::Text("N"), ..Parameter::DEFAULT }];

#[derive(Debug)]
struct MortalAction {
    about: About,
    world: Shared,
    life: usize,
}

impl MortalAction {
    /// Changes the world, unless the agent has crashed.
    async fn change(&self, change: impl FnOnce(&mut World)) {
        let goes_on = {
            let mut world = self.world.lock().unwrap();
            match world.step(self.life) {
                Ok(None) => {
                    change(&mut world);
                    true
                }
                Ok(Some(Mode::After)) => {
                    change(&mut world);
                    false
                }
                Ok(Some(_)) | Err(()) => false,
            }
        };
        if !goes_on {
            std::future::pending::<()>().await;
        }
    }
}

/// The action that does many at once.
const BULK: &str = "c";

impl Action for MortalAction {
    fn about(&self) -> &About {
        &self.about
    }

    fn bulk(&self) -> Option<&dyn Bulk> {
        (self.about.name == BULK).then_some(self)
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        Ok(())
    }

    fn plan(&self, _op: Op, _attempt: &Attempt<'_>) -> String {
        String::new()
    }

    fn prepare<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(Value::Null) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let user = attempt.target.value().to_owned();
            self.change(|world| {
                world.applied.push(attempt.arguments[0].clone());
                world.in_force.insert(user.clone());
            })
            .await;
            if user == "erin" { Err(ActionError::Failed("half done".into())) } else { Ok(()) }
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(self.world.lock().unwrap().in_force.contains(attempt.target.value())) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            self.change(|world| {
                let at = world.began.unwrap().elapsed();
                if world.in_force.remove(attempt.target.value()) {
                    world.lifted.push((attempt.target.value().to_owned(), at));
                }
            })
            .await;
            Ok(())
        })
    }
}

/// One after the other, so that a crash can be between any two.
impl Bulk for MortalAction {
    fn works_on(&self, _host: &Host) -> bool {
        true
    }

    fn apply_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()> {
        Box::pin(async move {
            for attempt in attempts {
                self.apply(attempt).await?;
            }
            Ok(())
        })
    }

    fn are_in_force<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a> {
        Box::pin(futures_util::future::join_all(attempts.iter().map(|attempt| self.is_in_force(attempt))))
    }

    fn revert_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()> {
        Box::pin(async move {
            for attempt in attempts {
                self.revert(attempt).await?;
            }
            Ok(())
        })
    }

    fn are_lifted<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a> {
        Box::pin(futures_util::future::join_all(attempts.iter().map(|attempt| self.is_lifted(attempt))))
    }
}

/// The scenario: the commands, and when each is sent.
fn story() -> Vec<(u64, Command)> {
    let numbered = |at: u64, command: Command| (at, Command { arguments: vec![command.seq.to_string()], ..command });
    vec![
        numbered(0, command(1, Op::Apply, "a", "alice", Some(20))),
        numbered(0, command(2, Op::Apply, "a", "bob", None)),
        numbered(0, command(3, Op::Apply, "b", "carol", Some(10))),
        numbered(5, command(4, Op::Revert, "a", "bob", None)),
        numbered(5, command(5, Op::Apply, "a", "alice", Some(40))),
        numbered(5, command(6, Op::Apply, "b", "dave", None)),
        numbered(12, command(7, Op::Revert, "b", "dave", None)),
        numbered(12, command(8, Op::Apply, "b", "erin", Some(60))),
        numbered(12, command(9, Op::Apply, "a", "frank", None)),
        numbered(0, command(10, Op::Apply, BULK, "gina", Some(30))),
        numbered(0, command(11, Op::Apply, BULK, "hank", None)),
        numbered(0, command(12, Op::Apply, BULK, "iris", Some(30))),
        numbered(0, command(13, Op::Apply, BULK, "jack", None)),
        numbered(12, command(14, Op::Revert, BULK, "hank", None)),
        numbered(12, command(15, Op::Revert, BULK, "jack", None)),
    ]
}

/// What happened in one round.
struct Told {
    world: Shared,
    results: BTreeMap<Uuid, CommandResult>,
    held: Vec<String>,
    restarted_at: Vec<Duration>,
}

/// Runs the scenario with these crashes; after each, the agent is away for `away`.
fn play(crashes: &[(usize, Mode)], away: Duration) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let clock = Clock::simulated(NOW);
        let world = World { crashes: crashes.to_vec(), began: Some(began), ..World::default() };
        let world: Shared = Arc::new(Mutex::new(world));
        let mut owed = story();
        let mut results = BTreeMap::new();
        let mut restarted_at = Vec::new();
        loop {
            let life = world.lock().unwrap().life;
            let disk = Box::new(MortalDisk { world: Arc::clone(&world), life });
            let journal = Journal::open_on(Path::new("journal"), disk).unwrap();
            let action = |name| -> &'static dyn Action {
                let (targets, parameters) = (&[TargetKind::User], PARAMETERS);
                let about = About { name, targets, lock_domain: name, parameters, ..About::DEFAULT };
                Box::leak(Box::new(MortalAction { about, world: Arc::clone(&world), life }))
            };
            let actions = Box::leak(vec![action("a"), action("b"), action(BULK)].into_boxed_slice());
            let (policy, self_protection) = (LocalPolicy::default(), SelfProtection::default());
            let host = Host::new(Runner::new(), "/nonexistent".as_ref());
            let agent = Arc::new(Agent::new(journal, actions, clock.clone(), host, policy, self_protection));
            super::start(&agent);
            let started = Instant::now();
            let mut quiet_since = None;
            while !world.lock().unwrap().dead && started.elapsed() < LAST_LIFE {
                let is_quiet = owed.is_empty()
                    && agent.read(|state| {
                        state.pending().next().is_none() && state.held().all(|held| held.until.is_none())
                    });
                if is_quiet && quiet_since.get_or_insert(started.elapsed()).abs_diff(started.elapsed()) > 3 * LATE {
                    break;
                }
                converse(&agent, &world, &mut owed, &mut results, began.elapsed());
                tokio::time::sleep(LATE / 2).await;
            }
            agent.tasks.stop();
            if !world.lock().unwrap().dead {
                let held = agent.read(|state| state.held().map(|held| held.target.value().to_owned()).collect());
                assert!(owed.is_empty(), "still owed: {owed:?}");
                return Told { world, results, held, restarted_at };
            }
            tokio::time::sleep(away).await;
            let mut world = world.lock().unwrap();
            (world.life, world.dead, world.steps) = (life + 1, false, 0);
            restarted_at.push(began.elapsed());
        }
    })
}

/// One exchange between the scenario's manager and the agent; a crashed agent sends nothing.
fn converse(
    agent: &Agent,
    world: &Shared,
    owed: &mut Vec<(u64, Command)>,
    results: &mut BTreeMap<Uuid, CommandResult>,
    now: Duration,
) {
    let due = owed.iter().filter(|(at, _)| Duration::from_secs(*at) <= now).map(|(_, command)| command.clone());
    let receipts = crate::intake::take_in(agent, due.collect());
    agent.wake_lanes();
    if world.lock().unwrap().dead {
        return;
    }
    owed.retain(|(_, command)| !receipts.acks.contains(&command.jti));
    let told = agent.read(|state| state.outbox().to_vec());
    for result in &told {
        let first = results.entry(result.command_id).or_insert_with(|| result.clone());
        assert_eq!(first, result, "a result is told again as it was told before");
    }
    if !told.is_empty() {
        agent.note([Record::Acknowledged { ids: told.iter().map(|result| result.command_id).collect() }]);
    }
}

fn check(told: &Told, crashes: &[(usize, Mode)], away: Duration) {
    let world = told.world.lock().unwrap();
    let context = format!("crashes {crashes:?}, away {away:?}, lifted {:?}, applied {:?}", world.lifted, world.applied);
    let applied: BTreeSet<&String> = world.applied.iter().collect();
    assert_eq!(applied.len(), world.applied.len(), "no command runs twice: {context}");
    let outcome = |seq: u128| told.results.get(&Uuid::from_u128(seq)).map(|result| result.outcome);
    for (_, command) in story() {
        assert!(outcome(command.seq.into()).is_some(), "command {} has a result: {context}", command.seq);
    }
    // frank has no end; its result tells whether its apply survived.
    let frank = outcome(9) == Some(Outcome::Succeeded);
    let expected: Vec<&str> = if frank { vec!["frank"] } else { vec![] };
    assert_eq!(world.in_force.iter().collect::<Vec<_>>(), expected, "no undo is lost: {context}");
    assert_eq!(told.held, expected, "{context}");
    let last_restart = told.restarted_at.iter().max().copied().unwrap_or_default();
    for (user, first, last) in [("alice", 20, 40), ("carol", 10, 10), ("gina", 30, 30), ("iris", 30, 30)] {
        let ends: Vec<Duration> = world.lifted.iter().filter(|(who, _)| who == user).map(|(_, at)| *at).collect();
        assert!(ends.iter().all(|at| *at >= Duration::from_secs(first)), "{user} is not lifted early: {context}");
        let Some(end) = ends.last() else { continue };
        let is_extended = user == "alice" && outcome(5) == Some(Outcome::Succeeded);
        let due = Duration::from_secs(if is_extended { last } else { first });
        assert!(*end >= due, "{user} is not lifted early: {context}");
        assert!(*end <= due.max(last_restart) + LATE || user == "alice", "{user} is not lifted late: {context}");
        assert!(*end <= Duration::from_secs(last).max(last_restart) + LATE, "{user} is not lifted late: {context}");
    }
}

fn round(crashes: &[(usize, Mode)], away: Duration) {
    check(&play(crashes, away), crashes, away);
}

#[test]
fn without_a_crash_the_scenario_ends_correctly() {
    let told = play(&[], Duration::ZERO);
    check(&told, &[], Duration::ZERO);
    let outcomes: Vec<Outcome> = told.results.values().map(|result| result.outcome).collect();
    let mut expected = vec![Outcome::Succeeded; 15];
    expected[7] = Outcome::Failed;
    assert_eq!(outcomes, expected);
    let applied: BTreeSet<String> = told.world.lock().unwrap().applied.iter().cloned().collect();
    assert_eq!(applied, ["1", "2", "3", "5", "6", "8", "9", "10", "11", "12", "13"].map(str::to_owned).into());
}

#[test]
fn whenever_the_agent_dies_no_command_runs_twice_and_no_undo_is_lost_or_early() {
    let told = play(&[], Duration::ZERO);
    let world = told.world.lock().unwrap();
    let (steps, lengths) = (world.steps, world.lengths.clone());
    drop(world);
    let mut rounds = 0;
    let mut play_round = |crashes: &[(usize, Mode)]| {
        // In turn: back at once, after some ends, after all of them.
        let away = [Duration::ZERO, Duration::from_secs(11), Duration::from_secs(45)][rounds % 3];
        round(crashes, away);
        rounds += 1;
    };
    for step in 1..=steps {
        play_round(&[(step, Mode::Before)]);
        play_round(&[(step, Mode::After)]);
        if let Some(length) = lengths.get(&step) {
            for part in 1..6 {
                play_round(&[(step, Mode::Torn(length * part / 6))]);
            }
        }
        // The next run crashes too, while it cleans up after the first.
        for next in [1, 2, 3, 5, 8] {
            play_round(&[(step, Mode::After), (next, Mode::After)]);
            play_round(&[(step, Mode::Before), (next, Mode::Before), (next, Mode::After)]);
        }
    }
    // One append at every byte: one in which an effect is held and its command begun.
    let (step, length) = lengths.iter().min_by_key(|(_, length)| length.abs_diff(500)).unwrap();
    for byte in 0..*length {
        play_round(&[(*step, Mode::Torn(byte))]);
    }
    assert!(rounds >= 500, "{rounds} rounds");
    println!("{rounds} rounds over {steps} steps");
}
