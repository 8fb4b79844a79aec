//! Alerts a second on one, two and three managers that share a PostgreSQL, and on one with SQLite,
//! in alternating rounds of one run: the ratios count. All managers run all the time; the load goes
//! to some of them. Then how long a command takes from an alert at one manager to an agent of
//! another, and what a change of configuration costs.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use load::alerts::{Alerts, ENFORCED, OBSERVED};
use load::http::{Connection, accepted, request};
use load::postgres::Postgres;
use load::report::{Samples, Table, float, say};
use load::server::Server;
use load::{agents, disk, knob, report};
use riposte_protocol::message::ToAgent;
use serde_json::json;
use tokio::task::JoinSet;

/// Hosts that alerts come from; each has an enrolled agent.
const HOSTS: usize = 100;
/// First address of the alerts of which each has a command.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([11, 0, 0, 0]);

/// One kind of load: a rule, and the share of alerts that carry it, in percent.
struct Cell {
    what: &'static str,
    rule: &'static str,
    percent: usize,
}

const CELLS: [Cell; 2] = [
    Cell { what: "1 per request, 1 % observed", rule: OBSERVED, percent: 1 },
    Cell { what: "1 per request, 5 % enforced", rule: ENFORCED, percent: 5 },
];

fn main() -> anyhow::Result<()> {
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    let (seconds, rounds) = (knob("SECONDS", 2.0)?, knob("ROUNDS", 5_usize)?);
    let connections = knob("CONNECTIONS", 64_usize)?;
    report::begin("nodes")?;
    let dir = disk()?;
    let postgres = Postgres::start(dir.path()).await?;
    let nodes = Server::start_all(dir.path(), &postgres.url(), 3).await?;
    let alone_dir = disk()?;
    let alone = Server::start(alone_dir.path()).await?;
    let enrolled = agents::enrol(&nodes[0].door, &nodes[0].key, 0, HOSTS).await?;
    agents::enrol(&alone.door, &alone.key, 0, HOSTS).await?;
    for server in [&nodes[0], &alone] {
        let mut connection = Connection::open(&server.door).await?;
        for (name, mode, rule) in [("watch", "observe", OBSERVED), ("block", "enforce", ENFORCED)] {
            let policy = json!({"name": name, "mode": mode, "match": [{"rule_ids": [rule]}],
                "respond": {"action": "firewall-drop", "for": "10m"}});
            connection.ask("POST", "/v1/policies", &server.key, &policy).await?;
        }
    }
    let mut alerts = Alerts::new(1);
    let places: [(&str, Vec<&Server>); 4] = [
        ("SQLite, 1 manager", vec![&alone]),
        ("PostgreSQL, 1 manager", nodes[..1].iter().collect()),
        ("PostgreSQL, 2 managers", nodes[..2].iter().collect()),
        ("PostgreSQL, 3 managers", nodes.iter().collect()),
    ];
    let mut table = Table::default();
    for cell in &CELLS {
        let mut figures: [Samples; 4] = Default::default();
        for round in 0..=rounds {
            for ((_, servers), figures) in places.iter().zip(&mut figures) {
                let rate = if figures.len() == 0 { 1500.0 } else { figures.median() };
                let count = rate * if round == 0 { 0.7 } else { seconds };
                let per_second = ingest(&mut alerts, cell, servers, count, connections).await?;
                // The first round warms up.
                if round == 1 {
                    *figures = Samples::default();
                }
                figures.push(per_second);
            }
        }
        let one = figures[1].median();
        let musts = ["", "", "1", "1"];
        for (((name, _), figures), must) in places.iter().zip(&mut figures).zip(musts) {
            table.row(&format!("{}: {name}", cell.what), figures.median(), "alerts/s", None, "", "");
            table.row("  ratio to PostgreSQL, 1 manager", figures.median() / one, "", None, must, "1.2");
            say(&format!("{}: {name}: rounds {}", cell.what, figures.spread()));
        }
    }
    across(&mut alerts, &nodes, enrolled, &mut table).await?;
    changes(&nodes, &mut table).await?;
    table.print();
    Ok(())
}

/// Sends at least `count` alerts to these servers in turn, as fast as they are answered; returns how many a second.
async fn ingest(
    alerts: &mut Alerts,
    cell: &Cell,
    servers: &[&Server],
    count: f64,
    connections: usize,
) -> anyhow::Result<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
    let count = count.ceil() as usize;
    let key = &servers[0].key;
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count.max(connections) {
        let mut body = String::new();
        if alerts.below(100) < cell.percent {
            let host = alerts.below(HOSTS);
            alerts.of(cell.rule, host, None, &mut body);
        } else {
            alerts.any(HOSTS, &mut body);
        }
        requests.push(request("POST", "/v1/alerts", key, "application/json", body.as_bytes()));
    }
    let mut lanes = Vec::with_capacity(connections);
    for lane in 0..connections {
        lanes.push(Connection::open(&servers[lane % servers.len()].door).await?);
    }
    let (requests, next, begun) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut workers = JoinSet::new();
    for mut lane in lanes {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        workers.spawn(async move {
            let mut stored = 0;
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                stored += accepted(&lane.exchange(request).await?);
            }
            anyhow::Ok(stored)
        });
    }
    let mut stored = 0;
    while let Some(worker) = workers.join_next().await {
        stored += worker??;
    }
    anyhow::ensure!(stored == requests.len(), "{} of {} alerts failed", requests.len() - stored, requests.len());
    Ok(float(stored) / begun.elapsed().as_secs_f64())
}

/// From an alert at the first manager to its command at an idle agent of the second.
async fn across(
    alerts: &mut Alerts,
    nodes: &[Server],
    enrolled: Vec<agents::Agent>,
    table: &mut Table,
) -> anyhow::Result<()> {
    let count = knob("LATENCIES", 200_u32)?;
    let mut streams = agents::connect_all(Arc::new(enrolled), &nodes[1].door, 8).await?;
    let mut connection = Connection::open(&nodes[0].door).await?;
    // The first manager knows of the second after its next look.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut latency_ms = Samples::default();
    for number in 0..count {
        let at = usize::try_from(number)? % streams.len();
        let (host, stream) = (streams[at].0, &mut streams[at].1);
        let mut body = String::new();
        alerts.of(ENFORCED, host, Some(Ipv4Addr::from_bits(FIRST_ADDRESS + number)), &mut body);
        let posted = request("POST", "/v1/alerts", &nodes[0].key, "application/json", body.as_bytes());
        let begun = Instant::now();
        anyhow::ensure!(accepted(&connection.exchange(&posted).await?) == 1, "an alert was not accepted");
        // What was queued for the agent by the load before arrives first, once.
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(10), stream.hear()).await??;
            let ToAgent::Commands { commands } = heard else { continue };
            let commands = commands.iter().map(|signed| agents::claims(signed)).collect::<anyhow::Result<Vec<_>>>()?;
            let address = Ipv4Addr::from_bits(FIRST_ADDRESS + number).to_string();
            let is_here = commands.iter().any(|command| command.target.to_string().contains(&address));
            stream.obey(&commands).await?;
            if is_here {
                break;
            }
        }
        latency_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    table.row("alert at one manager -> command at an agent of another, p50", latency_ms.median(), "ms", None, "20", "");
    table.row("  p99", latency_ms.quantile(0.99), "ms", None, "250", "");
    Ok(())
}

/// A change of configuration, in force on all managers when it is answered.
async fn changes(nodes: &[Server], table: &mut Table) -> anyhow::Result<()> {
    let mut connection = Connection::open(&nodes[0].door).await?;
    let mut took_ms = Samples::default();
    for number in 0..100_u32 {
        let entry = json!({"kind": "ip", "value": format!("192.0.2.{number}"), "reason": "a bench"});
        let begun = Instant::now();
        connection.ask("POST", "/v1/protected", &nodes[0].key, &entry).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    table.row("a change, in force on three managers, p50", took_ms.median(), "ms", None, "", "");
    table.row("  p99", took_ms.quantile(0.99), "ms", None, "", "");
    Ok(())
}
