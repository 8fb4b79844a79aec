//! What the pages read of `/metrics`: figures that no other path of the API has.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method};

use super::client::Trouble;
use super::session::Session;

/// Largest text, in bytes.
const MAX_TEXT: usize = 16 * 1024 * 1024;

/// A sample.
#[derive(Debug, PartialEq)]
pub(super) struct MetricSample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

impl MetricSample {
    /// A label; empty if it has none of this name.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The value of a gauge or counter as people read it.
    pub(super) fn shown(&self) -> String {
        format!("{:.0}", self.value)
    }
}

impl Session {
    /// The samples of this manager.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(super) async fn metrics(&self) -> Result<Vec<MetricSample>, Trouble> {
        let answer = self.api.call(Method::GET, "/metrics", HeaderMap::new(), Body::empty()).await?;
        if !answer.status().is_success() {
            return Err(Trouble::Broken(format!("/metrics was answered with {}", answer.status())));
        }
        let body = to_bytes(answer.into_body(), MAX_TEXT).await;
        let body = body.map_err(|error| Trouble::Broken(format!("the answer of /metrics broke off: {error}")))?;
        Ok(samples(&String::from_utf8_lossy(&body)))
    }
}

/// The samples of a text in Prometheus' format.
fn samples(text: &str) -> Vec<MetricSample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<MetricSample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(MetricSample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = after.get(end..)?;
    }
}

/// A histogram: cumulative counts by the upper bound of their bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct HistogramBuckets(Vec<(f64, f64)>);

impl HistogramBuckets {
    /// The histograms `name`, added up by one label.
    pub(super) fn by_label(samples: &[MetricSample], name: &str, label: &str) -> BTreeMap<String, Self> {
        let name = format!("{name}_bucket");
        let mut found: BTreeMap<String, Self> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.name == name) {
            // The bound of the last one is "+Inf", which is read as infinity.
            let Ok(bound) = sample.label("le").parse::<f64>() else { continue };
            let buckets = &mut found.entry(sample.label(label).to_owned()).or_default().0;
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        for buckets in found.values_mut() {
            buckets.0.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        }
        found
    }

    /// Number of observations.
    pub(super) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// An estimate of a quantile, as Prometheus makes it: linear within its bucket. True: it lies above the highest bound,
    /// which is returned.
    pub(super) fn quantile(&self, quantile: f64) -> Option<(f64, bool)> {
        let rank = quantile * self.count();
        let (mut below, mut counted) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > counted {
                let is_above = bound.is_infinite();
                let within = (rank - counted) / (count - counted);
                return Some(if is_above { (below, true) } else { (below + (bound - below) * within, false) });
            }
            (below, counted) = (*bound, *count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a A.\n# TYPE a counter\na_total{policy=\"x\\\"}, y\",state=\"on\"} 3\nb 0.5\n\
        t_bucket{policy=\"p\",action=\"x\",le=\"1.0\"} 2\nt_bucket{policy=\"p\",action=\"x\",le=\"5.0\"} 4\n\
        t_bucket{policy=\"p\",action=\"x\",le=\"+Inf\"} 4\nt_bucket{policy=\"p\",action=\"z\",le=\"1.0\"} 2\n\
        t_bucket{policy=\"p\",action=\"z\",le=\"5.0\"} 4\nt_bucket{policy=\"p\",action=\"z\",le=\"+Inf\"} 6\n";

    #[test]
    fn samples_have_their_labels_whatever_these_hold() {
        let read = samples(TEXT);
        assert_eq!(
            (read[0].name.as_str(), read[0].label("policy"), read[0].label("state")),
            ("a_total", "x\"}, y", "on")
        );
        assert_eq!((read[0].shown().as_str(), read[1].name.as_str(), read[1].label("none")), ("3", "b", ""));
        assert_eq!(samples("broken{a=\"b\nname\n{} x\n"), []);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_or_above_all() {
        let read = HistogramBuckets::by_label(&samples(TEXT), "t", "policy");
        let buckets = &read["p"];
        let of = |quantile| buckets.quantile(quantile).map(|(value, is_above)| (format!("{value:.2}"), is_above));
        assert_eq!(format!("{:.0}", buckets.count()), "10");
        assert_eq!(of(0.5), Some(("2.00".to_owned(), false)));
        assert_eq!(of(0.99), Some(("5.00".to_owned(), true)));
        assert_eq!(HistogramBuckets::default().quantile(0.5), None);
    }
}
