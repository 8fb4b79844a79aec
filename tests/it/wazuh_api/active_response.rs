//! `PUT /wazuh/active-response`: what reaches an agent, and what is answered in Wazuh's words.

use std::time::Duration;

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use super::{block, fleet, logged_in, report, run, service};
use crate::support::app::PASSWORD;
use crate::support::{Client, Database, TestApp};

const ALL: &str = "AR command was sent to all agents";
const SOME: &str = "AR command was not sent to some agents";
const NONE: &str = "AR command was not sent to any agent";

fn no_agent(ids: &[&str]) -> Value {
    json!({"error": {"code": 1701, "message": "Agent does not exist",
        "remediation": "GET /wazuh/agents lists the agents: their id is the label wazuh_id"}, "id": ids})
}

/// A service key with a scope, logged in.
async fn scoped(app: &TestApp, admin: &Client, role: &str, scope: &Value) -> Client {
    let asked = json!({"name": "scoped", "role": role, "scope": scope});
    let made = admin.post("/v1/api-keys", &asked).await.is(201);
    logged_in(app, "shuffle", made["key"].as_str().unwrap()).await
}

on_both_databases! {
    async fn a_command_reaches_the_agent_with_its_deadline_and_is_undone(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, db, siem] = fleet(&app, &admin).await;
        let soar = service(&app, &admin, "analyst").await;
        let answer = run(&soar, "?agents_list=005", &block("firewall-drop600", "203.0.113.7")).await;
        assert_eq!(answer.is(200), report(&["005"], &json!([]), ALL, 0));
        let command = web.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!((command.action.as_str(), command.target.value()), ("firewall-drop", "203.0.113.7"));
        assert_eq!(command.until, Some(app.clock.now().plus(Duration::from_mins(10))));
        assert!(db.owed().await.is_empty() && siem.owed().await.is_empty());
        // What was made is a response like any other.
        let id = answer.header("riposte-response").unwrap().to_owned();
        let response = admin.get(&format!("/v1/responses/{id}")).await.is(200);
        assert_eq!((&response["state"], &response["outcome"]), (&json!("active"), &json!("in_force")), "{response}");
        assert!(response["note"].as_str().unwrap().contains("firewall-drop600"), "{response}");
        app.advance(600);
        let undone = app.in_time("the block is lifted", async || web.owed().await.pop()).await;
        assert_eq!(undone.op.as_str(), "revert");
    }

    async fn a_command_without_a_time_out_stays_until_it_is_lifted(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, ..] = fleet(&app, &admin).await;
        let soar = service(&app, &admin, "analyst").await;
        let zero = run(&soar, "?agents_list=005", &block("firewall-drop0", "203.0.113.7")).await;
        assert_eq!(zero.is(200), report(&["005"], &json!([]), ALL, 0));
        assert_eq!(web.answer(Outcome::Succeeded, Some(true)).await.until, None);
        // Here the caller could not have said for how long.
        let program = run(&soar, "?agents_list=005", &block("!firewall-drop", "203.0.113.8")).await;
        let id = program.header("riposte-response").unwrap();
        let said = format!("{ALL}: response {id} stays in force until it is lifted");
        assert_eq!(program.is(200), report(&["005"], &json!([]), &said, 0));
        assert_eq!(web.owed_one().await.until, None);
        // What leaves nothing to undo has no such remark.
        let restart = json!({"command": "!restart-wazuh"});
        assert_eq!(run(&soar, "?agents_list=005", &restart).await.is(200)["message"], ALL);
    }

    async fn without_a_list_all_agents_but_the_manager_are_meant_also_one_that_is_away(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, db, siem] = fleet(&app, &admin).await;
        app.enrol(&admin, "no-id", &json!({})).await;
        let soar = service(&app, &admin, "analyst").await;
        let answer = run(&soar, "", &block("firewall-drop600", "203.0.113.7")).await;
        assert_eq!(answer.is(200), report(&["005", "006"], &json!([]), ALL, 0));
        // Neither has ever been there: the commands wait for them.
        assert_eq!(web.owed().await.len() + db.owed().await.len(), 2);
        assert!(siem.owed().await.is_empty());
        // The manager is left out in silence, also by name.
        let answer = run(&soar, "?agents_list=000,005", &block("firewall-drop600", "203.0.113.8")).await;
        assert_eq!(answer.is(200), report(&["005"], &json!([]), ALL, 0));
        let answer = run(&soar, "?agents_list=000", &block("firewall-drop600", "203.0.113.8")).await;
        assert_eq!(answer.is(200), report(&[], &json!([]), NONE, 0));
        assert_eq!(answer.header("riposte-response"), None);
    }

    async fn unknown_revoked_and_unable_agents_are_failed_items_and_the_others_act(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, db, _] = fleet(&app, &admin).await;
        let soar = service(&app, &admin, "analyst").await;
        let both = run(&soar, "?agents_list=005,011,9", &block("firewall-drop600", "203.0.113.7")).await;
        assert_eq!(both.is(200), report(&["005"], &json!([no_agent(&["009", "011"])]), SOME, 2));
        web.owed_one().await;
        let none = run(&soar, "?agents_list=009", &block("firewall-drop600", "203.0.113.7")).await;
        assert_eq!(none.is(200), report(&[], &json!([no_agent(&["009"])]), NONE, 1));
        admin.delete(&format!("/v1/agents/{}", db.id), None).await.is(204);
        let revoked = run(&soar, "?agents_list=006", &block("firewall-drop600", "203.0.113.7")).await;
        assert_eq!(revoked.is(200), report(&[], &json!([no_agent(&["006"])]), NONE, 1));
        // Two Wazuh managers count from 001.
        for manager in ["siem-1", "siem-2"] {
            let labels = json!({"wazuh_id": "007", "wazuh_manager": manager});
            app.enrol(&admin, &format!("of-{manager}"), &labels).await;
        }
        let two = run(&soar, "?agents_list=007", &block("firewall-drop600", "203.0.113.7")).await.is(200);
        let item = &two["data"]["failed_items"][0];
        assert_eq!((&item["error"]["code"], &item["id"], &two["error"]), (&json!(1731), &json!(["007"]), &json!(1)), "{two}");
        let of_one = json!({"agents": {"labels": {"wazuh_manager": "siem-2"}}});
        let of_one = scoped(&app, &admin, "analyst", &of_one).await;
        let answer = run(&of_one, "?agents_list=007", &block("firewall-drop600", "203.0.113.7")).await;
        assert_eq!(answer.is(200), report(&["007"], &json!([]), ALL, 0));
        // An agent that says that it cannot, and one that is protected.
        let token = admin.post("/v1/enrollment-tokens", &json!({"labels": {"wazuh_id": "008"}})).await.is(201);
        let cannot = riposte_protocol::message::Capability {
            action: "firewall-drop".into(),
            available: false,
            reason: Some("no nft".into()),
        };
        let token = token["token"].as_str().unwrap();
        crate::support::FakeAgent::enrol(&app, token, "weak-01", vec![cannot]).await;
        let weak = run(&soar, "?agents_list=005,008", &block("firewall-drop600", "203.0.113.9")).await.is(200);
        let item = &weak["data"]["failed_items"][0];
        assert_eq!((&item["error"]["code"], &item["id"], &weak["error"]), (&json!(1750), &json!(["008"]), &json!(2)), "{weak}");
        assert!(item["error"]["message"].as_str().unwrap().contains("no nft"), "{weak}");
        let only = run(&soar, "?agents_list=008", &block("firewall-drop600", "203.0.113.9")).await.is(200);
        assert_eq!((&only["message"], &only["error"]), (&json!(NONE), &json!(1)), "{only}");
    }

    async fn what_needs_a_second_person_waits_and_the_answer_says_so(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let mut ids = Vec::new();
        for nth in 1..=11 {
            let id = format!("{nth:03}");
            app.enrol(&admin, &format!("web-{id}"), &json!({"wazuh_id": id})).await;
            ids.push(id);
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        app.session(&admin, "alice", "analyst").await;
        let bob = app.person(&admin, "bob", "analyst").await;
        let alice = logged_in(&app, "alice", PASSWORD).await;
        let answer = run(&alice, "", &block("firewall-drop600", "203.0.113.7")).await;
        let (id, said) = (answer.header("riposte-response").unwrap().to_owned(), answer.is(200));
        let message = said["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{ALL}: response {id} is awaiting_approval")), "{message}");
        assert_eq!(said, report(&ids, &json!([]), message, 0));
        assert_eq!(admin.list("/v1/commands").await.len(), 0);
        // The same person by the other door is not a second one.
        let approve = format!("/v1/responses/{id}/approve");
        alice.post(&approve, &json!({"reason": "sure"})).await.is_problem(409);
        bob.post(&approve, &json!({"reason": "right"})).await.is(200);
        assert_eq!(admin.list("/v1/commands").await.len(), 11);
    }

    async fn rights_scopes_and_limits_hold_as_for_every_response_by_hand(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, db, _] = fleet(&app, &admin).await;
        let viewer = service(&app, &admin, "viewer").await;
        let order = block("firewall-drop600", "203.0.113.7");
        assert_eq!(run(&viewer, "", &order).await.is_wazuh_problem(403)["error"], 4000);
        viewer.get("/wazuh/agents").await.is(200);
        let pipeline = service(&app, &admin, "ingest").await;
        assert_eq!(pipeline.get("/wazuh/agents").await.is_wazuh_problem(403)["error"], 4000);
        // A hidden agent is as one that is not there, also where no agent is named.
        let dev = scoped(&app, &admin, "analyst", &json!({"agents": {"labels": {"env": "dev"}}})).await;
        let answer = run(&dev, "?agents_list=005,006", &order).await;
        assert_eq!(answer.is(200), report(&["006"], &json!([no_agent(&["005"])]), SOME, 2));
        assert_eq!(run(&dev, "", &order).await.is(200), report(&["006"], &json!([]), ALL, 0));
        db.owed_one().await;
        let narrow = json!({"actions": ["log-only"], "responses_per_hour": 1});
        let narrow = scoped(&app, &admin, "analyst", &narrow).await;
        let problem = run(&narrow, "?agents_list=005", &order).await.is_wazuh_problem(403);
        assert!(problem["detail"].as_str().unwrap().contains("outside your scope"), "{problem}");
        let log = json!({"command": "log-only60"});
        run(&narrow, "?agents_list=005", &log).await.is(200);
        let full = run(&narrow, "?agents_list=005", &log).await;
        assert_eq!(full.is_wazuh_problem(429)["error"], 6001);
        assert!(full.header("retry-after").is_some());
        // Protected means protected, also here.
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.0/24", "reason": "the bank"})).await.is(201);
        let soar = service(&app, &admin, "admin").await;
        for address in ["203.0.113.9", "::ffff:203.0.113.9", "127.0.0.1"] {
            let problem = run(&soar, "?agents_list=005", &block("!firewall-drop", address)).await.is_wazuh_problem(400);
            assert_eq!(problem["error"], 1012, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains("/target"), "{problem}");
        }
        assert!(web.owed().await.iter().all(|command| command.action == "log-only"));
    }

    async fn targets_are_read_as_wazuhs_programs_read_them(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, ..] = fleet(&app, &admin).await;
        let script = json!({"name": "page-oncall", "summary": "Pages.", "executable": "page.sh", "style": "wazuh",
            "undoable": false, "target_kinds": ["none"], "parameters": {"type": "array", "items": {"type": "string"}}});
        admin.post("/v1/actions", &script).await.is(201);
        let soar = service(&app, &admin, "analyst").await;
        let windows = json!({"data": {"win": {"eventdata": {"ipAddress": "203.0.113.2"}}}});
        for (body, action, target) in [
            (json!({"command": "netsh60", "alert": windows}), "netsh", "203.0.113.2"),
            (json!({"command": "!firewall-drop.sh", "arguments": ["add", "-", "203.0.113.3"]}), "firewall-drop", "203.0.113.3"),
            (json!({"command": "disable-account60", "alert": {"data": {"dstuser": "mallory"}}}), "disable-account", "mallory"),
            (json!({"command": "!page.sh", "arguments": ["-", "now"]}), "page-oncall", ""),
        ] {
            run(&soar, "?agents_list=005", &body).await.is(200);
            let command = web.owed().await.pop().unwrap();
            assert_eq!((command.action.as_str(), command.target.value()), (action, target), "{body}");
            if action == "page-oncall" {
                assert_eq!(command.arguments, ["-", "now"], "a program of the site gets what was sent");
            }
        }
    }
}
