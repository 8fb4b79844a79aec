//! The two stages of the export: spans of what commits put into the queue, and metrics each interval.
//! Neither holds up anything else; both count what they drop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use riposte_protocol::time::Timestamp;
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use super::exporter::OtlpExporter;
use super::spans::{self, TraceSpan};
use super::{points, wire};
use crate::domain::audit::AuditEvent;
use crate::engine::Engine;
use crate::engine::ledger_gauges::LedgerGauges;
use crate::store::StoreError;
use crate::store::ledger::trace_queue::Traced;
use crate::store::ledger::traces::{self, TracedResponse};
use crate::telemetry::BySignal;

/// Items that become one request.
const BATCH: usize = 512;
/// Time limit of the last export at a stop.
const FAREWELL: Duration = Duration::from_secs(5);
/// The two signals.
const TRACES: &str = "traces";
const METRICS: &str = "metrics";

/// Starts both stages.
pub fn start(engine: &Arc<Engine>, exporter: OtlpExporter, registry: Arc<Registry>, gauges: Arc<LedgerGauges>) {
    let exporter = Arc::new(exporter);
    let dropped = engine.metrics.telemetry_dropped.get_or_create(&BySignal { signal: TRACES }).clone();
    let Some(queue) = engine.db.traces().open(dropped) else { return };
    tracing::info!("traces and metrics go to {}", exporter.place());
    let (stage, to) = (Arc::clone(engine), Arc::clone(&exporter));
    engine.tasks.spawn("traces", async move { export_traces(&stage, &to, queue).await });
    let stage = Arc::clone(engine);
    engine.tasks.spawn("telemetry", async move { export_metrics(&stage, &exporter, &registry, &gauges).await });
}

/// Exports spans until the connections have ended, and then what is left.
async fn export_traces(engine: &Engine, exporter: &OtlpExporter, mut queue: Receiver<Traced>) {
    let finish = engine.tasks.finishing().clone();
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            _ = queue.recv_many(&mut batch, BATCH) => {}
            () = finish.cancelled() => break,
        }
        // What comes soon goes with it.
        let gather = async { while batch.len() < BATCH && queue.recv_many(&mut batch, BATCH).await > 0 {} };
        tokio::select! {
            _ = tokio::time::timeout(exporter.settings.interval, gather) => {}
            () = finish.cancelled() => {}
        }
        export(engine, exporter, batch).await;
    }
    let mut left = Vec::new();
    while let Ok(traced) = queue.try_recv() {
        left.push(traced);
    }
    let count = left.len() as u64;
    if tokio::time::timeout(FAREWELL, export(engine, exporter, left)).await.is_err() {
        drop_of(engine, TRACES, count);
    }
}

/// Makes spans of a batch, and exports them.
async fn export(engine: &Engine, exporter: &OtlpExporter, batch: Vec<Traced>) {
    let count = batch.len() as u64;
    let spans = match spans_of(engine, batch, exporter.settings.sample_millionths).await {
        Ok(spans) => spans,
        Err(error) => {
            tracing::warn!("spans could not be read from the ledger: {}", error.in_words());
            return drop_of(engine, TRACES, count);
        }
    };
    // One item can be many spans: an intake of thousands of alerts.
    for spans in spans.chunks(BATCH) {
        let (body, count) = (spans::request(engine.lease.node(), spans), spans.len() as u64);
        account(engine, exporter, TRACES, count, exporter.post(TRACES, body, engine.tasks.stopping()).await);
    }
}

async fn spans_of(engine: &Engine, batch: Vec<Traced>, millionths: u32) -> Result<Vec<TraceSpan>, StoreError> {
    let (mut spans, mut responses, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    for traced in batch {
        match traced {
            Traced::Intake(intake) => spans.extend(spans::of_intake(&intake, millionths)),
            Traced::Change(event, id, at) if event.noun() == "command" => commands.push((event, id, at)),
            Traced::Change(event, id, at) => responses.push((event, id, at)),
        }
    }
    let ids = |changes: &[(AuditEvent, Uuid, Timestamp)]| {
        let mut ids: Vec<Uuid> = changes.iter().map(|(_, id, _)| *id).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let rows = traces::responses(&engine.db, ids(&responses).into_iter()).await?;
    let rows: HashMap<&str, &TracedResponse> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    for (event, id, at) in responses {
        let row = rows.get(id.to_string().as_str());
        spans.extend(row.and_then(|row| spans::of_response(row, event, at, millionths)));
    }
    // A command that ended twice, such as by a late result, is one span.
    for row in traces::commands(&engine.db, ids(&commands).into_iter()).await? {
        let agent = row.agent_id.parse().ok().and_then(|agent| engine.db.names().agent(agent));
        spans.extend(spans::of_command(&row, agent, millionths));
    }
    Ok(spans)
}

/// Exports the metrics each interval, and once more at the stop.
async fn export_metrics(engine: &Engine, exporter: &OtlpExporter, registry: &Registry, gauges: &LedgerGauges) {
    let stop = engine.tasks.stopping().clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(exporter.settings.interval) => {}
            () = stop.cancelled() => {}
        }
        // Without the ledger the other metrics still say something; the log has the error.
        let _ = gauges.refresh(engine).await;
        let mut text = String::new();
        if encode(&mut text, registry).is_ok() {
            let (since, now) = (wire::nanos(engine.started_at), wire::nanos(engine.clock.now()));
            let body = points::request(engine.lease.node(), &text, since, now);
            account(engine, exporter, METRICS, 1, exporter.post(METRICS, body, &stop).await);
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

fn drop_of(engine: &Engine, signal: &'static str, count: u64) {
    engine.metrics.telemetry_dropped.get_or_create(&BySignal { signal }).inc_by(count);
}

/// Counts an export, and says when the collector stops and starts to take what it gets.
fn account(engine: &Engine, exporter: &OtlpExporter, signal: &'static str, count: u64, done: Result<(), String>) {
    let about = if signal == TRACES { "otlp traces" } else { "otlp metrics" };
    let place = exporter.place();
    let warning = match done {
        Ok(()) => {
            engine.metrics.telemetry_exported.get_or_create(&BySignal { signal }).inc_by(count);
            None
        }
        Err(why) => {
            drop_of(engine, signal, count);
            Some(format!("{place} does not take {signal}: {why}. They are dropped; nothing else is affected"))
        }
    };
    if engine.health.warn(about, warning.as_deref()) {
        match warning {
            Some(warning) => tracing::warn!("{warning}"),
            None => tracing::info!("{place} takes {signal} again"),
        }
    }
}
