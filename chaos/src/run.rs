//! A run: the load starts, faults begin and end by the schedule, then everything is repaired and
//! has to settle. At the end the promises are verified.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::alert_files::Written;
use crate::api::Api;
use crate::clock::now_ms;
use crate::consumer::Consumer;
use crate::endpoint::Endpoint;
use crate::faults::{Database, FaultKind, schedule};
use crate::ledger::Ledger;
use crate::load::Load;
use crate::plan::Plan;
use crate::programs::{Agent, last_lines};
use crate::reader::Reader;
use crate::report::Report;
use crate::shield::Shield;
use crate::verify::{Account, Evidence, Verdict, convergence, judge};
use crate::witness::{self, Witnessed};
use crate::world::World;
use crate::writer::Writer;

/// Time limit for settling: leases of 30 s, pauses of agents up to 30 s, and a backlog.
const REST: Duration = Duration::from_mins(4);
/// Lines of `alerts.json` for each alert that is posted.
const WRITTEN_SHARE: f64 = 0.1;
/// The policies whose responses end by themselves during a run.
const PASSING: [&str; 7] = ["brief", "hot-short", "hot-long", "once", "staged", "turning", "refused"];

/// Options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) database: Database,
    pub(crate) seed: u64,
    /// How long faults are injected.
    pub(crate) lasts: Duration,
    /// Number of managers on the database.
    pub(crate) managers: usize,
    /// Number of agents.
    pub(crate) agents: u64,
    /// Alerts a second.
    pub(crate) rate: f64,
    /// Mean time between two faults.
    pub(crate) gap: Duration,
    /// Duration of a short block.
    pub(crate) brief: Duration,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How often managers that ended are started again: the delay of their unit.
const SUPERVISED_EVERY: Duration = Duration::from_secs(2);

/// Mean time between two rotations of `alerts.json`. The forwarder waits for a second at the end of
/// each file, and looks at all files after it.
fn rotation_pause(lasts: Duration) -> Duration {
    (lasts / 200).clamp(Duration::from_secs(2), Duration::from_secs(30))
}

/// Runs and verifies.
///
/// # Errors
/// If the set-up fails, or the programs do not answer at the end.
pub(crate) async fn run(order: &Order, say: &mut dyn FnMut(String)) -> anyhow::Result<Report> {
    let plan = Plan { seed: order.seed, agents: order.agents, brief: order.brief, lasting: true };
    let mut world = World::build(order.database, order.managers, &plan).await?;
    say(format!("{}: {} agents stream; faults begin", order.database.name(), order.agents));
    let base = format!("http://{}", world.pipeline.address);
    let load = Load::start(plan.clone(), &base, &world.api.key, order.rate)?;
    let files = world.forward(&plan).await?.files();
    let writer = Writer::start(files, order.rate * WRITTEN_SHARE, rotation_pause(order.lasts), order.seed);
    let endpoint = Endpoint::start(&world.api, order.seed).await?;
    let consumer = Consumer::start(&world.api, &base, order.seed).await?;
    let through_network = Api { base, ..world.api.clone() };
    let pause = (order.lasts / 20).clamp(Duration::from_secs(2), Duration::from_mins(1));
    let reader = Reader::start(through_network, load.endless(), pause);
    let shield = Shield::start(world.api.clone(), order.lasts / 2);
    let begun = Instant::now();
    let faults = inject(order, &mut world, &load, say).await?;
    let mut ended = BTreeMap::new();
    tokio::time::sleep(order.lasts.saturating_sub(begun.elapsed())).await;
    let (seconds, acknowledged) = (begun.elapsed(), load.acknowledged());
    say("faults have ended; waiting until everything settles".to_owned());
    for name in world.revive().await? {
        *ended.entry(name).or_default() += 1;
    }
    let mut seen = load.finish(Duration::from_secs(90)).await;
    writer.finish().await?;
    let (written, wrong_forwarding) = forwarded(&world).await?;
    let caught_up = begun.elapsed().saturating_sub(seconds);
    say(format!("the forwarder has caught up after {:.0} s", caught_up.as_secs_f64()));
    let turned = shield.finish().await?;
    let told = endpoint.finish(&world.api).await?;
    let collector = collector_is_missed(&world).await?;
    let mut last = Verdict::of("11. all activity ends, and overload has Retry-After");
    let rest = at_rest(&world, &PASSING).await;
    last.check(rest.is_ok(), || rest.as_ref().err().cloned().unwrap_or_default());
    let quiet_after = begun.elapsed().saturating_sub(seconds).as_secs_f64();
    let listings = reader.finish().await?;
    let wanted = Ledger::effects(&world.api, "?desired=in_force").await?;
    let converged = convergence(&wanted, &accounts(&world, |_| Vec::new())?);
    let followed = consumer.finish(&world.api).await?;

    say(format!("settled after {quiet_after:.0} s; {} effects are in force and are lifted now", wanted.len()));
    let lifted_at_ms = now_ms();
    lift_what_lasts(&world, &mut last).await?;
    let wrong = std::mem::take(&mut seen.wrong);
    last.checked += seen.outcomes.values().map(|count| usize::try_from(*count).unwrap_or(0)).sum::<usize>();
    for what in wrong {
        last.check(false, || what);
    }

    say("reading the ledger".to_owned());
    let ledger = Ledger::read(&world.api).await?;
    let accounts = accounts(&world, |agent| {
        [witness::read(&agent.process.log).0, witness::ran(&agent.home.join("active-response/ran"))].concat()
    })?;
    say("judging".to_owned());
    let evidence = Evidence {
        plan: &plan,
        seen: &seen,
        written: &written,
        wrong_forwarding: &wrong_forwarding,
        ledger: &ledger,
        accounts: &accounts,
        turned,
        wanted: &wanted,
        lifted_at_ms,
    };
    let (mut verdicts, mut counts) = judge(&evidence);
    if verdicts.iter().any(|verdict| verdict.promise.contains("alerts.json") && verdict.broken > 0) {
        say(world.forwarder.iter().map(|forwarder| last_lines(&forwarder.process.said())).collect());
    }
    let not_in_force = wanted.iter().filter(|effect| effect.actual != "in_force").count();
    counts.counts.extend([
        ("effects wanted and known not to be in force".into(), not_in_force),
        ("managers that ended without their database, started again".into(), world.started_again),
        ("listings read to their end".into(), listings.whole),
        ("pages of listings that failed".into(), listings.failed_pages),
    ]);
    verdicts.extend([converged, last, listings.verdict, audit(&world).await?, rotated(&world, &faults).await?]);
    verdicts.extend([healthy(&world)?, sound(&mut world), told, followed, collector]);
    verdicts
        .sort_by_key(|verdict| verdict.promise.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(99));
    seen.latencies_ms.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let reached = acknowledged as f64 / seconds.as_secs_f64();
    Ok(Report {
        database: order.database,
        seed: order.seed,
        seconds: order.lasts.as_secs(),
        agents: order.agents,
        rate: order.rate,
        reached,
        faults,
        not_injected: world.not_injected.clone(),
        outcomes: seen.outcomes,
        latencies_ms: seen.latencies_ms,
        quiet_after,
        ended,
        verdicts,
        counts,
    })
}

/// Lifts what outlives the run, and checks that nothing acts afterwards.
async fn lift_what_lasts(world: &World, last: &mut Verdict) -> anyhow::Result<()> {
    const LASTING: [&str; 2] = ["long", "endless"];
    for policy in LASTING {
        world.api.lift_all(policy).await?;
    }
    let rest = at_rest(world, &[&PASSING[..], &LASTING].concat()).await;
    last.check(rest.is_ok(), || rest.as_ref().err().cloned().unwrap_or_default());
    Ok(())
}

/// Injects the faults of the schedule, each at its time; returns how often each was injected.
async fn inject(
    order: &Order,
    world: &mut World,
    load: &Load,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<BTreeMap<FaultKind, usize>> {
    let mut faults = BTreeMap::new();
    let begun = Instant::now();
    let agents = usize::try_from(order.agents)?;
    let kinds = FaultKind::of(order.database, order.managers);
    for step in schedule(order.seed, &kinds, agents, millis(order.lasts), millis(order.gap)) {
        let at = Duration::from_millis(step.at_ms);
        loop {
            world.supervise()?;
            let left = at.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(SUPERVISED_EVERY)).await;
        }
        let (word, done) = if step.begins {
            ("begins", world.begin(&step.fault).await)
        } else {
            ("ends", world.end(&step.fault).await)
        };
        let seconds = begun.elapsed().as_secs_f64();
        let name = step.fault.kind.name();
        match done {
            Ok(()) => {
                say(format!("{seconds:6.1} s  {word} {name}; {} alerts acknowledged", load.acknowledged()));
                *faults.entry(step.fault.kind).or_default() += usize::from(step.begins);
            }
            Err(error) if step.begins => say(format!("{seconds:6.1} s  could not be injected: {name}: {error:#}")),
            Err(error) => return Err(error.context(format!("{name} could not be ended"))),
        }
    }
    Ok(faults)
}

/// What was written to `alerts.json`, and what is wrong with the forwarder after it had time to catch up.
async fn forwarded(world: &World) -> anyhow::Result<(Written, Vec<String>)> {
    let forwarder = world.forwarder.as_ref().context("no forwarder")?;
    let wrong = forwarder.finish(REST).await;
    let written = forwarder.files().lock().unwrap_or_else(PoisonError::into_inner).written.clone();
    Ok((written, wrong))
}

/// Each agent's own status, and its deeds as `deeds` returns them.
fn accounts(world: &World, deeds: impl Fn(&Agent) -> Vec<Witnessed>) -> anyhow::Result<Vec<Account>> {
    let account = |agent: &Agent| Ok(Account { id: agent.id.clone(), status: agent.status()?, deeds: deeds(agent) });
    world.agents.iter().map(account).collect()
}

/// Waits until everything has settled: no command is open, no response of these policies is active,
/// and no agent has anything to report.
async fn at_rest(world: &World, policies: &[&str]) -> Result<(), String> {
    let deadline = Instant::now() + REST;
    loop {
        let unrest = unrest(world, policies).await.unwrap_or_else(|error| Some(format!("{error:#}")));
        match unrest {
            None => return Ok(()),
            Some(what) if Instant::now() > deadline => {
                return Err(format!("not settled within {} s: {what}", REST.as_secs()));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

async fn unrest(world: &World, policies: &[&str]) -> anyhow::Result<Option<String>> {
    for policy in policies {
        if !world.api.is_empty(&format!("/v1/responses?state=active&policy={policy}")).await? {
            return Ok(Some(format!("responses of {policy} are active")));
        }
    }
    for state in ["queued", "delivered", "acknowledged"] {
        if !world.api.is_empty(&format!("/v1/commands?state={state}")).await? {
            return Ok(Some(format!("commands are {state}")));
        }
    }
    for actual in ["in_force", "drifted"] {
        if !world.api.is_empty(&format!("/v1/effects?desired=absent&actual={actual}")).await? {
            return Ok(Some(format!("effects that must be absent are {actual}")));
        }
    }
    for agent in &world.agents {
        let status = agent.status()?;
        if status["commands_pending"] != 0 || status["results_unsent"] != 0 {
            return Ok(Some(format!(
                "{} has {} commands, {} results",
                agent.name, status["commands_pending"], status["results_unsent"]
            )));
        }
        let now = now_ms();
        let is_over = |held: &serde_json::Value| {
            let until =
                held["until"].as_str().and_then(|until| until.parse::<riposte_protocol::time::Timestamp>().ok());
            until.is_some_and(|until| until.as_millis() <= now)
        };
        if status["effects"].as_array().is_some_and(|held| held.iter().any(is_over)) {
            return Ok(Some(format!("{} holds an effect that has ended", agent.name)));
        }
    }
    Ok(None)
}

async fn audit(world: &World) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::of("12. the audit chain is intact");
    let proof = world.api.audit_proof().await?;
    let broken = proof["intact"] != true;
    verdict.checked = proof["entries"].as_u64().and_then(|entries| usize::try_from(entries).ok()).unwrap_or(0);
    verdict.check(!broken, || proof.to_string());
    Ok(verdict)
}

/// Whether each rotation of the signing key has ended, and no agent has a key that it should have replaced.
async fn rotated(world: &World, faults: &BTreeMap<FaultKind, usize>) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::of("8. keys that rotate under load are replaced, and no agent is left behind");
    // An agent whose disk was full is told again after half a minute.
    let deadline = Instant::now() + REST;
    let mut key = world.api.get("/v1/signing-key").await?;
    while !key["rotation"].is_null() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(500)).await;
        key = world.api.get("/v1/signing-key").await?;
    }
    verdict.check(key["rotation"].is_null(), || format!("the rotation is not over: {key}"));
    verdict.checked += faults.get(&FaultKind::SigningKeyRotated).copied().unwrap_or_default();
    let mut agents = Vec::new();
    world.api.each("/v1/agents", |agent| agents.push(agent.clone())).await?;
    for agent in agents {
        let is_left = !agent["rejecting"].is_null() || !agent["incident"].is_null();
        verdict.check(!is_left, || agent.to_string());
    }
    Ok(verdict)
}

/// Whether the manager's doctor finds the ledger consistent.
fn healthy(world: &World) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::of("the doctor finds nothing in the ledger");
    let findings = world.manager.findings()?;
    verdict.check(findings.is_empty(), || findings.join("; "));
    Ok(verdict)
}

/// Whether the manager says that no collector takes its traces.
async fn collector_is_missed(world: &World) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::of("13. a collector of traces that is not there is said, and costs nothing else");
    let text = world.api.text("/readyz?verbose").await?;
    verdict.check(text.contains("does not take traces"), || text.clone());
    Ok(verdict)
}

/// Whether no program has panicked.
fn sound(world: &mut World) -> Verdict {
    let mut verdict = Verdict::of("no program panics");
    let logs = world.agents.iter().map(|agent| &agent.process.log).chain([&world.manager.process.log]);
    let logs = logs.chain(world.forwarder.iter().map(|forwarder| &forwarder.process.log));
    let logs = logs.chain(world.peers.iter().map(|peer| &peer.manager.process.log));
    for log in logs {
        let (_, wrong) = witness::read(log);
        verdict.check(wrong.is_empty(), || format!("{}: {}", log.display(), wrong.join("; ")));
    }
    verdict
}
