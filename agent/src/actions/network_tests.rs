//! The network actions against the real kernel, each in a network namespace of its own.

use std::sync::Mutex;
use std::time::Duration;

use riposte_protocol::target::{Target, TargetKind};

use super::firewall_drop::FirewallDrop;
use super::route_null::RouteNull;
use super::{Action, Attempt, Host, Transcript};
use crate::platform;
use crate::runner::{Program, Runner};

/// A network namespace that is gone when the test is.
struct Namespace {
    name: String,
    host: Host,
}

impl Namespace {
    fn new(tools: &[&str]) -> Self {
        assert!(platform::is_root(), "this test needs root: it makes a network namespace");
        for tool in tools.iter().chain(&["ip"]) {
            assert!(Runner::find(tool).is_some(), "this test needs {tool}, which is not installed");
        }
        let name = format!("riposte-test-{}", uuid::Uuid::now_v7().simple());
        let made = std::process::Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(made.status.success(), "no namespace: {}", String::from_utf8_lossy(&made.stderr));
        let runner = Runner::with_prefix(["ip", "netns", "exec", &name]);
        let host = Host::new(runner, std::path::Path::new("/nonexistent"));
        Self { name, host }
    }

    async fn run(&self, program: &Program) -> String {
        let exit = self.host.runner.run(program).await.unwrap();
        assert!(exit.is_success(), "{}: {}", program.text(), exit.stderr);
        exit.stdout
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

const ADDRESSES: [&str; 2] = ["203.0.113.7", "2001:db8::7"];

fn target(address: &str) -> Target {
    Target::parse(TargetKind::Ip, address).unwrap()
}

/// Applies twice, reverts twice, and looks after each.
async fn is_idempotent_both_ways(action: &dyn Action, namespace: &Namespace, undo: Option<serde_json::Value>) {
    for address in ADDRESSES {
        let (target, transcript) = (target(address), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&namespace.host, &transcript, &target);
        let undo = match &undo {
            Some(undo) => undo.clone(),
            None => action.prepare(&attempt).await.unwrap(),
        };
        attempt.undo = Some(&undo);
        assert!(action.is_lifted(&attempt).await.unwrap(), "{address} at first");
        assert!(!action.is_in_force(&attempt).await.unwrap(), "{address} at first");
        for remaining in [Some(Duration::from_mins(10)), None, Some(Duration::from_millis(5500))] {
            attempt.remaining = remaining;
            action.apply(&attempt).await.unwrap();
            assert!(action.is_in_force(&attempt).await.unwrap(), "{address} for {remaining:?}");
        }
        for _ in 0..2 {
            action.revert(&attempt).await.unwrap();
            assert!(action.is_lifted(&attempt).await.unwrap(), "{address}");
            assert!(!action.is_in_force(&attempt).await.unwrap(), "{address}");
        }
    }
}

#[tokio::test]
async fn nftables_blocks_and_unblocks_v4_and_v6_however_often() {
    let namespace = Namespace::new(&["nft"]);
    is_idempotent_both_ways(&FirewallDrop, &namespace, Some(serde_json::json!({"backend": "nftables"}))).await;
}

#[tokio::test]
async fn iptables_blocks_and_unblocks_v4_and_v6_however_often() {
    let namespace = Namespace::new(&["iptables", "ip6tables"]);
    is_idempotent_both_ways(&FirewallDrop, &namespace, Some(serde_json::json!({"backend": "iptables"}))).await;
    let rules = namespace.run(&Program::new("iptables", ["-S"])).await;
    assert!(!rules.contains("203.0.113.7"), "{rules}");
}

#[tokio::test]
async fn a_null_route_is_made_and_removed_v4_and_v6_however_often() {
    let namespace = Namespace::new(&[]);
    is_idempotent_both_ways(&RouteNull, &namespace, None).await;
}

#[tokio::test]
async fn the_kernel_holds_the_new_end_of_a_block_and_none_without_one() {
    let namespace = Namespace::new(&["nft"]);
    let (target, transcript) = (target(ADDRESSES[0]), Mutex::<Transcript>::default());
    let undo = serde_json::json!({"backend": "nftables"});
    let mut attempt = Attempt::new(&namespace.host, &transcript, &target);
    attempt.undo = Some(&undo);
    for (remaining, expected) in [(Some(600), "timeout 10m"), (Some(60), "timeout 1m"), (Some(7200), "timeout 2h")] {
        attempt.remaining = remaining.map(Duration::from_secs);
        FirewallDrop.apply(&attempt).await.unwrap();
        let set = namespace.run(&Program::new("nft", ["list", "set", "inet", "riposte", "blocked_v4"])).await;
        assert!(set.contains(expected), "{expected}: {set}");
    }
    attempt.remaining = None;
    FirewallDrop.apply(&attempt).await.unwrap();
    let set = namespace.run(&Program::new("nft", ["list", "set", "inet", "riposte", "blocked_v4"])).await;
    assert!(set.contains("203.0.113.7") && !set.contains("expires"), "{set}");
}

#[tokio::test]
async fn a_damaged_table_is_repaired_and_the_addresses_in_it_are_kept() {
    let namespace = Namespace::new(&["nft"]);
    let undo = serde_json::json!({"backend": "nftables"});
    let (first, second, transcript) = (target("203.0.113.1"), target("203.0.113.2"), Mutex::<Transcript>::default());
    let mut on_first = Attempt::new(&namespace.host, &transcript, &first);
    let mut on_second = Attempt::new(&namespace.host, &transcript, &second);
    (on_first.undo, on_second.undo) = (Some(&undo), Some(&undo));
    FirewallDrop.apply(&on_first).await.unwrap();

    namespace.run(&Program::new("nft", ["flush", "chain", "inet", "riposte", "input"])).await;
    assert!(
        !FirewallDrop.is_in_force(&on_first).await.unwrap(),
        "an address in a set that no rule asks is not blocked"
    );
    FirewallDrop.apply(&on_second).await.unwrap();
    assert!(FirewallDrop.is_in_force(&on_first).await.unwrap());
    assert!(FirewallDrop.is_in_force(&on_second).await.unwrap());

    namespace.run(&Program::new("nft", ["insert", "rule", "inet", "riposte", "input", "accept"])).await;
    assert!(!FirewallDrop.is_in_force(&on_first).await.unwrap(), "a rule before ours lets everything through");
    FirewallDrop.apply(&on_first).await.unwrap();
    assert!(FirewallDrop.is_in_force(&on_first).await.unwrap());

    namespace.run(&Program::new("nft", ["delete", "table", "inet", "riposte"])).await;
    let foreign =
        "add table inet riposte\nadd set inet riposte blocked_v4 { type inet_service; }\nadd chain inet riposte input";
    namespace.run(&Program::new("nft", ["-f", "-"]).stdin(foreign)).await;
    FirewallDrop.apply(&on_first).await.unwrap();
    assert!(FirewallDrop.is_in_force(&on_first).await.unwrap(), "a table of another shape is made anew");

    namespace.run(&Program::new("nft", ["flush", "ruleset"])).await;
    FirewallDrop.revert(&on_first).await.unwrap();
    assert!(FirewallDrop.is_lifted(&on_first).await.unwrap(), "nothing is left to revert");
}

#[tokio::test]
async fn every_copy_of_our_rule_is_removed_and_an_administrators_is_not() {
    let namespace = Namespace::new(&["iptables", "ip6tables"]);
    let admins = Program::new("iptables", ["-A", "INPUT", "-s", "203.0.113.7", "-j", "DROP"]);
    namespace.run(&admins).await;
    let undo = serde_json::json!({"backend": "iptables"});
    let (target, transcript) = (target("203.0.113.7"), Mutex::<Transcript>::default());
    let mut attempt = Attempt::new(&namespace.host, &transcript, &target);
    attempt.undo = Some(&undo);
    assert!(!FirewallDrop.is_in_force(&attempt).await.unwrap(), "the administrator's rule is not ours");
    FirewallDrop.apply(&attempt).await.unwrap();
    for _ in 0..3 {
        let comment = ["-I", "INPUT", "-s", "203.0.113.7", "-m", "comment", "--comment", "riposte", "-j", "DROP"];
        namespace.run(&Program::new("iptables", comment)).await;
    }
    FirewallDrop.revert(&attempt).await.unwrap();
    let rules = namespace.run(&Program::new("iptables", ["-S"])).await;
    assert_eq!(rules.matches("203.0.113.7").count(), 1, "{rules}");
}

#[tokio::test]
async fn an_administrators_null_route_outlives_ours() {
    let namespace = Namespace::new(&[]);
    for address in ADDRESSES {
        namespace.run(&Program::new("ip", ["route", "add", "blackhole", address])).await;
        let (target, transcript) = (target(address), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&namespace.host, &transcript, &target);
        let undo = RouteNull.prepare(&attempt).await.unwrap();
        attempt.undo = Some(&undo);
        RouteNull.apply(&attempt).await.unwrap();
        RouteNull.revert(&attempt).await.unwrap();
        assert!(RouteNull.is_lifted(&attempt).await.unwrap());
        assert!(RouteNull.is_in_force(&attempt).await.unwrap(), "{address}: the administrator's is still there");
    }
}
