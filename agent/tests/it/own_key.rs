//! The rotation of the agent's own key, as the real program does it at managers of either version.

use riposte_protocol::identity;
use riposte_protocol::key::{SigningKey, VerifyingKey};
use riposte_protocol::key_change::KeyChangeRequest;
use riposte_protocol::message::{Settings, ToAgent};
use riposte_protocol::time::Timestamp;
use serde_json::json;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{AGENT, Manager, PROMPT, agent, stop};

const PATH: &str = "POST /v1/agent/key";

fn stored(manager: &Manager, name: &str) -> SigningKey {
    let seed = std::fs::read(manager.state.path().join(name)).unwrap();
    SigningKey::from_seed(&URL_SAFE_NO_PAD.decode(seed).unwrap().try_into().unwrap()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_millis(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap())
}

fn is_signed_by(bearer: &str, key: &VerifyingKey) -> bool {
    identity::check(bearer, key, AGENT, now()).is_ok()
}

fn problem(word: &str) -> String {
    json!({"type": format!("urn:riposte:problem:{word}"), "detail": "the detail"}).to_string()
}

#[tokio::test]
async fn an_agent_replaces_its_key_when_it_is_told_to_and_comes_back_with_it() {
    let (manager, old) = Manager::with_agent().await;
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    // Another key than its own means nothing to it.
    for rotate_key in [manager.key.verifying_key().text(), old.text()] {
        let settings = Settings { rotate_key: Some(rotate_key), ..PROMPT };
        stream.send(&ToAgent::Settings { settings }).await;
    }
    let asked = manager.exchange(|path, body| {
        assert_eq!(path, PATH);
        (200, body, json!({"key_since": "2026-11-29T12:00:00.000Z"}).to_string())
    });
    let asked: KeyChangeRequest = serde_json::from_str(&asked.await).unwrap();
    let keys = asked.open(AGENT, now()).unwrap();
    assert_eq!(keys.old, old);
    let stream = manager.accept().await;
    assert!(is_signed_by(&stream.bearer, &keys.new) && !is_signed_by(&stream.bearer, &old));
    assert_eq!(stored(&manager, "key").verifying_key(), keys.new);
    assert!(!manager.state.path().join("key.next").exists());
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn an_agent_keeps_its_key_at_a_manager_that_cannot_replace_it() {
    let (manager, old) = Manager::with_agent().await;
    let rotating = agent(manager.state.path(), &["rotate-key"]).output();
    let answering = manager.exchange(|_, body| (404, body, problem("not_found")));
    let (done, _) = tokio::join!(rotating, answering);
    let done = done.unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success() && said.contains("this manager is of a version that cannot"), "{said}");
    let next = stored(&manager, "key.next").verifying_key();
    // It asks once more, with a token of the next key, and goes on with the old one.
    let running = manager.run(&["--transport", "stream"]);
    manager.exchange(|path, _| (404, assert_eq!(path, PATH), problem("not_found"))).await;
    let stream = manager.accept().await;
    assert!(is_signed_by(&stream.bearer, &old));
    assert_eq!(stored(&manager, "key").verifying_key(), old);
    assert_eq!(stored(&manager, "key.next").verifying_key(), next, "it may be known, so it stays");
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_with_the_same_key() {
    let (manager, old) = Manager::with_agent().await;
    let mut rotating = agent(manager.state.path(), &["rotate-key"]).spawn().unwrap();
    let first = manager.exchange(|_, body| (503, body, String::new())).await;
    assert!(!rotating.wait().await.unwrap().success());
    let first: KeyChangeRequest = serde_json::from_str(&first).unwrap();
    // Refused with a token of the new key, it is asked for with the old one.
    let mut rotating = agent(manager.state.path(), &["rotate-key"]).spawn().unwrap();
    manager.exchange(|_, _| (401, (), problem("unauthenticated"))).await;
    let answer = json!({"key_since": "2026-11-29T12:00:00.000Z"}).to_string();
    let second = manager.exchange(|_, body| (200, body, answer)).await;
    assert!(rotating.wait().await.unwrap().success());
    let second: KeyChangeRequest = serde_json::from_str(&second).unwrap();
    let keys = first.open(AGENT, now()).unwrap();
    assert_eq!(second.open(AGENT, now()).unwrap(), keys);
    assert_eq!((keys.old, stored(&manager, "key").verifying_key()), (old, keys.new));
}
