//! Alerts: the list, and one alert with its raw text and why each policy fires on it or not. What was
//! not taken in is in `rejected.rs`.

use std::str::FromStr as _;

use askama::Template;
use axum::extract::{Path, Query};
use riposte_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::format::{Moment, past};
use super::page::{PageResult, html, with_status};
use super::paths::{segment, with_query};
use super::responses::Line;
use super::session::Session;
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::alert::{Observable, Observables};
use crate::domain::duration::Span;
use crate::domain::right::Right;
use crate::views::alerts::AlertView;
use crate::views::explain::{Explanation, PolicyVerdict};
use crate::views::page::Page;

const SECTION: &str = "/alerts";
/// No event tells of an alert without a response, so these pages follow the responses.
const LIVE: &str = "response.*,incident.alerts_late";

/// The filter of the list, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AlertQuestion {
    rule_id: String,
    min_level: String,
    agent_id: String,
    source_id: String,
    since: String,
    until: String,
    cursor: String,
}

impl AlertQuestion {
    fn pairs(&self) -> [(&'static str, &str); 6] {
        [
            ("rule_id", self.rule_id.as_str()),
            ("min_level", self.min_level.as_str()),
            ("agent_id", self.agent_id.as_str()),
            ("source_id", self.source_id.as_str()),
            ("since", self.since.as_str()),
            ("until", self.until.as_str()),
        ]
    }

    fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.trim().is_empty())
    }
}

/// An age such as `24h` as the time that it means; any other text as it is.
pub(super) fn instant(text: &str, now: Timestamp) -> String {
    match Span::from_str(text.trim()) {
        Ok(span) => now.minus(span.duration()).to_string(),
        Err(_) => text.trim().to_owned(),
    }
}

/// An alert in a list.
struct AlertLine {
    id: String,
    when: Moment,
    rule: String,
    level: u8,
    description: String,
    agent: String,
    about: String,
    pipeline: String,
}

impl AlertLine {
    fn of(alert: &AlertView, now: Timestamp) -> Self {
        let agent = [&alert.agent.name, &alert.agent.id].into_iter().flatten().next();
        let about = observables(&alert.observables).into_iter().map(|(_, seen)| seen.value.clone());
        Self {
            id: alert.id.clone(),
            when: past(alert.time.into(), now),
            rule: alert.rule.id.clone(),
            level: alert.rule.level,
            description: alert.rule.description.clone(),
            agent: agent.cloned().unwrap_or_default(),
            about: about.take(2).collect::<Vec<_>>().join(", "),
            pipeline: alert.pipeline.clone(),
        }
    }
}

/// The observables that the alert has, by their names in policies.
fn observables(all: &Observables) -> Vec<(&'static str, &Observable)> {
    let fields = [
        ("source.ip", &all.source_ip),
        ("source.user", &all.source_user),
        ("destination.ip", &all.destination_ip),
        ("destination.user", &all.destination_user),
        ("file.path", &all.file_path),
        ("process.id", &all.process_id),
        ("process name", &all.process_name),
    ];
    fields.into_iter().filter_map(|(name, seen)| Some((name, seen.as_ref()?))).collect()
}

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    shell: Shell,
    asked: AlertQuestion,
    lines: Vec<AlertLine>,
    next: Option<String>,
    /// Why the filter is refused.
    fault: Option<String>,
    is_filtered: bool,
    may_manage: bool,
}

/// The list of alerts.
pub(super) async fn list(session: Session, Query(asked): Query<AlertQuestion>) -> PageResult {
    let now = session.now();
    let (since, until) = (instant(&asked.since, now), instant(&asked.until, now));
    let given = asked.pairs().map(|(name, value)| match name {
        "since" => (name, since.as_str()),
        "until" => (name, until.as_str()),
        _ => (name, value),
    });
    let path = with_query("/v1/alerts", given.into_iter().chain([("cursor", asked.cursor.as_str())]));
    let (page, fault) = match session.api.get::<Page<AlertView>>(&path).await {
        Ok(page) => (page, None),
        Err(trouble) if trouble.status().is_client_error() => {
            (Page { items: Vec::new(), next_cursor: None }, Some((trouble.status(), trouble.to_string())))
        }
        Err(trouble) => return Err(trouble.into()),
    };
    let next = page.next_cursor.as_deref();
    let next = next.map(|cursor| with_query("/alerts", asked.pairs().into_iter().chain([("cursor", cursor)])));
    let shell = session.shell("Alerts", SECTION, if asked.cursor.is_empty() { LIVE } else { "" }).await?;
    let (status, fault) = fault.unzip();
    let page = AlertsPage {
        shell,
        lines: page.items.iter().map(|alert| AlertLine::of(alert, now)).collect(),
        next,
        fault,
        is_filtered: !asked.is_empty(),
        may_manage: session.may(Right::Administer),
        asked,
    };
    match status {
        Some(status) => with_status(status, &page),
        None => html(&page),
    }
}

/// What a policy makes of the alert now.
struct VerdictLine {
    policy: String,
    version: i64,
    fires: bool,
    badge: Badge,
    reason: String,
    selectors: Vec<String>,
}

impl VerdictLine {
    fn of(verdict: PolicyVerdict) -> Self {
        let badge = match verdict.verdict.as_deref() {
            _ if !verdict.fires => Badge::new(StateTone::Plain, "does not match"),
            Some("act") => Badge::new(StateTone::Good, "would act"),
            Some("ask") => Badge::new(StateTone::Warn, "would wait for approval"),
            Some("observe") => Badge::new(StateTone::Plain, "would only observe"),
            Some("spare") => Badge::new(StateTone::Warn, "would be spared"),
            Some(other) => Badge::new(StateTone::Plain, other),
            None => Badge::new(StateTone::Plain, "matches"),
        };
        let selectors = verdict.selectors.iter().enumerate().map(|(index, selector)| {
            let number = index + 1;
            match &selector.because {
                Some(because) => format!("Selector {number} does not hold: {because}"),
                None => format!("Selector {number} holds"),
            }
        });
        Self {
            selectors: selectors.collect(),
            policy: verdict.policy,
            version: verdict.version,
            fires: verdict.fires,
            badge,
            reason: verdict.reason.unwrap_or_default(),
        }
    }
}

#[derive(Template)]
#[template(path = "alert.html")]
struct AlertPage {
    shell: Shell,
    description: String,
    facts: Vec<(&'static str, String)>,
    observables: Vec<(&'static str, String, String)>,
    raw: String,
    lines: Vec<Line>,
    verdicts: Vec<VerdictLine>,
    firing: usize,
}

/// One alert.
pub(super) async fn one(session: Session, Path(id): Path<String>) -> PageResult {
    let alert: AlertView = session.api.get(&format!("/v1/alerts/{}", segment(&id))).await?;
    // The pipeline's id can name several alerts; from here on the alert's own id is used.
    let explained: Explanation = session.api.get(&format!("/v1/alerts/{}/explain", segment(&alert.id))).await?;
    let shell = session.shell(format!("Alert of rule {}", alert.rule.id), SECTION, LIVE).await?;
    let mut verdicts: Vec<VerdictLine> = explained.now.into_iter().map(VerdictLine::of).collect();
    verdicts.sort_by_key(|verdict| !verdict.fires);
    let origin = match (&explained.origin, &explained.origin_ambiguous) {
        (Some(id), _) => session.agent(&id.to_string()),
        (None, Some(why)) => format!("not known: {why}"),
        (None, None) => "no enrolled agent".to_owned(),
    };
    let seen = observables(&alert.observables).into_iter();
    let page = AlertPage {
        shell,
        description: alert.rule.description.clone(),
        facts: facts(&alert, origin),
        observables: seen.map(|(name, seen)| (name, seen.value.clone(), seen.field.clone())).collect(),
        raw: alert.raw.as_deref().map(|raw| pretty(raw.get())).unwrap_or_default(),
        lines: explained.decided.iter().map(|judged| session.line(judged)).collect(),
        firing: verdicts.iter().filter(|verdict| verdict.fires).count(),
        verdicts,
    };
    html(&page)
}

fn facts(alert: &AlertView, origin: String) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Time", alert.time.to_string()),
        ("Rule", alert.rule.id.clone()),
        ("Level", alert.rule.level.to_string()),
    ];
    for (name, list) in [("Groups", &alert.rule.groups), ("ATT&CK", &alert.rule.mitre)] {
        if !list.is_empty() {
            facts.push((name, list.join(", ")));
        }
    }
    let agent = &alert.agent;
    let named = [
        ("Agent", &agent.name),
        ("Agent id", &agent.id),
        ("Wazuh manager", &agent.manager),
        ("Cluster", &agent.cluster),
    ];
    facts.extend(named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    facts.push(("Riposte's agent", origin));
    facts.push(("Pipeline", alert.pipeline.clone()));
    facts.push(("Id there", alert.pipeline_id.clone()));
    facts.push(("Id", alert.id.clone()));
    facts
}

/// JSON with a line for each field; a text that is no JSON as it is.
pub(super) fn pretty(text: &str) -> String {
    let read: Result<Value, _> = serde_json::from_str(text);
    read.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_time_and_other_text_stays() {
        let now = Timestamp::from_millis(1_795_169_472_000);
        assert_eq!(instant(" 1h ", now), now.minus(std::time::Duration::from_hours(1)).to_string());
        assert_eq!(instant("2026-11-20T10:00:00Z", now), "2026-11-20T10:00:00Z");
        assert_eq!(instant("", now), "");
    }

    #[test]
    fn raw_text_gets_a_line_for_each_field() {
        assert_eq!(pretty(r#"{"a":{"b":1}}"#), "{\n  \"a\": {\n    \"b\": 1\n  }\n}");
        assert_eq!(pretty("<x>"), "<x>");
    }
}
