//! The network actions against the real kernel, each in a network namespace of its own.

mod many;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Value, json};

use super::firewall_drop::FirewallDrop;
use super::route_null::RouteNull;
use super::{Action, Attempt, Host, Transcript};
use crate::platform;
use crate::runner::{Program, Runner};

/// A network namespace that lasts as long as the test.
struct Namespace {
    name: String,
    host: Host,
}

impl Namespace {
    fn new(tools: &[&str]) -> Self {
        Self::with(tools, |name| Runner::with_prefix(["ip", "netns", "exec", name]))
    }

    /// One with the legacy `iptables`, which uses another interface of the kernel.
    fn with_legacy_iptables() -> Self {
        let swap = "mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi && exec \"$@\"";
        Self::with(&["iptables-legacy", "ip6tables-legacy"], |name| {
            Runner::with_prefix(["ip", "netns", "exec", name, "sh", "-c", swap, "sh"])
        })
    }

    fn with(tools: &[&str], runner: impl FnOnce(&str) -> Runner) -> Self {
        assert!(platform::is_root(), "this test needs root: it makes a network namespace");
        for tool in tools.iter().chain(&["ip"]) {
            assert!(Runner::find(tool).is_some(), "this test needs {tool}, which is not installed");
        }
        let name = format!("riposte-test-{}", uuid::Uuid::now_v7().simple());
        let made = std::process::Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(made.status.success(), "no namespace: {}", String::from_utf8_lossy(&made.stderr));
        let host = Host::new(runner(&name), std::path::Path::new("/nonexistent"));
        Self { name, host }
    }

    async fn run(&self, program: &Program) -> String {
        let exit = self.host.runner.run(program).await.unwrap();
        assert!(exit.is_success(), "{}: {}", program.text(), exit.stderr);
        exit.stdout
    }

    /// Adds these addresses to the namespace, so that it can connect to itself from them.
    async fn own(&self, addresses: &[&str]) {
        self.run(&Program::new("ip", ["link", "set", "lo", "up"])).await;
        for address in addresses {
            self.run(&Program::new("ip", ["addr", "add", address, "dev", "lo"])).await;
        }
    }

    /// Whether packets of a connection arrive. A connection of the host to itself comes from the
    /// address that it goes to.
    fn connects(&self, address: &str) -> bool {
        let (address, there) = (format!("{address}:0"), format!("/run/netns/{}", self.name));
        let connect = move || {
            let there = std::fs::File::open(there).unwrap();
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&there), None).unwrap();
            let listener = std::net::TcpListener::bind(address).unwrap();
            let timeout = Duration::from_millis(300);
            std::net::TcpStream::connect_timeout(&listener.local_addr().unwrap(), timeout).is_ok()
        };
        std::thread::spawn(connect).join().unwrap()
    }

    fn order<'a>(&'a self, action: &'a dyn Action, target: &str, undo: Value) -> Order<'a> {
        let target = Target::parse(TargetKind::Ip, target).or_else(|_| Target::parse_network(target)).unwrap();
        Order { host: &self.host, action, target, arguments: vec![], undo: Some(undo), transcript: Mutex::default() }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// One action on one target; each step is an attempt of its own, as in the executor.
struct Order<'a> {
    host: &'a Host,
    action: &'a dyn Action,
    target: Target,
    arguments: Vec<String>,
    undo: Option<Value>,
    transcript: Mutex<Transcript>,
}

impl Order<'_> {
    fn attempt(&self) -> Attempt<'_> {
        let mut attempt = Attempt::new(self.host, &self.transcript, &self.target);
        (attempt.undo, attempt.arguments) = (self.undo.as_ref(), &self.arguments);
        attempt
    }

    async fn apply_for(&self, remaining: Option<Duration>) {
        let mut attempt = self.attempt();
        attempt.remaining = remaining;
        self.action.apply(&attempt).await.unwrap();
        assert!(self.action.is_in_force(&attempt).await.unwrap(), "{} for {remaining:?}", self.target);
    }

    async fn apply(&self) {
        self.apply_for(None).await;
    }

    async fn is_in_force(&self) -> bool {
        self.action.is_in_force(&self.attempt()).await.unwrap()
    }

    async fn is_lifted(&self) -> bool {
        self.action.is_lifted(&self.attempt()).await.unwrap()
    }

    async fn revert(&self) {
        self.action.revert(&self.attempt()).await.unwrap();
        assert!(self.is_lifted().await, "{}", self.target);
    }
}

const ADDRESSES: [&str; 2] = ["203.0.113.7", "2001:db8::7"];
const NETWORKS: [&str; 2] = ["203.0.113.0/24", "2001:db8:7::/48"];

fn nftables() -> Value {
    json!({"backend": "nftables"})
}

fn iptables() -> Value {
    json!({"backend": "iptables"})
}

/// Applies and reverts more than once, and verifies after each.
async fn is_idempotent_both_ways(action: &dyn Action, namespace: &Namespace, undo: Value, arguments: &[&str]) {
    for target in ADDRESSES.into_iter().chain(NETWORKS) {
        let mut order = namespace.order(action, target, undo.clone());
        order.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        assert!(order.is_lifted().await && !order.is_in_force().await, "{target} at first");
        for remaining in [Some(Duration::from_mins(10)), None, Some(Duration::from_millis(5500))] {
            order.apply_for(remaining).await;
            assert!(order.is_in_force().await && !order.is_lifted().await, "{target} for {remaining:?}");
        }
        for _ in 0..2 {
            order.revert().await;
            assert!(!order.is_in_force().await, "{target}");
        }
    }
}

#[tokio::test]
async fn nftables_blocks_and_unblocks_addresses_and_networks_however_often() {
    let namespace = Namespace::new(&["nft"]);
    is_idempotent_both_ways(&FirewallDrop, &namespace, nftables(), &[]).await;
    is_idempotent_both_ways(&FirewallDrop, &namespace, nftables(), &["output"]).await;
}

#[tokio::test]
async fn iptables_blocks_and_unblocks_addresses_and_networks_however_often() {
    for namespace in [Namespace::new(&["iptables", "ip6tables"]), Namespace::with_legacy_iptables()] {
        is_idempotent_both_ways(&FirewallDrop, &namespace, iptables(), &[]).await;
        is_idempotent_both_ways(&FirewallDrop, &namespace, iptables(), &["output"]).await;
        let rules = namespace.run(&Program::new("iptables", ["-S"])).await;
        assert!(!rules.contains("203.0.113"), "{rules}");
    }
}

#[tokio::test]
async fn a_null_route_is_made_and_removed_for_addresses_and_networks_however_often() {
    let namespace = Namespace::new(&[]);
    is_idempotent_both_ways(&RouteNull, &namespace, json!({}), &[]).await;
    for target in ADDRESSES.into_iter().chain(NETWORKS) {
        let order = namespace.order(&RouteNull, target, json!({}));
        order.apply().await;
        let first = target.split('/').next().unwrap();
        let inside =
            if target.contains('/') { first.replace("113.0", "113.9").replace("7::", "7::9") } else { first.into() };
        let asked = namespace.host.runner.run(&Program::new("ip", ["route", "get", &inside])).await.unwrap();
        assert!(!asked.is_success() && asked.stderr.contains("Invalid argument"), "a blackhole: {asked:?}");
        order.revert().await;
    }
}

#[tokio::test]
async fn overlapping_blocks_do_not_lift_each_other() {
    let namespace = Namespace::new(&["nft"]);
    for targets in [
        ["203.0.113.7", "203.0.113.0/24", "203.0.0.0/16", "203.0.113.0/25"],
        ["2001:db8:7::7", "2001:db8:7::/64", "2001:db8:7::/48", "2001:db8:7::/127"],
    ] {
        let orders = targets.map(|target| namespace.order(&FirewallDrop, target, nftables()));
        for order in &orders {
            order.apply_for(Some(Duration::from_mins(10))).await;
        }
        for (position, order) in orders.iter().enumerate() {
            assert!(order.is_in_force().await);
            order.revert().await;
            for other in &orders[position + 1..] {
                assert!(other.is_in_force().await, "{} after {}", other.target, order.target);
            }
        }
    }
}

#[tokio::test]
async fn a_blocked_network_is_dropped_and_its_neighbours_are_not() {
    let namespace = Namespace::new(&["nft"]);
    namespace.own(&["203.0.113.7/32", "203.0.114.7/32"]).await;
    let connects = |address: &str| namespace.connects(address);
    assert!(connects("203.0.113.7") && connects("203.0.114.7"));
    let order = namespace.order(&FirewallDrop, "203.0.113.0/24", nftables());
    order.apply().await;
    assert!(!connects("203.0.113.7"), "in the network");
    assert!(connects("203.0.114.7"), "beside it");
    order.revert().await;
    let mut order = namespace.order(&FirewallDrop, "203.0.113.7", nftables());
    order.arguments = vec!["output".into()];
    order.apply().await;
    assert!(!connects("203.0.113.7") && connects("203.0.114.7"));
    order.revert().await;
    assert!(connects("203.0.113.7"));
}

#[tokio::test]
async fn the_kernel_holds_the_new_end_of_a_block_and_none_without_one() {
    let namespace = Namespace::new(&["nft"]);
    let order = namespace.order(&FirewallDrop, ADDRESSES[0], nftables());
    let list = Program::new("nft", ["list", "set", "inet", "riposte", "blocked_v4"]);
    for (remaining, expected) in [(Some(600), "timeout 10m"), (Some(60), "timeout 1m"), (Some(7200), "timeout 2h")] {
        order.apply_for(remaining.map(Duration::from_secs)).await;
        let set = namespace.run(&list).await;
        assert!(set.contains(expected), "{expected}: {set}");
    }
    order.apply().await;
    let set = namespace.run(&list).await;
    assert!(set.contains("203.0.113.7") && !set.contains("expires"), "{set}");
}

#[tokio::test]
async fn field_09_an_end_that_the_kernel_cannot_hold_blocks_all_the_same() {
    let namespace = Namespace::new(&["nft"]);
    namespace.own(&["203.0.113.7/32"]).await;
    let order = namespace.order(&FirewallDrop, "203.0.113.7", nftables());
    let list = Program::new("nft", ["list", "set", "inet", "riposte", "blocked_v4"]);
    let days = |days: u64| Duration::from_hours(24 * days);
    // The kernel refuses the last one: the agent's own timer ends that block.
    for (remaining, held) in [(days(1500), "timeout 1500d"), (days(3650), "timeout 3650d"), (days(300_000), "")] {
        assert!(namespace.connects("203.0.113.7"), "before {remaining:?}");
        order.apply_for(Some(remaining)).await;
        assert!(!namespace.connects("203.0.113.7"), "{remaining:?}");
        let set = namespace.run(&list).await;
        assert!(set.contains(held) && set.contains("timeout ") != held.is_empty(), "{set}");
        order.revert().await;
    }
}

#[tokio::test]
async fn a_look_detects_rules_that_let_packets_through() {
    let namespace = Namespace::new(&["nft"]);
    namespace.own(&["203.0.113.7/32"]).await;
    let order = namespace.order(&FirewallDrop, "203.0.113.7", nftables());
    order.apply().await;
    assert!(!namespace.connects("203.0.113.7"));
    let narrower = "flush chain inet riposte input_v4
        add rule inet riposte input_v4 ip saddr @blocked_v4 udp dport 53 counter drop";
    for change in ["add table inet riposte { flags dormant; }", narrower] {
        namespace.run(&Program::new("nft", ["-f", "-"]).stdin(change)).await;
        assert!(namespace.connects("203.0.113.7"), "{change}");
        assert!(!order.is_in_force().await, "{change}");
        order.apply().await;
        assert!(!namespace.connects("203.0.113.7"), "{change}, repaired");
    }
}

#[tokio::test]
async fn an_iptables_rule_behind_one_that_accepts_is_no_block_and_is_moved_to_the_head() {
    for namespace in [Namespace::new(&["iptables", "ip6tables"]), Namespace::with_legacy_iptables()] {
        namespace.own(&["203.0.113.7/32"]).await;
        let order = namespace.order(&FirewallDrop, "203.0.113.7", iptables());
        order.apply().await;
        assert!(!namespace.connects("203.0.113.7"));
        let insert = |rule: &[&str]| Program::new("iptables", ["-I", "INPUT"]).arguments(rule);
        namespace.run(&insert(&["-s", "198.51.100.0/24", "-j", "ACCEPT"])).await;
        assert!(order.is_in_force().await, "about other addresses");
        namespace.run(&insert(&["-p", "tcp", "-j", "ACCEPT"])).await;
        assert!(namespace.connects("203.0.113.7"));
        assert!(!order.is_in_force().await);
        order.apply().await;
        assert!(!namespace.connects("203.0.113.7") && order.is_in_force().await);
        order.revert().await;
        assert!(namespace.connects("203.0.113.7"));
    }
}

#[tokio::test]
async fn a_null_route_that_another_one_comes_before_is_no_null_route() {
    let namespace = Namespace::new(&[]);
    namespace.run(&Program::new("ip", ["link", "add", "other", "type", "veth"])).await;
    namespace.run(&Program::new("ip", ["link", "set", "other", "up"])).await;
    let order = namespace.order(&RouteNull, ADDRESSES[0], json!({}));
    order.apply().await;
    let route = ["route", "add", ADDRESSES[0], "dev", "other", "table", "100"];
    namespace.run(&Program::new("ip", route)).await;
    assert!(order.is_in_force().await, "a table that nothing asks");
    namespace.run(&Program::new("ip", ["rule", "add", "to", ADDRESSES[0], "lookup", "100"])).await;
    assert!(!order.is_in_force().await);
    let error = RouteNull.apply(&order.attempt()).await.unwrap_err().to_string();
    assert!(error.contains("the kernel prefers another one") && error.contains("dev other"), "{error}");
    order.revert().await;
    // For IPv6 a route with a better metric is enough.
    let order = namespace.order(&RouteNull, ADDRESSES[1], json!({}));
    order.apply().await;
    namespace.run(&Program::new("ip", ["-6", "route", "add", ADDRESSES[1], "dev", "other", "metric", "1"])).await;
    assert!(!order.is_in_force().await);
}

/// A host with stand-ins for these programs of the system.
fn with_stand_ins(namespace: &Namespace, programs: &[(&str, &str)]) -> (Host, tempfile::TempDir) {
    use std::fmt::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mut script = String::new();
    for (name, text) in programs {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let real = Runner::find(name).unwrap().canonicalize().unwrap();
        let _infallible = write!(script, "mount --bind {} {} && ", path.display(), real.display());
    }
    script += "exec \"$@\"";
    let runner = Runner::with_prefix(["ip", "netns", "exec", &namespace.name, "sh", "-c", &script, "sh"]);
    (Host::new(runner, std::path::Path::new("/nonexistent")), folder)
}

#[tokio::test]
async fn an_installed_program_that_does_not_work_is_unavailable_with_a_reason() {
    use super::isolate_host::IsolateHost;
    let namespace = Namespace::new(&["nft", "iptables", "ip6tables"]);
    let works = &namespace.host;
    for action in [&FirewallDrop as &dyn Action, &RouteNull, &IsolateHost] {
        assert_eq!(action.availability(works), Ok(()), "{}", action.name());
    }
    let rules = namespace.run(&Program::new("nft", ["list", "ruleset"])).await;
    assert!(!rules.contains("probe"), "nothing stays: {rules}");
    let broken = "echo 'cache initialization failed: Protocol not supported' >&2; exit 1";
    let (host, _folder) = with_stand_ins(&namespace, &[("nft", broken)]);
    let said = IsolateHost.availability(&host).unwrap_err();
    assert!(said.contains("nft ended with 1: cache initialization failed: Protocol not supported"), "{said}");
    assert_eq!(FirewallDrop.availability(&host), Ok(()), "by iptables");
    let rules = namespace.run(&Program::new("iptables", ["-S"])).await;
    assert!(!rules.contains("probe"), "nothing stays: {rules}");
    let (host, _folder) =
        with_stand_ins(&namespace, &[("nft", broken), ("iptables", "echo no such table >&2; exit 3")]);
    let said = FirewallDrop.availability(&host).unwrap_err();
    assert!(said.contains("iptables ended with 3: no such table"), "{said}");
    let (host, _folder) = with_stand_ins(&namespace, &[("nft", "sleep 1000")]);
    let begun = Instant::now();
    assert!(IsolateHost.availability(&host).unwrap_err().contains("did not end"), "one that hangs");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let routes = namespace.run(&Program::new("ip", ["route", "show", "table", "all"])).await;
    assert!(!routes.contains("192.0.2.113"), "{routes}");
}

#[tokio::test]
async fn a_damaged_table_is_repaired_and_the_addresses_in_it_are_kept() {
    let namespace = Namespace::new(&["nft"]);
    let first = namespace.order(&FirewallDrop, "203.0.113.1", nftables());
    let second = namespace.order(&FirewallDrop, "203.0.113.2", nftables());
    first.apply().await;

    namespace.run(&Program::new("nft", ["flush", "chain", "inet", "riposte", "input_v4"])).await;
    assert!(!first.is_in_force().await, "an address in a set that no rule asks is not blocked");
    second.apply().await;
    assert!(first.is_in_force().await && second.is_in_force().await);

    namespace.run(&Program::new("nft", ["insert", "rule", "inet", "riposte", "input_v4", "accept"])).await;
    assert!(!first.is_in_force().await, "a rule before ours lets everything through");
    first.apply().await;
    assert!(first.is_in_force().await);

    namespace.run(&Program::new("nft", ["delete", "table", "inet", "riposte"])).await;
    let foreign = "add table inet riposte\nadd set inet riposte blocked_v4 { type inet_service; }\nadd chain inet riposte input_v4";
    namespace.run(&Program::new("nft", ["-f", "-"]).stdin(foreign)).await;
    first.apply().await;
    assert!(first.is_in_force().await, "a table of another shape is made anew");

    namespace.run(&Program::new("nft", ["flush", "ruleset"])).await;
    assert!(!first.is_in_force().await);
    first.revert().await;
}

#[tokio::test]
async fn every_copy_of_our_rule_is_removed_and_an_administrators_is_not() {
    let namespace = Namespace::new(&["iptables", "ip6tables"]);
    let admins = Program::new("iptables", ["-A", "INPUT", "-s", "203.0.113.7", "-j", "DROP"]);
    namespace.run(&admins).await;
    let order = namespace.order(&FirewallDrop, "203.0.113.7", iptables());
    assert!(!order.is_in_force().await, "the administrator's rule is not ours");
    order.apply().await;
    for _ in 0..3 {
        let comment = ["-I", "INPUT", "-s", "203.0.113.7", "-m", "comment", "--comment", "riposte", "-j", "DROP"];
        namespace.run(&Program::new("iptables", comment)).await;
    }
    order.revert().await;
    let rules = namespace.run(&Program::new("iptables", ["-S"])).await;
    assert_eq!(rules.matches("203.0.113.7").count(), 1, "{rules}");
}

#[tokio::test]
async fn an_administrators_null_route_outlives_ours() {
    let namespace = Namespace::new(&[]);
    for address in ADDRESSES {
        namespace.run(&Program::new("ip", ["route", "add", "blackhole", address])).await;
        let order = namespace.order(&RouteNull, address, json!({}));
        order.apply().await;
        order.revert().await;
        assert!(order.is_in_force().await, "{address}: the administrator's is still there");
    }
}

/// Wazuh's own program needs 21 s for eight at once.
#[tokio::test]
async fn eight_blocks_at_once_take_less_than_a_second() {
    for (namespace, undo) in
        [(Namespace::new(&["nft"]), nftables()), (Namespace::new(&["iptables", "ip6tables"]), iptables())]
    {
        let targets: Vec<String> = (1..=8).map(|last| format!("198.51.100.{last}")).collect();
        let orders: Vec<_> = targets.iter().map(|to| namespace.order(&FirewallDrop, to, undo.clone())).collect();
        let begun = Instant::now();
        join_all(orders.iter().map(Order::apply)).await;
        let took = begun.elapsed();
        println!("eight blocks at once by {undo}: {took:?}");
        for order in &orders {
            assert!(order.is_in_force().await);
        }
        let begun = Instant::now();
        namespace.order(&FirewallDrop, "198.51.100.9", undo.clone()).apply_for(Some(Duration::from_mins(1))).await;
        println!("one block by {undo}: {:?}", begun.elapsed());
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
