//! People who have an account and use it against Riposte: an engineer who writes hostile policies and
//! actions, a caller with a scope who looks beyond it, a viewer who fills the memory.

use serde_json::{Value, json};

use crate::processes::Manager;
use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::{Client, Database, TestApp};

/// A service key with a scope.
async fn scoped(admin: &Client, role: &str, scope: &Value) -> Client {
    let asked = json!({"name": "scoped", "role": role, "scope": scope});
    admin.with_key(admin.post("/v1/api-keys", &asked).await.is(201)["key"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_of_any_depth_does_not_end_the_manager() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    for (n, when) in [
        format!("{}true{}", "(".repeat(1000), ")".repeat(1000)),
        "[".repeat(2000),
        format!("1{} > 1", "+1".repeat(1000)),
        format!("{}1{} == 1", "size(".repeat(300), ")".repeat(300)),
        format!("data{} == 1", "[1]".repeat(600)),
    ]
    .into_iter()
    .enumerate()
    {
        let policy = json!({"name": format!("deep-{n}"), "match": [{"when": when}],
            "respond": {"action": "log-only", "for": "1h"}});
        let answer = api.request(reqwest::Method::POST, "/v1/policies").json(&policy).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{when}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["errors"][0]["pointer"], "/match/0/when", "{problem}");
    }
    assert!(manager.child.try_wait().unwrap().is_none(), "it runs");
}

on_both_databases! {
    async fn a_schema_of_arguments_that_would_take_years_to_check_is_refused(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let mut schema = json!({"$ref": "#/$defs/0", "$defs": {"40": {"type": "array"}}});
        for n in 0..40 {
            let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
            schema["$defs"][n.to_string()] = json!({"allOf": [next, next]});
        }
        for parameters in [schema, json!({"$ref": "#"}), json!({"$ref": "http://127.0.0.1:9/schema"})] {
            let action = json!({"name": "slow", "summary": "x", "executable": "x.sh", "parameters": parameters});
            assert_eq!(admin.post("/v1/actions", &action).await.points_at()[0], "/parameters");
        }
    }

    async fn an_engineer_gives_no_secret_to_another_program(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let engineer = app.client_with_role(&admin, "engineer").await;
        let action = |name: &str, executable: &str| json!({"name": name, "summary": "Tells.", "executable": executable});
        engineer.post("/v1/actions", &action("notify", "tell.sh")).await.is(201);
        admin.put("/v1/secrets/chat", &json!({"value": "https://chat/hook", "actions": ["notify"]}), None).await.is(204);
        let etag = |answer: &crate::support::Answer| answer.header("etag").unwrap().to_owned();
        let read = admin.get("/v1/actions/notify").await;
        let version = etag(&read);
        let other = action("notify", "print-arguments.sh");
        let refused = engineer.put("/v1/actions/notify", &other, Some(&version)).await.is_problem(403);
        assert!(refused["detail"].as_str().unwrap().contains("\"chat\""), "{refused}");
        // Nor by deleting it and making it anew, or by an import.
        engineer.delete("/v1/actions/notify", Some(&version)).await.is(204);
        engineer.post("/v1/actions", &other).await.is_problem(403);
        let import = "<ossec_config><command><name>notify</name><executable>print-arguments.sh</executable></command>\
            <active-response><command>notify</command><location>local</location><level>12</level></active-response>\
            </ossec_config>";
        let import = engineer.request(reqwest::Method::POST, "/v1/policies/import").body(import);
        let import = crate::support::Answer::to(import.header("content-type", "application/xml")).await;
        assert!(import.is_problem(403)["detail"].as_str().unwrap().contains("\"chat\""), "{}", import.text);
        admin.post("/v1/actions", &other).await.is(201);
        // What does not change the program is the engineer's work as before.
        let version = etag(&admin.get("/v1/actions/notify").await);
        let mut described = other.clone();
        described["summary"] = json!("Tells the team.");
        engineer.put("/v1/actions/notify", &described, Some(&version)).await.is(200);
        engineer.post("/v1/actions", &action("another", "print-arguments.sh")).await.is(201);
    }

    async fn a_page_and_its_cursor_tell_of_no_hidden_row(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-dev", &json!({"env": "dev", "wazuh_id": "005"})).await;
        let hidden = app.enrol(&admin, "db-prod", &json!({"env": "prod", "wazuh_id": "006"})).await;
        admin.policy(&drop_policy("drop")).await;
        let dev = scoped(&admin, "analyst", &json!({"agents": {"labels": {"env": "dev"}}})).await;
        let alert = async |n: u32, agent: (&str, &str)| {
            let alert = from_agent(brute_force(&n.to_string(), &format!("203.0.113.{n}")), agent.0, agent.1);
            admin.post("/v1/alerts", &alert).await.is(202);
        };
        // One that is visible between hidden ones, oldest and newest.
        for n in 1..=3 {
            alert(n, ("006", "db-prod")).await;
        }
        alert(4, ("005", "web-dev")).await;
        for n in 5..=7 {
            alert(n, ("006", "db-prod")).await;
        }
        for list in ["responses", "commands", "effects", "alerts", "agents"] {
            let page = dev.get(&format!("/v1/{list}?limit=1")).await;
            assert_eq!((page.header("link"), &page.is(200)["next_cursor"]), (None, &json!(null)), "{list}");
            assert_eq!(page.is(200)["items"].as_array().unwrap().len(), 1, "{list}");
        }
        for list in ["commands?agent_id=", "effects?agent_id="] {
            let page = dev.get(&format!("/v1/{list}{}&limit=1", hidden.id)).await.is(200);
            assert_eq!(page, json!({"items": [], "next_cursor": null}), "{list}");
        }
        // The audit log is longer; every page is full, and every cursor is of an entry that was shown.
        let (mut path, mut seen) = ("/v1/audit?limit=1".to_owned(), 0);
        loop {
            let page = dev.get(&path).await.is(200);
            let items = page["items"].as_array().unwrap();
            assert_eq!(items.len(), 1, "{page}");
            seen += 1;
            let Some(next) = page["next_cursor"].as_str() else { break };
            assert_eq!(next, items[0]["seq"].to_string());
            path = format!("/v1/audit?limit=1&cursor={next}");
        }
        assert_eq!(seen, dev.list("/v1/audit").await.len());
    }

    async fn a_person_has_a_bounded_number_of_keys(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let viewer = app.session(&admin, "vic", "viewer").await;
        let asked = |n: u32| json!({"name": format!("key-{n}"), "kind": "personal", "role": "viewer"});
        let first = viewer.post("/v1/api-keys", &asked(0)).await.is(201);
        for n in 1..100 {
            viewer.post("/v1/api-keys", &asked(n)).await.is(201);
        }
        let refused = viewer.post("/v1/api-keys", &asked(100)).await.is_problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("revoke some"), "{refused}");
        viewer.delete(&format!("/v1/api-keys/{}", first["id"].as_str().unwrap()), None).await.is(204);
        viewer.post("/v1/api-keys", &asked(101)).await.is(201);
        // Another person is not concerned.
        let other = app.session(&admin, "walt", "viewer").await;
        other.post("/v1/api-keys", &asked(0)).await.is(201);
    }

    async fn one_persons_approvals_at_the_same_instant_count_once(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("waits");
        (policy["mode"], policy["approval"]) = (json!("approve"), json!({"quorum": 2, "within": "1h"}));
        admin.policy(&policy).await;
        let intake = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let path = format!("/v1/responses/{}/approve", intake["responses"][0].as_str().unwrap());
        let (alice, bob) = (app.session(&admin, "alice", "analyst").await, app.session(&admin, "bob", "analyst").await);
        let key = alice.personal_key("mine", "analyst").await;
        let at_once = async |clients: &[&Client]| {
            let mut calls = tokio::task::JoinSet::new();
            for client in clients.iter().cycle().take(12) {
                let (client, path) = ((*client).clone(), path.clone());
                calls.spawn(async move { client.post(&path, &json!({"reason": "seen"})).await.status });
            }
            let mut answers = calls.join_all().await;
            answers.sort_unstable();
            answers
        };
        let once: Vec<u16> = [vec![200], vec![409; 11]].concat();
        assert_eq!(at_once(&[&alice, &key]).await, once);
        assert!(agent.owed().await.is_empty(), "one person is no quorum");
        assert_eq!(at_once(&[&bob]).await, once);
        assert_eq!(agent.owed().await.len(), 1);
    }
}
