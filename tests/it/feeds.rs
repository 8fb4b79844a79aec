//! Feeds: what they list, in which form, to whom, and that a list is whole or an error.

use reqwest::Method;
use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

/// Blocks an address by hand on one host for ten minutes; returns the response's id.
pub(super) async fn block(admin: &Client, target: &str, more: &Value) -> String {
    let mut asked =
        json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": "10m", "reason": "seen"});
    asked.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    admin.post("/v1/responses", &asked).await.is(201)["id"].as_str().unwrap().to_owned()
}

pub(super) async fn lift(admin: &Client, response: &str) {
    admin.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "over"})).await.is(200);
}

/// A key of a consumer of the feed.
pub(super) async fn key_of(admin: &Client, name: &str, feed: &str) -> String {
    let scope = json!({"rights": ["pull_feeds"], "feeds": [feed]});
    let made = admin.post("/v1/api-keys", &json!({"name": name, "role": "viewer", "scope": scope})).await.is(201);
    made["key"].as_str().unwrap().to_owned()
}

/// Fetches a feed as a firewall does: with the key as a password.
pub(super) async fn fetch(app: &TestApp, feed: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
    let client = Client::anonymous(&app.base);
    let mut request = client.request(Method::GET, &format!("/feeds/{feed}")).basic_auth("firewall", Some(key));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::to(request).await
}

pub(super) async fn with_agent(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
    (app, admin, agent)
}

async fn types(admin: &Client) -> Vec<String> {
    let events = admin.list("/v1/events?follow=false&type=feed.*,incident.*").await;
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("riposte.").to_owned()).collect()
}

on_both_databases! {
    async fn a_feed_lists_what_is_in_force_and_tells_a_client_that_has_it(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let made = admin.post("/v1/feeds", &json!({"name": "edge"})).await;
        assert_eq!((made.header("etag"), &made.is(201)["entries"]), (Some("\"1\""), &json!(0)));
        let key = key_of(&admin, "fw-1", "edge").await;
        let empty = fetch(&app, "edge", &key, &[]).await;
        assert_eq!((empty.status, empty.text.as_str()), (200, ""));
        block(&admin, "203.0.113.7", &json!({})).await;
        let other = block(&admin, "2001:DB8::7", &json!({})).await;
        // What was decided is listed at once; the agent applies it meanwhile.
        let list = fetch(&app, "edge", &key, &[]).await;
        assert_eq!((list.status, list.text.as_str()), (200, "2001:db8::7\n203.0.113.7\n"));
        assert_eq!(list.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(list.header("content-length"), Some("24"), "a torn list is noticed");
        let etag = list.header("etag").unwrap().to_owned();
        assert!(list.header("last-modified").is_none(), "it may change within the second");
        agent.obey().await;
        let same = fetch(&app, "edge", &key, &[("if-none-match", &etag)]).await;
        assert_eq!((same.status, same.text.as_str(), same.header("etag")), (304, "", Some(etag.as_str())));
        app.advance(3);
        let settled = fetch(&app, "edge", &key, &[]).await;
        let at = settled.header("last-modified").unwrap().to_owned();
        assert_eq!(fetch(&app, "edge", &key, &[("if-modified-since", &at)]).await.status, 304);
        lift(&admin, &other).await;
        for header in [("if-none-match", etag.as_str()), ("if-modified-since", at.as_str())] {
            let changed = fetch(&app, "edge", &key, &[header]).await;
            assert_eq!((changed.status, changed.text.as_str()), (200, "203.0.113.7\n"), "{header:?}");
        }
        // A HEAD has the headers and no list.
        let head = Client::anonymous(&app.base).request(Method::HEAD, "/feeds/edge").basic_auth("", Some(&key));
        let head = Answer::to(head).await;
        assert_eq!((head.status, head.text.as_str(), head.header("content-length")), (200, "", Some("12")));
        // What is over is not listed, whether an agent has lifted it or not.
        app.advance(601);
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "");
    }

    async fn a_list_is_whole_or_an_error_and_the_error_is_one_incident(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        admin.post("/v1/feeds", &json!({"name": "edge", "max_entries": 2})).await.is(201);
        let key = key_of(&admin, "fw-1", "edge").await;
        for target in ["203.0.113.1", "203.0.113.2"] {
            block(&admin, target, &json!({})).await;
        }
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "203.0.113.1\n203.0.113.2\n", "at the limit");
        // What is held back is not listed, and does not count.
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "night"}), None).await.is(200);
        let third = block(&admin, "203.0.113.3", &json!({})).await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "203.0.113.1\n203.0.113.2\n", "still at the limit");
        admin.put("/v1/freeze", &json!({"frozen": false, "reason": "day"}), None).await.is(200);
        for _ in 0..2 {
            let answer = fetch(&app, "edge", &key, &[]).await;
            assert_eq!(answer.status, 503);
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert!(answer.header("retry-after").is_some() && answer.header("etag").is_none());
            assert!(answer.text.contains("has 3 entries and may hold 2"), "{}", answer.text);
            assert!(!answer.text.contains("203.0.113"), "nothing that could be taken for a list: {}", answer.text);
        }
        admin.metrics_show("riposte_feed_too_long{feed=\"edge\"} 1\n", true).await;
        let shown = admin.get("/v1/feeds/edge").await.is(200);
        assert_eq!((&shown["entries"], shown["too_long_since"].is_string()), (&json!(3), true), "{shown}");
        lift(&admin, &third).await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.status, 200);
        assert_eq!(admin.get("/v1/feeds/edge").await.is(200)["too_long_since"], Value::Null);
        admin.metrics_show("riposte_feed_too_long{feed=\"edge\"} 0\n", true).await;
        assert_eq!(types(&admin).await, ["feed.created", "incident.feed_too_long", "incident.feed_served"]);
    }

    async fn a_feed_lists_nothing_that_failed_is_protected_or_is_held_back(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.post("/v1/feeds", &json!({"name": "edge"})).await.is(201);
        let key = key_of(&admin, "fw-1", "edge").await;
        block(&admin, "203.0.113.1", &json!({})).await;
        agent.answer(Outcome::Failed, None).await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "", "no agent has it");
        let kept = block(&admin, "203.0.113.2", &json!({})).await;
        agent.obey().await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "203.0.113.2\n");
        // No block, although its target is an address.
        let logged = json!({"action": "log-only", "target": {"kind": "ip", "value": "203.0.113.9"}});
        block(&admin, "", &logged).await;
        // A freeze holds new blocks back here too, and lifts go on.
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "night"}), None).await.is(200);
        block(&admin, "203.0.113.3", &json!({})).await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "203.0.113.2\n");
        lift(&admin, &kept).await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "");
        admin.put("/v1/freeze", &json!({"frozen": false, "reason": "day"}), None).await.is(200);
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "203.0.113.3\n");
        let entry = json!({"kind": "ip", "value": "203.0.113.0/24", "reason": "partners"});
        admin.post("/v1/protected", &entry).await.is(201);
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "", "protected means protected");
        // A revoked agent enforces nothing that is known.
        block(&admin, "198.51.100.1", &json!({})).await;
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "198.51.100.1\n");
        admin.delete(&format!("/v1/agents/{}", agent.id), None).await.is(204);
        assert_eq!(fetch(&app, "edge", &key, &[]).await.text, "");
    }

    async fn a_feed_has_filters_and_the_form_of_its_consumer(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        app.enrol(&admin, "dev-01", &json!({"env": "dev"})).await;
        let on_dev = json!({"agents": ["dev-01"], "for": "1h"});
        block(&admin, "203.0.113.1", &json!({})).await;
        block(&admin, "203.0.113.2", &on_dev).await;
        let list = async |feed: Value| {
            admin.post("/v1/feeds", &feed).await.is(201);
            let name = feed["name"].as_str().unwrap();
            let text = admin.get(&format!("/feeds/{name}")).await;
            assert_eq!(text.status, 200, "{}", text.text);
            text.text
        };
        assert_eq!(list(json!({"name": "all"})).await, "203.0.113.1\n203.0.113.2\n");
        assert_eq!(list(json!({"name": "prod", "labels": {"env": "prod"}})).await, "203.0.113.1\n");
        assert_eq!(list(json!({"name": "long", "min_left": "11m"})).await, "203.0.113.2\n");
        assert_eq!(list(json!({"name": "of-a-policy", "policies": ["ssh-*"]})).await, "");
        assert_eq!(list(json!({"name": "routes", "actions": ["route-null"]})).await, "");
        assert_eq!(list(json!({"name": "nginx", "form": "nginx"})).await, "deny 203.0.113.1;\ndeny 203.0.113.2;\n");
        // Labels change without an event of the ledger's effects.
        let dev = admin.list("/v1/agents").await.into_iter().find(|agent| agent["name"] == "dev-01").unwrap();
        let path = format!("/v1/agents/{}", dev["id"].as_str().unwrap());
        Answer::to(admin.request(Method::PATCH, &path).json(&json!({"labels": {"env": "prod"}}))).await.is(200);
        assert_eq!(admin.get("/feeds/prod").await.text, "203.0.113.1\n203.0.113.2\n");
        app.advance(60);
        assert_eq!(admin.get("/feeds/all").await.text, "203.0.113.1\n203.0.113.2\n");
        app.advance(2941);
        assert_eq!(admin.get("/feeds/long").await.text, "", "less than 11 minutes are left");
    }

    async fn a_feed_is_changed_by_its_version_and_wrong_ones_are_refused(database: Database) {
        let (_app, admin, _agent) = with_agent(database).await;
        let wrong = json!({"name": "Edge", "policies": ["a b"], "actions": ["gone"], "max_entries": 0, "min_left": "25h"});
        let faults = admin.post("/v1/feeds", &wrong).await.points_at();
        assert_eq!(faults, ["/name", "/policies/0", "/min_left", "/max_entries", "/actions/0"]);
        assert_eq!(admin.post("/v1/feeds", &json!({"name": "x", "form": "csv"})).await.points_at(), ["/form"]);
        assert_eq!(admin.post("/v1/feeds", &json!({"name": "x", "form_": "csv"})).await.points_at().len(), 1);
        let feed = json!({"name": "edge", "note": "for the edge"});
        admin.post_once("/v1/feeds", &feed, "k-1").await.is(201);
        admin.post_once("/v1/feeds", &feed, "k-1").await.is(201);
        admin.post("/v1/feeds", &feed).await.is_problem(409);
        admin.put("/v1/feeds/edge", &feed, None).await.is_problem(428);
        admin.put("/v1/feeds/edge", &feed, Some("\"7\"")).await.is_problem(412);
        admin.put("/v1/feeds/gone", &json!({"name": "gone"}), Some("\"1\"")).await.is_problem(404);
        assert_eq!(admin.put("/v1/feeds/edge", &json!({"name": "x"}), Some("\"1\"")).await.points_at(), ["/name"]);
        let changed = admin.put("/v1/feeds/edge", &json!({"name": "edge", "max_entries": 7}), Some("\"1\"")).await;
        assert_eq!((changed.header("etag"), &changed.is(200)["max_entries"]), (Some("\"2\""), &json!(7)));
        admin.delete("/v1/feeds/edge", Some("\"1\"")).await.is_problem(412);
        admin.delete("/v1/feeds/edge", Some("\"2\"")).await.is(204);
        admin.get("/v1/feeds/edge").await.is_problem(404);
        admin.get("/feeds/edge").await.is_problem(404);
        assert_eq!(types(&admin).await, ["feed.created", "feed.updated", "feed.deleted"]);
    }

    /// Attack: the password of a firewall is read from its configuration.
    async fn a_firewalls_password_fetches_its_feed_and_nothing_else(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        for name in ["edge", "other"] {
            admin.post("/v1/feeds", &json!({"name": name})).await.is(201);
        }
        let key = key_of(&admin, "fw-1", "edge").await;
        let thief = admin.with_key(&key);
        for path in ["/v1/alerts", "/v1/feeds", "/v1/responses", "/v1/agents", "/v1/events?follow=false", "/v1/effects"] {
            thief.get(path).await.is_problem(403);
        }
        thief.post("/v1/feeds", &json!({"name": "mine"})).await.is_problem(403);
        thief.get("/feeds/other").await.is_problem(403);
        fetch(&app, "other", &key, &[]).await.is_problem(403);
        assert_eq!(thief.get("/feeds/edge").await.status, 200);
        assert_eq!(fetch(&app, "edge", &key, &[]).await.status, 200);
        // Other keys are no passwords: a firewall's configuration is read by many.
        let viewer = app.client_with_role(&admin, "viewer").await;
        for other in [viewer.key(), admin.key(), "", "x", &format!("{key}x")] {
            let refused = fetch(&app, "edge", other, &[]).await;
            refused.is_problem(401);
            let asked: Vec<&str> =
                refused.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
            assert!(asked.iter().any(|how| how.starts_with("Basic ")), "{asked:?}");
        }
        // A viewer may look, and is no consumer.
        viewer.get("/feeds/edge").await;
        let consumers = admin.get("/v1/feeds/edge").await.is(200)["consumers"].clone();
        assert_eq!(consumers.as_array().unwrap().len(), 1, "{consumers}");
        let id = key.split('_').nth(1).unwrap();
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        fetch(&app, "edge", &key, &[]).await.is_problem(401);
    }

    /// Attack: another program puts an address into the ledger's effects, or a feed of its own, or opens a feed's filter.
    async fn what_another_program_writes_into_the_ledger_is_in_no_feed(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.post("/v1/feeds", &json!({"name": "edge"})).await.is(201);
        block(&admin, "203.0.113.1", &json!({})).await;
        agent.obey().await;
        assert_eq!(admin.get("/feeds/edge").await.text, "203.0.113.1\n");
        app.execute("UPDATE effects SET target_value = '198.51.100.77'").await;
        block(&admin, "203.0.113.2", &json!({})).await;
        assert_eq!(admin.get("/feeds/edge").await.text, "203.0.113.2\n", "what was changed is left out");
        app.execute("UPDATE feeds SET document = '{\"name\":\"edge\",\"actions\":[\"log-only\"]}'").await;
        let (app, admin) = app.restart().await;
        admin.get("/feeds/edge").await.is_problem(404);
        drop(app);
    }
}
