//! The agent's guarantees under faults: clocks that jump, disks that fill up, rules that others
//! flush, and reverts that fail.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, Outcome};
use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

use super::release;
use super::tests::{Bench, Fake, NOW, command, held, held_effect, received};
use crate::actions::About;
use crate::clock::Clock;
use crate::journal::{Disk, FileDisk, Journal, JournalState, Record};
use crate::local_policy::{Drift, LocalPolicy};
use crate::moment::Moment;

/// A host gets the address of an enemy: the block is lifted with the next order about it, not at the next look minutes later.
#[tokio::test(start_paused = true)]
async fn an_order_about_what_became_protected_is_refused_and_lifts_what_is_in_force() {
    let fake = Fake::of(About { name: "a", targets: &[TargetKind::Ip], lock_domain: "a", ..About::DEFAULT });
    let bench = Bench::new(&[fake], vec![], false);
    let address = "203.0.113.7";
    let on_ip = |command: Command| Command { target: Target::parse(TargetKind::Ip, address).unwrap(), ..command };
    bench.receive(&[on_ip(command(1, Op::Apply, "a", "alice", Some(600)))]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    bench.agent.self_protection.note_manager(address.parse().unwrap());
    bench.receive(&[on_ip(command(2, Op::Apply, "a", "alice", Some(1200)))]);
    let refused = bench.result(2).await;
    assert_eq!(
        (refused.outcome, &*refused.message),
        (Outcome::Refused, "the target is protected: an address of the manager")
    );
    let released = bench.until(|state| state.released().next().cloned()).await;
    assert!(bench.held().is_empty());
    assert_eq!(fake.log(), ["apply 203.0.113.7", "revert 203.0.113.7 to false"]);
    assert_eq!(released.reason, "lifted: the target is protected now: an address of the manager");
}

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_prolongs_nothing() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    bench.receive(&[command(1, Op::Apply, "a", "alice", Some(600))]);
    bench.result(1).await;
    bench.agent.clock.jump(-86_400_000);
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(bench.held().len(), 1, "and it ends nothing early");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bench.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_forward_ends_effects_that_are_over_by_it() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    bench.receive(&[command(1, Op::Apply, "a", "alice", Some(600)), command(2, Op::Apply, "a", "bob", Some(9000))]);
    bench.result(2).await;
    bench.agent.clock.jump(3_600_000);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let left: Vec<_> = bench.held().iter().map(|held| held.target.value().to_owned()).collect();
    assert_eq!(left, ["bob"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_wakes_up_in_1970_keeps_nothing_longer_than_it_was_meant() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().in_force.insert("alice".into());
    let mut effect = held_effect(&command(1, Op::Apply, "a", "alice", None));
    let before = Moment { wall: NOW.plus(HOUR), since_boot: HOUR, boot: "boot 0".into() };
    effect.end_at(Some(before.wall.plus(Duration::from_mins(10))), &before);
    let bench = Bench::new(&[fake], vec![Record::Held { held: Box::new(effect) }], false);
    bench.agent.clock.jump(-NOW.as_millis());
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(bench.held().len(), 1);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(bench.held().is_empty(), "{:?}", bench.held());
}

#[tokio::test(start_paused = true)]
async fn a_restart_within_a_boot_keeps_the_end() {
    let clock = Clock::simulated(NOW);
    let mut effect = held_effect(&command(1, Op::Apply, "a", "alice", None));
    effect.end_at(Some(NOW.plus(HOUR)), &clock.moment());
    clock.jump(-86_400_000);
    tokio::time::sleep(HOUR / 2).await;
    assert!(!effect.carry_over(&clock.moment()));
    assert_eq!(effect.remaining(&clock.moment()), Some(HOUR / 2 + Duration::from_millis(1)));
}

#[test]
fn no_part_of_a_millisecond_makes_an_end_early() {
    let at = |nanos| Moment { wall: NOW, since_boot: Duration::from_nanos(nanos), boot: "boot 1".into() };
    let mut effect = held_effect(&command(1, Op::Apply, "a", "alice", None));
    effect.end_at(Some(NOW.plus(Duration::from_secs(1))), &at(999_999));
    effect.until = Some(NOW.plus(HOUR));
    assert!(effect.remaining(&at(1_000_999_998)).unwrap() > Duration::ZERO);
    assert_eq!(effect.remaining(&at(1_002_000_000)), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_drifted_effect_is_applied_again_and_reported() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    bench.receive(&[command(1, Op::Apply, "a", "alice", None)]);
    bench.result(1).await;
    assert_eq!(bench.held()[0].actual, Some(Actual::InForce));
    drop(bench.agent.take_news());
    tokio::time::sleep(HOUR).await;
    assert!(bench.agent.take_news().is_empty(), "nothing is told while nothing happens");
    fake.state.lock().unwrap().in_force.clear();
    tokio::time::sleep(Duration::from_mins(6)).await;
    assert_eq!(fake.log(), ["apply alice", "apply alice"]);
    let held = &bench.held()[0];
    assert_eq!((held.actual, held.drifts), (Some(Actual::InForce), 1));
    assert_eq!(bench.agent.take_news().into_iter().collect::<Vec<_>>(), [held.effect]);
}

#[tokio::test(start_paused = true)]
async fn drift_is_only_reported_where_the_policy_says_so() {
    let fake = Fake::new("a");
    let policy = LocalPolicy { drift: Drift::Report, verify_every: Duration::from_mins(1), ..LocalPolicy::default() };
    let bench = Bench::with(&[fake], vec![], policy);
    bench.receive(&[command(1, Op::Apply, "a", "alice", None)]);
    bench.result(1).await;
    fake.state.lock().unwrap().in_force.clear();
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(fake.log(), ["apply alice"]);
    let held = &bench.held()[0];
    assert_eq!((held.actual, held.drifts), (Some(Actual::Drifted), 1), "one drift, however often it is seen");
    fake.state.lock().unwrap().in_force.insert("alice".into());
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.held()[0].actual, Some(Actual::InForce), "another program has repaired it");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_host_is_made_good_at_once() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![held(&command(1, Op::Apply, "a", "alice", Some(600)))], false);
    bench.until(|state| state.held().next().filter(|held| held.actual.is_some()).map(|_| ())).await;
    assert_eq!(fake.log(), ["apply alice"]);
    assert!(bench.agent.clock.now().since(NOW) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_effect_on_a_newly_protected_target_is_lifted_and_a_forbidden_one_is_not_reapplied() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().in_force.insert("alice".into());
    let mut policy = LocalPolicy { denied_actions: vec!["a".into()], ..LocalPolicy::default() };
    policy.protected.users = vec!["alice".into()];
    let records = ["alice", "bob"].map(|user| held(&command(1, Op::Apply, "a", user, None)));
    let bench = Bench::with(&[fake], records.to_vec(), policy);
    let released = bench.until(|state| state.released().next().cloned()).await;
    assert_eq!(released.target.value(), "alice");
    assert!(released.reason.contains("protected by the local policy"), "{}", released.reason);
    assert_eq!(released.report().actual, Some(Actual::Absent));
    tokio::time::sleep(HOUR).await;
    assert_eq!(fake.log(), ["revert alice to false"]);
    assert_eq!((bench.held().len(), bench.held()[0].actual), (1, Some(Actual::Drifted)));
    bench.receive(&[command(2, Op::Apply, "a", "carol", None), command(3, Op::Revert, "a", "bob", None)]);
    assert!(bench.result(2).await.message.contains("does not allow a"));
    assert_eq!(bench.result(3).await.outcome, Outcome::Succeeded, "lifting is always allowed");
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_an_incident_until_it_works() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().in_force.insert("alice".into());
    fake.state.lock().unwrap().reverts_that_fail = 3;
    let bench = Bench::new(&[fake], vec![held(&command(1, Op::Apply, "a", "alice", Some(0)))], false);
    let failing = bench.until(|state| state.held().next().and_then(|held| held.failing.clone())).await;
    assert_eq!((failing.since, failing.reason.as_str()), (NOW, "too slow"));
    assert_eq!(bench.agent.take_news().len(), 1);
    assert_eq!(bench.held()[0].report().failing.as_deref(), Some("too slow"));
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    assert_eq!(bench.agent.take_news().len(), 1, "its end is told too");
}

#[tokio::test(start_paused = true)]
async fn promise_10_what_a_wrong_clock_could_not_end_is_looked_after_again() {
    let fake = Fake::new("a");
    let policy = LocalPolicy { verify_every: Duration::from_mins(1), ..LocalPolicy::default() };
    let bench = Bench::with(&[fake], vec![], policy);
    bench.receive(&[command(1, Op::Apply, "a", "alice", Some(3000))]);
    bench.result(1).await;
    bench.agent.clock.jump(3_600_000);
    fake.state.lock().unwrap().reverts_that_fail = u32::MAX;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(bench.held()[0].failing.is_some(), "the clock says that it is over");
    bench.agent.clock.jump(-3_600_000);
    fake.state.lock().unwrap().in_force.clear();
    tokio::time::sleep(Duration::from_mins(2)).await;
    let held = &bench.held()[0];
    assert_eq!((held.actual, &held.failing, held.drifts), (Some(Actual::InForce), &None, 1));
    assert!(fake.state.lock().unwrap().in_force.contains("alice"));
    fake.state.lock().unwrap().reverts_that_fail = 0;
    tokio::time::sleep(Duration::from_mins(50)).await;
    assert!(bench.held().is_empty(), "and it ends in its time");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_is_stopped_in_the_time_of_the_policy_and_cleaned_up() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().hangs = true;
    let bench = Bench::with(&[fake], vec![], LocalPolicy { timeout: Duration::from_secs(7), ..LocalPolicy::default() });
    bench.receive(&[command(1, Op::Apply, "a", "alice", None)]);
    let result = bench.result(1).await;
    assert_eq!(result.outcome, Outcome::TimedOut);
    assert_eq!(result.message, "it did not end within 7 s and was stopped");
    let took = result.finished_at.since(result.started_at);
    assert!((7..=10).contains(&took.as_secs()), "{took:?}");
    assert_eq!(fake.log(), ["apply alice", "revert alice to false"]);
}

#[tokio::test(start_paused = true)]
async fn release_lifts_everything_once_and_refuses_commands_not_begun() {
    let fake = Fake::new("a");
    for user in ["alice", "bob"] {
        fake.state.lock().unwrap().in_force.insert(user.into());
    }
    fake.state.lock().unwrap().reverts_that_fail = 1;
    let records = vec![
        held(&command(1, Op::Apply, "a", "alice", None)),
        held(&command(2, Op::Apply, "a", "bob", Some(9000))),
        received(&command(3, Op::Apply, "a", "carol", None)),
    ];
    let bench = Bench::idle(&[fake], records, LocalPolicy::default());
    let release = release(&bench.agent, "maintenance").await;
    assert_eq!((release.lifted.len(), release.failed.len(), release.refused), (1, 1, 1));
    assert_eq!(bench.agent.read(|state| state.released().next().unwrap().reason.clone()), "maintenance");
    assert_eq!(bench.result(3).await.outcome, Outcome::Refused);
    super::start(&bench.agent);
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    assert!(fake.state.lock().unwrap().in_force.is_empty(), "what failed is tried again by the next run");
    assert!(!fake.log().iter().any(|line| line.starts_with("apply")));
}

/// A disk that refuses writes while it is full.
#[derive(Debug)]
struct Full {
    disk: FileDisk,
    is_full: &'static AtomicBool,
}

impl Full {
    fn check(&self) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Full {
    fn load(&self) -> io::Result<Vec<u8>> {
        self.disk.load()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.disk.append(bytes))
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.check().and_then(|()| self.disk.cut(length))
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.disk.replace(bytes))
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_new_applies_and_no_due_revert() {
    let fake = Fake::new("a");
    let is_full: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let open = |path: &Path| Journal::open_on(path, Box::new(Full { disk: FileDisk::new(path), is_full })).unwrap();
    let bench = Bench::over(open(&path), &[fake], LocalPolicy::default());
    super::start(&bench.agent);
    let take_in = |commands: Vec<Command>| {
        let receipts = crate::intake::take_in(&bench.agent, commands);
        bench.agent.wake_lanes();
        receipts
    };
    take_in(vec![command(1, Op::Apply, "a", "alice", Some(600)), command(2, Op::Apply, "a", "bob", None)]);
    bench.result(2).await;
    is_full.store(true, Ordering::Relaxed);

    let receipts = take_in(vec![command(3, Op::Apply, "a", "carol", None), command(4, Op::Revert, "a", "bob", None)]);
    assert!(receipts.acks.is_empty(), "nothing is acknowledged that a crash would take back");
    let refused = bench.result(3).await;
    assert_eq!((refused.outcome, refused.verified), (Outcome::Refused, None));
    assert_eq!(
        refused.message,
        format!(
            "the agent's journal cannot be written, so nothing new is executed: cannot write the journal {}: no storage space",
            path.display()
        )
    );
    assert!(bench.agent.capabilities().iter().all(|capability| !capability.available));
    assert_eq!(bench.result(4).await.outcome, Outcome::Succeeded, "a revert is carried out");
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    assert_eq!(fake.log(), ["apply alice", "apply bob", "revert bob to false", "revert alice to false"]);
    let on_disk = JournalState::of(crate::journal::read(&path).unwrap().records);
    assert_eq!(on_disk.held().count(), 2, "on disk they are still held, so nothing can be forgotten");

    is_full.store(false, Ordering::Relaxed);
    while bench.agent.unwritable().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let on_disk = JournalState::of(crate::journal::read(&path).unwrap().records);
    assert_eq!((on_disk.held().count(), on_disk.outbox().len()), (0, 4), "what was noted is written");
    let receipts = take_in(vec![command(5, Op::Apply, "a", "dave", None)]);
    assert_eq!(receipts.acks.len(), 1);
    assert_eq!(bench.result(5).await.outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn promise_9_a_refusal_that_a_crash_would_take_back_is_not_told() {
    let fake = Fake::new("a");
    let is_full: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open_on(&path, Box::new(Full { disk: FileDisk::new(&path), is_full })).unwrap();
    let bench = Bench::over(journal, &[fake], LocalPolicy::default());
    let order = command(1, Op::Apply, "a", "alice", None);
    let receipts = crate::intake::take_in(&bench.agent, vec![order.clone()]);
    assert_eq!(receipts.acks, [order.jti]);
    is_full.store(true, Ordering::Relaxed);
    super::start(&bench.agent);

    assert_eq!(bench.result(1).await.outcome, Outcome::Refused);
    let on_disk = JournalState::of(crate::journal::read(&path).unwrap().records);
    assert_eq!(on_disk.pending().count(), 1, "an agent that starts from this executes it");
    let told = || {
        bench.agent.tell(|journal, kept| {
            journal.state().outbox().iter().filter(|result| !kept.contains(&result.command_id)).count()
        })
    };
    assert_eq!(told(), 0);

    is_full.store(false, Ordering::Relaxed);
    while bench.agent.unwritable().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(told(), 1);
    let on_disk = JournalState::of(crate::journal::read(&path).unwrap().records);
    assert_eq!((on_disk.pending().count(), on_disk.outbox().len()), (0, 1));
    assert!(fake.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_journal_full_of_unreported_results_accepts_only_reverts() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![held(&command(1, Op::Apply, "a", "alice", None))], false);
    let long = |seq: u64| {
        let mut result = crate::refusal::refusal(Uuid::from_u128(seq.into()), "x".repeat(1024 * 1024), NOW);
        result.outcome = Outcome::Failed;
        Record::Finished { result: Box::new(result) }
    };
    bench.agent.record((100..133).map(long)).unwrap();
    let new = vec![command(2, Op::Apply, "a", "bob", None), command(3, Op::Revert, "a", "alice", None)];
    let receipts = crate::intake::take_in(&bench.agent, new.clone());
    assert_eq!(receipts.acks, [new[1].jti], "the apply stays owed");
    bench.agent.record([Record::Acknowledged { ids: (100..133).map(Uuid::from_u128).collect() }]).unwrap();
    // Its number is below the cursor now, and its effect is another one: it is accepted when it is
    // delivered again.
    let receipts = crate::intake::take_in(&bench.agent, vec![new[0].clone()]);
    assert_eq!((receipts.acks.len(), receipts.duplicates.len()), (1, 0));
}
