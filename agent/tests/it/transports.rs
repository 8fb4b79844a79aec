//! The edges of a connection: addresses that must not be used, answers from another server, clocks
//! that differ.

use std::process::Output;
use std::time::Duration;

use riposte_protocol::message::{Outcome, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use riposte_protocol::{identity, message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{AGENT, Manager, PATIENCE, agent, ids, stop};

const DAY: Duration = Duration::from_hours(24);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn enroll(manager: &Manager, url: &str, more: &[&str]) -> Output {
    let arguments = [&["enroll", "--manager", url, "--name", "web-1"], more].concat();
    agent(manager.state.path(), &arguments).env("RIPOSTE_TOKEN", "rit_secret").output().await.unwrap()
}

/// Receives one request; returns its head.
async fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut some = [0; 4096];
        let length = timeout(PATIENCE, socket.read(&mut some)).await.unwrap().unwrap();
        assert!(length > 0, "the agent hung up");
        head.extend_from_slice(&some[..length]);
    }
    (socket, String::from_utf8(head).unwrap())
}

/// Answers one request with these header lines; returns the request.
async fn answer(listener: &TcpListener, head: &str, body: &str) -> String {
    let (mut socket, asked) = request(listener).await;
    let length = body.len();
    let text = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    socket.write_all(text.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let _ = socket.read_to_end(&mut Vec::new()).await;
    asked
}

#[tokio::test]
async fn an_address_that_must_not_be_used_is_refused_before_the_token_leaves_the_host() {
    let manager = Manager::start().await;
    for (url, words) in [
        ("127.0.0.1:8480", "has no scheme: write http:// or https:// before it"),
        ("ftp://127.0.0.1", "write http:// or https://"),
        ("http://192.0.2.1:8480", "is plain HTTP over a network"),
        ("http://192.0.2.1:8480", "--insecure-http (RIPOSTE_INSECURE_HTTP=true)"),
    ] {
        let refused = enroll(&manager, url, &[]).await;
        assert_eq!(refused.status.code(), Some(1), "{url}");
        assert!(said(&refused).contains(words), "{url}: {}", said(&refused));
    }
    assert!(!manager.state.path().join("key").exists(), "nothing was begun");
}

/// An address that leads to this host too, but is not loopback: the manager counts as one on
/// another host.
fn as_remote(url: &str) -> String {
    url.replace("127.0.0.1", "0.0.0.0")
}

#[tokio::test]
async fn plain_http_over_a_network_needs_to_be_allowed_at_enrolment_and_when_it_runs() {
    let manager = Manager::start().await;
    let url = as_remote(&manager.url);
    let answering = manager.exchange(|_, _| (201, (), as_remote(&manager.enrolment())));
    let (enrolled, ()) = tokio::join!(enroll(&manager, &url, &["--insecure-http"]), answering);
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    // It was allowed at enrolment, and that is stored.
    let running = manager.run(&["--transport", "stream"]);
    manager.accept().await.hello().await;
    assert_eq!(stop(running).await, 0);

    // An identity of an older version, which did not store it.
    let path = manager.state.path().join("agent.json");
    let kept = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, kept.replace("\"insecure_http\": true", "\"insecure_http\": false")).unwrap();
    let refused = agent(manager.state.path(), &["run"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--insecure-http (RIPOSTE_INSECURE_HTTP=true)"), "{}", said(&refused));
    let running = agent(manager.state.path(), &["run"]).env("RIPOSTE_INSECURE_HTTP", "true").spawn().unwrap();
    let mut stream = manager.accept().await;
    stream.hello().await;
    stream.send(&ToAgent::Commands { commands: vec![manager.command(1, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[1]));
    stream.results().await;
    assert_eq!(stop(running).await, 0);

    // An agent that holds an effect runs all the same, so that the effect ends; it opens no
    // connection.
    let running = agent(manager.state.path(), &["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    assert!(timeout(Duration::from_secs(2), manager.listener.accept()).await.is_err(), "it came");
    let id = nix::unistd::Pid::from_raw(running.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = running.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(said(&ended).contains("there is no connection to the manager"), "{}", said(&ended));
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed_with_the_token() {
    let (manager, elsewhere) = (Manager::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let to = format!("http://{}/v1/agents/enroll", elsewhere.local_addr().unwrap());
    for status in ["301 Moved", "307 Temporary", "308 Permanent"] {
        let head = format!("{status}\r\nlocation: {to}");
        let (refused, _) = tokio::join!(enroll(&manager, &manager.url, &[]), answer(&manager.listener, &head, ""));
        assert_eq!(refused.status.code(), Some(1));
        let said = said(&refused);
        assert!(said.contains(&format!("redirects to {to}, and the token is not sent on")), "{said}");
    }
    assert!(timeout(Duration::from_millis(200), elsewhere.accept()).await.is_err(), "the token went elsewhere");
}

#[tokio::test]
async fn a_port_that_speaks_the_other_scheme_is_named() {
    let manager = Manager::start().await;
    let https = manager.url.replace("http://", "https://");
    let plain = async {
        // The answer of a server without TLS to a TLS client.
        let (mut socket, _) = manager.listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.unwrap();
    };
    let (refused, ()) = tokio::join!(enroll(&manager, &https, &[]), plain);
    assert!(said(&refused).contains("this port speaks http; write http:// instead"), "{}", said(&refused));
    // A TLS alert, as OpenSSL and rustls send it; and the plain HTTP answers of nginx and Go.
    for answer in [
        b"\x15\x03\x01\x00\x02\x02\x46".as_slice(),
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nThe plain HTTP request was sent to HTTPS port",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    ] {
        let tls = async {
            let (mut socket, _) = request(&manager.listener).await;
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        };
        let (refused, ()) = tokio::join!(enroll(&manager, &manager.url, &[]), tls);
        assert!(said(&refused).contains("this port speaks https; write https:// instead"), "{}", said(&refused));
    }
    // And one that just hangs up.
    let closing = async { drop(request(&manager.listener).await) };
    let (refused, ()) = tokio::join!(enroll(&manager, &manager.url, &[]), closing);
    assert!(said(&refused).trim_end().ends_with("If this port speaks TLS, write https://"), "{}", said(&refused));
}

fn now() -> Timestamp {
    Timestamp::from_millis(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap())
}

/// The manager's clock is two days behind this host's: over loopback the manager is believed.
#[tokio::test]
async fn an_agent_whose_clock_is_off_goes_by_the_managers() {
    let (manager, public_key) = Manager::with_agent().await;
    let running = manager.run(&["--transport", "stream"]);
    let theirs = || now().minus(2 * DAY);
    let problem =
        r#"{"type":"urn:riposte:problem:clock","detail":"the token is dated 2 d ahead of the manager's clock"}"#;
    let head = format!("401 Unauthorized\r\ncontent-type: application/problem+json\r\nriposte-time: {}", theirs());
    answer(&manager.listener, &head, problem).await;
    // The agent reconnects at once, with a token of the manager's time.
    let mut stream = timeout(Duration::from_secs(10), manager.accept()).await.expect("it comes again within seconds");
    identity::check(&stream.bearer, &public_key, AGENT, theirs()).unwrap();
    stream.hello().await;
    let until = theirs().plus(Duration::from_mins(10));
    let commands = vec![
        manager.command(1, |command| {
            (command.iat, command.exp) = (theirs().as_secs(), theirs().plus(Duration::from_mins(5)).as_secs());
            command.until = Some(until);
        }),
        // By the host's own clock this one would be valid.
        manager.command(2, |command| command.iat = now().as_secs()),
        manager.command(3, |command| command.exp = theirs().as_secs() - 1),
    ];
    stream.send(&ToAgent::Commands { commands }).await;
    assert_eq!(stream.ack().await, ids(&[1, 2, 3]));
    let mut results = Vec::new();
    while results.len() < 3 {
        results.extend(stream.results().await);
    }
    results.sort_by_key(|result| result.command_id);
    assert_eq!(results[0].outcome, Outcome::Succeeded, "{}", results[0].message);
    let message = &results[1].message;
    assert!(message.starts_with("dated ahead of this host's time") && message.contains("2 d ahead of"), "{message}");
    assert_eq!(results[2].message, "expired before it could be executed");
    let status = async || {
        let status = agent(manager.state.path(), &["status"]).output().await.unwrap();
        String::from_utf8(status.stdout).unwrap()
    };
    let told = status().await;
    assert!(told.contains("this host's clock is 2 d ahead of the manager's; served by the manager's clock"), "{told}");
    assert_eq!(stop(running).await, 0);

    // After a restart it still knows, before it has received anything: no held effect counts as
    // ended.
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    identity::check(&stream.bearer, &public_key, AGENT, theirs()).unwrap();
    assert_eq!(stream.hello().await, (3, 1), "nothing was lifted");
    assert_eq!(stop(running).await, 0);
}

/// An attacker on the network could send any time: plain HTTP over a network teaches none.
#[tokio::test]
async fn no_time_is_learnt_over_plain_http_and_the_message_says_so() {
    let (manager, public_key) = Manager::with_agent().await;
    let path = manager.state.path().join("agent.json");
    let kept = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, as_remote(&kept)).unwrap();
    let mut running = agent(manager.state.path(), &["run", "--insecure-http"]);
    let running = running.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let head = format!("404 Not Found\r\nriposte-time: {}", now().minus(2 * DAY));
    answer(&manager.listener, &head, "").await;
    answer(&manager.listener, &head, "").await;
    let asked = answer(
        &manager.listener,
        "401 Unauthorized\r\ncontent-type: application/problem+json",
        r#"{"type":"urn:riposte:problem:clock","detail":"the token is dated 2 d ahead of the manager's clock"}"#,
    )
    .await;
    let bearer = asked.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
    identity::check(bearer, &public_key, AGENT, now()).unwrap();
    assert!(timeout(Duration::from_secs(3), manager.listener.accept()).await.is_err(), "it waits");
    let id = nix::unistd::Pid::from_raw(running.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = running.wait_with_output().await.unwrap();
    assert!(
        said(&ended).contains("Over plain HTTP its time cannot be believed: set this host's clock"),
        "{}",
        said(&ended)
    );
}

/// An order that is dated ahead does not become the time that later ones are judged by. A valid one
/// does, also after a restart.
#[tokio::test]
async fn an_order_is_never_judged_by_a_time_before_the_latest_one() {
    let (manager, _) = Manager::with_agent().await;
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    let at = |secs: i64| now().as_secs() + secs;
    let commands = vec![
        manager.command(1, |command| command.iat = at(86_400)),
        manager.command(2, |command| command.iat = at(0)),
        // Valid by the clock, but expired by the order before it, which is as far ahead as it may
        // be.
        manager.command(3, |command| command.iat = at(58)),
        manager.command(4, |command| command.exp = at(20)),
        manager.command(5, |command| {
            command.exp = at(20);
            command.op = riposte_protocol::command::Op::Revert;
            command.target = Target::parse(TargetKind::Ip, "203.0.113.9").unwrap();
        }),
    ];
    stream.send(&ToAgent::Commands { commands }).await;
    stream.ack().await;
    let mut results: Vec<message::CommandResult> = Vec::new();
    while results.len() < 5 {
        results.extend(stream.results().await);
    }
    results.sort_by_key(|result| result.command_id);
    let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
    let (good, bad) = (Outcome::Succeeded, Outcome::Refused);
    assert_eq!(outcomes[..4], [bad, good, good, bad], "{results:?}");
    assert_eq!(results[3].message, "expired before it could be executed");
    assert_ne!(results[4].message, "expired before it could be executed", "a revert only restores");
    stream.send(&ToAgent::ResultAck { command_ids: ids(&[1, 2, 3, 4, 5]) }).await;
    assert_eq!(stop(running).await, 0);
    // The journal is compacted at the start; what is known of the time stays in it.
    for seq in [6_u64, 7] {
        let running = manager.run(&["--transport", "stream"]);
        let mut stream = manager.accept().await;
        stream.hello().await;
        stream.send(&ToAgent::Commands { commands: vec![manager.command(seq, |command| command.exp = at(10))] }).await;
        let result = loop {
            // Earlier results may be sent again first.
            if let message::FromAgent::Result { results } = stream.next().await
                && let Some(result) = results.into_iter().find(|result| result.command_id == ids(&[seq.into()])[0])
            {
                break result;
            }
        };
        assert_eq!(result.message, "expired before it could be executed");
        assert_eq!(stop(running).await, 0);
    }
}
