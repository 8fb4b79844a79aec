//! What agents and a manager promise each other on the wire, tried with the real programs: a fake agent against the real
//! manager, and a fake manager against the real agent.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::TcpListener as StdListener;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use riposte_protocol::command::{Command, Op, TYP};
use riposte_protocol::delivery::{Inbox, Receipt};
use riposte_protocol::message::{CommandResult, FromAgent, Outcome, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::{MANAGER, SUBPROTOCOL, jws};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use uuid::Uuid;

use super::processes::{
    Agent, Api, FakeAgent, Heard, Manager, PATIENCE, Stream, alert, eventually, now, random_below, succeeded, text,
};

/// Soon enough to be called "at once" on a busy machine, and far below the lease of 30 s.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);
/// How long nothing must come for "nothing comes".
pub(super) const SILENT: Duration = Duration::from_millis(700);

/// A manager with a policy, and an enrolled fake agent.
pub(super) async fn start() -> (Manager, Api, FakeAgent) {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let agent = FakeAgent::enroll(&manager, "web-01").await;
    (manager, api, agent)
}

pub(super) async fn lift(api: &Api, response: &str) {
    api.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "a test"})).await;
}

pub(super) fn ids(commands: &[Command]) -> Vec<String> {
    commands.iter().map(|command| command.jti.to_string()).collect()
}

// Promise 3: at least once to the agent.

#[tokio::test]
async fn promise_3_an_unacknowledged_command_is_sent_again_at_once_on_reconnect() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    let first = stream.commands_within(AT_ONCE).await;
    assert_eq!(ids(&first), [text(&command, "id")]);
    drop(stream);
    let again = agent.connect(0).await.commands_within(AT_ONCE).await;
    assert_eq!(ids(&again), ids(&first), "the frame may have been lost, so it is sent again whatever its lease says");
    // Over the other transport too, and as often as it takes.
    for _ in 0..3 {
        assert_eq!(ids(&agent.poll(json!({"cursor": 0})).await), ids(&first));
    }
    // The note that it was sent follows a moment later.
    eventually("every delivery is counted", PATIENCE, async || {
        let command = api.command_is(&ids(&first)[0], "delivered").await;
        (command["deliveries"].as_u64() == Some(5)).then_some(())
    })
    .await;

    // Acknowledged, it is not owed any more.
    assert_eq!(agent.poll(json!({"cursor": 0, "acks": [first[0].jti]})).await, []);
    assert!(agent.connect(0).await.hear_within(SILENT).await.is_none());
}

#[tokio::test]
async fn promise_3_a_queued_command_survives_the_manager_and_is_sent_when_the_agent_comes() {
    let (mut manager, api, agent) = start().await;
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    manager.start_again().await;
    let sent = agent.connect(0).await.commands_within(AT_ONCE).await;
    assert_eq!(ids(&sent), [text(&command, "id")]);
    manager.start_again().await;
    assert_eq!(ids(&agent.connect(0).await.commands_within(AT_ONCE).await), ids(&sent));
}

/// About 31 s: the lease is real time.
#[tokio::test]
async fn promise_3_an_unacknowledged_command_is_sent_again_when_its_lease_ends() {
    let (manager, api, agent) = start().await;
    let other = FakeAgent::enroll(&manager, "web-02").await;
    api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    api.answer_to(&alert(2, "10.0.0.1", &other.name)).await;
    let mut stream = agent.connect(0).await;
    let first = stream.commands_within(AT_ONCE).await;
    // The other one has journaled its command; the connection broke before it could say so.
    let others = other.connect(0).await.commands_within(AT_ONCE).await;
    let mut others_stream = other.connect(others[0].seq).await;
    // A third one acknowledges the second of its two commands and never the first.
    let third = FakeAgent::enroll(&manager, "web-03").await;
    api.answer_to(&alert(3, "10.0.0.1", &third.name)).await;
    api.answer_to(&alert(4, "10.0.0.2", &third.name)).await;
    let mut thirds_stream = third.connect(0).await;
    let thirds = thirds_stream.commands_within(AT_ONCE).await;
    thirds_stream.say(&FromAgent::Ack { command_ids: vec![thirds[1].jti] }).await;
    let sent = Instant::now();
    let (again, others_again, thirds_again) =
        tokio::join!(lease_ends(&mut stream), lease_ends(&mut others_stream), lease_ends(&mut thirds_stream));
    let waited = sent.elapsed();
    // All leases are in the future again, so there is nothing to do.
    let before = manager.cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = manager.cpu_time().saturating_sub(before);

    assert!(waited > Duration::from_secs(25), "sent again before the lease was over: {waited:?}");
    let came = [("none acknowledged", again), ("the acknowledgement lost", others_again), ("one of two", thirds_again)];
    let due = [
        ("none acknowledged", ids(&first)),
        ("the acknowledgement lost", ids(&others)),
        ("one of two", ids(&thirds[..1])),
    ];
    assert_eq!(
        (came, spent < Duration::from_millis(500)),
        (due, true),
        "the manager was busy for {spent:?} of two idle seconds"
    );
}

/// What comes over the stream until shortly after a lease of 30 s has ended.
async fn lease_ends(stream: &mut Stream<'_>) -> Vec<String> {
    match stream.hear_within(Duration::from_secs(36)).await {
        None => vec![],
        Some(Heard::Message(ToAgent::Commands { commands })) => ids(&stream.agent.open(&commands)),
        Some(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn promise_3_a_stream_and_a_poll_at_once_bring_a_command_twice_and_it_counts_once() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let polling = agent.poll(json!({"cursor": 0, "wait_seconds": 20}));
    let posting = async {
        // The poll waits by then, or finds it at once: both are fine.
        tokio::time::sleep(Duration::from_millis(200)).await;
        api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await
    };
    let (polled, (_, command)) = tokio::join!(polling, posting);
    let streamed = stream.commands_within(AT_ONCE).await;
    assert_eq!((ids(&polled), ids(&streamed)), (vec![text(&command, "id").into()], vec![text(&command, "id").into()]));
    let (id, seq) = (polled[0].jti, polled[0].seq);
    // An agent's inbox makes one execution of the two.
    let mut inbox = Inbox::new();
    assert_eq!(inbox.receive(id, seq, polled[0].effect), Receipt::New);
    inbox.journaled(id, seq, polled[0].effect);
    assert_eq!(inbox.receive(streamed[0].jti, streamed[0].seq, streamed[0].effect), Receipt::Duplicate);

    // Both ways acknowledge and tell the result; the ledger takes it once.
    stream.say(&FromAgent::Ack { command_ids: vec![id] }).await;
    stream.say(&FromAgent::Result { results: vec![succeeded(id)] }).await;
    let failed = CommandResult { outcome: Outcome::Failed, ..succeeded(id) };
    match stream.hear().await {
        Heard::Message(ToAgent::ResultAck { command_ids }) => assert_eq!(command_ids, [id]),
        other => panic!("{other:?}"),
    }
    let (_, answer) = agent.exchange(&json!({"cursor": seq, "acks": [id], "results": [failed]})).await;
    assert_eq!(answer["result_acks"], json!([id]));
    let command = api.command(&id.to_string()).await;
    assert_eq!((&command["state"], &command["result"]["outcome"]), (&json!("succeeded"), &json!("succeeded")));
    let audit = api.get(&format!("/v1/audit?noun=command&noun_id={id}")).await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 3, "queued, acknowledged, succeeded: {audit}");
}

#[tokio::test]
async fn the_newest_stream_of_an_agent_replaces_the_older_one() {
    let (_manager, api, agent) = start().await;
    let mut older = agent.connect(0).await;
    let mut newer = agent.connect(0).await;
    let frame = older.end().await.expect("a reason");
    assert_eq!(u16::from(frame.code), 1008, "{frame:?}");
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    assert_eq!(ids(&newer.commands_within(AT_ONCE).await), [text(&command, "id")]);
    api.agent_streams(&agent.id.to_string()).await;
}

// Promise 4: in order.

#[tokio::test]
async fn promise_4_a_revert_never_overtakes_its_apply_when_the_answer_to_a_poll_was_lost() {
    let (_manager, api, agent) = start().await;
    let (response, _) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    // The manager believes that the apply was delivered; the agent never saw it.
    let lost = agent.poll(json!({"cursor": 0})).await;
    assert_eq!(lost.len(), 1);
    lift(&api, &response).await;
    let one = agent.poll(json!({"cursor": 0, "max": 1})).await;
    assert_eq!(ids(&one), ids(&lost), "the apply comes first although its lease is not over");
    let both = agent.poll(json!({"cursor": 0})).await;
    assert_eq!(both.iter().map(|command| command.op).collect::<Vec<_>>(), [Op::Apply, Op::Revert]);
    assert!(both[0].seq < both[1].seq && both[0].effect == both[1].effect);
    assert_eq!(agent.connect(0).await.commands_within(AT_ONCE).await, both);
    // The apply is in the journal: only the revert is still to come.
    let rest = agent.poll(json!({"cursor": both[0].seq})).await;
    assert_eq!(ids(&rest), ids(&both[1..]));
    assert_eq!(agent.poll(json!({"cursor": both[1].seq, "acks": [both[0].jti, both[1].jti]})).await, []);
}

/// An agent with bad luck: connections break at random, acknowledgements are lost at random, transports change.
#[tokio::test]
async fn promise_4_commands_of_an_effect_arrive_in_order_whatever_reconnects_happen() {
    const ALERTS: u64 = 60;
    let (_manager, api, agent) = start().await;
    let mut inbox = Inbox::new();
    let mut journal: Vec<Command> = Vec::new();
    let (mut standing, mut next) = (Vec::new(), 1);
    while next <= ALERTS || !standing.is_empty() {
        for _ in 0..=random_below(3) {
            if next <= ALERTS {
                let (response, _) = api.answer_to(&alert(next, &format!("10.0.0.{next}"), &agent.name)).await;
                standing.push(response);
                next += 1;
            }
        }
        while !standing.is_empty() && (random_below(2) == 0 || next > ALERTS) {
            let response = standing.swap_remove(usize::try_from(random_below(standing.len() as u64)).unwrap());
            lift(&api, &response).await;
        }
        let received = if random_below(2) == 0 {
            agent.poll(json!({"cursor": inbox.cursor(), "max": 1 + random_below(4)})).await
        } else {
            let mut stream = agent.connect(inbox.cursor()).await;
            match stream.hear_within(Duration::from_millis(50)).await {
                Some(Heard::Message(ToAgent::Commands { commands })) => agent.open(&commands),
                _ => vec![],
            }
        };
        // The connection broke before the last of them came.
        let arrived = usize::try_from(random_below(received.len() as u64 + 1)).unwrap();
        take_in(&mut inbox, &mut journal, &received[..arrived]);
        if random_below(3) == 0 {
            let acks: Vec<Uuid> = received[..arrived].iter().map(|command| command.jti).collect();
            let more = agent.poll(json!({"cursor": inbox.cursor(), "acks": acks})).await;
            take_in(&mut inbox, &mut journal, &more);
        }
    }
    loop {
        let rest = agent.poll(json!({"cursor": inbox.cursor()})).await;
        if rest.is_empty() {
            break;
        }
        take_in(&mut inbox, &mut journal, &rest);
    }
    let mut of_effect: HashMap<Uuid, Vec<Op>> = HashMap::new();
    for command in &journal {
        of_effect.entry(command.effect).or_default().push(command.op);
    }
    for ops in of_effect.values() {
        assert!(matches!(ops.as_slice(), [Op::Apply, Op::Revert] | [Op::Revert]), "{ops:?}");
    }
    let pairs = of_effect.values().filter(|ops| ops.len() == 2).count();
    assert!(pairs > 10, "only {pairs} effects were applied and reverted: that shows nothing");
    // Everything that was ever ordered has arrived, and nothing else.
    let ordered = api.newer_than("/v1/commands", |_| false).await;
    let ordered: HashSet<&str> = ordered
        .iter()
        .filter(|command| !["cancelled", "expired"].contains(&text(command, "state")))
        .map(|command| text(command, "id"))
        .collect();
    let arrived: HashSet<String> = ids(&journal).into_iter().collect();
    let lost: Vec<_> = ordered.iter().filter(|id| !arrived.contains(**id)).collect();
    assert!(lost.is_empty(), "never arrived: {lost:?}");
}

fn take_in(inbox: &mut Inbox, journal: &mut Vec<Command>, received: &[Command]) {
    for command in received {
        let (id, seq, effect) = (command.jti, command.seq, command.effect);
        match inbox.receive(id, seq, effect) {
            Receipt::New => {
                inbox.journaled(id, seq, effect);
                journal.push(command.clone());
            }
            Receipt::Duplicate => {}
            Receipt::Overtaken => panic!("a later command of the effect was sent first: {command:?} after {journal:?}"),
        }
    }
}

// Promise 8: no forged order.

#[tokio::test]
async fn promise_8_commands_are_signed_by_the_pinned_key_addressed_and_expiring() {
    let (mut manager, api, agent) = start().await;
    let stranger = FakeAgent::enroll(&manager, "db-01").await;
    let (response, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    // The key outlives the process.
    manager.start_again().await;
    let (_, answer) = agent.exchange(&json!({"cursor": 0})).await;
    let tokens: Vec<String> = serde_json::from_value(answer["commands"].clone()).unwrap();
    let order = Command::open(&tokens[0], &agent.pinned, agent.id).unwrap();
    assert_eq!(agent.pinned, stranger.pinned);
    assert!(Command::open(&tokens[0], &stranger.pinned, stranger.id).is_err(), "it is addressed to one agent");
    assert_eq!((order.jti.to_string(), order.response.to_string()), (text(&command, "id").into(), response.clone()));
    assert_eq!((order.iss.as_str(), order.op, order.target.value()), (MANAGER, Op::Apply, "10.0.0.1"));
    let now = now().as_secs();
    assert!((now - 60..=now).contains(&order.iat), "{order:?}");
    assert!(now < order.exp && order.exp <= order.until.unwrap().as_secs(), "useless after the end: {order:?}");
    lift(&api, &response).await;
    let revert = agent.poll(json!({"cursor": order.seq, "acks": [order.jti]})).await.remove(0);
    assert!(revert.op == Op::Revert && now < revert.exp && revert.exp <= now + 86_400 + 60, "{revert:?}");
    // No agent gets, acknowledges or answers what is another's.
    assert_eq!(stranger.poll(json!({"cursor": 0})).await, []);
    stranger.exchange(&json!({"cursor": 0, "acks": [revert.jti], "results": [succeeded(revert.jti)]})).await;
    assert_eq!(api.command(&revert.jti.to_string()).await["state"], "delivered");
}

/// A manager that says whatever a test wants.
struct FakeManager {
    key: SigningKey,
    agent: Agent,
    agent_id: Uuid,
    listener: TcpListener,
}

const KID: &str = "the-pinned-key";

impl FakeManager {
    /// Starts one and enrols a real agent at it.
    fn start() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let (address, key, agent_id) =
            (listener.local_addr().unwrap(), SigningKey::from_bytes(&[7; 32]), Uuid::now_v7());
        let answer = json!({
            "agent_id": agent_id,
            "manager_keys": [{"kid": KID, "public_key": jws::public_key_text(&key.verifying_key())}],
            "stream_url": format!("ws://{address}/v1/agent/stream"),
            "poll_url": format!("http://{address}/v1/agent/poll"),
        });
        let enrolling = std::thread::spawn(move || {
            answer_one(&listener, &answer.to_string());
            listener
        });
        let agent = Agent::enroll(&format!("http://{address}"), "a-token", "web-01");
        let listener = enrolling.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { key, agent, agent_id, listener: TcpListener::from_std(listener).unwrap() }
    }

    /// A stream that the agent opens, its hello taken.
    async fn accept(&mut self) -> FakeStream {
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
        let mut stream = tokio::time::timeout(PATIENCE, accepting).await.expect("the agent comes");
        assert!(matches!(stream.hear().await, FromAgent::Hello { .. }));
        stream
    }

    /// A good command, to be made worse.
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
            urgent: false,
        }
    }

    fn sign(&self, command: &Command) -> String {
        command.sign(&self.key, KID).unwrap()
    }

    /// How often the agent has executed something for `target`, in all its lives.
    fn executed(&self, target: &str) -> usize {
        let log = self.agent.log();
        let lines = log.lines().filter(|line| line.contains("log-only: applied"));
        lines.filter(|line| line.contains(&format!("target=ip {target} "))).count()
    }
}

/// Answers one HTTP request with 201 and `body`.
fn answer_one(listener: &StdListener, body: &str) {
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
}

/// The fake manager's end of a stream, and what the agent has said over it.
struct FakeStream {
    socket: WebSocketStream<TcpStream>,
    acks: Vec<Uuid>,
    results: HashMap<Uuid, CommandResult>,
}

impl FakeStream {
    async fn send(&mut self, commands: Vec<String>) {
        let frame = serde_json::to_string(&ToAgent::Commands { commands }).unwrap();
        self.socket.send(Message::text(frame)).await.unwrap();
    }

    async fn hear(&mut self) -> FromAgent {
        let hearing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(_)) => {}
                    other => panic!("the agent went away: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("the agent says something")
    }

    /// Listens until the agent has told the result of `command`.
    async fn result_of(&mut self, command: Uuid) -> CommandResult {
        loop {
            if let Some(result) = self.results.get(&command) {
                return result.clone();
            }
            self.listen().await;
        }
    }

    /// Listens until the agent has acknowledged `times` commands.
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
            FromAgent::Heartbeat | FromAgent::Unknown | FromAgent::Hello { .. } | FromAgent::Effects { .. } => {}
        }
    }
}

#[tokio::test]
async fn promise_8_no_forged_order_is_executed_or_even_acknowledged() {
    let mut manager = FakeManager::start();
    manager.agent.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    let evil = |seq: u64| manager.command(seq, "10.6.6.6");
    let thief = SigningKey::from_bytes(&[8; 32]);
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
        ("another issuer", manager.sign(&Command { iss: "someone".into(), ..evil(906) })),
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
    // A forged order does not spoil a good one in the same frame, and frames are taken in order: when the good one is
    // acknowledged, all others have been looked at.
    let fence = manager.command(5, "10.1.1.1");
    stream.send(forged.iter().map(|(_, token)| token.clone()).chain([manager.sign(&fence)]).collect()).await;
    assert_eq!(stream.acknowledged(1).await, [fence.jti], "a forged order was acknowledged");
    let result = stream.result_of(fence.jti).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, Some(true)), "{result:?}");
    assert_eq!((manager.executed("10.1.1.1"), manager.executed("10.6.6.6")), (1, 0), "a forged order was executed");
    assert_eq!(stream.results.keys().collect::<Vec<_>>(), [&fence.jti], "a forged order was answered");
    let status = manager.agent.status();
    assert_eq!(status["cursor"], 5, "a forged order has moved the cursor: what was really sent would never come");
    assert!(manager.agent.log().contains("an order that is not to be believed was ignored"));

    // The unforged original of the pieces above works, so it was the forgery that was refused.
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
        // They are the manager's own orders, so it is told why not.
        let result = stream.result_of(command.jti).await;
        assert_eq!(result.outcome, Outcome::Refused, "{result:?}");
        assert_eq!(manager.executed(command.target.value()), 0);
    }
    assert_eq!(stream.acknowledged(3).await, [late.jti, over.jti, protected.jti]);

    let good = manager.command(10, "10.3.3.3");
    let token = manager.sign(&good);
    stream.send(vec![token.clone()]).await;
    assert_eq!(stream.result_of(good.jti).await.outcome, Outcome::Succeeded);
    // The same order again; the same id for something else; an older order of the same effect.
    let same_id = Command { jti: good.jti, ..manager.command(11, "10.4.4.4") };
    let older = Command { effect: good.effect, ..manager.command(9, "10.3.3.3") };
    stream.send(vec![token.clone(), token.clone(), manager.sign(&same_id), manager.sign(&older)]).await;
    let acks = stream.acknowledged(5).await;
    assert_eq!(acks, [good.jti, good.jti, good.jti, good.jti, older.jti]);
    assert_eq!(stream.result_of(older.jti).await.outcome, Outcome::Refused);

    // Nor after a kill: what was received is on disk.
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
        // Nobody has committed the result, so it is told in every conversation.
        assert_eq!(stream.result_of(command.jti).await.outcome, Outcome::Succeeded);
        manager.agent.run_again();
    }
    assert_eq!(manager.executed("10.3.3.3"), 1);
}

#[tokio::test]
async fn the_real_agent_does_the_same_over_polls() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    agent.run(&["--transport", "poll"]);
    let (response, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    let command = api.command_is(text(&command, "id"), "succeeded").await;
    assert!(command["acknowledged_at"].is_string(), "{command}");
    lift(&api, &response).await;
    let revert = api.response(&response).await["commands"][0].clone();
    assert_eq!(revert["op"], "revert");
    api.command_is(text(&revert, "id"), "succeeded").await;
    assert_eq!(
        (agent.log().matches("log-only: applied").count(), agent.log().matches("log-only: reverted").count()),
        (1, 1)
    );
}

#[tokio::test]
async fn the_real_agent_falls_back_to_polls_where_no_stream_can_be_had() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    // Nobody listens there.
    agent.change_identity("stream_url", "ws://127.0.0.1:1/v1/agent/stream");
    agent.run(&[]);
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
    assert_eq!(agent.log().matches("log-only: applied").count(), 1);
}
