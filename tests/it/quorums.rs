//! What a person is to a quorum, and personal keys: one person is one principal, by a session or by
//! any key.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, TestApp};

async fn waiting(client: &Client, id: &str) -> String {
    let answer = client.post("/v1/alerts", &brute_force(id, &format!("203.0.113.{id}"))).await.is(202);
    answer["responses"][0].as_str().unwrap().to_owned()
}

async fn approve(client: &Client, response: &str) -> Answer {
    client.post(&format!("/v1/responses/{response}/approve"), &json!({"reason": "right"})).await
}

fn asks(quorum: u32) -> Value {
    let mut policy = drop_policy("asks");
    policy["mode"] = json!("approve");
    policy["approval"] = json!({"quorum": quorum, "within": "1h"});
    policy
}

on_both_databases! {
    async fn one_person_with_a_session_and_two_keys_is_no_quorum_of_two(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&asks(2)).await;
        let response = waiting(&admin, "1").await;
        let session = app.session(&admin, "alice", "analyst").await;
        let (one, two) = (session.personal_key("k", "analyst").await, session.personal_key("k", "analyst").await);
        let problem = approve(&admin, &response).await.is_problem(403);
        assert!(problem["detail"].as_str().unwrap().contains("riposte login"), "{problem}");
        // An approval by a service key, from before there were users, counts no more.
        let old = "INSERT INTO answers (response_id, principal, answer, reason, at)
            SELECT id, 'key:0123456789abcdef', 'approve', '', 0 FROM responses";
        app.execute(old).await;
        approve(&one, &response).await.is(200);
        for again in [&session, &two] {
            approve(again, &response).await.is_problem(409);
        }
        let find = async || admin.get(&format!("/v1/responses/{response}")).await.is(200);
        assert_eq!(find().await["state"], "awaiting_approval");
        let bob = app.person(&admin, "bob", "analyst").await;
        approve(&bob, &response).await.is(200);
        assert_eq!(find().await["state"], "active");
        let history = admin.history("response", &response).await;
        let by: Vec<&str> =
            history.iter().filter(|(_, verb)| verb == "approved").map(|(actor, _)| actor.as_str()).collect();
        assert_eq!(by, ["user:alice", "user:bob"]);
    }

    async fn an_author_does_not_approve_what_the_own_policy_version_made(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let alice = app.session(&admin, "alice", "engineer").await;
        let key = alice.personal_key("k", "engineer").await;
        let bob = app.person(&admin, "bob", "engineer").await;
        key.policy(&asks(1)).await;
        let first = waiting(&admin, "1").await;
        // Bob writes the next version; the response of the first one stays Alice's.
        bob.put("/v1/policies/asks", &asks(1), Some("\"1\"")).await.is(200);
        let second = waiting(&admin, "2").await;
        for client in [&alice, &key] {
            let problem = approve(client, &first).await.is_problem(409);
            assert!(problem["detail"].as_str().unwrap().contains("another person"), "{problem}");
        }
        approve(&bob, &second).await.is_problem(409);
        approve(&bob, &first).await.is(200);
        approve(&alice, &second).await.is(200);
        let third = waiting(&admin, "3").await;
        bob.post(&format!("/v1/responses/{third}/reject"), &json!({"reason": "wrong"})).await.is(200);
        let fourth = waiting(&admin, "4").await;
        admin.post(&format!("/v1/responses/{fourth}/reject"), &json!({"reason": "wrong"})).await.is(200);
    }

    async fn a_stolen_personal_key_changes_nothing_about_how_the_person_comes_in(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let alice = app.session(&admin, "alice", "admin").await;
        let stolen = alice.personal_key("script", "admin").await;
        let asked = json!({"name": "another", "kind": "personal", "role": "viewer"});
        let code = json!({"code": "000000"});
        for (path, body) in
            [("/v1/api-keys", &asked), ("/v1/auth/totp", &json!({})), ("/v1/auth/totp/confirm", &code)]
        {
            let problem = stolen.post(path, body).await.is_problem(403);
            assert!(problem["detail"].as_str().unwrap().contains("riposte login"), "{path}: {problem}");
        }
        assert_eq!(admin.get("/v1/users/alice").await.is(200)["has_totp"], false);
        assert_eq!(admin.list("/v1/api-keys").await.len(), 2, "the first key, and the stolen one");
        alice.post("/v1/api-keys", &asked).await.is(201);
    }

    async fn a_person_manages_the_own_keys_and_sees_their_use(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let alice = app.session(&admin, "alice", "analyst").await;
        let asked = |more: Value| {
            let mut asked = json!({"name": "laptop", "kind": "personal", "role": "viewer"});
            asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            asked
        };
        let made = alice.post("/v1/api-keys", &asked(json!({}))).await.is(201);
        assert_eq!(made["expires_at"], "2027-02-22T10:00:00.000Z");
        let key = alice.with_key(made["key"].as_str().unwrap());
        for (more, pointer) in [
            (json!({"role": "engineer"}), "/role"),
            (json!({"role": "ingest"}), "/role"),
            (json!({"expires_in": "366d"}), "/expires_in"),
            (json!({"pipeline": "p"}), "/pipeline"),
        ] {
            assert_eq!(alice.post("/v1/api-keys", &asked(more)).await.points_at(), [pointer]);
        }
        // A key makes no other one, and a service key none for a person.
        key.post("/v1/api-keys", &asked(json!({}))).await.is_problem(403);
        admin.post("/v1/api-keys", &asked(json!({}))).await.is_problem(403);
        alice.post("/v1/api-keys", &json!({"name": "k", "role": "viewer"})).await.is_problem(403);
        alice.post("/v1/api-keys", &asked(json!({"expires_in": "10d"}))).await.is(201);
        alice.post("/v1/api-keys", &asked(json!({}))).await.is_problem(409);
        let keys = alice.list("/v1/api-keys").await;
        assert_eq!(keys.len(), 2, "only the own ones: {keys:?}");
        let row = |id: &Value| keys.iter().find(|key| key["id"] == *id).unwrap();
        let used = row(&made["id"]);
        assert_eq!((&used["kind"], &used["user"]), (&json!("personal"), &json!("alice")));
        assert_eq!((&used["last_used_from"], &used["expires_soon"]), (&json!("127.0.0.1"), &json!(false)));
        let unused = keys.iter().find(|key| key["id"] != made["id"]).unwrap();
        assert_eq!((&unused["last_used_at"], &unused["expires_soon"]), (&Value::Null, &json!(true)));
        let of_admin = admin.key().split('_').nth(1).unwrap();
        alice.delete(&format!("/v1/api-keys/{of_admin}"), None).await.is_problem(404);
        key.delete(&format!("/v1/api-keys/{}", made["id"].as_str().unwrap()), None).await.is_problem(409);
        alice.delete(&format!("/v1/api-keys/{}", made["id"].as_str().unwrap()), None).await.is(204);
        key.get("/v1/whoami").await.is_problem(401);
        // The last use is stored: another manager run shows it.
        let (_app, admin) = app.restart().await;
        let keys = admin.list("/v1/api-keys").await;
        let used = keys.iter().find(|key| key["id"] == made["id"]).unwrap();
        assert_eq!(used["last_used_at"], "2026-11-24T10:00:00.000Z");
    }
}
