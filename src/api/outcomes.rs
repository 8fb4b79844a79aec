//! Outcomes of responses: the outcome, the number of agents per outcome, and the reason for each
//! agent where it is not in force (promise 14). The store holds the facts, the domain the rule, and
//! the hub the presence of agents.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::outcome::{
    AgentOutcome, ResponseOutcome, Telling, of_agent, of_one_shot, of_response, one_shot_words, words,
};
use crate::domain::presence::Presence;
use crate::engine::peers::Elsewhere;
use crate::store::database::Result;
use crate::store::database::columns::id;
use crate::store::ledger::outcomes::{self, AgentFacts, Became, Known};
use crate::store::ledger::responses::{self, ResponseFilter};
use crate::views::responses::{AgentOutcomeView, JudgedResponse, OutcomeView, ResponseRow};

/// Agents listed per response of a list; a single response shows more.
pub const LISTED: i64 = 10;
/// Responses read per batch while filtering by outcome.
const BATCH: i64 = 500;
/// Maximum number of responses read for one page.
const SCANNED: usize = 5000;

/// Adds the outcomes to those of the responses that are visible, with at most `shown` agents each. A response that
/// also has hidden agents is shown without them, and without counts.
///
/// # Errors
/// If the store cannot be read.
pub async fn judge(
    state: &AppState,
    visible: &Visible<'_>,
    rows: Vec<ResponseRow>,
    shown: i64,
) -> Result<Vec<JudgedResponse>> {
    let mut all = outcomes::of(&state.engine.db, &rows, shown).await?;
    let elsewhere = state.engine.elsewhere().await?;
    let mut judged = Vec::with_capacity(rows.len());
    for mut response in rows {
        if !visible.response(&response)? {
            continue;
        }
        let mut outcome = view(state, &elsewhere, &response, all.remove(&response.id));
        if visible.cut_agents(&mut response)? {
            outcome.agent_outcomes.retain(|agent| visible.agent(&agent.agent_id));
            outcome.agents_by_outcome = None;
            outcome.agents_unverified = 0;
        }
        let d3fend = state.engine.countermeasures(Some(&response.action));
        judged.push(JudgedResponse { response, outcome, d3fend });
    }
    Ok(judged)
}

/// A page of at most `limit` responses, newest first, older than `before`, optionally with this
/// `outcome`, and the cursor of the next page. A page reads at most [`SCANNED`] responses.
///
/// # Errors
/// If the store cannot be read.
pub async fn page_of(
    state: &AppState,
    visible: &Visible<'_>,
    filter: ResponseFilter,
    outcome: Option<ResponseOutcome>,
    mut before: Option<Uuid>,
    limit: i64,
) -> Result<(Vec<JudgedResponse>, Option<String>)> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut found, mut scanned) = (Vec::new(), 0);
    let batch = if outcome.is_none() && visible.is_everything() { limit + 1 } else { BATCH };
    loop {
        let rows = responses::list(&state.engine.db, filter.clone(), before, batch).await?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < batch);
        scanned += rows.len();
        let oldest = rows.last().map(|row| row.id.clone());
        let judged = judge(state, visible, rows, LISTED).await?;
        found.extend(judged.into_iter().filter(|judged| outcome.is_none() || judged.outcome.outcome == outcome));
        if found.len() > wanted {
            found.truncate(wanted);
            let next = found.last().map(|judged| judged.response.id.clone());
            return Ok((found, next));
        }
        if is_last {
            return Ok((found, None));
        }
        if scanned >= SCANNED {
            return Ok((found, oldest));
        }
        before = oldest.as_deref().map(id).transpose()?;
    }
}

fn view(state: &AppState, elsewhere: &Elsewhere, response: &ResponseRow, became: Option<Became>) -> OutcomeView {
    let Some(Became { counts, unverified, agents }) = became else {
        return OutcomeView {
            outcome: None,
            agents_by_outcome: None,
            agents_unverified: 0,
            agent_outcomes: Vec::new(),
        };
    };
    OutcomeView {
        outcome: of_response(response.state, response.one_shot, counts),
        agents_by_outcome: Some(counts),
        agents_unverified: unverified,
        agent_outcomes: agents.into_iter().filter_map(|facts| told(state, elsewhere, facts)).collect(),
    }
}

fn told(state: &AppState, elsewhere: &Elsewhere, agent: AgentFacts) -> Option<AgentOutcomeView> {
    let AgentFacts { agent_id, name, last_seen_at, known } = agent;
    let engine = &state.engine;
    let agent_uuid = agent_id.parse::<Uuid>().ok();
    let heard = agent_uuid.and_then(|agent| engine.hub.last_heard(agent));
    let presence = agent_uuid.map(|agent| engine.presence(agent, elsewhere, engine.clock.now()));
    let telling = |reason| Telling {
        reason,
        presence,
        away_since: heard.max(last_seen_at),
        held_back: engine.held_back(),
        ..Telling::default()
    };
    let (outcome, reason) = match &known {
        Known::Hold { facts, reason, until, failed_reverts, holder } => {
            let holder = holder.as_ref().map(|(response, policy)| held_by(response, policy.as_deref(), *until));
            let is_over = until.is_some_and(|until| until <= engine.clock.now());
            let (until, failed_reverts) = (*until, *failed_reverts);
            let telling = Telling { failed_reverts, until, is_over, holder, ..telling(reason) };
            (of_agent(facts), words(facts, &telling)?)
        }
        Known::OneShot { state, is_observed, reason } => {
            let away = presence == Some(Presence::Away);
            (of_one_shot(*state, *is_observed), one_shot_words(*state, *is_observed, away, reason))
        }
        Known::Waits { due_at } => (AgentOutcome::Pending, format!("pending: its wave is due at {due_at}")),
    };
    let fleet = engine.fleet.load();
    let agent = name.or_else(|| agent_uuid.and_then(|agent| fleet.get(agent)).map(|agent| agent.name.clone()));
    Some(AgentOutcomeView { agent: agent.unwrap_or_else(|| agent_id.clone()), agent_id, outcome, reason })
}

fn held_by(response: &str, policy: Option<&str>, until: Option<Timestamp>) -> String {
    let whose = policy.map_or_else(|| "made by hand".to_owned(), |policy| format!("of policy {policy}"));
    let until = until.map_or_else(|| "it is lifted by hand".to_owned(), |until| until.to_string());
    format!("response {response} {whose} until {until}")
}
