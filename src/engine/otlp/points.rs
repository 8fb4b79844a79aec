//! Metrics for OTLP: read from the text that `/metrics` has, so that both always say the same. Counters
//! and histograms are cumulative since the start of the manager.

use std::collections::BTreeMap;

use super::wire::{Value, WireMessage, attribute, resource, scope};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;

/// The points of one family.
#[derive(Debug, Default, PartialEq)]
struct Family {
    name: String,
    help: String,
    kind: String,
    numbers: Vec<(Labels, f64)>,
    histograms: BTreeMap<Labels, Distribution>,
}

/// Labels in their order.
type Labels = Vec<(String, String)>;

/// One histogram. Its buckets are counted up to each bound, as the text has them.
#[derive(Debug, Default, PartialEq)]
struct Distribution {
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

/// `ExportMetricsServiceRequest` of the `OpenMetrics` text of the manager `node`, whose counters began at
/// `since`; times are in nanoseconds since the epoch.
pub(super) fn request(node: &str, text: &str, since: u64, now: u64) -> Vec<u8> {
    let families = read(text);
    let families = families.iter().filter(|family| !family.numbers.is_empty() || !family.histograms.is_empty());
    let metrics =
        WireMessage::default().message(1, &scope()).messages(2, families, |family| metric(family, since, now));
    let of_resource = WireMessage::default().message(1, &resource(node)).message(2, &metrics);
    WireMessage::default().message(1, &of_resource).done()
}

/// `Metric`.
fn metric(family: &Family, since: u64, now: u64) -> WireMessage {
    let Family { name, help, kind, numbers, histograms } = family;
    let unit: &[u8] = if name.ends_with("_seconds") { b"s" } else { b"" };
    let head = WireMessage::default().bytes(1, name.as_bytes()).bytes(2, help.as_bytes()).bytes(3, unit);
    let number = |(labels, value): &(Labels, f64)| {
        let point = WireMessage::default().fixed(2, since).fixed(3, now).double(4, *value);
        point.messages(7, labels, label)
    };
    let histogram = |(labels, of): (&Labels, &Distribution)| {
        let point = WireMessage::default().fixed(2, since).fixed(3, now).fixed(4, of.count).double(5, of.sum);
        // The last bucket has no bound, and each counts what is above the one before.
        let bounds = of.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        let before = std::iter::once(0).chain(of.buckets.iter().map(|(_, count)| *count));
        let counts = of.buckets.iter().zip(before).map(|((_, count), before)| count.saturating_sub(before));
        let point = point.packed(6, counts).packed(7, bounds.map(f64::to_bits));
        point.messages(9, labels, label)
    };
    match kind.as_str() {
        "counter" => {
            let sum = WireMessage::default().messages(1, numbers, number).number(2, CUMULATIVE).number(3, 1);
            head.message(7, &sum)
        }
        "histogram" => {
            head.message(9, &WireMessage::default().messages(1, histograms, histogram).number(2, CUMULATIVE))
        }
        _ => head.message(5, &WireMessage::default().messages(1, numbers, number)),
    }
}

fn label((key, value): &(String, String)) -> WireMessage {
    attribute((key, &Value::Text(value.clone())))
}

/// The families of a text that this program wrote.
fn read(text: &str) -> Vec<Family> {
    let (mut families, mut help): (Vec<Family>, String) = (Vec::new(), String::new());
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            help = about.split_once(' ').map(|(_, about)| unescaped(about)).unwrap_or_default();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (name, kind, help) = (name.to_owned(), kind.to_owned(), std::mem::take(&mut help));
            families.push(Family { name, help, kind, ..Family::default() });
        } else if let (Some(family), Some((sample, value))) = (families.last_mut(), line.rsplit_once(' '))
            && !line.starts_with('#')
        {
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            take(family, name, labels_of(labels), value);
        }
    }
    families
}

/// Takes in one sample.
fn take(family: &mut Family, name: &str, mut labels: Labels, value: &str) {
    let Ok(number) = value.parse::<f64>() else { return };
    if family.kind != "histogram" {
        family.numbers.push((labels, number));
        return;
    }
    let bound = labels.iter().position(|(key, _)| key == "le").map(|at| labels.remove(at).1);
    let of = family.histograms.entry(labels).or_default();
    let count = value.parse().unwrap_or(0);
    match (name.rsplit('_').next(), bound) {
        (Some("sum"), _) => of.sum = number,
        (Some("count"), _) => of.count = count,
        (_, Some(bound)) => of.buckets.push((bound.parse().unwrap_or(f64::INFINITY), count)),
        _ => {}
    }
}

/// The labels before the closing brace.
fn labels_of(mut text: &str) -> Labels {
    let mut labels = Vec::new();
    while let Some((key, rest)) = text.split_once("=\"") {
        let mut escaped = false;
        let end = rest.find(|c: char| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        let Some(end) = end else { break };
        labels.push((key.trim_start_matches(',').to_owned(), unescaped(&rest[..end])));
        text = &rest[end + 1..];
    }
    labels
}

fn unescaped(text: &str) -> String {
    let (mut plain, mut chars) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (c, _) => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read_as_it_was_written() {
        let text = "# HELP a A \\\"b\\\".\n# TYPE a counter\na_total{p=\"x,\\\"y\\\\z\",q=\"1\"} 3\na_total{p=\"} 4\",q=\"\"} 5\n\
                    # HELP h H.\n# TYPE h histogram\nh_sum{r=\"/v1\"} 1.5\nh_count{r=\"/v1\"} 3\n\
                    h_bucket{le=\"0.5\",r=\"/v1\"} 1\nh_bucket{le=\"+Inf\",r=\"/v1\"} 3\n# TYPE g gauge\ng 0\n# EOF\n";
        let families = read(text);
        let [a, h, g] = &families[..] else { panic!("{families:?}") };
        assert_eq!((a.name.as_str(), a.help.as_str()), ("a", "A \"b\"."));
        let of = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let expected = [(of(&[("p", "x,\"y\\z"), ("q", "1")]), 3.0), (of(&[("p", "} 4"), ("q", "")]), 5.0)];
        assert_eq!(a.numbers, expected);
        let distribution = Distribution { sum: 1.5, count: 3, buckets: vec![(0.5, 1), (f64::INFINITY, 3)] };
        assert_eq!(h.histograms, [(of(&[("r", "/v1")]), distribution)].into());
        assert_eq!(g.numbers, [(Labels::new(), 0.0)]);
    }

    #[test]
    fn a_family_without_samples_is_left_out() {
        let empty = request("n", "# TYPE a counter\n# EOF\n", 1, 2);
        assert_eq!(empty, request("n", "", 1, 2));
        assert!(request("n", "# TYPE a counter\na_total 1\n", 1, 2).len() > empty.len());
    }
}
