//! How many alerts a second become durable over HTTP, with authentication and policies on, and what
//! that costs the server. Beside it, in alternating rounds: what SQLite alone does with the same
//! rows in the same table, with the same durability and transaction size. `docs/performance.md`
//! says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use load::alerts::{Alerts, ENFORCED, OBSERVED};
use load::http::{Connection, accepted, request};
use load::report::{MIB, Samples, Table, float, say};
use load::server::Server;
use load::{agents, disk, knob, report};
use riposte::store::database::codec::Encoder;
use rusqlite::params;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Hosts that alerts come from; each has an enrolled agent that is offline.
const HOSTS: usize = 100;
/// Policies that match none of the alerts; they fill the index.
const IDLE_POLICIES: usize = 50;
/// What the alerts that are rejected are called.
const REJECTED: &str = "1 per request, rejected";

/// One kind of load.
#[derive(Clone, Copy)]
struct Cell {
    what: &'static str,
    /// Alerts per request, and rows per transaction of the SQLite limit.
    batch: usize,
    connections: usize,
    /// The rule that some alerts carry, and their share in percent.
    rule: &'static str,
    percent: usize,
    /// Rows per transaction of the SQLite limit.
    limit: usize,
    /// Whether it is sent over TLS too.
    has_tls: bool,
    /// Whether every alert is faulty, so that all are rejected.
    is_faulty: bool,
    must: &'static str,
    aim: &'static str,
    cpu: [&'static str; 2],
}

/// Measurements of one cell: one sample a round, and one latency a request.
#[derive(Default)]
struct Figures {
    per_second: Samples,
    limit_per_second: Samples,
    latency_ms: Samples,
    server_cpu: Samples,
    client_cpu: Samples,
    failed: usize,
}

fn cells(connections: usize) -> [Cell; 5] {
    let single = Cell {
        what: "1 per request, 1 % observed",
        batch: 1,
        connections,
        rule: OBSERVED,
        percent: 1,
        limit: connections,
        has_tls: true,
        is_faulty: false,
        must: "10k",
        aim: "15k",
        cpu: ["0.10", "0.05"],
    };
    let enforced = Cell {
        what: "1 per request, 5 % enforced",
        rule: ENFORCED,
        percent: 5,
        has_tls: false,
        must: "",
        aim: "",
        ..single
    };
    let hundred = Cell {
        what: "100 per request, 1 % observed",
        batch: 100,
        connections: 8,
        limit: 100,
        must: "25k",
        aim: "50k",
        cpu: ["0.05", "0.025"],
        ..single
    };
    let thousand = Cell { what: "1000 per request, 1 % observed", batch: 1000, connections: 4, limit: 1000, ..hundred };
    let (must, aim) = ("", "");
    let rejected = Cell { what: REJECTED, percent: 0, has_tls: false, is_faulty: true, must, aim, ..single };
    [single, rejected, enforced, hundred, thousand]
}

fn main() -> anyhow::Result<()> {
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    let (seconds, rounds) = (knob("SECONDS", 2.0)?, knob("ROUNDS", 4_usize)?);
    let only: String = knob("ONLY", String::new())?;
    let cells: Vec<Cell> =
        cells(knob("CONNECTIONS", 64)?).into_iter().filter(|cell| cell.what.starts_with(&only)).collect();
    report::begin("ingest")?;
    let dir = disk()?;
    let server = Server::start(dir.path()).await?;
    prepare(&server).await?;
    let mut alerts = Alerts::new(1);
    let mut limit = Limit::open(&dir.path().join("limit.db"))?;
    let tls_dir = disk()?;
    let tls = Server::start_tls(tls_dir.path()).await?;
    prepare(&tls).await?;
    let (mut figures, mut over_tls): (Vec<Figures>, Vec<Figures>) = cells.iter().map(|_| Default::default()).unzip();
    let mut sent = 0;
    for round in 0..=rounds {
        for ((cell, figures), over_tls) in cells.iter().zip(&mut figures).zip(&mut over_tls) {
            // The first round is short: it warms up, and tells how many alerts the other rounds
            // need.
            let rate = figures.per_second.median().max(2000.0);
            let count = rate * if round == 0 { 0.5 } else { seconds };
            let requests = requests(&mut alerts, cell, &server.key, count);
            sent += requests.len() * cell.batch;
            if round == 1 {
                (*figures, *over_tls) = Default::default();
            }
            load_with(&server, cell, requests, figures).await?;
            if cell.has_tls {
                let requests = self::requests(&mut alerts, cell, &tls.key, count);
                load_with(&tls, cell, requests, over_tls).await?;
            }
            let limit_seconds = if round == 0 { 0.1 } else { seconds / 2.0 };
            figures.limit_per_second.push(limit.round(cell.limit, limit_seconds)?);
        }
    }
    let failed: usize = figures.iter().chain(&over_tls).map(|figures| figures.failed).sum();
    print(&cells, &mut figures);
    print_tls(&cells, &mut figures, &mut over_tls);
    tls.stop()?;
    let resident = server.resident_bytes()? / MIB;
    say(&format!("server after {sent} alerts: RSS {resident:.0} MiB"));
    let database = server.database();
    server.stop()?;
    storage(&database)?;
    limits(&mut limit, seconds)?;
    if failed > 0 {
        anyhow::bail!("{failed} ALERTS FAILED: the figures above are worth nothing");
    }
    say("failed: 0");
    Ok(())
}

/// Creates agents and policies.
async fn prepare(server: &Server) -> anyhow::Result<()> {
    agents::enrol(&server.door, &server.key, 0, HOSTS).await?;
    let mut connection = Connection::open(&server.door).await?;
    let mut policies = vec![
        json!({"name": "watch", "mode": "observe", "match": [{"rule_ids": [OBSERVED]}],
            "respond": {"action": "firewall-drop", "for": "10m"}}),
        json!({"name": "block", "mode": "enforce", "match": [{"rule_ids": [ENFORCED]}],
            "respond": {"action": "firewall-drop", "for": "10m"}}),
    ];
    policies.extend((0..IDLE_POLICIES).map(|number| {
        json!({"name": format!("idle-{number}"), "match": [{"rule_ids": [900_000 + number], "min_level": 5}],
            "respond": {"action": "firewall-drop", "for": "10m"}})
    }));
    for policy in policies {
        connection.ask("POST", "/v1/policies", &server.key, &policy).await?;
    }
    Ok(())
}

/// Builds at least `count` alerts as complete requests beforehand, so that it costs nothing later.
fn requests(alerts: &mut Alerts, cell: &Cell, key: &str, count: f64) -> Vec<Vec<u8>> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
    let requests = (count / float(cell.batch)).ceil() as usize;
    let media_type = if cell.batch == 1 { "application/json" } else { "application/x-ndjson" };
    let mut body = String::new();
    let mut one = || {
        body.clear();
        for _ in 0..cell.batch {
            if alerts.below(100) < cell.percent {
                let host = alerts.below(HOSTS);
                alerts.of(cell.rule, host, None, &mut body);
            } else {
                alerts.any(HOSTS, &mut body);
            }
            body.push('\n');
        }
        if cell.is_faulty {
            // JSON of the same size, but no alert.
            body = body.replacen("\"rule\"", "\"role\"", 1);
        }
        request("POST", "/v1/alerts", key, media_type, body.as_bytes())
    };
    (0..requests.max(cell.connections)).map(|_| one()).collect()
}

/// Sends all `requests` as fast as they are answered.
async fn load_with(server: &Server, cell: &Cell, requests: Vec<Vec<u8>>, figures: &mut Figures) -> anyhow::Result<()> {
    let mut connections = Vec::with_capacity(cell.connections);
    for _ in 0..cell.connections {
        connections.push(Connection::open(&server.door).await?);
    }
    let (requests, next, is_faulty) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)), cell.is_faulty);
    let (server_cpu, client_cpu, begun) = (server.cpu_seconds()?, load::server::cpu_seconds("self")?, Instant::now());
    let mut workers = JoinSet::new();
    for mut connection in connections {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        workers.spawn(async move {
            let (mut latency_ms, mut stored, mut taken) = (Samples::default(), 0, 0);
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let begun = Instant::now();
                taken += 1;
                // A broken connection ends its worker: the request that it had taken counts as
                // failed.
                let Ok(answer) = connection.exchange(request).await else { break };
                latency_ms.push(begun.elapsed().as_secs_f64() * 1e3);
                stored += if is_faulty { usize::from(answer.status == 422) } else { accepted(&answer) };
            }
            (latency_ms, stored, taken)
        });
    }
    let (mut stored, mut taken) = (0, 0);
    while let Some(worker) = workers.join_next().await {
        let (latency_ms, stored_here, taken_here) = worker?;
        figures.latency_ms.extend(latency_ms);
        stored += stored_here;
        taken += taken_here;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let thousands = float(stored.max(1)) / 1000.0;
    figures.per_second.push(float(stored) / elapsed);
    figures.server_cpu.push((server.cpu_seconds()? - server_cpu) / thousands);
    figures.client_cpu.push((load::server::cpu_seconds("self")? - client_cpu) / thousands);
    figures.failed += requests.len().max(taken) * cell.batch - stored;
    Ok(())
}

fn print(cells: &[Cell], figures: &mut [Figures]) {
    let mut table = Table::default();
    for (cell, figures) in cells.iter().zip(figures.iter_mut()) {
        let limit = Some(figures.limit_per_second.median());
        let what = format!("{}, {} connections", cell.what, cell.connections);
        table.row(&what, figures.per_second.median(), "alerts/s", limit, cell.must, cell.aim);
        table.row("  lowest round", figures.per_second.quantile(0.0), "alerts/s", None, "", "");
        table.row("  answered, p50", figures.latency_ms.median(), "ms", None, "", "");
        table.row("  answered, p99", figures.latency_ms.quantile(0.99), "ms", None, "", "");
        let [must, aim] = cell.cpu;
        table.row("  server CPU per 1000 alerts", figures.server_cpu.median(), "s", None, must, aim);
        table.row("  load's CPU per 1000 alerts", figures.client_cpu.median(), "s", None, "", "");
        table.row("  failed", float(figures.failed), "alerts", None, "0", "0");
    }
    let singles = cells.iter().position(|cell| cell.batch == 1 && !cell.is_faulty);
    let rejected = cells.iter().position(|cell| cell.is_faulty);
    if let (Some(singles), Some(rejected)) = (singles, rejected) {
        let accepted = figures[singles].per_second.median();
        let what = "rejected, beside accepted";
        table.row(what, figures[rejected].per_second.median(), "alerts/s", Some(accepted), "1 of the limit", "");
    }
    table.print();
    for (cell, figures) in cells.iter().zip(figures) {
        let (ours, limit) = (figures.per_second.spread(), figures.limit_per_second.spread());
        say(&format!("{}: rounds {ours}, limit {limit}", cell.what));
    }
}

/// Prints what the same load over TLS came to; `limit` is the plain one of this run.
fn print_tls(cells: &[Cell], figures: &mut [Figures], over_tls: &mut [Figures]) {
    let mut table = Table::default();
    for ((cell, plain), tls) in
        cells.iter().zip(&mut *figures).zip(&mut *over_tls).filter(|((cell, _), _)| cell.has_tls)
    {
        let row = |what: &str| format!("{what}, {} connections", cell.connections);
        let plain_rate = Some(plain.per_second.median());
        table.row(&row(cell.what), tls.per_second.median(), "alerts/s", plain_rate, "0.85", "");
        let cpu = [
            ("server", &mut tls.server_cpu, &mut plain.server_cpu),
            ("load's", &mut tls.client_cpu, &mut plain.client_cpu),
        ];
        for (whose, over_tls, over_http) in cpu {
            let what = format!("  {whose} CPU per 1000 alerts");
            table.row(&what, over_tls.median(), "s", Some(over_http.median()), "", "");
        }
        table.row("  failed", float(tls.failed), "alerts", None, "0", "0");
    }
    say("over TLS 1.3, on the same kind of connections; the limit is plain HTTP, and must is of the ratio:");
    table.print();
    for ((cell, plain), tls) in cells.iter().zip(figures).zip(over_tls).filter(|((cell, _), _)| cell.has_tls) {
        say(&format!("{}: rounds {}, plain {}", cell.what, tls.per_second.spread(), plain.per_second.spread()));
    }
}

/// SQLite alone: our table, our durability, one writer.
struct Limit {
    db: rusqlite::Connection,
    alerts: Alerts,
    stored: Vec<Vec<u8>>,
}

impl Limit {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let db = rusqlite::Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        db.execute_batch(include_str!("../migrations/0001_ledger.sql"))?;
        let mut alerts = Alerts::new(2);
        let mut stored = Vec::with_capacity(4096);
        let mut bytes = 0;
        let mut encoder = Encoder::default();
        for _ in 0..stored.capacity() {
            let mut text = String::new();
            alerts.any(HOSTS, &mut text);
            bytes += text.len();
            stored.push(encoder.encode(text.as_bytes()));
        }
        let packed: usize = stored.iter().map(Vec::len).sum();
        let mean = |bytes: usize| bytes / stored.len();
        say(&format!("alerts: {} bytes on average, {} as stored", mean(bytes), mean(packed)));
        Ok(Self { db, alerts, stored })
    }

    /// Returns rows a second in transactions of `rows` each.
    fn round(&mut self, rows: usize, seconds: f64) -> anyhow::Result<f64> {
        let Self { db, alerts, stored } = self;
        let (begun, mut done) = (Instant::now(), 0_u32);
        while begun.elapsed() < Duration::from_secs_f64(seconds) {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            {
                let mut insert = tx.prepare_cached(
                    "INSERT INTO alerts (id, dedupe, pipeline, time, agent_id, rule_id, rule_level, raw)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (dedupe) DO NOTHING",
                )?;
                for _ in 0..rows {
                    let (id, dedupe, raw) = (Uuid::now_v7().to_string(), alerts.bytes(), alerts.below(stored.len()));
                    insert.execute(params![id, dedupe, "wazuh", done, "017", "5710", 5, stored[raw]])?;
                    done += 1;
                }
            }
            tx.commit()?;
        }
        Ok(f64::from(done) / begun.elapsed().as_secs_f64())
    }
}

/// Measures SQLite alone with other transaction sizes, for comparison.
fn limits(limit: &mut Limit, seconds: f64) -> anyhow::Result<()> {
    let mut line = String::from("SQLite alone, rows/s by rows per transaction:");
    for rows in [1, 10, 64, 1000, 4000] {
        let _ = write!(line, "  {rows}: {:.0}", limit.round(rows, seconds / 4.0)?);
    }
    say(&line);
    Ok(())
}

/// Prints where the bytes went, after a checkpoint has moved everything into the one file.
fn storage(database: &Path) -> anyhow::Result<()> {
    let db = rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let alerts: i64 = db.query_row("SELECT COUNT(*) FROM alerts", [], |row| row.get(0))?;
    let mut parts = db.prepare(
        "SELECT m.tbl_name, m.name, SUM(s.pgsize) FROM dbstat AS s JOIN sqlite_master AS m ON m.name = s.name
        GROUP BY m.name ORDER BY 3 DESC LIMIT 6",
    )?;
    let parts =
        parts.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))?;
    let parts = parts.collect::<Result<Vec<_>, _>>().context("where the bytes went")?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let per_alert = |bytes: i64| bytes as f64 / alerts.max(1) as f64;
    let whole: i64 = std::fs::metadata(database)?.len().try_into()?;
    let own: i64 = parts.iter().filter(|(table, _, _)| table == "alerts").map(|(_, _, bytes)| bytes).sum();
    let mut table = Table::default();
    table.row("bytes per alert, raw kept", per_alert(own), "bytes", None, "800", "400");
    table.row("bytes per alert, responses and audit too", per_alert(whole), "bytes", None, "", "");
    table.print();
    let list: Vec<String> = parts.iter().map(|(_, name, bytes)| format!("{name} {:.0}", per_alert(*bytes))).collect();
    say(&format!("of it, by table and index: {}", list.join(", ")));
    Ok(())
}
