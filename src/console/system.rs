//! The system: whether the manager can work, and what it cannot do now; the managers with their duties;
//! what is stored; the key that signs commands.

use askama::Template;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, StatusCode};

use super::client::Trouble;
use super::format::{Moment, past};
use super::metrics_text::MetricSample;
use super::page::{PageResult, html};
use super::session::Session;
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::views::health::Readiness;
use crate::views::nodes::{Node, NodeState};
use crate::views::page::Page;
use crate::views::problem::Problem;
use crate::views::signing_key::SigningKeyView;

pub(super) const SECTION: &str = "/system";
/// Largest answer of `/readyz`, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// A round that is later than this is shown as late.
const LATE_MILLIS: u64 = 5_000;
/// Milliseconds by which a clock may be off before it is shown as wrong.
const CLOCK_OFF: u64 = 1_000;
/// Agents shown that have not confirmed a new signing key.
const WAITING: usize = 20;

/// A stage at its last round.
struct StageLine {
    name: String,
    badge: Badge,
    last: Option<Moment>,
    took: String,
    fault: String,
}

/// A manager.
struct NodeLine {
    name: String,
    badge: Badge,
    is_asked: bool,
    version: String,
    started: Moment,
    duties: String,
    behind: i64,
    clock: String,
    is_clock_off: bool,
}

/// What is known of readiness.
enum Ready {
    Known(Box<Readiness>),
    /// The manager refuses to say, such as while it stops.
    Refused(String),
}

#[derive(Template)]
#[template(path = "system.html")]
struct SystemPage {
    shell: Shell,
    badge: Badge,
    problems: Vec<String>,
    warnings: Vec<String>,
    is_frozen: bool,
    facts: Vec<(&'static str, String)>,
    stages: Vec<StageLine>,
    nodes: Vec<NodeLine>,
    figures: Vec<(String, String)>,
    key: Vec<(&'static str, String)>,
    has_recovery_key: bool,
    waiting: Vec<(String, String)>,
    more_waiting: usize,
}

/// The page.
pub(super) async fn page(session: Session) -> PageResult {
    let ready = readiness(&session).await?;
    let nodes: Page<Node> = session.api.get("/v1/nodes").await?;
    let key: SigningKeyView = session.api.get("/v1/signing-key").await?;
    let samples = session.metrics().await?;
    let (problems, warnings, stages, facts) = match ready {
        Ready::Known(ready) => {
            let stages = stages(&session, &ready);
            let facts = facts(&ready);
            (ready.problems, ready.warnings, stages, facts)
        }
        Ready::Refused(why) => (vec![why], Vec::new(), Vec::new(), Vec::new()),
    };
    let badge = match (problems.is_empty(), warnings.is_empty()) {
        (false, _) => Badge::new(StateTone::Bad, "not ready"),
        (true, false) => Badge::new(StateTone::Warn, "ready, needs attention"),
        (true, true) => Badge::new(StateTone::Good, "ready"),
    };
    let waiting = key.rotation.iter().flat_map(|rotation| &rotation.waiting).take(WAITING);
    let waiting: Vec<_> = waiting.map(|agent| (agent.name.clone(), agent.reason.clone())).collect();
    let more_waiting = key.rotation.as_ref().map_or(0, |rotation| rotation.waiting_count.saturating_sub(waiting.len()));
    let page = SystemPage {
        shell: session.shell("System", SECTION, "freeze.*,incident.*,breaker.*").await?,
        badge,
        problems,
        warnings,
        is_frozen: session.is_frozen(),
        facts,
        stages,
        nodes: nodes.items.iter().map(|node| node_line(&session, node)).collect(),
        figures: figures(&samples),
        has_recovery_key: key.recovery_key.is_some(),
        key: key_facts(&session, &key),
        waiting,
        more_waiting,
    };
    html(&page)
}

/// What `/readyz` says; it answers 503 while the manager cannot work, with the same body.
async fn readiness(session: &Session) -> Result<Ready, Trouble> {
    let answer = session.api.call(Method::GET, "/readyz?verbose=true", HeaderMap::new(), Body::empty()).await?;
    let status = answer.status();
    let body = to_bytes(answer.into_body(), MAX_ANSWER).await;
    let body = body.map_err(|error| Trouble::Broken(format!("the answer of /readyz broke off: {error}")))?;
    if let Ok(ready) = serde_json::from_slice::<Readiness>(&body) {
        return Ok(Ready::Known(Box::new(ready)));
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if status == StatusCode::SERVICE_UNAVAILABLE => Ok(Ready::Refused(problem.detail)),
        _ => Err(Trouble::Broken(format!("/readyz was answered with {status}"))),
    }
}

fn facts(ready: &Readiness) -> Vec<(&'static str, String)> {
    let rejecting = ready.agents_rejecting.map_or_else(|| "not known now".to_owned(), |number| number.to_string());
    vec![
        ("Writer's queue", format!("{:.0} % full", ready.writer_load * 100.0)),
        ("Agents with a stream to this manager", ready.agents_streaming.to_string()),
        ("Agents that rejected commands in the last hour", rejecting),
    ]
}

fn stages(session: &Session, ready: &Readiness) -> Vec<StageLine> {
    let lines = ready.stages.iter().map(|(name, round)| StageLine {
        name: name.replace('_', " "),
        badge: match &round.fault {
            Some(_) => Badge::new(StateTone::Bad, "failing"),
            None if round.late_millis > LATE_MILLIS => {
                Badge::new(StateTone::Warn, format!("{} s late", round.late_millis / 1000))
            }
            None => Badge::new(StateTone::Good, "on time"),
        },
        last: round.last_finished_at.map(|at| past(at.into(), session.now())),
        took: format!("{} ms", round.took_millis),
        fault: round.fault.clone().unwrap_or_default(),
    });
    lines.collect()
}

fn node_line(session: &Session, node: &Node) -> NodeLine {
    let badge = match node.state {
        NodeState::Serving => Badge::new(StateTone::Good, "serving"),
        NodeState::Starting => Badge::new(StateTone::Warn, "starting"),
        NodeState::Lost => Badge::new(StateTone::Bad, "lost"),
    };
    let duties = node.duties.iter().map(|duty| match duty.late_seconds {
        Some(late) if late > 0 => format!("{} ({late} s late)", duty.name),
        _ => duty.name.clone(),
    });
    NodeLine {
        name: node.name.clone(),
        badge,
        is_asked: node.asked,
        version: node.version.clone(),
        started: past(node.started_at.into(), session.now()),
        duties: duties.collect::<Vec<_>>().join(", "),
        behind: node.changes_behind,
        clock: format!("{} ms", node.clock_off_millis),
        is_clock_off: node.clock_off_millis.unsigned_abs() > CLOCK_OFF,
    }
}

/// Metrics about what is stored, with the labels by which they are told apart.
const FIGURES: [(&str, &str, &[&str]); 10] = [
    ("riposte_agents", "Agents", &["presence"]),
    ("riposte_effects", "Effects", &["desired", "actual"]),
    ("riposte_effects_failing", "Effects that could not be lifted", &[]),
    ("riposte_commands_owed", "Commands that no agent has acknowledged", &["state"]),
    ("riposte_breakers_open", "Open breakers", &["scope"]),
    ("riposte_agents_silent", "Agents without a message for 5 minutes", &[]),
    ("riposte_alerts_total", "Alerts since this manager started", &["outcome"]),
    ("riposte_responses_total", "Responses decided since this manager started", &["state"]),
    ("riposte_results_total", "Results since this manager started", &["outcome"]),
    ("riposte_seal_breaches", "Rows that another program has changed", &[]),
];

fn figures(samples: &[MetricSample]) -> Vec<(String, String)> {
    let mut figures = Vec::new();
    for (name, words, labels) in FIGURES {
        for sample in samples.iter().filter(|sample| sample.name == name) {
            let told: Vec<String> = labels.iter().map(|label| sample.label(label).replace('_', " ")).collect();
            let told = told.join(", actually ");
            figures.push((if told.is_empty() { words.to_owned() } else { format!("{words}: {told}") }, sample.shown()));
        }
    }
    figures
}

fn key_facts(session: &Session, key: &SigningKeyView) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Key", key.kid.clone()), ("Public key", key.public_key.clone())];
    facts.push(("Recovery key", key.recovery_key.clone().unwrap_or_else(|| "none".to_owned())));
    if let Some(rotation) = &key.rotation {
        facts.push(("Rotation", format!("to {}, since {}", rotation.kid, rotation.started_at)));
        facts.push(("Started by", session.actor(&rotation.started_by)));
        facts.push(("Confirmed by agents", format!("{}, {} have not", rotation.confirmed, rotation.waiting_count)));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_names_what_tells_it_apart() {
        let labels = [("desired", "in_force"), ("actual", "drifted")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let sample = MetricSample { name: "riposte_effects".to_owned(), labels: labels.into(), value: 3.0 };
        assert_eq!(figures(&[sample]), [("Effects: in force, actually drifted".to_owned(), "3".to_owned())]);
    }
}
