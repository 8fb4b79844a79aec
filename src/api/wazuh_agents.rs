//! `/v1/wazuh-agents`: the lists of agents of Wazuh managers, by which new agents are recognised.

use axum::extract::State;

use super::front::auth::{Caller, Ingest};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Json;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::fault::Fault;
use crate::domain::formats::wazuh::canonical_agent_id;
use crate::views::agents::{TakenList, WazuhAgentList};

/// The most agents of a list.
const MAX_AGENTS: usize = 100_000;

/// Limit of the body, in bytes: a list of the most agents, with names of usual length.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(replace))
}

/// Replaces the list of agents of a Wazuh manager
///
/// `riposte forward` sends it. An agent that says at its enrolment which agent of Wazuh its host is gets the label `wazuh_id` when
/// the list agrees; otherwise `/v1/agents` shows why the claim waits for a person.
#[utoipa::path(put, path = "/v1/wazuh-agents", tag = "agents", request_body = WazuhAgentList,
    responses((status = 200, body = TakenList)))]
pub async fn replace(
    caller: Caller<Ingest>,
    State(state): State<AppState>,
    body: Json<WazuhAgentList, MAX_BYTES>,
) -> ApiResult<axum::Json<TakenList>> {
    let WazuhAgentList { manager, agents } = body.value;
    if caller.principal.scopes.limit_agents() || !caller.principal.scopes.speak_for(&manager) {
        return Err(ApiError::forbidden(
            "the scope of the key does not include this Wazuh manager with all its agents",
        ));
    }
    let is_name = |name: &str| (1..=256).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    let mut faults = Vec::new();
    if !is_name(&manager) {
        faults.push(Fault::at("/manager", "must be 1 to 256 characters without control characters"));
    }
    if agents.len() > MAX_AGENTS {
        faults.push(Fault::at("/agents", format!("has more than {MAX_AGENTS} entries")));
    }
    let mut listed = Vec::with_capacity(agents.len());
    for (index, agent) in agents.into_iter().enumerate().take(MAX_AGENTS) {
        match canonical_agent_id(&agent.id).filter(|_| is_name(&agent.name)) {
            Some(id) => listed.push((id, agent.name)),
            None => faults.push(Fault::at(format!("/agents/{index}"), "needs an id of one to ten digits and a name")),
        }
    }
    if !faults.is_empty() {
        faults.truncate(100);
        return Err(ApiError::invalid(faults));
    }
    let believed = state.engine.list_wazuh_agents(&manager, &listed).await?;
    Ok(axum::Json(TakenList { agents: listed.len(), believed }))
}
