//! An agent that the test plays: its own key, real tokens, real signatures, and any report that the
//! test wants.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use riposte::clock::Clock;
use riposte_protocol::command::Command;
use riposte_protocol::key::{SigningKey, VerifyingKey};
use riposte_protocol::message::{
    Capability, CommandResult, EnrollRequest, EnrollResponse, FromAgent, MAX_FRAME_BYTES, Outcome, Platform,
    PollRequest, PollResponse, ToAgent,
};
use riposte_protocol::{SUBPROTOCOL, identity};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use super::{Answer, Client, PATIENCE, TestApp};

/// An enrolled agent.
pub(crate) struct FakeAgent {
    pub(crate) id: Uuid,
    pub(crate) key: SigningKey,
    clock: Clock,
    http: Client,
    stream_url: String,
    pinned: Vec<(String, VerifyingKey)>,
}

/// A fresh random key.
pub(crate) fn new_key() -> SigningKey {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    SigningKey::from_seed(&seed).unwrap()
}

/// Returns the enrolment request of an agent called `name`.
pub(crate) fn enrollment(token: &str, name: &str, key: &SigningKey) -> EnrollRequest {
    EnrollRequest {
        token: token.into(),
        name: name.into(),
        public_key: key.verifying_key().text(),
        platform: Platform { os: "linux".into(), arch: "x86_64".into(), version: "12".into() },
        version: "0.1.0".into(),
        capabilities: vec![],
        replace: false,
        wazuh: None,
    }
}

impl FakeAgent {
    /// Enrols an agent with `token`.
    pub(crate) async fn enrol(app: &TestApp, token: &str, name: &str, capabilities: Vec<Capability>) -> Self {
        let key = new_key();
        Self::enrol_by(app, EnrollRequest { capabilities, ..enrollment(token, name, &key) }, key).await
    }

    /// Enrols a replacement of another agent on the same host.
    pub(crate) async fn replace(app: &TestApp, token: &str, name: &str) -> Self {
        let key = new_key();
        Self::enrol_by(app, EnrollRequest { replace: true, ..enrollment(token, name, &key) }, key).await
    }

    async fn enrol_by(app: &TestApp, asked: EnrollRequest, key: SigningKey) -> Self {
        let http = Client::anonymous(&app.base);
        let answer = http.post("/v1/agents/enroll", &serde_json::to_value(asked).unwrap()).await.is(201);
        let EnrollResponse { agent_id, manager_keys, stream_url, .. } = serde_json::from_value(answer).unwrap();
        let pinned = manager_keys.into_iter().map(|key| {
            let public = VerifyingKey::parse(&key.public_key).unwrap();
            (key.kid, public)
        });
        Self { id: agent_id, key, clock: app.clock.clone(), http, stream_url, pinned: pinned.collect() }
    }

    /// Returns a valid token.
    pub(crate) fn token(&self) -> String {
        identity::issue(&self.key, self.id, Uuid::now_v7(), self.clock.now(), Duration::from_mins(5)).unwrap()
    }

    /// Polls once, with any token.
    pub(crate) async fn exchange(&self, token: &str, request: &PollRequest) -> Answer {
        Answer::to(self.http.with_key(token).request(Method::POST, "/v1/agent/poll").json(request)).await
    }

    /// An exchange as the program that calls itself `name`.
    pub(crate) async fn poll_as(&self, name: &str) {
        let request = self.http.with_key(&self.token()).request(Method::POST, "/v1/agent/poll");
        Answer::to(request.header("user-agent", name).json(&PollRequest::default())).await.is(200);
    }

    /// Polls once.
    pub(crate) async fn poll(&self, request: &PollRequest) -> PollResponse {
        let answer = self.exchange(&self.token(), request).await;
        assert!(answer.text.len() <= MAX_FRAME_BYTES, "a real agent reads no more than that");
        serde_json::from_value(answer.is(200)).unwrap()
    }

    /// Every command that is owed to an agent with an empty journal, checked as a real agent checks
    /// it.
    pub(crate) async fn owed(&self) -> Vec<Command> {
        let answer = self.poll(&PollRequest { max: 256, ..PollRequest::default() }).await;
        answer.commands.iter().map(|token| self.open(token)).collect()
    }

    /// Returns the one command that it is owed.
    pub(crate) async fn owed_one(&self) -> Command {
        let mut owed = self.owed().await;
        assert_eq!(owed.len(), 1, "{owed:?}");
        owed.remove(0)
    }

    /// Verifies and reads a signed command.
    pub(crate) fn open(&self, token: &str) -> Command {
        Command::open(token, &self.pinned, self.id).unwrap()
    }

    /// Acknowledges commands, as an agent does once they are in its journal.
    pub(crate) async fn acknowledge(&self, commands: &[&Command]) {
        let acks = commands.iter().map(|command| command.jti).collect();
        // Asks for no commands: `owed` has a window of its own.
        self.poll(&PollRequest { acks, cursor: u64::MAX >> 1, max: 0, ..PollRequest::default() }).await;
    }

    /// Reports results; returns the ids that the manager acknowledges.
    pub(crate) async fn report(&self, results: Vec<CommandResult>) -> Vec<Uuid> {
        let request = PollRequest { results, cursor: u64::MAX >> 1, max: 0, ..PollRequest::default() };
        self.poll(&request).await.result_acks
    }

    /// Returns a result of a command.
    pub(crate) fn result(&self, command: Uuid, outcome: Outcome, verified: Option<bool>) -> CommandResult {
        CommandResult {
            command_id: command,
            outcome,
            exit_code: Some(i32::from(outcome != Outcome::Succeeded)),
            output: "played".into(),
            verified,
            message: "the test says so".into(),
            evidence: None,
            started_at: self.clock.now(),
            finished_at: self.clock.now(),
            observed: false,
        }
    }

    /// Fetches every command and reports success.
    pub(crate) async fn obey(&self) -> Vec<Command> {
        let owed = self.owed().await;
        self.acknowledge(&owed.iter().collect::<Vec<_>>()).await;
        let results = owed.iter().map(|command| self.result(command.jti, Outcome::Succeeded, Some(true)));
        self.report(results.collect()).await;
        owed
    }

    /// Fetches the one command that it is owed, and reports its result.
    pub(crate) async fn answer(&self, outcome: Outcome, verified: Option<bool>) -> Command {
        let command = self.owed_one().await;
        self.acknowledge(&[&command]).await;
        self.report(vec![self.result(command.jti, outcome, verified)]).await;
        command
    }

    /// The same agent, with the manager's new address.
    pub(crate) fn moved_to(self, app: &TestApp) -> Self {
        let stream_url = format!("{}/v1/agent/stream", app.base.replacen("http", "ws", 1));
        Self { http: Client::anonymous(&app.base), stream_url, ..self }
    }

    /// Opens a stream and sends its hello.
    pub(crate) async fn stream(&self, cursor: u64) -> Stream {
        self.stream_of(cursor, "a test").await
    }

    /// The keys that it trusts.
    pub(crate) fn pinned(&self) -> &[(String, VerifyingKey)] {
        &self.pinned
    }

    /// Opens a stream as an agent that has accepted statement `keys` about the manager's keys.
    pub(crate) async fn stream_with_keys(&self, cursor: u64, keys: Option<u64>) -> Stream {
        let mut stream = self.connect("a test").await;
        stream.say(&FromAgent::Hello { cursor, capabilities: vec![], effects: None, run: None, keys }).await;
        stream
    }

    /// Opens a stream as the program that calls itself `name`, and says hello.
    pub(crate) async fn stream_as(&self, name: &str) -> Stream {
        self.stream_of(0, name).await
    }

    async fn stream_of(&self, cursor: u64, name: &str) -> Stream {
        let mut stream = self.connect(name).await;
        stream.say(&FromAgent::Hello { cursor, capabilities: vec![], effects: None, run: None, keys: None }).await;
        stream
    }

    async fn connect(&self, name: &str) -> Stream {
        let mut request = self.stream_url.as_str().into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {}", self.token()).parse().unwrap());
        headers.insert("user-agent", name.parse().unwrap());
        headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], SUBPROTOCOL);
        Stream { socket }
    }
}

pub(crate) struct Stream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Stream {
    pub(crate) async fn say(&mut self, message: &FromAgent) {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    /// Returns the next message; `None` when the manager has closed the stream.
    pub(crate) async fn hear(&mut self) -> Option<ToAgent> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the manager said nothing");
            match frame {
                Some(Ok(Message::Text(text))) => {
                    assert!(text.len() <= MAX_FRAME_BYTES, "a real agent ends the stream at that");
                    return Some(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_) | Err(_)) | None => return None,
            }
        }
    }

    /// Reads until the manager closes the stream.
    pub(crate) async fn hear_the_end(&mut self) {
        while self.hear().await.is_some() {}
    }

    /// Returns the next commands; settings are skipped.
    pub(crate) async fn commands(&mut self, agent: &FakeAgent) -> Vec<Command> {
        loop {
            match self.hear().await.expect("the stream ended") {
                ToAgent::Commands { commands } => return commands.iter().map(|token| agent.open(token)).collect(),
                ToAgent::Settings { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
