//! `/v1/agent/poll`: the same conversation as the stream, one exchange at a time, for networks that break long
//! connections. An empty poll waits on a nudge and costs no I/O.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequest as _, Request, State};
use riposte_protocol::message::{PollRequest, PollResponse};
use uuid::Uuid;

use super::auth::AgentCaller;
use super::error::{ApiError, ApiResult};
use super::extract::Json;
use super::{AppState, exchange};
use crate::engine::deliver::Conversation;

/// The longest wait for a command, in seconds: below the idle time-out of common proxies.
const MAX_WAIT_SECS: u32 = 55;

/// Polls of one agent that may be read at a time: a second one if the first is stuck in a dead connection.
const READ_AT_ONCE: u8 = 2;

/// How many polls of each agent are being read: a single host must not take up the room of all.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<Uuid, u8>>>);

/// One of them; given back when dropped.
struct Turn {
    turns: Turns,
    agent: Uuid,
}

impl Turns {
    fn take(&self, agent: Uuid) -> ApiResult<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = turns.entry(agent).or_insert(0);
        if *count >= READ_AT_ONCE {
            return Err(ApiError::too_many("two polls of this agent are being read already", 1));
        }
        *count += 1;
        Ok(Turn { turns: self.clone(), agent })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = turns.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                turns.remove(&self.agent);
            }
        }
    }
}

/// Exchanges messages with an agent
///
/// Takes in acknowledgements and results, then waits for commands for up to `wait_seconds`.
#[utoipa::path(post, path = "/v1/agent/poll", tag = "agent protocol", security(("agent_token" = [])), request_body = PollRequest,
    responses((status = 200, body = PollResponse)))]
pub async fn exchange(
    agent: AgentCaller,
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<axum::Json<PollResponse>> {
    let turn = state.polls.take(agent.id)?;
    let body = Json::<PollRequest>::from_request(request, &state).await?;
    drop(turn);
    let PollRequest { cursor, acks, results, rejected, effects, capabilities, run, wait_seconds, max } = body.value;
    Box::pin(exchange::recognise(&state, agent.id, run)).await?;
    if let Some(capabilities) = capabilities {
        Box::pin(exchange::announce(&state, agent.id, capabilities)).await?;
    }
    Box::pin(exchange::acknowledge(&state, agent.id, acks)).await?;
    Box::pin(exchange::rejected(&state, agent.id, rejected)).await?;
    let result_acks = Box::pin(exchange::settle(&state, agent.id, results)).await?;
    if let Some(effects) = effects {
        Box::pin(exchange::converge(&state, agent.id, cursor, run, effects)).await?;
    }
    let mut conversation = Conversation::new(Arc::clone(&state.engine), agent.id, cursor);
    let wait = Duration::from_secs(u64::from(wait_seconds.min(MAX_WAIT_SECS)));
    // Results are answered at once: the agent wants to forget them.
    let wait = if result_acks.is_empty() { wait } else { Duration::ZERO };
    let until = state.engine.clock.now().plus(wait);
    let mut nudges = state.engine.hub.nudges_of(agent.id);
    let commands = loop {
        // Marked before the store is read: what is committed in between is not slept through.
        nudges.borrow_and_update();
        if state.engine.fleet.load().get(agent.id).is_none() {
            return Err(ApiError::forbidden("this agent was revoked"));
        }
        let commands = Box::pin(conversation.next(max)).await?;
        if !commands.is_empty() || state.engine.clock.now() >= until {
            break commands;
        }
        tokio::select! {
            _ = nudges.changed() => {}
            () = state.engine.clock.sleep_until(until) => break Vec::new(),
            () = state.engine.tasks.stopping().cancelled() => break Vec::new(),
        }
    };
    Ok(axum::Json(PollResponse { commands, result_acks, settings: exchange::settings(&state) }))
}
