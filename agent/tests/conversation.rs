//! The real program against a manager that the tests play: enrolment, the stream and the polls, over real sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong here fails the test")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use futures_util::{SinkExt as _, StreamExt as _};
use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{
    CommandResult, EnrollRequest, FromAgent, Outcome, PollRequest, PollResponse, Settings, ToAgent,
};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use riposte_protocol::{SUBPROTOCOL, identity, jws};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use uuid::Uuid;

/// No step of a conversation on this host takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
const AGENT: Uuid = Uuid::from_u128(1);
/// Far in the future, so that the tests need no clock.
const EXP: i64 = 4_000_000_000;
const PROMPT: Settings = Settings { heartbeat_seconds: 1, poll_interval_seconds: 1, reconnect_spread_seconds: 0 };

/// A manager that the test plays, and the state of the agent that is enrolled at it.
struct Manager {
    listener: TcpListener,
    url: String,
    key: SigningKey,
    state: tempfile::TempDir,
}

/// A stream as the manager sees it.
struct Stream {
    socket: WebSocketStream<TcpStream>,
    bearer: String,
}

impl Manager {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url, key: SigningKey::from_bytes(&[7; 32]), state: tempfile::tempdir().unwrap() }
    }

    /// Starts a manager and enrols an agent; gives the agent's public key too.
    async fn with_agent() -> (Self, VerifyingKey) {
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
        (manager, jws::parse_public_key(&request.public_key).unwrap())
    }

    fn enrolment(&self) -> String {
        let public_key = jws::public_key_text(&self.key.verifying_key());
        json!({
            "agent_id": AGENT,
            "manager_keys": [{"kid": "k1", "public_key": public_key}],
            "stream_url": format!("{}/v1/agent/stream", self.url.replace("http", "ws")),
            "poll_url": format!("{}/v1/agent/poll", self.url),
        })
        .to_string()
    }

    /// Answers one HTTP request; `answer` gives what the test wants to keep of it.
    async fn exchange<T>(&self, answer: impl FnOnce(&str, String) -> (u16, T, String)) -> T {
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
    async fn accept(&self) -> Stream {
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

    fn run(&self, arguments: &[&str]) -> Child {
        let arguments = [&["run"], arguments].concat();
        agent(self.state.path(), &arguments).spawn().unwrap()
    }

    fn command(&self, seq: u64, change: impl FnOnce(&mut Command)) -> String {
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
        };
        change(&mut command);
        command.sign(&self.key, "k1").unwrap()
    }
}

impl Stream {
    async fn send(&mut self, message: &ToAgent) {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    /// The next message that is no heartbeat.
    async fn next(&mut self) -> FromAgent {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.unwrap().expect("the agent hung up").unwrap();
            let Message::Text(text) = message else { continue };
            match serde_json::from_str(&text).unwrap() {
                FromAgent::Heartbeat => {}
                message => return message,
            }
        }
    }

    async fn hello(&mut self) -> (u64, usize) {
        let FromAgent::Hello { cursor, effects, .. } = self.next().await else { panic!("no hello") };
        self.send(&ToAgent::Settings { settings: PROMPT }).await;
        (cursor, effects.unwrap().len())
    }

    async fn ack(&mut self) -> Vec<Uuid> {
        let FromAgent::Ack { command_ids } = self.next().await else { panic!("no acknowledgement") };
        command_ids
    }

    async fn results(&mut self) -> Vec<CommandResult> {
        let FromAgent::Result { results } = self.next().await else { panic!("no result") };
        results
    }
}

fn agent(state: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_riposte-agent"));
    program.args(arguments).arg("--state-dir").arg(state);
    program.stdin(Stdio::null()).kill_on_drop(true);
    program
}

async fn stop(mut agent: Child) -> i32 {
    let id = nix::unistd::Pid::from_raw(agent.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    timeout(PATIENCE, agent.wait()).await.unwrap().unwrap().code().unwrap()
}

fn ids(seqs: &[u128]) -> Vec<Uuid> {
    seqs.iter().map(|seq| Uuid::from_u128(*seq)).collect()
}

#[tokio::test]
async fn a_result_is_sent_again_until_the_manager_has_it() {
    let (manager, public_key) = Manager::with_agent().await;
    let running = manager.run(&[]);
    let mut stream = manager.accept().await;
    let now = Timestamp::from_millis(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap());
    identity::check(&stream.bearer, &public_key, AGENT, now).unwrap();
    assert_eq!(stream.hello().await, (0, 0));
    stream.send(&ToAgent::Commands { commands: vec![manager.command(5, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[5]));
    let first = stream.results().await;
    assert_eq!((first[0].outcome, first[0].verified), (Outcome::Succeeded, Some(true)));
    drop(stream);

    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (5, 1), "the cursor and the effect are remembered");
    assert_eq!(stream.results().await, first);
    // The manager delivers once more, as if the acknowledgement had been lost: it is not executed again.
    stream.send(&ToAgent::Commands { commands: vec![manager.command(5, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[5]));
    assert_eq!(stream.results().await, first);
    drop((stream, running));

    // Even a killed agent still has it.
    let running = manager.run(&[]);
    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (5, 1));
    assert_eq!(stream.results().await, first);
    stream.send(&ToAgent::ResultAck { command_ids: ids(&[5]) }).await;
    stream.send(&ToAgent::Commands { commands: vec![manager.command(5, |_| ()), manager.command(6, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[5, 6]));
    assert_eq!(stream.results().await[0].command_id, Uuid::from_u128(6), "what is committed is not told again");
    assert_eq!(stop(running).await, 0);

    let status = agent(manager.state.path(), &["status", "--json"]).output().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["cursor"], &status["results_unsent"]), (&json!(6), &json!(1)));
    assert_eq!(status["effects"].as_array().unwrap().len(), 2, "stopping lifts nothing");
}

#[tokio::test]
async fn no_forged_order_is_acknowledged_and_every_refusal_is_told() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let good = manager.command(1, |_| ());
    let forged = {
        let command = Command::open(&good, &[("k1".into(), manager.key.verifying_key())], AGENT).unwrap();
        [command.sign(&stranger, "k1").unwrap(), command.sign(&stranger, "k9").unwrap()]
    };
    let effect = Uuid::from_u128(77);
    let commands = vec![
        forged[0].clone(),
        forged[1].clone(),
        "not a token".into(),
        manager.command(1, |command| command.aud = Uuid::from_u128(2)),
        manager.command(3, |command| command.effect = effect),
        manager.command(2, |command| command.effect = effect),
        manager.command(4, |command| command.exp = 1),
        manager.command(5, |command| command.action = "make-tea".into()),
        manager.command(6, |command| command.target = Target::parse(TargetKind::Ip, "127.0.0.1").unwrap()),
    ];
    stream.send(&ToAgent::Commands { commands }).await;
    assert_eq!(stream.ack().await, ids(&[3, 2, 4, 5, 6]), "what is forged is not acknowledged");
    let mut results = Vec::new();
    while results.len() < 5 {
        results.extend(stream.results().await);
    }
    results.sort_by_key(|result| result.command_id);
    let told: Vec<_> = results.iter().map(|result| (result.outcome, result.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (Outcome::Refused, "a newer command of the same effect was received before this one"),
            (Outcome::Succeeded, "in force"),
            (Outcome::Refused, "expired before it could be executed"),
            (Outcome::Refused, "this agent does not know the action make-tea"),
            (Outcome::Refused, "the target is protected: a loopback address"),
        ]
    );
}

#[tokio::test]
async fn a_manager_that_falls_silent_is_left_and_found_again() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&["--transport", "stream"]);
    let mut silent = manager.accept().await;
    silent.hello().await;
    // Nothing is read any more, so no ping is answered: after three heartbeats of a second the agent comes anew.
    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (0, 0));
    stream.send(&ToAgent::Bye { retry_after: 0 }).await;
    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (0, 0));
    drop(silent);
}

#[tokio::test]
async fn an_agent_that_can_not_stream_polls() {
    let (manager, _) = Manager::with_agent().await;
    let running = manager.run(&[]);
    for _ in 0..2 {
        manager
            .exchange(|path, _| {
                assert_eq!(path, "GET /v1/agent/stream");
                (404, (), String::new())
            })
            .await;
    }
    let poll = |commands: Vec<String>, result_acks: Vec<Uuid>| {
        let answer = serde_json::to_string(&PollResponse { commands, result_acks, settings: PROMPT }).unwrap();
        manager.exchange(move |path, body| {
            assert_eq!(path, "POST /v1/agent/poll");
            (200, serde_json::from_str::<PollRequest>(&body).unwrap(), answer)
        })
    };
    let first = poll(vec![manager.command(5, |_| ())], vec![]).await;
    assert_eq!((first.cursor, first.effects, first.capabilities.is_some()), (0, Some(vec![]), true));
    let mut second = poll(vec![], vec![]).await;
    assert_eq!((second.cursor, second.acks), (5, ids(&[5])));
    while second.results.is_empty() {
        second = poll(vec![], vec![]).await;
    }
    assert_eq!(second.results[0].outcome, Outcome::Succeeded);
    assert!(second.capabilities.is_none(), "told once");
    // An exchange that fails loses nothing.
    manager.exchange(|_, _| (503, (), String::new())).await;
    let again = poll(vec![], ids(&[5])).await;
    assert_eq!(again.results, second.results);
    let last = poll(vec![], vec![]).await;
    assert!(last.results.is_empty());
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn a_refused_enrolment_says_why_and_leaves_no_identity() {
    let manager = Manager::start().await;
    let enrolling = agent(manager.state.path(), &["enroll", "--manager", &manager.url, "--token", "old"]).output();
    let problem = r#"{"type":"x","title":"Unauthorized","detail":"the enrolment token has expired"}"#;
    let (enrolled, ()) = tokio::join!(enrolling, manager.exchange(|_, _| (401, (), problem.into())));
    let enrolled = enrolled.unwrap();
    let said = String::from_utf8_lossy(&enrolled.stderr);
    assert_eq!(enrolled.status.code(), Some(1));
    assert!(said.contains("the enrolment token has expired"), "{said}");
    let ran = agent(manager.state.path(), &["run"]).output().await.unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("not enrolled"));
}

#[tokio::test]
async fn one_state_directory_has_one_running_agent() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&[]);
    manager.accept().await.hello().await;
    let second = agent(manager.state.path(), &["run"]).output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another riposte-agent is running"));
}
