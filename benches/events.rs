//! Cost of followers of the feed: the CPU of the server at a fixed rate of events without a follower
//! and with many, and how long an event takes from the request that made it to the last follower.
//! Every follower must get every event. `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use load::alerts::{Alerts, OBSERVED};
use load::http::{Connection, Door, request};
use load::report::{Samples, Table, begin, float, say};
use load::server::Server;
use load::{disk, knob};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long the last follower may take to get the last event.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    begin("events")?;
    let (followers, rate) = (knob("FOLLOWERS", 200_usize)?, knob("RATE", 100_usize)?);
    let seconds: usize = knob("SECONDS", 20)?;
    let dir = disk()?;
    let server = Server::start(dir.path()).await?;
    let mut connection = Connection::open(&server.door).await?;
    let policy = json!({"name": "watch", "mode": "observe", "match": [{"rule_ids": [OBSERVED]}],
        "respond": {"action": "log-only", "target": "source.ip", "on": "all", "for": "10m"}});
    connection.ask("POST", "/v1/policies", &server.key, &policy).await?;
    let mut alerts = Alerts::new(1);
    let alone = run(&server, &mut connection, &mut alerts, rate, seconds).await?;

    let seen = Arc::new(AtomicUsize::new(0));
    let (mut following, key) = (JoinSet::new(), Arc::<str>::from(server.key.as_str()));
    for _ in 0..followers {
        following.spawn(follow(server.door.clone(), Arc::clone(&key), Arc::clone(&seen)));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = seen.load(Ordering::Relaxed);
    let watched = run(&server, &mut connection, &mut alerts, rate, seconds).await?;
    let expected = followers * rate * seconds;
    let begun = Instant::now();
    while seen.load(Ordering::Relaxed) - before < expected && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let got = seen.load(Ordering::Relaxed) - before;
    // Single events, with a pause in between.
    let mut last_ms = Samples::default();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (from, begun) = (seen.load(Ordering::Relaxed), Instant::now());
        post(&server, &mut connection, &mut alerts).await?;
        while seen.load(Ordering::Relaxed) - from < followers && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        last_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let mut table = Table::default();
    let percent = |cpu: f64| cpu / float(seconds) * 100.0;
    table.row(&format!("CPU at {rate} events/s, no follower"), percent(alone), "% of a core", None, "", "");
    table.row(&format!("CPU at {rate} events/s, {followers} followers"), percent(watched), "% of a core", None, "", "");
    table.row(&format!("  of that for {followers} followers"), percent(watched - alone), "% of a core", None, "5", "");
    table.row("events that did not arrive", float(expected.saturating_sub(got)), "", None, "0", "0");
    table.row("one event, until the last follower has it", last_ms.median(), "ms", None, "", "");
    table.print();
    say(&format!("{got} of {expected} events arrived at {followers} followers"));
    drop(following);
    server.stop()?;
    anyhow::ensure!(got == expected, "{got} OF {expected} EVENTS ARRIVED");
    Ok(())
}

/// Posts `rate` alerts a second, each of which is one event. Returns the CPU seconds of the server.
async fn run(
    server: &Server,
    connection: &mut Connection,
    alerts: &mut Alerts,
    rate: usize,
    seconds: usize,
) -> anyhow::Result<f64> {
    let cpu = server.cpu_seconds()?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate)?);
    for _ in 0..rate * seconds {
        pace.tick().await;
        post(server, connection, alerts).await?;
    }
    Ok(server.cpu_seconds()? - cpu)
}

async fn post(server: &Server, connection: &mut Connection, alerts: &mut Alerts) -> anyhow::Result<()> {
    let mut alert = String::new();
    alerts.of(OBSERVED, 0, None, &mut alert);
    let bytes = alert.trim_end().as_bytes();
    let answer = connection.exchange(&request("POST", "/v1/alerts", &server.key, "application/json", bytes)).await?;
    anyhow::ensure!(answer.status == 202, "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
    Ok(())
}

/// Counts the events of one stream.
async fn follow(door: Door, key: Arc<str>, seen: Arc<AtomicUsize>) -> anyhow::Result<()> {
    // Without an agent the response is spared, which is one event too.
    const MARK: &[u8] = b"\nevent: response.";
    let mut socket = door.enter(TcpStream::connect(door.address).await?).await?;
    let head = request("GET", "/v1/events", &key, "application/json", b"");
    socket.write_all(&head).await?;
    let (mut piece, mut rest) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let count = socket.read(&mut piece).await?;
        anyhow::ensure!(count > 0, "a stream has ended");
        rest.extend_from_slice(&piece[..count]);
        let found = rest.windows(MARK.len()).filter(|window| *window == MARK).count();
        seen.fetch_add(found, Ordering::Relaxed);
        // A mark that is cut in two is found in the next piece, and one that was counted is not.
        let keep = rest.windows(MARK.len()).rposition(|window| window == MARK).map_or(0, |at| at + MARK.len());
        rest.drain(..keep.max(rest.len().saturating_sub(MARK.len() - 1)));
    }
}
