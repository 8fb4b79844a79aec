//! `/v1/agent/stream`: the WebSocket of one agent. Each connection is one task that holds only a
//! cursor, and reads the store on each wake-up. Ten thousand idle streams must be cheap, so buffers
//! are small and no task polls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use riposte_protocol::SUBPROTOCOL;
use riposte_protocol::message::{FromAgent, HeldEffect, MAX_FRAME_BYTES, MAX_ITEMS, ToAgent};
use uuid::Uuid;

use super::exchange;
use super::front::auth::AgentCaller;
use super::front::connection::IsStream;
use super::front::error::{ApiError, ApiResult};
use super::front::poll_slots::{PollSlot, RequestKind};
use super::front::rate_limit::RateLimit;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::engine::Engine;
use crate::engine::capabilities::Announcement;
use crate::engine::deliver::Conversation;
use crate::engine::hub::StreamHandle;

/// Read buffer of a socket: frames are small, connections are many.
const READ_BUFFER: usize = 1024;
/// Time limit for the first message.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a stream counts as dead: three heartbeats and a margin.
pub const SILENCE: Duration = Duration::from_secs(100);
/// Interval of pings: an agent that hears nothing for three of them knows that the connection is gone.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// Time limit for sending a frame. A slower connection is closed; its commands stay pending.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Delay before the store is read again after a failure.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Burst of received frames, more than an agent needs. Further frames are limited to one per
/// [`FRAME_EVERY`], because a million tiny ones would occupy a core.
const FRAMES_AT_ONCE: u32 = 500;
/// Interval between frames of a stream beyond its burst.
const FRAME_EVERY: Duration = Duration::from_millis(2);
/// Seconds after which an agent reconnects when the manager stops.
const RETRY_AFTER_SECS: u32 = 2;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(open))
}

/// Opens an agent's stream
///
/// WebSocket, subprotocol `riposte.v1`; frames are JSON text, see `docs/agent-protocol.md`.
#[utoipa::path(get, path = "/v1/agent/stream", tag = "agent protocol", security(("agent_token" = [])),
    responses((status = 101, description = "Switching to WebSocket"), (status = 400), (status = 409)))]
pub async fn open(
    agent: AgentCaller,
    State(state): State<AppState>,
    Extension(is_stream): Extension<IsStream>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(|rejection| ApiError::malformed(rejection.body_text()))?;
    if state.engine.tasks.stopping().is_cancelled() {
        return Err(ApiError::unavailable("the manager is stopping", u64::from(RETRY_AFTER_SECS)));
    }
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES);
    // Without a subprotocol the client speaks the first version.
    if upgrade.selected_protocol().is_none() && headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Err(ApiError::malformed(format!(
            "this manager requires the subprotocol {SUBPROTOCOL}, which was not offered"
        )));
    }
    let slot = state.poll_slots.take(agent.id, RequestKind::Stream)?;
    Ok(upgrade.on_upgrade(move |socket| {
        is_stream.set();
        serve(state, agent, socket, slot);
        std::future::ready(())
    }))
}

/// Why a stream ends.
enum End {
    /// The agent disconnected, or its connection broke.
    Gone,
    /// The manager closes it, with a WebSocket close code and a reason.
    Close(u16, &'static str),
}

fn serve(state: AppState, agent: AgentCaller, socket: WebSocket, slot: PollSlot) {
    let tasks = state.engine.tasks.clone();
    // Tracked, so that shutdown waits for the close frame.
    tasks.spawn_short(async move {
        let streaming = state.engine.metrics.agents_streaming.clone();
        streaming.inc();
        let mut line = Line { socket, rate_limit: RateLimit::new(FRAME_EVERY, FRAMES_AT_ONCE, Instant::now()) };
        if let End::Close(code, reason) = talk(&state, agent, &mut line).await {
            line.close(code, reason).await;
        }
        streaming.dec();
        drop(slot);
    });
}

/// The socket, with a time limit on sends and a rate limit on reads.
struct Line {
    socket: WebSocket,
    rate_limit: RateLimit,
}

impl Line {
    async fn say(&mut self, message: &ToAgent) -> Result<(), End> {
        let text = serde_json::to_string(message).map_err(|_| End::Gone)?;
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.socket.send(Message::text(text))).await;
        sent.ok().and_then(Result::ok).ok_or(End::Gone)
    }

    async fn ping(&mut self) -> Result<(), End> {
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.socket.send(Message::Ping(Bytes::new()))).await;
        sent.ok().and_then(Result::ok).ok_or(End::Gone)
    }

    async fn hear(&mut self) -> Result<FromAgent, End> {
        // Wait before reading: this future may be cancelled while it waits, and a frame that was
        // already read would be lost.
        let wait = self.rate_limit.wait(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        // A pong is an answer of a library: it does not say that the agent works.
        let heard = loop {
            match self.socket.recv().await {
                Some(Ok(Message::Pong(_))) => {}
                heard => break heard,
            }
        };
        self.rate_limit.step(1, Instant::now());
        match heard {
            Some(Ok(Message::Text(text))) => {
                serde_json::from_str(&text).map_err(|_| End::Close(1007, "a frame is not a valid message"))
            }
            // axum answers pings; they count as heartbeats. Pongs are read over.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(FromAgent::Heartbeat),
            Some(Ok(Message::Binary(_))) => Err(End::Close(1003, "frames are JSON text")),
            Some(Err(_)) => Err(End::Close(1009, "a frame is too large or malformed")),
            Some(Ok(Message::Close(_))) | None => Err(End::Gone),
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = tokio::time::timeout(SEND_TIMEOUT, self.socket.send(frame)).await;
    }
}

async fn talk(state: &AppState, caller: AgentCaller, line: &mut Line) -> End {
    let (agent, version) = (caller.id, caller.version.clone());
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, line.hear()).await {
        Ok(Ok(FromAgent::Hello { cursor, capabilities, effects, run, keys })) => {
            Hello { cursor, said: Announcement { version, capabilities: Some(capabilities) }, effects, run, keys }
        }
        Ok(Ok(_)) => return End::Close(1002, "the first message is hello"),
        Ok(Err(end)) => return end,
        Err(_) => return End::Close(1008, "no hello in time"),
    };
    let mut handle = state.engine.hub.open_stream(agent);
    let replaced = handle.replaced.clone();
    let end = tokio::select! {
        end = take_over(state, &caller, line, &mut handle, hello) => end,
        // At any point: a job that was passed to the writer is committed before any message of the
        // newer stream.
        () = replaced.cancelled() => End::Close(1008, "another stream of this agent took over, it was revoked, or its key was replaced"),
    };
    if let Some(number) = handle.registered {
        state.engine.peers.left(agent, number);
    }
    tracing::info!(%agent, "the stream of agent {agent} has ended");
    end
}

/// The agent's first message.
struct Hello {
    cursor: u64,
    said: Announcement,
    effects: Option<Vec<HeldEffect>>,
    run: Option<Uuid>,
    keys: Option<u64>,
}

async fn take_over(
    state: &AppState,
    caller: &AgentCaller,
    line: &mut Line,
    handle: &mut StreamHandle,
    hello: Hello,
) -> End {
    let agent = caller.id;
    let _inbound = handle.lock_inbound().await;
    // The agent may be revoked, or its key replaced, between its token and its hello, before there is
    // a connection to close.
    if !caller.is_current(&state.engine) {
        return End::Close(1008, "this agent was revoked, or its key was replaced");
    }
    let (cursor, keys) = (hello.cursor, hello.keys);
    // Boxed, to keep ten thousand idle streams small.
    match Box::pin(take_in_hello(state, agent, &mut handle.registered, hello)).await {
        Ok(()) => {}
        Err(error) => return refused(&error),
    }
    tracing::info!(%agent, cursor, "agent {agent} streams");
    let conversation = Conversation::new(Arc::clone(&state.engine), agent, cursor, keys);
    conversation.begin();
    converse(state, agent, line, handle, conversation).await
}

async fn take_in_hello(state: &AppState, agent: Uuid, registered: &mut Option<i64>, hello: Hello) -> ApiResult<()> {
    let Hello { cursor, said, effects, run, .. } = hello;
    *registered = state.engine.recognise(agent, run, true).await?;
    exchange::announce(state, agent, said).await?;
    match effects {
        Some(effects) => exchange::converge(state, agent, cursor, run, effects).await,
        None => Ok(()),
    }
}

async fn converse(
    state: &AppState,
    agent: Uuid,
    line: &mut Line,
    handle: &mut StreamHandle,
    mut conversation: Conversation,
) -> End {
    let mut settings = exchange::settings(state, agent);
    if let Err(end) = line.say(&ToAgent::Settings { settings: settings.clone() }).await {
        return end;
    }
    let (clock, stop) = (state.engine.clock.clone(), state.engine.tasks.stopping().clone());
    let (mut fetch, mut retry, mut heard_at) = (true, None, tokio::time::Instant::now());
    let mut ping_at = heard_at + PING_EVERY;
    loop {
        if fetch {
            // Before the store is read, so that a commit in between still wakes this stream.
            handle.nudges.borrow_and_update();
            let ordered = exchange::settings(state, agent);
            if ordered.rotate_key != settings.rotate_key {
                settings = ordered;
                if let Err(end) = line.say(&ToAgent::Settings { settings: settings.clone() }).await {
                    return end;
                }
            }
            // Boxed, so that ten thousand idle streams do not carry the state of a query each.
            match Box::pin(send_owed(&state.engine, &mut conversation, line)).await {
                Ok(()) => retry = None,
                Err(Some(end)) => return end,
                Err(None) => retry = Some(clock.now().plus(STORE_RETRY)),
            }
        }
        let wait = [conversation.next_lease_end(), retry].into_iter().flatten().min();
        let due = async {
            match wait {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // One message at a time, so that acknowledgements are read in between. On a slow link, the
        // first commands would otherwise be due again before the last are sent.
        let has_more = retry.is_none() && conversation.has_more();
        fetch = tokio::select! {
            biased;
            () = stop.cancelled() => {
                let _ = line.say(&ToAgent::Bye { retry_after: RETRY_AFTER_SECS }).await;
                return End::Close(1001, "the manager is stopping");
            }
            heard = tokio::time::timeout_at(heard_at + SILENCE, line.hear()) => match heard {
                Err(_) => return End::Close(1001, "no message within the time limit"),
                Ok(Err(end)) => return end,
                Ok(Ok(message)) => {
                    heard_at = tokio::time::Instant::now();
                    state.engine.hub.heard(agent, clock.now());
                    if let FromAgent::Keys { number } = &message {
                        // What waited for a key that the agent trusts is sent now.
                        conversation.confirm_keys(*number);
                        true
                    } else {
                        match Box::pin(take_in(state, (agent, handle.registered), line, message)).await {
                        // An acknowledgement frees capacity, which matters only if it was
                        // exhausted.
                        Ok(acknowledged) => acknowledged && conversation.is_full(),
                        Err(end) => return end,
                        }
                    }
                }
            },
            _ = handle.nudges.changed() => true,
            () = tokio::time::sleep_until(ping_at) => {
                ping_at = tokio::time::Instant::now() + PING_EVERY;
                if let Err(end) = line.ping().await {
                    return end;
                }
                false
            }
            () = due => true,
            () = std::future::ready(()), if has_more => true,
        };
    }
}

/// Maximum number of commands per frame.
pub const FRAME: usize = MAX_ITEMS / 4;

/// Sends pending commands, up to one message. `Err(None)` means that the store could not be read:
/// try again.
async fn send_owed(engine: &Engine, conversation: &mut Conversation, line: &mut Line) -> Result<(), Option<End>> {
    // Before the commands: the agent may know their key only by these.
    let statements = conversation.key_statements();
    if !statements.is_empty() {
        line.say(&ToAgent::Keys { statements }).await.map_err(Some)?;
    }
    let _delivery = engine.deliveries.begin();
    let commands = conversation.next(FRAME).await.map_err(|error| {
        tracing::warn!("cannot read pending commands: {error}");
        None
    })?;
    if commands.is_empty() {
        return Ok(());
    }
    line.say(&ToAgent::Commands { commands }).await.map_err(Some)
}

/// Processes one message; returns whether it acknowledged commands.
async fn take_in(
    state: &AppState,
    (agent, number): (Uuid, Option<i64>),
    line: &mut Line,
    message: FromAgent,
) -> Result<bool, End> {
    match message {
        // The loop of the stream takes keys in.
        FromAgent::Heartbeat | FromAgent::Unknown | FromAgent::Keys { .. } => Ok(false),
        FromAgent::Clock { host } => {
            exchange::compare_clocks(state, agent, host);
            Ok(false)
        }
        FromAgent::Ack { command_ids } => {
            exchange::acknowledge(state, agent, command_ids).await.map_err(|error| refused(&error))?;
            Ok(true)
        }
        FromAgent::Result { results } => {
            let command_ids = exchange::settle(state, agent, number, results).await.map_err(|error| refused(&error))?;
            line.say(&ToAgent::ResultAck { command_ids }).await?;
            Ok(false)
        }
        FromAgent::Effects { effects, ended } => {
            exchange::news(state, agent, effects, ended).await.map_err(|error| refused(&error))?;
            Ok(false)
        }
        FromAgent::Rejected { orders } => {
            exchange::rejected(state, agent, orders).await.map_err(|error| refused(&error))?;
            Ok(false)
        }
        FromAgent::Hello { .. } => Err(End::Close(1002, "hello was already sent")),
    }
}

/// The end of a stream whose message failed: the agent repeats the message on the next one.
fn refused(error: &ApiError) -> End {
    if error.status().is_server_error() || error.status() == StatusCode::TOO_MANY_REQUESTS {
        End::Close(1013, "try again later")
    } else {
        End::Close(1007, "a message is invalid")
    }
}
