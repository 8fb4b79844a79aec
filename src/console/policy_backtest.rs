//! A draft over the stored alerts, beside the version in force: what it would have done, which alerts
//! would get a response that got none, which would lose theirs, and what would spare them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use askama::Template;
use axum::http::StatusCode;
use uuid::Uuid;

use super::client::Trouble;
use super::page::{PageResult, html, with_status};
use super::paths::segment;
use super::policies::SECTION;
use super::policy_text::{WrittenPolicy, read};
use super::session::{SentForm, Session};
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::duration::Span;
use crate::views::backtest::{BacktestReport, NewBacktest, Sample};

/// Examples that are asked for: as many as the API returns.
const SAMPLES: usize = 1000;
/// Examples of each kind that are shown.
const SHOWN: usize = 50;
/// The outcome of what a guardrail keeps from acting.
const SPARED: &str = "spare";

/// A figure of both reports.
struct FigureRow {
    what: String,
    draft: u64,
    in_force: Option<u64>,
    /// With its sign; empty if nothing changes.
    change: String,
}

impl FigureRow {
    fn new(what: impl Into<String>, draft: u64, in_force: Option<u64>) -> Self {
        let change = match in_force {
            Some(before) if draft > before => format!("+{}", draft - before),
            Some(before) if draft < before => format!("−{}", before - draft),
            _ => String::new(),
        };
        Self { what: what.into(), draft, in_force, change }
    }
}

/// An alert with what would become of it.
struct SampleLine {
    alert: Uuid,
    at: String,
    rule: String,
    target: String,
    agents: usize,
    badge: Badge,
    reason: String,
}

impl SampleLine {
    fn of(sample: &Sample) -> Self {
        let badge = match sample.outcome.as_str() {
            "act" => Badge::new(StateTone::Good, "acts"),
            "ask" => Badge::new(StateTone::Warn, "asks for approval"),
            SPARED => Badge::new(StateTone::Plain, "spared"),
            other => Badge::new(StateTone::Plain, other),
        };
        Self {
            alert: sample.alert_id,
            at: sample.time.to_string(),
            rule: sample.rule_id.clone(),
            target: sample.target.clone().unwrap_or_default(),
            agents: sample.agents,
            badge,
            reason: sample.reason.clone().unwrap_or_default(),
        }
    }

    /// An alert that the draft does not act on: it spares it, or does not match.
    fn gone(sample: &Sample) -> Self {
        let line = Self::of(sample);
        if sample.outcome == SPARED {
            line
        } else {
            Self { badge: Badge::new(StateTone::Plain, "does not match"), ..line }
        }
    }
}

/// Some alerts of one kind.
struct SampleList {
    title: &'static str,
    about: &'static str,
    lines: Vec<SampleLine>,
    more: usize,
}

impl SampleList {
    fn new(title: &'static str, about: &'static str, samples: &[&Sample], line: fn(&Sample) -> SampleLine) -> Self {
        let lines = samples.iter().take(SHOWN).map(|sample| line(sample)).collect();
        Self { title, about, lines, more: samples.len().saturating_sub(SHOWN) }
    }
}

#[derive(Template)]
#[template(path = "backtest.html")]
struct BacktestPage {
    shell: Shell,
    name: String,
    /// Where the form goes back to.
    action: String,
    text: String,
    version: String,
    range: String,
    fault: Option<String>,
    in_force: Option<i64>,
    figures: Vec<FigureRow>,
    lists: Vec<SampleList>,
    /// Whether the lists end before the range does.
    is_partial: bool,
}

/// Runs it.
pub(super) async fn run(session: Session, form: SentForm) -> PageResult {
    let (text, range) = (form.get("document"), form.get("range"));
    let mut page = BacktestPage {
        shell: session.shell("Backtest", SECTION, "").await?,
        name: String::new(),
        action: match form.get("name") {
            "" => "/policies/new".to_owned(),
            edited => format!("/policies/{}/edit", segment(edited)),
        },
        text: text.to_owned(),
        version: form.get("version").to_owned(),
        range: range.to_owned(),
        fault: None,
        in_force: None,
        figures: Vec::new(),
        lists: Vec::new(),
        is_partial: false,
    };
    let document = match read(text) {
        Ok(document) => document,
        Err(fault) => {
            page.fault = Some(fault.detail);
            return with_status(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
    };
    document["name"].as_str().unwrap_or_default().clone_into(&mut page.name);
    match both(&session, document, &page.name, range).await {
        Ok((draft, in_force)) => {
            page.fill(&draft, in_force.as_ref());
            html(&page)
        }
        Err(trouble) => {
            page.fault = Some(trouble.to_string());
            with_status(trouble.status(), &page)
        }
    }
}

type InForce = (i64, BacktestReport);

/// The report of the draft, and that of the version in force, if there is one.
async fn both(
    session: &Session,
    document: serde_json::Value,
    name: &str,
    range: &str,
) -> Result<(BacktestReport, Option<InForce>), Trouble> {
    let since = Span::from_str(range).ok().map(|span| session.now().minus(span.duration()));
    // The same end for both, so that an alert that arrives meanwhile is in neither.
    let until = Some(session.now());
    let ask = |policy| NewBacktest { policy, since, until, samples: Some(SAMPLES) };
    let draft: BacktestReport = session.api.post("/v1/policies/backtest", &ask(document)).await?;
    let stored = match session.policy(name).await {
        Ok(stored) => Some(stored),
        Err(trouble) if name.is_empty() || trouble.status() == StatusCode::NOT_FOUND => None,
        Err(trouble) => return Err(trouble),
    };
    let Some(WrittenPolicy { view, version, .. }) = stored else { return Ok((draft, None)) };
    let policy = view.policy.read();
    let policy = policy.map_err(|error| Trouble::Broken(format!("the policy cannot be read: {error}")))?;
    let in_force: BacktestReport = session.api.post("/v1/policies/backtest", &ask(policy)).await?;
    Ok((draft, Some((version, in_force))))
}

impl BacktestPage {
    fn fill(&mut self, draft: &BacktestReport, in_force: Option<&InForce>) {
        let other = in_force.map(|(_, report)| report);
        self.in_force = in_force.map(|(version, _)| *version);
        self.figures = figures(draft, other);
        match other {
            Some(other) => {
                let Compared { added, gone, is_partial } = compare(draft, other);
                self.is_partial = is_partial;
                let about = "They would get a response by this text, and get none by the version in force.";
                let added = SampleList::new("Added", about, &added, SampleLine::of);
                let about = "They get a response by the version in force, and would get none by this text. Where a \
                             guardrail would spare them, it says which.";
                self.lists = vec![added, SampleList::new("Gone", about, &gone, SampleLine::gone)];
            }
            None => {
                let all: Vec<&Sample> = draft.samples.iter().collect();
                self.is_partial = is_cut(draft);
                self.lists = vec![SampleList::new("Alerts", "The first alerts that match.", &all, SampleLine::of)];
            }
        }
    }
}

fn figures(draft: &BacktestReport, other: Option<&BacktestReport>) -> Vec<FigureRow> {
    let of = |what: &str, read: fn(&BacktestReport) -> u64| FigureRow::new(what, read(draft), other.map(read));
    let mut rows = vec![
        of("Alerts read", |report| report.alerts_scanned),
        of("Alerts that match", |report| report.matched),
        of("Responses", |report| report.responses),
        of("of these waiting for approval", |report| report.awaiting_approval),
        of("Different targets", |report| report.targets),
        of("Agents reached", |report| report.agents),
        of("Most responses in one minute", |report| report.peak_per_minute),
    ];
    let others = other.map(|report| &report.spared);
    let reasons: BTreeSet<&String> = draft.spared.keys().chain(others.into_iter().flat_map(BTreeMap::keys)).collect();
    rows.extend(reasons.into_iter().map(|reason| {
        let count = |report: &BacktestReport| report.spared.get(reason).copied().unwrap_or_default();
        FigureRow::new(format!("Spared: {}", reason.replace('_', " ")), count(draft), other.map(count))
    }));
    rows
}

/// How two reports differ in their examples.
struct Compared<'a> {
    added: Vec<&'a Sample>,
    gone: Vec<&'a Sample>,
    is_partial: bool,
}

fn is_cut(report: &BacktestReport) -> bool {
    report.samples.len() >= SAMPLES
}

/// Compares the examples. Both reports list them by the id of the alert, so where one of them was cut, only those up to its
/// last one are compared.
fn compare<'a>(draft: &'a BacktestReport, in_force: &'a BacktestReport) -> Compared<'a> {
    let ends = [draft, in_force].into_iter().filter(|report| is_cut(report));
    let end = ends.filter_map(|report| report.samples.last()).map(|sample| sample.alert_id).min();
    let within = |report: &'a BacktestReport| -> BTreeMap<Uuid, &'a Sample> {
        let samples = report.samples.iter().filter(|sample| end.is_none_or(|end| sample.alert_id <= end));
        samples.map(|sample| (sample.alert_id, sample)).collect()
    };
    let (mine, theirs) = (within(draft), within(in_force));
    let acts =
        |samples: &BTreeMap<Uuid, &Sample>, id: &Uuid| samples.get(id).is_some_and(|sample| sample.outcome != SPARED);
    let added = mine.iter().filter(|(id, _)| acts(&mine, id) && !acts(&theirs, id));
    let gone = theirs.iter().filter(|(id, _)| acts(&theirs, id) && !acts(&mine, id));
    // Why the draft spares it says more than that the version in force acts.
    let gone = gone.map(|(id, sample)| mine.get(id).copied().unwrap_or(*sample));
    Compared { added: added.map(|(_, sample)| *sample).collect(), gone: gone.collect(), is_partial: end.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use riposte_protocol::time::Timestamp;

    fn sample(id: u128, outcome: &str) -> Sample {
        Sample {
            alert_id: Uuid::from_u128(id),
            time: Timestamp::from_millis(0),
            rule_id: "5712".to_owned(),
            outcome: outcome.to_owned(),
            reason: (outcome == "spare").then(|| "the address is protected".to_owned()),
            target: None,
            agents: 1,
        }
    }

    fn report(samples: Vec<Sample>) -> BacktestReport {
        BacktestReport { samples, ..BacktestReport::default() }
    }

    fn ids(samples: &[&Sample]) -> Vec<u128> {
        samples.iter().map(|sample| sample.alert_id.as_u128()).collect()
    }

    #[test]
    fn what_is_added_and_gone_is_told_apart_from_what_is_spared() {
        let draft = report(vec![sample(1, "act"), sample(2, "spare"), sample(4, "ask")]);
        let in_force = report(vec![sample(2, "act"), sample(3, "act"), sample(4, "spare")]);
        let Compared { added, gone, is_partial } = compare(&draft, &in_force);
        assert_eq!((ids(&added), ids(&gone), is_partial), (vec![1, 4], vec![2, 3], false));
        assert_eq!(gone[0].reason.as_deref(), Some("the address is protected"));
    }

    #[test]
    fn nothing_is_said_about_alerts_behind_the_last_example() {
        let all: Vec<Sample> = (0..1000).map(|id| sample(id, "act")).collect();
        let in_force = report(vec![sample(5, "act"), sample(2000, "act")]);
        let compared = compare(&report(all.clone()), &in_force).gone.len();
        assert_eq!(compared, 0, "the draft may reach alert 2000 too");
        assert!(compare(&report(all), &in_force).is_partial);
    }
}
