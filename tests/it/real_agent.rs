//! What the real agent does with what it receives: from a fake manager that sends what a test
//! wants, and from the real one.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use riposte_protocol::command::{Command, Op, TYP};
use riposte_protocol::enrolment::EnrolmentToken;
use riposte_protocol::key::SigningKey;
use riposte_protocol::message::{CommandResult, FromAgent, Outcome, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::{MANAGER, SUBPROTOCOL, jws};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use uuid::Uuid;

use super::processes::{Agent, Manager, PATIENCE, agent_program, alert, eventually, now, text, tied};

/// A manager that sends what a test wants.
pub(super) struct FakeManager {
    pub(super) key: SigningKey,
    pub(super) agent: Agent,
    pub(super) agent_id: Uuid,
    listener: TcpListener,
}

pub(super) const KID: &str = "the-pinned-key";

impl FakeManager {
    /// Starts a fake manager and enrols a real agent at it.
    pub(super) fn start() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let (address, key, agent_id) =
            (listener.local_addr().unwrap(), SigningKey::from_seed(&[7; 32]).unwrap(), Uuid::now_v7());
        let answer = enrolled(&address.to_string(), agent_id, &[&key]);
        let enrolling = std::thread::spawn(move || {
            let _ = answer_one(&listener, &answer.to_string());
            listener
        });
        let agent = Agent::enroll(&format!("http://{address}"), "a-token", "web-01");
        let listener = enrolling.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { key, agent, agent_id, listener: TcpListener::from_std(listener).unwrap() }
    }

    /// Accepts a stream of the agent and reads its hello.
    async fn accept(&mut self) -> FakeStream {
        let mut stream = self.connect().await;
        assert!(matches!(stream.hear().await, FromAgent::Hello { .. }));
        stream
    }

    /// Accepts a stream of the agent.
    pub(super) async fn connect(&mut self) -> FakeStream {
        let accepting = async {
            loop {
                let (connection, _) = self.listener.accept().await.unwrap();
                #[expect(clippy::result_large_err, reason = "the library's own signature")]
                let choose = |_: &Request, mut answer: Response| -> Result<Response, ErrorResponse> {
                    answer.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
                    Ok(answer)
                };
                if let Ok(socket) = tokio_tungstenite::accept_hdr_async(connection, choose).await {
                    return FakeStream { socket, acks: vec![], results: HashMap::new() };
                }
            }
        };
        tokio::time::timeout(PATIENCE, accepting).await.expect("the agent comes")
    }

    /// Returns a valid command, for a test to corrupt.
    fn command(&self, seq: u64, target: &str) -> Command {
        let now = now();
        Command {
            iss: MANAGER.into(),
            aud: self.agent_id,
            jti: Uuid::now_v7(),
            seq,
            iat: now.as_secs(),
            exp: now.as_secs() + 600,
            op: Op::Apply,
            effect: Uuid::now_v7(),
            action: "log-only".into(),
            target: Target::parse(TargetKind::Ip, target).unwrap(),
            arguments: vec![],
            until: Some(now.plus(Duration::from_hours(1))),
            response: Uuid::now_v7(),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        }
    }

    fn sign(&self, command: &Command) -> String {
        command.sign(&self.key, KID).unwrap()
    }

    /// Returns how often the agent has executed a command for `target`, over all restarts.
    fn executed(&self, target: &str) -> usize {
        let log = self.agent.log();
        let lines = log.lines().filter(|line| line.contains("log-only: applied"));
        lines.filter(|line| line.contains(&format!("target=ip {target} "))).count()
    }
}

/// The answer to an enrolment; every key has the same id.
fn enrolled(address: &str, agent_id: Uuid, keys: &[&SigningKey]) -> Value {
    let keys = keys.iter().map(|key| json!({"kid": KID, "public_key": key.verifying_key().text()}));
    json!({
        "agent_id": agent_id,
        "manager_keys": keys.collect::<Vec<_>>(),
        "stream_url": format!("ws://{address}/v1/agent/stream"),
        "poll_url": format!("http://{address}/v1/agent/poll"),
    })
}

#[test]
fn an_agent_pins_only_the_key_that_its_token_names_and_not_one_with_the_same_id() {
    let [own, forged] = [[7; 32], [8; 32]].map(|seed| SigningKey::from_seed(&seed).unwrap());
    let pins =
        EnrolmentToken { token: "rit_secret", signing_key: Some(own.verifying_key().fingerprint()), authority: None };
    let enroll = |token: &str, keys: &[&SigningKey]| {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = enrolled(&address, Uuid::now_v7(), keys).to_string();
        let asked = std::thread::spawn(move || answer_one(&listener, &answer));
        let agent = Agent::try_enroll(&format!("http://{address}"), token, "web-01", &[]);
        (agent, asked.join().unwrap())
    };
    let token = pins.to_string();
    let (refused, _) = enroll(&token, &[&forged]);
    assert!(refused.unwrap_err().contains("it signs with another key"));
    let (agent, request) = enroll(&token, &[&forged, &own]);
    let keys = agent.unwrap().identity()["manager_keys"].clone();
    assert_eq!(keys, json!([{"kid": KID, "public_key": own.verifying_key().text()}]));
    assert!(request.contains("\"rit_secret\""), "only the secret is sent: {request}");
    // A token of an older manager pins nothing.
    assert!(enroll("rit_secret", &[&forged]).0.is_ok());
}

/// Answers one HTTP request with 201 and `body`; returns the request.
fn answer_one(listener: &StdListener, body: &str) -> String {
    let (mut connection, _) = listener.accept().unwrap();
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = connection.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, sent)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        if read == 0 || sent.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
            break;
        }
    }
    let length = body.len();
    let head = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
    String::from_utf8(request).unwrap()
}

/// The fake manager's end of a stream, and what the agent has sent over it.
pub(super) struct FakeStream {
    socket: WebSocketStream<TcpStream>,
    acks: Vec<Uuid>,
    results: HashMap<Uuid, CommandResult>,
}

impl FakeStream {
    async fn send(&mut self, commands: Vec<String>) {
        self.send_text(serde_json::to_string(&ToAgent::Commands { commands }).unwrap()).await;
    }

    /// Sends a frame as it is.
    pub(super) async fn send_text(&mut self, frame: String) {
        self.socket.send(Message::text(frame)).await.unwrap();
    }

    async fn hear(&mut self) -> FromAgent {
        serde_json::from_str(&self.hear_text().await).unwrap()
    }

    /// Returns the next frame as it came.
    pub(super) async fn hear_text(&mut self) -> String {
        let hearing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(_)) => {}
                    other => panic!("the agent went away: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("the agent says something")
    }

    /// Reads until the agent has reported the result of `command`.
    async fn result_of(&mut self, command: Uuid) -> CommandResult {
        loop {
            if let Some(result) = self.results.get(&command) {
                return result.clone();
            }
            self.listen().await;
        }
    }

    /// Reads until the agent has acknowledged `times` commands.
    async fn acknowledged(&mut self, times: usize) -> Vec<Uuid> {
        while self.acks.len() < times {
            self.listen().await;
        }
        std::mem::take(&mut self.acks)
    }

    async fn listen(&mut self) {
        match self.hear().await {
            FromAgent::Ack { command_ids } => self.acks.extend(command_ids),
            FromAgent::Result { results } => {
                self.results.extend(results.into_iter().map(|result| (result.command_id, result)));
            }
            FromAgent::Heartbeat
            | FromAgent::Clock { .. }
            | FromAgent::Unknown
            | FromAgent::Rejected { .. }
            | FromAgent::Hello { .. }
            | FromAgent::Keys { .. }
            | FromAgent::Effects { .. } => {}
        }
    }
}

#[tokio::test]
async fn promise_8_no_forged_order_is_executed_or_even_acknowledged() {
    let mut manager = FakeManager::start();
    manager.agent.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    let evil = |seq: u64| manager.command(seq, "10.6.6.6");
    let thief = SigningKey::from_seed(&[8; 32]).unwrap();
    let good = manager.sign(&evil(900));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let other_claims = manager.sign(&evil(901));
    let other_claims = other_claims.split('.').nth(1).unwrap();
    let none = jws::sign(&thief, TYP, KID, &json!({})).unwrap();
    let none = none.split('.').next().unwrap();
    let unsigned_header = {
        use base64::Engine as _;
        let header = json!({"alg": "none", "typ": TYP, "kid": KID});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header.to_string())
    };
    let forged = [
        ("another key under the pinned name", evil(902).sign(&thief, KID).unwrap()),
        ("a key that is not pinned", evil(903).sign(&thief, "another-key").unwrap()),
        ("the pinned key under another name", evil(904).sign(&manager.key, "another-key").unwrap()),
        ("another audience", manager.sign(&Command { aud: Uuid::now_v7(), ..evil(905) })),
        ("another issuer", manager.sign(&Command { iss: "another".into(), ..evil(906) })),
        ("another kind of token", jws::sign(&manager.key, "JWT", KID, &evil(907)).unwrap()),
        ("changed claims", format!("{header}.{other_claims}.{signature}")),
        ("a header of another token", format!("{none}.{claims}.{}", "A".repeat(86))),
        ("no signature", format!("{unsigned_header}.{claims}.")),
        ("no algorithm", format!("{unsigned_header}.{claims}.{signature}")),
        ("a torn token", good[..good.len() - 1].to_owned()),
        ("a doubled token", format!("{good}.{signature}")),
        ("no token at all", "rm -rf /".into()),
        ("nothing", String::new()),
    ];
    for (_, token) in &forged {
        stream.send(vec![token.clone()]).await;
    }
    // A forged command does not spoil a good one in the same frame. Frames are read in order: when
    // the good command is acknowledged, all others have been checked.
    let fence = manager.command(5, "10.1.1.1");
    stream.send(forged.iter().map(|(_, token)| token.clone()).chain([manager.sign(&fence)]).collect()).await;
    assert_eq!(stream.acknowledged(1).await, [fence.jti], "a forged order was acknowledged");
    let result = stream.result_of(fence.jti).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, Some(true)), "{result:?}");
    assert_eq!((manager.executed("10.1.1.1"), manager.executed("10.6.6.6")), (1, 0), "a forged order was executed");
    assert_eq!(stream.results.keys().collect::<Vec<_>>(), [&fence.jti], "a forged order was answered");
    let status = manager.agent.status();
    assert_eq!(status["cursor"], 5, "a forged order has moved the cursor: the real command would never arrive");
    assert!(manager.agent.log().contains("an invalid order was ignored"));

    // The original of the forgeries above works, so the forgery was the reason of the refusal.
    stream.send(vec![good.clone()]).await;
    assert_eq!(stream.acknowledged(1).await.len(), 1);
    eventually("the good one is executed", PATIENCE, async || (manager.executed("10.6.6.6") == 1).then_some(())).await;
}

#[tokio::test]
async fn promise_8_an_expired_or_replayed_order_is_never_executed() {
    let mut manager = FakeManager::start();
    manager.agent.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;

    let late = Command { exp: now().as_secs() - 1, ..manager.command(1, "10.2.2.1") };
    let over = Command { until: Some(now().minus(Duration::from_secs(1))), ..manager.command(2, "10.2.2.2") };
    let protected = manager.command(3, "127.0.0.1");
    stream.send(vec![manager.sign(&late), manager.sign(&over), manager.sign(&protected)]).await;
    for command in [&late, &over, &protected] {
        // They are the manager's own commands, so it gets the reason.
        let result = stream.result_of(command.jti).await;
        assert_eq!(result.outcome, Outcome::Refused, "{result:?}");
        assert_eq!(manager.executed(command.target.value()), 0);
    }
    assert_eq!(stream.acknowledged(3).await, [late.jti, over.jti, protected.jti]);

    let good = manager.command(10, "10.3.3.3");
    let token = manager.sign(&good);
    stream.send(vec![token.clone()]).await;
    assert_eq!(stream.result_of(good.jti).await.outcome, Outcome::Succeeded);
    // The same command again; the same id for another command; an older command of the same effect.
    let same_id = Command { jti: good.jti, ..manager.command(11, "10.4.4.4") };
    let older = Command { effect: good.effect, ..manager.command(9, "10.3.3.3") };
    stream.send(vec![token.clone(), token.clone(), manager.sign(&same_id), manager.sign(&older)]).await;
    let acks = stream.acknowledged(5).await;
    assert_eq!(acks, [good.jti, good.jti, good.jti, good.jti, older.jti]);
    assert_eq!(stream.result_of(older.jti).await.outcome, Outcome::Refused);

    // The same after a kill: received commands are on disk.
    manager.agent.run_again();
    let mut stream = manager.accept().await;
    let fence = manager.command(12, "10.5.5.5");
    stream.send(vec![token, manager.sign(&same_id), manager.sign(&fence)]).await;
    assert_eq!(stream.acknowledged(3).await, [good.jti, good.jti, fence.jti]);
    assert_eq!(stream.result_of(fence.jti).await.outcome, Outcome::Succeeded);
    assert_eq!((manager.executed("10.3.3.3"), manager.executed("10.4.4.4")), (1, 0));
}

#[tokio::test]
async fn promise_3_the_real_agent_executes_a_command_once_however_often_it_is_sent() {
    let mut manager = FakeManager::start();
    manager.agent.run(&["--transport", "stream"]);
    let command = manager.command(1, "10.3.3.3");
    let token = manager.sign(&command);
    for _ in 0..3 {
        let mut stream = manager.accept().await;
        stream.send(vec![token.clone(); 20]).await;
        assert_eq!(stream.acknowledged(20).await, [command.jti; 20]);
        // The result was not acknowledged, so every conversation repeats it.
        assert_eq!(stream.result_of(command.jti).await.outcome, Outcome::Succeeded);
        manager.agent.run_again();
    }
    assert_eq!(manager.executed("10.3.3.3"), 1);
}

#[tokio::test]
async fn the_real_agent_falls_back_to_polls_where_no_stream_can_be_had() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    // No server listens there.
    agent.change_identity("stream_url", "ws://127.0.0.1:1/v1/agent/stream");
    agent.run(&[]);
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
    assert_eq!(agent.log().matches("log-only: applied").count(), 1);
}

#[tokio::test]
async fn programs_on_a_system_without_certificate_authorities_can_speak_plain_http() {
    let manager = Manager::start().await;
    let api = manager.api();
    let without = |program: &Path| {
        let mut command = tied(program);
        command.env("SSL_CERT_FILE", "/dev/null").env_remove("SSL_CERT_DIR");
        command
    };
    let mut list = without(Path::new(env!("CARGO_BIN_EXE_riposte")));
    let list = list.env("RIPOSTE_MANAGER", &api.base).env("RIPOSTE_KEY", &api.key).args(["agent", "list"]);
    let listed = list.output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let token = api.post("/v1/enrollment-tokens", &json!({})).await;
    let state = tempfile::tempdir().unwrap();
    let mut enroll = without(&agent_program());
    let enroll = enroll.env("RIPOSTE_TOKEN", text(&token, "token")).args(["enroll", "--name", "web-09"]);
    let enrolled = enroll.args(["--manager", &api.base, "--state-dir"]).arg(state.path()).output().unwrap();
    assert!(enrolled.status.success(), "{enrolled:?}");
}

#[tokio::test]
async fn labels_are_changed_from_the_command_line_and_replace_pushes_no_agent_aside_that_was_just_heard_of() {
    let manager = Manager::start().await;
    let api = manager.api();
    let first = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    let (is_done, said) = manager.command(&["agent", "label", "WEB-01", "wazuh_id=5", "env=prod", "--yes"]);
    assert!(is_done && said.contains(r#""wazuh_id":"005""#), "{said}");
    let (is_done, said) = manager.command(&["agent", "label", &first.id, "env-", "--yes"]);
    assert!(is_done && said.contains("env is removed, was prod") && !said.contains(r#""env""#), "{said}");
    for (name, word, why) in [("web-01", "env", "neither KEY=VALUE nor KEY-"), ("web-02", "a=b", "riposte agent list")]
    {
        let (is_done, said) = manager.command(&["agent", "label", name, word]);
        assert!(!is_done && said.contains(why), "{said}");
    }
    let token = api.make_token().await;
    let refused = Agent::try_enroll(&api.base, &token, "web-01", &[]).unwrap_err();
    assert!(refused.contains("--replace"), "{refused}");
    let refused = Agent::try_enroll(&api.base, &token, "web-01", &["--replace"]).unwrap_err();
    assert!(refused.contains("was heard of") && refused.contains("wait for 120 s"), "{refused}");
    let (_, said) = manager.command(&["agent", "list", "--json"]);
    let listed: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed.len(), 1, "{said}");
    assert_eq!((&listed[0]["id"], &listed[0]["labels"]), (&json!(first.id), &json!({"wazuh_id": "005"})));
}
