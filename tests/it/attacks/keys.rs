//! Stolen keys and tokens.

use riposte_protocol::message::PollRequest;
use serde_json::json;

use crate::support::agent::{enrollment, new_key};
use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::{Database, TestApp};

on_both_databases! {
    async fn a_stolen_ingest_key_causes_no_more_than_the_policies_allow(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("drop");
        policy["limits"] = json!({"responses": "3/1h", "over_limit": "drop"});
        admin.policy(&policy).await;
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.0/28", "reason": "ours"})).await.is(201);
        let thief = app.client_with_role(&admin, "ingest").await;
        for number in 0..20 {
            // Our own addresses first: they are protected, and do not count towards the limit.
            thief.post("/v1/alerts", &brute_force(&format!("a{number}"), &format!("203.0.113.{number}"))).await.is(202);
        }
        let owed = agent.owed().await;
        let targets: Vec<&str> = owed.iter().map(|command| command.target.value()).collect();
        assert_eq!(targets, ["203.0.113.16", "203.0.113.17", "203.0.113.18"]);
        for path in ["/v1/alerts", "/v1/policies", "/v1/protected", "/v1/agents", "/v1/api-keys", "/v1/audit"] {
            thief.get(path).await.is_problem(403);
        }
        // Every response that it caused is found by its rule, and lifted with one call.
        let asked = json!({"rule_id": "5763", "reason": "the key was stolen"});
        assert_eq!(admin.post("/v1/responses/lift", &asked).await.is(200)["count"], 3);
        let id = thief.key().split('_').nth(1).unwrap().to_owned();
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        thief.post("/v1/alerts", &brute_force("late", "198.51.100.1")).await.is_problem(401);
    }

    /// A token is read in a log or on the way, and sent again before it expires.
    async fn a_stolen_agent_token_is_good_for_nothing_once_it_was_used(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        let (used, request) = (agent.token(), PollRequest { max: 1, ..PollRequest::default() });
        agent.exchange(&used, &request).await.is(200);
        for path in ["/v1/agent/poll", "/v1/agent/stream"] {
            let thief = crate::support::Client::anonymous(&app.base).with_key(&used);
            let method = if path.ends_with("poll") { reqwest::Method::POST } else { reqwest::Method::GET };
            let answer = crate::support::Answer::to(thief.request(method, path).json(&request)).await;
            assert!(answer.is_problem(409)["detail"].as_str().unwrap().contains("was used before"));
        }
        // The agent and others go on.
        agent.exchange(&agent.token(), &request).await.is(200);
        other.exchange(&other.token(), &request).await.is(200);
        // A new run of the manager does not know it: the residual, until the token expires.
        let (app, _) = app.restart().await;
        let agent = agent.moved_to(&app);
        agent.exchange(&used, &request).await.is(200);
        agent.exchange(&used, &request).await.is_problem(409);
        app.advance(361);
        agent.exchange(&used, &request).await.is_problem(401);
    }

    async fn a_stolen_analyst_key_reaches_nothing_protected_and_leaves_its_name(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        admin.policy(&drop_policy("drop")).await;
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.7", "reason": "ours"})).await.is(201);
        let thief = app.client_with_role(&admin, "analyst").await;
        let by_hand = |target: &str| {
            json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": "1h", "reason": "x"})
        };
        for target in ["203.0.113.7", "::ffff:203.0.113.7", "127.0.0.1", "203.0.113.0/24", "0.0.0.0/0"] {
            let answer = thief.post("/v1/responses", &by_hand(target)).await;
            assert_eq!(answer.status, 422, "{target}: {}", answer.text);
        }
        // It cannot create a key or a policy, weaken the protection, or touch an agent.
        thief.post("/v1/api-keys", &json!({"name": "x", "role": "admin"})).await.is_problem(403);
        thief.post("/v1/policies", &drop_policy("mine")).await.is_problem(403);
        thief.post("/v1/actions", &json!({"name": "x", "executable": "x.sh"})).await.is_problem(403);
        thief.post("/v1/enrollment-tokens", &json!({})).await.is_problem(403);
        let entry = admin.get("/v1/protected").await.is(200)["items"][0]["id"].as_str().unwrap().to_owned();
        thief.delete(&format!("/v1/protected/{entry}"), None).await.is_problem(403);
        thief.delete(&format!("/v1/agents/{}", agent.id), None).await.is_problem(403);
        assert!(agent.owed().await.is_empty());
        // What it may do is audited under its own name.
        let made = thief.post("/v1/responses", &by_hand("198.51.100.9")).await.is(201);
        let history = admin.history("response", made["id"].as_str().unwrap()).await;
        assert_eq!(history[0].0, format!("key:{}", thief.key().split('_').nth(1).unwrap()));
    }

    async fn a_stolen_enrolment_token_pushes_no_agent_aside_that_may_be_alive(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let victim = app.enrol(&admin, "db1.corp.example", &json!({})).await;
        let token = admin.post("/v1/enrollment-tokens", &json!({"uses": 9})).await.is(201);
        let token = token["token"].as_str().unwrap();
        let stranger = crate::support::Client::anonymous(&app.base);
        let replace = async || {
            let mut asked = enrollment(token, "db1.corp.example", &new_key());
            asked.replace = true;
            stranger.post("/v1/agents/enroll", &serde_json::to_value(asked).unwrap()).await
        };
        let detail = |problem: serde_json::Value| problem["detail"].as_str().unwrap().to_owned();
        // It polls, and is silent in between.
        victim.poll(&PollRequest::default()).await;
        assert!(detail(replace().await.is_problem(409)).contains("is connected now"));
        app.advance(110);
        let said = detail(replace().await.is_problem(409));
        assert!(said.contains("was heard of 110 s ago") && said.contains("wait for 120 s, or revoke it"), "{said}");
        // After a restart of the manager no agent is there for a moment.
        app.advance(600);
        let (app, _admin) = app.restart().await;
        let stranger = crate::support::Client::anonymous(&app.base);
        let mut asked = enrollment(token, "db1.corp.example", &new_key());
        asked.replace = true;
        let asked = serde_json::to_value(asked).unwrap();
        let said = detail(stranger.post("/v1/agents/enroll", &asked).await.is_problem(409));
        assert!(said.contains("this manager has just started"), "{said}");
        app.advance(120);
        stranger.post("/v1/agents/enroll", &asked).await.is(201);
    }

    async fn a_stolen_enrolment_token_takes_no_name_that_alerts_of_another_host_may_use(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let victim = app.enrol(&admin, "db1.corp.example", &json!({})).await;
        let renamed = app.enrol(&admin, "host-7", &json!({"wazuh_name": "web1"})).await;
        admin.policy(&drop_policy("drop")).await;
        let token = admin.post("/v1/enrollment-tokens", &json!({"uses": 9})).await.is(201);
        let token = token["token"].as_str().unwrap();
        let stranger = crate::support::Client::anonymous(&app.base);
        let enrol = |name: &str| serde_json::to_value(enrollment(token, name, &new_key())).unwrap();
        for (name, status) in [
            ("db1", 409),
            ("DB1", 409),
            ("db1.corp.example.", 422),
            ("web1", 409),
            ("WEB1.corp.example", 409),
            ("db1.other.example", 201),
            ("db10", 201),
        ] {
            let answer = stranger.post("/v1/agents/enroll", &enrol(name)).await;
            assert_eq!(answer.status, status, "{name}: {}", answer.text);
        }
        // Nor does a label, by a hand that may change it.
        let other = app.enrol(&admin, "host-8", &json!({})).await;
        let label = |labels: serde_json::Value| {
            let request = admin.request(reqwest::Method::PATCH, &format!("/v1/agents/{}", other.id));
            crate::support::Answer::to(request.json(&json!({"labels": labels})))
        };
        label(json!({"wazuh_name": "Web1"})).await.is_problem(409);
        label(json!({"wazuh_name": "web2"})).await.is(200);
        let alert = |id: &str, name: &str| from_agent(brute_force(id, &format!("203.0.113.{id}")), "099", name);
        admin.post("/v1/alerts", &alert("1", "db1.corp.example")).await.is(202);
        admin.post("/v1/alerts", &alert("2", "web1")).await.is(202);
        assert_eq!(victim.owed_one().await.target.value(), "203.0.113.1");
        assert_eq!(renamed.owed_one().await.target.value(), "203.0.113.2");
    }

    async fn a_stolen_enrolment_token_takes_no_living_agents_name(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let victim = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let token = admin.post("/v1/enrollment-tokens", &json!({"uses": 2})).await.is(201);
        let token = token["token"].as_str().unwrap();
        let stranger = crate::support::Client::anonymous(&app.base);
        let enrol = |name: &str| serde_json::to_value(enrollment(token, name, &new_key())).unwrap();
        stranger.post("/v1/agents/enroll", &enrol("web-01")).await.is_problem(409);
        stranger.post("/v1/agents/enroll", &enrol("../web-01")).await.is_problem(422);
        // Under names of its own it is another agent, and gets nothing of the victim's.
        stranger.post("/v1/agents/enroll", &enrol("thief-01")).await.is(201);
        stranger.post("/v1/agents/enroll", &enrol("thief-02")).await.is(201);
        stranger.post("/v1/agents/enroll", &enrol("thief-03")).await.is_problem(401);
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        assert_eq!(victim.owed_one().await.target.value(), "203.0.113.7");
    }
}

#[tokio::test]
async fn a_stolen_viewer_key_finds_no_secret() {
    let (app, admin) = TestApp::start().await;
    app.enrol(&admin, "web-01", &json!({})).await;
    let token = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201)["token"].as_str().unwrap().to_owned();
    let thief = app.client_with_role(&admin, "viewer").await;
    let signing = std::fs::read_to_string(app.data_dir().join("signing.key")).unwrap();
    // The secret may hold the character that stands before it.
    let secrets = [admin.key(), token.as_str(), signing.trim(), admin.key().splitn(3, '_').nth(2).unwrap()];
    let contract = riposte::api::contract();
    let paths = contract["paths"].as_object().unwrap().iter();
    let open =
        paths.filter(|(path, item)| item.get("get").is_some() && !path.contains('{') && !path.ends_with("stream"));
    for (path, _) in open {
        // As a list: the stream has no end.
        let list = if path == "/v1/events" { "/v1/events?follow=false&limit=500" } else { path.as_str() };
        let answer = thief.get(list).await;
        for secret in secrets {
            assert!(!answer.text.contains(secret), "{path} shows a secret");
        }
    }
    thief.get("/v1/api-keys").await.is_problem(403);
    thief.get("/v1/enrollment-tokens").await.is_problem(403);
}
