//! A compromised agent may lie about its own host, and about nothing else.

use riposte_protocol::message::{Capability, Outcome, PollRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::{Client, Database, FakeAgent, TestApp};

async fn two(database: Database) -> (TestApp, Client, FakeAgent, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let honest = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let rogue = app.enrol(&admin, "web-02", &json!({"wazuh_id": "006"})).await;
    admin.policy(&drop_policy("drop")).await;
    (app, admin, honest, rogue)
}

async fn command(admin: &Client, id: Uuid) -> Value {
    admin.get(&format!("/v1/commands/{id}")).await.is(200)
}

on_both_databases! {
    async fn a_rogue_agent_answers_for_no_other(database: Database) {
        let (_app, admin, honest, rogue) = two(database).await;
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let order = honest.owed_one().await;
        rogue.acknowledge(&[&order]).await;
        rogue.report(vec![rogue.result(order.jti, Outcome::Succeeded, Some(true))]).await;
        let after = command(&admin, order.jti).await;
        assert_eq!((&after["state"], &after["result"]), (&json!("delivered"), &Value::Null));
        // It cannot report another agent's effect as gone, or in force.
        let effect = after["effect_id"].as_str().unwrap().to_owned();
        let before = admin.get(&format!("/v1/effects/{effect}")).await.is(200);
        let held = json!({"effect": effect, "action": "firewall-drop", "released": "forged",
            "target": {"kind": "ip", "value": "203.0.113.7"}, "until": null});
        rogue.poll(&PollRequest { effects: Some(vec![serde_json::from_value(held).unwrap()]), max: 0, ..PollRequest::default() }).await;
        assert_eq!(admin.get(&format!("/v1/effects/{effect}")).await.is(200), before);
        // The honest agent still gets its command, and its result counts.
        honest.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!(command(&admin, order.jti).await["state"], "succeeded");
    }

    async fn results_of_commands_that_were_never_sent_change_nothing(database: Database) {
        let (_app, admin, honest, rogue) = two(database).await;
        admin.post("/v1/alerts", &from_agent(brute_force("1", "203.0.113.7"), "006", "web-02")).await.is(202);
        let order = rogue.obey().await.remove(0);
        let before = admin.list("/v1/audit").await;
        let lies = (0..256).map(|number| rogue.result(Uuid::from_u128(number), Outcome::Failed, Some(false)));
        rogue.report(lies.collect()).await;
        // A second result for a finished command does not change its outcome.
        rogue.report(vec![rogue.result(order.jti, Outcome::Failed, Some(false))]).await;
        assert_eq!(command(&admin, order.jti).await["state"], "succeeded");
        assert_eq!(admin.list("/v1/audit").await, before);
        assert!(honest.owed().await.is_empty());
    }

    async fn a_rogue_agent_cannot_fill_the_ledger_with_effects_that_it_makes_up(database: Database) {
        let (_app, admin, honest, rogue) = two(database).await;
        let report = async || {
            let effects = (0..2000).map(|_| {
                let target = json!({"kind": "ip", "value": "203.0.113.1"});
                let held = json!({"effect": Uuid::from_u128(getrandom::u64().unwrap().into()), "action": "firewall-drop", "target": target, "until": null});
                serde_json::from_value(held).unwrap()
            });
            let request = PollRequest { effects: Some(effects.collect()), max: 0, ..PollRequest::default() };
            rogue.exchange(&rogue.token(), &request).await
        };
        let mut taken = 0;
        let refused = loop {
            let answer = report().await;
            if answer.status != 200 {
                break answer;
            }
            taken += 1;
            assert!(taken <= 11, "there is no end to it");
        };
        refused.is_problem(429);
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=200).contains(&wait), "{wait}");
        // Others are served meanwhile.
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        honest.obey().await;
    }

    async fn a_flood_of_capabilities_and_a_huge_report_are_refused(database: Database) {
        let (_app, admin, honest, rogue) = two(database).await;
        let many = |count: usize, name: &str| {
            let capability = |number| Capability { action: format!("{name}{number}"), available: true, reason: None };
            PollRequest { capabilities: Some((0..count).map(capability).collect()), max: 0, ..PollRequest::default() }
        };
        rogue.exchange(&rogue.token(), &many(256, "a")).await.is(200);
        rogue.exchange(&rogue.token(), &many(257, "a")).await.is_problem(422);
        rogue.exchange(&rogue.token(), &many(1, &"x".repeat(64))).await.is_problem(422);
        rogue.exchange(&rogue.token(), &many(1, "\0")).await.is_problem(422);
        let long = Capability { action: "a".into(), available: false, reason: Some("x".repeat(1024 * 1024)) };
        let huge = PollRequest { capabilities: Some(vec![long]), max: 0, ..PollRequest::default() };
        rogue.exchange(&rogue.token(), &huge).await.is_problem(413);
        let shown = admin.get(&format!("/v1/agents/{}", rogue.id)).await.is(200);
        assert_eq!(shown["capabilities"].as_array().unwrap().len(), 256, "the accepted capabilities are kept");
        // No other agent waits for it.
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        assert_eq!(honest.owed_one().await.target.value(), "203.0.113.7");
    }

    async fn an_agents_output_is_kept_as_text_within_its_bound(database: Database) {
        let (_app, admin, _honest, rogue) = two(database).await;
        admin.post("/v1/alerts", &from_agent(brute_force("1", "203.0.113.7"), "006", "web-02")).await.is(202);
        let order = rogue.owed_one().await;
        let mut result = rogue.result(order.jti, Outcome::Failed, Some(false));
        result.output = format!("\u{1b}]0;owned\u{7}'; DROP TABLE results; --\0{}", "x".repeat(100_000));
        result.message = "m\0\u{1b}[2J".into();
        rogue.report(vec![result]).await;
        let after = command(&admin, order.jti).await;
        let output = after["result"]["output"].as_str().unwrap();
        assert!(output.len() <= 16 * 1024 + 2 && !output.contains('\0'), "{} bytes", output.len());
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }
}
