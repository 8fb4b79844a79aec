//! What `riposte top` shows, as one look at the public API.

use reqwest::{Method, StatusCode};
use riposte_protocol::time::Timestamp;

use crate::cli::client::{NO_BODY, Remote};
use crate::cli::night::commands::agent_names;
use crate::cli::night::phrases::{Actors, ago, aim, counted, ends, len};
use crate::clock::Clock;
use crate::domain::presence::Presence;
use crate::views::agents::AgentView;
use crate::views::effects::EffectRow;
use crate::views::freeze::Freeze;
use crate::views::page::Page;
use crate::views::responses::JudgedResponse;
use crate::views::statistics::Statistics;

/// Rows of each list; a screen has no room for more.
const ROWS: usize = 20;

/// Counts of the last hour in steps of 5 minutes, oldest first.
#[derive(Clone, Debug, Default)]
pub struct TopRates {
    /// Alerts of each step.
    pub alerts: Vec<u64>,
    /// Responses of each step.
    pub responses: Vec<u64>,
    /// Commands that did not succeed: action, state, count.
    pub failures: Vec<(String, String, i64)>,
}

/// The agents.
#[derive(Clone, Debug, Default)]
pub struct TopAgents {
    /// Number of enrolled agents.
    pub enrolled: usize,
    /// Number of those that are away.
    pub away: usize,
    /// The first of those: name, and since when.
    pub rows: Vec<[String; 2]>,
}

/// One look.
#[derive(Clone, Debug)]
pub struct TopState {
    /// When.
    pub at: Timestamp,
    /// Rates; none if the caller sees only a part of the agents.
    pub rates: Option<TopRates>,
    /// What a freeze holds back; empty without one.
    pub frozen: String,
    /// Number of responses that wait for approval; `500 or more`.
    pub waits: String,
    /// The first of those: what, by whom, and when it lapses.
    pub waiting: Vec<[String; 3]>,
    /// Number of effects whose undo fails.
    pub fails: String,
    /// The first of those: agent, what, how often, and why.
    pub failing: Vec<[String; 4]>,
    /// The agents.
    pub agents: TopAgents,
    /// Why the next look failed.
    pub lost: Option<String>,
}

impl TopAgents {
    /// Asks for the agents.
    ///
    /// # Errors
    /// If the manager cannot be asked, or refuses.
    pub async fn of(remote: &Remote) -> anyhow::Result<Self> {
        let agents: Vec<AgentView> = remote.items("/v1/agents").await?;
        let now = Clock::system().now();
        let mut away: Vec<&AgentView> = agents.iter().filter(|view| view.presence == Presence::Away).collect();
        away.sort_by_key(|view| view.away_since);
        let row = |view: &&AgentView| {
            let since = view.away_since.map_or_else(|| "-".to_owned(), |since| ago(since, now));
            [view.agent.name.clone(), since]
        };
        // The newest first: what has just gone away matters more than what never came.
        let rows = away.iter().rev().take(ROWS).map(row).collect();
        Ok(Self { enrolled: agents.len(), away: away.len(), rows })
    }
}

impl TopState {
    /// Asks for everything but the agents.
    ///
    /// # Errors
    /// If the manager cannot be asked, or refuses.
    pub async fn of(remote: &Remote, agents: TopAgents) -> anyhow::Result<Self> {
        let rates = rates(remote).await?;
        let freeze: Freeze = remote.get("/v1/freeze").await?;
        let waiting: Page<JudgedResponse> = remote.get("/v1/responses?state=awaiting_approval&limit=500").await?;
        let failing: Page<EffectRow> = remote.get("/v1/effects?failing=true&limit=500").await?;
        let names =
            if failing.items.is_empty() { std::collections::HashMap::new() } else { agent_names(remote).await? };
        let requesters = waiting.items.iter().map(|judged| judged.response.requested_by.as_str());
        let (actors, now) = (Actors::of(remote, requesters).await, Clock::system().now());
        let held_back = counted(freeze.held_back, "command waits", "commands wait");
        Ok(Self {
            at: now,
            rates,
            frozen: if freeze.frozen { format!("FROZEN: {held_back}") } else { String::new() },
            waits: some(&waiting),
            waiting: waiting.items.iter().take(ROWS).map(|judged| one_waiting(judged, &actors, now)).collect(),
            fails: some(&failing),
            failing: failing
                .items
                .iter()
                .take(ROWS)
                .map(|row| {
                    let agent = names.get(&row.agent_id).unwrap_or(&row.agent_id).clone();
                    let what = format!("{} {}", row.action, row.target_value).trim_end().to_owned();
                    let times = counted(row.failed_reverts, "time", "times");
                    [agent, what, times, row.last_reason.clone()]
                })
                .collect(),
            agents,
            lost: None,
        })
    }
}

fn one_waiting(judged: &JudgedResponse, actors: &Actors, now: Timestamp) -> [String; 3] {
    let row = &judged.response;
    let by = actors.requester(row.policy.as_deref(), &row.requested_by);
    [format!("{} {}", row.action, aim(row)), by, ends(row.answer_by, now)]
}

fn some<T>(page: &Page<T>) -> String {
    let more = if page.next_cursor.is_some() { " or more" } else { "" };
    format!("{}{more}", len(&page.items))
}

async fn rates(remote: &Remote) -> anyhow::Result<Option<TopRates>> {
    let reply = remote.send(Method::GET, "/v1/statistics?within=1h&step=5m", None, NO_BODY).await?;
    if reply.status == StatusCode::FORBIDDEN {
        return Ok(None);
    }
    let statistics: Statistics = reply.done()?;
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    let failures = statistics.failures.into_iter().map(|row| {
        let state = row.state.as_str().replace('_', " ");
        (row.action, state, row.count)
    });
    Ok(Some(TopRates {
        alerts: statistics.steps.iter().map(|step| count(step.alerts)).collect(),
        responses: statistics.steps.iter().map(|step| count(step.responses.values().sum())).collect(),
        failures: failures.collect(),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A bad night, with names that an attacker chose.
    pub(in crate::cli::top) fn state() -> TopState {
        let hostile = |text: &str| format!("{text}\u{1b}[2J\u{202e}");
        TopState {
            at: "2026-11-24T10:00:00.000Z".parse().unwrap(),
            rates: Some(TopRates {
                alerts: vec![0, 1, 2, 4, 8, 16, 8, 4, 2, 1, 0, 12],
                responses: vec![0, 0, 0, 1, 2, 4, 2, 1, 0, 0, 0, 3],
                failures: vec![(hostile("firewall-drop"), "timed out".into(), 3)],
            }),
            frozen: "FROZEN: 4 commands wait".into(),
            waits: "2".into(),
            waiting: vec![
                ["disable-account user mallory".into(), "policy asks".into(), "in 9 min".into()],
                [hostile("firewall-drop ip 203.0.113.7"), hostile("policy x"), "in 1 min".into()],
            ],
            fails: "1".into(),
            failing: vec![[
                hostile("web-01"),
                "firewall-drop 203.0.113.9".into(),
                "5 times".into(),
                hostile("nft: denied"),
            ]],
            agents: TopAgents { enrolled: 12, away: 1, rows: vec![["db-01".into(), "3 min ago".into()]] },
            lost: None,
        }
    }
}
