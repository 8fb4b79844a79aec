//! Hostile clients that are slow or send much: what they cost all other clients. Ordinary requests
//! are timed without them and with them, in turns, so that a busy machine is busy for both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use riposte_protocol::identity;
use riposte_protocol::key::SigningKey;
use riposte_protocol::time::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::faults::Database;
use crate::plan::Plan;
use crate::report::percentile;
use crate::world::World;

/// Number of ordinary requests that are timed in a turn.
const REQUESTS: u64 = 400;
/// Number of concurrent requests.
const AT_ONCE: u64 = 4;

/// A kind of hostile client.
#[derive(Clone, Copy, Debug)]
enum Harm {
    HalfABody,
    OneByteASecond,
    TinyFrames,
    HugeFrame,
    SilentSockets,
}

impl Harm {
    const ALL: [Self; 5] =
        [Self::HalfABody, Self::OneByteASecond, Self::TinyFrames, Self::HugeFrame, Self::SilentSockets];

    const fn name(self) -> &'static str {
        match self {
            Self::HalfABody => "500 clients: half a body, then nothing",
            Self::OneByteASecond => "500 clients: one byte a second",
            Self::TinyFrames => "1 agent: a million frames of one heartbeat",
            Self::HugeFrame => "1 agent: frames of 1 GiB, again and again",
            Self::SilentSockets => "5,000 silent sockets",
        }
    }
}

/// What the hostile clients need.
#[derive(Debug)]
struct Site {
    address: std::net::SocketAddr,
    key: String,
    agent: Uuid,
    signing: SigningKey,
}

/// Measures all kinds; returns the table, and whether no ratio exceeds `most`.
///
/// # Errors
/// If the set-up fails.
pub(crate) async fn run(most: f64, rounds: usize, say: &mut dyn FnMut(String)) -> anyhow::Result<bool> {
    let plan = Plan { seed: 1, agents: 1, brief: Duration::from_secs(20), lasting: true };
    let mut world = World::build(Database::Sqlite, 1, &plan).await?;
    let site = Arc::new(site(&world).await?);
    say("| hostile clients | p50 without, ms | with | ratio | p99 without, ms | with | ratio | RSS MiB without | with |".into());
    say("|---|---|---|---|---|---|---|---|---|".into());
    let mut next = 1;
    let mut is_good = true;
    turn(&world, &plan, &mut next).await?;
    for harm in Harm::ALL {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let (mut quiet_mib, mut loud_mib) = (0.0_f64, 0.0_f64);
        for _ in 0..rounds {
            without.extend(turn(&world, &plan, &mut next).await?);
            quiet_mib = quiet_mib.max(rss_mib(&mut world));
            let mut hostile = begin(harm, &site).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            with.extend(turn(&world, &plan, &mut next).await?);
            loud_mib = loud_mib.max(rss_mib(&mut world));
            hostile.shutdown().await;
        }
        without.sort_unstable();
        with.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "microseconds")]
        let at = |values: &[u64], percent| percentile(values, percent) as f64 / 1000.0;
        let (p50, p50_with) = (at(&without, 50), at(&with, 50));
        let (p99, p99_with) = (at(&without, 99), at(&with, 99));
        is_good &= p50_with <= most * p50 && p99_with <= most * p99;
        say(format!(
            "| {} | {p50:.1} | {p50_with:.1} | {:.2} | {p99:.1} | {p99_with:.1} | {:.2} | {quiet_mib:.0} | {loud_mib:.0} |",
            harm.name(),
            p50_with / p50,
            p99_with / p99,
        ));
    }
    Ok(is_good)
}

fn rss_mib(world: &mut World) -> f64 {
    world.manager.process.kib("VmRSS").unwrap_or(0.0) / 1024.0
}

async fn site(world: &World) -> anyhow::Result<Site> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let signing = SigningKey::from_seed(&seed)?;
    let asked = json!({"token": world.api.token(1).await?, "name": "hostile",
        "public_key": signing.verifying_key().text(), "version": "0"});
    let enrolled = world.api.post("/v1/agents/enroll", &asked).await?;
    let agent = enrolled["agent_id"].as_str().context("no agent")?.parse()?;
    Ok(Site { address: world.manager.address, key: world.api.key.clone(), agent, signing })
}

/// Sends ordinary requests, each with one alert; returns how long each took, in microseconds.
async fn turn(world: &World, plan: &Plan, next: &mut u64) -> anyhow::Result<Vec<u64>> {
    let mut clients = JoinSet::new();
    for client in 0..AT_ONCE {
        let (api, plan, first) = (world.api.clone(), plan.clone(), *next + client * REQUESTS / AT_ONCE);
        clients.spawn(async move {
            let mut times = Vec::new();
            for n in first..first + REQUESTS / AT_ONCE {
                let begun = Instant::now();
                api.post("/v1/alerts", &plan.alert(n)).await?;
                times.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
                // At a steady rate: the waiting time is measured, not the throughput.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(times)
        });
    }
    *next += REQUESTS;
    let mut times = Vec::new();
    while let Some(done) = clients.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}

/// Starts the clients; dropping the set ends them.
async fn begin(harm: Harm, site: &Arc<Site>) -> JoinSet<()> {
    let mut hostile = JoinSet::new();
    match harm {
        Harm::HalfABody | Harm::OneByteASecond => {
            for _ in 0..500 {
                let site = Arc::clone(site);
                hostile.spawn(async move {
                    let _ = slow_body(&site, matches!(harm, Harm::OneByteASecond)).await;
                });
            }
        }
        Harm::SilentSockets => {
            let mut sockets = Vec::with_capacity(5000);
            for _ in 0..5000 {
                sockets.extend(TcpStream::connect(site.address).await);
            }
            hostile.spawn(async move {
                std::future::pending::<()>().await;
                drop(sockets);
            });
        }
        Harm::TinyFrames | Harm::HugeFrame => {
            let site = Arc::clone(site);
            hostile.spawn(async move {
                loop {
                    let _ = frames(&site, matches!(harm, Harm::HugeFrame)).await;
                    // Disconnected: it reconnects at once.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    hostile
}

async fn slow_body(site: &Site, drips: bool) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(site.address).await?;
    let head = format!(
        "POST /v1/alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
        site.key
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(&vec![b' '; 50_000]).await?;
    if drips {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            socket.write_all(b" ").await?;
        }
    }
    // Until the manager closes the connection.
    let _ = socket.read(&mut [0; 1024]).await;
    Ok(())
}

/// A stream of an enrolled agent, written by hand: no library sends such frames.
async fn frames(site: &Site, huge: bool) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(site.address).await?;
    let now = Timestamp::from_millis(now_ms());
    let token = identity::issue(&site.signing, site.agent, Uuid::now_v7(), now, identity::MAX_LIFETIME)?;
    let head = format!(
        "GET /v1/agent/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
        riposte_protocol::SUBPROTOCOL
    );
    socket.write_all(head.as_bytes()).await?;
    let _ = socket.read(&mut [0; 4096]).await?;
    let (mut from, mut to) = socket.into_split();
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    to.write_all(&frame(br#"{"type":"hello","cursor":0,"capabilities":[]}"#)).await?;
    if huge {
        let mut head = vec![0x81, 0x80 | 127];
        head.extend((1_u64 << 30).to_be_bytes());
        head.extend([0; 4]);
        to.write_all(&head).await?;
        let block = vec![b' '; 64 * 1024];
        for _ in 0..(1 << 30) / block.len() {
            to.write_all(&block).await?;
        }
        return Ok(());
    }
    let many = frame(br#"{"type":"heartbeat"}"#).repeat(1000);
    for _ in 0..1000 {
        to.write_all(&many).await?;
    }
    Ok(())
}

/// A masked text frame of less than 126 bytes; the mask is zero.
fn frame(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(125);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text].concat()
}
