//! Logs and metrics. Logs are text or JSON on standard error; metrics have Prometheus' text format
//! and labels of bounded variety. Neither ever contains a secret or a raw body.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging, filtered by `RIPOSTE_LOG` (default `info`) in the syntax of `tracing` filters.
pub fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("RIPOSTE_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Colours only on a terminal.
    let builder = builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second start (several servers in one test process) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Label of an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    /// Name of the outcome.
    pub outcome: &'static str,
}

/// Label of a reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    /// Name of the reason.
    pub reason: &'static str,
}

/// Label of a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByState {
    /// Name of the state.
    pub state: String,
}

/// What became of a message to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// It was taken.
    Taken,
    /// It was not taken this time.
    Untaken,
    /// It is not sent again by itself.
    GivenUp,
}

impl WebhookOutcome {
    /// Its label.
    pub const fn label(self) -> ByOutcome {
        ByOutcome {
            outcome: match self {
                Self::Taken => "taken",
                Self::Untaken => "untaken",
                Self::GivenUp => "given_up",
            },
        }
    }
}

/// Labels of failed conditions; bounded by the number of policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCondition {
    /// Name of the policy.
    pub policy: String,
    /// `missing_field` or `fault`.
    pub kind: &'static str,
}

/// Labels of how long containment takes; bounded by its histogram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByPolicyAndAction {
    /// Name of the policy.
    pub policy: String,
    /// Name of the action.
    pub action: String,
}

/// Label of what is exported.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySignal {
    /// `traces` or `metrics`.
    pub signal: &'static str,
}

/// Labels of a request: the route's pattern, never the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByRoute {
    /// HTTP method.
    pub method: String,
    /// Pattern of the route.
    pub route: String,
    /// Class of the status, such as `2xx`.
    pub status: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    /// Received alerts: `accepted`, `duplicate`, `rejected`.
    pub alerts: Family<ByOutcome, Counter>,
    /// Decided responses by initial state.
    pub responses: Family<ByState, Counter>,
    /// Responses that have ended, by what became of them; the store counts them.
    pub responses_ended: Family<ByOutcome, Counter>,
    /// How long it takes until effects are verified in force; the store observes it.
    pub time_to_contain: Family<ByPolicyAndAction, Histogram>,
    /// Commands sent, repetitions included.
    pub commands_sent: Counter,
    /// Received results by outcome.
    pub results: Family<ByOutcome, Counter>,
    /// Rejected commands by the agents' reason.
    pub orders_rejected: Family<ByReason, Counter>,
    /// Agents with a stream to this node.
    pub agents_streaming: Gauge,
    /// Requests without valid credentials.
    pub unauthenticated: Counter,
    /// Responses that acted by break-glass.
    pub break_glass: Counter,
    /// Sealed rows and sets that another program has changed.
    pub seal_breaches: Gauge,
    /// Answered requests.
    pub requests: Family<ByRoute, Counter>,
    /// Failed conditions of policies.
    pub conditions_failed: Family<ByCondition, Counter>,
    /// Duplicates that differ from the stored alert of the same id.
    pub alerts_conflicting: Counter,
    /// Duration of requests, in seconds.
    pub request_seconds: Family<ByRoute, Histogram>,
    /// Messages to webhooks: `taken`, `untaken`, `given_up`.
    pub webhook_messages: Family<ByOutcome, Counter>,
    /// Fill level of the writer's queue, from 0 to 1.
    pub writer_load: Gauge<f64, AtomicU64>,
    /// Spans, and sets of metrics, that the OTLP collector took.
    pub telemetry_exported: Family<BySignal, Counter>,
    /// The same, and changes that belong into traces, that were dropped.
    pub telemetry_dropped: Family<BySignal, Counter>,
}

/// Bucket bounds in seconds, from a fast response to the time limit.
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
            time_to_contain: Family::new_with_constructor(request_histogram),
            commands_sent: Counter::default(),
            results: Family::default(),
            orders_rejected: Family::default(),
            agents_streaming: Gauge::default(),
            unauthenticated: Counter::default(),
            break_glass: Counter::default(),
            seal_breaches: Gauge::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_histogram),
            webhook_messages: Family::default(),
            writer_load: Gauge::default(),
            telemetry_exported: Family::default(),
            telemetry_dropped: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers all metrics with the prefix `riposte`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("riposte");
        // From the start: an alarm on an increase must see the first one.
        for signal in ["traces", "metrics"] {
            drop(self.telemetry_exported.get_or_create(&BySignal { signal }));
            drop(self.telemetry_dropped.get_or_create(&BySignal { signal }));
        }
        for outcome in ["accepted", "duplicate", "rejected"] {
            drop(self.alerts.get_or_create(&ByOutcome { outcome }));
        }
        for state in ["active", "awaiting_approval", "observed", "spared"] {
            drop(self.responses.get_or_create(&ByState { state: state.to_owned() }));
        }
        registry.register("alerts", "Received alerts", self.alerts.clone());
        registry.register(
            "alerts_conflicting",
            "Duplicates that differ from the stored alert of the same id",
            self.alerts_conflicting.clone(),
        );
        registry.register(
            "conditions_failed",
            "Failed conditions of policies (when), which count as false",
            self.conditions_failed.clone(),
        );
        registry.register("responses", "Decided responses by initial state", self.responses.clone());
        registry.register("responses_ended", "Responses that have ended, by outcome", self.responses_ended.clone());
        let about =
            "Seconds from an alert, or a response by hand, until its effect is verified in force for the first time";
        registry.register("time_to_contain_seconds", about, self.time_to_contain.clone());
        registry.register(
            "commands_sent",
            "Commands sent to agents, including repetitions",
            self.commands_sent.clone(),
        );
        registry.register("results", "Results received from agents", self.results.clone());
        registry.register("orders_rejected", "Commands that agents rejected", self.orders_rejected.clone());
        registry.register("agents_streaming", "Agents with a stream to this node", self.agents_streaming.clone());
        let about = "Responses that acted without the people whose approval they need";
        registry.register("break_glass", about, self.break_glass.clone());
        let about = "Rows that grant power, and sets of them, that another program has changed";
        registry.register("seal_breaches", about, self.seal_breaches.clone());
        registry.register("unauthenticated", "Requests without valid credentials", self.unauthenticated.clone());
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register("http_request_seconds", "Duration of requests", self.request_seconds.clone());
        registry.register("webhook_messages", "Messages to webhooks, by outcome", self.webhook_messages.clone());
        let about = "Spans, and sets of metrics, that the OTLP collector took";
        registry.register("telemetry_exported", about, self.telemetry_exported.clone());
        let about = "Spans and changes without a span, and sets of metrics, that the OTLP collector did not take";
        registry.register("telemetry_dropped", about, self.telemetry_dropped.clone());
        registry.register("writer_load", "Fill level of the writer's queue, 0 to 1", self.writer_load.clone());
    }
}
