//! Cost of a long history: the same work on two managers, one with a young ledger and one with many
//! past effects. Rounds alternate between the two, so that the ratio holds on a busy machine.
//! `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load::agents::{self, Agent, Stream, claims};
use load::alerts::{Alerts, ENFORCED};
use load::http::{Connection, accepted, request};
use load::report::{Samples, Table, float, say};
use load::server::Server;
use load::{disk, knob, report};
use riposte::clock::Clock;
use riposte_protocol::message::{HeldEffect, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Agents of each manager.
const AGENTS: usize = 50;
/// Effects that each agent holds and reports when it connects.
const HELD: usize = 500;
/// Alerts of a round, each with a short block, applied and lifted.
const ALERTS: usize = 2000;
/// First target of the past effects and of the held ones.
const FIRST_PAST: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// Deadline of a round.
const PATIENCE: Duration = Duration::from_mins(2);

/// One of the two managers, and its measurements.
struct Side {
    name: String,
    server: Server,
    agents: Arc<Vec<Agent>>,
    alerts: Alerts,
    address: u32,
    connect_ms: Samples,
    connect_cpu_ms: Samples,
    cpu_per_1000: Samples,
}

fn main() -> anyhow::Result<()> {
    load::run(async {
        let (past, rounds) = (knob("PAST", 200_000_usize)?, knob("ROUNDS", 5_usize)?);
        report::begin("history")?;
        let (young, old) = (disk()?, disk()?);
        let mut young = Side::build(young.path(), 0).await?;
        let mut old = Side::build(old.path(), past).await?;
        for round in 0..=rounds {
            for side in [&mut young, &mut old] {
                side.round().await?;
                // The first round warms caches up.
                if round == 0 {
                    side.forget();
                }
            }
        }
        let mut table = Table::default();
        let what = |what: &str, side: &Side| format!("{what}, {}", side.name);
        let limits = [young.connect_ms.median(), young.connect_cpu_ms.median(), young.cpu_per_1000.median()];
        for side in [&mut young, &mut old] {
            let connecting = format!("{AGENTS} agents connect with {HELD} effects each");
            table.row(&what(&connecting, side), side.connect_ms.median(), "ms", Some(limits[0]), "2", "1.2");
            let cpu = what("  the server's CPU for it", side);
            table.row(&cpu, side.connect_cpu_ms.median(), "ms", Some(limits[1]), "2", "1.2");
            let blocks = what("server CPU per 1000 blocks, applied and lifted", side);
            table.row(&blocks, side.cpu_per_1000.median(), "s", Some(limits[2]), "1.5", "1.2");
        }
        table.print();
        say("limit: the young ledger");
        Ok(())
    })
}

impl Side {
    /// Starts a manager whose agents hold [`HELD`] effects each, with `past` ended effects in its
    /// ledger.
    async fn build(dir: &std::path::Path, past: usize) -> anyhow::Result<Self> {
        let server = Server::start(dir).await?;
        let mut agents = agents::enrol(&server.door, &server.key, 0, AGENTS).await?;
        let policy = json!({"name": "block", "match": [{"rule_ids": [ENFORCED]}],
            "respond": {"action": "firewall-drop", "for": "10s"}});
        Connection::open(&server.door).await?.ask("POST", "/v1/policies", &server.key, &policy).await?;
        let database = server.database();
        server.stop()?;
        let begun = Instant::now();
        let mut db = rusqlite::Connection::open(database)?;
        let tx = db.transaction()?;
        for (number, agent) in agents.iter_mut().enumerate() {
            let mut held = Vec::with_capacity(HELD);
            for nth in 0..past / AGENTS + HELD {
                let address = FIRST_PAST + u32::try_from(number << 20 | nth)?;
                let target = Target::named(TargetKind::Ip, &Ipv4Addr::from_bits(address).to_string());
                let target = target.map_err(|error| anyhow::anyhow!("a target of our own: {error:?}"))?;
                let is_held = nth >= past / AGENTS;
                let effect = write(&tx, agent.id, i64::try_from(nth)?, target.value(), is_held)?;
                if is_held {
                    held.push(holding(effect, target));
                }
            }
            agent.held = Some(held);
        }
        tx.commit()?;
        drop(db);
        say(&format!("{past} effects of the past, written in {:.0} s", begun.elapsed().as_secs_f64()));
        let server = Server::start(dir).await?;
        let (connect_ms, connect_cpu_ms, cpu_per_1000) = (Samples::default(), Samples::default(), Samples::default());
        let (name, address) = (format!("{past} effects are over"), u32::from_be_bytes([11, 0, 0, 0]));
        let (agents, alerts) = (Arc::new(agents), Alerts::new(1 + u64::try_from(past)?));
        Ok(Self { name, server, agents, alerts, address, connect_ms, connect_cpu_ms, cpu_per_1000 })
    }

    /// Connects all agents, which report; orders, applies and lifts blocks; disconnects all agents.
    async fn round(&mut self) -> anyhow::Result<()> {
        let (cpu, begun) = (self.server.cpu_seconds()?, Instant::now());
        let streams = agents::connect_all(Arc::clone(&self.agents), &self.server.door, 16).await?;
        self.connect_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        self.connect_cpu_ms.push((self.server.cpu_seconds()? - cpu) * 1e3);
        let (settled, mut news) = mpsc::unbounded_channel();
        let mut following = JoinSet::new();
        for (_, stream) in streams {
            following.spawn(follow(stream, settled.clone()));
        }
        let cpu = self.server.cpu_seconds()?;
        let mut connection = Connection::open(&self.server.door).await?;
        for _ in (0..ALERTS).step_by(20) {
            let mut body = String::new();
            for _ in 0..20 {
                self.address += 1;
                let host = self.alerts.below(AGENTS);
                self.alerts.of(ENFORCED, host, Some(Ipv4Addr::from_bits(self.address)), &mut body);
                body.push('\n');
            }
            let post = request("POST", "/v1/alerts", &self.server.key, "application/x-ndjson", body.as_bytes());
            ensure!(accepted(&connection.exchange(&post).await?) == 20, "an alert was not accepted");
        }
        let mut left = 2 * ALERTS;
        while left > 0 {
            let some = tokio::time::timeout(PATIENCE, news.recv()).await.context("COMMANDS WERE LOST")?;
            left -= some.context("no stream is left")?.min(left);
        }
        self.cpu_per_1000.push((self.server.cpu_seconds()? - cpu) / float(ALERTS) * 1e3);
        following.shutdown().await;
        Ok(())
    }

    fn forget(&mut self) {
        self.connect_ms = Samples::default();
        self.connect_cpu_ms = Samples::default();
        self.cpu_per_1000 = Samples::default();
    }
}

/// How an agent reports that it holds an effect without an end.
fn holding(effect: Uuid, target: Target) -> HeldEffect {
    let action = "firewall-drop".to_owned();
    HeldEffect { effect, action, target, until: None, actual: None, drifts: 0, failing: None, released: None }
}

/// One agent: executes commands, and reports how many of its results are settled.
async fn follow(mut stream: Stream, settled: mpsc::UnboundedSender<usize>) -> anyhow::Result<()> {
    loop {
        match stream.hear().await? {
            ToAgent::Commands { commands } => {
                let commands = commands.iter().map(|signed| claims(signed)).collect::<anyhow::Result<Vec<_>>>()?;
                stream.obey(&commands).await?;
            }
            ToAgent::ResultAck { command_ids } => settled.send(command_ids.len())?,
            _ => {}
        }
    }
}

/// Writes a block into the ledger, in force without an end or lifted long ago; returns its effect.
fn write(tx: &rusqlite::Transaction, agent: Uuid, nth: i64, target: &str, is_held: bool) -> anyhow::Result<Uuid> {
    let now = Clock::system().now().as_millis();
    let [response, effect] = [(); 2].map(|()| Uuid::now_v7());
    let (id, of, agent) = (response.to_string(), effect.to_string(), agent.to_string());
    let ended = (!is_held).then_some(now);
    let until = ended.map(|_| now - 1);
    tx.prepare_cached(
        "INSERT INTO responses (id, policy, policy_version, action, target_kind, target_value, arguments, agents, until,
            state, reason, detail, requested_by, note, created_at, ended_at)
        VALUES (?1, 'past', 1, 'firewall-drop', 'ip', ?2, '[]', ?3, ?4, ?5, ?6, '', 'policy:past', '', ?7, ?8)",
    )?
    .execute(rusqlite::params![
        id,
        target,
        json!([agent]).to_string(),
        until,
        if is_held { "active" } else { "ended" },
        ended.map(|_| "elapsed"),
        now,
        ended
    ])?;
    tx.prepare_cached(
        "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments, desired, actual, actual_seq, until,
            created_at, changed_at)
        VALUES (?1, ?2, 'firewall-drop', 'ip', ?3, '[]', ?4, ?4, ?5, ?6, ?7, ?7)",
    )?
    .execute(rusqlite::params![of, agent, target, if is_held { "in_force" } else { "absent" }, 2 * nth, until, now])?;
    tx.prepare_cached("INSERT INTO holds (response_id, effect_id, until, released_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(rusqlite::params![id, of, until, ended])?;
    for (seq, op) in [(2 * nth + 1, "apply"), (2 * nth + 2, "revert")].into_iter().take(if is_held { 1 } else { 2 }) {
        let command = Uuid::now_v7().to_string();
        tx.prepare_cached(
            "INSERT INTO commands (id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments,
                state, created_at, deliveries, delivered_at, acknowledged_at, finished_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'firewall-drop', 'ip', ?7, '[]', 'succeeded', ?8, 1, ?8, ?8, ?8)",
        )?
        .execute(rusqlite::params![command, agent, seq, of, id, op, target, now])?;
        tx.prepare_cached(
            "INSERT INTO results (command_id, outcome, exit_code, output, verified, message, started_at, finished_at, received_at)
            VALUES (?1, 'succeeded', 0, '', TRUE, 'done', ?2, ?2, ?2)",
        )?
        .execute(rusqlite::params![command, now])?;
    }
    tx.prepare_cached("UPDATE agents SET last_seq = ?2 WHERE id = ?1")?
        .execute(rusqlite::params![agent, 2 * nth + 2])?;
    Ok(effect)
}
