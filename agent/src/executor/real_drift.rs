//! Convergence against the real kernel: another program flushes the firewall of a network
//! namespace, and the agent notices.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Actual, Outcome};
use riposte_protocol::target::{Target, TargetKind};

use super::tests::command;
use crate::actions::{self, Host};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::journal::{Journal, JournalState};
use crate::local_policy::{Drift, LocalPolicy};
use crate::platform;
use crate::runner::{Program, Runner};
use crate::self_protection::SelfProtection;

struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        assert!(platform::is_root(), "this test needs root: it makes a network namespace");
        let name = format!("riposte-test-{}", uuid::Uuid::now_v7().simple());
        let made = std::process::Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(made.status.success(), "no namespace: {}", String::from_utf8_lossy(&made.stderr));
        Self(name)
    }

    fn runner(&self) -> Runner {
        Runner::with_prefix(["ip", "netns", "exec", &self.0])
    }

    async fn run<const N: usize>(&self, program: &str, arguments: [&str; N]) -> String {
        let exit = self.runner().run(&Program::new(program, arguments)).await.unwrap();
        assert!(exit.is_success(), "{program}: {}", exit.stderr);
        exit.stdout
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

async fn until<T>(agent: &Agent, look: impl Fn(&JournalState) -> Option<T>) -> T {
    for _ in 0..1500 {
        if let Some(found) = agent.read(&look) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not happen within half a minute")
}

#[tokio::test]
async fn real_drops_that_others_flush_are_made_again() {
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal")).unwrap();
    let policy =
        LocalPolicy { verify_every: Duration::from_millis(50), drift: Drift::Repair, ..LocalPolicy::default() };
    let (host, self_protection) = (Host::new(namespace.runner(), directory.path()), SelfProtection::default());
    let agent = Arc::new(Agent::new(journal, actions::ALL, Clock::system(), host, policy, self_protection));
    super::start(&agent);
    let apply = |seq: u64, action, address| Command {
        exp: 4_000_000_000,
        effect: uuid::Uuid::from_u128(seq.into()),
        target: Target::parse(TargetKind::Ip, address).unwrap(),
        ..command(seq, Op::Apply, action, "alice", None)
    };
    let commands = vec![
        apply(1, "firewall-drop", "203.0.113.7"),
        apply(2, "firewall-drop", "2001:db8::7"),
        apply(3, "route-null", "203.0.113.8"),
    ];
    crate::intake::take_in(&agent, commands);
    agent.wake_lanes();
    let results = until(&agent, |state| (state.outbox().len() == 3).then(|| state.outbox().to_vec())).await;
    assert!(results.iter().all(|result| result.outcome == Outcome::Succeeded), "{results:?}");

    namespace.run("nft", ["flush", "ruleset"]).await;
    namespace.run("ip", ["route", "flush", "type", "blackhole"]).await;
    until(&agent, |state| {
        state.held().all(|held| held.drifts == 1 && held.actual == Some(Actual::InForce)).then_some(())
    })
    .await;
    let ruleset = namespace.run("nft", ["list", "ruleset"]).await;
    assert!(ruleset.contains("203.0.113.7") && ruleset.contains("2001:db8::7"), "{ruleset}");
    assert!(namespace.run("ip", ["route", "show", "type", "blackhole"]).await.contains("203.0.113.8"));

    // Never beside running lanes: one of them could repair what is lifted here.
    agent.tasks.stop();
    assert!(agent.tasks.finish(Duration::from_secs(10)).await);
    let release = super::release(&agent, "the test is over").await;
    assert_eq!((release.lifted.len(), release.failed.len()), (3, 0), "{release:?}");
    assert!(!namespace.run("nft", ["list", "ruleset"]).await.contains("203.0.113.7"));
}
