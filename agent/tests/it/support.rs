//! A simulated manager, and the real program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use riposte_protocol::SUBPROTOCOL;
use riposte_protocol::command::{Command, Op};
use riposte_protocol::key::{SigningKey, VerifyingKey};
use riposte_protocol::message::{CommandResult, EnrollRequest, FromAgent, Settings, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use uuid::Uuid;

/// Time limit of one step; on one host only a fault exceeds it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const AGENT: Uuid = Uuid::from_u128(1);
/// Far in the future, so that the tests need no clock.
pub(crate) const EXP: i64 = 4_000_000_000;
pub(crate) const PROMPT: Settings =
    Settings { heartbeat_seconds: 1, poll_interval_seconds: 1, reconnect_spread_seconds: 0, rotate_key: None };

/// A simulated manager, and the state of the agent that is enrolled at it.
pub(crate) struct Manager {
    pub(crate) listener: TcpListener,
    pub(crate) url: String,
    pub(crate) key: SigningKey,
    pub(crate) state: tempfile::TempDir,
}

/// A stream as the manager sees it.
pub(crate) struct Stream {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) bearer: String,
}

impl Manager {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url, key: SigningKey::from_seed(&[7; 32]).unwrap(), state: tempfile::tempdir().unwrap() }
    }

    /// Starts a manager and enrols an agent; also returns the agent's public key.
    pub(crate) async fn with_agent() -> (Self, VerifyingKey) {
        let manager = Self::start().await;
        let enrolling = agent(manager.state.path(), &["enroll", "--manager", &manager.url, "--name", "web-1"])
            .env("RIPOSTE_TOKEN", "secret")
            .output();
        let answering = manager.exchange(|path, body| {
            assert_eq!(path, "POST /v1/agents/enroll");
            (201, body, manager.enrolment())
        });
        let (enrolled, request) = tokio::join!(enrolling, answering);
        let enrolled = enrolled.unwrap();
        assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
        let request: EnrollRequest = serde_json::from_str(&request).unwrap();
        assert_eq!((request.token.as_str(), request.name.as_str()), ("secret", "web-1"));
        assert!(request.capabilities.iter().any(|capability| capability.action == "log-only" && capability.available));
        (manager, VerifyingKey::parse(&request.public_key).unwrap())
    }

    pub(crate) fn enrolment(&self) -> String {
        let public_key = self.key.verifying_key().text();
        json!({
            "agent_id": AGENT,
            "manager_keys": [{"kid": "k1", "public_key": public_key}],
            "stream_url": format!("{}/v1/agent/stream", self.url.replace("http", "ws")),
            "poll_url": format!("{}/v1/agent/poll", self.url),
        })
        .to_string()
    }

    /// Answers one HTTP request; `answer` returns the answer and a value for the test.
    pub(crate) async fn exchange<T>(&self, answer: impl FnOnce(&str, String) -> (u16, T, String)) -> T {
        let (mut socket, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let mut received = Vec::new();
        let (head, body) = loop {
            let mut chunk = [0; 4096];
            let length = timeout(PATIENCE, socket.read(&mut chunk)).await.unwrap().unwrap();
            assert!(length > 0, "the agent hung up");
            received.extend_from_slice(&chunk[..length]);
            let text = String::from_utf8_lossy(&received);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let path = head.split(" HTTP/").next().unwrap();
        let (status, kept, body) = answer(path, body);
        let length = body.len();
        let text = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        socket.write_all(text.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        kept
    }

    /// Waits for the agent's stream.
    pub(crate) async fn accept(&self) -> Stream {
        let (socket, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let mut bearer = String::new();
        #[expect(clippy::result_large_err, reason = "the library's own signature")]
        let check = |request: &Request, mut response: Response| {
            let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(header("sec-websocket-protocol"), SUBPROTOCOL);
            header("authorization").strip_prefix("Bearer ").unwrap().clone_into(&mut bearer);
            response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let socket = timeout(PATIENCE, tokio_tungstenite::accept_hdr_async(socket, check)).await.unwrap().unwrap();
        Stream { socket, bearer }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Child {
        let arguments = [&["run"], arguments].concat();
        agent(self.state.path(), &arguments).spawn().unwrap()
    }

    pub(crate) fn command(&self, seq: u64, change: impl FnOnce(&mut Command)) -> String {
        let mut command = Command {
            iss: "riposte".into(),
            aud: AGENT,
            jti: Uuid::from_u128(seq.into()),
            seq,
            iat: 0,
            exp: EXP,
            op: Op::Apply,
            effect: Uuid::from_u128(u128::from(seq) << 64),
            action: "log-only".into(),
            target: Target::parse(TargetKind::Ip, "203.0.113.7").unwrap(),
            arguments: vec![],
            until: None,
            response: Uuid::nil(),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        };
        change(&mut command);
        command.sign(&self.key, "k1").unwrap()
    }
}

impl Stream {
    pub(crate) async fn send(&mut self, message: &ToAgent) {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    /// The next message other than a heartbeat.
    pub(crate) async fn next(&mut self) -> FromAgent {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.unwrap().expect("the agent hung up").unwrap();
            let Message::Text(text) = message else { continue };
            match serde_json::from_str(&text).unwrap() {
                FromAgent::Heartbeat | FromAgent::Unknown | FromAgent::Clock { .. } | FromAgent::Rejected { .. } => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn hello(&mut self) -> (u64, usize) {
        let FromAgent::Hello { cursor, effects, .. } = self.next().await else { panic!("no hello") };
        self.send(&ToAgent::Settings { settings: PROMPT }).await;
        (cursor, effects.unwrap().len())
    }

    pub(crate) async fn ack(&mut self) -> Vec<Uuid> {
        let FromAgent::Ack { command_ids } = self.next().await else { panic!("no acknowledgement") };
        command_ids
    }

    pub(crate) async fn results(&mut self) -> Vec<CommandResult> {
        let FromAgent::Result { results } = self.next().await else { panic!("no result") };
        results
    }
}

pub(crate) fn agent(state: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_riposte-agent"));
    program.args(arguments).arg("--state-dir").arg(state);
    program.stdin(Stdio::null()).kill_on_drop(true);
    program
}

pub(crate) async fn stop(mut agent: Child) -> i32 {
    let id = nix::unistd::Pid::from_raw(agent.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    timeout(PATIENCE, agent.wait()).await.unwrap().unwrap().code().unwrap()
}

pub(crate) fn ids(seqs: &[u128]) -> Vec<Uuid> {
    seqs.iter().map(|seq| Uuid::from_u128(*seq)).collect()
}
