//! What follows from a decision: responses, the effects they hold, the commands that takes, and what becomes of each.

use riposte_protocol::command::Op;
use riposte_protocol::message::{Capability, Outcome, PollRequest};
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::app::NOW;
use crate::support::{Client, Database, FakeAgent, TestApp, eventually};

/// A manager with one agent, `web-01`, which is Wazuh's agent 005.
pub(super) async fn with_agent(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    (app, admin, agent)
}

/// A drop of `target` on web-01 by hand; `for_` is empty for one without an end.
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

/// The only effect there is.
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
    // Unknown and missing fields: which one is said in words.
    for (asked, word) in
        [(with("until", json!("10m")), "until"), (json!({"action": "log-only", "agents": ["web-01"]}), "reason")]
    {
        let problem = admin.post("/v1/responses", &asked).await.is_problem(422);
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    // log-only takes any kind, so a text alone says too little.
    let vague = json!({"action": "log-only", "target": "jdoe", "agents": ["web-01"], "reason": "seen"});
    assert_eq!(admin.post("/v1/responses", &vague).await.points_at(), ["/target"]);
    let suggestion = admin.post("/v1/responses", &with("action", json!("firewal-drop"))).await.is_problem(422);
    assert!(suggestion["errors"][0]["detail"].as_str().unwrap().contains("did you mean firewall-drop?"));
    assert_eq!((admin.list("/v1/responses").await.len(), admin.list("/v1/commands").await.len()), (0, 0));
    admin.post("/v1/responses", &right).await.is(201);
}

#[tokio::test]
async fn nobody_may_aim_by_hand_at_what_is_protected() {
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
async fn a_response_by_hand_says_what_it_did_and_who_wanted_it() {
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
    async fn lifting_a_response_reverts_what_it_brought_about(database: Database) {
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
        // Once more changes nothing.
        assert_eq!(lift(&admin, &response).await["ended_at"], lifted["ended_at"]);
        assert_eq!(agent.owed().await, []);
        let nobody = format!("/v1/responses/{}/lift", Uuid::nil());
        admin.post(&nobody, &json!({"reason": "over"})).await.is_problem(404);
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
        // Only what makes it last longer has to be sent.
        let ends: Vec<(Op, Option<Timestamp>)> = agent.obey().await.iter().map(|c| (c.op, c.until)).collect();
        assert_eq!(ends, [(Op::Apply, Some(after(600))), (Op::Apply, Some(after(1800)))]);
        let held = admin.get(&path("effects", &effect(&admin).await)).await.is(200);
        assert_eq!((&held["until"], held["held_by"].as_array().unwrap().len()), (&json!(after(1800)), 4));

        lift(&admin, &middle).await;
        lift(&admin, &equal).await;
        assert_eq!(agent.owed().await, [], "another lasts longer");
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
        // The next alert begins anew.
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
            assert_eq!(response["until"], json!(after(600)), "what would have been is there to see");
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

    async fn a_command_can_be_called_back_until_it_is_sent(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let cancel = |command: &Value| format!("{}/cancel", path("commands", command));
        let queued = response["commands"][0].clone();
        assert_eq!(admin.post(&cancel(&queued), &json!({"reason": ""})).await.points_at(), ["/reason"]);
        let cancelled = admin.post(&cancel(&queued), &json!({"reason": "a mistake"})).await.is(200);
        assert_eq!((&cancelled["state"], &cancelled["detail"]), (&json!("cancelled"), &json!("a mistake")));
        assert_eq!(agent.owed().await, []);
        let problem = admin.post(&cancel(&queued), &json!({"reason": "again"})).await.is_problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("cancelled"), "{problem}");
        // The agent may be at it already.
        let response = drop_by_hand(&admin, "203.0.113.8", "10m").await;
        let sent = agent.owed_one().await;
        eventually("the command counts as delivered", || async {
            (command(&admin, sent.jti).await["state"] == "delivered").then_some(())
        })
        .await;
        admin.post(&cancel(&json!({"id": sent.jti})), &json!({"reason": "too late"})).await.is_problem(409);
        // Lifting is owed whatever anybody says.
        agent.obey().await;
        let lifted = lift(&admin, &response).await;
        assert_eq!(lifted["commands"][0]["op"], "revert");
        admin.post(&cancel(&lifted["commands"][0]), &json!({"reason": "no"})).await.is_problem(409);
        assert_eq!(agent.owed_one().await.op, Op::Revert);
        admin.post(&cancel(&json!({"id": Uuid::nil()})), &json!({"reason": "x"})).await.is_problem(404);
    }

    /// What was called back is not in force, so the next response must not take it for standing.
    async fn a_response_after_one_that_was_called_back_is_sent(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let first = drop_by_hand(&admin, "203.0.113.7", "30m").await;
        admin
            .post(&format!("{}/cancel", path("commands", &first["commands"][0])), &json!({"reason": "a mistake"}))
            .await
            .is(200);
        let second = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(second["commands"].as_array().unwrap().len(), 1, "the agent never heard of the first one");
        assert_eq!(agent.owed_one().await.op, Op::Apply);
    }

    async fn a_result_that_is_repeated_or_of_another_agents_command_changes_nothing(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let sent = agent.owed_one().await;
        other.acknowledge(&[&sent]).await;
        other.report(vec![other.result(sent.jti, Outcome::Succeeded, Some(true))]).await;
        eventually("the command counts as delivered", || async {
            (command(&admin, sent.jti).await["state"] == "delivered").then_some(())
        })
        .await;
        assert_eq!(
            (&command(&admin, sent.jti).await["result"], &effect(&admin).await["actual"]),
            (&Value::Null, &json!("unknown"))
        );

        agent.acknowledge(&[&sent]).await;
        let result = agent.result(sent.jti, Outcome::Succeeded, Some(true));
        assert_eq!(agent.report(vec![result.clone(), result.clone()]).await, [sent.jti, sent.jti]);
        let settled = command(&admin, sent.jti).await;
        let history = admin.history("command", &sent.jti.to_string()).await;
        assert_eq!(settled["state"], "succeeded");
        app.advance(5);
        // Repeated, also with another word: it is told that it may forget it, and nothing changes.
        assert_eq!(agent.report(vec![result]).await, [sent.jti]);
        assert_eq!(agent.report(vec![agent.result(sent.jti, Outcome::Failed, Some(false))]).await, [sent.jti]);
        agent.acknowledge(&[&sent]).await;
        assert_eq!(command(&admin, sent.jti).await, settled);
        assert_eq!(admin.history("command", &sent.jti.to_string()).await, history);
        assert_eq!(effect(&admin).await["actual"], "in_force");
        // A command that never was.
        assert_eq!(agent.report(vec![agent.result(Uuid::max(), Outcome::Failed, None)]).await, [Uuid::max()]);
    }

    /// Promise 4: the newest command's word counts, whatever arrives last.
    async fn promise_4_results_out_of_order_do_not_bring_a_lifted_block_back(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let apply = agent.owed_one().await;
        agent.acknowledge(&[&apply]).await;
        lift(&admin, &response).await;
        let revert = agent.owed_one().await;
        agent.report(vec![agent.result(revert.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(effect(&admin).await["actual"], "absent");
        agent.report(vec![agent.result(apply.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(effect(&admin).await["actual"], "absent");
        assert_eq!(command(&admin, apply.jti).await["state"], "succeeded");
        assert_eq!(agent.owed().await, []);
    }

    /// Promise 4, first test.
    async fn promise_4_commands_of_one_effect_arrive_in_the_order_of_their_numbers(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        for _ in 0..5 {
            let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
            lift(&admin, &response).await;
        }
        let owed = agent.owed().await;
        let order: Vec<(u64, Op)> = owed.iter().map(|command| (command.seq, command.op)).collect();
        let expected: Vec<(u64, Op)> = (1..).zip([Op::Apply, Op::Revert].into_iter().cycle()).take(10).collect();
        assert_eq!(order, expected);
        assert!(owed.iter().all(|command| command.effect == owed[0].effect));
        let again: Vec<u64> = agent.owed().await.iter().map(|command| command.seq).collect();
        assert_eq!(
            again,
            (1..=10).collect::<Vec<u64>>(),
            "what is not acknowledged is sent again, all of it and in order"
        );
    }

    /// Promise 5: a revert is retried until it is done, and one that keeps failing is shown.
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
            let metrics = admin.get("/metrics").await.text;
            assert!(metrics.contains("riposte_effects_failing 1\n"), "{metrics}");
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
        assert!(admin.get("/metrics").await.text.contains("riposte_effects_failing 0\n"));
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 0);
    }

    /// Promise 11: every state has a deadline and somebody who enforces it.
    async fn promise_11_a_command_that_was_acknowledged_and_never_answered_times_out(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "2h").await;
        let apply = agent.owed_one().await;
        agent.acknowledge(&[&apply]).await;
        assert_eq!(command(&admin, apply.jti).await["state"], "acknowledged");
        app.advance(599);
        let timed_out = app
            .in_time("it times out", || async {
                let seen = command(&admin, apply.jti).await;
                (seen["state"] == "timed_out").then_some(seen)
            })
            .await;
        let at: Timestamp = serde_json::from_value(timed_out["finished_at"].clone()).unwrap();
        assert!((after(600)..after(610)).contains(&at), "{at}");
        assert_eq!(effect(&admin).await["actual"], "drifted");
        let last = admin.history("command", &apply.jti.to_string()).await.pop().unwrap();
        assert_eq!(last, ("riposte".to_owned(), "timed_out".to_owned()));
        // The agent's word, however late, is worth more than a guess.
        agent.report(vec![agent.result(apply.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(
            (&command(&admin, apply.jti).await["state"], &effect(&admin).await["actual"]),
            (&json!("succeeded"), &json!("in_force"))
        );
        // A revert that nobody answers is tried again.
        lift(&admin, &response).await;
        let revert = agent.owed_one().await;
        agent.acknowledge(&[&revert]).await;
        app.advance(599);
        let again = app.in_time("the revert is tried again", || async { agent.owed().await.pop() }).await;
        assert!(again.op == Op::Revert && again.jti != revert.jti);
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 1);
    }

    /// Promise 11, first test.
    async fn promise_11_an_expired_command_is_never_delivered(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let endless = drop_by_hand(&admin, "203.0.113.7", "").await;
        let brief = drop_by_hand(&admin, "203.0.113.8", "1h").await;
        app.advance(3599);
        let targets: Vec<String> = agent.owed().await.iter().map(|c| c.target.value().to_owned()).collect();
        assert_eq!(targets, ["203.0.113.7", "203.0.113.8"]);
        // The lease of that delivery must be over before anybody may say that it was in vain.
        app.advance(1);
        let applies = agent.owed().await.into_iter().filter(|command| command.op == Op::Apply);
        assert_eq!(applies.map(|command| command.target.value().to_owned()).collect::<Vec<_>>(), ["203.0.113.7"]);
        app.in_time("the apply has expired", || async {
            let seen = admin.get(&path("commands", &brief["commands"][0])).await.is(200);
            (seen["state"] == "expired").then_some(())
        })
        .await;
        // One that lasts for ever waits for a day.
        app.advance(23 * 3600 - 60);
        let sent = |commands: Vec<riposte_protocol::command::Command>| {
            commands.iter().any(|c| c.target.value() == "203.0.113.7")
        };
        assert!(sent(agent.owed().await));
        app.advance(60);
        assert!(!sent(agent.owed().await), "its time was over, whether or not the sweep has come by");
        let expired = app
            .in_time("the other apply has expired", || async {
                let seen = admin.get(&path("commands", &endless["commands"][0])).await.is(200);
                (seen["state"] == "expired").then_some(seen)
            })
            .await;
        assert!(!expired["detail"].as_str().unwrap().is_empty());
        assert!(!sent(agent.owed().await));
    }

    /// Nobody knows whether it is in force, so the next response must not take it for standing.
    async fn a_response_after_one_that_was_never_answered_is_sent(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        drop_by_hand(&admin, "203.0.113.7", "2h").await;
        let first = agent.owed_one().await;
        agent.acknowledge(&[&first]).await;
        app.advance(599);
        app.in_time("it times out", || async {
            (command(&admin, first.jti).await["state"] == "timed_out").then_some(())
        })
        .await;
        let second = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(second["commands"].as_array().unwrap().len(), 1, "the agent may have died in the middle of it");
        assert_eq!(agent.owed_one().await.op, Op::Apply);
    }

    /// What expired is not in force, so the next response must not take it for standing.
    async fn a_response_after_one_that_expired_is_sent(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let first = drop_by_hand(&admin, "203.0.113.7", "").await;
        app.advance(24 * 3600);
        app.in_time("the apply has expired", || async {
            let seen = admin.get(&path("commands", &first["commands"][0])).await.is(200);
            (seen["state"] == "expired").then_some(())
        })
        .await;
        let second = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(second["commands"].as_array().unwrap().len(), 1, "the agent never heard of the first one");
        assert_eq!(agent.owed_one().await.op, Op::Apply);
    }

    /// Promise 3: what was sent and not acknowledged is owed, on a stream as on a poll.
    async fn promise_3_a_command_stays_owed_until_it_is_acknowledged(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let mut stream = agent.stream(0).await;
        let first = stream.commands(&agent).await;
        // Nothing was said, so after the lease it comes again, on this stream and on another one at once.
        app.advance(31);
        assert_eq!(stream.commands(&agent).await, first);
        let mut second = agent.stream(0).await;
        assert_eq!(second.commands(&agent).await, first);
        assert_eq!(stream.hear().await, None, "a newer stream takes the older one's place");
        second.say(&riposte_protocol::message::FromAgent::Ack { command_ids: vec![first[0].jti] }).await;
        eventually("the acknowledgement is committed", || async {
            (command(&admin, first[0].jti).await["state"] == "acknowledged").then_some(())
        })
        .await;
        app.advance(31);
        assert_eq!(agent.owed().await, []);
        // A result that comes in is acknowledged when it is durable.
        let result = agent.result(first[0].jti, Outcome::Succeeded, Some(true));
        second.say(&riposte_protocol::message::FromAgent::Result { results: vec![result] }).await;
        let answer = second.hear().await.unwrap();
        assert_eq!(answer, riposte_protocol::message::ToAgent::ResultAck { command_ids: vec![first[0].jti] });
        assert_eq!(command(&admin, first[0].jti).await["state"], "succeeded");
    }

    async fn an_agent_that_waits_hears_of_a_command_as_soon_as_it_is_committed(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("drop")).await;
        // The clock stands: a poll that were not woken would wait for ever.
        let request = PollRequest { wait_seconds: 30, max: 10, ..PollRequest::default() };
        let alert = brute_force("1", "203.0.113.7");
        let (answer, _) = tokio::join!(agent.poll(&request), admin.post("/v1/alerts", &alert));
        assert_eq!(answer.commands.len(), 1);
        let mut stream = agent.stream(0).await;
        stream.commands(&agent).await;
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        assert_eq!(stream.commands(&agent).await[0].target.value(), "203.0.113.8");
        // A poll that brings nothing ends when its time is over.
        agent.obey().await;
        let (answer, ()) = tokio::join!(agent.poll(&request), async {
            app.in_time("the poll ends", || async { (app.clock.now() >= after(32)).then_some(()) }).await;
        });
        assert!(answer.commands.is_empty());
    }

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
        let db = app.db().await;
        let last = admin.get("/v1/audit?limit=1").await.is(200)["items"][0]["seq"].as_i64().unwrap();
        // Each edit, and its undoing.
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
            assert_eq!(execute(&db, edit).await, 1);
            let proof = admin.get("/v1/audit/verify").await.is(200);
            assert_eq!((&proof["intact"], &proof["broken_at"]), (&json!(false), &json!(at)), "{edit}");
            assert_eq!(execute(&db, undo).await, 1);
        }
        // The last entry, gone without a trace but for the head of the chain.
        assert_eq!(execute(&db, "DELETE FROM audit WHERE seq = (SELECT MAX(seq) FROM audit)").await, 1);
        let proof = admin.get("/v1/audit/verify").await.is(200);
        assert_eq!((&proof["intact"], &proof["broken_at"]), (&json!(false), &json!(last)));
    }

    async fn revoking_an_agent_takes_back_what_it_was_not_sent_yet(database: Database) {
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

    /// Nobody will ever fetch it, so nothing may be owed for ever to an agent that is gone.
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

async fn execute(db: &riposte::store::Db, sql: &'static str) -> u64 {
    let mut tx = db.begin().await.unwrap();
    let rows = tx.execute(sql, vec![]).await.unwrap();
    tx.commit().await.unwrap();
    rows
}
