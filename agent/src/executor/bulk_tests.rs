//! Commands that wait together and are executed together.

use std::time::Duration;

use futures_util::future::join_all;
use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::Outcome;
use uuid::Uuid;

use super::tests::{Bench, Fake, command, held, received};
use crate::actions::{Action as _, Attempt, Bulk, Host, Looks, Step};
use crate::journal::Record;
use crate::local_policy::LocalPolicy;

/// The log shows how many were given to it at once.
impl Bulk for Fake {
    fn works_on(&self, _host: &Host) -> bool {
        self.state.lock().unwrap().is_bulk
    }

    fn apply_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()> {
        self.state.lock().unwrap().log.push(format!("apply {} at once", attempts.len()));
        Box::pin(async move {
            for attempt in attempts {
                self.apply(attempt).await?;
            }
            Ok(())
        })
    }

    fn are_in_force<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a> {
        self.state.lock().unwrap().looks += attempts.len();
        Box::pin(join_all(attempts.iter().map(|attempt| self.is_in_force(attempt))))
    }

    fn revert_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()> {
        self.state.lock().unwrap().log.push(format!("revert {} at once", attempts.len()));
        Box::pin(async move {
            for attempt in attempts {
                self.revert(attempt).await?;
            }
            Ok(())
        })
    }

    fn are_lifted<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a> {
        Box::pin(join_all(attempts.iter().map(|attempt| self.is_lifted(attempt))))
    }
}

/// An action that does many at once.
fn bulk() -> &'static Fake {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().is_bulk = true;
    fake
}

fn apply(seq: u64, user: &str) -> Command {
    command(seq, Op::Apply, "a", user, Some(600))
}

fn revert(seq: u64, user: &str) -> Command {
    command(seq, Op::Revert, "a", user, None)
}

/// An agent in which all of these wait when it starts.
fn begin(fake: &'static Fake, before: Vec<Record>, commands: &[Command]) -> Bench {
    Bench::new(&[fake], before.into_iter().chain(commands.iter().map(received)).collect(), false)
}

#[tokio::test(start_paused = true)]
async fn what_waits_together_is_applied_together_and_lifted_together_at_its_end() {
    let fake = bulk();
    let bench = begin(fake, vec![], &[apply(1, "alice"), apply(2, "bob"), apply(3, "carol")]);
    for seq in 1..=3 {
        let result = bench.result(seq).await;
        assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, Some(true)), "{result:?}");
    }
    assert_eq!(fake.log(), ["apply 3 at once", "apply alice", "apply bob", "apply carol"]);
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    let ended = ["revert 3 at once", "revert alice to false", "revert bob to false", "revert carol to false"];
    let mut log = fake.log().split_off(4);
    log[1..].sort();
    assert_eq!(log, ended);
    assert!(bench.agent.clock.now().since(super::tests::NOW) >= Duration::from_mins(10), "not before their end");
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_fails_alone_and_leaves_nothing() {
    let fake = bulk();
    fake.state.lock().unwrap().unfit = Some("bob".into());
    let bench = begin(fake, vec![], &[apply(1, "alice"), apply(2, "bob"), apply(3, "carol")]);
    let outcomes = [bench.result(1).await, bench.result(2).await, bench.result(3).await].map(|result| result.outcome);
    assert_eq!(outcomes, [Outcome::Succeeded, Outcome::Failed, Outcome::Succeeded]);
    let held = bench.agent.read(|state| state.held().map(|held| held.target.value().to_owned()).collect::<Vec<_>>());
    assert_eq!(held.len(), 2, "{held:?}");
    assert!(!fake.state.lock().unwrap().in_force.contains("bob"), "it was cleaned up");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_lifted_in_time_stays_held_and_is_retried() {
    let fake = bulk();
    fake.state.lock().unwrap().reverts_that_fail = 1;
    let before = ["alice", "bob"].map(|user| held(&command(0, Op::Apply, "a", user, Some(0))));
    let bench = begin(fake, before.to_vec(), &[]);
    bench.until(|state| state.held().any(|held| held.failing.is_some()).then_some(())).await;
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    let log = fake.log();
    let batches = log.iter().filter(|line| line.ends_with("at once")).cloned().collect::<Vec<_>>();
    assert_eq!(batches, ["revert 2 at once", "revert 2 at once"], "a time-out makes no smaller parts: {log:?}");
    assert!(fake.state.lock().unwrap().in_force.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_look_at_ten_thousand_effects_lets_other_work_go_on() {
    let fake = bulk();
    let users = (0..10_000).map(|n| format!("user{n}"));
    fake.state.lock().unwrap().in_force.extend(users.clone());
    let records = users.map(|user| {
        let held = crate::journal::Held {
            actual: Some(riposte_protocol::message::Actual::InForce),
            ..super::tests::held_effect(&command(0, Op::Apply, "a", &user, None))
        };
        Record::Held { held: Box::new(held) }
    });
    let bench = Bench::new(&[fake], records.collect(), false);
    let mut turns = 0;
    while fake.state.lock().unwrap().looks < 10_000 {
        turns += 1;
        assert!(turns < 1_000_000, "the round never ends: {} looks", fake.state.lock().unwrap().looks);
        tokio::task::yield_now().await;
    }
    assert!(turns >= 20, "the lane kept the thread for the whole round: {turns}");
    assert_eq!(fake.log(), Vec::<String>::new(), "nothing had to be done");
    assert_eq!(bench.agent.read(|state| state.held().count()), 10_000);
}

#[tokio::test(start_paused = true)]
async fn promise_4_the_commands_of_an_effect_never_go_together() {
    let fake = bulk();
    let commands = [apply(1, "alice"), apply(2, "bob"), revert(3, "alice"), apply(4, "alice"), revert(5, "bob")];
    let bench = begin(fake, vec![], &commands);
    bench.until(|state| state.pending().next().is_none().then_some(())).await;
    let of = |user: &str| fake.log().into_iter().filter(|line| line.contains(user)).collect::<Vec<_>>();
    assert_eq!(of("alice"), ["apply alice", "revert alice to false", "apply alice"]);
    assert_eq!(of("bob"), ["apply bob", "revert bob to false"]);
}

#[tokio::test(start_paused = true)]
async fn two_effects_on_one_target_never_go_together() {
    let fake = bulk();
    let other = |seq: u64| Command { effect: Uuid::from_u128(seq.into()), ..apply(seq, "alice") };
    let bench = begin(fake, vec![], &[other(1), other(2), apply(3, "bob")]);
    for seq in 1..=3 {
        assert_eq!(bench.result(seq).await.outcome, Outcome::Succeeded);
    }
    bench.receive(&[Command { effect: Uuid::from_u128(1), ..revert(4, "alice") }]);
    bench.result(4).await;
    assert!(fake.state.lock().unwrap().in_force.contains("alice"), "the other effect holds it");
    bench.receive(&[Command { effect: Uuid::from_u128(2), ..revert(5, "alice") }]);
    bench.result(5).await;
    assert!(!fake.state.lock().unwrap().in_force.contains("alice"));
}

#[tokio::test(start_paused = true)]
async fn both_effects_on_one_target_that_end_together_are_lifted() {
    let fake = bulk();
    fake.state.lock().unwrap().in_force.insert("alice".into());
    let twin = |effect: u128| {
        held(&Command { effect: Uuid::from_u128(effect), ..command(0, Op::Apply, "a", "alice", Some(0)) })
    };
    let bench = begin(fake, vec![twin(1), twin(2)], &[]);
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    assert!(!fake.state.lock().unwrap().in_force.contains("alice"), "neither relied on the other: {:?}", fake.log());
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_waits_for_no_batch() {
    let fake = bulk();
    let urgent = Command { urgent: true, ..apply(9, "dave") };
    let mut commands: Vec<Command> = (1..=8).map(|seq| apply(seq, &format!("user{seq}"))).collect();
    commands.push(urgent);
    let bench = begin(fake, vec![], &commands);
    bench.until(|state| state.pending().next().is_none().then_some(())).await;
    assert_eq!(fake.log()[..2], ["apply dave", "apply 8 at once"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_at_once_here_is_done_one_by_one_in_order() {
    let fake = Fake::new("a");
    let bench = begin(fake, vec![], &[apply(1, "alice"), apply(2, "bob"), revert(3, "alice")]);
    bench.until(|state| state.pending().next().is_none().then_some(())).await;
    assert_eq!(fake.log(), ["apply alice", "revert alice to false", "apply bob"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_only_observes_applies_none_of_them() {
    let fake = bulk();
    let records = [apply(1, "alice"), apply(2, "bob")].iter().map(received).collect();
    let bench = Bench::with(&[fake], records, LocalPolicy { observe: true, ..LocalPolicy::default() });
    assert!(bench.result(1).await.observed && bench.result(2).await.observed);
    assert_eq!(fake.log(), Vec::<String>::new());
}
