//! Policies: the list with what each did in a day, and one with its text, counts, tests, versions and
//! the difference between two of them.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;

use super::client::Trouble;
use super::format::{Moment, count, past};
use super::page::{PageResult, html};
use super::paths::{segment, with_query};
use super::policy_text::{DiffLine, WrittenPolicy, WrittenVersion, diff};
use super::responses::Line;
use super::session::Session;
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::right::Right;
use crate::views::page::Page;
use crate::views::policies::{BreakerRow, PolicyCounts, PolicySummary, PolicyView};
use crate::views::responses::JudgedResponse;

pub(super) const SECTION: &str = "/policies";
const LIVE: &str = "policy.*,breaker.*,response.*";
/// Ranges of the counts: what the API takes, and in words.
const RANGES: [(&str, &str); 4] =
    [("1h", "the last hour"), ("24h", "the last 24 hours"), ("7d", "the last 7 days"), ("30d", "the last 30 days")];
const DEFAULT_RANGE: &str = "24h";
/// Versions shown.
const VERSIONS: usize = 50;
/// Newest responses shown.
const NEWEST: &str = "10";

/// The mode of a policy.
pub(super) fn mode_badge(mode: &str) -> Badge {
    match mode {
        "enforce" => Badge::new(StateTone::Good, "enforce"),
        "approve" => Badge::new(StateTone::Warn, "asks for approval"),
        "observe" => Badge::new(StateTone::Plain, "observe"),
        other => Badge::new(StateTone::Plain, other),
    }
}

/// What a policy did within a range.
#[derive(Default)]
struct PolicyDeeds {
    acted: i64,
    waits: i64,
    observed: i64,
    spared: i64,
}

/// Responses that ended without coming into force anywhere.
pub(super) const FAILED: &str = "failed";

impl PolicyDeeds {
    fn of(counts: &PolicyCounts) -> Self {
        let of = |states: &[&str]| -> i64 { states.iter().filter_map(|state| counts.responses.get(*state)).sum() };
        Self {
            acted: of(&["active", "ended"]) - counts.ended.get(FAILED).copied().unwrap_or_default(),
            waits: of(&["awaiting_approval"]),
            observed: of(&["observed"]),
            spared: of(&["spared"]),
        }
    }
}

/// A policy in the list.
struct PolicyLine {
    name: String,
    mode: Badge,
    does: String,
    note: String,
    deeds: PolicyDeeds,
    stopped: Option<String>,
    warnings: usize,
}

/// What a policy does, in one line.
fn does(summary: &PolicySummary) -> String {
    let respond = &summary.respond;
    let on = match &respond.on {
        Value::String(word) => word.clone(),
        other => other.to_string(),
    };
    let duration = respond.duration.as_ref().map_or_else(|| "until lifted".to_owned(), |span| format!("for {span}"));
    format!("{} on {on}, {duration}", respond.action)
}

/// Fields of a policy's document that are shown on their own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DocumentExtras {
    note: String,
    tests: Vec<DocumentTest>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DocumentTest {
    name: String,
    fires: bool,
}

/// What stopped itself, in words.
fn stopped(view: &PolicyView) -> Option<String> {
    match (&view.stopped, view.stopped_agents.len()) {
        (Some(breaker), _) => Some(format!("stopped: {}", breaker.reason)),
        (None, 0) => None,
        (None, some) => Some(format!("stopped on {}", count(i64::try_from(some).unwrap_or(i64::MAX), "agent"))),
    }
}

/// The page of the list, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoliciesQuestion {
    cursor: String,
}

#[derive(Template)]
#[template(path = "policies.html")]
struct PoliciesPage {
    shell: Shell,
    lines: Vec<PolicyLine>,
    next: Option<String>,
    is_first: bool,
    may_write: bool,
}

/// The list.
pub(super) async fn list(session: Session, Query(asked): Query<PoliciesQuestion>) -> PageResult {
    let path = with_query("/v1/policies", [("limit", "50"), ("cursor", asked.cursor.as_str())]);
    let page: Page<PolicyView> = session.api.get(&path).await?;
    let lines = join_all(page.items.iter().map(|view| line(&session, view))).await;
    let lines = lines.into_iter().collect::<Result<Vec<_>, Trouble>>()?;
    let next = page.next_cursor.as_deref().map(|cursor| with_query("/policies", [("cursor", cursor)]));
    let shell = session.shell("Policies", SECTION, LIVE).await?;
    let may_write = session.may(Right::WritePolicies);
    html(&PoliciesPage { shell, lines, next, is_first: asked.cursor.is_empty(), may_write })
}

async fn line(session: &Session, view: &PolicyView) -> Result<PolicyLine, Trouble> {
    let summary: PolicySummary = summary(view)?;
    let extras: DocumentExtras = view.policy.read().unwrap_or_default();
    let counts = counts(session, &summary.name, DEFAULT_RANGE).await?;
    Ok(PolicyLine {
        mode: mode_badge(&summary.mode),
        does: does(&summary),
        note: extras.note,
        deeds: PolicyDeeds::of(&counts),
        stopped: stopped(view),
        warnings: view.warnings.len(),
        name: summary.name,
    })
}

pub(super) fn summary(view: &PolicyView) -> Result<PolicySummary, Trouble> {
    let read = view.policy.read();
    read.map_err(|error| Trouble::Broken(format!("the policy cannot be read: {error}")))
}

pub(super) async fn counts(session: &Session, name: &str, within: &str) -> Result<PolicyCounts, Trouble> {
    let path = format!("/v1/policies/{}/counts", segment(name));
    session.api.get(&with_query(&path, [("within", within)])).await
}

/// What is shown of one policy, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PolicyQuestion {
    within: String,
    from: Option<i64>,
    to: Option<i64>,
}

/// A version in the list.
struct VersionLine {
    version: i64,
    when: Moment,
    by: String,
    /// The version before, if it is shown.
    before: Option<i64>,
    is_current: bool,
    is_deletion: bool,
}

/// A breaker on one agent.
struct StoppedOn {
    agent: String,
    reason: String,
    when: Moment,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    shell: Shell,
    name: String,
    path: String,
    mode: Badge,
    does: String,
    version: i64,
    text: String,
    warnings: Vec<(String, String)>,
    stopped: Option<(BreakerRow, Moment, String)>,
    stopped_agents: Vec<StoppedOn>,
    within: String,
    ranges: [(&'static str, &'static str); 4],
    counted: Vec<(String, i64)>,
    spared: Vec<(String, i64)>,
    observed: Vec<(String, i64)>,
    failing: Option<String>,
    tests: Vec<(String, bool)>,
    versions: Vec<VersionLine>,
    has_more_versions: bool,
    compared: Option<(i64, i64)>,
    diff: Vec<DiffLine>,
    lines: Vec<Line>,
    may_write: bool,
}

/// One policy.
pub(super) async fn one(session: Session, Path(name): Path<String>, Query(asked): Query<PolicyQuestion>) -> PageResult {
    let WrittenPolicy { view, version, text } = session.policy(&name).await?;
    let summary = summary(&view)?;
    let within = RANGES.iter().find(|(word, _)| *word == asked.within).map_or(DEFAULT_RANGE, |(word, _)| *word);
    let counts = counts(&session, &name, within).await?;
    let (versions, has_more_versions) = session.policy_versions(&name, VERSIONS).await?;
    let newest = with_query("/v1/responses", [("policy", name.as_str()), ("limit", NEWEST)]);
    let newest: Page<JudgedResponse> = session.api.get(&newest).await?;
    let compared = compared(&versions, &asked);
    let diff = compared.map(|(from, to)| {
        let text = |version| versions.iter().find(|row| row.version == version).and_then(|row| row.text.as_deref());
        diff(text(from).unwrap_or_default(), text(to).unwrap_or_default())
    });
    let extras: DocumentExtras = view.policy.read().unwrap_or_default();
    let shell = session.shell(format!("Policy {name}"), SECTION, LIVE).await?;
    let now = session.now();
    let stopped_agents = view.stopped_agents.iter().map(|breaker| StoppedOn {
        agent: breaker.agent.clone(),
        reason: breaker.reason.clone(),
        when: past(breaker.changed_at, now),
    });
    let stopped = view.stopped.clone().map(|row| {
        let (when, by) = (past(row.changed_at, now), session.actor(&row.changed_by));
        (row, when, by)
    });
    let page = PolicyPage {
        shell,
        path: format!("/policies/{}", segment(&name)),
        mode: mode_badge(&summary.mode),
        does: does(&summary),
        version,
        text,
        warnings: view.warnings.iter().map(|fault| (fault.pointer.clone(), fault.detail.clone())).collect(),
        stopped_agents: stopped_agents.collect(),
        stopped,
        within: within.to_owned(),
        ranges: RANGES,
        counted: spelled(&counts.responses),
        spared: spelled(&counts.spared),
        observed: spelled(&counts.observed),
        failing: failing(&counts),
        tests: extras.tests.into_iter().map(|test| (test.name, test.fires)).collect(),
        versions: version_lines(&session, &versions, version),
        has_more_versions,
        compared,
        diff: diff.unwrap_or_default(),
        lines: newest.items.iter().map(|judged| session.line(judged)).collect(),
        may_write: session.may(Right::WritePolicies),
        name,
    };
    html(&page)
}

/// The two versions to compare: those of the address, else the newest with the one before.
fn compared(versions: &[WrittenVersion], asked: &PolicyQuestion) -> Option<(i64, i64)> {
    let known = |version: &i64| versions.iter().any(|row| row.version == *version);
    let to = asked.to.filter(known).or_else(|| versions.first().map(|row| row.version))?;
    let before = || versions.iter().map(|row| row.version).find(|version| *version < to);
    let from = asked.from.filter(known).or_else(before)?;
    Some((from, to))
}

fn version_lines(session: &Session, versions: &[WrittenVersion], current: i64) -> Vec<VersionLine> {
    let befores = versions.iter().skip(1).map(|row| Some(row.version)).chain([None]);
    let lines = versions.iter().zip(befores).map(|(row, before)| VersionLine {
        version: row.version,
        when: past(row.at, session.now()),
        by: session.actor(&row.by),
        before,
        is_current: row.version == current,
        is_deletion: row.text.is_none(),
    });
    lines.collect()
}

/// Counts by a word, the largest first.
pub(super) fn spelled(counts: &BTreeMap<String, i64>) -> Vec<(String, i64)> {
    let mut spelled: Vec<(String, i64)> =
        counts.iter().map(|(word, number)| (word.replace('_', " "), *number)).collect();
    spelled.sort_by_key(|(_, number)| -number);
    spelled
}

/// That conditions of the policy fail, if any does.
fn failing(counts: &PolicyCounts) -> Option<String> {
    let failed = counts.conditions_failed.as_ref()?;
    let faults = count(i64::try_from(failed.fault).unwrap_or(i64::MAX), "time");
    let missing = count(i64::try_from(failed.missing_field).unwrap_or(i64::MAX), "time");
    Some(format!(
        "Since this manager started its conditions failed {faults} by a fault and {missing} because a field was missing, \
         which is normal if a condition fits only some alerts. The last reason: {}",
        failed.last
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use riposte_protocol::time::Timestamp;

    fn version(version: i64) -> WrittenVersion {
        WrittenVersion { version, at: Timestamp::from_millis(0).into(), by: String::new(), text: Some(String::new()) }
    }

    #[test]
    fn the_newest_version_is_compared_with_the_one_before() {
        let versions = [version(3), version(2), version(1)];
        let asked = |from, to| PolicyQuestion { from, to, ..PolicyQuestion::default() };
        assert_eq!(compared(&versions, &asked(None, None)), Some((2, 3)));
        assert_eq!(compared(&versions, &asked(Some(1), Some(3))), Some((1, 3)));
        assert_eq!(compared(&versions, &asked(Some(9), Some(2))), Some((1, 2)), "an unknown version is left out");
        assert_eq!(compared(&versions[2..], &asked(None, None)), None);
    }

    #[test]
    fn what_a_policy_does_is_one_line() {
        let summary = serde_json::json!({"name": "p", "mode": "observe",
            "respond": {"action": "firewall-drop", "on": {"labels": {"env": "prod"}}, "for": "10m"}});
        let summary: PolicySummary = serde_json::from_value(summary).unwrap();
        assert_eq!(does(&summary), r#"firewall-drop on {"labels":{"env":"prod"}}, for 10m"#);
    }
}
