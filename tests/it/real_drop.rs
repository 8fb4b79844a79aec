//! Real packets between two network namespaces. They flow, an alert arrives, and they are dropped.
//! They flow again when the block ends, whichever program is killed in between.
//!
//! Each test creates its namespaces and runs itself once more inside one of them, the `host`. There
//! the manager, the agent and the test talk over the namespace's own loopback interface. Only the
//! `attacker` at the other end of a veth pair is reachable. The attacker has two addresses of each
//! family; the host's address that a connection goes to decides which one it comes from.

mod published;

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::processes::{Agent, Api, Manager, PATIENCE, alert, eventually, now, random_below, require, text};

/// Set inside the namespace; holds the names of the namespaces.
const INSIDE: &str = "NETNS_OF_THIS_TEST";
/// How late a block may be lifted.
const LATE: Duration = Duration::from_secs(2);
/// How long a packet may take, in seconds, before it counts as dropped.
const PACKET_SECS: &str = "0.4";

/// A source of packets, and the host's address that it can reach.
#[derive(Clone, Copy, Debug)]
struct Source {
    address: &'static str,
    host: &'static str,
}

const V4: Source = Source { address: "203.0.113.66", host: "203.0.113.1" };
const V4_OTHER: Source = Source { address: "203.0.113.77", host: "203.0.113.2" };
const V6: Source = Source { address: "2001:db8::66", host: "2001:db8::1" };
const V6_OTHER: Source = Source { address: "2001:db8::77", host: "2001:db8::2" };
const SOURCES: [Source; 4] = [V4, V4_OTHER, V6, V6_OTHER];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firewall {
    Nftables,
    /// `nft` is hidden.
    Iptables,
    /// The same, and adding a rule takes a second.
    SlowIptables,
}

fn run(command: &str) -> Output {
    Command::new("sh").args(["-c", command]).output().unwrap()
}

fn must_run(command: &str) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The two namespaces; removed with everything in them on drop.
struct Namespaces {
    host: String,
    attacker: String,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.host, &self.attacker] {
            let removed = run(&format!("ip netns del {name}"));
            if !removed.status.success() {
                eprintln!("cannot remove the namespace {name}: {}", String::from_utf8_lossy(&removed.stderr));
            }
        }
    }
}

impl Namespaces {
    fn make() -> Self {
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        assert!(is_root, "this test makes network namespaces and needs root: run it as root, or by `sudo -E`");
        require(&[
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("iptables", "iptables"),
            ("ip6tables", "iptables"),
            ("bash", "bash"),
            ("timeout", "coreutils"),
            ("mount", "mount"),
        ]);
        let unique = format!("{}-{:04x}", std::process::id(), random_below(0x10000));
        let this = Self { host: format!("riposte-host-{unique}"), attacker: format!("riposte-attacker-{unique}") };
        let (host, attacker) = (&this.host, &this.attacker);
        let mut script = format!(
            "set -e
            ip netns add {host}
            ip netns add {attacker}
            ip -n {host} link add eth0 type veth peer name eth0 netns {attacker}\n"
        );
        for namespace in [host, attacker] {
            write!(script, "ip -n {namespace} link set lo up\nip -n {namespace} link set eth0 up\n").unwrap();
        }
        for Source { address, host: at } in SOURCES {
            let (length, alone) = if at.contains(':') { ("64 nodad", "128") } else { ("24", "32") };
            writeln!(script, "ip -n {host} address add {at}/{length} dev eth0").unwrap();
            writeln!(script, "ip -n {attacker} address add {address}/{length} dev eth0").unwrap();
            writeln!(script, "ip -n {attacker} route add {at}/{alone} dev eth0 src {address}").unwrap();
        }
        must_run(&script);
        this
    }

    /// Runs the test `name` once more, inside the host.
    fn enter(&self, name: &str, firewall: Firewall) {
        // Only in the mount namespace that `ip netns exec` makes.
        let hide = r"for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
            [ -f $d/nft ] && mount --bind /dev/null $d/nft; done; ";
        let slow = r#"real=$(readlink -f "$(command -v iptables)"); cp -L "$real" "$SCRATCH/real"
            printf '#!/bin/sh\ncase "$*" in *" -I "*) sleep 1;; esac\nexec "%s/real" "${0##*/}" "$@"\n' "$SCRATCH" > "$SCRATCH/slow"
            chmod +x "$SCRATCH/slow"; mount --bind "$SCRATCH/slow" "$real"; "#;
        let prepare = match firewall {
            Firewall::Nftables => String::new(),
            Firewall::Iptables => hide.to_owned(),
            Firewall::SlowIptables => format!("{hide}{slow}"),
        };
        let scratch = tempfile::TempDir::new().unwrap();
        let inside = Command::new("setpriv")
            .args(["--pdeathsig", "SIGKILL", "--", "ip", "netns", "exec", &self.host, "sh", "-c"])
            .arg(format!(r#"{prepare}exec "$0" "$@""#))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("real_drop::{name}"), "--nocapture", "--test-threads", "1"])
            .env(INSIDE, &self.attacker)
            .env("SCRATCH", scratch.path())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
        let passed = inside.status.success() && out.contains("test result: ok. 1 passed");
        assert!(passed, "inside the namespace:\n{out}\n{err}");
    }
}

/// Returns whether packets from `source` reach the host now: whether it can connect.
async fn flows(source: Source, port: u16) -> bool {
    let attacker = std::env::var(INSIDE).unwrap();
    let connecting = tokio::task::spawn_blocking(move || {
        let connect = format!("exec 3<>/dev/tcp/{}/{port}", source.host);
        Command::new("ip")
            .args(["netns", "exec", &attacker, "timeout", PACKET_SECS, "bash", "-c", &connect])
            .output()
            .unwrap()
    });
    let done = connecting.await.unwrap();
    match done.status.code() {
        Some(0) => true,
        Some(124) => false,
        other => panic!("{source:?}: {other:?} {}", String::from_utf8_lossy(&done.stderr)),
    }
}

/// The programs, and a port of the host to connect to.
struct Scene {
    manager: Manager,
    agent: Agent,
    api: Api,
    port: u16,
    _listeners: JoinSet<()>,
}

/// A block, as the ledger shows it.
struct Block {
    source: Source,
    response: String,
    effect: String,
    command: String,
    until: Timestamp,
}

impl Scene {
    async fn start(duration: &str) -> Self {
        let v4 = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        let mut listeners = JoinSet::new();
        listeners.spawn(take_connections(v4));
        // `[::]` alone would bind v4 too, and conflict.
        let v6: Vec<_> = [V6.host, V6_OTHER.host].iter().map(|host| format!("[{host}]:{port}")).collect();
        for address in v6 {
            listeners.spawn(take_connections(TcpListener::bind(address).await.unwrap()));
        }
        let manager = Manager::start().await;
        let api = manager.api();
        api.make_policy("firewall-drop", duration).await;
        let agent = Agent::start(&manager, "web-01").await;
        let scene = Self { manager, agent, api, port, _listeners: listeners };
        for source in SOURCES {
            assert!(scene.flows(source).await, "no packet came from {source:?} before anything was blocked");
        }
        scene
    }

    async fn flows(&self, source: Source) -> bool {
        flows(source, self.port).await
    }

    /// Posts the alert and waits for the verified result; from then on no packet of the source
    /// arrives.
    async fn block(&self, number: u64, source: Source) -> Block {
        let (response, command) = self.api.answer_to(&alert(number, source.address, "web-01")).await;
        let until = text(&command, "until").parse().unwrap();
        let command = self.api.command_is(text(&command, "id"), "succeeded").await;
        assert_eq!(command["result"]["verified"], true, "{command}");
        assert!(!self.flows(source).await, "{source:?} still gets through; the agent said {command}");
        let (effect, command) = (text(&command, "effect_id").into(), text(&command, "id").into());
        let block = Block { source, response, effect, command, until };
        self.effect_is(&block, "in_force", "in_force").await;
        block
    }

    async fn effect_is(&self, block: &Block, desired: &str, actual: &str) {
        eventually(&format!("the effect is {desired}/{actual}"), PATIENCE, async || {
            let effect = self.api.get(&format!("/v1/effects/{}", block.effect)).await;
            (effect["desired"] == desired && effect["actual"] == actual).then_some(())
        })
        .await;
    }

    /// No packet arrives until just before the end, and all arrive within [`LATE`] after it.
    async fn is_lifted_on_time(&self, block: &Block) {
        let Block { source, until, .. } = *block;
        // An attempt that begins now would end before the block does.
        while now() < until.minus(Duration::from_millis(500)) {
            assert!(!self.flows(source).await, "{source:?} was lifted early, {:?} before its end", until.since(now()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while !self.flows(source).await {
            assert!(now() < until.plus(LATE), "{source:?} is still blocked {:?} after its end", now().since(until));
        }
        assert!(now() >= until.minus(Duration::from_millis(500)), "{source:?} was lifted early");
    }

    /// Waits until the ledger shows the block as lifted.
    async fn ledger_is_settled(&self, block: &Block) {
        self.effect_is(block, "absent", "absent").await;
        let response = eventually("the revert has an answer", PATIENCE, async || {
            let response = self.api.response(&block.response).await;
            let commands = response["commands"].as_array().unwrap();
            let open = |command: &Value| ["queued", "delivered", "acknowledged"].contains(&text(command, "state"));
            (commands.len() == 2 && !commands.iter().any(open)).then_some(response)
        })
        .await;
        assert_eq!(response["state"], "ended", "{response}");
        let commands = response["commands"].as_array().unwrap();
        let states: Vec<_> = commands.iter().map(|command| (text(command, "op"), text(command, "state"))).collect();
        assert_eq!(states, [("revert", "succeeded"), ("apply", "succeeded")], "{response}");
        assert_eq!(text(&commands[1], "id"), block.command);
        let results = response["results"].as_array().unwrap();
        let result = |command: &Value| results.iter().find(|result| result["command_id"] == command["id"]).unwrap();
        assert_eq!(result(&commands[1])["verified"], true, "{response}");
        // An agent that has lifted it by itself answers the revert from its journal, without a look.
        assert_ne!(result(&commands[0])["verified"], false, "{response}");
        let held = self.agent.status()["effects"].to_string();
        assert!(!held.contains(&block.effect), "the agent still holds it: {held}");
        self.api.audit_is_intact().await;
    }
}

async fn take_connections(listener: TcpListener) {
    while let Ok((connection, peer)) = listener.accept().await {
        let local = connection.local_addr().unwrap().ip().to_string();
        let source = SOURCES.into_iter().find(|source| source.host == local).unwrap();
        assert_eq!(peer.ip().to_string(), source.address, "the test's own routes are wrong");
    }
}

/// Returns the firewall's rules of this namespace about an address.
fn firewall_of(source: Source, firewall: Firewall) -> String {
    let tables = if source.address.contains(':') { "ip6tables" } else { "iptables" };
    match firewall {
        Firewall::Nftables => must_run("nft list table inet riposte"),
        Firewall::Iptables | Firewall::SlowIptables => must_run(&format!("{tables} -S INPUT; {tables} -S FORWARD")),
    }
}

/// Creates the namespaces and runs the test inside; returns whether this is the inside.
fn is_inside(name: &str, firewall: Firewall) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    Namespaces::make().enter(name, firewall);
    false
}

async fn packets_stop_and_flow_again(firewall: Firewall) {
    let scene = Scene::start("4s").await;
    for (number, source, other) in [(1, V4, V4_OTHER), (2, V6, V6_OTHER)] {
        let block = scene.block(number, source).await;
        assert!(scene.flows(other).await, "{other:?} was blocked with {source:?}");
        assert!(firewall_of(source, firewall).contains(source.address));
        scene.is_lifted_on_time(&block).await;
        scene.ledger_is_settled(&block).await;
        assert!(!firewall_of(source, firewall).contains(source.address), "something was left behind");
    }
}

#[tokio::test]
async fn packets_from_a_reported_source_stop_and_flow_again_when_the_time_is_up() {
    if is_inside("packets_from_a_reported_source_stop_and_flow_again_when_the_time_is_up", Firewall::Nftables) {
        packets_stop_and_flow_again(Firewall::Nftables).await;
    }
}

#[tokio::test]
async fn without_nftables_packets_stop_and_flow_again_by_iptables() {
    if is_inside("without_nftables_packets_stop_and_flow_again_by_iptables", Firewall::Iptables) {
        packets_stop_and_flow_again(Firewall::Iptables).await;
    }
}

async fn lifted_by_an_agent_that_was_killed() {
    let mut scene = Scene::start("7s").await;
    let (v4, v6) = (scene.block(1, V4).await, scene.block(2, V6).await);
    scene.agent.kill9();
    assert!(!scene.flows(V4).await && !scene.flows(V6).await, "the agent's death lifted the block");
    scene.agent.run_again();
    scene.agent.has_logged("agent started", 2).await;
    assert!(!scene.flows(V4).await && !scene.flows(V6).await, "the agent's restart lifted the block");
    scene.is_lifted_on_time(&v4).await;
    scene.is_lifted_on_time(&v6).await;
    scene.ledger_is_settled(&v4).await;
    scene.ledger_is_settled(&v6).await;
}

#[tokio::test]
async fn promise_5_a_block_is_lifted_on_time_by_an_agent_that_was_killed_in_between() {
    let name = "promise_5_a_block_is_lifted_on_time_by_an_agent_that_was_killed_in_between";
    if is_inside(name, Firewall::Nftables) {
        lifted_by_an_agent_that_was_killed().await;
    }
}

/// No time-out of the kernel helps here: only the agent's journal does.
#[tokio::test]
async fn promise_5_an_iptables_block_is_lifted_on_time_by_an_agent_that_was_killed_in_between() {
    let name = "promise_5_an_iptables_block_is_lifted_on_time_by_an_agent_that_was_killed_in_between";
    if is_inside(name, Firewall::Iptables) {
        lifted_by_an_agent_that_was_killed().await;
    }
}

async fn lifted_without_the_manager() {
    let mut scene = Scene::start("5s").await;
    let (v4, v6) = (scene.block(1, V4).await, scene.block(2, V6).await);
    scene.manager.kill9();
    scene.is_lifted_on_time(&v4).await;
    scene.is_lifted_on_time(&v6).await;
    scene.manager.start_again().await;
    scene.ledger_is_settled(&v4).await;
    scene.ledger_is_settled(&v6).await;
}

#[tokio::test]
async fn promise_5_a_block_is_lifted_on_time_without_the_manager_which_is_told_later() {
    if is_inside("promise_5_a_block_is_lifted_on_time_without_the_manager_which_is_told_later", Firewall::Nftables) {
        lifted_without_the_manager().await;
    }
}

/// No time-out of the kernel helps here: the agent's timer lifts it alone.
#[tokio::test]
async fn promise_5_an_iptables_block_is_lifted_on_time_without_the_manager() {
    if is_inside("promise_5_an_iptables_block_is_lifted_on_time_without_the_manager", Firewall::Iptables) {
        lifted_without_the_manager().await;
    }
}

#[tokio::test]
async fn promise_5_the_kernel_lifts_a_block_when_every_program_is_dead_and_all_agree_later() {
    let name = "promise_5_the_kernel_lifts_a_block_when_every_program_is_dead_and_all_agree_later";
    if !is_inside(name, Firewall::Nftables) {
        return;
    }
    let mut scene = Scene::start("5s").await;
    let (v4, v6) = (scene.block(1, V4).await, scene.block(2, V6).await);
    scene.manager.kill9();
    scene.agent.kill9();
    scene.is_lifted_on_time(&v4).await;
    scene.is_lifted_on_time(&v6).await;
    scene.agent.run_again();
    scene.manager.start_again().await;
    scene.ledger_is_settled(&v4).await;
    scene.ledger_is_settled(&v6).await;
}

#[tokio::test]
async fn promise_5_an_overdue_iptables_block_is_lifted_as_soon_as_the_agent_is_back() {
    let name = "promise_5_an_overdue_iptables_block_is_lifted_as_soon_as_the_agent_is_back";
    if !is_inside(name, Firewall::Iptables) {
        return;
    }
    let mut scene = Scene::start("3s").await;
    let block = scene.block(1, V4).await;
    scene.agent.kill9();
    eventually("the end has passed", PATIENCE, async || (now() > block.until).then_some(())).await;
    assert!(!scene.flows(V4).await, "no agent was there to lift it");
    let back = now();
    scene.agent.run_again();
    eventually("the overdue block is lifted", LATE, async || scene.flows(V4).await.then_some(())).await;
    assert!(now().since(back) <= LATE);
    scene.ledger_is_settled(&block).await;
}

#[tokio::test]
async fn a_block_that_is_lifted_by_hand_is_lifted_at_once() {
    if !is_inside("a_block_that_is_lifted_by_hand_is_lifted_at_once", Firewall::Nftables) {
        return;
    }
    let scene = Scene::start("1h").await;
    let block = scene.block(1, V4).await;
    let path = format!("/v1/responses/{}/lift", block.response);
    scene.api.post(&path, &serde_json::json!({"reason": "it was a colleague"})).await;
    eventually("packets flow again", LATE, async || scene.flows(V4).await.then_some(())).await;
    scene.ledger_is_settled(&block).await;
}

/// The hardest case: only the agent's journal knows an iptables rule.
#[tokio::test]
async fn promise_5_every_iptables_block_is_lifted_whichever_program_is_killed() {
    let name = "promise_5_every_iptables_block_is_lifted_whichever_program_is_killed";
    if !is_inside(name, Firewall::Iptables) {
        return;
    }
    const KILLS: u64 = 12;
    let mut scene = Scene::start("3s").await;
    let (mut number, mut responses) = (0, Vec::new());
    for kill in 0..KILLS {
        // After a while without the manager it polls first.
        scene.api.agent_is_present(&scene.agent.id).await;
        for _ in 0..4 {
            number += 1;
            let source = if number % 2 == 0 { format!("198.51.100.{number}") } else { format!("2001:db8:1::{number}") };
            let intake = scene.api.post("/v1/alerts", &alert(number, &source, "web-01")).await;
            responses.push(intake["responses"][0].as_str().unwrap().to_owned());
        }
        // In the middle of it: adding a rule takes the agent some milliseconds.
        tokio::time::sleep(Duration::from_micros(random_below(60_000))).await;
        if kill % 3 == 2 {
            scene.manager.start_again().await;
        } else {
            scene.agent.run_again();
        }
    }
    let mut last = now();
    for response in &responses {
        last = last.max(text(&scene.api.response(response).await, "until").parse().unwrap());
    }
    let rules = || must_run("iptables -S; ip6tables -S").matches("--comment riposte").count();
    eventually("the last block is over", PATIENCE, async || (now() > last).then_some(())).await;
    eventually("every rule is gone", LATE, async || (rules() == 0).then_some(())).await;
    eventually("the ledger agrees", 2 * PATIENCE, async || {
        let effects = scene.api.newer_than("/v1/effects", |_| false).await;
        let lifted = |effect: &Value| effect["desired"] == "absent" && effect["actual"] == "absent";
        (effects.len() == responses.len() && effects.iter().all(lifted)).then_some(())
    })
    .await;
    let commands = scene.api.newer_than("/v1/commands", |_| false).await;
    let applied = commands.iter().filter(|command| command["op"] == "apply" && command["state"] == "succeeded").count();
    assert!(applied >= 8, "only {applied} of {} were ever in force: too few to prove anything", responses.len());
    assert_eq!(rules(), 0);
    scene.api.audit_is_intact().await;
    eprintln!("{applied} of {} blocks were in force; the others were cut short", responses.len());
}

/// A program that a killed agent had started lives on and adds its rule later. The manager is gone
/// too, so that its own revert does not hide what the agent forgot.
#[tokio::test]
async fn promise_5_a_rule_that_is_added_after_its_agent_was_killed_is_lifted_too() {
    let name = "promise_5_a_rule_that_is_added_after_its_agent_was_killed_is_lifted_too";
    if !is_inside(name, Firewall::SlowIptables) {
        return;
    }
    let mut scene = Scene::start("4s").await;
    let (_, command) = scene.api.answer_to(&alert(1, V4.address, "web-01")).await;
    let until: Timestamp = text(&command, "until").parse().unwrap();
    let is_adding = || run(r"grep -lsa -e ' *-I' /proc/[0-9]*/cmdline | xargs -r cat").stdout;
    let is_adding = || String::from_utf8_lossy(&is_adding()).replace('\0', " ").contains("-I INPUT -s 203.0.113.66");
    eventually("the agent adds a rule", PATIENCE, async || is_adding().then_some(())).await;
    scene.agent.run_again();
    scene.agent.has_logged("agent started", 2).await;
    scene.manager.kill9();
    eventually("the time is up", PATIENCE, async || (now() > until.plus(LATE)).then_some(())).await;
    let rules = firewall_of(V4, Firewall::SlowIptables);
    assert!(scene.flows(V4).await, "the agent has forgotten this: {rules}");
    assert!(!rules.contains("riposte"), "{rules}");
}
