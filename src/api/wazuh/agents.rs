//! `/wazuh/agents`: the agents that have a Wazuh id, in Wazuh's words.

use std::collections::HashMap;

use axum::extract::State;
use riposte_protocol::message::Platform;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use super::caller::WazuhCaller;
use super::login::flag;
use super::refused::Refused;
use crate::api::front::auth::Read;
use crate::api::front::extract::Query;
use crate::api::state::AppState;
use crate::compat::wazuh_api::agents::{by_wazuh_id, read_ids};
use crate::compat::wazuh_api::fields::selected;
use crate::compat::wazuh_api::query::{AgentOrder, AgentQuery, AgentSearch, read_select};
use crate::domain::agent::Agent;
use crate::domain::presence::Presence;
use crate::domain::scope::Scopes;
use crate::engine::peers::Elsewhere;
use crate::store::StoreError;
use crate::store::configured::agents;
use crate::views::agents::AgentRow;
use crate::views::wazuh::{
    WazuhAgent, WazuhConfigurations, WazuhConnections, WazuhCounts, WazuhFailedItem, WazuhItemError, WazuhItems,
    WazuhOs, WazuhReport, WazuhSummary,
};

/// Agents of a page, by default and at most, as in Wazuh.
const PAGE: usize = 500;
const LARGEST_PAGE: usize = 100_000;
/// Rows that are read at once.
const ROWS: i64 = 500;
/// The statuses of agents.
const ACTIVE: &str = "active";
const DISCONNECTED: &str = "disconnected";
const NEVER_CONNECTED: &str = "never_connected";

/// Which agents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Agents to skip.
    #[serde(default)]
    #[param(minimum = 0)]
    offset: usize,
    /// Maximum number of agents.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// Wazuh ids, separated by commas.
    agents_list: Option<String>,
    /// Statuses, separated by commas: `active`, `disconnected`, `never_connected`, `pending`.
    status: Option<String>,
    /// Name.
    name: Option<String>,
    /// A text in any field, without case; with `-` before it, those without it.
    search: Option<String>,
    /// Conditions such as `os.name=linux`, joined by `;` (and) and `,` (or), with parentheses. Operators are `=`,
    /// `!=`, `<`, `>` and `~` (contains).
    q: Option<String>,
    /// Fields to order by, separated by commas, with `+` or `-` before the first.
    sort: Option<String>,
    /// Fields of each item, separated by commas, such as `id,os.name`.
    select: Option<String>,
    /// `synced`, which all agents are, or `not synced`.
    group_config_status: Option<String>,
    /// Lay the answer out for people.
    #[serde(default, deserialize_with = "flag", rename = "pretty")]
    _pretty: bool,
    /// Without effect: the answer is always complete.
    #[serde(default, deserialize_with = "flag", rename = "wait_for_complete")]
    _wait_for_complete: bool,
}

/// Parameters of operations that have none of their own.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PlainQuery {
    /// Lay the answer out for people.
    #[serde(default, deserialize_with = "flag", rename = "pretty")]
    _pretty: bool,
    /// Without effect: the answer is always complete.
    #[serde(default, deserialize_with = "flag", rename = "wait_for_complete")]
    _wait_for_complete: bool,
}

/// An agent, or the fields of it that are asked for.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Whole(Box<WazuhAgent>),
    Part(Value),
}

/// Lists the agents that have a Wazuh id, by that id
#[utoipa::path(get, path = "/wazuh/agents", tag = "wazuh", params(ListQuery),
    responses((status = 200, body = WazuhReport<WazuhAgent>)))]
pub(super) async fn list(
    caller: WazuhCaller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<WazuhReport<Shown>>, Refused> {
    let limit = query.limit.unwrap_or(PAGE);
    if limit == 0 || limit > LARGEST_PAGE {
        return Err(Refused::bad_request(format!("'limit' must be 1 to {LARGEST_PAGE}"), None));
    }
    let wrong =
        |text: String| Refused::bad_request(format!("'{text}' is not a number of an agent, in 'agents_list'"), None);
    let ids = query.agents_list.as_deref().map(read_ids).transpose().map_err(wrong)?;
    let statuses = query.status.as_deref().map(read_statuses).transpose()?;
    let is_synced = query.group_config_status.as_deref().is_none_or(|status| status == "synced");
    let condition = query.q.as_deref().map(AgentQuery::read).transpose()?;
    let order = query.sort.as_deref().map(AgentOrder::read).transpose()?;
    let select = query.select.as_deref().map(read_select).transpose()?;
    let search = query.search.as_deref().map(AgentSearch::read);
    let all = visible(&state, &caller.principal.scopes).await?;
    let known: std::collections::BTreeSet<&String> = all.iter().map(|agent| &agent.id).collect();
    let unknown: Vec<String> = ids.iter().flatten().filter(|id| !known.contains(id)).cloned().collect();
    let wanted = |agent: &WazuhAgent| {
        is_synced
            && ids.as_ref().is_none_or(|ids| ids.contains(&agent.id))
            && statuses.as_ref().is_none_or(|statuses| statuses.contains(&agent.status.as_str()))
            && query.name.as_ref().is_none_or(|name| *name == agent.name)
            && search.as_ref().is_none_or(|search| search.finds(agent))
            && condition.as_ref().is_none_or(|condition| condition.holds(agent))
    };
    let mut found: Vec<WazuhAgent> = all.iter().filter(|agent| wanted(agent)).cloned().collect();
    if let Some(order) = order {
        order.apply(&mut found);
    }
    let total = found.len();
    let shown = |agent: WazuhAgent| match &select {
        Some(fields) => Shown::Part(selected(&agent, fields)),
        None => Shown::Whole(Box::new(agent)),
    };
    let page = found.into_iter().skip(query.offset).take(limit).map(shown).collect();
    Ok(axum::Json(report(page, total, &unknown)))
}

fn report(page: Vec<Shown>, total: usize, unknown: &[String]) -> WazuhReport<Shown> {
    let failed_items: Vec<WazuhFailedItem> =
        if unknown.is_empty() { Vec::new() } else { vec![WazuhItemError::no_agent().of(unknown)] };
    let (message, error) = match (total == 0, unknown.is_empty()) {
        (true, false) => ("No agent information was returned", 1),
        (true, true) => ("No agent information was returned", 0),
        (false, true) => ("All selected agents information was returned", 0),
        (false, false) => ("Some agents information was not returned", 2),
    };
    let data = WazuhItems {
        affected_items: page,
        total_affected_items: total,
        total_failed_items: unknown.len(),
        failed_items,
    };
    WazuhReport { data, message: message.to_owned(), error }
}

/// Counts the agents that have a Wazuh id, by status
#[utoipa::path(get, path = "/wazuh/agents/summary/status", tag = "wazuh", params(PlainQuery),
    responses((status = 200, body = WazuhSummary)))]
pub(super) async fn summary(
    caller: WazuhCaller<Read>,
    State(state): State<AppState>,
    _: Query<PlainQuery>,
) -> Result<axum::Json<WazuhSummary>, Refused> {
    let all = visible(&state, &caller.principal.scopes).await?;
    let count = |status: &str| all.iter().filter(|agent| agent.status == status).count();
    let connection = WazuhConnections {
        active: count(ACTIVE),
        disconnected: count(DISCONNECTED),
        never_connected: count(NEVER_CONNECTED),
        pending: 0,
        total: all.len(),
    };
    let configuration = WazuhConfigurations { synced: all.len(), not_synced: 0, total: all.len() };
    Ok(axum::Json(WazuhSummary { data: WazuhCounts { connection, configuration }, error: 0 }))
}

fn read_statuses(list: &str) -> Result<Vec<&str>, Refused> {
    const ALL: [&str; 4] = [ACTIVE, DISCONNECTED, NEVER_CONNECTED, "pending"];
    let mut statuses = Vec::new();
    for word in list.split(',') {
        match word {
            "all" => statuses.extend(ALL),
            known if ALL.contains(&known) => statuses.push(known),
            _ => {
                let why = format!("'status' must be of {}, all", ALL.join(", "));
                return Err(Refused::bad_request(why, None));
            }
        }
    }
    Ok(statuses)
}

/// The visible agents that have a Wazuh id, by that id.
async fn visible(state: &AppState, scopes: &Scopes) -> Result<Vec<WazuhAgent>, Refused> {
    let elsewhere = state.engine.elsewhere().await?;
    let mut rows = HashMap::new();
    let mut after: Option<Uuid> = None;
    loop {
        let page = agents::list(&state.engine.db, None, false, after, ROWS).await?;
        let is_last = i64::try_from(page.len()).is_ok_and(|count| count < ROWS);
        after = page.last().and_then(|row| row.id.parse().ok());
        rows.extend(page.into_iter().map(|row| (row.id.clone(), row)));
        if is_last || after.is_none() {
            break;
        }
    }
    let fleet = state.engine.fleet.load();
    let mut known: Vec<(u64, WazuhAgent)> = Vec::new();
    for (id, agents) in by_wazuh_id(&fleet, scopes) {
        for agent in agents {
            // One that was enrolled after the rows were read is in the next answer.
            if let Some(row) = rows.get(&agent.id.to_string()) {
                known.push((id.parse().unwrap_or(u64::MAX), described(state, &elsewhere, &id, &agent, row)?));
            }
        }
    }
    known.sort_by_key(|(number, _)| *number);
    Ok(known.into_iter().map(|(_, agent)| agent).collect())
}

fn described(
    state: &AppState,
    elsewhere: &Elsewhere,
    id: &str,
    agent: &Agent,
    row: &AgentRow,
) -> Result<WazuhAgent, StoreError> {
    let presence = state.engine.presence(agent.id, elsewhere, state.engine.clock.now());
    // The stored contact is written in batches; the hub knows later ones.
    let heard = state.engine.hub.last_heard(agent.id).max(row.last_seen_at.map(Timestamp::from));
    let status = match (presence, heard) {
        (Presence::Away, None) => NEVER_CONNECTED,
        (Presence::Away, Some(_)) => DISCONNECTED,
        _ => ACTIVE,
    };
    let Platform { os, arch, version } = row.platform.read()?;
    Ok(WazuhAgent {
        os: WazuhOs { arch, name: os.clone(), platform: os, version },
        group_config_status: "synced".to_owned(),
        last_keep_alive: heard.map(whole_seconds),
        date_add: whole_seconds(row.enrolled_at.into()),
        node_name: "riposte".to_owned(),
        manager: agent.wazuh_manager().unwrap_or("riposte").to_owned(),
        register_ip: "any".to_owned(),
        ip: "any".to_owned(),
        group: vec!["default".to_owned()],
        status_code: u32::from(status == NEVER_CONNECTED),
        status: status.to_owned(),
        name: agent.wazuh_name().to_owned(),
        id: id.to_owned(),
        version: format!("Riposte v{}", row.version),
    })
}

/// A time as Wazuh writes it.
fn whole_seconds(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}
