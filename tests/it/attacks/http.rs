//! Ambiguous requests, sent as bytes: a proxy in front and the manager could read them differently.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, PATIENCE, TestApp};

/// Sends bytes, and returns everything that is answered until the manager closes the connection.
async fn raw(app: &TestApp, bytes: &str) -> String {
    let mut connection = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    connection.write_all(bytes.as_bytes()).await.unwrap();
    // A client may close its sending half here: an incomplete request gets no answer.
    if bytes.ends_with(TORN) {
        connection.shutdown().await.unwrap();
    }
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut said)).await;
    assert!(read.is_ok(), "the connection stays open after {bytes:?}");
    String::from_utf8_lossy(&said).into_owned()
}

/// The end of an incomplete body.
const TORN: &str = "5\r\n{}";

fn statuses(said: &str) -> Vec<&str> {
    said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

#[tokio::test]
async fn a_request_with_two_lengths_is_refused_and_nothing_behind_it_is_read() {
    let (app, admin) = TestApp::start().await;
    let inner = format!(
        "GET /v1/api-keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        admin.key()
    );
    let alert = brute_force("smuggled", "203.0.113.7").to_string();
    let length = alert.len();
    for framing in [
        format!("content-length: {length}\r\ncontent-length: 0\r\n"),
        format!("content-length: 0\r\ncontent-length: {length}\r\n"),
        format!("content-length: {length}, 0\r\n"),
        format!("content-length: +{length}\r\n"),
        format!("content-length: -{length}\r\n"),
        format!("content-length: 0x{length:x}\r\n"),
        "content-length: 99999999999999999999999\r\n".to_owned(),
        "transfer-encoding: identity\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding: xchunked\r\n".to_owned(),
        format!("content-length : {length}\r\n"),
        // One of the two readings ends the request before the hidden second one.
        "content-length: 5\r\ntransfer-encoding: chunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n".to_owned(),
    ] {
        let key = admin.key();
        let head = format!("POST /v1/alerts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{framing}\r\n");
        let body = if framing.contains("g: chunked\r\n") { "0\r\n\r\n" } else { alert.as_str() };
        let said = raw(&app, &format!("{head}{body}{inner}")).await;
        let answered = statuses(&said);
        assert!(answered.len() == 1 && answered.iter().all(|status| status.starts_with('4')), "{framing:?}: {said}");
        assert!(!said.contains("first admin key"), "{framing:?}: the hidden request was answered");
    }
    assert_eq!(admin.list("/v1/alerts").await.len(), 0);
}

#[tokio::test]
async fn a_torn_or_endless_chunk_is_refused() {
    let (app, admin) = TestApp::start().await;
    let key = admin.key();
    let head = format!(
        "POST /v1/alerts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for body in ["FFFFFFFFFFFFFFFFF\r\n{}", "-1\r\n{}", "g\r\n{}", TORN] {
        let said = raw(&app, &format!("{head}{body}")).await;
        assert!(statuses(&said).iter().all(|status| status.starts_with('4')), "{body:?}: {said}");
        assert!(body == TORN || statuses(&said).len() == 1, "{body:?}: {said}");
    }
    assert_eq!(admin.list("/v1/alerts").await.len(), 0);
}

#[tokio::test]
async fn a_head_that_is_no_http_is_refused() {
    let (app, _) = TestApp::start().await;
    let long = "x".repeat(128 * 1024);
    for head in [
        "GET /livez HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nhost: x\r\nx\r\n: y\r\n\r\n".to_owned(),
        "GET /li\0vez HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET  /livez HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /livez HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(),
        format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000)),
    ] {
        let said = raw(&app, &head).await;
        let answered = statuses(&said);
        let begin: String = head.chars().take(40).collect();
        assert!(answered.len() == 1 && answered[0].starts_with('4'), "{begin:?}: {said}");
    }
    // The manager still serves others.
    assert_eq!(Client::anonymous(&app.base).get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_path_has_one_reading() {
    let (app, admin) = TestApp::start().await;
    let key = admin.key();
    for path in [
        "/v1/../v1/api-keys",
        "/livez/../v1/api-keys",
        "/docs/..%2f..%2fv1/api-keys",
        "/docs/%2e%2e/%2e%2e/etc/passwd",
        "//v1/api-keys",
        "/v1//api-keys",
        "/v1/api-keys/",
        "/V1/API-KEYS",
        "/v1/api-keys;x=1",
        "/v1/api%2dkeys%2f",
        "/v1\\api-keys",
        "/v1/api-keys%00",
        "/v1/policies/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/actions/%2e%2e",
    ] {
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
        let said = raw(&app, &head).await;
        let answered = statuses(&said);
        assert!(answered.len() == 1 && ["400", "404"].contains(&answered[0]), "{path}: {said}");
        // A path that only looks public still needs a key.
        let said = raw(&app, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        assert!(statuses(&said).iter().all(|status| ["400", "401", "404"].contains(status)), "{path}: {said}");
    }
}

on_both_databases! {
    async fn nul_is_refused_wherever_a_text_is_looked_for(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({})).await;
        admin.policy(&drop_policy("drop")).await;
        for path in ["/v1/policies/dr%00op", "/v1/policies/%00/versions", "/v1/policies/%00/counts", "/v1/actions/%00"] {
            admin.get(path).await.is_problem(404);
        }
        admin.delete("/v1/api-keys/%00", None).await.is_problem(404);
        for path in [
            "/v1/alerts?rule_id=%00",
            "/v1/alerts?agent_id=a%00b",
            "/v1/responses?policy=%00",
            "/v1/responses?target=%00",
            "/v1/responses?action=%00",
            "/v1/effects?target=%00",
            "/v1/agents?name=%00",
            "/v1/audit?noun=%00",
            "/v1/audit?noun=response&noun_id=%00",
            "/v1/policies?cursor=%00",
            "/v1/api-keys?cursor=%00",
        ] {
            let answer = admin.get(path).await;
            assert!(matches!(answer.status, 400 | 422), "{path}: {} {}", answer.status, answer.text);
        }
        for key in ["policy", "rule_id", "target"] {
            let answer = admin.post("/v1/responses/lift", &json!({key: "a\0b", "reason": "x"})).await;
            assert_eq!(answer.points_at(), [format!("/{key}")]);
        }
        for (path, body) in [
            ("/v1/responses/lift", json!({"everything": true, "reason": "a\0b"})),
            ("/v1/policies", json!({"name": "a\0", "match": [], "respond": {"action": "firewall-drop"}})),
            ("/v1/api-keys", json!({"name": "a\0b", "role": "viewer"})),
            ("/v1/enrollment-tokens", json!({"labels": {"env": "a\0b"}})),
            ("/v1/protected", json!({"kind": "file", "value": "/a\0b", "reason": "x"})),
            ("/v1/actions", json!({"name": "x", "executable": "a\0b"})),
        ] {
            admin.post(path, &body).await.is_problem(422);
        }
        let mut alert = brute_force("nul", "203.0.113.7\0");
        alert["rule"]["description"] = json!("a\0b");
        alert["data"]["dstuser"] = json!("jdoe\0");
        let answer = admin.post("/v1/alerts", &alert).await;
        assert!(matches!(answer.status, 202 | 422), "{}", answer.text);
    }
}
