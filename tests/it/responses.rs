//! What follows from a decision: responses and the effects that they hold, until they expire or are
//! lifted.

use riposte_protocol::command::Op;
use riposte_protocol::message::{Capability, Outcome};
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::app::NOW;
use crate::support::{Client, Database, FakeAgent, TestApp};

/// A manager with one agent, `web-01`, which is Wazuh's agent 005.
pub(super) async fn with_agent(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    (app, admin, agent)
}

/// Drops `target` on web-01 by hand; an empty `for_` means without an end.
pub(super) async fn drop_by_hand(admin: &Client, target: &str, for_: &str) -> Value {
    let mut asked = json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "reason": "seen"});
    if !for_.is_empty() {
        asked["for"] = json!(for_);
    }
    admin.post("/v1/responses", &asked).await.is(201)
}

pub(super) fn path(list: &str, thing: &Value) -> String {
    format!("/v1/{list}/{}", thing["id"].as_str().unwrap())
}

pub(super) async fn lift(admin: &Client, response: &Value) -> Value {
    admin.post(&format!("{}/lift", path("responses", response)), &json!({"reason": "over"})).await.is(200)
}

/// Returns the only effect.
pub(super) async fn effect(admin: &Client) -> Value {
    let mut effects = admin.list("/v1/effects").await;
    assert_eq!(effects.len(), 1, "{effects:?}");
    effects.remove(0)
}

pub(super) async fn command(admin: &Client, id: Uuid) -> Value {
    admin.get(&format!("/v1/commands/{id}")).await.is(200)
}

pub(super) fn after(secs: u64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap().plus(std::time::Duration::from_secs(secs))
}

#[tokio::test]
async fn a_response_by_hand_with_faults_is_refused_and_each_is_pointed_at() {
    let (_app, admin, _agent) = with_agent(Database::sqlite()).await;
    let right = json!({"action": "firewall-drop", "target": "203.0.113.7", "agents": ["web-01"], "for": "10m",
        "reason": "seen"});
    let with = |key: &str, value: Value| {
        let mut asked = right.clone();
        asked[key] = value;
        asked
    };
    for (asked, places) in [
        (with("action", json!("firewal-drop")), vec!["/action"]),
        (with("target", json!("203.0.113.7/24")), vec!["/target/value"]),
        (with("target", json!({"kind": "ip", "value": "localhost"})), vec!["/target/value"]),
        (with("target", json!({"kind": "user", "value": "jdoe"})), vec!["/target/kind"]),
        (with("target", Value::Null), vec!["/target"]),
        (with("agents", json!(["web-01", "web-02", "web-03"])), vec!["/agents/1", "/agents/2"]),
        (with("agents", json!([])), vec!["/agents"]),
        (with("reason", json!(" ")), vec!["/reason"]),
        (with("reason", json!("x".repeat(2001))), vec!["/reason"]),
        (with("arguments", json!(vec!["x"; 33])), vec!["/arguments"]),
        (with("arguments", json!(["x".repeat(1025)])), vec!["/arguments"]),
        (with("for", json!("10 minutes")), vec!["/for"]),
        (with("agents", json!("web-01")), vec!["/agents"]),
    ] {
        assert_eq!(admin.post("/v1/responses", &asked).await.points_at(), places, "{asked}");
    }
    // Unknown and missing fields: the detail names the field.
    for (asked, word) in
        [(with("until", json!("10m")), "until"), (json!({"action": "log-only", "agents": ["web-01"]}), "reason")]
    {
        let problem = admin.post("/v1/responses", &asked).await.is_problem(422);
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    // log-only takes every kind of target, so the kind must be given.
    let vague = json!({"action": "log-only", "target": "jdoe", "agents": ["web-01"], "reason": "seen"});
    assert_eq!(admin.post("/v1/responses", &vague).await.points_at(), ["/target"]);
    let suggestion = admin.post("/v1/responses", &with("action", json!("firewal-drop"))).await.is_problem(422);
    assert!(suggestion["errors"][0]["detail"].as_str().unwrap().contains("did you mean firewall-drop?"));
    assert_eq!((admin.list("/v1/responses").await.len(), admin.list("/v1/commands").await.len()), (0, 0));
    admin.post("/v1/responses", &right).await.is(201);
}

#[tokio::test]
async fn a_response_by_hand_on_a_protected_target_is_refused() {
    let (_app, admin, _agent) = with_agent(Database::sqlite()).await;
    for (action, target) in [
        ("firewall-drop", "127.0.0.1"),
        ("firewall-drop", "::1"),
        ("firewall-drop", "::ffff:127.0.0.1"),
        ("firewall-drop", "0.0.0.0"),
        ("firewall-drop", "224.0.0.1"),
        ("firewall-drop", "255.255.255.255"),
        ("route-null", "ff02::1"),
        ("disable-account", "root"),
        ("disable-account", "ROOT"),
    ] {
        let asked = json!({"action": action, "target": target, "agents": ["web-01"], "reason": "seen"});
        assert_eq!(admin.post("/v1/responses", &asked).await.points_at(), ["/target"], "{action} {target}");
    }
    assert_eq!(admin.list("/v1/commands").await.len(), 0);
}

#[tokio::test]
async fn a_response_by_hand_says_what_it_did_and_who_ordered_it() {
    let (_app, admin, agent) = with_agent(Database::sqlite()).await;
    let asked = json!({"action": "disable-account", "target": {"kind": "user", "value": "jdoe"},
        "agents": [agent.id.to_string(), "web-01"], "for": "1h30m", "reason": "ticket 7", "arguments": ["end-sessions"]});
    let traced = admin.request(reqwest::Method::POST, "/v1/responses");
    let traced = traced.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let made = crate::support::Answer::to(traced.json(&asked)).await.is(201);
    assert_eq!((&made["state"], &made["note"]), (&json!("active"), &json!("ticket 7")));
    assert_eq!(made["agents"], json!([agent.id]), "the same agent twice is one agent");
    assert_eq!(made["until"], json!(after(5400)));
    assert!(made["requested_by"].as_str().unwrap().starts_with("key:"));
    assert_eq!(made["trace"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!((made["effects"].as_array().unwrap().len(), made["commands"].as_array().unwrap().len()), (1, 1));
    let sent = agent.answer(Outcome::Succeeded, Some(true)).await;
    assert_eq!(
        (sent.op, sent.action.as_str(), sent.target.to_string().as_str()),
        (Op::Apply, "disable-account", "user jdoe")
    );
    assert_eq!((sent.arguments.as_slice(), sent.until), (["end-sessions".to_owned()].as_slice(), Some(after(5400))));
    assert_eq!((sent.aud, sent.response.to_string()), (agent.id, made["id"].as_str().unwrap().to_owned()));
    let seen = admin.get(&path("responses", &made)).await.is(200);
    let result = &seen["results"][0];
    assert_eq!(
        (&result["outcome"], &result["exit_code"], &result["verified"]),
        (&json!("succeeded"), &json!(0), &json!(true))
    );
    assert_eq!((&result["output"], &result["message"]), (&json!("played"), &json!("the test says so")));
    assert_eq!(
        (&seen["effects"][0]["actual"], &seen["commands"][0]["state"]),
        (&json!("in_force"), &json!("succeeded"))
    );
}

on_both_databases! {
    async fn lifting_a_response_reverts_its_effects(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let apply = agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!(effect(&admin).await["actual"], "in_force");
        let lifted = lift(&admin, &response).await;
        assert_eq!(
            (&lifted["state"], &lifted["reason"], &lifted["detail"]),
            (&json!("ended"), &json!("lifted"), &json!("over"))
        );
        assert_eq!(effect(&admin).await["desired"], "absent");
        let revert = agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!((revert.op, revert.effect), (Op::Revert, apply.effect));
        assert!(revert.seq > apply.seq);
        assert_eq!(effect(&admin).await["actual"], "absent");
        // A second lift changes nothing.
        assert_eq!(lift(&admin, &response).await["ended_at"], lifted["ended_at"]);
        assert_eq!(agent.owed().await, []);
        let unknown = format!("/v1/responses/{}/lift", Uuid::nil());
        admin.post(&unknown, &json!({"reason": "over"})).await.is_problem(404);
        let again = format!("{}/lift", path("responses", &response));
        assert_eq!(admin.post(&again, &json!({"reason": ""})).await.points_at(), ["/reason"]);
    }

    /// Promise 6, first test.
    async fn promise_6_the_longest_of_two_responses_wins_and_lifting_it_leaves_the_other(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let short = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let long = drop_by_hand(&admin, "203.0.113.7", "30m").await;
        let middle = drop_by_hand(&admin, "203.0.113.7", "20m").await;
        let equal = drop_by_hand(&admin, "203.0.113.7", "30m").await;
        // Only a later end has to be sent.
        let ends: Vec<(Op, Option<Timestamp>)> = agent.obey().await.iter().map(|c| (c.op, c.until)).collect();
        assert_eq!(ends, [(Op::Apply, Some(after(600))), (Op::Apply, Some(after(1800)))]);
        let held = admin.get(&path("effects", &effect(&admin).await)).await.is(200);
        assert_eq!((&held["until"], held["held_by"].as_array().unwrap().len()), (&json!(after(1800)), 4));

        lift(&admin, &middle).await;
        lift(&admin, &equal).await;
        assert_eq!(agent.owed().await, [], "another response lasts longer");
        lift(&admin, &long).await;
        let shortened = agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!((shortened.op, shortened.until), (Op::Apply, Some(after(600))));
        let standing = effect(&admin).await;
        assert_eq!((&standing["desired"], &standing["until"]), (&json!("in_force"), &json!(after(600))));
        lift(&admin, &short).await;
        let revert = agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!((revert.op, revert.effect), (Op::Revert, shortened.effect));
        let standing = effect(&admin).await;
        assert_eq!((&standing["desired"], &standing["actual"]), (&json!("absent"), &json!("absent")));
    }

    async fn a_block_without_an_end_outlasts_one_with_an_end(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let endless = drop_by_hand(&admin, "203.0.113.7", "").await;
        let short = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(agent.obey().await.len(), 1);
        app.advance(600);
        app.in_time("the short one is over", || async {
            let seen = admin.get(&path("responses", &short)).await.is(200);
            (seen["state"] == "ended").then_some(())
        })
        .await;
        assert_eq!(agent.owed().await, []);
        assert_eq!(effect(&admin).await["desired"], "in_force");
        lift(&admin, &endless).await;
        assert_eq!(agent.owed_one().await.op, Op::Revert);
    }

    /// Promise 5, first test.
    async fn promise_5_a_block_is_lifted_when_its_time_is_over_and_not_before(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("drop")).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let response = json!({"id": answer["responses"][0]});
        agent.answer(Outcome::Succeeded, Some(true)).await;
        app.advance(598);
        let revert = app.in_time("the revert is owed", || async { agent.owed().await.pop() }).await;
        assert_eq!(revert.op, Op::Revert);
        let ended = admin.get(&path("responses", &response)).await.is(200);
        assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("elapsed")));
        let ended_at: Timestamp = serde_json::from_value(ended["ended_at"].clone()).unwrap();
        assert!((after(600)..after(602)).contains(&ended_at), "{ended_at}");
        agent.answer(Outcome::Succeeded, Some(true)).await;
        let standing = effect(&admin).await;
        assert_eq!((&standing["desired"], &standing["actual"]), (&json!("absent"), &json!("absent")));
        // The next alert starts a new block.
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.7")).await.is(202);
        let again = agent.owed_one().await;
        assert_eq!((again.op, again.effect), (Op::Apply, revert.effect));
    }

    async fn promise_5_a_block_that_is_over_while_the_manager_is_down_is_lifted_when_it_is_back(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        agent.answer(Outcome::Succeeded, Some(true)).await;
        let clock = app.clock.clone();
        clock.advance(std::time::Duration::from_secs(599));
        let (app, admin) = app.restart().await;
        assert_eq!(effect(&admin).await["desired"], "in_force", "a restart lifts nothing early");
        let agent = agent.moved_to(&app);
        clock.advance(std::time::Duration::from_secs(1));
        let revert = app.in_time("the revert is owed", || async { agent.owed().await.pop() }).await;
        assert_eq!(revert.op, Op::Revert);
    }

    async fn every_policy_that_fires_leaves_a_response_that_says_why_it_did_nothing(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        let token = admin.post("/v1/enrollment-tokens", &json!({"labels": {"wazuh_id": "007"}})).await.is(201);
        let unable =
            Capability { action: "firewall-drop".into(), available: false, reason: Some("nft is missing".into()) };
        FakeAgent::enrol(&app, token["token"].as_str().unwrap(), "db-01", vec![unable]).await;
        admin.policy(&drop_policy("drop")).await;
        let mut untargeted = brute_force("2", "");
        untargeted["data"] = json!({"dstuser": "jdoe"});
        for (alert, reason, hint) in [
            (from_agent(brute_force("1", "203.0.113.7"), "099", "gone"), "agent_unknown", "no enrolled agent"),
            (untargeted, "target_missing", "no such target"),
            (brute_force("3", "203.0.113.7; reboot"), "target_invalid", "not one IPv4 or IPv6 address"),
            (brute_force("4", "127.0.0.53"), "protected", "loopback"),
            (from_agent(brute_force("5", "203.0.113.7"), "007", "db-01"), "action_unavailable", "nft is missing"),
        ] {
            let answer = admin.post("/v1/alerts", &alert).await.is(202);
            let response = admin.get(&path("responses", &json!({"id": answer["responses"][0]}))).await.is(200);
            assert_eq!((&response["state"], &response["reason"]), (&json!("spared"), &json!(reason)), "{response}");
            assert!(response["detail"].as_str().unwrap().contains(hint), "{response}");
            assert_eq!((&response["effects"], &response["commands"]), (&json!([]), &json!([])));
            assert_eq!(response["until"], json!(after(600)), "the planned end is shown");
            let lifted = admin.post(&format!("{}/lift", path("responses", &response)), &json!({"reason": "x"})).await;
            lifted.is_problem(409);
            assert_eq!(
                admin.history("response", response["id"].as_str().unwrap()).await,
                [("policy:drop".to_owned(), "spared".to_owned())]
            );
        }
        assert_eq!(admin.list("/v1/responses?state=spared").await.len(), 5);
        assert_eq!((admin.list("/v1/commands").await.len(), admin.list("/v1/effects").await.len()), (0, 0));
    }

    async fn observing_records_exactly_what_would_have_been_sent_and_sends_nothing(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let mut policy = drop_policy("enforcing");
        policy["respond"] = json!({"action": "log-only", "target": "source.ip", "for": "10m", "arguments": ["a b", "$(c)"]});
        admin.policy(&policy).await;
        policy["name"] = json!("observing");
        policy["mode"] = json!("observe");
        admin.policy(&policy).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "::ffff:203.0.113.7")).await.is(202);
        let mut seen = Vec::new();
        for id in answer["responses"].as_array().unwrap() {
            seen.push(admin.get(&path("responses", &json!({"id": id}))).await.is(200));
        }
        let [enforced, observed] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((&enforced["state"], &observed["state"]), (&json!("active"), &json!("observed")));
        for key in ["action", "target_kind", "target_value", "agents", "until", "arguments", "alert_id"] {
            assert_eq!(enforced[key], observed[key], "{key}");
            assert!(!observed[key].is_null(), "{key}");
        }
        assert_eq!(
            (observed["effects"].as_array().unwrap().len(), observed["commands"].as_array().unwrap().len()),
            (0, 0)
        );
        let sent = agent.owed_one().await;
        assert_eq!(
            (sent.response.to_string().as_str(), sent.target.value()),
            (enforced["id"].as_str().unwrap(), "203.0.113.7")
        );
        assert_eq!(sent.arguments, ["a b", "$(c)"]);
    }

    /// Promise 5: a revert is retried until it succeeds, and one that keeps failing is shown.
    async fn promise_5_a_revert_that_fails_is_tried_again_and_shown_until_it_is_done(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 0);
        lift(&admin, &response).await;
        let mut reverts = vec![agent.answer(Outcome::Failed, Some(false)).await];
        // 2 s, 4 s, 8 s: each time twice as long.
        for (failures, outcome, verified, wait) in
            [(1, Outcome::TimedOut, None, 2), (2, Outcome::Succeeded, Some(false), 4), (3, Outcome::Refused, None, 8)]
        {
            let failing = admin.list("/v1/effects?failing=true").await;
            assert_eq!((failing.len(), &failing[0]["failed_reverts"]), (1, &json!(failures)));
            assert_eq!((&failing[0]["desired"], &failing[0]["actual"]), (&json!("absent"), &json!("drifted")));
            let next = json!(app.clock.now().plus(std::time::Duration::from_secs(wait)));
            assert_eq!(failing[0]["next_revert_at"], next, "after {failures} failures");
            admin.metrics_show("riposte_effects_failing 1\n", true).await;
            app.advance(wait - 1);
            app.in_time("it is tried again", || async { agent.owed().await.pop() }).await;
            let begun: Timestamp = serde_json::from_value(next).unwrap();
            assert!(app.clock.now() >= begun, "too early");
            reverts.push(agent.answer(outcome, verified).await);
        }
        app.advance(15);
        app.in_time("it is tried again", || async { agent.owed().await.pop() }).await;
        reverts.push(agent.answer(Outcome::Succeeded, Some(true)).await);
        assert!(reverts.iter().all(|revert| revert.op == Op::Revert && revert.effect == reverts[0].effect));
        assert!(reverts.is_sorted_by(|a, b| a.seq < b.seq));
        let standing = effect(&admin).await;
        assert_eq!(
            (&standing["actual"], &standing["failed_reverts"], &standing["next_revert_at"]),
            (&json!("absent"), &json!(0), &Value::Null)
        );
        admin.metrics_show("riposte_effects_failing 0\n", true).await;
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 0);
    }

    async fn revoking_an_agent_cancels_its_unsent_commands(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let mut stream = agent.stream(0).await;
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        stream.commands(&agent).await;
        let waiting = app.enrol(&admin, "web-02", &json!({})).await;
        let asked = json!({"action": "firewall-drop", "target": "203.0.113.9", "agents": ["web-02"], "reason": "seen"});
        let response = admin.post("/v1/responses", &asked).await.is(201);
        for id in [agent.id, waiting.id] {
            admin.delete(&format!("/v1/agents/{id}"), None).await.is(204);
            admin.delete(&format!("/v1/agents/{id}"), None).await.is_problem(404);
        }
        stream.hear_the_end().await;
        let command = admin.get(&path("commands", &response["commands"][0])).await.is(200);
        assert_eq!(command["state"], "cancelled");
        assert_eq!(admin.list("/v1/commands?state=queued").await.len(), 0);
        assert_eq!((admin.list("/v1/agents").await.len(), admin.list("/v1/agents?revoked=true").await.len()), (0, 2));
        let problem = admin.post("/v1/responses", &asked).await;
        assert_eq!(problem.points_at(), ["/agents/0"]);
        // Its name is free again.
        app.enrol(&admin, "web-01", &json!({})).await;
    }

    /// The revoked agent fetches nothing, so its commands must end.
    async fn an_agent_that_was_revoked_is_owed_nothing_when_its_blocks_are_over(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let brief = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let endless = drop_by_hand(&admin, "203.0.113.8", "").await;
        agent.obey().await;
        admin.delete(&format!("/v1/agents/{}", agent.id), None).await.is(204);
        app.advance(599);
        app.in_time("the response is over", || async {
            let seen = admin.get(&path("responses", &brief)).await.is(200);
            (seen["state"] == "ended").then_some(())
        })
        .await;
        lift(&admin, &endless).await;
        assert_eq!(admin.list("/v1/commands?state=queued").await, Vec::<Value>::new());
    }
}
