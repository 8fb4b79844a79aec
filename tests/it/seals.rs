//! Rows that grant power are the manager's own: what another program inserts, changes, removes or puts back
//! in the database is not used, is named, and is in the audit log.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::app::{PASSWORD, execute_all};
use crate::support::{Answer, Client, Database, TestApp, eventually};

/// A manager with an agent and a policy that drops.
async fn one_agent(database: Database) -> (TestApp, Client, crate::support::FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    // The clock leaps: no block ends meanwhile.
    let mut policy = drop_policy("drop");
    policy["respond"]["for"] = json!("7d");
    admin.policy(&policy).await;
    (app, admin, agent)
}

/// The details of the audit entries about rows that another program changed.
async fn breaches(client: &Client) -> Vec<String> {
    let entries = client.list("/v1/audit?noun=ledger").await.into_iter();
    entries
        .filter(|entry| entry["verb"] == "breached")
        .map(|entry| entry["detail"].as_str().unwrap().to_owned())
        .collect()
}

/// As [`eventually`], with a clock on which the manager reads everything again within a second.
async fn soon<T>(app: &TestApp, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    eventually(what, || {
        app.advance(5);
        look()
    })
    .await
}

/// Waits until the manager has read everything again.
async fn noticed(app: &TestApp, client: &Client, what: &str) {
    soon(app, what, async || breaches(client).await.iter().any(|detail| detail.contains(what)).then_some(())).await;
}

async fn post(client: &Client, id: &str, address: &str) -> Value {
    client.post("/v1/alerts", &brute_force(id, address)).await.is(202)
}

/// What a person is asked to approve.
async fn waiting(client: &Client, quorum: u32) -> String {
    let mut policy = drop_policy("asks");
    policy["mode"] = json!("approve");
    policy["approval"] = json!({"quorum": quorum, "within": "1h"});
    client.policy(&policy).await;
    post(client, "1", "203.0.113.1").await["responses"][0].as_str().unwrap().to_owned()
}

async fn approve(client: &Client, response: &str) -> Answer {
    client.post(&format!("/v1/responses/{response}/approve"), &json!({"reason": "right"})).await
}

on_both_databases! {
    async fn a_key_that_was_given_another_role_in_the_database_is_refused(database: Database) {
        let (app, admin, _agent) = one_agent(database).await;
        let viewer = app.client_with_role(&admin, "viewer").await;
        viewer.get("/v1/policies").await.is(200);
        assert_eq!(app.execute("UPDATE api_keys SET role = 'admin' WHERE role = 'viewer'").await, 1);
        noticed(&app, &admin, "was inserted or changed by another program").await;
        viewer.get("/v1/policies").await.is_problem(401);
        viewer.post("/v1/api-keys", &json!({"name": "k", "role": "admin"})).await.is_problem(401);
        // Not faster: the deadlines of the stages would be missed.
        app.in_time("it warns", || async {
            let ready = admin.get("/readyz?verbose").await;
            (ready.status == 200 && ready.text.contains("api_keys")).then_some(())
        })
        .await;
        admin.metrics_show("riposte_seal_breaches 1", true).await;
        // It is recorded once, and other keys work.
        app.advance(61);
        app.advance(61);
        assert_eq!(breaches(&admin).await.len(), 1);
        // What was is right again.
        app.execute("UPDATE api_keys SET role = 'viewer' WHERE seal IS NOT NULL AND name = 'viewer'").await;
        soon(&app, "the key is back", async || (viewer.get("/v1/policies").await.status == 200).then_some(())).await;
    }

    async fn a_key_that_was_inserted_in_the_database_is_refused(database: Database) {
        let (app, admin, _agent) = one_agent(database).await;
        let viewer = app.client_with_role(&admin, "viewer").await;
        // The secret of the viewer's key under another id, with its seal.
        let forged = "INSERT INTO api_keys (id, name, hash, role, created_at, created_by, seal)
            SELECT '0123456789abcdef', 'forged', hash, 'admin', created_at, created_by, seal FROM api_keys WHERE role = 'viewer'";
        assert_eq!(app.execute(forged).await, 1);
        noticed(&app, &admin, "api_keys 0123456789abcdef was inserted").await;
        let secret = viewer.key().rsplit('_').next().unwrap().to_owned();
        let stolen = viewer.with_key(&format!("rip_0123456789abcdef_{secret}"));
        stolen.get("/v1/policies").await.is_problem(401);
        viewer.get("/v1/policies").await.is(200);
        // An inserted row hides no other: nothing is missing, so nothing is held back.
        assert_eq!(breaches(&admin).await.len(), 1);
    }

    async fn a_person_whose_row_was_changed_does_not_come_in(database: Database) {
        let (app, admin, _agent) = one_agent(database).await;
        let bob = app.person(&admin, "bob", "admin").await;
        let alice = app.person(&admin, "alice", "viewer").await;
        alice.get("/v1/policies").await.is(200);
        for (change, undo) in [
            ("UPDATE users SET role = 'admin' WHERE name = 'alice'", "UPDATE users SET role = 'viewer' WHERE name = 'alice'"),
            (
                "UPDATE users SET must_change_password = TRUE WHERE name = 'alice'",
                "UPDATE users SET must_change_password = FALSE WHERE name = 'alice'",
            ),
            ("UPDATE users SET scope = '{}' WHERE name = 'alice'", "UPDATE users SET scope = NULL WHERE name = 'alice'"),
        ] {
            assert_eq!(app.execute(change).await, 1);
            soon(&app, change, async || (alice.get("/v1/policies").await.status == 401).then_some(())).await;
            // A change of something else does not seal it.
            let patched = bob.patch("/v1/users/alice", &json!({"is_disabled": false}), "\"1\"").await;
            assert!((400..500).contains(&patched.status), "{}", patched.text);
            let login = json!({"username": "alice", "password": PASSWORD});
            alice.post("/v1/auth/token", &login).await.is_problem(401);
            app.execute(undo).await;
            soon(&app, undo, async || (alice.get("/v1/policies").await.status == 200).then_some(())).await;
        }
    }

    async fn a_session_that_was_given_to_another_person_is_refused(database: Database) {
        let (app, admin, _agent) = one_agent(database).await;
        app.session(&admin, "bob", "admin").await;
        let alice = app.session(&admin, "alice", "viewer").await;
        assert_eq!(app.execute("UPDATE sessions SET user_name = 'bob' WHERE user_name = 'alice'").await, 1);
        soon(&app, "it is refused", async || (alice.get("/v1/whoami").await.status == 401).then_some(())).await;
        noticed(&app, &admin, "sessions").await;
    }

    async fn a_policy_that_was_changed_in_the_database_decides_nothing(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        let mut all = drop_policy("all");
        all["respond"]["on"] = json!("all");
        all["mode"] = json!("observe");
        admin.policy(&all).await;
        let widened = "UPDATE policies SET document = REPLACE(document, '\"observe\"', '\"enforce\"') WHERE name = 'all'";
        assert_eq!(app.execute(widened).await, 1);
        noticed(&app, &admin, "policies all").await;
        let answer = post(&admin, "1", "203.0.113.7").await;
        assert_eq!(answer["responses"].as_array().unwrap().len(), 1, "only the other policy: {answer}");
        assert_eq!(agent.owed_one().await.target.value(), "203.0.113.7");
        let shown = admin.get("/v1/policies/all").await.is(200);
        assert!(shown["warnings"].to_string().contains("decides nothing: policies all was inserted or changed"), "{shown}");
        // The next version does not make it right.
        let problem = admin.put("/v1/policies/all", &all, Some("\"1\"")).await.is_problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("policies all was inserted or changed"), "{problem}");
    }

    async fn a_secret_that_was_given_to_another_action_in_the_database_reaches_none(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        for name in ["notify", "other"] {
            admin.post("/v1/actions", &json!({"name": name, "summary": "Tells.", "executable": "tell.sh"})).await.is(201);
        }
        admin.put("/v1/secrets/chat", &json!({"value": "hunter2-hunter2", "actions": ["notify"]}), None).await.is(204);
        assert_eq!(app.execute("UPDATE secrets SET actions = '[\"notify\",\"other\"]'").await, 1);
        noticed(&app, &admin, "secrets chat was inserted or changed").await;
        for name in ["notify", "other"] {
            let order = json!({"action": name, "agents": ["web-01"], "arguments": ["secret:chat"], "reason": "x"});
            let answer = admin.post("/v1/responses", &order).await;
            assert!(answer.status == 422 && answer.points_at().contains(&"/arguments/0".to_owned()), "{}", answer.text);
        }
        assert!(agent.owed().await.is_empty());
    }

    async fn without_a_protected_entry_nothing_new_is_delivered_and_reverts_are(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        let entry = json!({"kind": "ip", "value": "198.51.100.7", "reason": "ours"});
        admin.post("/v1/protected", &entry).await.is(201);
        let before = post(&admin, "1", "203.0.113.1").await["responses"][0].as_str().unwrap().to_owned();
        agent.obey().await;
        app.execute("CREATE TABLE removed AS SELECT * FROM protected_entries").await;
        assert_eq!(app.execute("DELETE FROM protected_entries").await, 1);
        noticed(&app, &admin, "protected_entries: a row was removed").await;
        post(&admin, "2", "198.51.100.7").await;
        let held = post(&admin, "3", "203.0.113.3").await["responses"][0].as_str().unwrap().to_owned();
        assert!(agent.owed().await.is_empty());
        let shown = admin.get(&format!("/v1/responses/{held}")).await.is(200);
        assert!(shown.to_string().contains("another program has changed the ledger"), "{shown}");
        admin.post(&format!("/v1/responses/{before}/lift"), &json!({"reason": "over"})).await.is(200);
        let revert = agent.owed_one().await;
        assert_eq!((revert.op.as_str(), revert.target.value()), ("revert", "203.0.113.1"));
        agent.obey().await;
        // The entry is back: what waited goes out, but for what it protects.
        app.execute("INSERT INTO protected_entries SELECT * FROM removed").await;
        app.advance(61);
        // What was decided against the entry is lifted; that may come first.
        let applied = async || {
            let owed = agent.owed().await;
            let applies = owed.iter().filter(|command| command.op.as_str() == "apply");
            Some(applies.map(|command| command.target.value().to_owned()).collect::<Vec<_>>()).filter(|all| !all.is_empty())
        };
        assert_eq!(soon(&app, "it is delivered", applied).await, ["203.0.113.3"]);
    }

    async fn a_freeze_that_was_lifted_in_the_database_stays(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "wait"}), None).await.is(200);
        post(&admin, "1", "203.0.113.1").await;
        for change in ["UPDATE freezes SET frozen = FALSE", "DELETE FROM freezes"] {
            assert_eq!(app.execute(change).await, 1);
            noticed(&app, &admin, "freezes").await;
            assert!(agent.owed().await.is_empty(), "{change}");
        }
    }

    async fn a_revoked_key_that_was_put_back_serves_pipelines_only_until_it_is_accepted(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        let stolen = app.client_with_role(&admin, "analyst").await;
        let pipeline = app.client_with_role(&admin, "ingest").await;
        app.execute("CREATE TABLE earlier AS SELECT * FROM api_keys WHERE role = 'analyst'").await;
        let id = stolen.key().split('_').nth(1).unwrap().to_owned();
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        stolen.get("/v1/policies").await.is_problem(401);
        app.execute("DELETE FROM api_keys WHERE role = 'analyst'").await;
        app.execute("INSERT INTO api_keys SELECT * FROM earlier").await;
        soon(&app, "it is noticed", async || (stolen.get("/v1/policies").await.status == 503).then_some(())).await;
        let problem = admin.get("/v1/policies").await.is_problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("riposte doctor"), "{problem}");
        post(&pipeline, "1", "203.0.113.1").await;
        assert!(agent.owed().await.is_empty(), "nothing new is delivered either");
        // A restart changes nothing about it.
        let (app, admin) = app.restart().await;
        assert_eq!(admin.get("/v1/policies").await.status, 503);
        // An administrator of the host accepts what is there, after revoking it.
        let revoke = "UPDATE api_keys SET revoked_at = 1 WHERE role = 'analyst'";
        let (app, admin) = app.restart_with(&[revoke]).await;
        let agent = agent.moved_to(&app);
        assert_eq!(agent.owed().await.len(), 1);
        let entries = admin.list("/v1/audit?noun=ledger").await;
        assert!(entries.iter().any(|entry| entry["verb"] == "accepted"), "{entries:?}");
        assert_eq!(admin.with_key(stolen.key()).get("/v1/policies").await.status, 401);
    }

    async fn a_command_that_was_changed_in_the_database_is_not_delivered(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        post(&admin, "1", "203.0.113.1").await;
        post(&admin, "2", "203.0.113.2").await;
        for change in [
            "UPDATE commands SET target_value = '198.51.100.9' WHERE target_value = '203.0.113.1'",
            "INSERT INTO commands (id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments, until,
                    state, created_at, expires_at, one_shot, rank, seal)
                SELECT '01900000-0000-7000-8000-000000000001', agent_id, seq + 10, effect_id, response_id, op, action, target_kind,
                    '198.51.100.10', arguments, until, state, created_at, expires_at, one_shot, rank, seal
                FROM commands WHERE target_value = '203.0.113.2'",
        ] {
            assert_eq!(app.execute(change).await, 1, "{change}");
        }
        assert_eq!(agent.owed_one().await.target.value(), "203.0.113.2");
        noticed(&app, &admin, "commands 01900000-0000-7000-8000-000000000001").await;
        assert_eq!(breaches(&admin).await.len(), 2);
    }

    async fn an_effect_that_was_invented_in_the_database_is_never_applied(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        post(&admin, "1", "203.0.113.1").await;
        agent.obey().await;
        let invented = "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments, desired, actual, until,
                actual_seq, created_at, changed_at, wanted_at, seal)
            SELECT '01900000-0000-7000-8000-000000000002', agent_id, action, target_kind, '198.51.100.9', arguments, desired, actual,
                until, actual_seq, created_at, changed_at, wanted_at, seal FROM effects";
        assert_eq!(app.execute(invented).await, 1);
        let held = "INSERT INTO holds (response_id, effect_id, until)
            SELECT response_id, '01900000-0000-7000-8000-000000000002', until FROM holds";
        assert_eq!(app.execute(held).await, 1);
        // The agent reports that it holds neither: what the manager wrote is applied again, and nothing else.
        let nothing = riposte_protocol::message::PollRequest { effects: Some(vec![]), ..Default::default() };
        agent.poll(&nothing).await;
        let owed = app.in_time("it is applied again", async || Some(agent.owed().await).filter(|owed| !owed.is_empty())).await;
        assert_eq!(owed.iter().map(|command| command.target.value().to_owned()).collect::<Vec<_>>(), ["203.0.113.1"]);
    }

    async fn a_forged_approval_does_not_count_and_a_changed_response_does_not_act(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let alice = app.person(&admin, "alice", "analyst").await;
        let response = waiting(&admin, 2).await;
        let forged = "INSERT INTO answers (response_id, principal, answer, reason, at) SELECT id, 'user:bob', 'approve', '', 0 FROM responses";
        assert_eq!(app.execute(forged).await, 1);
        approve(&alice, &response).await.is(200);
        let state = async || admin.get(&format!("/v1/responses/{response}")).await.is(200)["state"].clone();
        assert_eq!(state().await, "awaiting_approval", "one person has approved it");
        // One who approves approves what the manager wrote.
        assert_eq!(app.execute("UPDATE responses SET quorum = 1, target_value = '198.51.100.9'").await, 1);
        let carol = app.person(&admin, "carol", "analyst").await;
        approve(&carol, &response).await.is_problem(409);
        // Silence is a no, whatever the row says by now.
        assert_eq!(app.execute("UPDATE responses SET on_silence = 'enforce', answer_by = 1").await, 1);
        app.in_time("it ends", async || (state().await == "lapsed").then_some(())).await;
        assert!(agent.owed().await.is_empty());
    }

    async fn an_author_whose_name_was_taken_off_a_policy_does_not_approve_its_response(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let alice = app.person(&admin, "alice", "engineer").await;
        let response = waiting(&alice, 1).await;
        assert_eq!(app.execute("UPDATE policy_versions SET changed_by = 'user:bob'").await, 1);
        approve(&alice, &response).await.is_problem(409);
    }

    async fn without_the_record_of_the_seals_nothing_is_sealed_anew(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        assert_eq!(app.execute("DELETE FROM seals").await, 1);
        assert!(app.execute("UPDATE api_keys SET role = 'admin'").await > 0);
        let (app, admin_again) = app.restart().await;
        assert_eq!(admin_again.get("/v1/policies").await.status, 503);
        let agent = agent.moved_to(&app);
        assert!(agent.owed().await.is_empty());
        drop(admin);
    }

    async fn rows_and_record_that_were_put_back_together_do_not_fit_the_log(database: Database) {
        let (app, admin, _agent) = one_agent(database).await;
        let stolen = app.client_with_role(&admin, "analyst").await;
        app.execute("CREATE TABLE earlier AS SELECT * FROM api_keys").await;
        app.execute("CREATE TABLE earlier_seals AS SELECT * FROM seals").await;
        let id = stolen.key().split('_').nth(1).unwrap().to_owned();
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        let back = [
            "DELETE FROM api_keys",
            "INSERT INTO api_keys SELECT * FROM earlier",
            "DELETE FROM seals",
            "INSERT INTO seals SELECT * FROM earlier_seals",
        ];
        let (_app, admin) = app.restart_after(async |db, _| {
            execute_all(&db, &back).await;
        }).await;
        for client in [&admin, &admin.with_key(stolen.key())] {
            client.get("/v1/policies").await.is_problem(503);
        }
    }

    async fn a_ledger_from_before_there_were_seals_is_sealed_once(database: Database) {
        let (app, admin, agent) = one_agent(database).await;
        post(&admin, "1", "203.0.113.1").await;
        // As the version before this one left it.
        let before = [
            "DELETE FROM seals",
            "UPDATE audit SET noun = 'manager', verb = 'thawed' WHERE noun = 'ledger'",
            "UPDATE api_keys SET seal = NULL",
            "UPDATE policies SET seal = NULL",
            "UPDATE agents SET seal = NULL",
            "UPDATE commands SET seal = NULL",
            "UPDATE effects SET seal = NULL",
            "UPDATE responses SET seal = NULL",
        ];
        let (app, admin) = app.restart_after(async |db, _| {
            execute_all(&db, &before).await;
        }).await;
        let agent = agent.moved_to(&app);
        assert_eq!(agent.owed_one().await.target.value(), "203.0.113.1");
        let sealed = admin.list("/v1/audit?noun=ledger").await;
        assert_eq!(sealed.len(), 1, "{sealed:?}");
        assert_eq!(sealed[0]["verb"], "sealed");
        let (_app, admin) = app.restart().await;
        assert_eq!(admin.list("/v1/audit?noun=ledger").await.len(), 1, "once");
        eventually("it works", async || (admin.get("/v1/policies").await.status == 200).then_some(())).await;
    }
}
