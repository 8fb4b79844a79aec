//! How fast `riposte forward` reads a file of alerts and hands them over: to a receiver that answers at once, which is
//! what the forwarder itself can do, and to a manager. `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use load::alerts::Alerts;
use load::report::{MIB, Table, begin, float, say};
use load::server::Server;
use load::{disk, knob};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Without progress for so long it is stuck.
const PATIENCE: Duration = Duration::from_mins(2);

fn main() -> anyhow::Result<()> {
    load::run(bench())
}

async fn bench() -> anyhow::Result<()> {
    begin("forward")?;
    let count: usize = knob("ALERTS", 200_000)?;
    let dir = disk()?;
    let path = dir.path().join("alerts.json");
    let bytes = write(&path, count)?;
    say(&format!("{count} alerts, {} MiB", (bytes / MIB).round()));
    let began = Instant::now();
    let lines = std::fs::read(&path)?.split(|byte| *byte == b'\n').count() - 1;
    let read = float(lines) / began.elapsed().as_secs_f64();
    ensure!(lines == count, "{lines} lines");

    let mut table = Table::default();
    let (got, base, _receiver) = receiver().await?;
    let alone = forwarded(&path, &base, "rip_none", || async { Ok(got.load(Ordering::Relaxed)) }, count).await?;
    table.row("to a receiver that answers at once", alone, "alerts/s", Some(read), "20000", "");
    let server = Server::start(dir.path()).await?;
    let address = format!("http://{}", server.door.address);
    let http = reqwest::Client::builder().no_proxy().build()?;
    let stored = async || {
        let text = http.get(format!("{address}/metrics")).bearer_auth(&server.key).send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix("riposte_alerts_total{outcome=\"accepted\"} "));
        line.map_or(Ok(0), |line| line.parse::<usize>().context("the metric of alerts"))
    };
    let managed = forwarded(&path, &address, &server.key, stored, count).await?;
    table.row("to a manager, which stores them", managed, "alerts/s", Some(alone), "", "");
    table.print();
    Ok(())
}

/// Writes a file as Wazuh does. Returns its bytes.
fn write(path: &Path, count: usize) -> anyhow::Result<f64> {
    let (mut file, mut alerts, mut line) = (BufWriter::new(File::create(path)?), Alerts::new(1), String::new());
    for _ in 0..count {
        line.clear();
        alerts.any(100, &mut line);
        file.write_all(line.trim_end().as_bytes())?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    Ok(file.get_ref().metadata()?.len() as f64)
}

/// Runs the forwarder over the file until `got` is `count`. Returns alerts per second.
async fn forwarded<F: Future<Output = anyhow::Result<usize>>>(
    path: &Path,
    base: &str,
    key: &str,
    got: impl Fn() -> F,
    count: usize,
) -> anyhow::Result<f64> {
    let state = TempDir::new()?;
    let began = Instant::now();
    let mut forwarder = Forwarder::start(path, base, key, state.path())?;
    let (mut seen, mut seen_at) = (0, Instant::now());
    loop {
        let now = got().await?;
        if now >= count {
            break;
        }
        if now > seen {
            (seen, seen_at) = (now, Instant::now());
        }
        ensure!(
            seen_at.elapsed() < PATIENCE && forwarder.0.try_wait()?.is_none(),
            "the forwarder stopped at {now} alerts"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(float(count) / began.elapsed().as_secs_f64())
}

struct Forwarder(Child);

impl Forwarder {
    fn start(path: &Path, base: &str, key: &str, state: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_riposte"));
        command.args(["forward", "--from", "beginning", "--manager", base, "--alerts"]).arg(path);
        command.arg("--state-dir").arg(state).env("RIPOSTE_KEY", key).env("RIPOSTE_LOG", "warn");
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Something that takes alerts as a manager does, and only counts them.
async fn receiver() -> anyhow::Result<(Arc<AtomicUsize>, String, JoinSet<()>)> {
    let got = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let app =
        Router::new().route("/v1/alerts", post(take)).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&got));
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            say(&format!("the receiver ended: {error}"));
        }
    });
    Ok((got, base, serving))
}

async fn take(State(got): State<Arc<AtomicUsize>>, body: Bytes) -> (StatusCode, Json<Value>) {
    let count = body.split(|byte| *byte == b'\n').count() - 1;
    got.fetch_add(count, Ordering::Relaxed);
    let answer = json!({"accepted": count, "duplicates": 0, "conflicting": 0, "rejected": [], "responses": []});
    (StatusCode::ACCEPTED, Json(answer))
}
