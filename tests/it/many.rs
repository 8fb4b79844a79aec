//! Many responses at once: lists and their filters, lifting by a filter, freezing everything,
//! explaining one response.

use riposte_protocol::command::Op;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Database;
use crate::support::alert::{brute_force, drop_policy};

use super::responses::{after, drop_by_hand, lift, with_agent};

#[tokio::test]
async fn lists_of_responses_effects_and_commands_apply_their_filters() {
    let (app, admin, agent) = with_agent(Database::sqlite()).await;
    app.enrol(&admin, "web-02", &json!({})).await;
    let lifted = drop_by_hand(&admin, "203.0.113.1", "10m").await;
    agent.obey().await;
    lift(&admin, &lifted).await;
    drop_by_hand(&admin, "203.0.113.2", "10m").await;
    let asked = json!({"action": "log-only", "agents": ["web-02"], "reason": "seen"});
    let other = admin.post("/v1/responses", &asked).await.is(201);
    let other_agent = other["agents"][0].as_str().unwrap();
    let of_lifted = lifted["id"].as_str().unwrap();
    let effect_of_lifted = lifted["effects"][0]["id"].as_str().unwrap();
    for (query, count) in [
        ("responses".to_owned(), 3),
        ("responses?state=active".into(), 2),
        ("responses?state=ended".into(), 1),
        ("responses?target=203.0.113.2".into(), 1),
        ("responses?action=log-only".into(), 1),
        ("responses?policy=none".into(), 0),
        ("effects".into(), 3),
        ("effects?desired=absent".into(), 1),
        ("effects?actual=in_force".into(), 1),
        (format!("effects?agent_id={other_agent}"), 1),
        ("effects?target=203.0.113.1&desired=in_force".into(), 0),
        ("commands".into(), 4),
        ("commands?state=succeeded".into(), 1),
        ("commands?state=queued".into(), 3),
        (format!("commands?agent_id={other_agent}&state=queued"), 1),
        (format!("commands?response_id={of_lifted}"), 2),
        (format!("commands?effect_id={effect_of_lifted}"), 2),
    ] {
        assert_eq!(admin.list(&format!("/v1/{query}")).await.len(), count, "{query}");
    }
    for query in ["responses?state=lifted", "commands?state=sent", "effects?desired=gone", "effects?actual=gone"] {
        let place = format!("/{}", query.split(['?', '=']).nth(1).unwrap());
        assert_eq!(admin.get(&format!("/v1/{query}")).await.points_at(), [place], "{query}");
    }
}

#[tokio::test]
async fn many_responses_are_lifted_at_once_by_a_filter() {
    let (app, admin, agent) = with_agent(Database::sqlite()).await;
    admin.policy(&drop_policy("drop")).await;
    let by_policy = async |id: &str, target: &str| {
        let answer = admin.post("/v1/alerts", &brute_force(id, target)).await.is(202);
        answer["responses"][0].as_str().unwrap().to_owned()
    };
    let early = by_policy("1", "203.0.113.1").await;
    app.advance(60);
    let late = by_policy("2", "203.0.113.2").await;
    let by_hand = drop_by_hand(&admin, "203.0.113.2", "1h").await["id"].as_str().unwrap().to_owned();
    agent.obey().await;
    let lift = async |filter: Value| {
        let answer = admin.post("/v1/responses/lift", &filter).await.is(200);
        let mut ids: Vec<String> = serde_json::from_value(answer["responses"].clone()).unwrap();
        assert_eq!(answer["count"], ids.len());
        ids.sort();
        ids
    };
    let alert = admin.get(&format!("/v1/responses/{early}")).await.is(200)["alert_id"].clone();
    // A dry run returns the number, and nothing happens.
    for (filter, expected) in [
        (json!({"policy": "drop"}), vec![&early, &late]),
        (json!({"policy": "other"}), vec![]),
        (json!({"rule_id": "05763"}), vec![&early, &late]),
        (json!({"alert_id": alert}), vec![&early]),
        (json!({"target": "203.0.113.2"}), vec![&late, &by_hand]),
        (json!({"target": "203.0.113.2", "policy": "drop"}), vec![&late]),
        (json!({"since": after(60)}), vec![&late, &by_hand]),
        (json!({"until": after(60)}), vec![&early]),
        (json!({"everything": true}), vec![&early, &late, &by_hand]),
    ] {
        let mut filter = filter;
        filter["dry_run"] = json!(true);
        filter["reason"] = json!("mistake");
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(lift(filter.clone()).await, expected, "{filter}");
    }
    let own = admin.get(&format!("/v1/responses?alert_id={}", alert.as_str().unwrap())).await.is(200);
    assert_eq!(own["items"][0]["id"], early.as_str());
    let own_id = brute_force("1", "203.0.113.1")["id"].clone();
    assert_eq!(
        lift(json!({"alert_id": own_id, "dry_run": true, "reason": "x"})).await,
        std::slice::from_ref(&early),
        "Wazuh's own id"
    );
    let warned = async |filter: Value| {
        let answer = admin.post("/v1/responses/lift", &filter).await.is(200);
        assert_eq!(answer["count"], 0);
        let of = |warning: &Value| {
            format!("{} {}", warning["pointer"].as_str().unwrap(), warning["detail"].as_str().unwrap())
        };
        answer["warnings"].as_array().into_iter().flatten().map(of).collect::<Vec<_>>()
    };
    let no_alert = "/alert_id is not a stored alert, neither by Riposte's id nor by its pipeline's";
    for word in ["1795169472.99999", "0192f0c8-0000-7000-8000-000000000000"] {
        assert_eq!(warned(json!({"alert_id": word, "reason": "x"})).await, [no_alert]);
    }
    assert_eq!(
        warned(json!({"rule_id": "99999", "reason": "x"})).await,
        ["/rule_id no policy names the rule \"99999\", and none of the newest 10000 responses is due to it"]
    );
    assert_eq!(warned(json!({"rule_id": "5763", "until": after(0), "reason": "x"})).await, Vec::<String>::new());
    assert_eq!(agent.owed().await, []);
    // An empty filter must not lift everything.
    assert_eq!(admin.post("/v1/responses/lift", &json!({"reason": "oops"})).await.points_at(), [""]);
    assert_eq!(
        admin.post("/v1/responses/lift", &json!({"everything": true, "reason": " "})).await.points_at(),
        ["/reason"]
    );
    assert_eq!(lift(json!({"policy": "drop", "reason": "mistake"})).await.len(), 2);
    let reverts = agent.obey().await;
    assert_eq!(
        reverts.iter().filter(|command| command.op == Op::Revert).count(),
        1,
        "the response by hand is still active"
    );
    assert_eq!(lift(json!({"policy": "drop", "reason": "mistake"})).await, Vec::<String>::new());
    assert_eq!(lift(json!({"everything": true, "count": 1, "reason": "mistake"})).await, [by_hand]);
    assert_eq!(agent.owed_one().await.op, Op::Revert);
}

on_both_databases! {
    async fn while_everything_is_frozen_nothing_new_is_delivered_and_blocks_are_still_lifted(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("drop")).await;
        let freeze = async |frozen: bool| {
            admin.put("/v1/freeze", &json!({"frozen": frozen, "reason": "night"}), None).await.is(200)
        };
        assert_eq!(admin.get("/v1/freeze").await.is(200), json!({"frozen": false, "held_back": 0}));
        let standing = drop_by_hand(&admin, "203.0.113.1", "1h").await;
        agent.obey().await;
        let mut stream = agent.stream(0).await;
        let frozen = freeze(true).await;
        assert_eq!((&frozen["frozen"], &frozen["last_change"]["reason"]), (&json!(true), &json!("night")));
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.2")).await.is(202);
        assert_eq!(agent.owed().await, []);
        lift(&admin, &standing).await;
        assert_eq!(stream.commands(&agent).await[0].op, Op::Revert);
        // A restart does not thaw.
        let (app, admin) = app.restart().await;
        let agent = agent.moved_to(&app);
        assert_eq!(admin.get("/v1/freeze").await.is(200)["frozen"], true);
        assert!(agent.obey().await.iter().all(|command| command.op == Op::Revert));
        let mut stream = agent.stream(0).await;
        // The stream delivers the commands that were queued meanwhile.
        admin.put("/v1/freeze", &json!({"frozen": false, "reason": "morning"}), None).await.is(200);
        let thawed = stream.commands(&agent).await;
        assert_eq!((thawed[0].op, thawed[0].target.value()), (Op::Apply, "203.0.113.2"));
        assert_eq!(
            admin.put("/v1/freeze", &json!({"frozen": true, "reason": ""}), None).await.points_at(),
            ["/reason"]
        );
        drop(app);
    }
}

#[tokio::test]
async fn an_alert_explains_why_each_policy_did_or_did_not_fire() {
    let (_app, admin, agent) = with_agent(Database::sqlite()).await;
    admin.policy(&drop_policy("drop")).await;
    let mut observing = drop_policy("observing");
    observing["mode"] = json!("observe");
    observing["match"] = json!([{"rule_ids": ["1"]}, {"min_level": 10, "rule_groups": ["sshd"]}]);
    admin.policy(&observing).await;
    let mut quiet = drop_policy("quiet");
    quiet["match"] = json!([{"min_level": 11}, {"rule_groups": ["web"]}]);
    admin.policy(&quiet).await;
    let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
    let alert = admin.get("/v1/alerts").await.is(200)["items"][0]["id"].as_str().unwrap().to_owned();
    let explained = admin.get(&format!("/v1/alerts/{alert}/explain")).await.is(200);
    assert_eq!((&explained["origin"], explained["decided"].as_array().unwrap().len()), (&json!(agent.id), 2));
    let now = |name: &str| {
        let verdicts = explained["now"].as_array().unwrap();
        verdicts.iter().find(|verdict| verdict["policy"] == name).unwrap().clone()
    };
    assert_eq!((&now("drop")["fires"], &now("drop")["verdict"]), (&json!(true), &json!("act")));
    assert_eq!((&now("observing")["fires"], &now("observing")["verdict"]), (&json!(true), &json!("observe")));
    let holds: Vec<bool> =
        now("observing")["selectors"].as_array().unwrap().iter().map(|s| s["holds"] == true).collect();
    assert_eq!(holds, [false, true]);
    assert_eq!(now("quiet")["fires"], false);
    for selector in now("quiet")["selectors"].as_array().unwrap() {
        assert!(!selector["because"].as_str().unwrap().is_empty(), "{selector}");
    }
    // Explaining changes nothing.
    assert_eq!(admin.list("/v1/responses").await.len(), answer["responses"].as_array().unwrap().len());
    admin.get(&format!("/v1/alerts/{}/explain", Uuid::nil())).await.is_problem(404);
}
