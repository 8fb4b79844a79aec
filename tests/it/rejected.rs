//! Alerts that were not taken in: kept with the reason, for a week, and sent again.

use serde_json::{Value, json};

use crate::support::alert::brute_force;
use crate::support::{Client, Database, TestApp};

async fn ingest_key(admin: &Client, asked: Value) -> Client {
    let made = admin.post("/v1/api-keys", &asked).await.is(201);
    admin.with_key(made["key"].as_str().unwrap())
}

on_both_databases! {
    async fn a_rejected_alert_is_listed_with_the_reason_and_counted(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let falco = ingest_key(&admin, json!({"name": "falco", "role": "ingest", "pipeline": "falco"})).await;
        let broken = json!({"rule": "Shell", "priority": "Notice", "time": "yesterday", "uuid": "1", "output": "x"});
        for _ in 0..3 {
            falco.post("/v1/alerts", &broken).await.is_problem(422);
        }
        let mixed = json!([{"rule": 5}, brute_force("1", "203.0.113.1")]);
        assert_eq!(admin.post("/v1/alerts", &mixed).await.is(202)["accepted"], 1);
        let listed = admin.list("/v1/rejected").await;
        assert_eq!(listed.len(), 2, "{listed:?}");
        let of_falco = listed.iter().find(|row| row["count"] == 3).unwrap();
        assert_eq!((&of_falco["pipeline"], &of_falco["count"], &of_falco["errors"][0]["pointer"]), (&json!("falco"), &json!(3), &json!("/time")));
        assert_eq!(admin.list("/v1/rejected?pipeline=falco").await.len(), 1);
        let path = format!("/v1/rejected/{}", of_falco["id"].as_str().unwrap());
        let shown = admin.get(&path).await.is(200);
        assert_eq!(serde_json::from_str::<Value>(shown["raw"].as_str().unwrap()).unwrap(), broken);
        // Sent again it is as wrong as before.
        let problem = admin.post(&format!("{path}/resend"), &json!({})).await.is_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/time");
        let other = ingest_key(&admin, json!({"name": "siem", "role": "ingest", "pipeline": "siem"})).await;
        other.post(&format!("{path}/resend"), &json!({})).await.is_problem(403);
        let scope = json!({"agents": {"labels": {"env": "dev"}}});
        let limited = ingest_key(&admin, json!({"name": "dev", "role": "viewer", "scope": scope})).await;
        assert!(limited.list("/v1/rejected").await.is_empty());
        limited.get(&path).await.is_problem(404);
        app.advance(7 * 86_400 + 60);
        app.in_time("they are removed", async || admin.list("/v1/rejected").await.is_empty().then_some(())).await;
    }

    async fn what_was_outside_a_senders_scope_is_taken_in_by_another(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let scope = json!({"agents": {"labels": {"env": "dev"}}});
        let limited = ingest_key(&admin, json!({"name": "dev", "role": "ingest", "pipeline": "wazuh", "scope": scope})).await;
        limited.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is_problem(422);
        let path = format!("/v1/rejected/{}/resend", admin.list("/v1/rejected").await[0]["id"].as_str().unwrap());
        assert_eq!(admin.post(&path, &json!({})).await.is(200)["accepted"], 1);
        assert!(admin.list("/v1/rejected").await.is_empty());
        admin.post(&path, &json!({})).await.is_problem(404);
        assert_eq!(admin.list("/v1/alerts").await.len(), 1);
    }

    async fn no_sender_fills_the_ledger_with_what_is_rejected(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let flood = ingest_key(&admin, json!({"name": "flood", "role": "ingest"})).await;
        admin.post("/v1/alerts", &json!({"of": "another"})).await.is_problem(422);
        for round in 0..12 {
            let bad: Vec<_> = (0..150).map(|nth| json!({"round": round, "nth": nth})).collect();
            flood.post("/v1/alerts", &json!(bad)).await.is_problem(422);
        }
        let listed = admin.list("/v1/rejected").await;
        assert_eq!(listed.len(), 1001, "a thousand of one sender, and that of the other");
        app.advance(1);
        let large = json!({"text": "x".repeat(100 * 1024)});
        flood.post("/v1/alerts", &large).await.is_problem(422);
        let all = admin.list("/v1/rejected").await;
        let newest = all.iter().find(|row| row["size"].as_i64().unwrap() > 100 * 1024).unwrap();
        assert_eq!(newest["is_kept"], json!(false));
        let path = format!("/v1/rejected/{}", newest["id"].as_str().unwrap());
        assert!(admin.get(&path).await.is(200).get("raw").is_none());
        admin.post(&format!("{path}/resend"), &json!({})).await.is_problem(409);
    }
}
