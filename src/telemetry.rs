//! GROUND: logs and metrics. Logs are for people (or JSON for machines) on standard error; metrics are Prometheus'
//! text format with labels of bounded variety. Neither ever carries a secret or a raw body.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. What is logged is chosen by `RIPOSTE_LOG` (default `info`), as `tracing` filters are written.
pub fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("RIPOSTE_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Colours are for terminals; in a file they are noise.
    let builder = builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second start (several servers in one test process) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// A label that names an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    /// Which.
    pub outcome: &'static str,
}

/// A label that names a reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    /// Which.
    pub reason: &'static str,
}

/// A label that names a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByState {
    /// Which.
    pub state: String,
}

/// Labels of conditions that could not be decided: as many policies as there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCondition {
    /// Whose.
    pub policy: String,
    /// `missing_field` or `fault`.
    pub kind: &'static str,
}

/// Labels of a request: the route's pattern, never the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByRoute {
    /// The method.
    pub method: String,
    /// The pattern.
    pub route: String,
    /// The status' first digit, as in `2xx`.
    pub status: String,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// Alerts handed in: `accepted`, `duplicate`, `rejected`.
    pub alerts: Family<ByOutcome, Counter>,
    /// Responses decided, by their first state.
    pub responses: Family<ByState, Counter>,
    /// Responses that have ended, by what became of them; the store counts them.
    pub responses_ended: Family<ByOutcome, Counter>,
    /// Commands sent, repetitions included.
    pub commands_sent: Counter,
    /// Results taken in, by outcome.
    pub results: Family<ByOutcome, Counter>,
    /// Orders that agents did not believe, by reason.
    pub orders_rejected: Family<ByReason, Counter>,
    /// Agents with an open stream on this node.
    pub agents_streaming: Gauge,
    /// Requests that brought no valid credentials.
    pub unauthenticated: Counter,
    /// Requests answered.
    pub requests: Family<ByRoute, Counter>,
    /// Conditions of policies that could not be decided.
    pub conditions_failed: Family<ByCondition, Counter>,
    /// Duplicates that differ from the stored alert of the same id.
    pub alerts_conflicting: Counter,
    /// How long the answers took, in seconds.
    pub request_seconds: Family<ByRoute, Histogram>,
    /// How full the writer's queue is.
    pub writer_load: Gauge<f64, AtomicU64>,
}

/// Bucket bounds in seconds: from a fast answer to one that is about to time out.
fn request_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            alerts: Family::default(),
            responses: Family::default(),
            alerts_conflicting: Counter::default(),
            conditions_failed: Family::default(),
            responses_ended: Family::default(),
            commands_sent: Counter::default(),
            results: Family::default(),
            orders_rejected: Family::default(),
            agents_streaming: Gauge::default(),
            unauthenticated: Counter::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_histogram),
            writer_load: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers everything under the prefix `riposte`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("riposte");
        registry.register("alerts", "Alerts handed in", self.alerts.clone());
        registry.register(
            "alerts_conflicting",
            "Alerts that were duplicates by their id and differ from the stored one",
            self.alerts_conflicting.clone(),
        );
        registry.register(
            "conditions_failed",
            "Conditions of policies (when) that could not be decided, so that they did not hold",
            self.conditions_failed.clone(),
        );
        registry.register("responses", "Responses decided, by their first state", self.responses.clone());
        registry.register(
            "responses_ended",
            "Responses that have ended, by what became of them",
            self.responses_ended.clone(),
        );
        registry.register("commands_sent", "Commands sent to agents, repetitions included", self.commands_sent.clone());
        registry.register("results", "Results taken in from agents", self.results.clone());
        registry.register("orders_rejected", "Orders that agents did not believe", self.orders_rejected.clone());
        registry.register("agents_streaming", "Agents with an open stream here", self.agents_streaming.clone());
        registry.register("unauthenticated", "Requests without valid credentials", self.unauthenticated.clone());
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register("http_request_seconds", "Time to answer a request", self.request_seconds.clone());
        registry.register("writer_load", "How full the writer's queue is, 0 to 1", self.writer_load.clone());
    }
}
