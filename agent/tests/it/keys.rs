//! Statements about the manager's keys, as the real program takes them: from a trusted key only, on
//! disk before they are confirmed, and never again from before.

use futures_util::StreamExt as _;
use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, ManagerKey};
use riposte_protocol::key::SigningKey;
use riposte_protocol::key_statement::KeyStatement;
use riposte_protocol::message::{FromAgent, RejectedOrders, ToAgent};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Manager, PATIENCE, Stream, ids, stop};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

/// Keys 7 and 8 are called `k1` and `k2`.
fn statement(number: u64, seeds: &[u8], by: u8) -> String {
    let kid = |seed: u8| format!("k{}", seed - 6);
    let named = |seed: &u8| ManagerKey { kid: kid(*seed), public_key: key(*seed).verifying_key().text() };
    let keys = seeds.iter().map(named).collect();
    KeyStatement { iss: MANAGER.into(), number, keys, iat: 0, recovery: None, revocation: None }
        .sign(&key(by), &kid(by))
        .unwrap()
}

async fn said_keys(stream: &mut Stream) -> Option<u64> {
    let FromAgent::Hello { keys, .. } = stream.next().await else { panic!("no hello") };
    keys
}

async fn rejected(stream: &mut Stream) -> RejectedOrders {
    loop {
        let message = timeout(PATIENCE, stream.socket.next()).await.unwrap();
        let Message::Text(text) = message.unwrap().unwrap() else { continue };
        if let FromAgent::Rejected { mut orders } = serde_json::from_str(&text).unwrap() {
            return orders.remove(0);
        }
    }
}

#[tokio::test]
async fn a_new_key_is_learnt_from_the_old_one_and_survives_a_kill() {
    let (manager, _) = Manager::with_agent().await;
    let mut running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    assert_eq!(said_keys(&mut stream).await, Some(0));
    stream.send(&ToAgent::Keys { statements: vec![statement(1, &[7, 8], 7)] }).await;
    assert_eq!(stream.next().await, FromAgent::Keys { number: 1 });
    // It was confirmed, so it is on disk.
    running.kill().await.unwrap();
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    assert_eq!(said_keys(&mut stream).await, Some(1));
    // Both keys order; then the new one ends the old one.
    let old = manager.command(1, |_| ());
    let mut claims: Option<Command> = None;
    manager.command(2, |command| claims = Some(command.clone()));
    let new = claims.unwrap().sign(&key(8), "k2").unwrap();
    stream.send(&ToAgent::Commands { commands: vec![old, new] }).await;
    assert_eq!(stream.ack().await, ids(&[1, 2]));
    stream.results().await;
    stream.send(&ToAgent::Keys { statements: vec![statement(2, &[8], 8)] }).await;
    loop {
        match stream.next().await {
            FromAgent::Keys { number } => break assert_eq!(number, 2),
            FromAgent::Result { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    stream.send(&ToAgent::Commands { commands: vec![manager.command(3, |_| ())] }).await;
    let refused = rejected(&mut stream).await;
    assert_eq!((refused.reason.as_str(), refused.kid.as_deref()), ("unknown_key", Some("k1")));
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn a_forged_or_replayed_statement_changes_no_key_and_is_reported() {
    let (manager, _) = Manager::with_agent().await;
    for (statements, reason) in [
        // Of a key that introduces itself, of a stranger in the name of a trusted key, and of before.
        (vec![statement(9, &[8], 8)], "unknown_key"),
        (vec![forged()], "signature"),
        (vec![statement(5, &[7], 7), statement(4, &[7, 8], 7)], "replayed"),
    ] {
        let running = manager.run(&["--transport", "stream"]);
        let mut stream = manager.accept().await;
        let before = said_keys(&mut stream).await;
        stream.send(&ToAgent::Keys { statements }).await;
        let order = rejected(&mut stream).await;
        assert_eq!((order.reason.as_str(), order.count), (reason, 1));
        assert_eq!(stop(running).await, 0);
        let stored: serde_json::Value =
            serde_json::from_slice(&std::fs::read(manager.state.path().join("agent.json")).unwrap()).unwrap();
        assert_eq!(stored["manager_keys"].as_array().unwrap().len(), 1, "{reason}: {stored}");
        assert_eq!(stored["manager_keys"][0]["kid"], "k1", "{reason}");
        assert!(
            reason == "replayed" || stored["key_number"].as_u64() == before.filter(|number| *number > 0),
            "{stored}"
        );
    }
}

/// Signed by another key under the id of the trusted one.
fn forged() -> String {
    let keys = vec![ManagerKey { kid: "k2".into(), public_key: key(8).verifying_key().text() }];
    KeyStatement { iss: MANAGER.into(), number: 9, keys, iat: 0, recovery: None, revocation: None }
        .sign(&key(8), "k1")
        .unwrap()
}
