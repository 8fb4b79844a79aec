//! Commands of OpenC2 as recorded producers send them (otupy with an envelope, openc2 without), and what
//! each answer promises: 200 is in the ledger, 102 waits for people, 501 has done nothing.

use std::path::Path;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::processes::{self, Manager, tied};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

/// Posts a message; returns the answer of HTTP.
async fn post(client: &Client, path: &str, message: &Value) -> Answer {
    let request = client.request(reqwest::Method::POST, path);
    let request = request.header("content-type", "application/openc2+json;version=1.0").body(message.to_string());
    Answer::to(request).await
}

/// Posts a command alone; returns the response.
async fn ask(client: &Client, command: &Value) -> Value {
    let answer = post(client, "/openc2", command).await;
    assert_eq!(answer.header("content-type"), Some("application/openc2+json;version=1.0"), "{}", answer.text);
    answer.is(200)
}

/// Asks, and checks the status of the command.
async fn told(client: &Client, command: &Value, status: u16) -> Value {
    let response = ask(client, command).await;
    assert_eq!(response["status"], status, "{command}: {response}");
    response
}

fn deny(address: &str, args: &Value) -> Value {
    let target = if address.contains(':') { "ipv6_net" } else { "ipv4_net" };
    json!({"action": "deny", "target": {target: address}, "args": args, "actuator": {"slpf": {"hostname": "web-01"}}})
}

/// What an agent is owed: operation, action, target.
async fn owed(agent: &FakeAgent) -> Vec<(Op, String, String)> {
    let of = |command: &Command| (command.op, command.action.clone(), command.target.value().to_owned());
    agent.owed().await.iter().map(of).collect()
}

async fn key(admin: &Client, role: &str) -> (Client, String) {
    let made = admin.post("/v1/api-keys", &json!({"name": role, "role": role})).await.is(201);
    let key = made["key"].as_str().unwrap().to_owned();
    (admin.with_key(&key), key)
}

on_both_databases! {
    async fn recorded_producers_block_an_address_and_take_it_back(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        // As otupy 1.1.46 sends it.
        let request = json!({"action": "deny", "target": {"ipv4_net": "203.0.113.7/32"},
            "args": {"slpf": {"direction": "ingress"}, "response_requested": "complete", "duration": 600_000},
            "actuator": {"slpf": {"hostname": "web-01", "asset_id": "005"}}});
        let message = json!({"headers": {"request_id": "d1ac0489-ed51-4345-9175-f3078f30afe5", "created": 1_795_514_400_000_u64,
            "from": "producer.example.org", "to": ["riposte.example.org"]}, "body": {"openc2": {"request": request}}});
        let answer = post(&admin, "/.well-known/openc2", &message).await.is(200);
        let headers = &answer["headers"];
        assert_eq!((&headers["request_id"], &headers["to"]), (&message["headers"]["request_id"], &json!(["producer.example.org"])));
        let response = &answer["body"]["openc2"]["response"];
        assert_eq!(response["status"], 200, "{answer}");
        let number = response["results"]["slpf"]["rule_number"].as_i64().unwrap();
        let made = admin.list("/v1/responses").await.remove(0);
        assert_eq!((&made["action"], &made["target_value"], &made["arguments"]), (&json!("firewall-drop"), &json!("203.0.113.7"), &json!([])));
        assert_eq!((&made["until"], &made["agents"]), (&json!("2026-11-24T10:10:00.000Z"), &json!([agent.id])));
        assert!(response["status_text"].as_str().unwrap().contains(made["id"].as_str().unwrap()), "{response}");
        assert_eq!(owed(&agent).await, [(Op::Apply, "firewall-drop".to_owned(), "203.0.113.7".to_owned())]);
        agent.answer(Outcome::Succeeded, Some(true)).await;
        // The same request again changes nothing.
        let again = post(&admin, "/.well-known/openc2", &message).await.is(200);
        assert_eq!(again["body"]["openc2"]["response"]["results"]["slpf"]["rule_number"], number, "{again}");
        assert_eq!(admin.list("/v1/responses").await.len(), 1);
        // As openc2 1.0.5 writes it: without an envelope, and the number as a text.
        let delete = json!({"action": "delete", "target": {"slpf:rule_number": number.to_string()}, "actuator": {"slpf": {"asset_id": "005"}}});
        told(&admin, &delete, 200).await;
        assert_eq!(owed(&agent).await, [(Op::Revert, "firewall-drop".to_owned(), "203.0.113.7".to_owned())]);
        assert!(told(&admin, &delete, 200).await["status_text"].as_str().unwrap().contains("is over"));
        let flat = json!({"action": "deny", "target": {"ipv4_net": "203.0.113.8"}, "args": {"response_requested": "complete", "duration": 600_000},
            "actuator": {"slpf": {"hostname": "web-01"}}});
        let other = told(&admin, &flat, 200).await["results"]["slpf"]["rule_number"].as_i64().unwrap();
        assert!(other > number);
        let both = admin.list("/v1/responses").await.remove(0);
        assert_eq!(both["arguments"], json!(["output"]), "without a direction: both");
        // Ports cannot be told apart, so nothing is done.
        let connection = json!({"action": "deny", "target": {"ipv4_connection": {"protocol": "tcp", "dst_addr": "192.0.2.1", "dst_port": 22}},
            "args": {"drop_process": "none", "direction": "ingress"}, "actuator": {"slpf": {"asset_id": "005"}}});
        told(&admin, &connection, 501).await;
        let query = json!({"action": "query", "target": {"features": ["versions", "profiles", "pairs", "rate_limit"]}});
        let results = told(&admin, &query, 200).await["results"].clone();
        assert_eq!((&results["versions"], &results["profiles"]), (&json!(["1.0"]), &json!(["slpf"])));
        assert_eq!((&results["pairs"]["delete"], &results["rate_limit"]), (&json!(["slpf:rule_number"]), &json!(30_000)));
        assert_eq!(admin.list("/v1/responses").await.len(), 2);
    }

    async fn a_command_that_waits_for_people_is_answered_102_and_does_nothing(database: Database) {
        let (app, admin) = TestApp::start_with(database, |config| config.responses.max_agents_by_hand = 1).await;
        let agents = [app.enrol(&admin, "web-01", &json!({})).await, app.enrol(&admin, "web-02", &json!({})).await];
        // No actuator: every agent.
        let command = json!({"action": "deny", "target": {"ipv4_net": "203.0.113.0/24"}, "command_id": "c-1"});
        let response = told(&admin, &command, 102).await;
        let text = response["status_text"].as_str().unwrap();
        assert!(text.contains("awaiting_approval") && text.contains("second person"), "{text}");
        assert!(owed(&agents[0]).await.is_empty());
        told(&admin, &json!({"action": "cancel", "target": {"command": "c-1"}}), 403).await;
        let waiting = admin.list("/v1/responses?state=awaiting_approval").await.remove(0);
        for name in ["alice", "bob"] {
            let person = app.person(&admin, name, "analyst").await;
            let path = format!("/v1/responses/{}/approve", waiting["id"].as_str().unwrap());
            person.post(&path, &json!({"reason": "yes"})).await.is(200);
        }
        for agent in &agents {
            assert_eq!(owed(agent).await.len(), 1);
        }
        assert_eq!(told(&admin, &command, 200).await["results"], response["results"], "the same command, by now");
        // One agent of two: the response ends only as a whole.
        let allow = |actuator: Value| json!({"action": "allow", "target": {"ipv4_net": "203.0.113.0/24"}, "actuator": actuator});
        let told_of = told(&admin, &allow(json!({"slpf": {"hostname": "web-02"}})), 501).await;
        assert!(told_of["status_text"].as_str().unwrap().contains("other hosts"), "{told_of}");
        let lifted = told(&admin, &allow(json!({})), 200).await;
        assert_eq!(lifted["status_text"], "1 responses were lifted");
        assert_eq!(told(&admin, &allow(json!({})), 200).await["status_text"], "0 responses were lifted");
    }

    async fn contain_restore_and_cancel_end_what_they_name_and_nothing_else(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        let contain = |name: &str| json!({"action": "contain", "target": {"device": {"hostname": name}}});
        told(&admin, &contain("web-01"), 200).await;
        told(&admin, &contain("web-02"), 200).await;
        assert_eq!(owed(&agent).await, [(Op::Apply, "isolate-host".to_owned(), String::new())]);
        told(&admin, &json!({"action": "restore", "target": {"device": {"device_id": "005"}}}), 200).await;
        // What was sent is undone; what was not is not sent any more.
        assert_eq!(owed(&agent).await.last().unwrap().0, Op::Revert);
        assert_eq!(owed(&other).await, [(Op::Apply, "isolate-host".to_owned(), String::new())]);
        told(&admin, &contain("gone"), 404).await;
        // A policy's block, and one by another producer.
        admin.policy(&drop_policy("drop")).await;
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let (analyst, _) = key(&admin, "analyst").await;
        let mut command = deny("203.0.113.7", &json!({}));
        command["command_id"] = json!("mine");
        told(&analyst, &command, 200).await;
        let cancel = json!({"action": "cancel", "target": {"command": "mine"}});
        told(&admin, &cancel, 404).await;
        told(&analyst, &cancel, 200).await;
        let active = admin.list("/v1/responses?state=active").await;
        assert!(active.iter().any(|response| response["policy"] == "drop"), "the longest wins: {active:?}");
        command["target"] = json!({"ipv4_net": "203.0.113.9"});
        let reused = told(&analyst, &command, 400).await;
        assert!(reused["status_text"].as_str().unwrap().contains("/command_id"), "{reused}");
        // After the memory of ids the same one is a new command, and to cancel it ends that one.
        app.advance(25 * 3600);
        let again = app.in_time("the id is forgotten", || async {
            let response = ask(&analyst, &command).await;
            (response["status"] == 200).then_some(response)
        });
        let again = again.await;
        assert!(again["results"]["slpf"]["rule_number"].as_i64().is_some(), "{again}");
        told(&analyst, &cancel, 200).await;
        let active = admin.list("/v1/responses?state=active").await;
        assert!(active.iter().all(|response| response["target"]["value"] != "203.0.113.9"), "{active:?}");
        // Whatever blocks the address, such as the black hole of a route.
        let routed = json!({"action": "route-null", "target": {"kind": "ip", "value": "203.0.113.7"}, "on": "all", "reason": "t"});
        admin.post("/v1/responses", &routed).await.is(201);
        told(&analyst, &json!({"action": "allow", "target": {"ipv4_net": "203.0.113.7/32"}}), 200).await;
        let active = admin.list("/v1/responses?state=active").await;
        assert!(active.iter().all(|response| response["action"] == "isolate-host"), "{active:?}");
    }
}

#[tokio::test]
async fn a_command_is_answered_as_the_producer_asked() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let silent = post(&admin, "/openc2", &deny("203.0.113.1", &json!({"response_requested": "none"}))).await;
    assert_eq!((silent.status, silent.text.as_str()), (204, ""));
    told(&admin, &deny("203.0.113.2", &json!({"response_requested": "ack"})), 102).await;
    told(&admin, &deny("203.0.113.3", &json!({"response_requested": "status"})), 200).await;
    assert_eq!(owed(&agent).await.len(), 3);
    // Times: ten minutes that began a minute ago.
    let now = app.clock.now().as_millis();
    told(&admin, &deny("2001:db8::/64", &json!({"start_time": now - 60_000, "duration": 600_000})), 200).await;
    let made = admin.list("/v1/responses").await.remove(0);
    assert_eq!((&made["until"], &made["target_value"]), (&json!("2026-11-24T10:09:00.000Z"), &json!("2001:db8::/64")));
    told(&admin, &deny("203.0.113.4", &json!({"stop_time": now})), 400).await;
    told(&admin, &deny("203.0.113.4", &json!({"start_time": now + 60_000})), 501).await;
    admin.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.5", "reason": "ours"})).await.is(201);
    let refused = told(&admin, &deny("203.0.113.5", &json!({})), 400).await;
    assert!(refused["status_text"].as_str().unwrap().contains("protected"), "{refused}");
    let refused = told(&admin, &deny("not an address", &json!({})), 400).await;
    assert!(refused["status_text"].as_str().unwrap().contains("/target"), "{refused}");
    assert_eq!(admin.list("/v1/responses").await.len(), 4);
}

#[tokio::test]
async fn errors_are_responses_of_openc2_and_rights_are_those_of_riposte() {
    let (app, admin) = TestApp::start().await;
    app.enrol(&admin, "web-01", &json!({})).await;
    let command = deny("203.0.113.1", &json!({}));
    let (viewer, viewers_key) = key(&admin, "viewer").await;
    post(&viewer, "/openc2", &command).await.is_openc2_problem(403);
    told(&viewer, &json!({"action": "query", "target": {"features": []}}), 200).await;
    let anonymous = Client::anonymous(&app.base);
    assert_eq!(post(&anonymous, "/openc2", &command).await.is_openc2_problem(401)["status"], 401);
    let by_password = |password: &str| {
        let request = anonymous.request(reqwest::Method::POST, "/openc2").basic_auth("any name", Some(password));
        let query = json!({"action": "query", "target": {"features": ["versions"]}});
        Answer::to(request.header("content-type", "application/json").body(query.to_string()))
    };
    assert_eq!(by_password(&viewers_key).await.is(200)["results"]["versions"], json!(["1.0"]));
    by_password("correct horse battery").await.is_openc2_problem(401);
    let raw = async |kind: &str, body: &str| {
        let request = admin.request(reqwest::Method::POST, "/openc2").header("content-type", kind);
        Answer::to(request.body(body.to_owned())).await
    };
    let openc2 = "application/openc2+json;version=1.0";
    for (kind, body, status) in [
        (openc2, "{", 400),
        (openc2, "[]", 400),
        (openc2, "7", 400),
        ("text/plain", "{}", 415),
        (openc2, &"x".repeat(70_000), 413),
    ] {
        raw(kind, body).await.is_openc2_problem(status);
    }
    let answer = admin.get("/openc2").await;
    assert_eq!(answer.is_openc2_problem(405)["status"], 400);
    // An envelope gets its answer in one.
    let empty = post(&admin, "/openc2", &json!({"headers": {"request_id": "r-1"}, "body": {}})).await.is(200);
    let response = &empty["body"]["openc2"]["response"];
    assert_eq!((&empty["headers"]["request_id"], &response["status"]), (&json!("r-1"), &json!(400)), "{empty}");
    assert!(admin.list("/v1/responses").await.is_empty());
    // A scope hides agents here too.
    let scope = json!({"agents": {"labels": {"env": "dev"}}});
    let made = admin.post("/v1/api-keys", &json!({"name": "dev", "role": "analyst", "scope": scope})).await.is(201);
    let scoped = admin.with_key(made["key"].as_str().unwrap());
    told(&scoped, &command, 404).await;
}

#[tokio::test]
async fn the_commands_of_the_page_do_what_they_say() {
    let manager = Manager::start().await;
    let (api, agent) = (manager.api(), processes::FakeAgent::enroll(&manager, "web-01").await);
    let page = include_str!("../../docs/integrations/openc2.md");
    let blocks: Vec<(&str, &str)> =
        page.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect();
    let mut said = Vec::new();
    for (_, command) in blocks.iter().filter(|(kind, _)| *kind == "sh") {
        let mut shell = tied(Path::new("sh"));
        shell.args(["-c", &format!("set -eu\n{command}")]).env("riposte", manager.base()).env("key", &api.key);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        said.push(serde_json::from_slice::<Value>(&output.stdout).unwrap());
    }
    let shown: Vec<Value> = blocks
        .iter()
        .filter(|(kind, _)| *kind == "json")
        .map(|(_, text)| serde_json::from_str(text).unwrap())
        .collect();
    assert_eq!(said[0], shown[0]);
    assert_eq!(said[1]["body"]["openc2"]["response"]["status"], 200, "{said:?}");
    assert_eq!(said[2]["status"], 200, "{said:?}");
    let owed = agent.poll(json!({"cursor": 0, "max": 10, "wait_seconds": 0})).await;
    let ops: Vec<Op> = owed.iter().map(|command| command.op).collect();
    assert_eq!(ops, [Op::Apply, Op::Revert], "blocked, and taken back: {owed:?}");
    assert_eq!(api.get("/v1/responses").await["items"][0]["state"], "ended");
}
