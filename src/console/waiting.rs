//! What waits for people: the queue at the left; at the right what would happen on each agent, how
//! much of the fleet that is, what silence does and when, and what is known of the target.

use askama::Template;
use axum::extract::Query;
use serde::Deserialize;

use super::format::{Moment, coming, count};
use super::page::{PageFailure, PageResult, html};
use super::paths::{segment, with_query};
use super::responses::Line;
use super::session::Session;
use super::shell::Shell;
use super::words::{self, Badge, StateTone};
use crate::domain::right::Right;
use crate::engine::webhooks::news::{WaitingResponse, what_waits};
use crate::views::agents::AgentView;
use crate::views::alerts::AlertView;
use crate::views::page::Page;
use crate::views::responses::{JudgedResponse, ResponseView};

const LIVE: &str = "response.*,approval.*,freeze.*";
/// The most responses that are put in the order of their deadlines.
const QUEUED: usize = 5000;
/// Responses that the queue shows.
const SHOWN: usize = 200;
/// Agents named with a response that waits.
const NAMED: usize = 50;
/// Former responses on the same target that are shown.
const HISTORY: usize = 8;

/// Which one is shown at the right.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WaitingQuestion {
    id: String,
}

struct Queued {
    line: Line,
    answer_by: Option<Moment>,
    is_current: bool,
}

/// An agent on which a waiting response would act.
struct Concerned {
    name: String,
    badge: Badge,
}

struct Detail {
    line: Line,
    lines: Vec<(String, String)>,
    silence: Option<String>,
    share: String,
    agents: Vec<Concerned>,
    more_agents: usize,
    alert: Option<AlertView>,
    history: Vec<Line>,
    answers: Vec<String>,
    may_decide: bool,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingPage {
    shell: Shell,
    queue: Vec<Queued>,
    hidden: usize,
    is_more: bool,
    detail: Option<Detail>,
}

/// The page.
pub(super) async fn page(session: Session, Query(chosen): Query<WaitingQuestion>) -> PageResult {
    let (mut waiting, mut more) = (Vec::new(), Some(String::new()));
    while let Some(cursor) = more.take_if(|_| waiting.len() < QUEUED) {
        let pairs = [("state", "awaiting_approval"), ("limit", "500"), ("cursor", cursor.as_str())];
        let page: Page<JudgedResponse> = session.api.get(&with_query("/v1/responses", pairs)).await?;
        waiting.extend(page.items);
        more = page.next_cursor;
    }
    // What is decided for them first comes first.
    waiting.sort_by_key(|judged| judged.response.answer_by);
    let current = waiting.iter().find(|judged| judged.response.id == chosen.id).or(waiting.first());
    let id = current.map(|judged| judged.response.id.clone());
    let detail = match &id {
        Some(id) => Some(detail(&session, id).await?),
        None => None,
    };
    let hidden = waiting.len().saturating_sub(SHOWN);
    let is_more = more.is_some();
    let queue = waiting.iter().take(SHOWN).map(|judged| Queued {
        line: session.line(judged),
        answer_by: judged.response.answer_by.map(|by| coming(by, session.now())),
        is_current: Some(&judged.response.id) == id.as_ref(),
    });
    let queue = queue.collect();
    let shell = session.shell("Waiting", "/waiting", LIVE).await?;
    html(&WaitingPage { shell, queue, hidden, is_more, detail })
}

async fn detail(session: &Session, id: &str) -> Result<Detail, PageFailure> {
    let view: ResponseView = session.api.get(&format!("/v1/responses/{}", segment(id))).await?;
    let response = &view.response.response;
    let engine = &session.console.engine;
    let parsed = id.parse().map_err(|_| PageFailure::system("the id of a response is none"))?;
    let WaitingResponse { lines, silence } = what_waits(engine, parsed, response)
        .await
        .map_err(|error| PageFailure::system(&format!("the response cannot be read: {error}")))?;
    let alert: Option<AlertView> = match &response.alert_id {
        Some(alert) => session.found(&format!("/v1/alerts/{}", segment(alert))).await?,
        None => None,
    };
    let is_shown = |line: &String| alert.is_some() || !line.starts_with("Alert: ");
    let lines = lines.into_iter().filter(is_shown).map(|line| match line.split_once(": ") {
        Some((name, text)) => (name.to_owned(), text.to_owned()),
        None => (String::new(), line),
    });
    let ids: Vec<String> = response.agents.read().unwrap_or_default();
    // The size of the fleet is for people who may see all of it.
    let enrolled = if session.who.scopes.is_empty() { engine.fleet.load().len() } else { 0 };
    let share = share(ids.len(), enrolled);
    let mut agents = Vec::new();
    for id in ids.iter().take(NAMED) {
        let found: Option<AgentView> = session.found(&format!("/v1/agents/{}", segment(id))).await?;
        agents.push(match found {
            Some(view) => {
                let badge = words::presence(view.presence, view.agent.revoked_at.is_some());
                Concerned { name: view.agent.name, badge }
            }
            None => {
                Concerned { name: id.clone(), badge: Badge::new(StateTone::Warn, "not for you to see, or revoked") }
            }
        });
    }
    let answers = view
        .answers
        .iter()
        .map(|answer| format!("{}: {} ({})", session.actor(&answer.principal), answer.answer.as_str(), answer.reason));
    Ok(Detail {
        history: history(session, &view).await?,
        line: session.line(&view.response),
        lines: lines.collect(),
        silence,
        share,
        more_agents: ids.len().saturating_sub(NAMED),
        agents,
        alert,
        answers: answers.collect(),
        may_decide: session.may(Right::Approve),
    })
}

fn share(concerned: usize, enrolled: usize) -> String {
    let agents = count(i64::try_from(concerned).unwrap_or(i64::MAX), "agent");
    let percent = (concerned * 100).checked_div(enrolled);
    match percent {
        Some(0) => format!("{agents} of {enrolled}, less than 1 % of the fleet"),
        Some(percent) => format!("{agents} of {enrolled}, {percent} % of the fleet"),
        None => agents,
    }
}

/// What was done to the same target before.
async fn history(session: &Session, view: &ResponseView) -> Result<Vec<Line>, PageFailure> {
    let Some(target) = view.response.response.target_value.as_deref().filter(|target| !target.is_empty()) else {
        return Ok(Vec::new());
    };
    let path = with_query("/v1/responses", [("target", target), ("limit", "20")]);
    let page: Page<JudgedResponse> = session.api.get(&path).await?;
    let own = &view.response.response.id;
    let others = page.items.iter().filter(|judged| judged.response.id != *own);
    Ok(others.take(HISTORY).map(|judged| session.line(judged)).collect())
}
