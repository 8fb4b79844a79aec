//! What the front door adds to responses: a request id to each, and compression to lists.

use std::io::Read as _;

use reqwest::Method;
use serde_json::{Value, json};

use super::processes::Manager;
use super::support::alert::brute_force;
use super::support::{Answer, Client, TestApp};

/// The body of a response as it was sent, and its encoding.
async fn body(client: &Client, method: Method, path: &str, accept: Option<&str>) -> (Option<String>, Vec<u8>) {
    let mut request = client.request(method, path);
    if let Some(accept) = accept {
        request = request.header("accept-encoding", accept);
    }
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{path}, {accept:?}: {}", answer.status());
    let encoding = answer.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
    (encoding, answer.bytes().await.unwrap().to_vec())
}

fn plain(gzip: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn a_list_is_compressed_for_clients_that_accept_gzip() {
    let (_app, admin) = TestApp::start().await;
    for n in 0..20 {
        admin.post("/v1/alerts", &brute_force(&n.to_string(), &format!("203.0.113.{n}"))).await.is(202);
    }
    let list = async |accept| body(&admin, Method::GET, "/v1/alerts?limit=20", accept).await;
    let (encoding, whole) = list(None).await;
    assert_eq!(encoding, None);
    assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap()["items"].as_array().unwrap().len(), 20);
    for accept in ["gzip", "br, gzip;q=0.5", "*", "deflate, x-gzip"] {
        let (encoding, compressed) = list(Some(accept)).await;
        assert_eq!(encoding.as_deref(), Some("gzip"), "{accept}");
        assert!(compressed.len() * 2 < whole.len(), "{} of {} bytes", compressed.len(), whole.len());
        assert_eq!(plain(&compressed), whole, "{accept}");
    }
    for accept in ["identity", "br", "gzip;q=0", "identity;q=0", "*;q=0", "identity;q=0, gzip;q=0", "?", ""] {
        assert_eq!(list(Some(accept)).await, (None, whole.clone()), "{accept}");
    }
    let answer = Answer::to(admin.request(Method::GET, "/v1/alerts").header("accept-encoding", "gzip")).await;
    assert_eq!(
        (answer.header("vary"), answer.header("content-type")),
        (Some("accept-encoding"), Some("application/json"))
    );
    assert!(answer.header("link").is_none() && answer.header("ratelimit").is_some(), "{:?}", answer.headers);
}

/// BREACH: what is compressed must hold no secret. A key is shown once, and in no list.
#[tokio::test]
async fn only_lists_are_compressed() {
    let (app, admin) = TestApp::start().await;
    let made = admin.request(Method::POST, "/v1/api-keys").header("accept-encoding", "gzip");
    let made = Answer::to(made.json(&json!({"name": "n".repeat(100), "role": "viewer"}))).await;
    assert!(made.is(201)["key"].is_string() && made.header("content-encoding").is_none(), "{:?}", made.headers);
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let polled = Client::anonymous(&app.base).with_key(&agent.token()).request(Method::POST, "/v1/agent/poll");
    let polled = Answer::to(polled.header("accept-encoding", "gzip").json(&json!({"cursor": 0}))).await;
    assert!(polled.is(200)["commands"].is_array() && polled.header("content-encoding").is_none());
    for path in ["/openapi.json", "/docs", "/metrics", "/readyz?verbose"] {
        assert_eq!(body(&admin, Method::GET, path, Some("gzip")).await.0, None, "{path}");
    }
    // A refused list is an error, and none is compressed.
    let refused = admin.request(Method::GET, "/v1/alerts?limit=0").header("accept-encoding", "gzip");
    assert_eq!(Answer::to(refused).await.points_at(), ["/limit"]);
}

#[tokio::test]
async fn each_response_has_a_request_id() {
    let (app, admin) = TestApp::start().await;
    let id_of = async |client: &Client, path: &str, own: &[&[u8]]| {
        let mut request = client.request(Method::GET, path);
        for id in own {
            request = request.header("x-request-id", *id);
        }
        let answer = Answer::to(request).await;
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{path}");
        answer.header("x-request-id").unwrap().to_owned()
    };
    let anonymous = Client::anonymous(&app.base);
    let mut made = std::collections::BTreeSet::new();
    for (client, path) in [
        (&admin, "/v1/alerts"),
        (&admin, "/livez"),
        (&admin, "/nowhere"),
        (&anonymous, "/v1/alerts"),
        (&admin, "/v1/alerts"),
    ] {
        let id = id_of(client, path, &[]).await;
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(made.insert(id), "an id is made once");
    }
    for own in ["7f3a-01.b_Z", &"x".repeat(64)] {
        assert_eq!(id_of(&admin, "/v1/alerts", &[own.as_bytes()]).await, own);
    }
    let long = "x".repeat(65);
    let bad: [&[&[u8]]; 6] = [&[b""], &[b"a b"], &[b"a=\"b\""], &[b"\xe9"], &[long.as_bytes()], &[b"one", b"two"]];
    for own in bad {
        let id = id_of(&admin, "/v1/alerts", own).await;
        assert!(id.len() == 16, "{own:?} is replaced, and not returned: {id}");
    }
}

#[tokio::test]
async fn a_failure_is_logged_with_the_request_id() {
    let manager = Manager::start().await;
    let database = rusqlite::Connection::open(manager.data_dir().join("riposte.db")).unwrap();
    database.execute_batch("ALTER TABLE enrollment_tokens RENAME TO elsewhere").unwrap();
    let request =
        manager.api().request(Method::GET, "/v1/enrollment-tokens").header("x-request-id", "the-one-that-failed");
    let answer = Answer::to(request).await;
    assert!(answer.status >= 500, "{}", answer.text);
    assert!(!answer.text.contains("enrollment_tokens"), "the cause is not shown: {}", answer.text);
    let log = manager.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("the-one-that-failed")).collect();
    assert!(
        matches!(lines[..], [line] if line.contains("a request failed") && line.contains("no such table")),
        "{log}"
    );
}
