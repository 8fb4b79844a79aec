//! Cost of idle agents: time until all of them stream, memory of each, and CPU time of the server.
//! Also how long one response on all agents takes until the last one has its command, including the
//! commit. The memory of agents on the long poll, and that of streams over TLS, is measured beside it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use load::agents::{self, Agent, Stream, claims};
use load::alerts::{Alerts, EVERYWHERE};
use load::http::{Connection, accepted, request};
use load::report::{MIB, Samples, Table, float, say};
use load::server::Server;
use load::{disk, knob, report};
use riposte_protocol::message::{FromAgent, ToAgent};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Responses for all agents, one after the other.
const FAN_OUTS: usize = 3;
/// How long the last agent may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Seconds between an idle agent's heartbeats: the manager's default.
const HEARTBEAT: u64 = 30;
/// Streams opened at the same time.
const AT_ONCE: usize = 128;
/// Agents that one enrolment token lets in.
const PER_TOKEN: usize = 1000;

fn main() -> anyhow::Result<()> {
    load::make_room(u64::try_from(knob("AGENTS", 10_000_usize)?)? + 2000)?;
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    let count = knob("AGENTS", 10_000_usize)?;
    let (polling, idle) = (knob("POLLING", 1000_usize)?.min(count), knob("SECONDS", 10_u64)?);
    report::begin("connections")?;
    let dir = disk()?;
    let mut table = Table::default();
    let enrolled = Arc::new(enrol(dir.path(), count, &mut table).await?);

    let server = Server::start(dir.path()).await?;
    table.row(
        &format!("start to serving, {count} agents enrolled"),
        server.started_in.as_secs_f64() * 1e3,
        "ms",
        None,
        "",
        "",
    );
    let policy = json!({"name": "everywhere", "match": [{"rule_ids": [EVERYWHERE]}],
        "respond": {"action": "log-only", "target": "source.ip", "on": "all", "for": "10m"}});
    Connection::open(&server.door).await?.ask("POST", "/v1/policies", &server.key, &policy).await?;
    let before = server.resident_bytes()?;
    table.row(&format!("RSS, {count} agents enrolled and away"), before / MIB, "MiB", None, "", "");
    let polls = poll(&server, &enrolled, polling).await?;
    let each = (server.resident_bytes()? - before) / float(polling.max(1)) / 1024.0;
    table.row(&format!("RSS per agent on the long poll, {polling}"), each, "KiB", Some(20.0), "25", "20");
    drop(polls);
    server.stop()?;

    // A fresh process: otherwise memory left over from polls would count as the streams', or hide
    // them.
    let server = Server::start(dir.path()).await?;
    let (before, begun) = (server.resident_bytes()?, Instant::now());
    let streams = agents::connect_all(Arc::clone(&enrolled), &server.door, AT_ONCE).await?;
    table.row(&format!("{count} agents connect"), begun.elapsed().as_secs_f64(), "s", None, "5", "1.5");
    let each = (server.resident_bytes()? - before) / float(count) / 1024.0;
    table.row("RSS per idle stream", each, "KiB", Some(5.0), "10", "8");
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let mut following = JoinSet::new();
    for (index, stream) in streams {
        following.spawn(follow(index, stream, arrivals.clone()));
    }
    drop(arrivals);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = server.cpu_seconds()?;
    tokio::time::sleep(Duration::from_secs(idle)).await;
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let share = (server.cpu_seconds()? - cpu) / idle as f64 * 100.0;
    table.row("CPU while all are idle, heartbeats included", share, "% of a core", None, "", "");

    let (mut last, mut half, mut answered, mut ended) = (Samples::default(), Samples::default(), Samples::default(), 0);
    for round in 0..FAN_OUTS {
        let out = fan_out(&server, round, count - ended, &mut arrived).await?;
        last.push(out.last.as_secs_f64());
        half.push(out.half.as_secs_f64());
        answered.push(out.answered.as_secs_f64());
        ended += out.ended;
        say(&format!(
            "fan-out {round}: answered {:.3} s, half {:.3} s, last {:.3} s, {} of {count} agents, {} streams ended, settled {:.1} s after",
            out.answered.as_secs_f64(),
            out.half.as_secs_f64(),
            out.last.as_secs_f64(),
            out.came,
            out.ended,
            out.settled.as_secs_f64(),
        ));
    }
    table.row("fan-out: answered (committed)", answered.median(), "s", None, "", "");
    table.row("fan-out: half of the agents", half.median(), "s", None, "", "");
    table.row("fan-out: the last agent", last.median(), "s", Some(0.4), "1.5", "0.5");
    table.row("streams that ended in it", float(ended), "", None, "0", "0");
    table.row("RSS after it", server.resident_bytes()? / MIB, "MiB", None, "", "");
    server.stop()?;

    let server = Server::start_tls(dir.path()).await?;
    let (before, begun) = (server.resident_bytes()?, Instant::now());
    let streams = agents::connect_all(Arc::clone(&enrolled), &server.door, AT_ONCE).await?;
    table.row(&format!("{count} agents connect over TLS"), begun.elapsed().as_secs_f64(), "s", None, "", "");
    // What the handshakes needed for a moment is gone by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (server.resident_bytes()? - before) / float(count) / 1024.0;
    table.row("RSS per idle stream over TLS", each, "KiB", None, "16", "");
    drop(streams);
    table.print();
    say("limits: a long poll and a stream of a bare axum server, and a fan-out of the spike (DESIGN 13)");
    if ended > 0 {
        anyhow::bail!("{ended} STREAMS ENDED");
    }
    Ok(())
}

/// Enrols the agents over the API.
async fn enrol(dir: &Path, count: usize, table: &mut Table) -> anyhow::Result<Vec<Agent>> {
    // The first start creates keys and tables; the second start is the usual case.
    Server::start(dir).await?.stop()?;
    let server = Server::start(dir).await?;
    table.row("start to serving, empty ledger", server.started_in.as_secs_f64() * 1e3, "ms", None, "50", "25");
    table.row("RSS, empty ledger", server.resident_bytes()? / MIB, "MiB", None, "20", "16");
    let (begun, mut enrolled) = (Instant::now(), Vec::with_capacity(count));
    for first in (0..count).step_by(PER_TOKEN) {
        enrolled.extend(agents::enrol(&server.door, &server.key, first, PER_TOKEN.min(count - first)).await?);
    }
    say(&format!("{count} agents enrolled in {:.1} s", begun.elapsed().as_secs_f64()));
    server.stop()?;
    Ok(enrolled)
}

/// Starts long polls for the first `count` agents; all of them wait when this returns.
async fn poll(server: &Server, enrolled: &[Agent], count: usize) -> anyhow::Result<JoinSet<()>> {
    let mut polls = JoinSet::new();
    for agent in enrolled.iter().take(count) {
        let body = json!({"cursor": 0, "wait_seconds": 55}).to_string();
        let ask = request("POST", "/v1/agent/poll", &agent.token()?, "application/json", body.as_bytes());
        let mut connection = Connection::open(&server.door).await?;
        polls.spawn(async move {
            let _ = connection.exchange(&ask).await.map(|answer| answer.status);
        });
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    if let Some(ended) = polls.try_join_next() {
        ended?;
        anyhow::bail!("a poll was answered at once");
    }
    Ok(polls)
}

/// What an agent reports to the bench.
enum News {
    Arrived(Instant),
    Settled,
    Ended(String),
}

/// One agent: reports arriving commands, answers them, and sends heartbeats.
async fn follow(index: usize, mut stream: Stream, news: mpsc::UnboundedSender<News>) {
    // Spread over the interval, as the connections of real agents are.
    let offset = Duration::from_millis(u64::try_from(index).unwrap_or(0) * 7919 % (HEARTBEAT * 1000));
    let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + offset, Duration::from_secs(HEARTBEAT));
    loop {
        let outcome = tokio::select! {
            message = stream.hear() => match message {
                Ok(ToAgent::Commands { commands }) => {
                    let _ = news.send(News::Arrived(Instant::now()));
                    match commands.iter().map(|signed| claims(signed)).collect::<anyhow::Result<Vec<_>>>() {
                        Ok(commands) => stream.obey(&commands).await,
                        Err(error) => Err(error),
                    }
                }
                Ok(ToAgent::ResultAck { .. }) => {
                    let _ = news.send(News::Settled);
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            _ = heartbeat.tick() => stream.say(&FromAgent::Heartbeat).await,
        };
        if let Err(error) = outcome {
            let _ = news.send(News::Ended(format!("{error:#}")));
            return;
        }
    }
}

/// The result of one response on all agents.
struct FanOut {
    answered: Duration,
    half: Duration,
    last: Duration,
    /// From the last arrival to the acknowledgement of the last result.
    settled: Duration,
    came: usize,
    ended: usize,
}

/// Posts one alert that acts on every agent. Waits until all have the command and all results are
/// settled.
async fn fan_out(
    server: &Server,
    round: usize,
    count: usize,
    news: &mut mpsc::UnboundedReceiver<News>,
) -> anyhow::Result<FanOut> {
    let mut body = String::new();
    Alerts::new(50 + u64::try_from(round)?).of(EVERYWHERE, 0, None, &mut body);
    let ask = request("POST", "/v1/alerts", &server.key, "application/json", body.as_bytes());
    let mut connection = Connection::open(&server.door).await?;
    let posted = Instant::now();
    let mut posting = JoinSet::new();
    posting.spawn(async move {
        let stored = accepted(&connection.exchange(&ask).await?);
        anyhow::Ok((stored, posted.elapsed()))
    });
    let (mut came, mut settled, mut ended) = (Vec::with_capacity(count), 0, 0);
    let mut end = posted;
    while came.len() + ended < count || settled + ended < count {
        match tokio::time::timeout(PATIENCE, news.recv()).await {
            Ok(Some(News::Arrived(at))) => came.push(at),
            Ok(Some(News::Settled)) => {
                settled += 1;
                end = Instant::now();
            }
            Ok(Some(News::Ended(why))) => {
                if ended == 0 {
                    say(&format!("a stream ended: {why}"));
                }
                ended += 1;
            }
            Ok(None) | Err(_) => break,
        }
    }
    let (stored, answered) = posting.join_next().await.context("no answer")???;
    anyhow::ensure!(stored == 1, "the alert was not accepted");
    came.sort_unstable();
    let at = |index: usize| came.get(index).map_or(PATIENCE, |at| *at - posted);
    let last = came.last().copied().unwrap_or(posted);
    Ok(FanOut {
        answered,
        half: at(count / 2),
        last: if came.len() < count { PATIENCE } else { last - posted },
        settled: end.saturating_duration_since(last),
        came: came.len(),
        ended,
    })
}
