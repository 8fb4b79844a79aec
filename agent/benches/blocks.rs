//! The cost of a block: `firewall-drop` from the signed command to the result in the outbox, by the
//! agent's own lanes, with its journal on a real disk. It is compared with the bare program that
//! changes the firewall, and with the action alone, without signature, journal and lanes. It runs
//! in network namespaces that it makes. `docs/performance.md` explains the results.

#[path = "../../benches/load/floor.rs"]
#[expect(dead_code, reason = "each bench uses its part")]
mod floor;
#[path = "../../benches/load/ground.rs"]
mod ground;
#[path = "../../benches/load/report.rs"]
#[expect(dead_code, reason = "each bench uses its part")]
mod report;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ground::{disk, knob};
use report::{Samples, Table, say};
use riposte_agent::actions::{self, Action, Attempt, Host};
use riposte_agent::agent::Agent;
use riposte_agent::clock::Clock;
use riposte_agent::executor;
use riposte_agent::identity::{self, Enrolment, Identity};
use riposte_agent::intake::Intake;
use riposte_agent::journal::{Journal, Record};
use riposte_agent::local_policy::LocalPolicy;
use riposte_agent::platform;
use riposte_agent::runner::Runner;
use riposte_agent::self_protection::SelfProtection;
use riposte_agent::tls::Trust;
use riposte_protocol::command::{Command, ManagerKey, Op};
use riposte_protocol::key::SigningKey;
use riposte_protocol::message::Outcome;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::Value;
use uuid::Uuid;

/// Set in the child that runs in its own namespaces: the firewall to use there.
const INSIDE: &str = "RIPOSTE_BENCH_FIREWALL";
/// How long every block lasts; longer than the benchmark.
const TERM: Duration = Duration::from_mins(30);
/// Commands that arrive together.
const AT_ONCE: [usize; 3] = [8, 64, 1000];
/// Number of blocks that are in force beforehand, in the case that measures it.
const MANY: u32 = 10_000;
const KID: &str = "bench";

fn main() -> anyhow::Result<()> {
    match std::env::var(INSIDE) {
        Ok(firewall) => ground::run(inside(Firewall::named(&firewall)?)),
        Err(_) => {
            let installed: Vec<Firewall> =
                Firewall::ALL.into_iter().filter(|firewall| firewall.is_installed()).collect();
            ensure!(!installed.is_empty(), "neither nft nor iptables is installed: nothing was measured");
            installed.into_iter().try_for_each(outside)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Firewall {
    Nftables,
    Iptables,
}

impl Firewall {
    const ALL: [Self; 2] = [Self::Nftables, Self::Iptables];

    fn program(self) -> &'static str {
        match self {
            Self::Nftables => "nft",
            Self::Iptables => "iptables",
        }
    }

    fn named(name: &str) -> anyhow::Result<Self> {
        Self::ALL.into_iter().find(|firewall| firewall.program() == name).context("no such firewall")
    }

    fn is_installed(self) -> bool {
        let installed = Runner::find(self.program()).is_some();
        if !installed {
            say(&format!("{} is not installed: not measured", self.program()));
        }
        installed
    }

    /// The one program that an administrator would type.
    fn bare(self, op: Op, address: Ipv4Addr) -> Process {
        let mut program = Process::new(self.program());
        match self {
            Self::Nftables => {
                let (verb, timeout) = if op == Op::Apply { ("add", " timeout 1800s") } else { ("delete", "") };
                let element = format!("{{ {address}{timeout} }}");
                program.args([verb, "element", "inet", "bare", "blocked", &element]);
            }
            Self::Iptables => {
                let flag = if op == Op::Apply { "-I" } else { "-D" };
                program.args(["-w", "5", flag, "INPUT", "-s", &address.to_string(), "-j", "DROP"]);
            }
        }
        program.stdin(Stdio::null()).stdout(Stdio::null());
        program
    }
}

/// Runs this program again in a network namespace, so that it cannot change the host's firewall. A
/// lock of its own replaces the one that every iptables shares.
fn outside(firewall: Firewall) -> anyhow::Result<()> {
    ensure!(platform::is_root(), "this bench needs root: it makes network namespaces");
    let mut prepare = String::from("set -e; ip link set lo up; ");
    if firewall == Firewall::Iptables {
        // Nothing else of /run is hidden, and /mnt only briefly: this very program may be there.
        prepare.push_str(
            "mount -t tmpfs tmpfs /mnt; : > /mnt/lock; : >> /run/xtables.lock; mount --bind /mnt/lock /run/xtables.lock; \
             umount -l /mnt; ",
        );
        // The agent uses nft where it is installed.
        let nft = Runner::find("nft").map(|path| format!("mount --bind /dev/null {}; ", path.display()));
        prepare.push_str(&nft.unwrap_or_default());
    }
    prepare.push_str("exec \"$0\"");
    let status = Process::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", &prepare])
        .arg(std::env::current_exe()?)
        .env(INSIDE, firewall.program())
        .status()
        .context("unshare")?;
    ensure!(status.success(), "the bench of {} failed", firewall.program());
    Ok(())
}

async fn inside(firewall: Firewall) -> anyhow::Result<()> {
    report::begin(&format!("blocks by {}", firewall.program()))?;
    let rounds = knob("ROUNDS", 100)?;
    let dir = disk()?;
    let mut flush = floor::flush(dir.path())?;
    say(&format!("a flush: p50 {:.2} ms, p99 {:.2} ms; an order is three", flush.median(), flush.quantile(0.99)));
    if firewall == Firewall::Nftables {
        load("add table inet bare\nadd set inet bare blocked { type ipv4_addr; flags timeout; }\n")?;
    }
    let mut bench = Bench::start(dir.path())?;
    let mut table = Table::default();
    one_by_one(&mut bench, firewall, rounds, &mut table).await?;
    for count in AT_ONCE {
        at_once(&mut bench, firewall, count, &mut table).await?;
    }
    if firewall == Firewall::Nftables {
        beside_many(&mut bench, firewall, rounds, &mut table).await?;
    }
    table.print();
    Ok(())
}

/// The bare program, the whole and the action alone in turn, so that other load slows all three.
async fn one_by_one(bench: &mut Bench, firewall: Firewall, rounds: u32, table: &mut Table) -> anyhow::Result<()> {
    for op in [Op::Apply, Op::Revert] {
        // Each reverts what it applied.
        let (mut bare, mut whole, mut alone) = (Samples::default(), Samples::default(), Samples::default());
        for round in 0..rounds {
            bare.push(millis(finish(firewall.bare(op, address(3 * round)), Instant::now())?));
            whole.push(millis(bench.order(op, &[address(3 * round + 1)]).await?));
            alone.push(millis(bench.act(op, address(3 * round + 2)).await?));
        }
        let op = op.as_str();
        for (what, samples) in [("bare", &mut bare), ("signed to result", &mut whole), ("action alone", &mut alone)] {
            let (min, max) = (samples.quantile(0.0), samples.quantile(1.0));
            let (p50, p99) = (samples.median(), samples.quantile(0.99));
            say(&format!("{op:6}  {what:16}  min {min:.2}  p50 {p50:.2}  p99 {p99:.2}  max {max:.2} ms"));
        }
        let limit = Some(bare.median());
        // Without nft, four more programs are started, and there is no target.
        let must = if op == "apply" && firewall == Firewall::Nftables { "10" } else { "" };
        table.row(&format!("{op}, signed to result"), whole.median(), "ms", limit, must, "");
        table.row(&format!("{op}, action alone"), alone.median(), "ms", limit, "", "");
    }
    Ok(())
}

/// Many commands in one message from the manager, compared with as many bare programs, 64 of them
/// started at once.
async fn at_once(bench: &mut Bench, firewall: Firewall, count: usize, table: &mut Table) -> anyhow::Result<()> {
    for op in [Op::Apply, Op::Revert] {
        let (mut bare, mut whole) = (Samples::default(), Samples::default());
        // A thousand bare programs take minutes.
        for round in 0..if count > 100 { 1 } else { 3 } {
            let first = |way: u32| 100_000 + (2 * round + way) * 1000;
            let addresses = |way| (first(way)..).take(count).map(address).collect::<Vec<_>>();
            let begun = Instant::now();
            // More would wait longer for the lock of iptables than it waits.
            for some in addresses(0).chunks(64) {
                let children: Vec<Child> =
                    some.iter().map(|&to| firewall.bare(op, to).spawn()).collect::<Result<_, _>>()?;
                for mut child in children {
                    ensure!(child.wait()?.success(), "a bare {} failed", firewall.program());
                }
            }
            bare.push(millis(begun.elapsed()));
            whole.push(millis(bench.order(op, &addresses(1)).await?));
        }
        let must = match (firewall, op, count) {
            (Firewall::Nftables, Op::Apply, 64) => "0.5",
            (Firewall::Nftables, Op::Apply, 1000) => "2000 ms",
            _ => "",
        };
        let what = format!("{} at once: {}", count, op.as_str());
        table.row(&what, whole.median(), "ms", Some(bare.median()), must, "");
    }
    Ok(())
}

/// One block more while ten thousand are in force.
async fn beside_many(bench: &mut Bench, firewall: Firewall, rounds: u32, table: &mut Table) -> anyhow::Result<()> {
    for set in ["bare blocked", "riposte blocked_v4"] {
        let elements: Vec<String> = (0..MANY).map(|n| format!("{} timeout 1800s", address(1_000_000 + n))).collect();
        load(&format!("add element inet {set} {{ {} }}\n", elements.join(", ")))?;
    }
    for op in [Op::Apply, Op::Revert] {
        let (mut bare, mut whole) = (Samples::default(), Samples::default());
        for round in 0..rounds.div_ceil(4) {
            bare.push(millis(finish(firewall.bare(op, address(200_000 + 2 * round)), Instant::now())?));
            whole.push(millis(bench.order(op, &[address(200_001 + 2 * round)]).await?));
        }
        let what = format!("{}, beside {MANY} blocks", op.as_str());
        let must = if op == Op::Apply { "1.5" } else { "" };
        table.row(&what, whole.median(), "ms", Some(bare.median()), must, "");
    }
    Ok(())
}

fn load(script: &str) -> anyhow::Result<()> {
    let mut nft = Process::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("nft")?;
    nft.stdin.take().context("no pipe")?.write_all(script.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft did not take what the bench needs");
    Ok(())
}

fn finish(mut program: Process, begun: Instant) -> anyhow::Result<Duration> {
    ensure!(program.status()?.success(), "{program:?} failed");
    Ok(begun.elapsed())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Addresses of networks that no host of this namespace is in.
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 1)) + n)
}

/// A running agent, and the manager's key.
struct Bench {
    agent: Arc<Agent>,
    intake: Intake,
    identity: Identity,
    key: SigningKey,
    seq: u64,
}

impl Bench {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let key = SigningKey::from_seed(&[7; 32])?;
        let public_key = key.verifying_key().text();
        identity::create_key(dir)?;
        let enrolment = Enrolment {
            agent_id: Uuid::from_u128(1),
            name: "bench".into(),
            manager: "http://127.0.0.1:1".into(),
            manager_keys: vec![ManagerKey { kid: KID.into(), public_key }],
            stream_url: "ws://127.0.0.1:1/".into(),
            poll_url: "http://127.0.0.1:1/".into(),
            insecure_http: false,
            key_number: 0,
            recovery_key: None,
            revocations: 0,
        };
        identity::save(dir, &enrolment, &Trust::default())?;
        let journal = Journal::open(&dir.join("journal"))?;
        let host = Host::new(Runner::new(), dir);
        let self_protection = SelfProtection::new(vec![dir.to_owned()]);
        let agent = Agent::new(journal, actions::ALL, Clock::system(), host, LocalPolicy::default(), self_protection);
        let agent = Arc::new(agent);
        executor::start(&agent);
        Ok(Self { agent, intake: Intake::default(), identity: Identity::load(dir)?, key, seq: 0 })
    }

    fn sign(&mut self, op: Op, address: Ipv4Addr) -> anyhow::Result<String> {
        self.seq += 1;
        let now = self.agent.clock.now();
        let command = Command {
            iss: riposte_protocol::MANAGER.into(),
            aud: self.identity.agent_id(),
            jti: Uuid::now_v7(),
            seq: self.seq,
            iat: now.as_secs(),
            exp: now.as_secs() + 3600,
            op,
            effect: Uuid::from_u128(u128::from(u32::from(address)) << 64),
            action: "firewall-drop".into(),
            target: Target::parse(TargetKind::Ip, &address.to_string())?,
            arguments: vec![],
            until: Some(now.plus(TERM)),
            response: Uuid::nil(),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        };
        Ok(command.sign(&self.key, KID)?)
    }

    /// Time from the arrival of these commands, as one message, to the last result in the outbox.
    async fn order(&mut self, op: Op, addresses: &[Ipv4Addr]) -> anyhow::Result<Duration> {
        let orders: Vec<String> = addresses.iter().map(|&to| self.sign(op, to)).collect::<anyhow::Result<_>>()?;
        let begun = Instant::now();
        self.intake.take(&self.agent, &self.identity, &orders);
        while self.agent.read(|state| state.outbox().len()) < orders.len() {
            self.agent.outbox.notified().await;
        }
        let took = begun.elapsed();
        let results = self.agent.read(|state| state.outbox().to_vec());
        if let Some(bad) = results.iter().find(|r| r.outcome != Outcome::Succeeded || r.verified != Some(true)) {
            bail!("an order was not carried out: {bad:?}");
        }
        let ids = results.iter().map(|result| result.command_id).collect();
        self.agent.record([Record::Acknowledged { ids }])?;
        Ok(took)
    }

    /// The action and its verification, without an agent around them.
    async fn act(&self, op: Op, address: Ipv4Addr) -> anyhow::Result<Duration> {
        let action: &dyn Action = actions::find(actions::ALL, "firewall-drop").context("no firewall-drop")?;
        let target = Target::parse(TargetKind::Ip, &address.to_string())?;
        let (transcript, undo) = (Mutex::default(), Value::Null);
        let mut attempt = Attempt::new(&self.agent.host, &transcript, &target);
        (attempt.remaining, attempt.undo) = (Some(TERM), Some(&undo));
        let begun = Instant::now();
        let shows = match op {
            Op::Apply => {
                action.apply(&attempt).await?;
                action.is_in_force(&attempt).await?
            }
            Op::Revert => {
                action.revert(&attempt).await?;
                action.is_lifted(&attempt).await?
            }
        };
        ensure!(shows, "{} of {address} does not show", op.as_str());
        Ok(begun.elapsed())
    }
}
