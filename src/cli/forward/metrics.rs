//! What the forwarder says of itself: `/metrics`, and `/readyz`, which is 200 unless the manager does not take the alerts.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exposition::expose;
use crate::telemetry::ByOutcome;

/// Counters and gauges of the forwarder.
#[derive(Debug, Default)]
pub(super) struct ForwardMetrics {
    alerts: Family<ByOutcome, Counter>,
    pub(super) retries: Counter,
    pub(super) too_large: Counter,
    pub(super) truncated: Counter,
    pub(super) files_lost: Counter,
    pub(super) cursor_failures: Counter,
    pub(super) behind_bytes: Gauge,
    pub(super) last_alert: Gauge,
    pub(super) is_stuck: Gauge,
}

impl ForwardMetrics {
    pub(super) fn count(&self, outcome: &'static str, count: usize) {
        self.alerts.get_or_create(&ByOutcome { outcome }).inc_by(count as u64);
    }

    /// Alerts that the manager has, those that it had before included.
    pub(super) fn forwarded(&self) -> u64 {
        let of = |outcome| self.alerts.get_or_create(&ByOutcome { outcome }).get();
        of("accepted") + of("duplicate")
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("riposte_forward");
        registry.register("alerts", "Alerts that the manager answered, by outcome", self.alerts.clone());
        registry.register(
            "retries",
            "Requests that are sent again: the manager was away or had no room",
            self.retries.clone(),
        );
        registry.register(
            "lines_too_large",
            "Lines that are larger than an alert may be, left out",
            self.too_large.clone(),
        );
        registry.register("files_truncated", "Times that a file was cut off while it was read", self.truncated.clone());
        registry.register(
            "files_lost",
            "Times that a file was gone before it was read to its end",
            self.files_lost.clone(),
        );
        registry.register(
            "cursor_failures",
            "Times that the cursor could not be written",
            self.cursor_failures.clone(),
        );
        registry.register(
            "behind_bytes",
            "Bytes on disk, in all files, of alerts that the manager does not have yet",
            self.behind_bytes.clone(),
        );
        registry.register(
            "last_alert_timestamp_seconds",
            "Time of the newest alert that the manager has",
            self.last_alert.clone(),
        );
        registry.register("stuck", "1 while the manager does not take the alerts", self.is_stuck.clone());
        registry
    }
}

/// Serves the metrics at `listen` until `stop`.
///
/// # Errors
/// If the address cannot be bound.
pub(super) async fn serve(
    listen: SocketAddr,
    metrics: Arc<ForwardMetrics>,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} for metrics"))?;
    tracing::info!("metrics on http://{}/metrics", listener.local_addr()?);
    let app = Router::new().route("/metrics", get(show)).route("/readyz", get(ready)).with_state(metrics);
    Ok(async move {
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!("the metrics ended: {error}");
        }
    })
}

async fn show(State(metrics): State<Arc<ForwardMetrics>>, headers: HeaderMap) -> Response {
    // Writing to a string cannot fail.
    expose(&metrics.registry(), &headers).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn ready(State(metrics): State<Arc<ForwardMetrics>>) -> Response {
    match metrics.is_stuck.get() {
        0 => "ok".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the manager does not take the alerts").into_response(),
    }
}
