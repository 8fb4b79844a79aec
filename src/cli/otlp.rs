//! The OTLP export as the configuration describes it. `no_otlp.rs` stands for it in a program without the
//! feature.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::keyfiles;
use crate::api::state::AppState;
use crate::config::Config;
use crate::domain::duration::Span;
use crate::engine::egress::rules::Egress;
use crate::engine::otlp;
use crate::engine::otlp::exporter::{OtlpExporter, OtlpSettings};

/// Shortest and longest time between two exports.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(1)];

/// The time between two exports.
///
/// # Errors
/// If it is not a duration in the range.
pub(super) fn interval(config: &Config) -> anyhow::Result<Duration> {
    let interval = config.telemetry.otlp_interval.parse::<Span>();
    let interval = interval.map_err(|error| anyhow::anyhow!("otlp_interval {error}"))?.duration();
    let [shortest, longest] = INTERVALS;
    anyhow::ensure!((shortest..=longest).contains(&interval), "otlp_interval must be from 100ms to 1h");
    Ok(interval)
}

/// The collector, if the configuration names one.
///
/// # Errors
/// If the interval or the file of the headers cannot be used.
pub(super) fn exporter(config: &Config, egress: &Egress) -> anyhow::Result<Option<OtlpExporter>> {
    let interval = interval(config).context("the configuration's [telemetry]")?;
    let Some(endpoint) = config.otlp_endpoint()? else { return Ok(None) };
    let file = &config.telemetry.otlp_headers_file;
    let headers = if file.as_os_str().is_empty() {
        HeaderMap::new()
    } else {
        headers(&keyfiles::read_secret(file).context("otlp_headers_file")?).context("otlp_headers_file")?
    };
    let sample_millionths = config.telemetry.otlp_sample_ratio.millionths();
    let settings = OtlpSettings { endpoint, headers, sample_millionths, interval };
    Ok(Some(OtlpExporter::new(egress, settings).context("otlp_endpoint")?))
}

/// Headers, one a line: `name: value`. A fault names the line, and never the value.
fn headers(text: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let (name, value) = line.split_once(':').with_context(|| format!("line {number} is not `name: value`"))?;
        let name: HeaderName = name.trim().parse().with_context(|| format!("line {number}: the name of a header"))?;
        let mut value: HeaderValue = value.trim().parse().with_context(|| format!("line {number}: the value"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Starts the export.
pub(super) fn start(exporter: Option<OtlpExporter>, state: &AppState) {
    if let Some(exporter) = exporter {
        otlp::start(&state.engine, exporter, Arc::clone(&state.registry), Arc::clone(&state.ledger_gauges));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_one_a_line_and_faults_do_not_repeat_them() {
        let read = headers("authorization: Bearer a:b\n\nX-Scope-OrgID: 7\r\n").unwrap();
        assert!(read["authorization"] == "Bearer a:b" && read["x-scope-orgid"] == "7", "{read:?}");
        assert!(read["authorization"].is_sensitive());
        for bad in ["secret", "a\u{1}: secret", "a b: secret", "a: sec\u{1}ret", ": secret"] {
            let error = format!("{:#}", headers(bad).unwrap_err());
            assert!(error.contains("line 1") && !error.contains("sec"), "{error}");
        }
    }

    #[test]
    fn an_interval_has_bounds() {
        let of = |text: &str| {
            let mut config = Config::default();
            config.telemetry.otlp_interval = text.into();
            interval(&config).map_err(|error| error.to_string())
        };
        assert_eq!((of("100ms"), of("1h")), (Ok(INTERVALS[0]), Ok(INTERVALS[1])));
        for wrong in ["99ms", "61m", "", "10"] {
            assert!(of(wrong).unwrap_err().contains("otlp_interval"), "{wrong}");
        }
    }
}
