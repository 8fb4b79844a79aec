//! Reports this forwarder to the manager each minute, so that the manager can tell when it has stopped.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use riposte_protocol::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::metrics::ForwardMetrics;
use crate::cli::client::{Remote, segment};
use crate::host;
use crate::views::forwarders::ForwarderReport;

/// Interval of reports. The manager calls a forwarder silent after five of them.
const EVERY: Duration = Duration::from_mins(1);

/// The name of this Wazuh manager: that of the host.
///
/// # Errors
/// If the host has none.
pub(super) fn own_name() -> anyhow::Result<String> {
    host::name().context("this host has no name: set one by hostnamectl")
}

/// Reports until `stop`.
pub(super) async fn run(remote: Remote, metrics: Arc<ForwardMetrics>, stop: CancellationToken) {
    let mut is_said = false;
    loop {
        match send(&remote, &metrics).await {
            Ok(()) => is_said = false,
            // The alerts are what matters: they are tried again for themselves, and the log says so.
            Err(error) if !is_said => {
                tracing::warn!("the manager does not take the forwarder's report, and is told again: {error:#}");
                is_said = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn send(remote: &Remote, metrics: &ForwardMetrics) -> anyhow::Result<()> {
    let last = metrics.last_alert.get();
    let report = ForwarderReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        behind_bytes: metrics.behind_bytes.get().max(0),
        last_alert_at: (last > 0).then(|| Timestamp::from_millis(last.saturating_mul(1000))),
    };
    let path = format!("/v1/forwarders/{}", segment(&own_name()?));
    remote.send(Method::PUT, &path, None, Some(&report)).await?.accepted()
}
