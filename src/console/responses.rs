//! Responses: the list, and one with its timeline: alert, decision, approval, and on each agent what
//! was queued, delivered, applied, verified and reverted, with the gaps named.

use askama::Template;
use axum::extract::{Path, Query};
use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;
use serde::Deserialize;

use super::format::{Moment, coming, past, span};
use super::page::{PageResult, html};
use super::paths::{segment, with_query};
use super::session::Session;
use super::shell::Shell;
use super::words::{self, Badge, StateTone};
use crate::domain::outcome::{AgentOutcome, ResponseOutcome};
use crate::domain::response::{Decision, ResponseState};
use crate::domain::right::Right;
use crate::views::alerts::AlertView;
use crate::views::audit::AuditRow;
use crate::views::columns::Millis;
use crate::views::commands::{CommandRow, ResultRow};
use crate::views::page::Page;
use crate::views::responses::{JudgedResponse, ResponseRow, ResponseView};

/// Events after which these pages are loaded anew.
pub(super) const LIVE: &str = "response.*,approval.*,effect.*,command.*,freeze.*";
/// The most agents and commands of which the API tells with one response.
const TOLD: usize = 500;

/// A response in a list.
pub(super) struct Line {
    pub(super) id: String,
    pub(super) when: Moment,
    pub(super) badge: Badge,
    pub(super) counts: String,
    pub(super) action: String,
    pub(super) aim: String,
    pub(super) by: String,
    pub(super) why: String,
    pub(super) until: Option<Moment>,
}

impl Session {
    /// A response as a list shows it.
    pub(super) fn line(&self, judged: &JudgedResponse) -> Line {
        let JudgedResponse { response, outcome, .. } = judged;
        let why = [response.note.as_str(), response.detail.as_str()].into_iter().find(|text| !text.is_empty());
        let is_live = response.state == ResponseState::Active;
        Line {
            id: response.id.clone(),
            when: past(response.created_at, self.now()),
            badge: words::response(response, outcome),
            counts: words::counts(outcome),
            action: response.action.clone(),
            aim: words::aim(response),
            by: self.by(response),
            why: why.unwrap_or_default().to_owned(),
            until: response.until.filter(|_| is_live).map(|until| coming(until, self.now())),
        }
    }

    /// Who decided on a response.
    pub(super) fn by(&self, response: &ResponseRow) -> String {
        response.policy.as_ref().map_or_else(|| self.actor(&response.requested_by), |policy| format!("policy {policy}"))
    }
}

/// The filter of the list, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResponsesQuestion {
    state: String,
    outcome: String,
    policy: String,
    target: String,
    action: String,
    cursor: String,
}

#[derive(Template)]
#[template(path = "responses.html")]
struct ListPage {
    shell: Shell,
    filter: ResponsesQuestion,
    states: Vec<(&'static str, String)>,
    outcomes: Vec<(&'static str, String)>,
    lines: Vec<Line>,
    next: Option<String>,
    may_respond: bool,
}

/// The list of responses.
pub(super) async fn list(session: Session, Query(filter): Query<ResponsesQuestion>) -> PageResult {
    let pairs = |cursor: &'static str| {
        let ResponsesQuestion { state, outcome, policy, target, action, .. } = &filter;
        let pairs =
            [("state", state), ("outcome", outcome), ("policy", policy), ("target", target), ("action", action)];
        (cursor, pairs.map(|(name, value)| (name, value.as_str())))
    };
    let (_, given) = pairs("");
    let path = with_query("/v1/responses", given.into_iter().chain([("cursor", filter.cursor.as_str())]));
    let page: Page<JudgedResponse> = session.api.get(&path).await?;
    let next =
        page.next_cursor.map(|cursor| with_query("/responses", given.into_iter().chain([("cursor", cursor.as_str())])));
    let shell = session.shell("Responses", "/responses", if filter.cursor.is_empty() { LIVE } else { "" }).await?;
    let states = ResponseState::ALL.map(|state| (state.as_str(), state.as_str().replace('_', " "))).to_vec();
    let outcomes = ResponseOutcome::ALL.map(|outcome| (outcome.as_str(), outcome.as_str().replace('_', " "))).to_vec();
    let lines = page.items.iter().map(|judged| session.line(judged)).collect();
    let may_respond = session.may(Right::Respond);
    html(&ListPage { shell, filter, states, outcomes, lines, next, may_respond })
}

/// One step of a timeline.
pub(super) struct TimelineStep {
    at: Option<Moment>,
    tone: StateTone,
    /// Whether it says that something is missing.
    is_gap: bool,
    words: String,
    detail: String,
    /// Output of a program.
    output: String,
}

impl TimelineStep {
    fn new(at: Millis, now: Timestamp, tone: StateTone, words: impl Into<String>) -> Self {
        let at = Some(past(at, now));
        Self { at, tone, is_gap: false, words: words.into(), detail: String::new(), output: String::new() }
    }

    fn gap(words: impl Into<String>) -> Self {
        Self {
            at: None,
            tone: StateTone::Plain,
            is_gap: true,
            words: words.into(),
            detail: String::new(),
            output: String::new(),
        }
    }

    fn saying(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }
}

/// What became of a response on one agent.
struct OnAgent {
    name: String,
    badge: Badge,
    reason: String,
    steps: Vec<TimelineStep>,
}

#[derive(Template)]
#[template(path = "response.html")]
#[expect(clippy::struct_excessive_bools, reason = "what the template shows or leaves out")]
struct OnePage {
    shell: Shell,
    response: ResponseRow,
    line: Line,
    alert: Option<AlertView>,
    decision: Vec<TimelineStep>,
    agents: Vec<OnAgent>,
    history: Vec<(Moment, String, String, String)>,
    facts: Vec<(&'static str, String)>,
    target_path: Option<String>,
    may_lift: bool,
    may_approve: bool,
    may_confirm: bool,
    may_bundle: bool,
    /// Whether there are more agents or commands than the page shows.
    is_cut: bool,
}

/// One response.
pub(super) async fn one(session: Session, Path(id): Path<String>) -> PageResult {
    let id = segment(&id);
    let view: ResponseView = session.api.get(&format!("/v1/responses/{id}")).await?;
    let audit: Page<AuditRow> = session.api.get(&format!("/v1/audit?noun=response&noun_id={id}&limit=200")).await?;
    let response = view.response.response.clone();
    let alert: Option<AlertView> = match &response.alert_id {
        Some(alert) => session.found(&format!("/v1/alerts/{}", segment(alert))).await?,
        None => None,
    };
    let now = session.now();
    let history = audit.items.iter().rev().map(|entry| {
        let what = format!("{} {}", entry.noun, entry.verb.replace('_', " "));
        (past(entry.at, now), session.actor(&entry.actor), what, entry.detail.clone())
    });
    let shell = session.shell(format!("{} {}", response.action, words::aim(&response)), "/responses", LIVE).await?;
    let target = response.target_kind.as_deref().zip(response.target_value.as_deref());
    let target = target.filter(|(kind, value)| !matches!(*kind, "none" | "host") && !value.is_empty());
    let may = session.may(Right::Respond);
    let page = OnePage {
        shell,
        line: session.line(&view.response),
        decision: decision(&session, &view, alert.as_ref()),
        agents: on_agents(&session, &view),
        history: history.collect(),
        facts: facts(&session, &view),
        target_path: target.map(|(kind, value)| format!("/targets/{kind}/{}", segment(value))),
        may_lift: may && response.state == ResponseState::Active && !response.one_shot,
        may_approve: session.may(Right::Approve) && response.state == ResponseState::AwaitingApproval,
        may_confirm: session.may(Right::Approve)
            && response.state == ResponseState::Active
            && response.confirm_by.is_some(),
        may_bundle: session.may(Right::Read),
        is_cut: view.commands.len() >= TOLD || view.effects.len() >= TOLD,
        alert,
        response,
    };
    html(&page)
}

fn facts(session: &Session, view: &ResponseView) -> Vec<(&'static str, String)> {
    let response = &view.response.response;
    let mut facts =
        vec![("Action", response.action.clone()), ("Target", words::aim(response)), ("By", session.by(response))];
    let arguments: Vec<String> = response.arguments.read().unwrap_or_default();
    if !arguments.is_empty() {
        facts.push(("Arguments", arguments.join(" ")));
    }
    for (name, text) in [("Reason", &response.note), ("Why", &response.detail)] {
        if !text.is_empty() {
            facts.push((name, text.clone()));
        }
    }
    if let Some(case) = &response.case_ref {
        facts.push(("Case", case.clone()));
    }
    if let Some(by) = &response.break_glass {
        facts.push(("Break-glass", session.actor(by)));
    }
    let ids = [("ATT&CK", response.mitre.as_ref().and_then(|ids| ids.read::<Vec<String>>().ok()).unwrap_or_default())];
    for (name, ids) in ids.into_iter().chain([("D3FEND", view.response.d3fend.clone())]) {
        if !ids.is_empty() {
            facts.push((name, ids.join(", ")));
        }
    }
    facts.push(("Id", response.id.clone()));
    facts
}

/// Alert, decision, approvals, end.
fn decision(session: &Session, view: &ResponseView, alert: Option<&AlertView>) -> Vec<TimelineStep> {
    let (response, now) = (&view.response.response, session.now());
    let mut steps = Vec::new();
    match alert {
        Some(alert) => {
            let what = format!("Alert of rule {}, level {}", alert.rule.id, alert.rule.level);
            steps.push(
                TimelineStep::new(alert.time.into(), now, StateTone::Plain, what)
                    .saying(alert.rule.description.clone()),
            );
        }
        None if response.alert_id.is_some() => {
            steps.push(TimelineStep::gap("The alert is not kept any more, or you may not see it."));
        }
        None => {}
    }
    let decided = match response.state {
        ResponseState::Spared => "spared",
        ResponseState::Observed => "observed only",
        _ => "decided",
    };
    let by = session.by(response);
    let tone = if response.state == ResponseState::Spared { StateTone::Warn } else { StateTone::Good };
    steps.push(
        TimelineStep::new(response.created_at, now, tone, format!("{by}: {decided}")).saying(response.note.clone()),
    );
    for answer in &view.answers {
        let (tone, said) = match answer.answer {
            Decision::Approve => (StateTone::Good, "approved"),
            Decision::Reject => (StateTone::Bad, "rejected"),
            Decision::Confirm => (StateTone::Good, "confirmed"),
        };
        let step = TimelineStep::new(answer.at, now, tone, format!("{} {said}", session.actor(&answer.principal)));
        steps.push(step.saying(answer.reason.clone()));
    }
    if let (ResponseState::AwaitingApproval, Some(by)) = (response.state, response.answer_by) {
        let quorum = response.quorum.unwrap_or(1);
        let people = if quorum == 1 { "one person".to_owned() } else { format!("{quorum} people") };
        steps.push(TimelineStep::gap(format!("Waits for {people}, for {} more", coming(by, now).words)));
    }
    if let Some(at) = response.ended_at {
        let why = response.reason.as_deref().unwrap_or("ended").replace('_', " ");
        steps.push(
            TimelineStep::new(at, now, StateTone::Plain, format!("The response ended: {why}"))
                .saying(response.detail.clone()),
        );
    }
    steps
}

fn on_agents(session: &Session, view: &ResponseView) -> Vec<OnAgent> {
    let outcomes = view.response.outcome.agent_outcomes.iter().map(|on| {
        let badge = match on.outcome {
            // Agents that have verified it are not among those that have something to report.
            AgentOutcome::InForce => Badge::new(StateTone::Warn, "in force"),
            AgentOutcome::Pending => Badge::new(StateTone::Warn, "pending"),
            AgentOutcome::Failed => Badge::new(StateTone::Bad, "failed"),
            AgentOutcome::Lifted => Badge::new(StateTone::Plain, "lifted"),
        };
        (on.agent_id.clone(), on.agent.clone(), badge, on.reason.clone())
    });
    let mut agents: Vec<(String, String, Badge, String)> = outcomes.collect();
    for effect in &view.effects {
        if !agents.iter().any(|(id, ..)| *id == effect.agent_id) {
            agents.push((
                effect.agent_id.clone(),
                session.agent(&effect.agent_id),
                words::effect(effect),
                String::new(),
            ));
        }
    }
    let of = |id: &str| {
        let mut commands: Vec<&CommandRow> = view.commands.iter().filter(|command| command.agent_id == *id).collect();
        commands.sort_by_key(|command| command.seq);
        commands.into_iter().flat_map(|command| steps_of(session, command, &view.results)).collect()
    };
    agents.into_iter().map(|(id, name, badge, reason)| OnAgent { steps: of(&id), name, badge, reason }).collect()
}

/// Queued, delivered, acknowledged, and what the agent answered.
fn steps_of(session: &Session, command: &CommandRow, results: &[ResultRow]) -> Vec<TimelineStep> {
    let now = session.now();
    let op = command.op.as_str();
    let mut steps = vec![TimelineStep::new(command.created_at, now, StateTone::Plain, format!("{op} queued"))];
    let times = command.deliveries;
    match command.delivered_at {
        Some(at) if times > 1 => {
            steps.push(TimelineStep::new(at, now, StateTone::Plain, format!("{op} delivered, {times} times in all")));
        }
        Some(at) => steps.push(TimelineStep::new(at, now, StateTone::Plain, format!("{op} delivered"))),
        None if command.finished_at.is_none() => {
            steps.push(TimelineStep::gap("Not delivered yet: the agent has not been here"));
        }
        None => {}
    }
    match command.acknowledged_at {
        Some(at) => steps.push(TimelineStep::new(at, now, StateTone::Plain, format!("{op} acknowledged by the agent"))),
        None if command.delivered_at.is_some() && command.finished_at.is_none() => {
            steps.push(TimelineStep::gap("The agent has not acknowledged it yet"));
        }
        None => {}
    }
    match results.iter().find(|result| result.command_id == command.id) {
        Some(result) => {
            let verified = match result.verified {
                _ if result.observed => ", only observed",
                Some(true) => ", verified",
                Some(false) if command.op == Op::Revert => ", still there afterwards",
                Some(false) => ", not found afterwards",
                None => ", cannot be verified",
            };
            let took = Timestamp::from(result.finished_at).since(result.started_at.into());
            let outcome = result.outcome.as_str().replace('_', " ");
            let what = format!("{op} {outcome}{verified}");
            let code = result.exit_code.map_or_else(String::new, |code| format!(" Exit code {code}."));
            let detail = format!(
                "{}{code} Took {}.",
                result.message,
                if took.as_secs() == 0 { format!("{} ms", took.as_millis()) } else { span(took) }
            );
            let step = TimelineStep::new(result.received_at, now, words::result(result.outcome), what).saying(detail);
            steps.push(TimelineStep { output: result.output.clone(), ..step });
        }
        None => {
            if let Some(at) = command.finished_at {
                let badge = words::command(command.state);
                steps.push(
                    TimelineStep::new(at, now, badge.tone, format!("{op} {}", badge.words))
                        .saying(command.detail.clone()),
                );
            } else if command.acknowledged_at.is_some() {
                steps.push(TimelineStep::gap("No result yet"));
            }
        }
    }
    steps
}
