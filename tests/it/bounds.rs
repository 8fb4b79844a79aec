//! When a conversation between agent and manager ends: limits, waits, revocation, shutdown of the
//! manager. With the real programs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use reqwest::{Method, StatusCode};
use riposte_protocol::message::{FromAgent, MAX_FRAME_BYTES, MAX_ITEMS, ToAgent};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use uuid::Uuid;

use super::delivery::{AT_ONCE, SILENT, ids, start};
use crate::support::{Database, TestApp};

use super::processes::{Agent, Api, FakeAgent, Heard, PATIENCE, alert, ended, eventually, signal, succeeded, text};

// Promise 11: bounded.

#[tokio::test]
async fn promise_11_a_frame_that_is_too_large_ends_the_stream_with_a_reason() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let huge = "x".repeat(MAX_FRAME_BYTES);
    // The manager may close the connection before all of it is sent.
    let sent = stream.socket.send(Message::text(format!(r#"{{"type":"heartbeat","x":"{huge}"}}"#))).await;
    let end = stream.hear().await;
    assert!(!matches!(end, Heard::Message(_)), "{end:?}");
    let still_there = api.get(&format!("/v1/agents/{}", agent.id)).await;
    assert_eq!(still_there["revoked_at"], Value::Null);
    // The other half of the promise: an error, never silence.
    match end {
        Heard::Closed(Some(frame)) => assert_eq!(u16::from(frame.code), 1009, "{frame:?}"),
        other => panic!("the stream ended without a reason: {other:?} (sending: {sent:?})"),
    }
}

#[tokio::test]
async fn promise_11_a_frame_at_the_limit_is_taken() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let frame = r#"{"type":"heartbeat","x":""}"#;
    let padded = frame.replace(r#""x":"""#, &format!(r#""x":"{}""#, "x".repeat(MAX_FRAME_BYTES - frame.len())));
    assert_eq!(padded.len(), MAX_FRAME_BYTES);
    stream.socket.send(Message::text(padded)).await.unwrap();
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    assert_eq!(ids(&stream.commands_within(AT_ONCE).await), [text(&command, "id")]);
}

#[tokio::test]
async fn promise_11_more_items_than_a_message_may_hold_are_refused() {
    let (_manager, _api, agent) = start().await;
    let acks = |count: usize| (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let results = |count: usize| acks(count).into_iter().map(succeeded).collect::<Vec<_>>();
    for (field, most, more) in [
        ("acks", json!(acks(MAX_ITEMS)), json!(acks(MAX_ITEMS + 1))),
        ("results", json!(results(MAX_ITEMS)), json!(results(MAX_ITEMS + 1))),
    ] {
        let (status, answer) = agent.exchange(&json!({"cursor": 0, field: most})).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (status, problem) = agent.exchange(&json!({"cursor": 0, field: more})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(problem.to_string().contains(&format!("\"/{field}\"")), "{problem}");
    }
    for message in
        [FromAgent::Ack { command_ids: acks(MAX_ITEMS + 1) }, FromAgent::Result { results: results(MAX_ITEMS + 1) }]
    {
        let mut stream = agent.connect(0).await;
        stream.say(&message).await;
        let frame = stream.end().await.expect("a reason");
        assert_eq!(u16::from(frame.code), 1007, "{frame:?}");
    }
}

#[tokio::test]
async fn promise_11_a_stream_that_does_not_keep_to_the_protocol_is_closed_with_a_reason() {
    let (_manager, _api, agent) = start().await;
    let hello = FromAgent::Hello { cursor: 0, capabilities: vec![], effects: None, run: None, keys: None };
    for (what, frames, code) in [
        ("no hello", vec![Message::text(r#"{"type":"heartbeat"}"#)], 1002),
        ("two hellos", vec![Message::text(serde_json::to_string(&hello).unwrap()); 2], 1002),
        ("no message", vec![Message::text("hello?")], 1007),
        ("no text", vec![Message::binary(vec![1, 2, 3])], 1003),
    ] {
        let mut stream = agent.try_connect().await.unwrap();
        for frame in frames {
            stream.socket.send(frame).await.unwrap();
        }
        let frame = stream.end().await.unwrap_or_else(|| panic!("{what}: no reason"));
        assert_eq!(u16::from(frame.code), code, "{what}: {frame:?}");
    }
}

/// Sends `bytes` and waits for the other side to close; returns what it sent.
async fn send_and_wait(address: SocketAddr, bytes: &str, patience: Duration) -> Result<String, String> {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(bytes.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    match tokio::time::timeout(patience, connection.read_to_end(&mut said)).await {
        // A reset is an end as well.
        Ok(_) => Ok(String::from_utf8_lossy(&said).into_owned()),
        Err(_) => Err(String::from_utf8_lossy(&said).into_owned()),
    }
}

/// About 100 s, the longest of these waits: these limits use real time.
#[tokio::test]
async fn promise_11_every_wait_has_an_end() {
    let (manager, api, agent) = start().await;
    let (address, key) = (manager.address, &api.key);
    let half = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: 1000\r\n\r\n{{\"half\":"
        )
    };
    let (alerts, policies) = (half("/v1/alerts"), half("/v1/policies"));
    let wait = Duration::from_secs(75);
    let long_poll = async {
        let asked = Instant::now();
        assert_eq!(agent.poll(json!({"cursor": 0, "wait_seconds": u32::MAX})).await, []);
        asked.elapsed()
    };
    let no_hello = async {
        let mut stream = agent.try_connect().await.unwrap();
        (stream.end().await, Instant::now())
    };
    // One agent that is owed a command and polls for it again and again.
    let mute = FakeAgent::enroll(&manager, "web-02").await;
    let says_nothing = async {
        let mut stream = mute.connect(0).await;
        let asked_for = api.answer_to(&alert(1, "10.0.0.1", &mute.name)).await;
        let since = Instant::now();
        let mut sent = 0;
        loop {
            match stream.hear_within(wait * 2).await.expect("the end of the stream") {
                Heard::Message(ToAgent::Commands { .. }) => sent += 1,
                Heard::Message(_) => {}
                end => return (end, since.elapsed(), sent, asked_for),
            }
        }
    };
    let begun = Instant::now();
    let (alerts, policies, silent, torn, polled, hello, said_nothing) = tokio::join!(
        send_and_wait(address, &alerts, wait),
        send_and_wait(address, &policies, wait),
        send_and_wait(address, "", wait),
        send_and_wait(address, "GET /livez HTTP/1.1\r\nhost: x\r\n", wait),
        long_poll,
        no_hello,
        says_nothing,
    );
    let (end, took, sent, _) = said_nothing;
    match end {
        Heard::Closed(Some(frame)) => assert_eq!(u16::from(frame.code), 1001, "{frame:?}"),
        other => panic!("a silent stream ended without a reason: {other:?}"),
    }
    assert!(
        (95..=115).contains(&took.as_secs()) && sent >= 3,
        "a silent stream was kept for {took:?}, {sent} times asked"
    );
    for answer in [alerts, policies] {
        let answer = answer.expect("half a body has kept a connection");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    silent.expect("a silent client has kept a connection");
    torn.expect("half a request's head has kept a connection");
    assert!((50..=60).contains(&polled.as_secs()), "a poll waited {polled:?}");
    let (frame, at) = hello;
    assert_eq!(u16::from(frame.expect("a reason").code), 1008, "a stream without a hello");
    assert!(at - begun < Duration::from_secs(20), "a stream without a hello was kept for {:?}", at - begun);
}

/// About 4 s: the rate limit uses real time.
#[tokio::test]
async fn promise_11_a_stream_is_read_at_a_pace_by_its_bytes() {
    let (_manager, _api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let begun = Instant::now();
    for _ in 0..24 {
        let padding = "x".repeat(1_000_000);
        stream.socket.send(Message::text(format!(r#"{{"type":"heartbeat","x":"{padding}"}}"#))).await.unwrap();
    }
    let last = FromAgent::Result { results: vec![succeeded(Uuid::from_u128(7))] };
    stream.say(&last).await;
    while !matches!(stream.hear().await, Heard::Message(ToAgent::ResultAck { .. })) {}
    // 8 MiB at once, the rest at 4 MiB a second; a slow machine takes longer.
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// Returns how many more clients may connect: without room, each is refused at once.
async fn places_left(address: SocketAddr) -> usize {
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::time::sleep(SILENT).await;
    let is_welcome = |client: &TcpStream| client.try_read(&mut [0]).is_err();
    clients.iter().filter(|client| is_welcome(client)).count()
}

#[tokio::test]
async fn promise_11_an_agents_stream_takes_a_place_among_the_connections() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| config.limits.max_connections = 30).await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let address = app.base.trim_start_matches("http://").parse().unwrap();
    let before = places_left(address).await;
    assert!((2..30).contains(&before), "{before}");
    eventually("those are gone", PATIENCE, async || (places_left(address).await == before).then_some(())).await;
    let mut stream = agent.stream(0).await;
    stream.hear().await.unwrap();
    eventually("the stream has its place", PATIENCE, async || (places_left(address).await == before - 1).then_some(()))
        .await;
    drop(stream);
    eventually("its place is free again", PATIENCE, async || (places_left(address).await == before).then_some(()))
        .await;
}

#[tokio::test]
async fn promise_11_silent_agents_are_counted() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    app.enrol(&admin, "web-02", &json!({})).await;
    let silent = async |count: usize| admin.metrics_show(&format!("riposte_agents_silent {count}\n"), true).await;
    silent(0).await;
    app.advance(301);
    silent(2).await;
    let mut stream = agent.stream(0).await;
    stream.say(&FromAgent::Heartbeat).await;
    app.in_time("one of them is heard", || async {
        admin.get("/metrics").await.text.contains("riposte_agents_silent 1\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_speaks_only_a_later_version_is_told_so() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    for (offered, is_taken) in [("riposte.v2", false), ("riposte.v2, riposte.v1", true)] {
        let upgrade = admin.with_key(&agent.token()).request(Method::GET, "/v1/agent/stream");
        let upgrade = upgrade.header("connection", "upgrade").header("upgrade", "websocket");
        let upgrade =
            upgrade.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        let answer = upgrade.header("sec-websocket-protocol", offered).send().await.unwrap();
        if is_taken {
            assert_eq!(answer.status(), 101);
            assert_eq!(answer.headers()["sec-websocket-protocol"], "riposte.v1");
        } else {
            assert_eq!(answer.status(), 400);
            assert!(answer.text().await.unwrap().contains("riposte.v1"));
        }
    }
}

#[tokio::test]
async fn promise_11_unknown_http_methods_take_no_memory() {
    let (_app, admin) = TestApp::start().await;
    for n in 0..50 {
        let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        admin.request(method, "/v1/alerts").send().await.unwrap();
    }
    let metrics = admin.get("/metrics").await.text;
    assert!(!metrics.contains("method=\"M1\"") && metrics.contains("method=\"other\""), "{metrics}");
}

#[tokio::test]
async fn promise_11_too_many_bad_credentials_are_answered_429_and_good_ones_still_work() {
    let (_manager, api, agent) = start().await;
    let impostor = Api { key: "rip_unknown_nothing".into(), ..api.clone() };
    let mut refused = 0;
    let limited = loop {
        let answer = impostor.request(Method::GET, "/v1/alerts").send().await.unwrap();
        match answer.status() {
            StatusCode::UNAUTHORIZED => refused += 1,
            StatusCode::TOO_MANY_REQUESTS => break answer,
            other => panic!("{other}"),
        }
        assert!(refused <= 600, "600 a minute is the limit");
    };
    assert_eq!(refused, 600);
    let retry_after: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    assert_eq!(limited.headers()["content-type"], "application/problem+json");
    // Every other way to fail authentication is limited too.
    let enrolling = json!({"token": "rit_guessed", "name": "x", "public_key": "x"});
    let asked = impostor.request(Method::POST, "/v1/agents/enroll").json(&enrolling).send().await.unwrap().status();
    assert!([StatusCode::TOO_MANY_REQUESTS, StatusCode::UNPROCESSABLE_ENTITY].contains(&asked), "{asked}");
    let polled = impostor.request(Method::POST, "/v1/agent/poll").json(&json!({"cursor": 0})).send().await.unwrap();
    assert_eq!(polled.status(), StatusCode::TOO_MANY_REQUESTS);
    // A client behind the same address with valid credentials is served.
    api.get("/v1/alerts").await;
    assert_eq!(agent.poll(json!({"cursor": 0})).await, []);
}

// Ends.

#[tokio::test]
async fn a_revoked_agents_stream_ends_and_it_does_not_come_back() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    api.agent_streams(&agent.id.to_string()).await;
    let revoked = api.request(Method::DELETE, &format!("/v1/agents/{}", agent.id)).send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    let frame = stream.end().await.expect("a reason");
    assert_eq!(u16::from(frame.code), 1008, "{frame:?}");
    match agent.try_connect().await.map(|_| ()) {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status().as_u16(), 403),
        other => panic!("{other:?}"),
    }
    assert_eq!(agent.exchange(&json!({"cursor": 0})).await.0, StatusCode::FORBIDDEN);
    // An alert from its host is answered with the reason why nothing is done.
    let intake = api.post("/v1/alerts", &alert(1, "10.0.0.1", &agent.name)).await;
    let response = api.response(intake["responses"][0].as_str().unwrap()).await;
    assert_eq!((&response["state"], &response["reason"]), (&json!("spared"), &json!("agent_unknown")), "{response}");
}

#[tokio::test]
async fn an_agent_that_is_revoked_before_its_hello_gets_no_stream() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.try_connect().await.unwrap();
    let revoked = api.request(Method::DELETE, &format!("/v1/agents/{}", agent.id)).send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    stream.say(&FromAgent::Hello { cursor: 0, capabilities: vec![], effects: None, run: None, keys: None }).await;
    match stream.hear().await {
        Heard::Closed(Some(frame)) => assert_eq!(u16::from(frame.code), 1008, "{frame:?}"),
        other => panic!("a revoked agent is talked to: {other:?}"),
    }
}

#[tokio::test]
async fn a_waiting_poll_ends_when_its_agent_is_revoked() {
    let (_manager, api, agent) = start().await;
    let body = json!({"cursor": 0, "wait_seconds": 20});
    let polling = agent.exchange(&body);
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.request(Method::DELETE, &format!("/v1/agents/{}", agent.id)).send().await.unwrap()
    };
    let asked = Instant::now();
    let ((status, answer), _) = tokio::join!(polling, revoking);
    assert!(asked.elapsed() < Duration::from_secs(10), "it waited on for {:?}: {status} {answer}", asked.elapsed());
}

#[tokio::test]
async fn the_manager_says_bye_stops_cleanly_and_agents_reconnect() {
    let (mut manager, api, fake) = start().await;
    let mut agent = Agent::start(&manager, "db-01").await;
    let mut stream = fake.connect(0).await;
    let body = json!({"cursor": 0, "wait_seconds": 50});
    let polling = fake.exchange(&body);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        signal(&manager.child, "TERM");
    };
    let asked = Instant::now();
    let ((status, answer), ()) = tokio::join!(polling, stopping);
    assert_eq!((status, &answer["commands"]), (StatusCode::OK, &json!([])), "a waiting poll is answered");
    match stream.hear().await {
        Heard::Message(ToAgent::Bye { retry_after }) => assert!(retry_after > 0),
        other => panic!("{other:?}"),
    }
    let frame = stream.end().await.expect("a reason");
    assert_eq!(u16::from(frame.code), 1001, "{frame:?}");
    let status = ended(&mut manager.child, PATIENCE).await.expect("the manager ends");
    assert_eq!(status.code(), Some(0), "{}", manager.log());
    assert!(asked.elapsed() < Duration::from_secs(5), "stopping took {:?}", asked.elapsed());

    manager.start_again().await;
    api.agent_streams(&agent.id).await;
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", "db-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;

    // The agent stops as well, and still holds its effects.
    signal(agent.child.as_ref().unwrap(), "TERM");
    let status = ended(agent.child.as_mut().unwrap(), PATIENCE).await.expect("the agent ends");
    assert_eq!(status.code(), Some(0), "{}", agent.log());
    assert_eq!(agent.status()["effects"].as_array().unwrap().len(), 1);
    assert_eq!(agent.log().matches("log-only: reverted").count(), 0, "stopping lifts nothing");
    agent.run_again();
    api.agent_streams(&agent.id).await;
}

#[tokio::test]
async fn a_second_signal_ends_the_manager_at_once() {
    let (mut manager, api, _agent) = start().await;
    let mut connection = TcpStream::connect(manager.address).await.unwrap();
    let half = format!(
        "POST /v1/alerts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n",
        api.key
    );
    connection.write_all(half.as_bytes()).await.unwrap();
    // The manager sends 100 Continue when it begins to read the body: the request is now in
    // progress.
    let mut interim = [0; 12];
    connection.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    signal(&manager.child, "TERM");
    eventually("the manager is stopping", PATIENCE, async || manager.log().contains("stopping;").then_some(())).await;
    assert!(ended(&mut manager.child, SILENT).await.is_none(), "a request under way was not waited for");
    signal(&manager.child, "TERM");
    let status = ended(&mut manager.child, Duration::from_secs(2)).await.expect("an end at once");
    assert_eq!(status.code(), Some(130));
}
