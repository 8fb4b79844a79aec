//! Many agents on three managers with one PostgreSQL: what a change of configuration costs with few and with
//! many agents registered, and how soon the agents of a killed manager are served by another one.
//!
//! All agents find out at the same time, and their clients share the cores with managers and database, so it
//! is a harder case than a network would make.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use load::agents::{self, Agent};
use load::http::{Connection, Door};
use load::postgres::Postgres;
use load::report::{MIB, Samples, Table, float, say};
use load::server::Server;
use load::{disk, knob, report};
use serde_json::json;
use tokio::task::JoinSet;

/// Agents that are registered at first.
const FEW: usize = 100;
/// Changes of configuration in each measurement.
const CHANGES: u32 = 50;
/// Streams opened at the same time.
const AT_ONCE: usize = 128;
/// How long an agent tries.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> anyhow::Result<()> {
    load::make_room(u64::try_from(knob("STREAMS", 10_000_usize)?)? + 2000)?;
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    let (registered, streams) = (knob("AGENTS", 50_000_usize)?, knob("STREAMS", 10_000_usize)?);
    report::begin("failover")?;
    let dir = disk()?;
    let postgres = Postgres::start(dir.path()).await?;
    let mut nodes = Server::start_all(dir.path(), &postgres.url(), 3).await?;
    let mut table = Table::default();
    let mut enrolled = agents::enrol(&nodes[0].door, &nodes[0].key, 0, FEW).await?;
    let mut few = changes(&nodes[0], 0).await?;
    let begun = Instant::now();
    enrolled.extend(agents::enrol(&nodes[0].door, &nodes[0].key, FEW, registered - FEW).await?);
    say(&format!("{} agents enrolled over the API in {:.1} s", registered - FEW, begun.elapsed().as_secs_f64()));
    let mut many = changes(&nodes[0], CHANGES).await?;
    table.row(&format!("a change, in force on three managers, {FEW} agents"), few.median(), "ms", None, "", "");
    table.row(&format!("the same, {registered} agents"), many.median(), "ms", None, "", "");
    table.row("  ratio", many.median() / few.median(), "", None, "1.5", "1");
    table.row(&format!("RSS, {registered} agents registered"), nodes[1].resident_bytes()? / MIB, "MiB", None, "", "");

    enrolled.truncate(streams);
    let enrolled = Arc::new(enrolled);
    let begun = Instant::now();
    let connected = agents::connect_all(Arc::clone(&enrolled), &nodes[1].door, AT_ONCE).await?;
    table.row(&format!("{streams} agents connect"), begun.elapsed().as_secs_f64(), "s", None, "", "");
    // What their hellos began is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let killed = Instant::now();
    drop(nodes.remove(1));
    drop(connected);
    let mut served = reconnect(enrolled, &nodes[1].door, killed).await?;
    table.row(
        "a manager is killed: half of its agents are served by another one after",
        served.median(),
        "s",
        None,
        "",
        "",
    );
    table.row("  p99", served.quantile(0.99), "s", None, "5", "");
    table.row("  the last one", served.max(), "s", None, "", "");
    table.print();
    Ok(())
}

/// How long changes of configuration take until they are answered, which is when all managers have them.
async fn changes(node: &Server, first: u32) -> anyhow::Result<Samples> {
    // The managers know of each other after their next look.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut connection = Connection::open(&node.door).await?;
    let mut took_ms = Samples::default();
    for number in first..first + CHANGES {
        let entry = json!({"kind": "ip", "value": format!("192.0.2.{number}"), "reason": "a bench"});
        let begun = Instant::now();
        connection.ask("POST", "/v1/protected", &node.key, &entry).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took_ms)
}

/// Connects all agents anew; returns how many seconds after `begun` each was served.
async fn reconnect(agents: Arc<Vec<Agent>>, door: &Door, begun: Instant) -> anyhow::Result<Samples> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (agents, next, door) = (Arc::clone(&agents), Arc::clone(&next), door.clone());
        workers.spawn(async move {
            let mut streams = Vec::new();
            while let Some(agent) = agents.get(next.fetch_add(1, Ordering::Relaxed)) {
                let connected = tokio::time::timeout(PATIENCE, agent.connect(&door, &agent.token()?)).await;
                streams.push((connected.context("no stream within a minute")??, begun.elapsed().as_secs_f64()));
            }
            anyhow::Ok(streams)
        });
    }
    let (mut served, mut open) = (Samples::default(), Vec::new());
    while let Some(some) = workers.join_next().await {
        for (stream, after) in some?? {
            served.push(after);
            open.push(stream);
        }
    }
    say(&format!("{} agents are served", float(open.len())));
    Ok(served)
}
