//! From posting an alert to its command arriving at the agent's stream, commit included. Alerts
//! come at a fixed rate, independent of the answers (an open loop), spread over many agents that
//! acknowledge and answer. Beside it: one flush and one loopback round trip, the lower bound of any
//! design.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use load::agents::{self, Stream, claims};
use load::alerts::{Alerts, ENFORCED};
use load::http::{Connection, accepted, request};
use load::report::{MIB, Samples, Table, float, say};
use load::server::Server;
use load::{disk, floor, knob, report};
use riposte_protocol::message::ToAgent;
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// First address of the alerts: each alert has its own, which identifies the alert at the agent.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([11, 0, 0, 0]);
/// Deadline of a command after the last alert.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the load observes; one thread.
#[derive(Default)]
struct Seen {
    /// When each alert was posted.
    posted: Vec<Option<Instant>>,
    latency_ms: Samples,
    answered_ms: Samples,
    /// How much later than planned alerts were posted.
    late_ms: Samples,
    /// Commands of alerts that had a command already: redeliveries.
    again: usize,
    failed: usize,
    streams_ended: usize,
}

fn main() -> anyhow::Result<()> {
    load::make_room(4096)?;
    load::run(async { LocalSet::new().run_until(bench()).await })
}

async fn bench() -> anyhow::Result<()> {
    let (count, rate, seconds) = (knob("AGENTS", 1000_usize)?, knob("RATE", 1000_usize)?, knob("SECONDS", 10_usize)?);
    let connections = knob("CONNECTIONS", 64_usize)?;
    report::begin("latency")?;
    let dir = disk()?;
    let server = Server::start(dir.path()).await?;
    let begun = Instant::now();
    let enrolled = Arc::new(agents::enrol(&server.door, &server.key, 0, count).await?);
    say(&format!("{count} agents enrolled in {:.1} s", begun.elapsed().as_secs_f64()));
    let policy = json!({"name": "block", "match": [{"rule_ids": [ENFORCED]}],
        "respond": {"action": "firewall-drop", "for": "10m"}});
    Connection::open(&server.door).await?.ask("POST", "/v1/policies", &server.key, &policy).await?;

    let (mut flush, mut ping) = (floor::flush(dir.path())?, floor::ping_pong()?);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut streams = JoinSet::new();
    for (_, stream) in agents::connect_all(enrolled, &server.door, 32).await? {
        streams.spawn_local(follow(stream, Rc::clone(&seen)));
    }
    // A second of the same load warms caches up and is not counted; addresses continue.
    let warm = post(&server, &seen, 0, rate, rate, count, connections).await?;
    *seen.borrow_mut() = Seen { posted: vec![None; warm], ..Seen::default() };
    let cpu = server.cpu_seconds()?;
    let alerts = rate * seconds;
    post(&server, &seen, warm, alerts, rate, count, connections).await?;
    let cpu = server.cpu_seconds()? - cpu;
    let resident = server.resident_bytes()?;
    flush.extend(floor::flush(dir.path())?);
    ping.extend(floor::ping_pong()?);

    let seen = &mut *seen.borrow_mut();
    let lost = alerts - seen.latency_ms.len().min(alerts);
    let mut table = Table::default();
    let floor_ms = flush.median() + ping.median();
    table.row("posted -> command at the agent, p50", seen.latency_ms.median(), "ms", Some(floor_ms), "2", "1");
    let worst_floor = flush.quantile(0.99) + ping.quantile(0.99);
    table.row(
        "posted -> command at the agent, p99",
        seen.latency_ms.quantile(0.99),
        "ms",
        Some(worst_floor),
        "20",
        "8",
    );
    table.row("posted -> command at the agent, max", seen.latency_ms.max(), "ms", None, "", "");
    table.row("posted -> 202, p50", seen.answered_ms.median(), "ms", None, "", "");
    table.row("posted -> 202, p99", seen.answered_ms.quantile(0.99), "ms", None, "", "");
    table.row("posted later than planned, p99", seen.late_ms.quantile(0.99), "ms", None, "", "");
    table.row("one flush (4 KiB), p50", flush.median(), "ms", None, "", "");
    table.row("one loopback round trip, p50", ping.median(), "ms", None, "", "");
    table.row("server CPU per 1000 alerts, results included", cpu / float(alerts) * 1000.0, "s", None, "", "");
    table.row("server RSS", resident / MIB, "MiB", None, "", "");
    table.row("commands sent again", float(seen.again), "", None, "0", "0");
    table.row("failed posts", float(seen.failed), "", None, "0", "0");
    table.row("commands that never came", float(lost), "", None, "0", "0");
    table.row("streams that ended", float(seen.streams_ended), "", None, "0", "0");
    say(&format!("{count} agents, {rate} alerts/s for {seconds} s, {connections} connections"));
    table.print();
    streams.abort_all();
    if seen.failed + lost + seen.streams_ended > 0 {
        anyhow::bail!("SOMETHING WAS LOST: the figures above are worth nothing");
    }
    Ok(())
}

/// Posts `count` alerts at `rate` a second, the first one numbered `first`, and waits until each
/// has its command. Returns the number after the last one.
async fn post(
    server: &Server,
    seen: &Rc<RefCell<Seen>>,
    first: usize,
    count: usize,
    rate: usize,
    hosts: usize,
    connections: usize,
) -> anyhow::Result<usize> {
    let mut alerts = Alerts::new(3 + u64::try_from(first)?);
    let mut requests = Vec::with_capacity(count);
    for number in first..first + count {
        let (mut body, host) = (String::new(), alerts.below(hosts));
        let source = Ipv4Addr::from_bits(FIRST_ADDRESS + u32::try_from(number)?);
        alerts.of(ENFORCED, host, Some(source), &mut body);
        requests.push(request("POST", "/v1/alerts", &server.key, "application/json", body.as_bytes()));
    }
    seen.borrow_mut().posted.resize(first + count, None);
    let requests = Rc::new(requests);
    // Half a second from now, so that every connection is open and waiting by then.
    let start = Instant::now() + Duration::from_millis(500);
    let mut posting = JoinSet::new();
    for lane in 0..connections {
        let (connection, requests) = (Connection::open(&server.door).await?, Rc::clone(&requests));
        posting.spawn_local(post_lane(connection, requests, Rc::clone(seen), first, lane, connections, start, rate));
    }
    while posting.join_next().await.transpose()?.is_some() {}
    let patience = Instant::now() + PATIENCE;
    while seen.borrow().latency_ms.len() < count && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(first + count)
}

/// One connection's share: every `lanes`-th alert, each at its time.
#[expect(clippy::too_many_arguments, reason = "one caller, one loop")]
async fn post_lane(
    mut connection: Connection,
    requests: Rc<Vec<Vec<u8>>>,
    seen: Rc<RefCell<Seen>>,
    first: usize,
    lane: usize,
    lanes: usize,
    start: Instant,
    rate: usize,
) {
    for (number, request) in requests.iter().enumerate().skip(lane).step_by(lanes) {
        let planned = start + Duration::from_secs(1).mul_f64(float(number) / float(rate));
        // The timer's own coarseness (1 ms) belongs to the load and is not counted. A wait for an
        // earlier answer belongs to the server, and counts from the planned time.
        let posted = if Instant::now() > planned {
            planned
        } else {
            tokio::time::sleep_until(planned).await;
            Instant::now()
        };
        {
            let seen = &mut *seen.borrow_mut();
            seen.late_ms.push((Instant::now() - planned).as_secs_f64() * 1e3);
            seen.posted[first + number] = Some(posted);
        }
        let stored = match connection.exchange(request).await {
            Ok(answer) => accepted(&answer),
            Err(_) => 0,
        };
        let seen = &mut *seen.borrow_mut();
        seen.answered_ms.push(posted.elapsed().as_secs_f64() * 1e3);
        seen.failed += 1 - stored.min(1);
    }
}

/// One agent: records the time of every command and answers it.
async fn follow(mut stream: Stream, seen: Rc<RefCell<Seen>>) {
    loop {
        let message = stream.hear().await;
        let now = Instant::now();
        let outcome = match message {
            Ok(ToAgent::Commands { commands }) => match commands.iter().map(|signed| claims(signed)).collect() {
                Ok(commands) => {
                    let commands: Vec<agents::Claims> = commands;
                    arrived(&mut seen.borrow_mut(), &commands, now);
                    stream.obey(&commands).await
                }
                Err(error) => Err(error),
            },
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            let seen = &mut *seen.borrow_mut();
            if seen.streams_ended == 0 {
                say(&format!("a stream ended: {error:#}"));
            }
            seen.streams_ended += 1;
            return;
        }
    }
}

fn arrived(seen: &mut Seen, commands: &[agents::Claims], now: Instant) {
    for command in commands {
        let Some(IpAddr::V4(address)) = command.target.ip() else { continue };
        let number = usize::try_from(address.to_bits().wrapping_sub(FIRST_ADDRESS)).unwrap_or(usize::MAX);
        match seen.posted.get_mut(number).and_then(Option::take) {
            Some(posted) => seen.latency_ms.push((now - posted).as_secs_f64() * 1e3),
            None => seen.again += 1,
        }
    }
}
