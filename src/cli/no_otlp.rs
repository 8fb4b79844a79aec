//! In a program without the feature `otlp`: a configuration that names a collector is refused, because an
//! export that silently does not happen would look like one that works.

use std::time::Duration;

use crate::api::state::AppState;
use crate::config::Config;
use crate::domain::duration::Span;
use crate::engine::egress::rules::Egress;

/// The time between two exports, which is checked here too: the same file is right for both programs.
pub(super) fn interval(config: &Config) -> anyhow::Result<Duration> {
    let interval = config.telemetry.otlp_interval.parse::<Span>();
    Ok(interval.map_err(|error| anyhow::anyhow!("otlp_interval {error}"))?.duration())
}

/// Refuses a configuration that names a collector.
pub(super) fn exporter(config: &Config, _: &Egress) -> anyhow::Result<Option<()>> {
    match config.otlp_endpoint()? {
        None => Ok(None),
        Some(_) => anyhow::bail!("otlp_endpoint is set, and this program was built without the feature otlp"),
    }
}

/// Starts nothing.
pub(super) fn start(_: Option<()>, _: &AppState) {}
