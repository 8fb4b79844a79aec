//! The executor with an action that only records its calls, on a clock that the tests advance.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::converge::Rounds;
use super::schedule::{self, Next, Retries};
use crate::actions::{About, Action, ActionError, Attempt, Bulk, Host, Step};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::journal::{Held, Journal, JournalState, Record};
use crate::local_policy::LocalPolicy;
use crate::runner::Runner;
use crate::self_protection::SelfProtection;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);

/// An action that records its calls.
#[derive(Debug)]
pub(super) struct Fake {
    about: &'static About,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) log: Vec<String>,
    pub(super) in_force: BTreeSet<String>,
    pub(super) hangs: bool,
    pub(super) applies_fail: bool,
    pub(super) reverts_that_fail: u32,
    /// Whether it does many at once here.
    pub(super) is_bulk: bool,
    /// How many times it was looked at an effect together with others.
    pub(super) looks: usize,
    /// A target that cannot be applied.
    pub(super) unfit: Option<String>,
}

impl Fake {
    pub(super) fn new(name: &'static str) -> &'static Self {
        Self::of(About { name, targets: &[TargetKind::User], lock_domain: name, ..About::DEFAULT })
    }

    pub(super) fn of(about: About) -> &'static Self {
        Box::leak(Box::new(Self { about: Box::leak(Box::new(about)), state: Mutex::default() }))
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }
}

impl Action for Fake {
    fn about(&self) -> &About {
        self.about
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        Ok(())
    }

    fn bulk(&self) -> Option<&dyn Bulk> {
        Some(self)
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        format!("{} {}", op.as_str(), attempt.target.value())
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        let before = self.state.lock().unwrap().in_force.contains(attempt.target.value());
        Box::pin(async move { Ok(json!({ "before": before })) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let hangs = {
                let mut state = self.state.lock().unwrap();
                state.log.push(format!("apply {}", attempt.target.value()));
                state.in_force.insert(attempt.target.value().into());
                state.hangs
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            let state = self.state.lock().unwrap();
            let fails = state.applies_fail || state.unfit.as_deref() == Some(attempt.target.value());
            if fails { Err(ActionError::Failed("no".into())) } else { Ok(()) }
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(self.state.lock().unwrap().in_force.contains(attempt.target.value())) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let mut state = self.state.lock().unwrap();
            let before = attempt.undo.map(|undo| undo["before"].clone()).unwrap_or_default();
            state.log.push(format!("revert {} to {before}", attempt.target.value()));
            if state.reverts_that_fail > 0 {
                state.reverts_that_fail -= 1;
                return Err(ActionError::TimedOut("too slow".into()));
            }
            state.in_force.remove(attempt.target.value());
            Ok(())
        })
    }
}

pub(super) fn command(seq: u64, op: Op, action: &str, target: &str, until_secs: Option<u64>) -> Command {
    Command {
        iss: "riposte".into(),
        aud: Uuid::nil(),
        jti: Uuid::from_u128(seq.into()),
        seq,
        iat: NOW.as_secs(),
        exp: NOW.as_secs() + 100_000,
        op,
        // One effect per action and target.
        effect: Uuid::from_u128(u128::from(crc32fast::hash(format!("{action} {target}").as_bytes())) << 64),
        action: action.into(),
        target: Target::parse(TargetKind::User, target).unwrap(),
        arguments: vec![],
        until: until_secs.map(|secs| NOW.plus(Duration::from_secs(secs))),
        response: Uuid::nil(),
        alert: None,
        script: None,
        as_of: None,
        urgent: false,
    }
}

pub(super) fn received(command: &Command) -> Record {
    Record::Received { command: Box::new(command.clone()) }
}

pub(super) fn held(command: &Command) -> Record {
    Record::Held { held: Box::new(held_effect(command)) }
}

pub(super) fn held_effect(command: &Command) -> Held {
    Held {
        effect: command.effect,
        action: command.action.clone(),
        target: command.target.clone(),
        arguments: vec![],
        until: command.until,
        term: None,
        undo: json!({"before": false}),
        script: None,
        actual: None,
        drifts: 0,
        failing: None,
        in_log: true,
    }
}

/// An agent whose journal begins with `records`; it runs until the value is dropped.
pub(super) struct Bench {
    pub(super) agent: Arc<Agent>,
    _directory: Option<tempfile::TempDir>,
}

impl Bench {
    pub(super) fn new(actions: &[&'static Fake], records: Vec<Record>, observe: bool) -> Self {
        Self::with(actions, records, LocalPolicy { observe, ..LocalPolicy::default() })
    }

    pub(super) fn with(actions: &[&'static Fake], records: Vec<Record>, policy: LocalPolicy) -> Self {
        let bench = Self::idle(actions, records, policy);
        super::start(&bench.agent);
        bench
    }

    /// As [`Bench::with`], but not running yet.
    pub(super) fn idle(actions: &[&'static Fake], records: Vec<Record>, policy: LocalPolicy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&directory.path().join("journal")).unwrap();
        for record in records {
            journal.add(record);
        }
        journal.commit().unwrap();
        Self { _directory: Some(directory), ..Self::over(journal, actions, policy) }
    }

    /// An agent with this journal, not running yet.
    pub(super) fn over(journal: Journal, actions: &[&'static Fake], policy: LocalPolicy) -> Self {
        let actions: Vec<&'static dyn Action> = actions.iter().map(|action| *action as &dyn Action).collect();
        let (clock, self_protection) = (Clock::simulated(NOW), SelfProtection::default());
        // These tests write no file there: fakes are no programs.
        let host = Host::new(Runner::new(), "/nonexistent".as_ref());
        let agent = Agent::new(journal, Box::leak(actions.into()), clock, host, policy, self_protection);
        Self { agent: Arc::new(agent), _directory: None }
    }

    pub(super) fn receive(&self, commands: &[Command]) {
        self.agent.record(commands.iter().map(received)).unwrap();
        self.agent.wake_lanes();
    }

    /// Waits for the result of command `seq`.
    pub(super) async fn result(&self, seq: u64) -> CommandResult {
        let id = Uuid::from_u128(seq.into());
        self.until(|state| state.outbox().iter().find(|result| result.command_id == id).cloned()).await
    }

    /// Waits until `look` returns a value; on this clock waiting takes no time.
    pub(super) async fn until<T>(&self, look: impl Fn(&JournalState) -> Option<T>) -> T {
        let mut looks = 0;
        loop {
            if let Some(found) = self.agent.read(&look) {
                return found;
            }
            looks += 1;
            assert!(looks < 200_000, "it never happens");
            tokio::time::sleep(Duration::from_millis(if looks < 2000 { 1 } else { 20 })).await;
        }
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.agent.read(|state| state.held().cloned().collect())
    }
}

#[tokio::test(start_paused = true)]
async fn commands_of_an_effect_run_by_their_numbers() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    let in_order = [
        command(1, Op::Apply, "a", "alice", None),
        command(2, Op::Revert, "a", "alice", None),
        command(3, Op::Apply, "a", "alice", None),
    ];
    bench.receive(&in_order);
    let last = bench.result(3).await;
    assert_eq!((last.outcome, last.verified), (Outcome::Succeeded, Some(true)));
    assert_eq!(fake.log(), ["apply alice", "revert alice to false", "apply alice"]);
}

#[tokio::test(start_paused = true)]
async fn a_hung_execution_blocks_its_own_lane_only() {
    let (hung, other) = (Fake::new("hung"), Fake::new("other"));
    hung.state.lock().unwrap().hangs = true;
    let bench = Bench::new(&[hung, other], vec![], false);
    bench.receive(&[
        command(1, Op::Apply, "hung", "alice", None),
        command(2, Op::Apply, "hung", "bob", None),
        command(3, Op::Apply, "other", "alice", None),
    ]);
    assert_eq!(bench.result(3).await.outcome, Outcome::Succeeded);
    assert_eq!(hung.log(), ["apply alice"], "the second waits for the first");
}

#[tokio::test(start_paused = true)]
async fn an_effect_is_lifted_at_its_end_and_no_earlier() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    bench.receive(&[command(1, Op::Apply, "a", "alice", Some(600))]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(bench.held().len(), 1);
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    let late = bench.agent.clock.now().since(NOW.plus(Duration::from_mins(10)));
    assert!(late < Duration::from_millis(50), "{late:?}");
    assert_eq!(fake.log(), ["apply alice", "revert alice to false"]);
}

#[tokio::test(start_paused = true)]
async fn applying_again_moves_the_end_both_ways_and_keeps_the_undo() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    for (seq, until) in [(1, Some(600)), (2, Some(6000)), (3, None), (4, Some(60))] {
        bench.receive(&[command(seq, Op::Apply, "a", "alice", until)]);
        assert_eq!(bench.result(seq).await.outcome, Outcome::Succeeded);
        assert_eq!(bench.held()[0].until, until.map(|secs| NOW.plus(Duration::from_secs(secs))));
    }
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    assert_eq!(fake.log().last().unwrap(), "revert alice to false");
}

#[tokio::test(start_paused = true)]
async fn a_command_begun_before_a_restart_is_looked_at_and_not_executed_again() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().in_force.insert("alice".into());
    let (alice, bob) = (command(1, Op::Apply, "a", "alice", None), command(2, Op::Apply, "a", "bob", None));
    let begun = |command: &Command| {
        [
            received(command),
            held(command),
            Record::Started { id: command.jti, at: NOW.minus(Duration::from_secs(9)), evidence: None },
        ]
    };
    let bench = Bench::new(&[fake], [begun(&alice), begun(&bob)].concat(), false);
    let (alice, bob) = (bench.result(1).await, bench.result(2).await);
    assert_eq!((alice.outcome, alice.verified), (Outcome::Succeeded, Some(true)), "{}", alice.message);
    assert!(alice.message.contains("stopped during the execution"));
    assert_eq!((bob.outcome, bob.verified), (Outcome::Failed, Some(false)), "{}", bob.message);
    assert_eq!(fake.log(), ["revert bob to false"], "nothing is applied; what failed is cleaned up");
    assert_eq!(bench.held().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_received_but_not_begun_before_a_restart_is_executed() {
    let fake = Fake::new("a");
    let late = Command { exp: NOW.as_secs() - 1, ..command(2, Op::Apply, "a", "bob", None) };
    let records = vec![received(&command(1, Op::Apply, "a", "alice", None)), received(&late)];
    let bench = Bench::new(&[fake], records, false);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    let late = bench.result(2).await;
    assert_eq!((late.outcome, late.message.as_str()), (Outcome::Refused, "expired before it could be executed"));
    assert_eq!(fake.log(), ["apply alice"]);
}

#[tokio::test(start_paused = true)]
async fn overdue_undos_come_first_at_start() {
    let fake = Fake::new("a");
    let mut overdue = command(1, Op::Apply, "a", "alice", Some(0));
    overdue.until = Some(NOW.minus(Duration::from_hours(1)));
    let records = vec![received(&command(2, Op::Apply, "a", "bob", None)), held(&overdue)];
    let bench = Bench::new(&[fake], records, false);
    bench.result(2).await;
    assert_eq!(fake.log(), ["revert alice to false", "apply bob"]);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_tried_until_it_works() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().reverts_that_fail = 9;
    let bench = Bench::new(&[fake], vec![held(&command(1, Op::Apply, "a", "alice", Some(0)))], false);
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    let took = bench.agent.clock.now().since(NOW);
    let expected = Duration::from_secs(1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 + 60);
    assert!(took >= expected && took < expected + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revert_that_fails_is_reported_and_tried_again_by_the_clock() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().reverts_that_fail = 1;
    let bench = Bench::new(&[fake], vec![held(&command(1, Op::Apply, "a", "alice", None))], false);
    bench.receive(&[command(2, Op::Revert, "a", "alice", None)]);
    let result = bench.result(2).await;
    assert_eq!((result.outcome, result.message.as_str()), (Outcome::TimedOut, "too slow; it is retried"));
    bench.until(|state| state.held().next().is_none().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_revert_of_an_effect_that_is_not_held_still_verifies() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().in_force.insert("alice".into());
    let bench = Bench::new(&[fake], vec![], false);
    bench.receive(&[command(2, Op::Revert, "a", "alice", None), command(3, Op::Revert, "a", "bob", None)]);
    let result = bench.result(2).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, Some(true)), "{}", result.message);
    assert_eq!(bench.result(3).await.outcome, Outcome::Succeeded, "nothing is there");
    assert_eq!(fake.log(), ["revert alice to null"]);
}

#[tokio::test(start_paused = true)]
async fn an_apply_that_fails_leaves_nothing_behind() {
    let fake = Fake::new("a");
    fake.state.lock().unwrap().applies_fail = true;
    let bench = Bench::new(&[fake], vec![], false);
    bench.receive(&[command(1, Op::Apply, "a", "alice", None)]);
    let result = bench.result(1).await;
    assert_eq!((result.outcome, result.message.as_str()), (Outcome::Failed, "no"));
    assert!(bench.held().is_empty());
    assert!(fake.state.lock().unwrap().in_force.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_action_that_is_complete_in_itself_holds_nothing_and_is_never_repeated() {
    let about = About { name: "a", targets: &[TargetKind::User], lock_domain: "a", undoable: false, ..About::DEFAULT };
    let fake = Fake::of(about);
    let begun = command(1, Op::Apply, "a", "bob", None);
    let records = vec![received(&begun), Record::Started { id: begun.jti, at: NOW, evidence: None }];
    let bench = Bench::new(&[fake], records, false);
    bench.receive(&[command(2, Op::Apply, "a", "alice", Some(60)), command(3, Op::Revert, "a", "alice", None)]);
    let (begun, done, reverted) = (bench.result(1).await, bench.result(2).await, bench.result(3).await);
    assert_eq!((begun.outcome, begun.verified), (Outcome::Failed, Some(false)), "{}", begun.message);
    assert_eq!((done.outcome, done.message.as_str()), (Outcome::Succeeded, "done"));
    assert_eq!((reverted.outcome, reverted.verified), (Outcome::Succeeded, None));
    assert!(bench.held().is_empty());
    assert_eq!(fake.log(), ["apply alice"]);
}

#[tokio::test(start_paused = true)]
async fn an_argument_that_the_action_does_not_know_is_refused_and_lifting_is_not() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![held(&command(9, Op::Apply, "a", "alice", None))], false);
    let with = |seq, op| Command { arguments: vec!["--flush".into()], ..command(seq, op, "a", "alice", None) };
    bench.receive(&[with(1, Op::Apply), with(2, Op::Revert)]);
    let refused = bench.result(1).await;
    assert_eq!(
        (refused.outcome, refused.message.as_str()),
        (Outcome::Refused, "a does not know the argument '--flush'; it takes none")
    );
    assert_eq!(bench.result(2).await.outcome, Outcome::Succeeded);
    assert_eq!(fake.log(), ["revert alice to false"]);
}

#[tokio::test(start_paused = true)]
async fn two_effects_with_the_same_target_do_not_lift_each_other() {
    let fake = Fake::new("a");
    let other = Uuid::from_u128(99);
    let bench = Bench::new(&[fake], vec![], false);
    let second = Command { effect: other, ..command(2, Op::Apply, "a", "alice", None) };
    bench.receive(&[command(1, Op::Apply, "a", "alice", None), second, command(3, Op::Revert, "a", "alice", None)]);
    assert_eq!(bench.result(3).await.outcome, Outcome::Succeeded);
    assert!(fake.state.lock().unwrap().in_force.contains("alice"), "the second effect still holds it");
    bench.receive(&[Command { effect: other, ..command(4, Op::Revert, "a", "alice", None) }]);
    bench.result(4).await;
    assert_eq!(fake.log().last().unwrap(), "revert alice to false", "as it was before the first");
}

#[tokio::test(start_paused = true)]
async fn an_observing_agent_reports_its_plan_and_holds_nothing_new() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![held(&command(9, Op::Apply, "a", "bob", Some(60)))], true);
    bench.receive(&[command(1, Op::Apply, "a", "alice", Some(600)), command(2, Op::Revert, "a", "alice", None)]);
    let result = bench.result(1).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, None));
    assert_eq!(result.message, "the agent only observes; it would have run: apply alice");
    assert_eq!(result.output, "apply alice");
    assert!(result.observed);
    assert_eq!(bench.result(2).await.message, "it was not held any more; nothing of it is left");
    assert!(fake.log().is_empty());
    bench.until(|state| state.held().next().is_none().then_some(())).await;
    assert_eq!(fake.log(), ["revert bob to false"], "what is in force from before is still lifted");
}

#[tokio::test(start_paused = true)]
async fn the_agent_checks_every_apply_itself() {
    let fake = Fake::new("a");
    let bench = Bench::new(&[fake], vec![], false);
    let address = Target::parse(TargetKind::Ip, "203.0.113.7").unwrap();
    bench.receive(&[
        command(1, Op::Apply, "a", "root", None),
        command(2, Op::Apply, "b", "alice", None),
        Command { target: address, ..command(3, Op::Apply, "a", "alice", None) },
        Command { until: Some(NOW), ..command(4, Op::Apply, "a", "alice", None) },
    ]);
    for (seq, reason) in [(1, "protected"), (2, "does not know"), (3, "target of kind user"), (4, "its end had passed")]
    {
        let result = bench.result(seq).await;
        assert_eq!(result.outcome, Outcome::Refused, "{seq}");
        assert!(result.message.contains(reason), "{seq}: {}", result.message);
    }
    assert!(fake.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_holds_nothing_never_wakes_by_itself() {
    let clock = Clock::simulated(NOW);
    let (mut state, retries) = (JournalState::default(), Retries::default());
    let mut rounds = Rounds::new(Duration::from_hours(1));
    let mut next = |state: &JournalState, millis: i64| {
        let (mut now, wall) = (clock.moment(), NOW.as_millis() + millis);
        now.wall = Timestamp::from_millis(wall);
        schedule::next(state, &retries, &mut rounds, &now, |action, _| action == "a", |_| false)
    };
    assert_eq!(next(&state, 0), Next::Wait(None));
    state.apply(held(&command(2, Op::Apply, "b", "alice", Some(1))));
    assert_eq!(next(&state, 0), Next::Wait(None), "another lane's");
    state.apply(held(&command(1, Op::Apply, "a", "alice", None)));
    let Next::Wait(Some(round)) = next(&state, 0) else { panic!("no round") };
    assert!(round >= Duration::from_mins(45) && round <= Duration::from_hours(1), "{round:?}");
    state.apply(held(&command(3, Op::Apply, "a", "bob", Some(600))));
    assert_eq!(next(&state, 0), Next::Wait(Some(Duration::from_secs(30))), "the clock may jump");
    assert_eq!(next(&state, 599_000), Next::Wait(Some(Duration::from_secs(1))));
    assert_eq!(next(&state, 599_999), Next::Wait(Some(Duration::from_millis(1))));
    assert!(matches!(next(&state, 600_000), Next::Undo(_)));
    assert!(matches!(next(&state, 999_000), Next::Undo(_)), "after a jump of the clock too");
}
