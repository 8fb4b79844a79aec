//! Pages of the console on a large ledger: time to the whole page, and what many open pages cost that
//! follow a steady stream of events. `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load::agents;
use load::alerts::{Alerts, ENFORCED, OBSERVED};
use load::http::{Connection, Door, accepted, request};
use load::report::{Samples, Table, float, say};
use load::server::Server;
use load::{disk, knob, report};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Agents that each enforced alert acts on.
const AGENTS: usize = 50;
/// Alerts of a request.
const BATCH: usize = 1000;
/// Enforced alerts of a request: each makes [`AGENTS`] effects.
const ENFORCED_BATCH: usize = 100;
/// Times that each page is loaded.
const LOADS: usize = 60;
/// Events a second while pages are open.
const EVENTS_PER_SECOND: u32 = 100;
/// How long the pages are open.
const OPEN: Duration = Duration::from_secs(30);
/// Pauses of a page between two loads, as in `src/console/assets/console.js`.
const PAUSE: Duration = Duration::from_millis(1500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Pages that are measured.
const PAGES: [&str; 6] = ["/", "/?state=pending", "/responses", "/alerts", "/agents", "/waiting"];

fn main() -> anyhow::Result<()> {
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    let (alerts, effects) = (knob("ALERTS", 1_000_000_usize)?, knob("EFFECTS", 100_000_usize)?);
    let consoles = knob("CONSOLES", 200_usize)?;
    report::begin("console")?;
    let dir = disk()?;
    let server = Server::start(dir.path()).await?;
    let cookie = log_in(&server).await?;
    let before = server.resident_bytes()?;
    let mut table = Table::default();
    load_all(&server, &cookie, 3, &mut Table::default()).await?;
    let resident = (server.resident_bytes()? - before) / report::MIB;
    table.row("RSS of the first pages, on an empty ledger", resident, "MiB", None, "3", "");
    fill(&server, alerts, effects).await?;
    load_all(&server, &cookie, LOADS, &mut table).await?;
    let alone = busy(&server, None).await?;
    let with = busy(&server, Some((consoles, cookie))).await?;
    let what = format!("CPU of {consoles} open pages at {EVENTS_PER_SECOND} events/s, of a core");
    table.row(&what, (with - alone) * 100.0, "%", None, "5", "");
    table.row("  the same events without pages", alone * 100.0, "%", None, "", "");
    table.print();
    Ok(())
}

/// A person's session, as the browser's cookie has it.
async fn log_in(server: &Server) -> anyhow::Result<String> {
    let mut connection = Connection::open(&server.door).await?;
    let person = json!({"name": "anna", "role": "analyst", "password": "correct horse battery"});
    connection.ask("POST", "/v1/users", &server.key, &person).await?;
    let login = json!({"username": "anna", "password": "correct horse battery"});
    let tokens = connection.ask("POST", "/v1/auth/token", "", &login).await?;
    Ok(format!("riposte_access={}", tokens["access_token"].as_str().context("no token")?))
}

fn get(path: &str, cookie: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: {cookie}\r\n\r\n").into_bytes()
}

async fn load_all(server: &Server, cookie: &str, loads: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut connection = Connection::open(&server.door).await?;
    for page in PAGES {
        let (mut samples, ask) = (Samples::default(), get(page, cookie));
        for _ in 0..loads {
            let begun = Instant::now();
            let answer = connection.exchange(&ask).await?;
            ensure!(answer.status == 200, "{page}: {}", answer.status);
            samples.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        table.row(&format!("page {page}, p95"), samples.quantile(0.95), "ms", None, "50", "");
    }
    Ok(())
}

/// Fills the ledger over the API.
async fn fill(server: &Server, alerts: usize, effects: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    agents::enrol(&server.door, &server.key, 0, AGENTS).await?;
    let mut connection = Connection::open(&server.door).await?;
    for (name, mode, rule) in [("block", "enforce", ENFORCED), ("watch", "observe", OBSERVED)] {
        let policy = json!({"name": name, "mode": mode, "match": [{"rule_ids": [rule]}],
            "respond": {"action": "log-only", "target": "source.ip", "on": "all", "for": "10h"}});
        connection.ask("POST", "/v1/policies", &server.key, &policy).await?;
    }
    let mut source = Alerts::new(7);
    let enforced = effects / AGENTS;
    for first in (0..enforced).step_by(ENFORCED_BATCH) {
        let mut body = String::new();
        for number in first..enforced.min(first + ENFORCED_BATCH) {
            source.of(
                ENFORCED,
                0,
                Some(std::net::Ipv4Addr::from_bits(0x6440_0000 + u32::try_from(number)?)),
                &mut body,
            );
            body.push('\n');
        }
        post(&mut connection, &server.key, &body).await?;
    }
    for _ in 0..alerts / BATCH {
        let mut body = String::new();
        for _ in 0..BATCH {
            source.any(AGENTS, &mut body);
            body.push('\n');
        }
        post(&mut connection, &server.key, &body).await?;
    }
    say(&format!("{alerts} alerts and {effects} effects stored in {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

async fn post(connection: &mut Connection, key: &str, body: &str) -> anyhow::Result<()> {
    let ask = request("POST", "/v1/alerts", key, "application/x-ndjson", body.as_bytes());
    let answer = connection.exchange(&ask).await?;
    ensure!(accepted(&answer) > 0, "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
    Ok(())
}

/// Returns the share of a core that the server uses under events, with open pages if there are any.
async fn busy(server: &Server, pages: Option<(usize, String)>) -> anyhow::Result<f64> {
    let mut open = JoinSet::new();
    let loaded = Arc::new(AtomicUsize::new(0));
    let count = pages.as_ref().map_or(0, |(count, _)| *count);
    if let Some((count, cookie)) = pages {
        for _ in 0..count {
            open.spawn(page(server.door.clone(), cookie.clone(), Arc::clone(&loaded)));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let (begun, before) = (Instant::now(), server.cpu_seconds()?);
    let mut connection = Connection::open(&server.door).await?;
    let mut source = Alerts::new(u64::try_from(count)? + 11);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVENTS_PER_SECOND);
    while begun.elapsed() < OPEN {
        ticks.tick().await;
        let mut body = String::new();
        source.of(OBSERVED, 1, None, &mut body);
        post(&mut connection, &server.key, &body).await?;
    }
    let share = (server.cpu_seconds()? - before) / begun.elapsed().as_secs_f64();
    if count > 0 {
        let loads = float(loaded.load(Ordering::Relaxed)) / float(count);
        say(&format!("each open page loaded itself {loads:.1} times within {} s", OPEN.as_secs()));
    }
    open.shutdown().await;
    Ok(share)
}

/// An open page: it follows the events and loads itself anew, with the pauses of the console's script.
async fn page(door: Door, cookie: String, loaded: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(door.address).await?;
    let types = "response.*,effect.*,command.*,freeze.*,protected.*";
    stream.write_all(&get(&format!("/console/events?type={types}"), &cookie)).await?;
    let mut connection = Connection::open(&door).await?;
    let (mut pause, mut last, mut buffer) = (PAUSE, Instant::now(), vec![0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the stream of events ended");
        if !buffer[..read].windows(7).any(|part| part == b"changed") {
            continue;
        }
        let quiet = last.elapsed();
        pause = if quiet > 2 * pause { PAUSE } else { pause.mul_f64(1.5).min(LONGEST_PAUSE) };
        // What comes meanwhile waits in the socket, as it waits in the script.
        tokio::time::sleep(pause.saturating_sub(quiet).max(Duration::from_millis(700))).await;
        let answer = connection.exchange(&get("/", &format!("{cookie}\r\nriposte-reloads: 1"))).await?;
        ensure!(answer.status == 200, "the page: {}", answer.status);
        loaded.fetch_add(1, Ordering::Relaxed);
        last = Instant::now();
    }
}
