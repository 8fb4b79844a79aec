//! Cost of policies: deciding with few and with many of them, with a hundred CEL conditions; a
//! storm of alerts under a policy with guardrails; a backtest over the stored alerts.
//! `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use load::alerts::{Alerts, ENFORCED};
use load::http::{Connection, accepted, request};
use load::report::{MIB, Samples, Table, float, say};
use load::server::Server;
use load::{agents, disk, knob};
use riposte::domain::action::Catalogue;
use riposte::domain::alert::Alert;
use riposte::domain::fleet::Fleet;
use riposte::domain::formats::{self, AlertMappings};
use riposte::domain::index::{PolicyIndex, VersionedPolicy};
use riposte::domain::policy::Policy;
use riposte::domain::protected::ProtectedSet;
use riposte::engine::decide::{Ages, Circumstances, decide};
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// Alerts that are decided in turn.
const ALERTS: usize = 2000;
/// Hosts that they come from.
const HOSTS: usize = 100;

fn main() -> anyhow::Result<()> {
    load::run(async {
        deciding()?;
        let dir = disk()?;
        let server = Server::start(dir.path()).await?;
        agents::enrol(&server.door, &server.key, 0, HOSTS).await?;
        storm(&server).await?;
        backtest(&server).await?;
        server.stop()
    })
}

/// Returns parsed alerts with their texts.
fn sample() -> anyhow::Result<Vec<(Alert, String)>> {
    let mut alerts = Alerts::new(5);
    let mut sample = Vec::with_capacity(ALERTS);
    for n in 0..ALERTS {
        let mut text = String::new();
        if n % 50 == 0 {
            alerts.of(ENFORCED, n % HOSTS, None, &mut text);
        } else {
            alerts.any(HOSTS, &mut text);
        }
        let alert = formats::parse(&text, &AlertMappings::default(), None);
        sample.push((alert.map_err(|faults| anyhow::anyhow!("an alert of our own: {faults:?}"))?, text));
    }
    Ok(sample)
}

fn compile(documents: impl Iterator<Item = Value>) -> anyhow::Result<PolicyIndex> {
    let policies = documents.map(|document| {
        let policy = Policy::parse(&document, Catalogue::built_in());
        let policy = policy.map_err(|faults| anyhow::anyhow!("a policy of our own: {faults:?}"))?;
        Ok(Arc::new(VersionedPolicy { policy: Arc::new(policy), version: 1 }))
    });
    Ok(PolicyIndex::compile(policies.collect::<anyhow::Result<_>>()?))
}

/// Builds `count` policies of usual kinds. One in twelve alerts fires one of the first ten, for any
/// `count`.
fn plain(count: usize) -> anyhow::Result<PolicyIndex> {
    compile((0..count).map(|n| {
        let selector = match n {
            0 => json!({"rule_ids": [ENFORCED]}),
            1 => json!({"min_level": 12}),
            2 => json!({"rule_groups": ["web_scan"]}),
            n if n % 3 == 0 => json!({"rule_groups": [format!("group-{n}")], "min_level": 3}),
            n => json!({"rule_ids": [1_000_000 + n, 2_000_000 + n]}),
        };
        json!({"name": format!("p-{n}"), "match": [selector], "respond": {"action": "firewall-drop", "for": "10m"}})
    }))
}

/// Returns nanoseconds per alert.
fn time(index: &PolicyIndex, sample: &[(Alert, String)]) -> f64 {
    let (fleet, protected, now) =
        (Fleet::default(), ProtectedSet::default(), Timestamp::from_millis(1_795_514_400_000));
    let actions = Catalogue::built_in();
    let circumstances = Circumstances {
        policies: index,
        actions,
        fleet: &fleet,
        protected: &protected,
        now,
        ages: Ages::NotJudged,
        trace: None,
    };
    let begun = Instant::now();
    for (alert, raw) in sample {
        black_box(decide(Uuid::nil(), alert, raw, circumstances));
    }
    begun.elapsed().as_secs_f64() * 1e9 / float(sample.len())
}

fn deciding() -> anyhow::Result<()> {
    let rounds: usize = knob("ROUNDS", 15)?;
    let sample = sample()?;
    let sizes = [10, 1000, 100_000];
    let mut indexes = Vec::new();
    for size in sizes {
        indexes.push(plain(size)?);
    }
    let shared = |n: usize| {
        let when = format!("source.ip.startsWith(\"198.51.100.{n}\") && rule.level > 2 && agent.name != \"x{n}\"");
        json!({"name": format!("c-{n}"), "match": [{"min_level": 3, "when": when}],
            "respond": {"action": "firewall-drop", "for": "10m"}})
    };
    indexes.push(compile((0..100).map(shared))?);
    let mut figures: Vec<Samples> = indexes.iter().map(|_| Samples::default()).collect();
    for _ in 0..rounds {
        for (index, figures) in indexes.iter().zip(&mut figures) {
            figures.push(time(index, &sample));
        }
    }
    let mut table = Table::default();
    let few = figures[0].median();
    for (size, figures) in sizes.iter().zip(&mut figures) {
        let what = format!("decide, {size} policies");
        table.row(&what, figures.median(), "ns/alert", Some(few), "flat within 2x", "1000");
    }
    table.row("decide, 100 CEL policies of one selector", figures[3].median() / 1000.0, "us/alert", None, "", "");
    table.print();
    Ok(())
}

/// Posts 100,000 alerts of 5,000 sources within one minute of their own time, under a policy with
/// every limit.
async fn storm(server: &Server) -> anyhow::Result<()> {
    let count: usize = knob("STORM", 100_000)?;
    let mut connection = Connection::open(&server.door).await?;
    let limits = json!({"responses": "100/1m", "targets": "80/1h", "agents_per_response": 5, "over_limit": "drop"});
    let policy = json!({"name": "storm", "match": [{"rule_ids": ["5763"]}], "limits": limits,
        "breaker": {"failed": "50%", "undone": "30%"}, "respond": {"action": "firewall-drop", "for": "1h"}});
    connection.ask("POST", "/v1/policies", &server.key, &policy).await?;
    let before = std::fs::metadata(server.database())?.len();
    let (begun, mut stored) = (Instant::now(), 0);
    for from in (0..count).step_by(1000) {
        let mut body = String::new();
        for n in from..(from + 1000).min(count) {
            let (source, millis) = (n * 7919 % 5000, n * 60_000 / count);
            let alert = json!({"timestamp": format!("2026-11-20T10:00:{:02}.{:03}+0000", millis / 1000, millis % 1000),
                "id": format!("storm.{n}"), "rule": {"id": "5763", "level": 10, "groups": ["sshd"]},
                "agent": {"id": "999", "name": load::alerts::host_name(n % HOSTS)}, "manager": {"name": "m"},
                "data": {"srcip": format!("10.{}.{}.1", source / 250, source % 250)}});
            body.push_str(&alert.to_string());
            body.push('\n');
        }
        let post = request("POST", "/v1/alerts", &server.key, "application/x-ndjson", body.as_bytes());
        stored += accepted(&connection.exchange(&post).await?);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    ensure!(stored == count, "{stored} of {count} alerts were accepted");
    let counts = connection.ask("GET", "/v1/policies/storm/counts", &server.key, &Value::Null).await?;
    let acted = counts["responses"]["active"].as_u64().context("no response acted")?;
    let spared = counts["spared"]["over_limit"].as_u64().unwrap_or(0);
    let targets = counts["targets"].as_u64().unwrap_or(u64::MAX);
    ensure!(acted <= 100 && targets <= 80 && acted + spared == count as u64, "the limits did not hold: {counts}");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let grown = (std::fs::metadata(server.database())?.len() - before) as f64;
    let mut table = Table::default();
    table.row("storm under limits and a breaker", float(count) / elapsed, "alerts/s", None, "", "");
    table.row("  responses that acted, on 80 targets at most", float(usize::try_from(acted)?), "", None, "100", "");
    table.row("  spared, each with its reason", float(usize::try_from(spared)?), "", None, "", "");
    table.row("  the store grew by", grown / float(count), "bytes/alert", None, "", "");
    table.print();
    Ok(())
}

/// Runs a draft over all stored alerts.
async fn backtest(server: &Server) -> anyhow::Result<()> {
    let count: usize = knob("STORED", 1_000_000)?;
    let mut connection = Connection::open(&server.door).await?;
    let mut alerts = Alerts::new(9);
    let begun = Instant::now();
    for _ in (0..count).step_by(1000) {
        let mut body = String::new();
        for _ in 0..1000 {
            alerts.any(HOSTS, &mut body);
            body.push('\n');
        }
        let post = request("POST", "/v1/alerts", &server.key, "application/x-ndjson", body.as_bytes());
        ensure!(accepted(&connection.exchange(&post).await?) == 1000, "an alert was not accepted");
    }
    say(&format!("stored {count} alerts in {:.0} s", begun.elapsed().as_secs_f64()));
    let mut table = Table::default();
    let drafts = [
        ("backtest, a rule", json!({"rule_ids": ["5710"]})),
        ("backtest, level and group", json!({"min_level": 5, "rule_groups": ["web", "authentication_failed"]})),
        ("backtest, every alert, CEL", json!({"min_level": 1, "when": "data.srcport > 1024 || rule.level > 3"})),
    ];
    for (what, selector) in drafts {
        let draft = json!({"policy": {"name": "draft", "match": [selector], "limits": {"responses": "60/1m", "targets": "200/1h"},
            "respond": {"action": "firewall-drop", "for": "10m"}}});
        let (resident, begun) = (server.resident_bytes()?, Instant::now());
        let report = connection.ask("POST", "/v1/policies/backtest", &server.key, &draft).await?;
        let elapsed = begun.elapsed().as_secs_f64();
        table.row(what, elapsed, "s", None, "20", "");
        table.row("  memory meanwhile", (server.resident_bytes()? - resident) / MIB, "MiB more", None, "", "");
        say(&format!(
            "{what}: {} scanned, {} matched, {} responses",
            report["alerts_scanned"], report["matched"], report["responses"]
        ));
    }
    table.print();
    Ok(())
}
