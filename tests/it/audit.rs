//! The audit log: every change is in it with its actor, and every edit of it is detected.

use std::collections::BTreeSet;

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use super::responses::{drop_by_hand, lift, with_agent};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, eventually};

on_both_databases! {
    /// Promise 12, first test.
    async fn promise_12_every_change_is_in_the_audit_log_with_who_made_it(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let key = admin.key().split('_').nth(1).unwrap().to_owned();
        admin.policy(&drop_policy("drop")).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let response = json!({"id": answer["responses"][0]});
        let apply = agent.answer(Outcome::Succeeded, Some(true)).await;
        lift(&admin, &response).await;
        let revert = agent.answer(Outcome::Failed, None).await;
        let said = |noun: &'static str, id: String| {
            let admin = admin.clone();
            async move {
                admin.history(noun, &id).await.into_iter().map(|(by, verb)| format!("{by} {verb}")).collect::<Vec<_>>()
            }
        };
        let of_agent = |verb: &str| format!("agent:{} {verb}", agent.id);
        assert_eq!(
            said("response", answer["responses"][0].as_str().unwrap().into()).await,
            ["policy:drop created".to_owned(), format!("key:{key} ended")]
        );
        assert_eq!(
            said("command", apply.jti.to_string()).await,
            ["riposte queued".to_owned(), of_agent("acknowledged"), of_agent("succeeded")]
        );
        assert_eq!(
            said("command", revert.jti.to_string()).await,
            ["riposte queued".to_owned(), of_agent("acknowledged"), of_agent("failed")]
        );
        assert_eq!(said("policy", "drop".into()).await, [format!("key:{key} created")]);
        assert_eq!(said("api_key", key.clone()).await.len(), 1);
        assert!(said("agent", agent.id.to_string()).await.len() == 1);
        let entries = admin.list("/v1/audit").await;
        let proof = admin.get("/v1/audit/verify").await.is(200);
        assert_eq!((&proof["intact"], proof["entries"].as_u64()), (&json!(true), Some(entries.len() as u64)));
        assert!(proof["broken_at"].is_null());
        drop(app);
    }

    async fn promise_12_any_edit_of_the_audit_log_is_found(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        for n in 0..5 {
            drop_by_hand(&admin, &format!("203.0.113.{n}"), "10m").await;
        }
        let last = admin.get("/v1/audit?limit=1").await.is(200)["items"][0]["seq"].as_i64().unwrap();
        // Each edit, and how it is undone.
        let edits: [(&str, &str, i64); 4] = [
            (
                "UPDATE audit SET detail = detail || '!' WHERE seq = 4",
                "UPDATE audit SET detail = SUBSTR(detail, 1, LENGTH(detail) - 1) WHERE seq = 4",
                4,
            ),
            (
                "UPDATE audit SET actor = 'policy:' || actor WHERE seq = 2",
                "UPDATE audit SET actor = SUBSTR(actor, 8) WHERE seq = 2",
                2,
            ),
            ("UPDATE audit SET at = at + 1 WHERE seq = 3", "UPDATE audit SET at = at - 1 WHERE seq = 3", 3),
            ("UPDATE audit SET seq = 1000000 WHERE seq = 5", "UPDATE audit SET seq = 5 WHERE seq = 1000000", 5),
        ];
        for (edit, undo, at) in edits {
            assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
            assert_eq!(app.execute(edit).await, 1);
            let proof = admin.get("/v1/audit/verify").await.is(200);
            assert_eq!((&proof["intact"], &proof["broken_at"]), (&json!(false), &json!(at)), "{edit}");
            assert_eq!(app.execute(undo).await, 1);
        }
        // The last entry is deleted without a trace, except in the head of the chain.
        assert_eq!(app.execute("DELETE FROM audit WHERE seq = (SELECT MAX(seq) FROM audit)").await, 1);
        let proof = admin.get("/v1/audit/verify").await.is(200);
        assert_eq!((&proof["intact"], &proof["broken_at"]), (&json!(false), &json!(last)));
    }

    async fn denied_requests_are_in_the_audit_log_with_their_number_and_address(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        let viewer = app.client_with_role(&admin, "viewer").await;
        let name = format!("key:{}", viewer.key().split('_').nth(1).unwrap());
        let denied = async |count: usize| {
            eventually("the denials are recorded", || async {
                app.advance(5);
                let entries = admin.list("/v1/audit?noun=request").await;
                (entries.len() >= count).then_some(entries)
            })
            .await
        };
        viewer.post("/v1/policies", &drop_policy("mine")).await.is_problem(403);
        let entry = denied(1).await.remove(0);
        assert_eq!((&entry["actor"], &entry["verb"]), (&json!(name), &json!("denied")));
        assert_eq!((&entry["noun_id"], &entry["detail"]), (&json!("POST /v1/policies"), &json!("once from 127.0.0.1")));
        // The same operation waits for its minute, and is one entry then. Another operation is another entry.
        for _ in 0..3 {
            viewer.post("/v1/policies", &drop_policy("mine")).await.is_problem(403);
        }
        viewer.get("/v1/users").await.is_problem(403);
        let entries = denied(3).await;
        let said: BTreeSet<(&str, &str)> =
            entries.iter().map(|entry| (entry["noun_id"].as_str().unwrap(), entry["detail"].as_str().unwrap())).collect();
        let expected = [
            ("GET /v1/users", "once from 127.0.0.1"),
            ("POST /v1/policies", "3 times from 127.0.0.1"),
            ("POST /v1/policies", "once from 127.0.0.1"),
        ];
        assert_eq!(said, BTreeSet::from(expected));
        // A request without credentials has no caller: it is limited and logged, and not here.
        Client::anonymous(&app.base).post("/v1/policies", &drop_policy("mine")).await.is_problem(401);
    }

    async fn a_change_of_power_says_from_where_it_was_made(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        app.client_with_role(&admin, "viewer").await;
        admin.policy(&drop_policy("drop")).await;
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "192.0.2.1", "reason": "ours"})).await.is(201);
        admin.post("/v1/users", &json!({"name": "alice", "role": "analyst"})).await.is(201);
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "drill"}), None).await.is(200);
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let lifted = json!({"target": "203.0.113.7", "reason": "over"});
        admin.post("/v1/responses/lift", &lifted).await.is(200);
        admin.delete(&format!("/v1/agents/{}", agent.id), None).await.is(204);
        let entries = admin.list("/v1/audit").await;
        for (noun, verb) in [
            ("api_key", "created"),
            ("policy", "created"),
            ("protected", "created"),
            ("user", "created"),
            ("manager", "frozen"),
            ("response", "ended"),
            ("agent", "revoked"),
        ] {
            let of = |entry: &&Value| entry["noun"] == noun && entry["verb"] == verb;
            let entry = entries.iter().find(of).unwrap_or_else(|| panic!("{noun} {verb}"));
            let detail = entry["detail"].as_str().unwrap();
            assert!(detail.ends_with("from 127.0.0.1") || detail.ends_with("(from 127.0.0.1)"), "{entry}");
            assert!(entry["actor"].as_str().unwrap().starts_with("key:"), "{entry}");
        }
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }
}
