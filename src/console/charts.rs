//! Charts: bars as SVG that the manager makes, each with its table. What they show is as the API counts
//! it: responses by policy, what guardrails spared, failed commands, and the time to contain.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template;
use axum::extract::Query;
use futures_util::future::join_all;
use serde::Deserialize;

use super::client::Trouble;
use super::metrics_text::HistogramBuckets;
use super::page::{PageResult, html};
use super::policies::{FAILED, counts, summary};
use super::session::Session;
use super::shell::Shell;
use super::system::SECTION;
use crate::views::page::Page;
use crate::views::policies::{PolicyCounts, PolicyView};
use crate::views::statistics::{ActionFailures, Statistics, StatisticsStep};

/// Width of the longest bar, in units of the drawing.
const LONGEST: i64 = 220;
/// Where bars begin, right of their names.
const LEFT: i64 = 165;
/// Height of a bar with the gap below it.
const ROW: i64 = 22;
/// Characters of a name in the drawing; the table has the whole.
const NAME_LENGTH: usize = 24;
/// Bars of a chart; the table has all rows.
const BARS: usize = 30;
/// Policies whose counts are added up.
const POLICIES: usize = 100;
const RANGES: [(&str, &str); 3] =
    [("24h", "the last 24 hours"), ("7d", "the last 7 days"), ("30d", "the last 30 days")];
/// Length of a step in each of them.
const STEPS: [(&str, &str); 3] = [("24h", "1h"), ("7d", "6h"), ("30d", "1d")];
/// Quantiles of the time to contain.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.50), ("p95", 0.95), ("p99", 0.99)];

/// A bar in the drawing.
struct ChartBar {
    name: String,
    value: String,
    y: i64,
    /// Baseline of its texts.
    baseline: i64,
    width: i64,
    /// Where the value stands.
    end: i64,
}

/// A chart with its table.
struct BarChart {
    title: &'static str,
    about: String,
    /// Head of the table: what a row is, and what is counted.
    head: (&'static str, &'static str),
    bars: Vec<ChartBar>,
    height: i64,
    rows: Vec<(String, String)>,
}

impl BarChart {
    /// A chart of rows: name, length, and the value in words.
    fn new(
        title: &'static str,
        about: impl Into<String>,
        head: (&'static str, &'static str),
        rows: Vec<(String, i64, String)>,
    ) -> Self {
        let most = rows.iter().map(|(_, length, _)| *length).max().unwrap_or_default().max(1);
        let mut bars = Vec::new();
        let mut y = 2;
        for (name, length, value) in rows.iter().take(BARS) {
            // A value above zero has a bar that can be seen.
            let width = (length.saturating_mul(LONGEST) / most).max(i64::from(*length > 0));
            bars.push(ChartBar {
                name: cut(name),
                value: value.clone(),
                y,
                baseline: y + 13,
                width,
                end: LEFT + width + 6,
            });
            y += ROW;
        }
        let rows = rows.into_iter().map(|(name, _, value)| (name, value)).collect();
        Self { title, about: about.into(), head, bars, height: y, rows }
    }

    /// A chart of counts, the largest first.
    fn of_counts(
        title: &'static str,
        about: impl Into<String>,
        head: (&'static str, &'static str),
        counts: BTreeMap<String, i64>,
    ) -> Self {
        let mut counts: Vec<(String, i64)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|(_, count)| -count);
        let rows = counts.into_iter().map(|(name, count)| (name.replace('_', " "), count, count.to_string()));
        Self::new(title, about, head, rows.collect())
    }
}

/// A name that fits left of the bars.
fn cut(name: &str) -> String {
    if name.chars().count() <= NAME_LENGTH {
        return name.to_owned();
    }
    let kept: String = name.chars().take(NAME_LENGTH - 1).collect();
    format!("{kept}…")
}

/// The range, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChartsQuestion {
    within: String,
}

#[derive(Template)]
#[template(path = "charts.html")]
struct ChartsPage {
    shell: Shell,
    within: String,
    ranges: [(&'static str, &'static str); 3],
    charts: Vec<BarChart>,
    left: i64,
    is_partial: bool,
}

/// The page.
pub(super) async fn page(session: Session, Query(asked): Query<ChartsQuestion>) -> PageResult {
    let within = RANGES.iter().map(|(word, _)| *word).find(|word| *word == asked.within).unwrap_or("24h");
    let policies: Page<PolicyView> = session.api.get(&format!("/v1/policies?limit={POLICIES}")).await?;
    let counted = join_all(policies.items.iter().map(|view| counts_of(&session, view, within))).await;
    let counted = counted.into_iter().collect::<Result<Vec<_>, Trouble>>()?;
    let mut charts = over_time(&session, within).await?;
    charts.extend([responses_chart(&counted), spared_chart(&counted), contain_chart(&session, &counted).await?]);
    let page = ChartsPage {
        shell: session.shell("Charts", SECTION, "").await?,
        within: within.to_owned(),
        ranges: RANGES,
        charts,
        left: LEFT - 6,
        is_partial: policies.next_cursor.is_some(),
    };
    html(&page)
}

async fn counts_of(session: &Session, view: &PolicyView, within: &str) -> Result<PolicyCounts, Trouble> {
    let name = summary(view)?.name;
    counts(session, &name, within).await
}

fn responses_chart(counted: &[PolicyCounts]) -> BarChart {
    let acted = |counts: &PolicyCounts| {
        let acted = ["active", "ended"].into_iter().filter_map(|state| counts.responses.get(state));
        let in_vain = counts.ended.get(FAILED).copied().unwrap_or_default();
        (counts.policy.clone(), acted.sum::<i64>() - in_vain)
    };
    let about = "Responses that acted in the chosen time, by policy. Responses by hand are not among them.";
    BarChart::of_counts("Responses by policy", about, ("Policy", "Responses"), counted.iter().map(acted).collect())
}

fn spared_chart(counted: &[PolicyCounts]) -> BarChart {
    let mut spared = BTreeMap::new();
    for (reason, count) in counted.iter().flat_map(|counts| &counts.spared) {
        *spared.entry(reason.clone()).or_insert(0) += count;
    }
    let about = "Responses that a guardrail kept from acting in the chosen time, by its reason.";
    BarChart::of_counts("Spared by guardrail", about, ("Reason", "Responses"), spared)
}

/// Alerts and responses of each step, and what failed; nothing for a person whose scope leaves some agents out.
async fn over_time(session: &Session, within: &str) -> Result<Vec<BarChart>, Trouble> {
    if !session.who.scopes.is_empty() {
        return Ok(Vec::new());
    }
    let step = STEPS.iter().find(|(range, _)| *range == within).map_or("1h", |(_, step)| *step);
    let path = format!("/v1/statistics?within={within}&step={step}");
    let statistics: Statistics = session.api.get(&path).await?;
    let bars = |count: fn(&StatisticsStep) -> i64| {
        let bar = |step: &StatisticsStep| (began(step), count(step), count(step).to_string());
        statistics.steps.iter().rev().map(bar).collect()
    };
    let acted = |step: &StatisticsStep| ["active", "ended"].iter().filter_map(|state| step.responses.get(*state)).sum();
    let mut failures = BTreeMap::new();
    for ActionFailures { action, count, .. } in &statistics.failures {
        *failures.entry(action.clone()).or_insert(0) += count;
    }
    Ok(vec![
        BarChart::new(
            "Alerts over time",
            "Stored alerts, by when they were received; newest first.",
            ("From", "Alerts"),
            bars(|step| step.alerts),
        ),
        BarChart::new(
            "Responses over time",
            "Responses that were decided to act, by when that was; newest first.",
            ("From", "Responses"),
            bars(acted),
        ),
        BarChart::of_counts(
            "Failures by action",
            "Commands of the chosen time that failed, ran out of time, were refused or expired.",
            ("Action", "Commands"),
            failures,
        ),
    ])
}

/// The begin of a step, to the minute.
fn began(step: &StatisticsStep) -> String {
    step.at.to_string().replace('T', " ").chars().take(16).collect()
}

async fn contain_chart(session: &Session, counted: &[PolicyCounts]) -> Result<BarChart, Trouble> {
    let samples = session.metrics().await?;
    let mut by_policy = HistogramBuckets::by_label(&samples, "riposte_time_to_contain_seconds", "policy");
    // The metrics know no scopes.
    let is_limited = !session.who.scopes.is_empty();
    by_policy.retain(|policy, _| !is_limited || counted.iter().any(|counts| counts.policy == *policy));
    let mut rows = Vec::new();
    for (policy, buckets) in &by_policy {
        for (name, quantile) in QUANTILES {
            let Some((seconds, is_above)) = buckets.quantile(quantile) else { continue };
            let Ok(duration) = Duration::try_from_secs_f64(seconds) else { continue };
            let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            rows.push((format!("{policy} {name}"), millis, took(duration, is_above)));
        }
    }
    let about = "From an alert until its effect is verified in force for the first time, estimated from the histogram of this \
                 manager since it started.";
    Ok(BarChart::new("Time to contain", about, ("Policy", "Time"), rows))
}

fn took(duration: Duration, is_above: bool) -> String {
    let words = match duration.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        millis => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
    };
    if is_above { format!("more than {words}") } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let counts = [("a", 10), ("b", 5), ("c", 0)].map(|(name, count)| (name.to_owned(), count)).into();
        let chart = BarChart::of_counts("t", "", ("n", "c"), counts);
        let shown: Vec<(&str, i64)> = chart.bars.iter().map(|bar| (bar.name.as_str(), bar.width)).collect();
        assert_eq!(shown, [("a", LONGEST), ("b", LONGEST / 2)]);
        assert!(BarChart::of_counts("t", "", ("n", "c"), BTreeMap::new()).bars.is_empty());
        let tiny = BarChart::new(
            "t",
            "",
            ("n", "c"),
            vec![("a".into(), 100_000, String::new()), ("b".into(), 1, String::new())],
        );
        assert_eq!(tiny.bars[1].width, 1, "what is not zero can be seen");
    }

    #[test]
    fn a_long_name_is_cut_in_the_drawing_alone() {
        let name = "a-policy-with-a-very-long-name";
        assert_eq!(cut(name), "a-policy-with-a-very-lo…");
        let chart = BarChart::new("t", "", ("n", "c"), vec![(name.to_owned(), 1, "1".to_owned())]);
        assert_eq!(chart.rows[0].0, name);
    }

    #[test]
    fn times_are_in_words() {
        let of = |millis, is_above| took(Duration::from_millis(millis), is_above);
        assert_eq!([of(12, false), of(2_540, false), of(30_000, true)], ["12 ms", "2.5 s", "more than 30.0 s"]);
    }
}
