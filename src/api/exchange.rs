//! Processing of agents' messages, shared by stream and poll, so that both transports apply the
//! same rules.

use riposte_protocol::message::{
    CommandResult, HeldEffect, MAX_EFFECTS_BYTES, MAX_ITEMS, MAX_OUTPUT_BYTES, MAX_REASONS, RejectedOrders, Settings,
};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::agents::capability_faults;
use super::front::error::{ApiError, ApiResult};
use super::state::AppState;
use crate::domain::agent::known_reason;
use crate::domain::fault::Fault;
use crate::engine::capabilities::Announcement;
use crate::store::ledger::converge::{self, AgentNews, Hello};
use crate::store::ledger::resync::RejectedCount;
use crate::telemetry::{ByOutcome, ByReason};

/// Maximum length of a stored key id, in bytes.
const MAX_KID_BYTES: usize = 64;

/// Stores acknowledgements.
pub async fn acknowledge(state: &AppState, agent: Uuid, commands: Vec<Uuid>) -> ApiResult<()> {
    if commands.len() > MAX_ITEMS {
        return Err(too_many("acks"));
    }
    if !commands.is_empty() {
        state.engine.writer.acknowledge(agent, commands).await?;
    }
    Ok(())
}

/// Stores results; returns the ids that are now committed, including duplicates. Those of a stream come with its number:
/// once the agent has a newer one, on whichever manager, they are refused, and come again by that one.
pub async fn settle(
    state: &AppState,
    agent: Uuid,
    number: Option<i64>,
    mut results: Vec<CommandResult>,
) -> ApiResult<Vec<Uuid>> {
    if results.len() > MAX_ITEMS {
        return Err(too_many("results"));
    }
    let secrets = state.engine.secrets.load();
    for result in &mut results {
        result.output = secrets.redact(std::mem::take(&mut result.output));
        result.message = secrets.redact(std::mem::take(&mut result.message));
        // Truncated, not refused: the agent would send a refused result again for ever.
        result.output.truncate(result.output.floor_char_boundary(MAX_OUTPUT_BYTES));
        result.message.truncate(result.message.floor_char_boundary(MAX_OUTPUT_BYTES));
    }
    let ids: Vec<Uuid> = results.iter().map(|result| result.command_id).collect();
    let outcomes: Vec<&'static str> = results.iter().map(|result| result.outcome.as_str()).collect();
    if !results.is_empty() {
        state.engine.writer.settle(agent, number, results).await?;
    }
    for outcome in outcomes {
        state.engine.metrics.results.get_or_create(&ByOutcome { outcome }).inc();
    }
    Ok(ids)
}

/// Takes in which version an agent runs and what it can do, if that is news; at a pace.
pub async fn announce(state: &AppState, agent: Uuid, said: Announcement) -> ApiResult<()> {
    let faults = said.capabilities.as_deref().map(capability_faults).unwrap_or_default();
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    Ok(state.engine.announce(agent, said).await?)
}

/// Records the clock skew of an agent's host.
pub fn compare_clocks(state: &AppState, agent: Uuid, host: Timestamp) {
    state.engine.clocks.told(agent, host, state.engine.clock.now());
}

/// Settings for an agent. The reconnect delay spreads reconnects to about this number per second.
pub fn settings(state: &AppState, agent: Uuid) -> Settings {
    const RECONNECTS_PER_SECOND: usize = 4000;
    let spread = state.engine.fleet.load().len() / RECONNECTS_PER_SECOND;
    let rotate_key = state.engine.key_to_rotate(agent);
    Settings { reconnect_spread_seconds: u32::try_from(spread).unwrap_or(u32::MAX), rotate_key, ..Settings::default() }
}

/// Compares an agent's report on connect with the ledger (promise 10).
pub async fn converge(
    state: &AppState,
    agent: Uuid,
    cursor: u64,
    run: Option<Uuid>,
    effects: Vec<HeldEffect>,
) -> ApiResult<()> {
    // A report that may be truncated says nothing about missing effects (promise 13). A dropped
    // effect of this size or less would have fitted.
    const LARGEST_EFFECT_BYTES: usize = 16 * 1024;
    let bytes = serde_json::to_vec(&effects).map_or(usize::MAX, |json| json.len());
    let is_whole = bytes.saturating_add(LARGEST_EFFECT_BYTES) < MAX_EFFECTS_BYTES;
    let is_first = run.is_none_or(|run| state.engine.hub.reports_first(agent, run));
    let hello = Hello { cursor, has_run: run.is_some(), is_first, effects, is_whole };
    let permit = state.engine.comparing.acquire().await;
    let news = converge::compare(&state.engine.db, agent, hello, state.engine.clock.now()).await?;
    drop(permit);
    settle_news(state, agent, news).await?;
    if let Some(run) = run {
        state.engine.hub.reported(agent, run);
    }
    Ok(())
}

/// Stores changes of an agent's effects without a command.
pub async fn news(state: &AppState, agent: Uuid, effects: Vec<HeldEffect>, ended: Vec<Uuid>) -> ApiResult<()> {
    if effects.len() > MAX_ITEMS || ended.len() > MAX_ITEMS {
        return Err(too_many("effects"));
    }
    settle_news(state, agent, AgentNews { effects, ended, ..AgentNews::default() }).await
}

/// Records that the agent rejected commands of this manager. This is an incident, because the agent
/// then carries out no command.
pub async fn rejected(state: &AppState, agent: Uuid, orders: Vec<RejectedOrders>) -> ApiResult<()> {
    if orders.len() > MAX_REASONS {
        return Err(ApiError::invalid(vec![Fault::at("/rejected", format!("has more than {MAX_REASONS} entries"))]));
    }
    for RejectedOrders { reason, count, .. } in &orders {
        let reason = known_reason(reason);
        state.engine.metrics.orders_rejected.get_or_create(&ByReason { reason }).inc_by(u64::from(*count));
    }
    let total = orders.iter().map(|orders| i64::from(orders.count)).sum();
    let most = orders.iter().max_by_key(|orders| orders.count);
    let Some(most) = most.filter(|_| total > 0) else { return Ok(()) };
    let kid = most.kid.as_ref().filter(|kid| kid.len() <= MAX_KID_BYTES).cloned();
    let rejected = RejectedCount { count: total, reason: known_reason(&most.reason), kid };
    settle_news(state, agent, AgentNews { rejected: Some(rejected), ..AgentNews::default() }).await
}

async fn settle_news(state: &AppState, agent: Uuid, news: AgentNews) -> ApiResult<()> {
    state.caller_limits.count_news(agent, news.effects.len() + news.ended.len() + news.missing.len())?;
    state.engine.writer.converge(agent, news).await?;
    // Lift unwanted effects now, not in the next round.
    state.engine.undo.look_again();
    Ok(())
}

fn too_many(field: &str) -> ApiError {
    ApiError::invalid(vec![Fault::at(format!("/{field}"), format!("has more than {MAX_ITEMS} entries"))])
}
