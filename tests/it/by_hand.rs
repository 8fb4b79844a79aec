//! Guardrails of responses by hand: the second person, break-glass, and the count of what is lifted.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, TestApp};

async fn fleet(app: &TestApp, admin: &Client, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|nth| format!("web-{nth:02}")).collect();
    for name in &names {
        app.enrol(admin, name, &json!({"role": "web"})).await;
    }
    names
}

async fn order(client: &Client, action: &str, target: Value, agents: &[String], more: Value) -> Answer {
    let mut order = json!({"action": action, "target": target, "agents": agents, "reason": "seen at night"});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/v1/responses", &order).await
}

on_both_databases! {
    async fn more_agents_than_one_person_may_act_on_wait_for_a_second_person(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let names = fleet(&app, &admin, 11).await;
        let alice = app.session(&admin, "alice", "analyst").await;
        let (key, bob) = (alice.personal_key("k", "analyst").await, app.person(&admin, "bob", "analyst").await);
        let block = async |client: &Client, target: &str, agents: &[String]| {
            order(client, "firewall-drop", json!(target), agents, json!({"for": "24h"})).await.is(201)
        };
        assert_eq!(block(&alice, "203.0.113.1", &names[..10]).await["state"], "active");
        let waits = block(&alice, "203.0.113.2", &names).await;
        assert_eq!((&waits["state"], &waits["quorum"]), (&json!("awaiting_approval"), &json!(1)), "{waits}");
        assert!(waits["detail"].as_str().unwrap().contains("second person"), "{waits}");
        assert_eq!(waits["commands"], json!([]));
        // The person by another way is not a second one.
        let approve = format!("/v1/responses/{}/approve", waits["id"].as_str().unwrap());
        for own in [&alice, &key] {
            own.post(&approve, &json!({"reason": "sure"})).await.is_problem(409);
        }
        let acts = bob.post(&approve, &json!({"reason": "right"})).await.is(200);
        assert_eq!((&acts["state"], acts["commands"].as_array().unwrap().len()), (&json!("active"), 11), "{acts}");
        // A program is no person: two of them must agree.
        let program = app.client_with_role(&admin, "analyst").await;
        let asked = block(&program, "203.0.113.3", &names).await;
        assert_eq!(asked["quorum"], 2);
        let approve = format!("/v1/responses/{}/approve", asked["id"].as_str().unwrap());
        assert_eq!(alice.post(&approve, &json!({"reason": "right"})).await.is(200)["state"], "awaiting_approval");
        assert_eq!(bob.post(&approve, &json!({"reason": "right"})).await.is(200)["state"], "active");
        // Without an answer it lapses.
        let silent = block(&alice, "203.0.113.4", &names).await["id"].as_str().unwrap().to_owned();
        app.advance(3601);
        app.in_time("the response lapses", || async {
            (admin.get(&format!("/v1/responses/{silent}")).await.is(200)["state"] == "lapsed").then_some(())
        })
        .await;
    }

    async fn risky_actions_on_more_than_one_host_wait_for_a_second_person(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let names = fleet(&app, &admin, 2).await;
        let alice = app.person(&admin, "alice", "analyst").await;
        let cases = [
            ("disable-account", json!("mallory"), json!({})),
            ("isolate-host", Value::Null, json!({"for": "1h"})),
            ("kill-process", json!("4711"), json!({"arguments": ["name=miner"]})),
        ];
        for (action, target, more) in cases {
            for (agents, state) in [(&names[..1], "active"), (&names[..], "awaiting_approval")] {
                let mut asked = json!({"action": action, "agents": agents, "reason": "seen"});
                asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                if !target.is_null() {
                    asked["target"] = target.clone();
                }
                let made = alice.post("/v1/responses", &asked).await.is(201);
                assert_eq!(made["state"], state, "{action} on {}: {made}", agents.len());
            }
        }
    }

    async fn break_glass_acts_at_once_and_is_in_the_audit_log(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let names = fleet(&app, &admin, 11).await;
        let alice = app.person(&admin, "alice", "analyst").await;
        let forced = order(&alice, "firewall-drop", json!("203.0.113.1"), &names, json!({"break_glass": true})).await.is(201);
        assert_eq!((&forced["state"], &forced["break_glass"]), (&json!("active"), &json!("user:alice")), "{forced}");
        let id = forced["id"].as_str().unwrap();
        let history = admin.history("response", id).await;
        assert!(history.contains(&("user:alice".into(), "break_glass".into())), "{history:?}");
        admin.metrics_show("riposte_break_glass_total 1", true).await;
        // What needs no second person is no break-glass.
        let plain = order(&alice, "firewall-drop", json!("203.0.113.2"), &names[..1], json!({"break_glass": true})).await;
        assert_eq!(plain.is(201).get("break_glass"), None);
        // A reason is needed, as for every response.
        let silent = json!({"action": "firewall-drop", "target": "203.0.113.3", "agents": names, "break_glass": true, "reason": " "});
        assert_eq!(alice.post("/v1/responses", &silent).await.points_at(), ["/reason"]);
        // A program cannot stand in for a person; the admin key can, where there is no person yet.
        let program = app.client_with_role(&admin, "engineer").await;
        order(&program, "firewall-drop", json!("203.0.113.3"), &names, json!({"break_glass": true})).await.is_problem(403);
        order(&admin, "firewall-drop", json!("203.0.113.3"), &names, json!({"break_glass": true})).await.is(201);
        // Neither can a person without the right to approve.
        admin.patch("/v1/users/alice", &json!({"scope": {"rights": ["read", "respond"]}}), "\"1\"").await.is(200);
        order(&alice, "firewall-drop", json!("203.0.113.4"), &names, json!({"break_glass": true})).await.is_problem(403);
    }

    async fn the_only_person_is_warned_and_can_break_the_glass_of_the_own_policy(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let alice = app.person(&admin, "alice", "engineer").await;
        let mut asks = drop_policy("asks");
        asks["mode"] = json!("approve");
        asks["approval"] = json!({"quorum": 2, "within": "1h"});
        let saved = alice.post("/v1/policies", &asks).await.is(201);
        let warned = |saved: &Value| {
            let warnings = saved["warnings"].as_array().unwrap().iter();
            warnings.filter(|warning| warning["pointer"] == "/approval").map(|warning| warning["detail"].clone()).collect::<Vec<_>>()
        };
        assert!(warned(&saved)[0].as_str().unwrap().contains("break-glass"), "{saved}");
        let response = admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202);
        let path = format!("/v1/responses/{}/approve", response["responses"][0].as_str().unwrap());
        alice.post(&path, &json!({"reason": "right"})).await.is_problem(409);
        let acts = alice.post(&path, &json!({"reason": "alone at night", "break_glass": true})).await.is(200);
        assert_eq!((&acts["state"], &acts["break_glass"]), (&json!("active"), &json!("user:alice")), "{acts}");
        for name in ["bob", "carol"] {
            app.person(&admin, name, "analyst").await;
        }
        assert_eq!(warned(&alice.get("/v1/policies/asks").await.is(200)), Vec::<Value>::new());
    }

    async fn lifting_everything_needs_the_number_that_it_lifts(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let names = fleet(&app, &admin, 1).await;
        for target in ["203.0.113.1", "203.0.113.2"] {
            order(&admin, "firewall-drop", json!(target), &names, json!({})).await.is(201);
        }
        let lift = async |more: Value| {
            let mut asked = json!({"everything": true, "reason": "over"});
            asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            admin.post("/v1/responses/lift", &asked).await
        };
        let missing = lift(json!({})).await;
        assert!(missing.is_problem(409).to_string().contains("send count 2"), "{}", missing.text);
        lift(json!({"count": 1})).await.is_problem(409);
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 2, "nothing was lifted");
        assert_eq!(lift(json!({"dry_run": true})).await.is(200)["count"], 2);
        assert_eq!(lift(json!({"count": 2})).await.is(200)["count"], 2);
        // A count guards every filter.
        admin.post("/v1/responses/lift", &json!({"target": "203.0.113.1", "count": 1, "reason": "x"})).await.is_problem(409);
    }

    async fn a_lift_by_target_and_kind_leaves_another_kind_of_the_same_name(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let names = fleet(&app, &admin, 1).await;
        order(&admin, "log-only", json!({"kind": "user", "value": "alice"}), &names, json!({})).await.is(201);
        let lift = async |kind: &str| {
            admin.post("/v1/responses/lift", &json!({"target": "alice", "target_kind": kind, "reason": "over"})).await
        };
        assert_eq!(lift("file").await.is(200)["count"], 0);
        assert_eq!(lift("person").await.points_at(), ["/target_kind"]);
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 1);
        assert_eq!(lift("user").await.is(200)["count"], 1);
    }

    async fn agents_can_be_named_by_a_selector_and_a_dry_run_changes_nothing(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        fleet(&app, &admin, 2).await;
        app.enrol(&admin, "db-01", &json!({"role": "db"})).await;
        let asked = |on: Value| json!({"action": "firewall-drop", "target": "203.0.113.1", "on": on, "reason": "x", "dry_run": true});
        let names = async |on: Value| {
            let preview = admin.post("/v1/responses", &asked(on)).await.is(200);
            assert_eq!(preview["state"], "active", "{preview}");
            let agents = preview["agents"].as_array().unwrap().iter();
            agents.map(|agent| agent["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(json!({"labels": {"role": ["web", "mail"]}})).await, ["web-00", "web-01"]);
        assert_eq!(names(json!({"not": {"labels": {"role": "web"}}})).await, ["db-01"]);
        assert_eq!(names(json!({"agents": ["db-01"]})).await, ["db-01"]);
        assert_eq!(names(json!("all")).await.len(), 3);
        for (on, pointer) in [
            (json!("origin"), "/on"),
            (json!({"label": {"role": "web"}}), "/on/label"),
            (json!({"agents": ["absent-01"]}), "/on/agents/0"),
        ] {
            let answer = admin.post("/v1/responses", &asked(on.clone())).await;
            assert!(answer.points_at().contains(&pointer.to_owned()), "{on}: {}", answer.text);
        }
        admin.post("/v1/responses", &asked(json!({"labels": {"role": "mail"}}))).await.is_problem(409);
        assert_eq!(admin.list("/v1/responses").await, Vec::<Value>::new());
        let made = admin.post("/v1/responses", &json!({"action": "firewall-drop", "target": "203.0.113.1", "reason": "x",
            "on": {"labels": {"role": "web"}}})).await.is(201);
        assert_eq!(made["agents"].as_array().unwrap().len(), 2);
    }
}
