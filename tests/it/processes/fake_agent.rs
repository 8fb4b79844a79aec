//! An agent that sends and receives what a test wants, by polls and over a stream.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use riposte_protocol::command::Command;
use riposte_protocol::key::{SigningKey, VerifyingKey};
use riposte_protocol::message::{CommandResult, EnrollResponse, FromAgent, Outcome, ToAgent};
use riposte_protocol::{SUBPROTOCOL, identity};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use super::{Manager, PATIENCE, now};

/// An agent with an identity that does nothing on its own.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    /// The manager's keys.
    pub(crate) pinned: Vec<(String, VerifyingKey)>,
    key: SigningKey,
    http: reqwest::Client,
    poll_url: String,
    stream_url: String,
}

impl FakeAgent {
    /// Enrols an agent.
    pub(crate) async fn enroll(manager: &Manager, name: &str) -> Self {
        let api = manager.api();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        let asked = json!({"token": api.make_token().await, "name": name,
            "public_key": key.verifying_key().text(), "version": "0"});
        let enrolled: EnrollResponse =
            serde_json::from_value(api.post("/v1/agents/enroll", &asked).await).expect("an enrolment");
        let pinned = enrolled.manager_keys.iter();
        let pinned = pinned.map(|key| (key.kid.clone(), VerifyingKey::parse(&key.public_key).unwrap())).collect();
        let EnrollResponse { agent_id: id, poll_url, stream_url, .. } = enrolled;
        Self { id, name: name.into(), pinned, key, http: api.http, poll_url, stream_url }
    }

    /// The same agent, as it talks to another manager.
    pub(crate) fn at(&self, manager: &Manager) -> Self {
        let (poll_url, stream_url) = (
            format!("{}/v1/agent/poll", manager.base()),
            format!("{}/v1/agent/stream", manager.base().replacen("http", "ws", 1)),
        );
        let (name, pinned, http) = (self.name.clone(), self.pinned.clone(), manager.api().http);
        Self { id: self.id, name, pinned, key: self.key.clone(), http, poll_url, stream_url }
    }

    /// Returns a fresh token of its own.
    pub(crate) fn token(&self) -> String {
        identity::issue(&self.key, self.id, Uuid::now_v7(), now(), identity::MAX_LIFETIME).unwrap()
    }

    /// Verifies commands as an agent must: signed by a pinned key and addressed to it.
    pub(crate) fn open(&self, tokens: &[String]) -> Vec<Command> {
        tokens.iter().map(|token| Command::open(token, &self.pinned, self.id).expect("a command to obey")).collect()
    }

    /// One poll; returns the status and the body.
    pub(crate) async fn exchange(&self, body: &Value) -> (StatusCode, Value) {
        let (status, answer) = self.exchange_text(body.to_string()).await;
        (status, serde_json::from_str(&answer).unwrap_or_default())
    }

    /// The same, as text.
    pub(crate) async fn exchange_text(&self, body: String) -> (StatusCode, String) {
        let request = self.http.post(&self.poll_url).bearer_auth(self.token());
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// One poll; returns its commands.
    pub(crate) async fn poll(&self, body: Value) -> Vec<Command> {
        let (status, answer) = self.exchange(&body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        self.open(&serde_json::from_value::<Vec<String>>(answer["commands"].clone()).unwrap())
    }

    /// Tries to open a stream.
    pub(crate) async fn try_connect(&self) -> Result<Stream<'_>, tungstenite::Error> {
        let mut request = self.stream_url.as_str().into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token()).parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Stream { agent: self, socket })
    }

    /// Opens a stream and sends the hello.
    pub(crate) async fn connect(&self, cursor: u64) -> Stream<'_> {
        let mut stream = self.try_connect().await.expect("a stream");
        stream.say(&FromAgent::Hello { cursor, capabilities: vec![], effects: None, run: None, keys: None }).await;
        match stream.hear().await {
            Heard::Message(ToAgent::Settings { .. }) => stream,
            other => panic!("expected settings, not {other:?}"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stream<'a> {
    pub(crate) agent: &'a FakeAgent,
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What arrived on a stream.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(ToAgent),
    /// Closed by the manager, with its reason if there was one.
    Closed(Option<CloseFrame>),
    /// Broken.
    Broken(String),
}

impl Stream<'_> {
    pub(crate) async fn say(&mut self, message: &FromAgent) {
        self.say_text(serde_json::to_string(message).unwrap()).await;
    }

    /// Says something on a stream that may be closed.
    pub(crate) async fn try_say(&mut self, message: &FromAgent) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await
    }

    /// Sends a frame as it is.
    pub(crate) async fn say_text(&mut self, frame: String) {
        self.socket.send(Message::text(frame)).await.unwrap();
    }

    /// Returns the next frame as it came.
    pub(crate) async fn hear_text(&mut self) -> String {
        let hearing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("expected a frame, not {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("something comes over the stream")
    }

    /// Returns the next message, or the end, within the usual patience.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).await.expect("something comes over the stream")
    }

    /// Returns the next message, or the end, if one comes in time.
    pub(crate) async fn hear_within(&mut self, patience: Duration) -> Option<Heard> {
        let heard = async {
            loop {
                return match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => Heard::Message(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(frame))) => Heard::Closed(frame),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => Heard::Broken(error.to_string()),
                    None => Heard::Closed(None),
                };
            }
        };
        tokio::time::timeout(patience, heard).await.ok()
    }

    /// Returns the next commands, within `patience`.
    pub(crate) async fn commands_within(&mut self, patience: Duration) -> Vec<Command> {
        match self.hear_within(patience).await {
            Some(Heard::Message(ToAgent::Commands { commands })) => self.agent.open(&commands),
            other => panic!("expected commands within {patience:?}, not {other:?}"),
        }
    }

    /// Returns how the manager closes the stream; earlier messages are skipped.
    pub(crate) async fn end(&mut self) -> Option<CloseFrame> {
        loop {
            match self.hear().await {
                Heard::Message(_) => {}
                Heard::Closed(frame) => return frame,
                Heard::Broken(why) => {
                    eprintln!("the stream broke: {why}");
                    return None;
                }
            }
        }
    }
}

/// Returns the result of a command that succeeded.
pub(crate) fn succeeded(command_id: Uuid) -> CommandResult {
    CommandResult {
        command_id,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        output: String::new(),
        verified: Some(true),
        message: "in force".into(),
        evidence: None,
        started_at: now(),
        finished_at: now(),
        observed: false,
    }
}
