//! Between agents and the manager: a proxy that refuses in the manager's place, and clocks that
//! differ. With the real programs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use riposte_protocol::message::PollRequest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use futures_util::StreamExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::processes::{Agent, Api, FakeAgent, Manager, PATIENCE, alert, text};
use crate::support::{Client, Database, TestApp};

/// A reverse proxy that refuses WebSocket upgrades, and passes everything else on unchanged.
struct Proxy {
    address: SocketAddr,
    /// Whether it refuses every request.
    is_shut: Arc<AtomicBool>,
    _connections: JoinSet<()>,
}

impl Proxy {
    async fn start(manager: SocketAddr, refusal: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, is_shut) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let mut connections = JoinSet::new();
        let shut = Arc::clone(&is_shut);
        connections.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                clients.spawn(pass(client, manager, refusal, Arc::clone(&shut)));
            }
        });
        Self { address, is_shut, _connections: connections }
    }
}

async fn pass(mut client: TcpStream, manager: SocketAddr, refusal: &'static str, is_shut: Arc<AtomicBool>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut some = [0; 4096];
        match client.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(length) => head.extend_from_slice(&some[..length]),
        }
    }
    let upgrades = String::from_utf8_lossy(&head).to_ascii_lowercase().contains("upgrade: websocket");
    if upgrades || is_shut.load(Ordering::Relaxed) {
        client.write_all(refusal.as_bytes()).await.unwrap();
        // The rest of the request is read, or the client may not see the answer.
        client.shutdown().await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
        return;
    }
    let mut upstream = TcpStream::connect(manager).await.unwrap();
    upstream.write_all(&head).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
}

const FORBIDDEN: &str =
    "HTTP/1.1 403 Forbidden\r\nServer: bumper/1.0\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nnope\n";
const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"proxy\"\r\nContent-Type: text/html\r\n\
                            Content-Length: 5\r\n\r\nnope\n";

/// Field case 04: a proxy's refusal is not the manager's.
#[tokio::test]
async fn field_04_an_agent_whose_stream_a_proxy_refuses_polls_within_seconds() {
    for (refusal, who) in [
        (FORBIDDEN, "403 Forbidden from bumper/1.0, text/html, which says: nope"),
        (UNAUTHORIZED, "401 Unauthorized from a server that does not say what it is, text/html, which says: nope"),
    ] {
        let manager = Manager::start().await;
        let (api, proxy) = (manager.api(), Proxy::start(manager.address, refusal).await);
        api.make_policy("log-only", "1h").await;
        let mut agent = enroll(&format!("http://{}", proxy.address), &api.make_token().await, "web-01").await;
        let begun = Instant::now();
        agent.run(&[]);
        let (_, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
        api.command_is(text(&command, "id"), "succeeded").await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(agent.log().contains(&format!("refuses the stream: {who}")), "{}", agent.log());
        assert!(!agent.log().contains("does not accept this agent"), "{}", agent.log());

        // If the poll is refused too, the log names both refusals, and the server behind each.
        agent.kill9();
        proxy.is_shut.store(true, Ordering::Relaxed);
        agent.run_again();
        agent.has_logged(&format!("The poll got: {who}. The stream: {who}"), 1).await;
        proxy.is_shut.store(false, Ordering::Relaxed);
        let (_, command) = api.answer_to(&alert(2, "10.0.0.2", "web-01")).await;
        api.command_is(text(&command, "id"), "succeeded").await;

        // The manager's own refusal is reported as such, whatever proxy is in between.
        let revoked = api.request(Method::DELETE, &format!("/v1/agents/{}", agent.id)).send().await.unwrap();
        assert_eq!(revoked.status(), 204);
        agent.has_logged("the manager does not accept this agent: this agent was revoked", 1).await;
    }
}

/// The program waits for the manager, which may run on this thread: so it runs on another one.
async fn enroll(base: &str, token: &str, name: &'static str) -> Agent {
    let (base, token) = (base.to_owned(), token.to_owned());
    tokio::task::spawn_blocking(move || Agent::enroll(&base, &token, name)).await.unwrap()
}

/// The manager of a test is in November 2026 and its clock does not move: it differs from this
/// host's by days, months or years.
async fn is_served_and_shown(database: Database, transport: &str) {
    let (app, admin) = TestApp::start_on(database).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let api = Api { http, base: app.base.clone(), key: admin.key().to_owned() };
    api.make_policy("log-only", "1h").await;
    let mut agent = enroll(&app.base, &api.make_token().await, "web-01").await;
    agent.run(&["--transport", transport]);
    let (response, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    let command = api.command_is(text(&command, "id"), "succeeded").await;
    let until = api.response(&response).await["until"].clone();
    let held = agent.status();
    assert_eq!(held["effects"][0]["until"], until, "{held}");
    let host_ahead = super::processes::now().as_millis() - app.clock.now().as_millis();
    let is_near = |ahead: &Value| ahead.as_i64().is_some_and(|ahead| (ahead - host_ahead / 1000).abs() < 120);
    assert!(is_near(&held["clock_skew_seconds"]), "{held}");
    let finished = text(&command, "acknowledged_at").to_owned();
    assert!(finished.starts_with("2026-11-24T10:0"), "{command}");

    let row = app
        .in_time("the manager shows it", || async {
            let row = admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200);
            is_near(&row["clock_skew_seconds"]).then_some(row)
        })
        .await;
    assert_eq!(row["incident"], Value::Null, "it is no incident");
    admin.metrics_show("riposte_agents_clock_skewed 1\n", true).await;
    assert!(agent.log().contains("this host's clock differs"), "{}", agent.log());

    // Neither a restart of the agent nor the host's own clock ends an effect early.
    agent.kill9();
    agent.run_again();
    let (_, command) = api.answer_to(&alert(2, "10.0.0.2", "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
    assert_eq!(agent.status()["effects"].as_array().unwrap().len(), 2, "{}", agent.status());
    assert!(!agent.log().contains("log-only: reverted"), "{}", agent.log());
    app.advance(3600);
    app.in_time("ended blocks are lifted", || async {
        (agent.log().matches("log-only: reverted").count() == 2).then_some(())
    })
    .await;
}

on_both_databases! {
    async fn a_host_whose_clock_is_off_is_served_over_a_stream_and_shown(database: Database) {
        is_served_and_shown(database, "stream").await;
    }

    async fn a_host_whose_clock_is_off_is_served_over_polls_and_shown(database: Database) {
        is_served_and_shown(database, "poll").await;
    }
}

/// The problem says what is wrong, and the response carries the manager's time. A client whose
/// token has another time learns both.
#[tokio::test]
async fn a_token_of_another_time_is_told_the_managers() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let token = agent.token();
    app.advance(2 * 86_400);
    for path in ["/v1/agent/stream", "/v1/agent/poll"] {
        let method = if path.ends_with("poll") { Method::POST } else { Method::GET };
        let request = Client::anonymous(&app.base).with_key(&token).request(method, path);
        let answer = crate::support::Answer::to(request.json(&json!({"cursor": 0}))).await;
        let problem = answer.is_problem(401);
        assert_eq!(problem["type"], "urn:riposte:problem:clock");
        assert!(text(&problem, "detail").contains("2 d behind the manager's clock"), "{problem}");
        assert_eq!(answer.header("riposte-time"), Some("2026-11-26T10:00:00.000Z"));
    }
    assert_eq!(admin.get("/v1/agents").await.header("riposte-time"), None, "only agents need it");
    // It is no stranger: neither counted as one, nor against the address that others come from.
    assert!(admin.get("/metrics").await.text.contains("riposte_unauthenticated_total 0\n"));
    let dated = async || agent.exchange(&token, &PollRequest::default()).await;
    for _ in 0..58 {
        dated().await.is_problem(401);
    }
    dated().await.is_problem(429);
    for _ in 0..600 {
        dated().await;
    }
    Client::anonymous(&app.base).get("/v1/alerts").await.is_problem(401);
    agent.poll(&PollRequest::default()).await;
    // A forged one is told nothing of clocks.
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    let request = Client::anonymous(&app.base).with_key(&forged).request(Method::GET, "/v1/agent/stream");
    let problem = crate::support::Answer::to(request).await.is_problem(401);
    assert_eq!(problem["type"], "urn:riposte:problem:unauthenticated");
}

/// Runs `riposte agents` against `manager`, and returns its output.
fn riposte(manager: &str) -> String {
    let mut list = super::processes::tied(std::path::Path::new(env!("CARGO_BIN_EXE_riposte")));
    let list = list.args(["agent", "list", "--manager", manager]).env("RIPOSTE_KEY", "rip_x_y").output().unwrap();
    assert_eq!(list.status.code(), Some(1));
    String::from_utf8_lossy(&list.stderr).into_owned()
}

/// Answers one connection with these bytes, on a thread of its own.
fn answer_one(bytes: &'static [u8]) -> SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]);
        socket.write_all(bytes).unwrap();
    });
    address
}

#[tokio::test]
async fn the_command_line_says_which_scheme_a_port_speaks_and_follows_no_redirect() {
    let manager = Manager::start().await;
    let said = riposte(&manager.address.to_string());
    assert!(said.contains("has no scheme: write http:// or https:// before it"), "{said}");
    let said = riposte("ftp://127.0.0.1");
    assert!(said.contains("write http:// or https://"), "{said}");
    let said = riposte(&format!("https://{}", manager.address));
    assert!(said.contains("this port speaks http; write http://"), "{said}");
    for answer in [
        b"\x15\x03\x01\x00\x02\x02\x46".as_slice(),
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nThe plain HTTP request was sent to HTTPS port",
    ] {
        let said = riposte(&format!("http://{}", answer_one(answer)));
        assert!(said.contains("this port speaks https"), "{said}");
    }
    let to = b"HTTP/1.1 301 Moved\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
    let said = riposte(&format!("http://{}", answer_one(to)));
    assert!(said.contains("redirects to http://192.0.2.1/, and the credential is not sent there"), "{said}");
}

#[tokio::test]
async fn a_manager_whose_key_others_can_read_does_not_start_and_says_how_to_fix_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut manager = Manager::start().await;
    manager.kill9();
    for file in ["signing.key", "admin.key"] {
        let path = manager.data_dir().join(file);
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o640);
        let mut serve = super::processes::tied(std::path::Path::new(env!("CARGO_BIN_EXE_riposte")));
        let serve = serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(manager.data_dir());
        let refused = serve.output().unwrap();
        set(0o600);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{} has the mode 0640", path.display())), "{said}");
        assert!(said.contains(&format!("run `chmod 600 {}`", path.display())), "{said}");
    }
    manager.start_again().await;
}

#[tokio::test]
async fn an_idle_stream_is_pinged_so_that_an_agent_knows_that_it_stands() {
    let manager = Manager::start().await;
    let agent = FakeAgent::enroll(&manager, "idle").await;
    let mut stream = agent.connect(0).await;
    let ping = async {
        loop {
            match stream.socket.next().await {
                Some(Ok(Message::Ping(_))) => return,
                Some(Ok(_)) => {}
                other => panic!("the stream ended: {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE * 2, ping).await.expect("a ping every 30 s");
}
