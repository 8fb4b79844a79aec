//! What a stream and a poll have in common: taking in what an agent says. Both transports end up here, so that neither
//! can be more lenient than the other.

use riposte_protocol::message::{Capability, CommandResult, HeldEffect, MAX_ITEMS, MAX_OUTPUT_BYTES, Settings};
use uuid::Uuid;

use super::AppState;
use super::agents::capability_faults;
use super::error::{ApiError, ApiResult};
use crate::domain::fault::Fault;
use crate::store::agents;
use crate::store::audit::LedgerTx;
use crate::telemetry::ByOutcome;

/// Takes in acknowledgements.
pub async fn acknowledge(state: &AppState, agent: Uuid, commands: Vec<Uuid>) -> ApiResult<()> {
    if commands.len() > MAX_ITEMS {
        return Err(too_many("acks"));
    }
    if !commands.is_empty() {
        state.engine.writer.acknowledge(agent, commands).await?;
    }
    Ok(())
}

/// Takes in results; gives the ids that are committed now, also those of results that were known.
pub async fn settle(state: &AppState, agent: Uuid, mut results: Vec<CommandResult>) -> ApiResult<Vec<Uuid>> {
    if results.len() > MAX_ITEMS {
        return Err(too_many("results"));
    }
    for result in &mut results {
        // Cut, not refused: a result that is refused would be sent again for ever.
        result.output.truncate(result.output.floor_char_boundary(MAX_OUTPUT_BYTES));
        result.message.truncate(result.message.floor_char_boundary(MAX_OUTPUT_BYTES));
    }
    let ids: Vec<Uuid> = results.iter().map(|result| result.command_id).collect();
    let outcomes: Vec<&'static str> = results.iter().map(|result| result.outcome.as_str()).collect();
    if !results.is_empty() {
        state.engine.writer.settle(agent, results).await?;
    }
    for outcome in outcomes {
        state.engine.metrics.results.get_or_create(&ByOutcome { outcome }).inc();
    }
    Ok(ids)
}

/// Takes in what an agent says it can do, if that is news.
pub async fn announce(state: &AppState, agent: Uuid, capabilities: Vec<Capability>) -> ApiResult<()> {
    let faults = capability_faults(&capabilities);
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    let known = state.engine.fleet.load().get(agent).map(|agent| agent.capabilities == capabilities);
    if known == Some(false) && !capabilities.is_empty() {
        let now = state.engine.clock.now();
        let mut ledger = LedgerTx::begin(&state.engine.db).await?;
        agents::set_capabilities(&mut ledger, agent, &capabilities, now).await?;
        ledger.commit().await?;
        state.engine.reload_agent(agent).await?;
    }
    Ok(())
}

/// How agents are to behave. Reconnects are spread so that about this many come a second.
pub fn settings(state: &AppState) -> Settings {
    const RECONNECTS_PER_SECOND: usize = 4000;
    let spread = state.engine.fleet.load().len() / RECONNECTS_PER_SECOND;
    Settings { reconnect_spread_seconds: u32::try_from(spread).unwrap_or(u32::MAX), ..Settings::default() }
}

/// Notes the effects that an agent says it holds.
pub fn note_effects(agent: Uuid, effects: &[HeldEffect]) {
    tracing::debug!(%agent, count = effects.len(), "agent {agent} holds {} effects", effects.len());
}

fn too_many(field: &str) -> ApiError {
    ApiError::invalid(vec![Fault::at(format!("/{field}"), format!("has more than {MAX_ITEMS} entries"))])
}
