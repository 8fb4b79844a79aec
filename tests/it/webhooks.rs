//! Webhooks: events reach a receiver elsewhere once each, signed, and only what its settings let out. A receiver that is away,
//! slow or broken loses none of them, and costs the ledger nothing.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::receiver::{Mood, Received, Receiver};
use crate::support::{Client, Database, TestApp, eventually};

/// Starts a manager that may call loopback addresses.
pub(crate) async fn start(database: Database) -> (TestApp, Client) {
    TestApp::start_with(database, |config| config.egress.allow = vec!["127.0.0.0/8".into()]).await
}

/// Creates a webhook, and returns its secret.
pub(crate) async fn create(admin: &Client, name: &str, url: &str, settings: &Value) -> String {
    let asked = json!({"name": name, "url": url, "settings": settings});
    admin.post("/v1/webhooks", &asked).await.is(201)["secret"].as_str().unwrap().to_owned()
}

pub(crate) async fn state(admin: &Client, name: &str) -> Value {
    admin.get(&format!("/v1/webhooks/{name}")).await.is(200)
}

/// Whether one of the signatures of a message is by this secret.
fn is_signed(message: &Received, secret: &str) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = [message.header("webhook-id"), message.header("webhook-timestamp"), &message.body].join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    message.header("webhook-signature").split(' ').any(|one| one == expected)
}

/// Creates protected entries, each of which is an event.
pub(crate) async fn make_events(admin: &Client, prefix: &str, count: usize) {
    for number in 0..count {
        let entry = json!({"kind": "user", "value": format!("{prefix}{number}"), "reason": "a test"});
        admin.post("/v1/protected", &entry).await.is(201);
    }
}

/// The numbers of the events of messages that were taken.
fn numbers(receiver: &Receiver) -> Vec<i64> {
    receiver.taken().iter().map(|message| message.json()["id"].as_str().unwrap().parse().unwrap()).collect()
}

/// Waits until the receiver has taken every event of these types that the feed has after `mark`, and returns their numbers.
async fn all_taken(app: &TestApp, admin: &Client, receiver: &Receiver, types: &str, mark: i64) -> Vec<i64> {
    let events = admin.list(&format!("/v1/events?follow=false&type={types}&after={mark}")).await;
    let expected: BTreeSet<i64> = events.iter().map(|event| event["id"].as_str().unwrap().parse().unwrap()).collect();
    app.in_time("every event was taken", || async {
        let taken: BTreeSet<i64> = numbers(receiver).into_iter().collect();
        taken.is_superset(&expected).then_some(())
    })
    .await;
    expected.into_iter().collect()
}

on_both_databases! {
    async fn an_event_reaches_its_receiver_once_signed_and_as_a_cloud_event(database: Database) {
        let (app, admin) = start(database).await;
        let receiver = Receiver::start(Mood::Answers(204)).await;
        let url = receiver.url("/hooks/of-a-secret-path?token=hunter2");
        make_events(&admin, "before", 2).await;
        let secret = create(&admin, "tickets", &url, &json!({"types": ["protected.*"], "note": "for the desk"})).await;
        // It begins behind what was before; that it was created is an event too.
        let view = state(&admin, "tickets").await;
        assert_eq!(view["state"], "new", "{view}");
        assert!(view["behind"].as_i64().unwrap() <= 1, "{view}");
        let mark = view["mark"].as_i64().unwrap();
        make_events(&admin, "after", 3).await;
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "not for it"}), None).await.is(200);
        let expected = all_taken(&app, &admin, &receiver, "protected.*", mark).await;
        let taken = receiver.taken();
        let mut told = numbers(&receiver);
        told.sort_unstable();
        assert_eq!(told, expected, "each once, and nothing else");
        let of_feed = admin.list(&format!("/v1/events?follow=false&type=protected.*&after={mark}")).await;
        for message in &taken {
            assert!(is_signed(message, &secret), "{message:?}");
            assert_eq!(message.header("content-type"), "application/cloudevents+json");
            assert_eq!(message.path, "/hooks/of-a-secret-path?token=hunter2");
            assert!(of_feed.contains(&message.json()), "as in the feed: {}", message.body);
            assert!(message.header("webhook-id").starts_with("event_"));
        }
        let view = app.in_time("it is counted", || async {
            Some(state(&admin, "tickets").await).filter(|view| view["delivered"] == 3 && view["behind"] == 0)
        }).await;
        assert_eq!((&view["state"], &view["version"], &view["waiting"]), (&json!("ok"), &json!(1), &json!(0)), "{view}");
        admin.metrics_show("riposte_webhook_messages_total{outcome=\"taken\"} 3", true).await;
        admin.metrics_show("riposte_webhook_behind{webhook=\"tickets\"} 0", true).await;
        // Neither the path nor the secret is shown anywhere.
        for path in ["/v1/webhooks", "/v1/webhooks/tickets", "/v1/audit", "/v1/events?follow=false"] {
            let said = admin.get(path).await;
            assert!(!said.text.contains("hunter2") && !said.text.contains("secret-path"), "{path}: {}", said.text);
            assert!(!said.text.contains(&secret), "{path}");
        }
        assert_eq!(admin.history("webhook", "tickets").await.len(), 1);
        assert_eq!(view["place"], json!(receiver.url("")), "{view}");
    }

    async fn a_receiver_that_is_away_loses_nothing_and_is_told_of(database: Database) {
        let (app, admin) = start(database).await;
        let receiver = Receiver::start(Mood::Answers(503)).await;
        create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created", "webhook.*"]})).await;
        let mark = state(&admin, "tickets").await["mark"].as_i64().unwrap();
        // More than are kept: the rest waits in the feed.
        make_events(&admin, "a", 120).await;
        let view = app.in_time("it is failing", || async {
            Some(state(&admin, "tickets").await).filter(|view| view["state"] == "failing")
        }).await;
        assert!(view["fault"].as_str().unwrap().contains("503"), "{view}");
        assert!(view["waiting"].as_i64().unwrap() >= 64 || view["behind"].as_i64().unwrap() > 0, "{view}");
        let messages = admin.list("/v1/webhooks/tickets/messages").await;
        assert!(messages.iter().all(|message| message["next_at"].is_string()), "{messages:?}");
        admin.metrics_show("riposte_webhook_failing{webhook=\"tickets\"} 1", true).await;
        // A restart in between changes nothing.
        let (app, admin) = app.restart().await;
        let tried = receiver.seen().len();
        app.advance(40);
        app.in_time("it is tried again", || async { (receiver.seen().len() > tried).then_some(()) }).await;
        receiver.becomes(Mood::Answers(200));
        app.advance(1800);
        let expected = all_taken(&app, &admin, &receiver, "protected.created", mark).await;
        assert_eq!(expected.len(), 120);
        let told = numbers(&receiver);
        for number in expected {
            assert_eq!(told.iter().filter(|one| **one == number).count(), 1, "{number} once");
        }
        let back = app.in_time("it is well", || async {
            let view = state(&admin, "tickets").await;
            (view["state"] == "ok" && view["waiting"] == 0 && view["behind"] == 0).then_some(view)
        }).await;
        assert_eq!((&back["dead"], &back["missed"]), (&json!(0), &json!(0)), "{back}");
        let events = admin.list("/v1/events?follow=false&type=webhook.*").await;
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["riposte.webhook.failing", "riposte.webhook.recovered"]);
    }

    async fn what_is_not_taken_for_three_days_is_kept_and_sent_again_by_hand(database: Database) {
        let (app, admin) = start(database).await;
        let receiver = Receiver::start(Mood::Chokes("poison")).await;
        create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
        make_events(&admin, "poison", 2).await;
        make_events(&admin, "fine", 5).await;
        app.in_time("one that cannot be taken holds up no other", || async { (receiver.taken().len() == 5).then_some(()) }).await;
        for _ in 0..74 {
            app.advance(3600);
            let view = state(&admin, "tickets").await;
            if view["dead"] == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        let view = app.in_time("both are given up", || async {
            app.advance(1800);
            Some(state(&admin, "tickets").await).filter(|view| view["dead"] == 2)
        }).await;
        assert_eq!(view["waiting"], 0, "{view}");
        let messages = admin.list("/v1/webhooks/tickets/messages").await;
        assert!(messages.len() == 2 && messages.iter().all(|message| message["next_at"].is_null()), "{messages:?}");
        assert_eq!(admin.list("/v1/events?follow=false&type=webhook.gave_up").await.len(), 1);
        receiver.becomes(Mood::Answers(200));
        let one = json!({"events": [messages[0]["seq"]]});
        assert_eq!(admin.post("/v1/webhooks/tickets/replay", &one).await.is(200)["messages"], 1);
        assert_eq!(admin.post("/v1/webhooks/tickets/replay", &json!({})).await.is(200)["messages"], 1);
        app.in_time("they are taken", || async { (receiver.taken().len() == 7).then_some(()) }).await;
        app.in_time("none is kept", || async {
            admin.list("/v1/webhooks/tickets/messages").await.is_empty().then_some(())
        }).await;
        assert_eq!(admin.post("/v1/webhooks/tickets/replay", &json!({})).await.is(200)["messages"], 0);
        // The same id at each try, so that a receiver knows a message again.
        let ids = |what: &str| -> BTreeSet<String> {
            let of = receiver.seen().into_iter().filter(|message| message.body.contains(what));
            of.map(|message| message.header("webhook-id").to_owned()).collect()
        };
        assert_eq!((ids("poison0").len(), ids("poison1").len()), (1, 1));
    }

    async fn only_what_the_settings_let_out_goes_out(database: Database) {
        let (app, admin) = start(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "001"})).await;
        let receiver = Receiver::start(Mood::Answers(200)).await;
        for (name, settings) in [
            ("few", json!({"types": ["response.created"], "fields": ["response_id", "policy"]})),
            ("low", json!({"types": ["response.created"], "ceiling": "green"})),
            ("all", json!({"types": ["response.created"], "ceiling": "TLP:RED"})),
            ("usual", json!({"types": ["response.created"]})),
            ("other", json!({"types": ["response.created"], "policy": "another"})),
        ] {
            create(&admin, name, &receiver.url(&format!("/{name}")), &settings).await;
        }
        let mut policy = drop_policy("insiders");
        policy["tlp"] = json!("red");
        assert_eq!(admin.policy(&policy).await["tlp"], "red");
        admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.9")).await.is(202);
        assert_eq!(agent.owed().await.len(), 1);
        let of = |name: &str| receiver.taken().into_iter().filter(|one| one.path == format!("/{name}")).collect::<Vec<_>>();
        app.in_time("all four are told", || async { (receiver.taken().len() == 4).then_some(()) }).await;
        let whole = of("all")[0].json();
        assert_eq!(whole["data"]["target_value"], "203.0.113.9");
        for withheld in ["few", "low", "usual"].map(|name| of(name)[0].clone()) {
            // Only the id: by it, who may see more reads the event.
            let said = withheld.json();
            assert!(!withheld.body.contains("203.0.113.9") && !withheld.body.contains("insiders"), "{said}");
            assert_eq!((&said["id"], &said["type"]), (&whole["id"], &json!("riposte.withheld")), "{said}");
            assert!(said["subject"].is_null() && said["data"]["withheld"].as_str().unwrap().contains("tlp:red"), "{said}");
        }
        assert!(of("other").is_empty());
        // Of a response that is not confidential, the fields that were named.
        admin.policy(&{ let mut plain = drop_policy("plain"); plain["match"] = json!([{"rule_ids": ["5763"]}]); plain }).await;
        admin.post("/v1/alerts", &brute_force("1.2", "203.0.113.10")).await.is(202);
        let said = app.in_time("it is told", || async {
            of("few").iter().map(Received::json).find(|said| said["data"]["policy"] == "plain")
        }).await;
        assert!(said["data"]["response_id"].is_string() && said["data"]["action"].is_null(), "{said}");
        let redacted: Vec<&str> = said["data"]["redacted"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert!(redacted.contains(&"target_value") && !redacted.contains(&"policy"), "{redacted:?}");
    }

    async fn a_case_is_carried_by_what_follows_and_found_again(database: Database) {
        let (app, admin) = start(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "001"})).await;
        let receiver = Receiver::start(Mood::Answers(200)).await;
        create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["response.*", "effect.*"]})).await;
        let by_hand = json!({"action": "log-only", "target": {"kind": "ip", "value": "203.0.113.7"}, "agents": ["web-01"],
            "reason": "a try", "case": "SOC-17", "tlp": "green"});
        let made = admin.post("/v1/responses", &by_hand).await.is(201);
        assert_eq!((&made["case"], &made["tlp"]), (&json!("SOC-17"), &json!("green")), "{made}");
        let id = made["id"].as_str().unwrap();
        agent.answer(riposte_protocol::message::Outcome::Succeeded, Some(true)).await;
        app.in_time("its events have the case", || async {
            receiver.taken().iter().any(|one| one.json()["data"]["case"] == "SOC-17").then_some(())
        }).await;
        let filed = admin.put(&format!("/v1/responses/{id}/case"), &json!({"case": "SOC-18", "tlp": "red"}), None).await.is(200);
        assert_eq!((&filed["case"], &filed["tlp"]), (&json!("SOC-18"), &json!("red")));
        assert_eq!(admin.list("/v1/responses?case=SOC-18").await.len(), 1);
        assert!(admin.list("/v1/responses?case=SOC-17").await.is_empty());
        let before = receiver.taken().len();
        admin.post(&format!("/v1/responses/{id}/lift"), &json!({"reason": "over"})).await.is(200);
        app.in_time("what follows is withheld", || async {
            receiver.taken()[before.min(receiver.taken().len())..].iter().any(|one| one.json()["type"] == "riposte.withheld").then_some(())
        }).await;
        let bad = admin.put(&format!("/v1/responses/{id}/case"), &json!({"case": "x".repeat(129), "tlp": "white"}), None).await;
        assert_eq!(bad.points_at(), ["/case", "/tlp"]);
        let viewer = app.client_with_role(&admin, "viewer").await;
        viewer.put(&format!("/v1/responses/{id}/case"), &json!({}), None).await.is_problem(403);
        assert_eq!(admin.history("response", id).await.iter().filter(|(_, verb)| verb == "filed").count(), 1);
    }
}

#[tokio::test]
async fn a_replaced_secret_signs_too_for_a_day() {
    let (app, admin) = start(Database::sqlite()).await;
    let receiver = Receiver::start(Mood::Answers(200)).await;
    let old = create(&admin, "tickets", &receiver.url("/"), &json!({})).await;
    let trial = |admin: Client| async move { admin.post("/v1/webhooks/tickets/test", &json!({})).await.is(200) };
    assert_eq!(trial(admin.clone()).await["is_taken"], true);
    let test = receiver.taken().into_iter().find(|one| one.json()["type"] == "riposte.webhook.test").unwrap();
    assert!(is_signed(&test, &old));
    let replaced = admin.post("/v1/webhooks/tickets/secret", &json!({})).await.is(200);
    let new = replaced["secret"].as_str().unwrap();
    assert!(replaced["previous_until"].is_string() && new != old);
    trial(admin.clone()).await;
    let last = receiver.taken().into_iter().rfind(|one| one.json()["type"] == "riposte.webhook.test").unwrap();
    assert!(is_signed(&last, &old) && is_signed(&last, new), "both sign for a day");
    app.advance(24 * 3600 + 1);
    trial(admin.clone()).await;
    let last = receiver.taken().into_iter().rfind(|one| one.json()["type"] == "riposte.webhook.test").unwrap();
    assert!(!is_signed(&last, &old) && is_signed(&last, new), "then only the new one");
    // A turn signs as a trial does.
    make_events(&admin, "a", 1).await;
    let event = app
        .in_time("the event is told", || async {
            receiver.taken().into_iter().find(|one| one.json()["type"] == "riposte.protected.created")
        })
        .await;
    assert!(is_signed(&event, new) && !is_signed(&event, &old));
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_called_no_more_and_what_happens_meanwhile_is_not_sent_later() {
    let (app, admin) = start(Database::sqlite()).await;
    let receiver = Receiver::start(Mood::Answers(410)).await;
    create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
    make_events(&admin, "a", 1).await;
    app.in_time("it is disabled", || async { (state(&admin, "tickets").await["state"] == "disabled").then_some(()) })
        .await;
    let seen = receiver.seen().len();
    make_events(&admin, "meanwhile-", 3).await;
    app.advance(3600);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(receiver.seen().len(), seen);
    let told = admin.list("/v1/audit?noun=webhook&noun_id=tickets").await;
    let gone = told.iter().find(|entry| entry["verb"] == "disabled").unwrap();
    assert!(gone["detail"].as_str().unwrap().contains("410") && gone["actor"] == "riposte", "{gone}");
    receiver.becomes(Mood::Answers(200));
    let on = json!({"settings": {"types": ["protected.created"]}});
    admin.put("/v1/webhooks/tickets", &on, Some("\"7\"")).await.is_problem(412);
    assert_eq!(admin.put("/v1/webhooks/tickets", &on, Some("\"2\"")).await.is(200)["version"], 3);
    make_events(&admin, "afterwards-", 1).await;
    app.in_time("what comes now is sent", || async {
        receiver.taken().iter().any(|one| one.body.contains("afterwards-0")).then_some(())
    })
    .await;
    assert!(!receiver.taken().iter().any(|one| one.body.contains("meanwhile-0")), "not what happened meanwhile");
    admin.delete("/v1/webhooks/tickets", None).await.is(204);
    admin.get("/v1/webhooks/tickets").await.is_problem(404);
    admin.get("/v1/webhooks/tickets/messages").await.is_problem(404);
    admin.post("/v1/webhooks/tickets/test", &json!({})).await.is_problem(404);
    admin.post("/v1/webhooks/tickets/replay", &json!({})).await.is_problem(404);
}

#[tokio::test]
async fn a_slow_or_babbling_receiver_holds_up_no_other_and_a_wait_that_it_asks_for_is_kept() {
    let (app, admin) = start(Database::sqlite()).await;
    let silent = Receiver::start(Mood::Silent).await;
    let babbler = Receiver::start(Mood::Babbles(4 << 20)).await;
    let busy = Receiver::start(Mood::AsksToWait(600)).await;
    for (name, receiver) in [("a-silent", &silent), ("babbler", &babbler), ("busy", &busy)] {
        create(&admin, name, &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
    }
    make_events(&admin, "a", 20).await;
    app.in_time("the others are told", || async { (babbler.taken().len() == 20).then_some(()) }).await;
    assert!(silent.taken().is_empty());
    // The ledger answers meanwhile.
    make_events(&admin, "b", 3).await;
    app.in_time("the busy one was asked", || async { (!busy.seen().is_empty()).then_some(()) }).await;
    let waiting = app
        .in_time("its wait is kept", || async {
            let messages = admin.list("/v1/webhooks/busy/messages").await;
            messages.first().cloned()
        })
        .await;
    let events = admin.list("/v1/events?follow=false&type=protected.created").await;
    assert_eq!(events.len(), 23);
    let next: riposte_protocol::time::Timestamp = waiting["next_at"].as_str().unwrap().parse().unwrap();
    let at: riposte_protocol::time::Timestamp = waiting["at"].as_str().unwrap().parse().unwrap();
    assert!(next.since(at).as_secs() >= 600, "{waiting}");
}

#[tokio::test]
async fn events_that_were_removed_before_they_could_be_sent_are_told_of() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        config.egress.allow = vec!["127.0.0.0/8".into()];
        config.retention.event_retention_days = 1;
    })
    .await;
    let receiver = Receiver::start(Mood::Answers(500)).await;
    create(&admin, "tickets", &receiver.url("/"), &json!({"types": ["protected.created"]})).await;
    make_events(&admin, "a", 150).await;
    app.in_time("it is failing", || async { (state(&admin, "tickets").await["state"] == "failing").then_some(()) })
        .await;
    let behind = state(&admin, "tickets").await["behind"].as_i64().unwrap();
    assert!(behind > 0, "the rest waits in the feed");
    app.advance(2 * 86_400);
    app.in_time("the events are removed", || async {
        app.advance(300);
        let left = admin.list("/v1/events?follow=false&type=protected.created").await;
        left.is_empty().then_some(())
    })
    .await;
    receiver.becomes(Mood::Answers(200));
    app.in_time("it says what it missed", || async {
        app.advance(600);
        let view = state(&admin, "tickets").await;
        (view["missed"].as_i64().unwrap() > 0 && view["waiting"] == 0).then_some(())
    })
    .await;
    let missed = admin.list("/v1/events?follow=false&type=webhook.missed").await;
    assert!(missed[0]["data"]["detail"].as_str().unwrap().contains("removed by their age"), "{missed:?}");
}

#[tokio::test]
async fn bad_input_is_named_and_an_internal_host_is_not_called() {
    let (app, admin) = TestApp::start().await;
    let refused = |body: Value| {
        let admin = admin.clone();
        async move { admin.post("/v1/webhooks", &body).await }
    };
    for (body, pointer, words) in [
        (json!({"name": "A b", "url": "https://hooks.example.org/"}), "/name", "a-z"),
        (json!({"name": "a", "url": "no url"}), "/url", "is no URL"),
        (json!({"name": "a", "url": "http://hooks.example.org/"}), "/url", "must be https"),
        (json!({"name": "a", "url": "ftp://hooks.example.org/"}), "/url", "must be https"),
        (json!({"name": "a", "url": "https://user:pw@hooks.example.org/"}), "/url", "must not hold a user"),
        (json!({"name": "a", "url": "http://127.0.0.1:1/"}), "/url", "is internal"),
        (json!({"name": "a", "url": "https://10.0.0.1/"}), "/url", "is internal"),
        (json!({"name": "a", "url": "https://169.254.169.254/"}), "/url", "metadata"),
        (json!({"name": "a", "url": "https://[::ffff:10.0.0.1]/"}), "/url", "is internal"),
        (json!({"name": "a", "url": "https://hooks.example.org/", "secret": "hunter2"}), "/secret", "whsec_"),
        (
            json!({"name": "a", "url": "https://hooks.example.org/", "settings": {"types": ["respons.*"]}}),
            "/settings/types/0",
            "is no type",
        ),
        (
            json!({"name": "a", "url": "https://hooks.example.org/", "settings": {"fields": ["polcy"]}}),
            "/settings/fields/0",
            "policy",
        ),
        (
            json!({"name": "a", "url": "https://hooks.example.org/", "settings": {"ceiling": "white"}}),
            "/settings/ceiling",
            "amber",
        ),
        (
            json!({"name": "a", "url": "https://hooks.example.org/", "settings": {"agent": "web-99"}}),
            "/settings/agent",
            "enrolled",
        ),
    ] {
        let answer = refused(body.clone()).await;
        let problem = answer.is_problem(422);
        assert_eq!(answer.points_at(), [pointer], "{body}: {problem}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(words), "{body}: {problem}");
        assert!(!answer.text.contains("user:pw"), "{}", answer.text);
    }
    let good = json!({"name": "a", "url": "https://hooks.example.org/", "settings": {"types": ["freeze.on"]}});
    let first = admin.post_once("/v1/webhooks", &good, "key-1").await;
    first.is(201);
    admin.post("/v1/webhooks", &good).await.is_problem(409);
    admin.post_once("/v1/webhooks", &good, "key-1").await.is_problem(409);
    let many: Vec<i64> = (0..1001).collect();
    assert_eq!(admin.post("/v1/webhooks/a/replay", &json!({"events": many})).await.points_at(), ["/events"]);
    // A trial says why.
    app.client_with_role(&admin, "engineer").await.get("/v1/webhooks").await.is_problem(403);
}

#[tokio::test]
async fn a_webhook_that_another_program_has_changed_is_not_called() {
    let (app, admin) = start(Database::sqlite()).await;
    let (ours, theirs) = (Receiver::start(Mood::Answers(200)).await, Receiver::start(Mood::Answers(200)).await);
    create(&admin, "ours", &ours.url("/"), &json!({"types": ["protected.created"]})).await;
    create(&admin, "theirs", &theirs.url("/"), &json!({"types": ["freeze.on"]})).await;
    // A program that can write the database would send everything elsewhere.
    app.execute("UPDATE webhooks SET document = '{}' WHERE name = 'theirs'").await;
    make_events(&admin, "a", 3).await;
    app.in_time("ours is told", || async { (ours.taken().len() == 3).then_some(()) }).await;
    assert!(theirs.seen().is_empty());
    eventually("it is told of", || async {
        app.advance(5);
        let events = admin.list("/v1/events?follow=false&type=incident.ledger_breached").await;
        (!events.is_empty()).then_some(())
    })
    .await;
}
