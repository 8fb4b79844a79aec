//! `/v1/agent/poll`: the stream's conversation as single exchanges, for networks that break long
//! connections. An idle poll waits for a wake-up without I/O.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest as _, Request, State};
use riposte_protocol::message::{PollRequest, PollResponse};

use super::exchange;
use super::front::auth::AgentCaller;
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Json;
use super::front::poll_slots::RequestKind;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::engine::capabilities::Announcement;
use crate::engine::deliver::Conversation;

/// Longest wait for a command, in seconds: below the idle timeout of common proxies.
pub const MAX_WAIT_SECS: u32 = 55;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(exchange))
}

/// Exchanges messages with an agent
///
/// Stores acknowledgements and results, then waits up to `wait_seconds` for commands.
#[utoipa::path(post, path = "/v1/agent/poll", tag = "agent protocol", security(("agent_token" = [])),
    request_body = PollRequest, responses((status = 200, body = PollResponse), (status = 409)))]
pub async fn exchange(
    agent: AgentCaller,
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<axum::Json<PollResponse>> {
    let _waits = state.poll_slots.take(agent.id, RequestKind::Poll)?;
    let slot = state.poll_slots.take(agent.id, RequestKind::Reading)?;
    let poll = state.engine.hub.poll(agent.id, state.engine.clock.now());
    let body = Json::<PollRequest>::from_request(request, &state).await?;
    drop(slot);
    let PollRequest { cursor, acks, results, rejected, effects, capabilities, run, clock, keys, wait_seconds, max } =
        body.value;
    Box::pin(state.engine.recognise(agent.id, run, false)).await?;
    if let Some(host) = clock {
        exchange::compare_clocks(&state, agent.id, host);
    }
    let said = Announcement { version: agent.version.clone(), capabilities };
    Box::pin(exchange::announce(&state, agent.id, said)).await?;
    Box::pin(exchange::acknowledge(&state, agent.id, acks)).await?;
    Box::pin(exchange::rejected(&state, agent.id, rejected)).await?;
    let result_acks = Box::pin(exchange::settle(&state, agent.id, None, results)).await?;
    if let Some(effects) = effects {
        Box::pin(exchange::converge(&state, agent.id, cursor, run, effects)).await?;
    }
    let mut conversation = Conversation::new(Arc::clone(&state.engine), agent.id, cursor, keys);
    let wait = Duration::from_secs(u64::from(wait_seconds.min(MAX_WAIT_SECS)));
    // Acknowledge results at once: the agent may then delete them.
    let wait = if result_acks.is_empty() { wait } else { Duration::ZERO };
    let until = state.engine.clock.now().plus(wait);
    let mut nudges = state.engine.hub.nudges_of(agent.id);
    let (commands, key_statements) = loop {
        // Before the store is read, so that a commit in between still wakes this poll.
        nudges.borrow_and_update();
        if !agent.is_current(&state.engine) {
            return Err(match state.engine.fleet.load().get(agent.id) {
                Some(_) => ApiError::unauthenticated("this agent's key was replaced"),
                None => ApiError::forbidden("this agent was revoked"),
            });
        }
        // Told at once, and then with each answer: an agent of an older version would never wait.
        let key = state.engine.key_to_rotate(agent.id);
        let is_ordered = key.is_some_and(|key| state.engine.hub.tells_first(agent.id, key));
        let statements = conversation.key_statements();
        let delivery = state.engine.deliveries.begin();
        let commands = Box::pin(conversation.next(max)).await?;
        drop(delivery);
        if !commands.is_empty() || !statements.is_empty() || is_ordered || state.engine.clock.now() >= until {
            break (commands, statements);
        }
        tokio::select! {
            _ = nudges.changed() => {}
            () = state.engine.clock.sleep_until(until) => break (Vec::new(), Vec::new()),
            () = state.engine.tasks.stopping().cancelled() => break (Vec::new(), Vec::new()),
        }
    };
    poll.answered(state.engine.clock.now());
    Ok(axum::Json(PollResponse {
        commands,
        result_acks,
        settings: exchange::settings(&state, agent.id),
        key_statements,
    }))
}
