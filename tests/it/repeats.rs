//! Promise 2: no alert is answered twice, and no request is carried out twice, however often and
//! however concurrently it is sent. On both databases.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::alert::{brute_force, drop_policy, ndjson};
use crate::support::{Answer, Database, TestApp};

const NDJSON: &str = "application/x-ndjson";

on_both_databases! {
    /// Promise 2: the same source and the same source id is the same alert, whatever else it
    /// contains.
    async fn promise_2_no_alert_is_answered_twice(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let alert = brute_force("1795169472.1", "203.0.113.7");
        let first = admin.post("/v1/alerts", &alert).await.is(202);
        assert_eq!((&first["accepted"], &first["duplicates"]), (&json!(1), &json!(0)));
        assert_eq!(first["responses"].as_array().unwrap().len(), 1);
        let again = json!({"accepted": 0, "duplicates": 1, "conflicting": 0, "rejected": [], "responses": []});
        assert_eq!(admin.post("/v1/alerts", &alert).await.is(202), again);
        // A pipeline that sends it again may have added fields meanwhile, or another target.
        let mut later = brute_force("1795169472.1", "198.51.100.1");
        later["rule"]["level"] = json!(12);
        let differs = json!({"accepted": 0, "duplicates": 1, "conflicting": 1, "rejected": [], "responses": []});
        assert_eq!(admin.post("/v1/alerts", &later).await.is(202), differs);
        // Within one request.
        let twice = brute_force("1795169472.2", "203.0.113.8");
        let batch = admin.alerts(NDJSON, ndjson([&twice, &alert, &twice])).await.is(202);
        assert_eq!((&batch["accepted"], &batch["duplicates"]), (&json!(1), &json!(2)));
        assert_eq!((admin.list("/v1/alerts").await.len(), admin.list("/v1/responses").await.len()), (2, 2));
        assert_eq!(agent.owed().await.len(), 2);
    }

    /// An id of Wazuh counts bytes in the log of one node, so it is unique only together with the
    /// node's name.
    async fn equal_ids_of_different_sources_are_different_alerts(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let alert = brute_force("1795169472.1", "203.0.113.7");
        let with = |key: &str, value: Value| {
            let mut other = alert.clone();
            other[key] = value;
            other
        };
        let generic = |pipeline: &str| {
            json!({"pipeline": pipeline, "id": "1795169472.1", "time": "2026-11-24T10:00:00Z",
            "rule": {"id": "5763", "level": 10}})
        };
        let all = [
            alert.clone(),
            with("manager", json!({"name": "siem-2"})),
            with("cluster", json!({"name": "wazuh", "node": "node01"})),
            with("cluster", json!({"name": "wazuh", "node": "node02"})),
            generic("sensor"),
            generic("other"),
        ];
        let answer = admin.alerts(NDJSON, ndjson(&all)).await.is(202);
        assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(6), &json!(0)));
        let answer = admin.alerts(NDJSON, ndjson(&all)).await.is(202);
        assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(0), &json!(6)));
    }

    async fn promise_2_sixteen_concurrent_copies_of_an_alert_are_stored_once(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        for round in 0..8 {
            let alert = brute_force(&format!("1.{round}"), &format!("203.0.113.{round}"));
            let mut senders = JoinSet::new();
            for _ in 0..16 {
                let (admin, alert) = (admin.clone(), alert.clone());
                senders.spawn(async move { admin.post("/v1/alerts", &alert).await.is(202) });
            }
            let answers = senders.join_all().await;
            let sum = |key: &str| answers.iter().map(|answer| answer[key].as_u64().unwrap()).sum::<u64>();
            assert_eq!((sum("accepted"), sum("duplicates")), (1, 15));
            let responses: usize = answers.iter().map(|answer| answer["responses"].as_array().unwrap().len()).sum();
            assert_eq!(responses, 1);
        }
        assert_eq!((admin.list("/v1/alerts").await.len(), agent.owed().await.len()), (8, 8));
    }

    async fn promise_2_a_repeated_request_changes_nothing_and_gets_the_same_answer(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let policy = admin.post_once("/v1/policies", &drop_policy("drop"), "key-1").await.is(201);
        let alerts = json!([brute_force("1", "203.0.113.7"), {}, brute_force("2", "203.0.113.8")]);
        let response =
            json!({"action": "firewall-drop", "target": "198.51.100.1", "agents": ["web-01"], "reason": "seen"});
        let first_alerts = admin.post_once("/v1/alerts", &alerts, "key-2").await.is(202);
        let first_response = admin.post_once("/v1/responses", &response, "key-3").await.is(201);
        app.advance(3600);

        assert_eq!(admin.post_once("/v1/policies", &drop_policy("drop"), "key-1").await.is(201), policy);
        let again = admin.post_once("/v1/alerts", &alerts, "key-2").await.is(202);
        assert_eq!(again, first_alerts);
        assert_eq!((&again["accepted"], &again["rejected"][0]["index"]), (&json!(2), &json!(1)));
        let again = admin.post_once("/v1/responses", &response, "key-3").await.is(201);
        assert_eq!(again["id"], first_response["id"]);
        assert_eq!(admin.list("/v1/responses").await.len(), 3);
        // The alerts' drops were over after ten minutes; the one by hand has no end.
        let by_hand = agent.owed().await.into_iter().filter(|command| command.target.value() == "198.51.100.1").count();
        assert_eq!(by_hand, 1);
        assert_eq!(admin.list("/v1/audit?noun=policy").await.len(), 1);

        // The same key for another request is a mistake that the client must see.
        for (path, body, key) in [
            ("/v1/policies", drop_policy("other"), "key-1"),
            ("/v1/alerts", json!([brute_force("3", "203.0.113.9")]), "key-2"),
            ("/v1/responses", json!({"action": "log-only", "agents": ["web-01"], "reason": "seen"}), "key-3"),
            ("/v1/alerts", alerts.clone(), "key-1"),
        ] {
            let problem = admin.post_once(path, &body, key).await.is_problem(422);
            assert_eq!(problem["type"], "urn:riposte:problem:idempotency_key_reused", "{path} {key}");
        }
        assert_eq!((admin.list("/v1/alerts").await.len(), admin.list("/v1/policies").await.len()), (2, 1));

        // A second user of that key means another request.
        let engineer = app.client_with_role(&admin, "engineer").await;
        assert_eq!(engineer.post_once("/v1/alerts", &alerts, "key-2").await.is(202)["duplicates"], 2);
    }

    /// A secret is shown once: a repeated request does not show it again or create another.
    async fn promise_2_a_repeated_request_for_a_secret_makes_no_second_one(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let key = json!({"name": "pipeline", "role": "ingest", "expires_in": "1h"});
        let token = json!({"labels": {"env": "prod"}, "uses": 3});
        let (other_key, other_token) = (json!({"name": "other", "role": "ingest"}), json!({"uses": 3}));
        for (path, body, other, secret) in
            [("/v1/api-keys", key, other_key, "key"), ("/v1/enrollment-tokens", token, other_token, "token")]
        {
            let first = admin.post_once(path, &body, path).await.is(201);
            let before = admin.get(path).await.is(200)["items"].as_array().unwrap().len();
            let again = admin.post_once(path, &body, path).await.is(201);
            assert_eq!((again.get(secret), &again["id"]), (None, &first["id"]), "{path}");
            assert_eq!(again["expires_at"], first["expires_at"]);
            assert_eq!(admin.get(path).await.is(200)["items"].as_array().unwrap().len(), before);
            admin.post_once(path, &other, path).await.is_problem(422);
        }
    }

    async fn promise_2_a_request_repeated_before_it_is_answered_gets_the_same_answer(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        for round in 0..5 {
            let key = format!("key-{round}");
            let body = brute_force(&key, &format!("203.0.113.{round}"));
            let other = brute_force("other", "203.0.113.77");
            let mut senders = JoinSet::new();
            for n in 0..8 {
                let (admin, body, key) = (admin.clone(), if n == 7 { other.clone() } else { body.clone() }, key.clone());
                senders.spawn(async move { (n, admin.post_once("/v1/alerts", &body, &key).await) });
            }
            let mut answers: Vec<(usize, Answer)> = senders.join_all().await;
            answers.sort_by_key(|(n, _)| *n);
            let (_, odd) = answers.pop().unwrap();
            // The first request owns the key.
            let told: BTreeSet<String> =
                answers.iter().filter(|(_, answer)| answer.status == 202).map(|(_, answer)| answer.text.clone()).collect();
            let refused = answers.iter().filter(|(_, answer)| answer.status == 422).count();
            if odd.status == 202 {
                assert_eq!((told.len(), refused), (0, 7), "{answers:?}");
            } else {
                assert_eq!((odd.status, told.len(), refused), (422, 1, 0), "{answers:?}");
            }
        }
    }

    /// Promise 2: a repetition is not judged anew, even if the request would be refused now.
    async fn promise_2_a_repetition_gets_its_answer_after_later_changes(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let response =
            json!({"action": "firewall-drop", "target": "198.51.100.1", "agents": ["web-01"], "reason": "seen"});
        let first = admin.post_once("/v1/responses", &response, "key-1").await.is(201);
        let entry = json!({"kind": "ip", "value": "198.51.100.1", "reason": "the bank", "expires_in": "1h"});
        let protected = admin.post_once("/v1/protected", &entry, "key-2").await.is(201);
        assert_eq!(protected["lifts"][0]["response_id"], first["id"]);
        let again = admin.post_once("/v1/responses", &response, "key-1").await.is(201);
        assert_eq!((&again["id"], &again["reason"]), (&first["id"], &json!("protected")));
        assert_eq!(admin.post("/v1/responses", &response).await.points_at(), ["/target"]);
        app.advance(60);
        let again = admin.post_once("/v1/protected", &entry, "key-2").await.is(201);
        assert_eq!((&again["id"], &again["expires_at"]), (&protected["id"], &protected["expires_at"]));
        assert_eq!(again["lifts"], json!([]));
        admin.delete(&format!("/v1/protected/{}", protected["id"].as_str().unwrap()), None).await.is(204);
        admin.post_once("/v1/protected", &entry, "key-2").await.is_problem(404);
        assert_eq!(admin.list("/v1/protected").await.len(), 0);
    }

    async fn promise_2_the_same_request_made_eight_times_at_once_is_carried_out_once(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let response =
            json!({"action": "firewall-drop", "target": "198.51.100.1", "agents": ["web-01"], "reason": "seen"});
        for (path, body) in [
            ("/v1/responses", response),
            ("/v1/policies", drop_policy("drop")),
            ("/v1/api-keys", json!({"name": "pipeline", "role": "ingest"})),
            ("/v1/alerts", brute_force("1", "203.0.113.7")),
        ] {
            let before = admin.get(path).await.is(200)["items"].as_array().unwrap().len();
            let mut senders = JoinSet::new();
            for _ in 0..8 {
                let (admin, body) = (admin.clone(), body.clone());
                senders.spawn(async move { admin.post_once(path, &body, path).await });
            }
            for answer in senders.join_all().await {
                // A request that arrives while the first one is in progress may be answered 409.
                assert!(matches!(answer.status, 201 | 202 | 409), "{path}: {} {}", answer.status, answer.text);
            }
            let after = admin.get(path).await.is(200)["items"].as_array().unwrap().len();
            assert_eq!(after, before + 1, "{path}");
        }
    }
}
