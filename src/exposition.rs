//! The exposition of metrics: `OpenMetrics` for a scraper that asks for it, as Prometheus does, and
//! Prometheus' older text format for everything else, such as `curl` and `promtool check metrics`. The
//! samples are the same. Ground: the manager and the forwarder stand on it.

use std::fmt;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

const OPEN_METRICS: &str = "application/openmetrics-text";

/// All metrics of `registry`, in the format that the request's `Accept` asks for.
///
/// # Errors
/// If a metric cannot be written as text.
pub fn expose(registry: &Registry, asked: &HeaderMap) -> Result<Response, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    let accept = asked.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (media_type, text) = if accept.contains(OPEN_METRICS) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", plain(&text))
    };
    Ok(([(header::CONTENT_TYPE, media_type), (header::VARY, "accept")], text).into_response())
}

/// `OpenMetrics` text in the older format. There a counter is described by the name of its samples, and
/// the end is not marked.
fn plain(text: &str) -> String {
    let (mut plain, mut help) = (String::with_capacity(text.len()), None);
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            // The name that it belongs to stands in the next line, with its type.
            help = about.split_once(' ').map(|(_, about)| about.replace("\\\"", "\""));
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap_or((described, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some(help) = help.take() {
                plain.extend(["# HELP ", name, suffix, " ", &help, "\n"]);
            }
            plain.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_as_their_samples() {
        let text = "# HELP a_b Say \\\"x\\\" \\\\ y.\n# TYPE a_b counter\na_b_total{c=\"# d\"} 1\n\
                    # HELP e_seconds E.\n# TYPE e_seconds histogram\n# UNIT e_seconds seconds\ne_seconds_sum 0.5\n# EOF\n";
        let expected = "# HELP a_b_total Say \"x\" \\\\ y.\n# TYPE a_b_total counter\na_b_total{c=\"# d\"} 1\n\
                        # HELP e_seconds E.\n# TYPE e_seconds histogram\ne_seconds_sum 0.5\n";
        assert_eq!(plain(text), expected);
    }

    #[test]
    fn a_scraper_that_asks_for_open_metrics_gets_it() {
        let of = |accept: Option<&str>| {
            let mut asked = HeaderMap::new();
            if let Some(accept) = accept {
                asked.insert(header::ACCEPT, accept.parse().unwrap());
            }
            let answer = expose(&Registry::default(), &asked).unwrap();
            answer.headers()[header::CONTENT_TYPE].to_str().unwrap().split(';').next().unwrap().to_owned()
        };
        for plain in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            assert_eq!(of(plain), "text/plain", "{plain:?}");
        }
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(of(Some(prometheus)), OPEN_METRICS);
    }
}
