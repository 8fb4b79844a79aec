//! Custom actions: programs that people add, faults that are refused, and one-shot commands. On
//! both databases.

use riposte_protocol::command::ScriptStyle;
use riposte_protocol::message::Outcome;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

async fn with_scan(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let action = json!({"name": "scan", "summary": "Scans.", "executable": "scan.sh", "parameters":
        {"type": "array", "items": {"enum": ["-deep"]}}});
    admin.post("/v1/actions", &action).await.is(201);
    let mut policy = drop_policy("scan");
    policy["respond"] = json!({"action": "scan", "arguments": ["-deep"]});
    admin.policy(&policy).await;
    (app, admin, agent)
}

async fn post(admin: &Client, id: &str) -> Value {
    let answer = admin.post("/v1/alerts", &brute_force(id, "203.0.113.7")).await.is(202);
    find(admin, answer["responses"][0].as_str().unwrap()).await
}

async fn find(admin: &Client, id: &str) -> Value {
    admin.get(&format!("/v1/responses/{id}")).await.is(200)
}

on_both_databases! {
    async fn a_custom_action_reaches_the_agent_with_its_program_and_its_alert(database: Database) {
        let (_app, admin, agent) = with_scan(database).await;
        let response = post(&admin, "a").await;
        let sent = agent.owed().await;
        let script = sent[0].script.clone().unwrap();
        assert_eq!((script.executable.as_str(), script.style, script.undoable), ("scan.sh", ScriptStyle::Wazuh, false));
        assert_eq!(sent[0].alert.as_ref().unwrap()["data"]["srcip"], "203.0.113.7");
        assert_eq!((sent[0].arguments.as_slice(), sent[0].until), (["-deep".to_owned()].as_slice(), None));
        assert_eq!(response["state"], "active");
    }

    async fn field_07_a_process_is_killed_by_its_name_within_minutes_and_what_it_was_is_kept(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("kill");
        policy["respond"] = json!({"action": "kill-process"});
        let saved = admin.policy(&policy).await;
        assert_eq!(saved["warnings"][0]["pointer"], "/respond/arguments", "{saved}");
        let alert = |id: &str, audit: Value| {
            let mut alert = brute_force(id, "203.0.113.7");
            alert["data"] = json!({"audit": audit});
            alert
        };
        let alone = admin.post("/v1/alerts", &alert("a", json!({"pid": "4711"}))).await.is(202);
        let spared = find(&admin, alone["responses"][0].as_str().unwrap()).await;
        assert_eq!((&spared["state"], &spared["reason"]), (&json!("spared"), &json!("process_unnamed")), "{spared}");
        assert!(spared["detail"].as_str().unwrap().contains("write name=NAME or path=PATH"), "{spared}");

        let named = alert("b", json!({"pid": "4711", "exe": "/usr/bin/nc"}));
        let named = admin.post("/v1/alerts", &named).await.is(202);
        let command = agent.owed_one().await;
        assert_eq!(command.arguments, ["name=nc"]);
        assert_eq!(command.as_of, Some("2026-11-24T09:59:58.123Z".parse().unwrap()), "the alert's time");
        assert_eq!(command.exp - command.iat, 300);
        let evidence = json!({"kind": "process", "arguments": ["nc", "-l\\n"]});
        let mut result = agent.result(command.jti, Outcome::Succeeded, Some(true));
        result.evidence = Some(Box::new(evidence.clone()));
        agent.acknowledge(&[&command]).await;
        agent.report(vec![result]).await;
        let response = find(&admin, named["responses"][0].as_str().unwrap()).await;
        assert_eq!(response["results"][0]["evidence"], evidence, "{response}");

        let by_hand = json!({"action": "kill-process", "target": "4711", "agents": ["web-01"], "reason": "r"});
        let refused = admin.post("/v1/responses", &by_hand).await.is_problem(422);
        assert!(refused.to_string().contains("name=NAME or path=PATH"), "{refused}");
        let by_hand = json!({"action": "kill-process", "target": "4711", "agents": ["web-01"], "reason": "r",
            "arguments": ["path=/usr/bin/nc"]});
        admin.post("/v1/responses", &by_hand).await.is(201);
        let command = agent.owed_one().await;
        assert_eq!(command.as_of.map(Timestamp::as_secs), Some(command.iat), "the time of the order");
        let mut result = agent.result(command.jti, Outcome::Succeeded, Some(true));
        result.evidence = Some(Box::new(json!({"kind": "x".repeat(9000)})));
        agent.acknowledge(&[&command]).await;
        agent.report(vec![result]).await;
        let told = admin.get(&format!("/v1/commands/{}", command.jti)).await.is(200);
        assert!(told["result"]["evidence"]["left_out"].as_str().unwrap().contains("8192 is the most"), "{told}");
    }

    async fn promise_3_many_commands_with_large_alerts_arrive_message_by_message(database: Database) {
        let (_app, admin, agent) = with_scan(database).await;
        for n in 0..100 {
            let mut alert = brute_force(&n.to_string(), "203.0.113.7");
            alert["full_log"] = json!("x".repeat(20_000));
            admin.post("/v1/alerts", &alert).await.is(202);
        }
        let mut stream = agent.stream(0).await;
        let (mut numbers, mut messages) = (Vec::new(), 0);
        while numbers.len() < 100 {
            let commands = stream.commands(&agent).await;
            assert!(commands.iter().all(|command| command.alert.is_some()));
            numbers.extend(commands.into_iter().map(|command| command.seq));
            messages += 1;
        }
        assert_eq!(numbers, (1..=100).collect::<Vec<u64>>(), "each once, in order");
        assert!(messages > 2, "{messages}");
        drop(stream);
        let polled = agent.owed().await;
        assert!((20..100).contains(&polled.len()), "{}", polled.len());
        agent.acknowledge(&polled.iter().collect::<Vec<_>>()).await;
        assert_eq!(agent.owed().await[0].seq, polled.len() as u64 + 1, "the next poll goes on from there");
    }

    async fn promise_3_an_alert_too_large_for_an_agent_stays_behind_and_its_command_does_not(database: Database) {
        let (_app, admin, agent) = with_scan(database).await;
        for (n, size) in [190_000, 200_000, 900_000].into_iter().enumerate() {
            let mut alert = brute_force(&n.to_string(), "203.0.113.7");
            alert["full_log"] = json!("x".repeat(size));
            admin.post("/v1/alerts", &alert).await.is(202);
        }
        let with_alert: Vec<bool> = agent.owed().await.iter().map(|command| command.alert.is_some()).collect();
        assert_eq!(with_alert, [true, false, false]);
    }

    async fn a_one_shot_command_ends_its_response_and_runs_for_every_alert(database: Database) {
        let (_app, admin, agent) = with_scan(database).await;
        let (first, second) = (post(&admin, "a").await, post(&admin, "b").await);
        assert_eq!(admin.list("/v1/commands").await.len(), 2, "one for each alert, although the effect is the same");
        let owed = agent.owed().await;
        agent.acknowledge(&owed.iter().collect::<Vec<_>>()).await;
        let outcomes = [Outcome::Succeeded, Outcome::Failed];
        let results = owed.iter().zip(outcomes).map(|(command, outcome)| agent.result(command.jti, outcome, None));
        agent.report(results.collect()).await;
        for (response, reason, outcome) in [(first, "done", "lifted"), (second, "failed", "failed")] {
            let ended = find(&admin, response["id"].as_str().unwrap()).await;
            assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!(reason)), "{ended}");
            assert_eq!(ended["outcome"], outcome, "{ended}");
            let detail = if reason == "done" { "its commands are done" } else { "it was done on no agent: failed: the test says so" };
            assert_eq!(ended["detail"], detail);
        }
        assert_eq!(admin.list("/v1/commands").await.len(), 2, "nothing is undone");
        let effect = &admin.list("/v1/effects?desired=absent").await;
        assert!(effect.iter().all(|effect| effect["actual"] != "in_force"), "{effect:?}");
    }

    async fn a_lifted_one_shot_is_called_back_as_long_as_it_was_not_sent(database: Database) {
        let (_app, admin, agent) = with_scan(database).await;
        let response = post(&admin, "a").await;
        let path = format!("/v1/responses/{}/lift", response["id"].as_str().unwrap());
        admin.post(&path, &json!({"reason": "wrong"})).await.is(200);
        assert_eq!(admin.list("/v1/commands").await[0]["state"], "cancelled");
        assert!(agent.owed().await.is_empty());
        assert_eq!(find(&admin, response["id"].as_str().unwrap()).await["reason"], "lifted");
    }

    async fn promise_11_one_shots_of_a_revoked_agent_are_over(database: Database) {
        let (app, admin, agent) = with_scan(database).await;
        let mut waits = drop_policy("waits");
        waits["mode"] = json!("approve");
        waits["respond"] = json!({"action": "scan"});
        admin.policy(&waits).await;
        let answer = admin.post("/v1/alerts", &brute_force("a", "203.0.113.7")).await.is(202);
        let mut responses = Vec::new();
        for id in answer["responses"].as_array().unwrap() {
            responses.push(find(&admin, id.as_str().unwrap()).await);
        }
        responses.sort_by_key(|response| response["state"] == "awaiting_approval");
        let path = format!("/v1/agents/{}", agent.id);
        admin.delete(&path, None).await.is(204);
        let command = admin.list("/v1/commands").await.remove(0);
        assert_eq!((&command["state"], &command["detail"]), (&json!("cancelled"), &json!("the agent was revoked")));
        let history = admin.history("command", command["id"].as_str().unwrap()).await;
        assert!(history.iter().any(|(_, verb)| verb == "cancelled"), "{history:?}");
        let approver = app.person(&admin, "alice", "analyst").await;
        let path = format!("/v1/responses/{}/approve", responses[1]["id"].as_str().unwrap());
        approver.post(&path, &json!({"reason": "yes"})).await.is(200);
        for response in &responses {
            let ended = find(&admin, response["id"].as_str().unwrap()).await;
            assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("failed")), "{ended}");
            assert_eq!(ended["outcome"], "failed", "{ended}");
        }
        assert_eq!(admin.list("/v1/commands").await.len(), 1, "nothing is queued for a revoked agent");
    }

    async fn a_one_shot_that_is_not_fetched_expires_within_the_hour(database: Database) {
        let (app, admin, agent) = with_scan(database).await;
        let response = post(&admin, "a").await;
        app.advance(3601);
        app.in_time("it expires", || async {
            (admin.list("/v1/commands").await[0]["state"] == "expired").then_some(())
        })
        .await;
        assert!(agent.owed().await.is_empty());
        let ended = find(&admin, response["id"].as_str().unwrap()).await;
        assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("failed")));
    }

    async fn an_action_that_a_policy_uses_cannot_be_deleted_or_broken(database: Database) {
        let (_app, admin, _agent) = with_scan(database).await;
        let delete = admin.request(reqwest::Method::DELETE, "/v1/actions/scan").header("if-match", "\"1\"");
        Answer::to(delete).await.is_problem(409);
        let shown = admin.get("/v1/actions/scan").await;
        assert_eq!(shown.header("etag"), Some("\"1\""), "it is still there");
        let narrower = json!({"name": "scan", "executable": "scan.sh", "parameters": {"type": "array", "maxItems": 0}});
        admin.put("/v1/actions/scan", &narrower, Some("\"1\"")).await.is_problem(409);
        let other = json!({"name": "scan", "executable": "scan2.sh"});
        admin.put("/v1/actions/scan", &other, Some("\"7\"")).await.is_problem(412);
        assert_eq!(admin.put("/v1/actions/scan", &other, Some("\"1\"")).await.is(200)["version"], 2);
        let policy = json!({"name": "x", "match": [{"min_level": 3}], "respond": {"action": "scan", "for": "10m"}});
        let problem = admin.post("/v1/policies", &policy).await.is_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/respond/for");
        admin.post("/v1/actions", &json!({"name": "scan", "executable": "x"})).await.is_problem(409);
        admin.post("/v1/actions", &json!({"name": "firewall-drop", "executable": "x"})).await.is_problem(422);
        admin.get("/v1/actions/nothing").await.is_problem(404);
    }

    /// The ledger decides, because the cache may miss another manager's change.
    async fn actions_and_policies_never_contradict_each_other_in_the_ledger(database: Database) {
        const THEIRS: &str = "INSERT INTO policies (name, version, document, created_at, updated_at)
            SELECT 'theirs', 1, REPLACE(REPLACE(document, '\"scan\"', '\"look\"'), '\"-deep\"', ''), 0, 0 FROM policies";
        let (app, admin, _agent) = with_scan(database).await;
        admin.post("/v1/actions", &json!({"name": "look", "executable": "look.sh"})).await.is(201);
        // Another manager on the same ledger.
        assert_eq!(app.execute(THEIRS).await, 1);
        let problem = admin.delete("/v1/actions/look", Some("\"1\"")).await.is_problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("policy theirs"), "{problem}");
        assert_eq!(app.execute("DELETE FROM policies WHERE name = 'theirs'").await, 1);
        assert_eq!(app.execute("DELETE FROM actions WHERE name = 'look'").await, 1);
        let mut policy = drop_policy("mine");
        policy["respond"] = json!({"action": "look"});
        admin.post("/v1/policies", &policy).await.is_problem(409);
        let (_app, admin) = app.restart_with(&[]).await;
        assert_eq!(admin.list("/v1/policies").await.len(), 1);
    }

    /// Promise 11: an unreadable alert holds up no command of its agent.
    async fn promise_11_a_command_whose_alert_cannot_be_read_is_sent_without_it(database: Database) {
        let (app, admin, agent) = with_scan(database).await;
        post(&admin, "1").await;
        assert_eq!(app.execute("UPDATE alerts SET raw = SUBSTR(raw, 3)").await, 1);
        let command = agent.owed_one().await;
        assert_eq!((command.action.as_str(), command.alert.is_none()), ("scan", true));
    }

    /// Promise 3: a command that could not be signed holds no lease. It is sent as soon as it is signed.
    async fn promise_3_a_command_that_could_not_be_signed_is_not_under_way(database: Database) {
        let (app, admin, agent) = with_scan(database).await;
        post(&admin, "1").await;
        // A command by hand goes first.
        let by_hand =
            json!({"action": "firewall-drop", "target": "198.51.100.1", "agents": ["web-01"], "reason": "seen"});
        admin.post("/v1/responses", &by_hand).await.is(201);
        app.execute("ALTER TABLE alerts RENAME TO elsewhere").await;
        let mut stream = agent.stream(0).await;
        let first = stream.commands(&agent).await;
        assert_eq!(first.iter().map(|command| command.action.as_str()).collect::<Vec<_>>(), ["firewall-drop"]);
        app.execute("ALTER TABLE elsewhere RENAME TO alerts").await;
        // Less than a lease.
        let mut seconds = 0;
        let then = loop {
            tokio::select! {
                commands = stream.commands(&agent) => break commands,
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => app.advance(2),
            }
            seconds += 2;
            assert!(seconds < 20, "it counts as sent");
        };
        assert_eq!(then.iter().map(|command| command.action.as_str()).collect::<Vec<_>>(), ["scan"]);
        assert!(then[0].alert.is_some());
    }

    async fn arguments_an_action_does_not_take_are_refused_at_once(database: Database) {
        let (_app, admin, _agent) = with_scan(database).await;
        let by_hand = json!({"action": "scan", "agents": ["web-01"], "arguments": ["-shallow"], "reason": "look"});
        let problem = admin.post("/v1/responses", &by_hand).await.is_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/arguments/0");
        let lasting = json!({"action": "scan", "agents": ["web-01"], "for": "1h", "reason": "look"});
        let problem = admin.post("/v1/responses", &lasting).await.is_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/for");
        let mut policy = drop_policy("wrong");
        policy["respond"]["arguments"] = json!(["everything"]);
        let problem = admin.post("/v1/policies", &policy).await.is_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/respond/arguments/0");
    }

    async fn a_network_is_blocked_by_hand_or_by_a_policy_that_says_so_and_never_out_of_an_alert(database: Database) {
        let (_app, admin, agent) = with_scan(database).await;
        let block = |value: &str| json!({"action": "firewall-drop", "target": value, "agents": ["web-01"], "reason": "seen"});
        admin.post("/v1/responses", &block("198.51.100.0/24")).await.is(201);
        assert_eq!(agent.owed().await[0].target.value(), "198.51.100.0/24");
        for bad in ["198.51.100.7/24", "0.0.0.0/0", "10.0.0.0/8", "127.0.0.0/24"] {
            admin.post("/v1/responses", &block(bad)).await.is_problem(422);
        }
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "192.0.2.9", "reason": "ours"})).await.is(201);
        admin.post("/v1/responses", &block("192.0.2.0/24")).await.is_problem(422);
        let mut policy = drop_policy("wide");
        policy["match"] = json!([{"rule_ids": ["7"]}]);
        policy["respond"]["network"] = json!({"v4": 24, "v6": 64});
        admin.policy(&policy).await;
        let mut targets = Vec::new();
        for (n, source) in ["203.0.113.7", "2001:db8:1:2::3", "192.0.2.1", "203.0.113.0/24"].iter().enumerate() {
            let mut alert = brute_force(&n.to_string(), source);
            alert["rule"]["id"] = json!("7");
            let answer = admin.post("/v1/alerts", &alert).await.is(202);
            let response = find(&admin, answer["responses"][0].as_str().unwrap()).await;
            targets.push((response["state"].clone(), response["target_value"].clone(), response["reason"].clone()));
        }
        assert_eq!(targets[0], (json!("active"), json!("203.0.113.0/24"), json!(null)));
        assert_eq!(targets[1], (json!("active"), json!("2001:db8:1:2::/64"), json!(null)));
        assert_eq!((&targets[2].0, &targets[2].2), (&json!("spared"), &json!("protected")), "it holds a protected one");
        assert_eq!(targets[3].2, "target_invalid");
    }
}
