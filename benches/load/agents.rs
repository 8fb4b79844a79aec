//! Agents to load a server with: enrolled over the API, each with its own key and stream. Like a
//! real agent, each acknowledges its commands and answers with a result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use riposte::clock::Clock;
use riposte_protocol::key::SigningKey;
use riposte_protocol::message::{CommandResult, FromAgent, HeldEffect, Outcome, ToAgent};
use riposte_protocol::{SUBPROTOCOL, identity};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use uuid::Uuid;

use super::alerts::host_name;
use super::http::{Connection, Door, Wire};

/// Agents that enrol at the same time.
const ENROLLING: usize = 16;
/// Connections from one local address: fewer than a kernel has ports.
const PER_ADDRESS: usize = 20_000;

/// An enrolled agent.
pub(crate) struct Agent {
    pub(crate) id: Uuid,
    /// What it reports on connecting that it holds.
    pub(crate) held: Option<Vec<HeldEffect>>,
    key: SigningKey,
    number: usize,
}

pub(crate) struct Stream(WebSocketStream<Wire>);

/// What an agent can read of a command without verifying its signature.
#[derive(serde::Deserialize)]
pub(crate) struct Claims {
    pub(crate) jti: Uuid,
    pub(crate) target: riposte_protocol::target::Target,
}

/// Enrols agents number `first` to `first + count`, with one token.
pub(crate) async fn enrol(door: &Door, key: &str, first: usize, count: usize) -> anyhow::Result<Vec<Agent>> {
    let ask = json!({"labels": {"env": "bench"}, "uses": count, "expires_in": "1h"});
    let made = Connection::open(door).await?.ask("POST", "/v1/enrollment-tokens", key, &ask).await?;
    let token: Arc<str> = made["token"].as_str().context("no token")?.into();
    let next = Arc::new(AtomicUsize::new(first));
    let mut workers = JoinSet::new();
    for _ in 0..ENROLLING {
        let (token, next, door) = (Arc::clone(&token), Arc::clone(&next), door.clone());
        workers.spawn(async move {
            let (mut connection, mut agents) = (Connection::open(&door).await?, Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + count {
                    return anyhow::Ok(agents);
                }
                agents.push(enrol_one(&mut connection, &token, number).await?);
            }
        });
    }
    let mut agents = Vec::with_capacity(count);
    while let Some(some) = workers.join_next().await {
        agents.extend(some??);
    }
    agents.sort_by_key(|agent| agent.number);
    Ok(agents)
}

async fn enrol_one(connection: &mut Connection, token: &str, number: usize) -> anyhow::Result<Agent> {
    let key = new_key()?;
    let ask = json!({"token": token, "name": host_name(number), "public_key": key.verifying_key().text(),
        "platform": {"os": "linux", "arch": "x86_64", "version": "12"}, "version": "0.1.0",
        "capabilities": [{"action": "firewall-drop", "available": true}, {"action": "log-only", "available": true}]});
    let answer = connection.ask("POST", "/v1/agents/enroll", "", &ask).await?;
    let id = answer["agent_id"].as_str().context("no agent_id")?.parse()?;
    Ok(Agent::known(id, key, number))
}

pub(crate) fn new_key() -> anyhow::Result<SigningKey> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(SigningKey::from_seed(&secret)?)
}

impl Agent {
    /// An agent that is enrolled already.
    pub(crate) fn known(id: Uuid, key: SigningKey, number: usize) -> Self {
        Self { id, held: None, key, number }
    }

    /// Returns a token that is valid now.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let now = Clock::system().now();
        Ok(identity::issue(&self.key, self.id, Uuid::now_v7(), now, identity::MAX_LIFETIME)?)
    }

    /// Opens the agent's stream and sends its hello; returns when the server has answered.
    pub(crate) async fn connect(&self, door: &Door, token: &str) -> anyhow::Result<Stream> {
        let socket = TcpSocket::new_v4()?;
        let source = u8::try_from(1 + self.number / PER_ADDRESS)?;
        socket.bind(SocketAddr::from(([127, 0, 0, source], 0)))?;
        let wire = door.enter(socket.connect(door.address).await?).await?;
        // The scheme is only for the library: TLS is made already.
        let mut request = format!("ws://{}/v1/agent/stream", door.address).into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
        // Ten thousand of these live in this process: the default buffers would be 2.5 GB.
        let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, wire, Some(config)).await?;
        let mut stream = Stream(socket);
        let effects = self.held.clone();
        stream.say(&FromAgent::Hello { cursor: 0, capabilities: Vec::new(), effects, run: None, keys: None }).await?;
        match stream.hear().await? {
            ToAgent::Settings { .. } => Ok(stream),
            other => bail!("the first message was {other:?}"),
        }
    }
}

impl Stream {
    pub(crate) async fn say(&mut self, message: &FromAgent) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(serde_json::to_string(message)?)).await?)
    }

    /// Returns the next message.
    ///
    /// # Errors
    /// If the stream ends.
    pub(crate) async fn hear(&mut self) -> anyhow::Result<ToAgent> {
        loop {
            match self.0.next().await.context("the stream ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("the server closed the stream: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Acknowledges commands and answers them, as an agent does after journaling and executing
    /// them.
    pub(crate) async fn obey(&mut self, commands: &[Claims]) -> anyhow::Result<()> {
        let command_ids: Vec<Uuid> = commands.iter().map(|command| command.jti).collect();
        self.say(&FromAgent::Ack { command_ids: command_ids.clone() }).await?;
        let now = Clock::system().now();
        let result = |command_id| CommandResult {
            command_id,
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            output: "element added".into(),
            verified: Some(true),
            message: "in force".into(),
            evidence: None,
            started_at: now,
            finished_at: now,
            observed: false,
        };
        self.say(&FromAgent::Result { results: command_ids.into_iter().map(result).collect() }).await
    }
}

/// Reads the claims of a signed command.
pub(crate) fn claims(signed: &str) -> anyhow::Result<Claims> {
    let payload = signed.split('.').nth(1).context("no payload")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// Opens the streams of `agents`, at most `at_once` at the same time.
pub(crate) async fn connect_all(
    agents: Arc<Vec<Agent>>,
    door: &Door,
    at_once: usize,
) -> anyhow::Result<Vec<(usize, Stream)>> {
    let tokens: Arc<Vec<String>> = Arc::new(agents.iter().map(Agent::token).collect::<anyhow::Result<_>>()?);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (agents, tokens, next) = (Arc::clone(&agents), Arc::clone(&tokens), Arc::clone(&next));
        let door = door.clone();
        workers.spawn(async move {
            let mut streams = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let (Some(agent), Some(token)) = (agents.get(index), tokens.get(index)) else {
                    return anyhow::Ok(streams);
                };
                let connected = tokio::time::timeout(Duration::from_secs(30), agent.connect(&door, token)).await;
                streams.push((index, connected.context("no stream within 30 s")??));
            }
        });
    }
    let mut streams = Vec::with_capacity(agents.len());
    while let Some(some) = workers.join_next().await {
        streams.extend(some??);
    }
    Ok(streams)
}
