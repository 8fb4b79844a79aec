//! The webhook of checkpoints: a receiver that is away, slow, broken and then well again loses none of
//! them, and delays nothing else.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::processes::tied;
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, TestApp, eventually};

const SECRET: [u8; 32] = [7; 32];

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Takes the request, and never answers.
    Silent,
    /// Answers 500.
    Broken,
    /// Sends the request elsewhere.
    Redirecting,
    Well,
}

/// A receiver: what it does, how many requests it has seen, and the bodies that it has taken, by id.
struct Receiver {
    mood: Mood,
    seen: usize,
    taken: Vec<(String, Value)>,
}

type Shared = Arc<Mutex<Receiver>>;

async fn take(State(receiver): State<Shared>, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap) {
    let mood = {
        let mut receiver = receiver.lock().unwrap();
        receiver.seen += 1;
        receiver.mood
    };
    let header = |name: &str| headers[name].to_str().unwrap();
    let message = [header("webhook-id"), header("webhook-timestamp"), std::str::from_utf8(&body).unwrap()].join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(&SECRET).unwrap();
    mac.update(message.as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), expected);
    assert_eq!(header("content-type"), "application/json");
    let mut answer = HeaderMap::new();
    match mood {
        Mood::Silent => std::future::pending().await,
        Mood::Broken => (StatusCode::INTERNAL_SERVER_ERROR, answer),
        Mood::Redirecting => {
            answer.insert("location", "/elsewhere".parse().unwrap());
            (StatusCode::TEMPORARY_REDIRECT, answer)
        }
        Mood::Well => {
            let mut receiver = receiver.lock().unwrap();
            receiver.taken.push((header("webhook-id").to_owned(), serde_json::from_slice(&body).unwrap()));
            (StatusCode::NO_CONTENT, answer)
        }
    }
}

fn serve(listener: TcpListener, receiver: &Shared) -> JoinSet<()> {
    let router = Router::new().route("/hook/of/ours", post(take)).with_state(Arc::clone(receiver));
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    serving
}

fn write_secret(dir: &Path) -> PathBuf {
    let file = dir.join("webhook.secret");
    let mut options = std::fs::OpenOptions::new();
    let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&file).unwrap();
    std::io::Write::write_all(&mut open, format!("whsec_{}\n", STANDARD.encode(SECRET)).as_bytes()).unwrap();
    file
}

async fn warnings(client: &Client) -> String {
    let ready: Value = serde_json::from_str(&client.get("/readyz?verbose").await.text).unwrap();
    ready["warnings"].to_string()
}

/// Waits for a warning about the webhook with these words.
async fn warned(app: &TestApp, admin: &Client, words: &str) {
    eventually(words, || async {
        app.advance(60);
        let said = warnings(admin).await;
        let is_there = said.contains("the webhook http://127.0.0.1:") && said.contains(words);
        assert!(!said.contains("/hook/of/ours"), "the path may be a secret: {said}");
        is_there.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_is_away_slow_and_broken_loses_no_checkpoint_and_delays_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("checkpoints"), write_secret(dir.path()));
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        config.audit.audit_checkpoint_file.clone_from(&file);
        config.audit.audit_checkpoint_webhook = format!("http://{address}/hook/of/ours");
        config.audit.audit_checkpoint_webhook_secret_file = secret;
    })
    .await;
    let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
    // Dead: the file goes on.
    warned(&app, &admin, "does not take checkpoints").await;
    let before = lines();
    let mut away = drop_policy("away");
    away["match"] = json!([{"rule_ids": ["1"]}]);
    admin.policy(&away).await;
    eventually("the file has the next one", || async {
        app.advance(60);
        (lines() > before).then_some(())
    })
    .await;

    // Silent: a response still ends in time, while a request of a checkpoint hangs.
    let receiver: Shared = Arc::new(Mutex::new(Receiver { mood: Mood::Silent, seen: 0, taken: Vec::new() }));
    let _serving = serve(TcpListener::bind(address).await.unwrap(), &receiver);
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let mut policy = drop_policy("short");
    policy["respond"]["for"] = json!("30s");
    admin.policy(&policy).await;
    let made = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
    agent.obey().await;
    let hanging = || receiver.lock().unwrap().seen;
    eventually("a request hangs", || async {
        app.advance(1);
        (hanging() > 0).then_some(())
    })
    .await;
    let begun = std::time::Instant::now();
    let path = format!("/v1/responses/{}", made["responses"][0].as_str().unwrap());
    eventually("the response ends", || async {
        app.advance(5);
        (admin.get(&path).await.is(200)["state"] == "ended").then_some(())
    })
    .await;
    assert!(begun.elapsed().as_secs() < 4, "ended before the request of the checkpoint timed out");
    warned(&app, &admin, "does not take checkpoints").await;

    // Broken, then redirecting: neither is an acceptance.
    for (mood, words) in [(Mood::Broken, "it answered 500"), (Mood::Redirecting, "it answered 307")] {
        receiver.lock().unwrap().mood = mood;
        admin.policy(&drop_policy(if mood == Mood::Broken { "broken" } else { "redirecting" })).await;
        warned(&app, &admin, words).await;
    }
    assert!(receiver.lock().unwrap().taken.is_empty());

    // Well again: every checkpoint comes, once, in order.
    receiver.lock().unwrap().mood = Mood::Well;
    let taken = eventually("all have come", || async {
        app.advance(60);
        let taken = receiver.lock().unwrap().taken.clone();
        let stored = admin.get("/v1/audit/verify").await.is(200)["checkpoints"].clone();
        (stored == json!(taken.len()) && warnings(&admin).await == "[]").then_some(taken)
    })
    .await;
    let tokens: Vec<&str> = taken.iter().map(|(_, body)| body["data"]["checkpoint"].as_str().unwrap()).collect();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(tokens, text.lines().take(tokens.len()).collect::<Vec<_>>());
    assert!(tokens.len() >= 4, "{}", tokens.len());
    let mut ids: Vec<&str> = taken.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), taken.len(), "an id stands for one checkpoint");
    assert_eq!(taken[0].1["type"], "audit.checkpoint");

    // The bodies as they came are a file of checkpoints.
    let bodies: Vec<String> = taken.iter().map(|(_, body)| body.to_string()).collect();
    let kept = dir.path().join("bodies");
    std::fs::write(&kept, bodies.join("\n")).unwrap();
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    let data = app.data_dir();
    command.args(["audit", "verify", "--data-dir", data.to_str().unwrap(), "--checkpoint", kept.to_str().unwrap()]);
    let output = tokio::process::Command::from(command).output().await.unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.contains(&format!("all {} checkpoints", bodies.len())), "{said}");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_used_stops_the_start_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let secret = write_secret(dir.path());
    let other = dir.path().join("other");
    std::fs::write(&other, "not a secret").unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (secret, other) = (secret.to_str().unwrap(), other.to_str().unwrap());
    let right = "https://log.example.org/hook";
    for (url, file, words) in [
        ("http://log.example.org/hook", secret, "audit_checkpoint_webhook must be an https:// URL"),
        ("https://user:word@log.example.org/", secret, "without an account"),
        (right, "", "audit_checkpoint_webhook_secret_file is missing"),
        ("", secret, "is set without audit_checkpoint_webhook"),
        (right, other, "holds no secret of Standard Webhooks"),
        (right, "/nonexistent", "audit_checkpoint_webhook_secret_file"),
    ] {
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
        let data = dir.path().join("data");
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
        for (flag, value) in [("--audit-checkpoint-webhook", url), ("--audit-checkpoint-webhook-secret-file", file)] {
            if !value.is_empty() {
                command.args([flag, value]);
            }
        }
        let output = tokio::process::Command::from(command).output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && said.contains(words), "{url} {file}: {said}");
        assert!(!data.exists(), "nothing was created");
    }
}
