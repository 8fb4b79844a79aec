//! Backtests, a policy's own tests, and rollback to an earlier version. On both databases.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

/// Forty alerts, one a second, from ten addresses; every fourth has no address.
async fn with_history(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let alerts: Vec<Value> = (0..40)
        .map(|n| {
            let mut alert = brute_force(&format!("h{n}"), &format!("203.0.113.{}", n % 10));
            alert["timestamp"] = json!(format!("2026-11-20T10:{:02}:{:02}.000+0000", n / 20, n % 20));
            if n % 4 == 3 {
                alert["data"] = json!({});
            }
            alert
        })
        .collect();
    admin.post("/v1/alerts", &json!(alerts)).await.is(202);
    (app, admin, agent)
}

fn draft(change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = drop_policy("draft");
    change(&mut policy);
    json!({"policy": policy})
}

on_both_databases! {
    async fn a_backtest_says_what_a_draft_would_have_done(database: Database) {
        let (_app, admin, agent) = with_history(database).await;
        let report = admin.post("/v1/policies/backtest", &draft(|_| ())).await.is(200);
        assert_eq!((&report["alerts_scanned"], &report["matched"], &report["responses"]), (&json!(40), &json!(40), &json!(30)));
        assert_eq!((&report["targets"], &report["agents"], &report["peak_per_minute"]), (&json!(10), &json!(1), &json!(15)));
        assert_eq!(report["spared"], json!({"target_missing": 10}));
        assert_eq!(report["samples"].as_array().unwrap().len(), 20);
        assert_eq!(report["samples"][0]["outcome"], "act");
        assert!(admin.list("/v1/responses").await.is_empty() && agent.owed().await.is_empty(), "nothing is done");
        assert!(admin.list("/v1/policies").await.is_empty());
    }

    async fn a_backtest_counts_along_the_alerts_own_times(database: Database) {
        let (_app, admin, _agent) = with_history(database).await;
        let limited = draft(|policy| policy["limits"] = json!({"responses": "5/30s", "over_limit": "drop"}));
        let report = admin.post("/v1/policies/backtest", &limited).await.is(200);
        assert_eq!((&report["responses"], &report["spared"]["over_limit"]), (&json!(10), &json!(20)), "{report}");
        let asks = draft(|policy| policy["limits"] = json!({"responses": "5/30s"}));
        let report = admin.post("/v1/policies/backtest", &asks).await.is(200);
        assert_eq!(report["awaiting_approval"], json!(report["responses"].as_u64().unwrap() - 10), "{report}");
        let threshold = draft(|policy| policy["threshold"] = json!({"count": 2, "within": "15s", "by": "source.ip"}));
        let report = admin.post("/v1/policies/backtest", &threshold).await.is(200);
        assert!(report["responses"].as_u64().unwrap() < 20 && report["responses"].as_u64().unwrap() > 5, "{report}");
        let mut ranged = draft(|_| ());
        ranged["since"] = json!("2026-11-20T10:01:00Z");
        let report = admin.post("/v1/policies/backtest", &ranged).await.is(200);
        assert_eq!((&report["alerts_scanned"], &report["responses"]), (&json!(20), &json!(15)));
    }

    async fn a_streamed_backtest_ends_in_its_result(database: Database) {
        let (_app, admin, _agent) = with_history(database).await;
        let request = admin.request(reqwest::Method::POST, "/v1/policies/backtest").json(&draft(|_| ()));
        let answer = Answer::to(request.header("accept", "application/x-ndjson")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
        let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, progress) = lines.split_last().unwrap();
        assert_eq!(last["result"]["responses"], 30);
        assert!(!progress.is_empty() && progress.iter().all(|line| line["progress"]["total"] == 40), "{lines:?}");
    }

    async fn a_draft_with_a_fault_is_refused_where_it_is(database: Database) {
        let (_app, admin, _agent) = with_history(database).await;
        let problem = admin.post("/v1/policies/backtest", &draft(|policy| policy["mode"] = json!("enforced"))).await;
        assert_eq!(problem.is_problem(422)["errors"][0]["pointer"], "/policy/mode");
        admin.post("/v1/policies/backtest", &json!({})).await.is_problem(422);
    }

    async fn a_policy_whose_own_tests_disagree_is_not_saved(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let mut policy = drop_policy("tested");
        policy["tests"] = json!([
            {"name": "brute force", "alert": brute_force("1", "::ffff:203.0.113.7"), "fires": true, "target": "203.0.113.7"},
            {"name": "another rule", "alert": {"timestamp": "2026-11-20T10:11:12Z", "id": "1", "agent": {"id": "1"},
                "rule": {"id": "1", "level": 3}}, "fires": false},
        ]);
        admin.post("/v1/policies", &policy).await.is(201);
        policy["match"] = json!([{"rule_ids": ["1"]}]);
        let problem = admin.put("/v1/policies/tested", &policy, Some("\"1\"")).await.is_problem(422);
        let pointers: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!(pointers, ["/tests/0/fires", "/tests/1/fires"]);
        policy["match"] = drop_policy("x")["match"].clone();
        policy["tests"][0]["target"] = json!("203.0.113.8");
        policy["tests"][1]["alert"]["rule"]["level"] = json!(99);
        let problem = admin.put("/v1/policies/tested", &policy, Some("\"1\"")).await.is_problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/tests/0/target");
        assert_eq!(problem["errors"][1]["pointer"], "/tests/1/alert/rule/level");
    }

    async fn an_earlier_version_becomes_the_newest_again(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        admin.policy(&drop_policy("p")).await;
        let mut second = drop_policy("p");
        second["note"] = json!("second thoughts");
        admin.put("/v1/policies/p", &second, Some("\"1\"")).await.is(200);
        let rollback = |version: i64, tag: &str| {
            let request = admin.request(reqwest::Method::POST, "/v1/policies/p/rollback");
            Answer::to(request.json(&json!({"version": version})).header("if-match", tag.to_owned()))
        };
        rollback(1, "\"1\"").await.is_problem(412);
        rollback(7, "\"2\"").await.is_problem(422);
        let back = rollback(1, "\"2\"").await.is(200);
        assert_eq!((&back["version"], back.get("note")), (&json!(3), None));
        assert_eq!(admin.list("/v1/policies/p/versions").await.len(), 3);
        admin.post("/v1/policies/p/rollback", &json!({"version": 1})).await.is_problem(428);
    }
}
