//! Limits per caller: a client that sends too many requests is told when to retry, and a legitimate
//! crowd is not affected.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use riposte_protocol::message::{Capability, PollRequest};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::agent::{enrollment, new_key};
use crate::support::alert::brute_force;
use crate::support::{Answer, Client, Database, FakeAgent, TestApp, eventually};

#[tokio::test]
async fn promise_11_a_key_over_its_limit_is_told_when_to_retry_and_no_other_is() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| config.limits.requests_per_minute = 20).await;
    let viewer = app.client_with_role(&admin, "viewer").await;
    let ingest = app.client_with_role(&admin, "ingest").await;
    for n in 1..=20 {
        let answer = viewer.get("/v1/responses").await;
        answer.is(200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"caller\";q=20;w=60"));
        assert_eq!(answer.header("ratelimit"), Some(format!("\"caller\";r={};t={}", 20 - n, 3 * n).as_str()));
    }
    let answer = viewer.get("/v1/responses").await;
    let problem = answer.is_problem(429);
    assert!(problem["detail"].as_str().unwrap().contains("exceeded 20 requests per minute"), "{problem}");
    assert!((1..=3).contains(&answer.header("retry-after").unwrap().parse::<u64>().unwrap()), "{:?}", answer.headers);
    assert_eq!(answer.header("ratelimit"), Some("\"caller\";r=0;t=60"));
    admin.get("/v1/responses").await.is(200);
    // Alerts are limited by their memory budget.
    for n in 0..50 {
        let answer = ingest.post("/v1/alerts", &brute_force(&n.to_string(), "203.0.113.7")).await;
        answer.is(202);
        assert_eq!(answer.header("ratelimit"), None);
    }
    // Anonymous clients are not counted here: another limit applies.
    let anonymous = Client::anonymous(&app.base);
    anonymous.get("/v1/responses").await.is_problem(401);
    assert_eq!(anonymous.get("/livez").await.header("ratelimit"), None);
}

#[tokio::test]
async fn promise_11_an_agent_over_its_limit_is_told_when_to_retry_and_no_other_is() {
    let (app, admin) =
        TestApp::start_with(Database::sqlite(), |config| config.limits.agent_requests_per_minute = 8).await;
    let (agent, other) = (app.enrol(&admin, "web-01", &json!({})).await, app.enrol(&admin, "web-02", &json!({})).await);
    let request = PollRequest { max: 1, ..PollRequest::default() };
    let waiting = PollRequest { wait_seconds: 30, ..request.clone() };
    let ask = || async { agent.exchange(&agent.token(), &waiting).await };
    // Four polls wait, each on its own connection; a fifth is refused. The manager's clock stands
    // still.
    let mut polls = FuturesUnordered::new();
    for _ in 0..4 {
        polls.push(ask());
        let answered = tokio::time::timeout(Duration::from_millis(300), polls.next()).await;
        assert!(answered.is_err(), "{answered:?}");
    }
    polls.push(ask());
    let refused = polls.next().await.unwrap();
    refused.is_problem(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    other.exchange(&other.token(), &request).await.is(200);
    app.advance(31);
    while let Some(answer) = polls.next().await {
        answer.is(200);
    }
    let mut served = 0;
    let limited = loop {
        let answer = agent.exchange(&agent.token(), &request).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served < 20, "eight a minute is the limit");
    };
    let problem = limited.is_problem(429);
    assert!(problem["detail"].as_str().unwrap().contains("exceeded 8 requests per minute"), "{problem}");
    assert!(limited.header("ratelimit").is_some() && limited.header("retry-after").is_some());
    other.exchange(&other.token(), &request).await.is(200);
}

#[tokio::test]
async fn promise_11_an_enrolment_with_a_guessed_token_costs_the_ledger_nothing() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| config.limits.enrolments_per_minute = 10).await;
    let anonymous = Client::anonymous(&app.base);
    let asked = serde_json::to_value(enrollment("rit_guess", "x", &new_key())).unwrap();
    // Another client has the ledger's only writer: a guess is answered all the same.
    let db = app.db().await;
    let writer = db.begin().await.unwrap();
    for _ in 0..9 {
        let answer = tokio::time::timeout(Duration::from_secs(3), anonymous.post("/v1/agents/enroll", &asked)).await;
        answer.expect("it waits for the writer").is_problem(401);
    }
    drop(writer);
    // Decompressing would cost the manager more than the sender.
    let packed = zstd::stream::encode_all(asked.to_string().as_bytes(), 1).unwrap();
    let request = anonymous.request(Method::POST, "/v1/agents/enroll").header("content-encoding", "zstd");
    Answer::to(request.header("content-type", "application/json").body(packed)).await.is_problem(415);
    let token = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
    let asked = serde_json::to_value(enrollment(token["token"].as_str().unwrap(), "x", &new_key())).unwrap();
    let answer = anonymous.post("/v1/agents/enroll", &asked).await;
    let problem = answer.is_problem(429);
    assert!(problem["detail"].as_str().unwrap().contains("exceeded 10 enrolments per minute"), "{problem}");
    assert!((1..=6).contains(&answer.header("retry-after").unwrap().parse::<u64>().unwrap()), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_crowd_behind_one_address_enrols_and_polls_and_is_not_held_up() {
    let (app, admin) = TestApp::start().await;
    let token = admin.post("/v1/enrollment-tokens", &json!({"uses": 300})).await.is(201);
    let token = token["token"].as_str().unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("web-{n}")).collect();
    let agents = join_all(names.iter().map(|name| FakeAgent::enrol(&app, token, name, vec![]))).await;
    let request = PollRequest { max: 1, ..PollRequest::default() };
    for answer in join_all(agents.iter().map(async |agent| agent.exchange(&agent.token(), &request).await)).await {
        answer.is(200);
    }
}

/// Returns whether a new connection is kept open.
async fn is_let_in(address: &str) -> Option<TcpStream> {
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut said = [0; 12];
    match tokio::time::timeout(Duration::from_millis(300), client.read_exact(&mut said)).await {
        Err(_) => Some(client),
        Ok(_) => {
            assert_eq!(&said, b"HTTP/1.1 503");
            None
        }
    }
}

#[tokio::test]
async fn promise_11_unauthenticated_connections_of_one_address_are_limited() {
    let (app, admin) =
        TestApp::start_with(Database::sqlite(), |config| config.limits.max_unknown_connections = 3).await;
    let address = app.base.trim_start_matches("http://");
    let mut streams = Vec::new();
    for n in 0..3 {
        let other = app.enrol(&admin, &format!("db-{n}"), &json!({})).await;
        // The connection over which it enrolled was anonymous until now.
        other.poll(&PollRequest { max: 0, ..PollRequest::default() }).await;
        let mut stream = other.stream(0).await;
        stream.hear().await.unwrap();
        streams.push((other, stream));
    }
    let mut strangers = Vec::new();
    while let Some(stranger) = is_let_in(address).await {
        strangers.push(stranger);
    }
    assert_eq!(strangers.len(), 3);
    // A client that has authenticated already is served.
    admin.get("/v1/agents").await.is(200);
    strangers.pop();
    eventually("its place is free again", || is_let_in(address)).await;
}

#[tokio::test]
async fn promise_11_a_flood_of_capabilities_is_a_few_entries_and_its_last_word_counts() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    for n in 0..300 {
        let capabilities =
            vec![Capability { action: "log-only".into(), available: false, reason: Some(n.to_string()) }];
        agent.poll(&PollRequest { capabilities: Some(capabilities), max: 0, ..PollRequest::default() }).await;
    }
    let entries = async || {
        let history = admin.history("agent", &agent.id.to_string()).await;
        history.iter().filter(|(_, verb)| verb == "announced capabilities").count()
    };
    assert_eq!(entries().await, 4);
    app.advance(60);
    app.in_time("the last word counts", || async {
        let row = admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200);
        (row["capabilities"][0]["reason"] == "299").then_some(())
    })
    .await;
    assert_eq!(entries().await, 5);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_limits_by_address_count_its_clients() {
    let configure = |config: &mut riposte::config::Config| config.server.trusted_proxies = vec!["127.0.0.1".into()];
    let (app, _) = TestApp::start_with(Database::sqlite(), configure).await;
    let anonymous = Client::anonymous(&app.base);
    let guess = async |from: &str| {
        let request = anonymous.request(Method::GET, "/v1/alerts").header("x-forwarded-for", from);
        Answer::to(request).await.status
    };
    for _ in 0..600 {
        assert_eq!(guess("10.9.9.9, 203.0.113.7").await, 401);
    }
    assert_eq!(guess("203.0.113.7").await, 429);
    assert_eq!(guess("203.0.113.8").await, 401);
    assert_eq!(guess("203.0.113.7, 203.0.113.9").await, 401, "an address that the client wrote itself does not count");
}

#[tokio::test]
async fn a_header_that_the_proxy_does_not_set_names_no_client() {
    let configure = |config: &mut riposte::config::Config| config.server.trusted_proxies = vec!["127.0.0.1".into()];
    let (app, _) = TestApp::start_with(Database::sqlite(), configure).await;
    let anonymous = Client::anonymous(&app.base);
    // The proxy writes one of the headers, and passes the other one on as the client wrote it.
    for set in ["x-forwarded-for", "forwarded"] {
        let guess = async |forged: String| {
            let (of_proxy, of_client) = match set {
                "forwarded" => ("for=203.0.113.7".to_owned(), ("x-forwarded-for", forged)),
                _ => ("203.0.113.7".to_owned(), ("forwarded", format!("for={forged}"))),
            };
            let request = anonymous.request(Method::GET, "/v1/alerts").header(set, of_proxy);
            Answer::to(request.header(of_client.0, of_client.1)).await.status
        };
        // Another address in each request escapes no limit: they count for the proxy.
        let mut answers = Vec::new();
        for n in 0..301 {
            answers.push(guess(format!("198.51.{}.{}", n / 256, n % 256)).await);
        }
        assert!(answers[..299].iter().all(|status| *status == 401), "{set}: {answers:?}");
        assert_eq!(
            answers[300],
            if set == "forwarded" { 429 } else { 401 },
            "600 of one address, both rounds together"
        );
    }
}

#[tokio::test]
async fn an_enrolment_through_a_proxy_needs_public_url_and_says_so() {
    for header in ["x-forwarded-proto", "x-forwarded-for", "x-forwarded-host", "forwarded"] {
        for public_url in ["", "https://riposte.example.org/"] {
            let configure = |config: &mut riposte::config::Config| config.server.public_url = public_url.into();
            let (app, admin) = TestApp::start_with(Database::sqlite(), configure).await;
            let token = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
            let asked = enrollment(token["token"].as_str().unwrap(), "web-01", &new_key());
            let request = Client::anonymous(&app.base).request(Method::POST, "/v1/agents/enroll");
            let answer = Answer::to(request.header(header, "for=203.0.113.7").json(&asked)).await;
            if public_url.is_empty() {
                let problem = answer.is_problem(409);
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(header) && detail.contains("set public_url"), "{detail}");
                // That did not use up the token.
                let request = Client::anonymous(&app.base).request(Method::POST, "/v1/agents/enroll");
                Answer::to(request.json(&asked)).await.is(201);
            } else {
                let urls = answer.is(201);
                assert_eq!(urls["stream_url"], "wss://riposte.example.org/v1/agent/stream");
                assert_eq!(urls["poll_url"], "https://riposte.example.org/v1/agent/poll");
            }
        }
    }
}
