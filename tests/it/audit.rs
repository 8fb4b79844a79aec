//! The audit log: every change is in it with its actor, and every edit of it is detected.

use riposte_protocol::message::Outcome;
use serde_json::json;

use super::responses::{drop_by_hand, lift, with_agent};
use crate::support::Database;
use crate::support::alert::{brute_force, drop_policy};

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
}
