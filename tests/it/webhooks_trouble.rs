//! Webhooks in trouble: receivers that refuse, settings that do not hold any more, a ledger that cannot be written, a manager that
//! is stopped. Nothing is lost, nothing is sent for ever, and each is said.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::processes::{Manager, ended, signal};
use crate::support::receiver::{Mood, Receiver};
use crate::support::{Client, Database, eventually};
use crate::webhooks::{create, make_events, start, state};

async fn told(admin: &Client) -> Vec<String> {
    let events = admin.list("/v1/events?follow=false&type=webhook.*").await;
    events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

on_both_databases! {
    async fn messages_that_are_refused_hold_up_no_other_however_many_they_are(database: Database) {
        let (app, admin) = start(database).await;
        let receiver = Receiver::start(Mood::Refuses("poison")).await;
        create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
        make_events(&admin, "poison", 70).await;
        app.in_time("all are refused", || async {
            Some(state(&admin, "tickets").await).filter(|view| view["waiting"] == 70)
        }).await;
        make_events(&admin, "fine", 3).await;
        app.in_time("the others are taken", || async { (receiver.taken().len() == 3).then_some(()) }).await;
        let view = app.in_time("it is well", || async {
            Some(state(&admin, "tickets").await).filter(|view| view["state"] == "ok" && view["behind"] == 0)
        }).await;
        assert_eq!(view["waiting"], 70, "{view}");
        // Old refusals are no news: it was failing once, and is not any more.
        app.advance(1800);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        make_events(&admin, "more", 1).await;
        app.in_time("and what comes next", || async { (receiver.taken().len() == 4).then_some(()) }).await;
        assert_eq!(told(&admin).await, ["riposte.webhook.failing", "riposte.webhook.recovered"]);
    }

    async fn a_webhook_that_cannot_be_used_any_more_is_failing_and_told_of_once(database: Database) {
        let (app, admin) = start(database).await;
        let receiver = Receiver::start(Mood::Answers(200)).await;
        app.person(&admin, "alice", "analyst").await;
        let settings = json!({"form": "ntfy", "person": "alice", "types": ["freeze.on"]});
        create(&admin, "dm", &receiver.url("/a"), &settings).await;
        let change = async |admin: &Client, is_disabled: bool| {
            let version = admin.get("/v1/users/alice").await.header("etag").unwrap().to_owned();
            admin.patch("/v1/users/alice", &json!({"is_disabled": is_disabled}), &version).await.is(200);
        };
        let freeze = async |admin: &Client| {
            for frozen in [true, false] {
                admin.put("/v1/freeze", &json!({"frozen": frozen, "reason": "a try"}), None).await.is(200);
            }
        };
        freeze(&admin).await;
        app.in_time("she is told", || async { (receiver.taken().len() == 1).then_some(()) }).await;
        change(&admin, true).await;
        freeze(&admin).await;
        let view = app.in_time("it is failing", || async {
            Some(state(&admin, "dm").await).filter(|view| view["state"] == "failing")
        }).await;
        assert!(view["fault"].as_str().unwrap().contains("/settings/person is no user who can log in"), "{view}");
        admin.metrics_show("riposte_webhook_failing{webhook=\"dm\"} 1", true).await;
        let (app, admin) = app.restart().await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(told(&admin).await, ["riposte.webhook.failing"], "once, also after a restart");
        assert_eq!(receiver.taken().len(), 1, "nothing goes to a user who was disabled");
        change(&admin, false).await;
        app.in_time("what happened meanwhile is told", || async { (receiver.taken().len() == 2).then_some(()) }).await;
        app.in_time("it is well", || async { (state(&admin, "dm").await["state"] == "ok").then_some(()) }).await;
        assert_eq!(told(&admin).await, ["riposte.webhook.failing", "riposte.webhook.recovered"]);
    }

    async fn what_was_not_taken_is_sent_as_the_webhook_is_set_up_then(database: Database) {
        let (app, admin) = start(database).await;
        let receiver = Receiver::start(Mood::Answers(503)).await;
        create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
        make_events(&admin, "hush", 2).await;
        app.in_time("they wait", || async { (state(&admin, "tickets").await["waiting"] == 2).then_some(()) }).await;
        assert!(receiver.seen()[0].body.contains("hush"));
        let fewer = json!({"settings": {"types": ["protected.created"], "fields": ["actor"]}});
        admin.put("/v1/webhooks/tickets", &fewer, None).await.is(200);
        receiver.becomes(Mood::Answers(200));
        app.in_time("they are taken", || async {
            app.advance(30);
            (receiver.taken().len() == 2).then_some(())
        }).await;
        for message in receiver.taken() {
            assert!(!message.body.contains("hush") && message.json()["data"]["redacted"].is_array(), "{}", message.body);
        }
    }
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_does_not_send_a_message_for_ever() {
    let (app, admin) = start(Database::sqlite()).await;
    let receiver = Receiver::start(Mood::Answers(200)).await;
    create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
    app.execute("CREATE TRIGGER full BEFORE UPDATE ON webhook_states BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .await;
    make_events(&admin, "a", 1).await;
    let begun = Instant::now();
    eventually("it is sent", || async { (!receiver.seen().is_empty()).then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    // After one, two and four seconds.
    let seen = receiver.seen();
    assert!((2..=4).contains(&seen.len()), "{} times in {:?}", seen.len(), begun.elapsed());
    assert!(seen.iter().all(|one| one.header("webhook-id") == seen[0].header("webhook-id")), "one message");
    app.execute("DROP TRIGGER full").await;
    eventually("it is recorded", || async { (state(&admin, "tickets").await["delivered"] == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_manager_with_slow_receivers_stops_in_time_and_loses_no_message() {
    let manager = Manager::start_with(&["--egress-allow", "127.0.0.0/8"]).await;
    let api = manager.api();
    let receiver = Receiver::start(Mood::Silent).await;
    let asked = json!({"name": "slow", "url": receiver.url("/"), "settings": {"types": ["protected.created"]}});
    api.post("/v1/webhooks", &asked).await;
    for number in 0..40 {
        api.post("/v1/protected", &json!({"kind": "user", "value": format!("a{number}"), "reason": "t"})).await;
    }
    eventually("the first are sent", || async { (receiver.seen().len() >= 8).then_some(()) }).await;
    let mut manager = manager;
    signal(&manager.child, "TERM");
    let status = ended(&mut manager.child, Duration::from_secs(20)).await.expect("it stops in time");
    assert!(status.success(), "{status}");
    let first = receiver.seen().len();
    assert!(first <= 16, "no more were begun: {first}");
    receiver.becomes(Mood::Answers(200));
    manager.start_again().await;
    let ids = || {
        receiver
            .taken()
            .iter()
            .map(|one| one.header("webhook-id").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    eventually("all are taken", || async {
        let view: Value = manager.api().get("/v1/webhooks/slow").await;
        (ids().len() == 40 && view["waiting"] == 0).then_some(())
    })
    .await;
}
