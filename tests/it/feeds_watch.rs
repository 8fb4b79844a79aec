//! Who has fetched a feed: what is shown of consumers and effects, and the incident of a consumer that is silent.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::feeds::{block, fetch, key_of, lift, with_agent};
use crate::support::{Answer, Client, Database, TestApp};

async fn consumer(admin: &Client, name: &str) -> Value {
    let shown = admin.get("/v1/feeds/edge").await.is(200);
    let consumers = shown["consumers"].as_array().unwrap();
    consumers.iter().find(|consumer| consumer["name"] == name).unwrap_or_else(|| panic!("{shown}")).clone()
}

/// What the first effect on an address says of feeds.
async fn feeds_of(admin: &Client, target: &str) -> Value {
    let effects = admin.list(&format!("/v1/effects?target={target}")).await;
    let path = format!("/v1/effects/{}", effects[0]["id"].as_str().unwrap());
    admin.get(&path).await.is(200)["feeds"][0].clone()
}

/// Waits until the sweep has written the fetches and looked at the consumers.
async fn swept(app: &TestApp, admin: &Client) {
    let from = app.clock.now().plus(Duration::from_secs(6)).to_string();
    app.in_time("the sweep has looked", || async {
        // Not ready while the clock is ahead of the sweep.
        let health: Value = serde_json::from_str(&admin.get("/readyz?verbose").await.text).unwrap();
        (health["stages"]["feeds"]["last_finished_at"].as_str() > Some(from.as_str())).then_some(())
    })
    .await;
}

async fn incidents(admin: &Client) -> Vec<String> {
    let events = admin.list("/v1/events?follow=false&type=incident.*").await;
    let told = events.iter().map(|event| {
        let kind = event["type"].as_str().unwrap().trim_start_matches("riposte.incident.");
        format!("{kind}: {}", event["data"]["detail"].as_str().unwrap())
    });
    told.collect()
}

on_both_databases! {
    async fn an_effect_says_how_many_have_fetched_it_and_a_consumer_what_it_is_owed(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.post("/v1/feeds", &json!({"name": "edge"})).await.is(201);
        let first = key_of(&admin, "fw-1", "edge").await;
        key_of(&admin, "fw-2", "edge").await;
        // The key that replaces the first one: the same consumer.
        let second = key_of(&admin, "fw-1", "edge").await;
        let response = block(&admin, "203.0.113.7", &json!({})).await;
        agent.obey().await;
        let shown = feeds_of(&admin, "203.0.113.7").await;
        assert_eq!(shown, json!({"feed": "edge", "is_removed": false, "fetched_by": 0, "consumers": 2}));
        let never = consumer(&admin, "fw-2").await;
        assert_eq!((&never["last_at"], &never["owed_new"], &never["owed_removed"]), (&Value::Null, &json!(1), &json!(0)));
        fetch(&app, "edge", &first, &[]).await;
        assert_eq!(feeds_of(&admin, "203.0.113.7").await["fetched_by"], 1);
        let one = consumer(&admin, "fw-1").await;
        assert_eq!((&one["keys"], &one["owed_new"], &one["address"]), (&json!(2), &json!(0), &json!("127.0.0.1")));
        lift(&admin, &response).await;
        agent.obey().await;
        let shown = feeds_of(&admin, "203.0.113.7").await;
        assert_eq!((&shown["is_removed"], &shown["fetched_by"]), (&json!(true), &json!(0)), "the removal was not fetched");
        assert_eq!(consumer(&admin, "fw-1").await["owed_removed"], 1);
        assert!(one["sequence"].as_i64().unwrap() > 0);
        fetch(&app, "edge", &second, &[]).await;
        let after = consumer(&admin, "fw-1").await;
        assert_eq!((&after["owed_removed"], &after["first_at"]), (&json!(0), &one["first_at"]));
        assert!(after["sequence"].as_i64() > one["sequence"].as_i64(), "{after}");
        assert_eq!(feeds_of(&admin, "203.0.113.7").await["fetched_by"], 1);
        // All of it is there after a restart.
        let (_app, admin) = app.restart().await;
        let again = consumer(&admin, "fw-1").await;
        assert_eq!((&again["last_at"], &again["owed_removed"]), (&after["last_at"], &json!(0)), "{again}");
        assert_eq!(feeds_of(&admin, "203.0.113.7").await["is_removed"], true);
    }

    async fn a_consumer_that_is_silent_while_a_removal_is_owed_is_one_incident(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.post("/v1/feeds", &json!({"name": "edge", "expected_interval": "1m"})).await.is(201);
        let (fast, slow) = (key_of(&admin, "fw-1", "edge").await, key_of(&admin, "fw-2", "edge").await);
        key_of(&admin, "never", "edge").await;
        let response = block(&admin, "203.0.113.7", &json!({"for": "7d"})).await;
        agent.obey().await;
        for key in [&fast, &slow] {
            assert_eq!(fetch(&app, "edge", key, &[]).await.text, "203.0.113.7\n");
        }
        // Late, and nothing is owed: no incident.
        app.advance(120);
        swept(&app, &admin).await;
        assert_eq!(incidents(&admin).await, Vec::<String>::new());
        lift(&admin, &response).await;
        agent.obey().await;
        fetch(&app, "edge", &fast, &[]).await;
        let told = app.in_time("the incident is told", || async {
            let told = incidents(&admin).await;
            (!told.is_empty()).then_some(told)
        }).await;
        assert!(told[0].starts_with("feed_not_fetched: consumer fw-2 fetched last at "), "{told:?}");
        assert!(told[0].ends_with("and 1 removal is owed to it"), "{told:?}");
        assert!(consumer(&admin, "fw-2").await["silent_since"].is_string());
        for (name, value) in [("fw-1", 0), ("fw-2", 1), ("never", 0)] {
            let row = format!("riposte_feed_consumer_silent{{feed=\"edge\",consumer=\"{name}\"}} {value}\n");
            admin.metrics_show(&row, true).await;
            let fetched = format!("riposte_feed_fetched_timestamp_seconds{{feed=\"edge\",consumer=\"{name}\"}} ");
            admin.metrics_show(&fetched, name != "never").await;
        }
        // Once for each outage, also over a restart.
        let (app, admin) = app.restart().await;
        app.advance(30);
        swept(&app, &admin).await;
        fetch(&app, "edge", &fast, &[]).await;
        assert_eq!(incidents(&admin).await.len(), 1, "{:?}", incidents(&admin).await);
        assert_eq!(fetch(&app, "edge", &slow, &[]).await.text, "");
        let told = app.in_time("it is back", || async {
            let told = incidents(&admin).await;
            (told.len() == 2).then_some(told)
        }).await;
        assert!(told[1].starts_with("feed_fetched: consumer fw-2 fetched at "), "{told:?}");
        assert_eq!(consumer(&admin, "fw-2").await["silent_since"], Value::Null);
        admin.metrics_show("riposte_feed_consumer_silent{feed=\"edge\",consumer=\"fw-2\"} 0\n", true).await;
    }

    async fn a_consumer_whose_key_has_expired_is_watched_until_the_key_is_revoked(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.post("/v1/feeds", &json!({"name": "edge", "expected_interval": "1m"})).await.is(201);
        let scope = json!({"rights": ["pull_feeds"], "feeds": ["edge"]});
        let asked = json!({"name": "fw-1", "role": "viewer", "scope": scope, "expires_in": "1h"});
        let made = admin.post("/v1/api-keys", &asked).await.is(201);
        let response = block(&admin, "203.0.113.7", &json!({"for": "7d"})).await;
        agent.obey().await;
        fetch(&app, "edge", made["key"].as_str().unwrap(), &[]).await;
        app.advance(3700);
        assert_eq!(fetch(&app, "edge", made["key"].as_str().unwrap(), &[]).await.status, 401);
        lift(&admin, &response).await;
        agent.obey().await;
        let told = app.in_time("the incident is told", || async {
            let told = incidents(&admin).await;
            (!told.is_empty()).then_some(told)
        }).await;
        assert!(told[0].ends_with("1 removal is owed to it; its key has expired"), "{told:?}");
        assert_eq!(consumer(&admin, "fw-1").await["keys"], 0, "it blocks still, and is shown");
        admin.delete(&format!("/v1/api-keys/{}", made["id"].as_str().unwrap()), None).await.is(204);
        assert_eq!(admin.get("/v1/feeds/edge").await.is(200)["consumers"], json!([]), "it is no more");
    }
}

#[tokio::test]
async fn promise_11_a_consumer_over_its_limit_is_told_when_to_retry_and_no_other_is() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| config.limits.requests_per_minute = 10).await;
    admin.post("/v1/feeds", &json!({"name": "edge"})).await.is(201);
    admin.post("/v1/feeds", &json!({"name": "bouncers", "form": "crowdsec"})).await.is(201);
    let (greedy, other) = (key_of(&admin, "fw-1", "edge").await, key_of(&admin, "fw-2", "edge").await);
    let bouncer = key_of(&admin, "bouncer", "bouncers").await;
    let ask = async || {
        let request = Client::anonymous(&app.base).request(Method::GET, "/crowdsec/v1/decisions/stream");
        Answer::to(request.header("x-api-key", &bouncer)).await
    };
    assert_eq!((fetch(&app, "edge", &greedy, &[]).await.status, ask().await.status), (200, 200));
    // A slow machine gets a new request each six seconds.
    for _ in 0..50 {
        fetch(&app, "edge", &greedy, &[]).await;
        ask().await;
    }
    for (refused, is_crowdsec) in [(fetch(&app, "edge", &greedy, &[]).await, false), (ask().await, true)] {
        if is_crowdsec {
            refused.is_crowdsec_error(429);
        } else {
            refused.is_problem(429);
        }
        assert!((1..=6).contains(&refused.header("retry-after").unwrap().parse::<u64>().unwrap()));
    }
    assert_eq!(fetch(&app, "edge", &other, &[]).await.status, 200);
}
