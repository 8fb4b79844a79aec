//! Secrets: written by the API, read by the agent that needs them, and shown nowhere else.

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, TestApp};

const VALUE: &str = "https://chat.example/hook-4711";

/// Everything that the API shows, as text.
async fn shown(client: &Client) -> String {
    let mut all = String::new();
    for list in ["secrets", "policies", "actions", "responses", "commands", "effects", "alerts", "audit"] {
        all.push_str(&client.get(&format!("/v1/{list}")).await.is(200).to_string());
    }
    all.push_str(&client.get("/v1/events?follow=false").await.is(200).to_string());
    for response in client.list("/v1/responses").await {
        let id = response["id"].as_str().unwrap();
        all.push_str(&client.get(&format!("/v1/responses/{id}")).await.is(200).to_string());
    }
    all
}

fn notifying(arguments: &Value) -> Value {
    let mut policy = drop_policy("notify");
    policy["respond"] = json!({"action": "notify", "arguments": arguments});
    policy
}

on_both_databases! {
    async fn a_secret_reaches_its_agent_and_is_shown_nowhere(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        for name in ["notify", "other"] {
            admin.post("/v1/actions", &json!({"name": name, "summary": "Tells.", "executable": "tell.sh"})).await.is(201);
        }
        // A policy cannot refer to what is not there.
        let missing = admin.post("/v1/policies", &notifying(&json!(["-v", "url=secret:chat"]))).await;
        missing.is_problem(422);
        assert_eq!(missing.points_at(), ["/respond/arguments/1"], "{}", missing.text);
        admin.put("/v1/secrets/chat", &json!({"value": VALUE, "actions": ["notify"]}), None).await.is(204);
        admin.policy(&notifying(&json!(["-v", "url=secret:chat"]))).await;
        // Nor give it to another action than those that may have it.
        let mut other = notifying(&json!(["secret:chat"]));
        other["respond"]["action"] = json!("other");
        assert_eq!(admin.post("/v1/policies", &other).await.points_at(), ["/respond/arguments/0"]);
        let by_hand = json!({"action": "other", "agents": ["web-01"], "arguments": ["secret:chat"], "reason": "x"});
        let analyst = app.client_with_role(&admin, "analyst").await;
        assert!(analyst.post("/v1/responses", &by_hand).await.points_at().contains(&"/arguments/0".to_owned()));

        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let command = agent.owed_one().await;
        assert_eq!(command.arguments, ["-v", &format!("url={VALUE}")]);
        // The agent's program prints it.
        agent.acknowledge(&[&command]).await;
        let mut result = agent.result(command.jti, Outcome::Succeeded, None);
        result.output = format!("POST {VALUE}: 200");
        result.message = format!("told {VALUE}");
        agent.report(vec![result]).await;
        let viewer = app.client_with_role(&admin, "viewer").await;
        for client in [&admin, &viewer] {
            let all = shown(client).await;
            assert!(!all.contains(VALUE), "{all}");
            assert!(all.contains("POST [secret:chat]: 200"), "{all}");
        }
        let listed = viewer.list("/v1/secrets").await;
        assert_eq!((&listed[0]["name"], &listed[0]["used_by"]), (&json!("chat"), &json!(["notify"])), "{listed:?}");

        // A new value is in force at once.
        admin.put("/v1/secrets/chat", &json!({"value": "the next one", "actions": ["notify"]}), None).await.is(204);
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        assert_eq!(agent.obey().await[0].arguments, ["-v", "url=the next one"]);
    }

    async fn a_secret_in_use_is_kept_and_a_command_without_it_is_not_sent(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.post("/v1/actions", &json!({"name": "notify", "summary": "Tells.", "executable": "tell.sh"})).await.is(201);
        admin.put("/v1/secrets/chat", &json!({"value": VALUE, "actions": ["notify"]}), None).await.is(204);
        admin.policy(&notifying(&json!(["secret:chat"]))).await;
        admin.delete("/v1/secrets/chat", None).await.is_problem(409);
        let made = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        admin.delete("/v1/policies/notify", Some("\"1\"")).await.is(204);
        admin.delete("/v1/secrets/chat", None).await.is(204);
        assert_eq!(agent.owed().await, []);
        let path = format!("/v1/responses/{}", made["responses"][0].as_str().unwrap());
        let response = app.in_time("the command ends with the reason", || async {
            let response = admin.get(&path).await.is(200);
            (response["commands"][0]["state"] != "queued").then_some(response)
        }).await;
        assert!(response["commands"][0]["detail"].as_str().unwrap().contains("no secret"), "{response}");
        // The ledger holds nothing that opens without the key of the data directory.
        admin.put("/v1/secrets/chat", &json!({"value": VALUE, "actions": ["notify"]}), None).await.is(204);
        app.execute("UPDATE secrets SET name = 'mail' WHERE name = 'chat'").await;
        admin.put("/v1/secrets/other", &json!({"value": VALUE, "actions": ["notify"]}), None).await.is(204);
        let moved = admin.post("/v1/policies", &notifying(&json!(["secret:mail"]))).await;
        assert_eq!(moved.points_at(), ["/respond/arguments/0"], "a sealed value opens under its own name only");
    }

    async fn the_address_of_a_hook_in_clear_is_shown_to_no_viewer(database: Database) {
        const HOOK: &str = "https://hooks.example/services/T0/B0/clear-4711";
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("slack");
        policy["respond"] = json!({"action": "wazuh-slack", "arguments": [HOOK]});
        let saved = admin.policy(&policy).await;
        assert!(saved["warnings"].to_string().contains("in clear: store it as a secret"), "{saved}");
        let made = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let by_hand = json!({"action": "wazuh-slack", "agents": ["web-01"], "arguments": [HOOK], "reason": "x"});
        let analyst = app.client_with_role(&admin, "analyst").await;
        let answer = analyst.post("/v1/responses", &by_hand).await;
        assert!(!answer.text.contains(HOOK), "{}", answer.text);
        // The agent gets it.
        let commands = agent.obey().await;
        assert!(!commands.is_empty() && commands.iter().all(|command| command.arguments == [HOOK]), "{commands:?}");
        let viewer = app.client_with_role(&admin, "viewer").await;
        let id = made["responses"][0].as_str().unwrap();
        for client in [&viewer, &analyst] {
            let mut all = shown(client).await;
            for path in ["/v1/policies/slack", "/v1/policies/slack/versions", "/v1/alerts/1/explain"] {
                all.push_str(&client.get(path).await.is(200).to_string());
            }
            all.push_str(&client.get(&format!("/v1/responses/{id}/outcome")).await.text);
            all.push_str(&client.get(&format!("/v1/responses/{id}/bundle")).await.text);
            for command in client.list("/v1/commands").await {
                all.push_str(&client.get(&format!("/v1/commands/{}", command["id"].as_str().unwrap())).await.text);
            }
            assert!(!all.contains("clear-4711"), "{all}");
            assert!(all.matches("[hidden]").count() > 5, "{all}");
        }
        let report = analyst.post("/v1/policies/backtest", &json!({"policy": policy})).await;
        assert!(!report.is(200).to_string().contains("clear-4711"), "{}", report.text);
        // Who writes policies reads what was written, and can send it back.
        let written = admin.get("/v1/policies/slack").await.is(200);
        assert_eq!(written["respond"]["arguments"], json!([HOOK]));
        let mut hidden = policy.clone();
        hidden["respond"]["arguments"] = json!(["[hidden]"]);
        assert_eq!(admin.put("/v1/policies/slack", &hidden, Some("\"1\"")).await.points_at(), ["/respond/arguments/0"]);
        // The upgrade lists it, until it is a secret.
        let examine = async || {
            let findings = riposte::store::doctor::examine(&app.db().await, app.clock.now()).await.unwrap();
            findings.into_iter().filter(|finding| finding.what.contains("in clear")).collect::<Vec<_>>()
        };
        let found = examine().await;
        assert!(found[0].examples[0].contains("the policy slack has the address of a webhook in clear"), "{found:?}");
        assert!(!format!("{found:?}").contains("clear-4711"));
        let secret = json!({"value": "https://hooks.example/services/new-4712", "actions": ["wazuh-slack"]});
        admin.put("/v1/secrets/hook", &secret, None).await.is(204);
        policy["respond"]["arguments"] = json!(["secret:hook"]);
        let saved = admin.put("/v1/policies/slack", &policy, Some("\"1\"")).await.is(200);
        assert_eq!(saved["warnings"], json!([]));
        assert!(examine().await.is_empty());
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        assert_eq!(agent.obey().await[0].arguments, ["https://hooks.example/services/new-4712"]);
    }

    async fn who_may_set_secrets_and_what_is_refused(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let set = json!({"value": VALUE, "actions": ["firewall-drop"]});
        for role in ["viewer", "analyst"] {
            let client = app.client_with_role(&admin, role).await;
            client.put("/v1/secrets/chat", &set, None).await.is_problem(403);
            client.delete("/v1/secrets/chat", None).await.is_problem(403);
        }
        for (path, body, pointer) in [
            ("/v1/secrets/Chat", set.clone(), ""),
            ("/v1/secrets/chat", json!({"value": "", "actions": ["firewall-drop"]}), "/value"),
            ("/v1/secrets/chat", json!({"value": "x", "actions": []}), "/actions"),
            ("/v1/secrets/chat", json!({"value": "x", "actions": ["firewall-dorp"]}), "/actions/0"),
        ] {
            let answer = admin.put(path, &body, None).await;
            answer.is_problem(422);
            assert_eq!(answer.points_at(), [pointer], "{}", answer.text);
        }
        admin.delete("/v1/secrets/absent", None).await.is_problem(404);
    }
}
