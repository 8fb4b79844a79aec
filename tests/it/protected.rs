//! Promise 7: protected means protected. Checked when deciding, when delivering, and for effects in
//! force.

use riposte_protocol::command::Op;
use riposte_protocol::message::{Outcome, PollRequest};
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy, ndjson};
use crate::support::{Client, Database, FakeAgent, TestApp};

async fn with_agent(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    admin.policy(&drop_policy("drop")).await;
    (app, admin, agent)
}

async fn protect(admin: &Client, kind: &str, value: &str) -> Value {
    admin.post("/v1/protected", &json!({"kind": kind, "value": value, "reason": "the bank"})).await.is(201)
}

/// Returns the response to an alert from `source_ip`.
async fn answer(admin: &Client, id: &str, source_ip: &str) -> Value {
    let answer = admin.post("/v1/alerts", &brute_force(id, source_ip)).await.is(202);
    admin.get(&format!("/v1/responses/{}", answer["responses"][0].as_str().unwrap())).await.is(200)
}

fn by_hand(target: &str) -> Value {
    json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "reason": "seen"})
}

on_both_databases! {
    /// Promise 7, when deciding: on the effective target, in every spelling.
    async fn promise_7_a_protected_target_is_spared_and_refused_by_hand(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        protect(&admin, "ip", "203.0.113.0/24").await;
        protect(&admin, "user", "Backup").await;
        for (n, source) in ["203.0.113.7", "::ffff:203.0.113.7", "::ffff:cb00:7107"].iter().enumerate() {
            let spared = answer(&admin, &format!("1.{n}"), source).await;
            assert_eq!((&spared["state"], &spared["reason"]), (&json!("spared"), &json!("protected")), "{source}");
            assert!(spared["detail"].as_str().unwrap().contains("the bank"), "{spared}");
            assert_eq!(admin.post("/v1/responses", &by_hand(source)).await.points_at(), ["/target"]);
        }
        let lock = json!({"action": "disable-account", "target": "BACKUP", "agents": ["web-01"], "reason": "seen"});
        assert_eq!(admin.post("/v1/responses", &lock).await.points_at(), ["/target"]);
        assert_eq!(answer(&admin, "2", "203.0.114.7").await["state"], "active");
        assert_eq!(agent.owed_one().await.target.value(), "203.0.114.7");
    }

    /// A value that names nothing gets a warning. A typing error must not look like
    /// protection.
    async fn a_value_that_names_nothing_gets_a_warning(database: Database) {
        let (_app, admin, _agent) = with_agent(database).await;
        let entry = json!({"kind": "ip", "value": "0.0.0.0/0", "policies": ["drop", "dorp"], "reason": "r"});
        let created = admin.post("/v1/protected?dry_run=true", &entry).await.is(200);
        let places: Vec<&str> =
            created["warnings"].as_array().unwrap().iter().map(|warning| warning["pointer"].as_str().unwrap()).collect();
        assert_eq!(places, ["/policies/1", "/value"]);

        answer(&admin, "1", "203.0.113.7").await;
        let lift = async |filter: Value| {
            let mut body = json!({"dry_run": true, "reason": "r"});
            body.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
            admin.post("/v1/responses/lift", &body).await.is(200)
        };
        let found = lift(json!({"policy": "drop"})).await;
        assert_eq!((&found["count"], &found["warnings"]), (&json!(1), &Value::Null));
        for (filter, place, told) in [
            (json!({"policy": "dorp"}), "/policy", "no policy named"),
            (json!({"target": "203.0.113.007"}), "/target", "canonical form"),
            (json!({"alert_id": "01980f00-0000-7000-8000-000000000001"}), "/alert_id", "not a stored alert"),
            (json!({"since": "2026-11-20T00:00:00Z", "until": "2026-11-19T00:00:00Z"}), "/until", "not after since"),
        ] {
            let empty = lift(filter).await;
            assert_eq!((&empty["count"], &empty["warnings"][0]["pointer"]), (&json!(0), &json!(place)));
            assert!(empty["warnings"][0]["detail"].as_str().unwrap().contains(told), "{empty}");
        }
    }

    /// A policy gets a warning for actions and labels that no enrolled agent has.
    async fn a_policy_is_warned_about_beside_the_agents(database: Database) {
        let (_app, admin, _agent) = with_agent(database).await;
        let policy = json!({"name": "noisy", "match": [{"min_level": 3}],
            "respond": {"action": "firewall-drop", "on": {"labels": {"env": "prd"}}}});
        let view = admin.post("/v1/policies", &policy).await.is(201);
        let places: Vec<&str> =
            view["warnings"].as_array().unwrap().iter().map(|warning| warning["pointer"].as_str().unwrap()).collect();
        assert_eq!(places, ["/respond/on/labels", "/respond/for"]);
        let listed = admin.get("/v1/policies").await.is(200);
        let noisy = listed["items"].as_array().unwrap().iter().find(|item| item["name"] == "noisy").unwrap();
        assert_eq!(noisy["warnings"], view["warnings"]);
    }

    /// Promise 7, when delivering: commands that were queued before.
    async fn promise_7_a_command_whose_target_became_protected_while_queued_is_not_delivered(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        answer(&admin, "1", "203.0.113.7").await;
        answer(&admin, "2", "198.51.100.7").await;
        let created = protect(&admin, "ip", "203.0.113.7").await;
        assert_eq!(created["lifts"].as_array().unwrap().len(), 1);
        let applied: Vec<String> = agent
            .owed()
            .await
            .iter()
            .filter(|command| command.op == Op::Apply)
            .map(|command| command.target.value().to_owned())
            .collect();
        assert_eq!(applied, ["198.51.100.7"]);
    }

    /// Promise 11: commands that may no longer be delivered hold up no other command, however many
    /// there are.
    async fn promise_11_commands_for_protected_targets_hold_up_no_revert(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        answer(&admin, "0", "198.51.100.7").await;
        agent.obey().await;
        app.advance(300);
        let alerts: Vec<Value> =
            (0..300).map(|n| brute_force(&format!("1.{n}"), &format!("203.0.{}.{}", n / 200, n % 200))).collect();
        admin.alerts("application/x-ndjson", ndjson(&alerts)).await.is(202);
        app.advance(299);
        app.in_time("the first block is over", || async {
            admin.list("/v1/responses?state=ended").await.pop()
        })
        .await;
        protect(&admin, "ip", "203.0.0.0/16").await;
        let lifted = app
            .in_time("the revert that matters", || async {
                agent.owed().await.into_iter().find(|command| command.target.value() == "198.51.100.7")
            })
            .await;
        assert_eq!(lifted.op, Op::Revert);
        let ended = app
            .in_time("nothing that is protected is owed", || async {
                assert!(agent.owed().await.iter().all(|command| command.op == Op::Revert));
                let ended = admin.list("/v1/commands?state=cancelled").await;
                (ended.len() == 300).then_some(ended)
            })
            .await;
        assert!(ended[0]["detail"].as_str().unwrap().contains("the bank"), "{}", ended[0]);
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    /// Promises 6 and 7 together: a target that is protected from one policy may still be blocked
    /// by another.
    async fn promise_6_a_target_protected_from_one_policy_stays_blocked_by_the_other(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("also")).await;
        let hit = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        assert_eq!(hit["responses"].as_array().unwrap().len(), 2);
        let first = agent.owed_one().await.response.to_string();
        let asked = admin.get(&format!("/v1/responses/{first}")).await.is(200)["policy"].clone();
        let entry = json!({"kind": "ip", "value": "203.0.113.7", "policies": [asked], "reason": "tests"});
        admin.post("/v1/protected", &entry).await.is(201);
        let sent = agent.owed_one().await;
        assert_eq!(sent.op, Op::Apply);
        assert_ne!(sent.response.to_string(), first);
    }

    /// The same, seen from the older response: the policy of the newer one does not judge its
    /// commands.
    async fn promise_10_an_effect_of_one_policy_is_applied_again_after_the_other_was_stopped(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let mut also = drop_policy("also");
        also["respond"]["for"] = json!("9m");
        admin.policy(&also).await;
        let hit = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let mut ids: Vec<&str> = hit["responses"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        ids.sort_unstable();
        agent.obey().await;
        let newer = admin.get(&format!("/v1/responses/{}", ids[1])).await.is(200)["policy"].clone();
        let entry = json!({"kind": "ip", "value": "203.0.113.7", "policies": [newer], "reason": "tests"});
        admin.post("/v1/protected", &entry).await.is(201);
        // If the newer one lasted longer, the effect ends earlier now.
        for command in agent.obey().await {
            assert_eq!((command.op, command.response.to_string().as_str()), (Op::Apply, ids[0]));
        }
        let held = admin.list("/v1/effects").await.remove(0);
        assert_eq!((&held["desired"], &held["actual"]), (&json!("in_force"), &json!("in_force")));
        // The host is re-imaged.
        let nothing = PollRequest { effects: Some(vec![]), cursor: u64::MAX >> 1, max: 0, ..PollRequest::default() };
        agent.poll(&nothing).await;
        assert_eq!(agent.owed_one().await.response.to_string(), ids[0]);
    }

    /// Promise 7: a new entry lifts the effects in force, and a dry run names them beforehand.
    async fn promise_7_a_new_entry_lifts_the_effects_in_force_against_it(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let hit = answer(&admin, "1", "203.0.113.7").await;
        let other = answer(&admin, "2", "198.51.100.7").await;
        agent.obey().await;
        let asked = json!({"kind": "ip", "value": "203.0.113.0/24", "reason": "the bank"});
        let dry = admin.post("/v1/protected?dry_run=true", &asked).await.is(200);
        assert_eq!(dry["lifts"], json!([{"response_id": hit["id"], "effect_id": hit["effects"][0]["id"]}]));
        assert_eq!((admin.list("/v1/protected").await.len(), agent.owed().await.len()), (0, 0));
        let created = admin.post("/v1/protected", &asked).await.is(201);
        assert_eq!(created["lifts"], dry["lifts"]);
        let revert = agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!((revert.op, revert.target.value()), (Op::Revert, "203.0.113.7"));
        let state = async |response: &Value| {
            let response = admin.get(&format!("/v1/responses/{}", response["id"].as_str().unwrap())).await.is(200);
            (response["state"].clone(), response["reason"].clone())
        };
        assert_eq!(state(&hit).await, (json!("ended"), json!("protected")));
        assert_eq!(state(&other).await, (json!("active"), Value::Null));
    }

    /// A protected agent is left out; the response goes on elsewhere.
    async fn promise_7_a_protected_agent_is_left_out_and_the_others_are_not(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        let mut asked = by_hand("203.0.113.7");
        asked["agents"] = json!(["web-01", "web-02"]);
        let standing = admin.post("/v1/responses", &asked).await.is(201);
        agent.obey().await;
        other.obey().await;
        let created = protect(&admin, "agent", "web-02").await;
        assert_eq!((&created["value"], created["lifts"].as_array().unwrap().len()), (&json!(other.id), 1));
        assert_eq!(other.answer(Outcome::Succeeded, Some(true)).await.op, Op::Revert);
        assert_eq!(agent.owed().await, []);
        let standing = admin.get(&format!("/v1/responses/{}", standing["id"].as_str().unwrap())).await.is(200);
        assert_eq!(standing["state"], "active", "it holds on elsewhere");
        asked["target"] = json!("203.0.113.8");
        let next = admin.post("/v1/responses", &asked).await.is(201);
        assert_eq!(next["agents"], json!([agent.id]));
        asked["agents"] = json!(["web-02"]);
        let left_out = admin.post("/v1/responses", &asked).await.is(201);
        assert_eq!((&left_out["state"], &left_out["reason"]), (&json!("spared"), &json!("protected")));
    }

    async fn an_entry_counts_for_its_policies_and_for_its_time(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        let mut also = drop_policy("also");
        also["respond"]["action"] = json!("route-null");
        admin.policy(&also).await;
        let asked =
            json!({"kind": "ip", "value": "203.0.113.7", "policies": ["drop"], "reason": "tests", "expires_in": "1h"});
        let created = admin.post("/v1/protected", &asked).await.is(201);
        let states = async |id: &str| {
            let answer = admin.post("/v1/alerts", &brute_force(id, "203.0.113.7")).await.is(202);
            let mut states = Vec::new();
            for id in answer["responses"].as_array().unwrap() {
                let response = admin.get(&format!("/v1/responses/{}", id.as_str().unwrap())).await.is(200);
                states.push((
                    response["policy"].as_str().unwrap().to_owned(),
                    response["state"].as_str().unwrap().to_owned(),
                ));
            }
            states
        };
        let pair = |policy: &str, state: &str| (policy.to_owned(), state.to_owned());
        assert_eq!(states("1").await, [pair("also", "active"), pair("drop", "spared")]);
        admin.post("/v1/responses", &by_hand("203.0.113.7")).await.is(201);
        app.advance(3599);
        assert_eq!(states("2").await, [pair("also", "active"), pair("drop", "spared")]);
        app.advance(1);
        assert_eq!(states("3").await, [pair("also", "active"), pair("drop", "active")]);
        admin.delete(&format!("/v1/protected/{}", created["id"].as_str().unwrap()), None).await.is(204);
        protect(&admin, "ip", "203.0.113.0/24").await;
        let (_app, admin) = app.restart().await;
        assert_eq!(answer(&admin, "4", "203.0.113.7").await["state"], "spared", "a restart forgets no entry");
    }

    async fn an_entry_is_added_listed_and_deleted(database: Database) {
        let (_app, admin, _agent) = with_agent(database).await;
        let asked = json!({"kind": "ip", "value": "::ffff:203.0.113.7", "policies": ["drop"], "reason": "the bank"});
        let created = admin.post_once("/v1/protected", &asked, "key-1").await.is(201);
        assert_eq!(created["value"], "203.0.113.7");
        assert_eq!(admin.post_once("/v1/protected", &asked, "key-1").await.is(201)["id"], created["id"]);
        let listed = admin.list("/v1/protected").await;
        assert_eq!(listed.len(), 1);
        let path = format!("/v1/protected/{}", created["id"].as_str().unwrap());
        assert_eq!(admin.get(&path).await.is(200), listed[0]);
        assert_eq!((&listed[0]["policies"], &listed[0]["reason"]), (&json!(["drop"]), &json!("the bank")));
        assert_eq!(answer(&admin, "1", "203.0.113.7").await["state"], "spared");
        admin.delete(&path, None).await.is(204);
        admin.delete(&path, None).await.is_problem(404);
        admin.get(&path).await.is_problem(404);
        assert_eq!(answer(&admin, "2", "203.0.113.7").await["state"], "active");
        let verbs: Vec<String> = admin
            .history("protected", created["id"].as_str().unwrap())
            .await
            .into_iter()
            .map(|(_, verb)| verb)
            .collect();
        assert_eq!(verbs, ["created", "deleted"]);
    }
}

#[tokio::test]
async fn an_entry_with_faults_is_refused_and_each_is_pointed_at() {
    let (_app, admin, _agent) = with_agent(Database::sqlite()).await;
    let entry = |kind: &str, value: &str| json!({"kind": kind, "value": value, "reason": "why"});
    for (asked, places) in [
        (entry("ip", "203.0.113.7/24"), vec!["/value"]),
        (entry("ip", "any"), vec!["/value"]),
        (entry("ip", "10.0.0.0/33"), vec!["/value"]),
        (entry("user", "-R"), vec!["/value"]),
        (entry("user", "a\u{202e}b"), vec!["/value"]),
        (entry("agent", "no-such-agent"), vec!["/value"]),
        (entry("network", "10.0.0.0/8"), vec!["/kind"]),
        (
            json!({"kind": "ip", "value": "10.0.0.1", "policies": ["Drop It"], "reason": " "}),
            vec!["/policies/0", "/reason"],
        ),
        (json!({"kind": "ip", "value": "10.0.0.1", "reason": "why", "expires_in": "soon"}), vec!["/expires_in"]),
    ] {
        assert_eq!(admin.post("/v1/protected", &asked).await.points_at(), places, "{asked}");
    }
    admin.post("/v1/protected?dry=true", &entry("ip", "10.0.0.1")).await.is_problem(400);
    assert_eq!(admin.list("/v1/protected").await.len(), 0);
}
