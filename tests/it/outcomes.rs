//! Promise 14: the API shows the real state. Only an effect in force is shown as protection, and
//! every agent is shown with its real presence. On both databases; the last test uses a real
//! manager and a real agent.

use std::time::{Duration, Instant};

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, Outcome, PollRequest};
use serde_json::{Value, json};

use super::processes::{Agent, Manager};
use super::responses::{lift, path};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, FakeAgent, TestApp, eventually};

/// A manager with agents `web-01`, `web-02` and so on.
async fn with_agents(database: Database, count: usize) -> (TestApp, Client, Vec<FakeAgent>) {
    let (app, admin) = TestApp::start_on(database).await;
    let mut agents = Vec::new();
    for n in 1..=count {
        agents.push(app.enrol(&admin, &format!("web-{n:02}"), &json!({"wazuh_id": format!("{:03}", n + 4)})).await);
    }
    (app, admin, agents)
}

/// A drop by hand on the first `count` agents.
async fn drop_on(admin: &Client, count: usize, target: &str, for_: &str) -> Value {
    let agents: Vec<String> = (1..=count).map(|n| format!("web-{n:02}")).collect();
    let asked = json!({"action": "firewall-drop", "target": target, "agents": agents, "for": for_, "reason": "x"});
    admin.post("/v1/responses", &asked).await.is(201)
}

async fn find(admin: &Client, response: &Value) -> Value {
    admin.get(&path("responses", response)).await.is(200)
}

fn counts(response: &Value) -> [i64; 4] {
    ["in_force", "pending", "failed", "lifted"].map(|key| response["agents_by_outcome"][key].as_i64().unwrap())
}

/// Returns the outcome that the response shows for the agent of that name.
fn told(response: &Value, agent: &str) -> String {
    let all = response["agent_outcomes"].as_array().unwrap();
    let one =
        all.iter().find(|told| told["agent"] == agent).unwrap_or_else(|| panic!("nothing of {agent}: {response}"));
    format!("{}: {}", one["outcome"].as_str().unwrap(), one["reason"].as_str().unwrap())
}

/// Returns the state, its reason, and the outcome.
fn stands(response: &Value) -> (&str, &str, &str) {
    let word = |key: &str| response[key].as_str().unwrap_or_default();
    (word("state"), word("reason"), word("outcome"))
}

async fn says(agent: &FakeAgent, change: impl Fn(&mut CommandResult)) {
    let command = agent.owed_one().await;
    agent.acknowledge(&[&command]).await;
    let mut result = agent.result(command.jti, Outcome::Succeeded, None);
    change(&mut result);
    agent.report(vec![result]).await;
}

async fn metric(admin: &Client, line: &str) {
    admin.metrics_show(&format!("{line}\n"), true).await;
}

on_both_databases! {
    async fn promise_14_a_response_is_in_force_where_its_agents_say_so_and_nowhere_else(database: Database) {
        let (app, admin, agents) = with_agents(database, 3).await;
        let made = drop_on(&admin, 3, "203.0.113.7", "1h").await;
        assert_eq!((stands(&made), counts(&made)), (("active", "", "pending"), [0, 3, 0, 0]), "{made}");
        assert!(told(&made, "web-01").starts_with("pending: queued: the agent is away since 2026-11-24T10:00:00"), "{made}");
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        let part = find(&admin, &made).await;
        assert_eq!((stands(&part), counts(&part)), (("active", "", "partly"), [1, 2, 0, 0]), "{part}");
        agents[1].answer(Outcome::Refused, None).await;
        agents[2].answer(Outcome::Succeeded, Some(true)).await;
        let part = find(&admin, &made).await;
        assert_eq!((stands(&part), counts(&part)), (("active", "", "partly"), [2, 0, 1, 0]), "{part}");
        assert_eq!(told(&part, "web-02"), "failed: refused: the test says so");
        assert_eq!(part["agent_outcomes"].as_array().unwrap().len(), 1, "only the failed one has an entry");
        let whole = drop_on(&admin, 1, "203.0.113.8", "1h").await;
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        let ids = async |filter: &str| -> Vec<Value> {
            let listed = admin.list(&format!("/v1/responses?{filter}")).await;
            listed.iter().map(|response| response["id"].clone()).collect()
        };
        assert_eq!(ids("outcome=partly").await, [made["id"].clone()]);
        assert_eq!(ids("outcome=in_force").await, [whole["id"].clone()]);
        let one = admin.get("/v1/responses?outcome=in_force&limit=1").await.is(200);
        assert_eq!((&one["items"][0]["id"], &one["next_cursor"]), (&whole["id"], &Value::Null), "{one}");
        assert_eq!(ids("outcome=failed").await, Vec::<Value>::new());
        assert_eq!(admin.get("/v1/responses?outcome=blocked").await.points_at(), ["/outcome"]);
        metric(&admin, r#"riposte_responses_standing{policy="(by hand)",outcome="partly"} 1"#).await;
        metric(&admin, r#"riposte_responses_standing{policy="(by hand)",outcome="in_force"} 1"#).await;
        // An effect that is being lifted is in force until its agent reports otherwise.
        let over = lift(&admin, &made).await;
        assert_eq!((stands(&over), counts(&over)), (("ended", "lifted", "partly"), [2, 0, 1, 0]), "{over}");
        assert_eq!(told(&over, "web-03"), "in_force: being lifted: the revert is on its way");
        app.advance(120);
        let away = find(&admin, &made).await;
        assert!(told(&away, "web-03").starts_with("in_force: being lifted: the agent is away since"), "{away}");
        agents[0].obey().await;
        agents[2].obey().await;
        let over = find(&admin, &made).await;
        assert_eq!((stands(&over), counts(&over)), (("ended", "lifted", "lifted"), [0, 0, 1, 2]), "{over}");
        metric(&admin, r#"riposte_responses_ended_total{outcome="lifted"} 1"#).await; // In force on two of three.
        metric(&admin, r#"riposte_responses_ended_total{outcome="failed"} 0"#).await;
    }

    async fn promise_14_a_response_that_can_come_into_force_nowhere_ends_as_failed(database: Database) {
        let (app, admin, agents) = with_agents(database, 2).await;
        for (outcome, verified, word) in
            [(Outcome::Refused, None, "refused"), (Outcome::Failed, Some(false), "failed"), (Outcome::TimedOut, None, "timed out")]
        {
            let made = drop_on(&admin, 2, "203.0.113.7", "1h").await;
            agents[0].answer(outcome, verified).await;
            assert_eq!(stands(&find(&admin, &made).await), ("active", "", "pending"), "one of them is still asked");
            agents[1].answer(outcome, verified).await;
            let failed = find(&admin, &made).await;
            assert_eq!((stands(&failed), counts(&failed)), (("ended", "failed", "failed"), [0, 0, 2, 0]), "{failed}");
            assert_eq!(told(&failed, "web-01"), format!("failed: {word}: the test says so"));
            assert_eq!(failed["detail"], format!("it came into force on no agent: {word}: the test says so"));
            let history = admin.history("response", made["id"].as_str().unwrap()).await;
            assert_eq!(history.last().unwrap(), &("riposte".to_owned(), "ended".to_owned()));
            assert!(agents[0].owed().await.is_empty(), "there is nothing to undo");
            let effects = admin.list("/v1/effects?desired=in_force").await;
            assert!(effects.is_empty(), "{effects:?}");
        }
        // By a policy, and cancelled by hand.
        admin.policy(&drop_policy("drop")).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let made = json!({"id": answer["responses"][0]});
        metric(&admin, r#"riposte_responses_standing{policy="drop",outcome="pending"} 1"#).await;
        let command = find(&admin, &made).await["commands"][0].clone();
        admin.post(&format!("{}/cancel", path("commands", &command)), &json!({"reason": "no"})).await.is(200);
        let failed = find(&admin, &made).await;
        assert_eq!(stands(&failed), ("ended", "failed", "failed"), "{failed}");
        assert_eq!(told(&failed, "web-01"), "failed: called back: no");
        let explained = admin.get(&format!("/v1/alerts/{}/explain", failed["alert_id"].as_str().unwrap())).await.is(200);
        assert_eq!(explained["decided"][0]["outcome"], "failed");
        // Agents that are offline until its end.
        let made = drop_on(&admin, 2, "203.0.113.9", "1h").await;
        app.advance(3600);
        let failed = app
            .in_time("the response is over", || async {
                let seen = find(&admin, &made).await;
                (seen["state"] == "ended").then_some(seen)
            })
            .await;
        assert_eq!((stands(&failed).2, counts(&failed)), ("failed", [0, 0, 2, 0]), "{failed}");
        assert!(told(&failed, "web-01").starts_with("failed: expired: "), "{failed}");
        assert_eq!(admin.list("/v1/responses?outcome=failed").await.len(), 5);
        metric(&admin, r#"riposte_responses_ended_total{outcome="failed"} 5"#).await;
        metric(&admin, r#"riposte_responses_ended_total{outcome="lifted"} 0"#).await; // There from the start.
        let of_policy = admin.get("/v1/policies/drop/counts").await.is(200);
        assert_eq!((&of_policy["responses"], &of_policy["ended"]), (&json!({"ended": 1}), &json!({"failed": 1})));
        admin.metrics_show("riposte_responses_standing{", false).await;
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    async fn promise_14_effects_of_a_revoked_agent_do_not_count(database: Database) {
        let (app, admin, agents) = with_agents(database, 2).await;
        let made = drop_on(&admin, 2, "203.0.113.7", "1h").await;
        for agent in &agents {
            agent.answer(Outcome::Succeeded, Some(true)).await;
        }
        assert_eq!(stands(&find(&admin, &made).await).2, "in_force");
        metric(&admin, r#"riposte_effects{desired="in_force",actual="in_force"} 2"#).await;
        admin.delete(&format!("/v1/agents/{}", agents[0].id), None).await.is(204);
        let part = find(&admin, &made).await;
        assert_eq!((stands(&part), counts(&part)), (("active", "", "partly"), [1, 0, 1, 0]), "{part}");
        assert!(told(&part, "web-01").starts_with("failed: revoked: what is in force there ends by "), "{part}");
        metric(&admin, r#"riposte_effects{desired="in_force",actual="in_force"} 1"#).await; // Of the other agent.
        for agent in &agents {
            let listed = admin.list(&format!("/v1/effects?agent_id={}", agent.id)).await;
            assert_eq!(listed[0]["agent_revoked"], agent.id == agents[0].id, "{listed:?}");
            let one = admin.get(&path("effects", &listed[0])).await.is(200);
            assert_eq!(one["agent_revoked"], listed[0]["agent_revoked"]);
        }
        admin.delete(&format!("/v1/agents/{}", agents[1].id), None).await.is(204);
        let failed = find(&admin, &made).await;
        assert_eq!((stands(&failed), counts(&failed)), (("ended", "failed", "failed"), [0, 0, 2, 0]), "{failed}");
        admin.metrics_show("riposte_effects{", false).await;
        metric(&admin, r#"riposte_responses_ended_total{outcome="failed"} 1"#).await;
        app.advance(3601);
        let over = find(&admin, &made).await;
        let ended = "failed: revoked: what was in force there ended by the agent's own clock at 2026-11-24T11:00:00.000Z";
        assert_eq!(told(&over, "web-01"), ended);
    }

    async fn promise_14_an_effect_that_another_response_holds_is_shown_apart(database: Database) {
        let (_app, admin, agents) = with_agents(database, 1).await;
        let (brief, long) = (drop_on(&admin, 1, "203.0.113.7", "1h").await, drop_on(&admin, 1, "203.0.113.7", "2h").await);
        agents[0].obey().await;
        for response in [&brief, &long] {
            assert_eq!(stands(&find(&admin, response).await).2, "in_force");
        }
        let lifted = lift(&admin, &brief).await;
        assert_eq!(stands(&lifted), ("ended", "lifted", "lifted"), "{lifted}");
        let holder = long["id"].as_str().unwrap();
        assert_eq!(
            told(&lifted, "web-01"),
            format!("lifted: lifted here; still held by response {holder} made by hand until 2026-11-24T12:00:00.000Z")
        );
        assert_eq!(stands(&find(&admin, &long).await).2, "in_force");
        // A later response on the same target does not change one that has ended.
        lift(&admin, &long).await;
        agents[0].obey().await;
        let again = drop_on(&admin, 1, "203.0.113.7", "1h").await;
        agents[0].answer(Outcome::Refused, None).await;
        assert_eq!(stands(&find(&admin, &again).await).2, "failed");
        for response in [&brief, &long] {
            assert_eq!(stands(&find(&admin, response).await).2, "lifted");
        }
    }

    async fn promise_14_an_observing_agent_protects_nothing_and_an_unverified_result_counts(database: Database) {
        let (_app, admin, agents) = with_agents(database, 1).await;
        for is_old in [true, false] {
            let made = drop_on(&admin, 1, if is_old { "203.0.113.7" } else { "203.0.113.8" }, "1h").await;
            says(&agents[0], |result| {
                result.observed = !is_old;
                result.message = if is_old { "observe: would have run: nft".into() } else { "nft".into() };
            })
            .await;
            let observed = find(&admin, &made).await;
            assert_eq!((stands(&observed), counts(&observed)), (("active", "", "failed"), [0, 0, 1, 0]), "{observed}");
            assert!(told(&observed, "web-01").starts_with("failed: observed: "), "{observed}");
            assert_eq!(observed["results"][0]["observed"], true);
        }
        let made = drop_on(&admin, 1, "203.0.113.9", "1h").await;
        says(&agents[0], |_| ()).await;
        let unverified = find(&admin, &made).await;
        assert_eq!((stands(&unverified), counts(&unverified)), (("active", "", "in_force"), [1, 0, 0, 0]), "{unverified}");
        assert_eq!(unverified["agents_unverified"], 1);
        assert!(told(&unverified, "web-01").starts_with("in_force: unverified: "), "{unverified}");
        // A refused extension leaves the effect in force until its earlier end.
        drop_on(&admin, 1, "203.0.113.9", "2h").await;
        assert_eq!(agents[0].answer(Outcome::Refused, None).await.op, Op::Apply);
        assert_eq!(stands(&find(&admin, &made).await).2, "in_force");
    }

    async fn a_response_that_did_not_act_has_no_outcome(database: Database) {
        let (_app, admin, _agents) = with_agents(database, 1).await;
        for (name, mode) in [("watch", "observe"), ("ask", "approve")] {
            let mut policy = drop_policy(name);
            policy["mode"] = json!(mode);
            admin.policy(&policy).await;
        }
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.8", "reason": "x"})).await.is(201);
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        let all = admin.list("/v1/responses").await;
        let waiting = all.iter().find(|response| response["state"] == "awaiting_approval").unwrap();
        admin.post(&format!("{}/reject", path("responses", waiting)), &json!({"reason": "no"})).await.is(200);
        let all = admin.list("/v1/responses").await;
        let states: std::collections::BTreeSet<&str> = all.iter().map(|response| response["state"].as_str().unwrap()).collect();
        assert_eq!(states.into_iter().collect::<Vec<_>>(), ["observed", "rejected", "spared"]);
        for response in &all {
            assert_eq!((&response["outcome"], &response["agents_by_outcome"]), (&Value::Null, &Value::Null), "{response}");
        }
    }

    async fn promise_14_the_version_shown_is_that_of_the_program_that_runs(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        let shown = async || admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200)["version"].clone();
        let enrolled = shown().await;
        for other in ["curl/8", "riposte-agent/", "riposte-agent/a b", &format!("riposte-agent/{}", "1".repeat(65))] {
            agent.poll_as(other).await;
            assert_eq!(shown().await, enrolled, "{other}");
        }
        agent.poll_as("riposte-agent/9.9.9").await;
        assert_eq!(shown().await, "9.9.9");
        assert_eq!(admin.list("/v1/agents").await[0]["version"], "9.9.9");
        agent.poll_as("riposte-agent/9.9.9").await;
        let said = admin.history("agent", &agent.id.to_string()).await;
        assert_eq!(said.iter().filter(|(_, verb)| verb == "announced its version").count(), 1, "{said:?}");
        drop(agent.stream_as("riposte-agent/10.0.0").await);
        eventually("the stream's version is shown", || async { (shown().await == "10.0.0").then_some(()) }).await;
    }

    async fn promise_14_an_agent_that_polls_is_present(database: Database) {
        let (app, admin, agents) = with_agents(database, 1).await;
        let agent = &agents[0];
        let seen = async || {
            let shown = admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200);
            let listed = admin.list("/v1/agents").await.remove(0);
            assert_eq!(listed["presence"], shown["presence"]);
            assert_eq!(shown["away_since"].is_string(), shown["presence"] == "away", "{shown}");
            shown
        };
        assert_eq!((&seen().await["presence"], &seen().await["away_since"]), (&json!("away"), &seen().await["enrolled_at"]));
        app.advance(10);
        agent.poll(&PollRequest { max: 0, ..PollRequest::default() }).await;
        let polling = seen().await;
        assert_eq!((&polling["presence"], &polling["streaming"]), (&json!("polling"), &json!(false)));
        assert_eq!(polling["last_seen_at"], "2026-11-24T10:00:10.000Z", "at once, not when it is written");
        metric(&admin, r#"riposte_agents{presence="polling"} 1"#).await;
        app.advance(61);
        let away = seen().await;
        assert_eq!((&away["presence"], &away["away_since"]), (&json!("away"), &json!("2026-11-24T10:00:10.000Z")));
        metric(&admin, r#"riposte_agents{presence="away"} 1"#).await;
        let stream = agent.stream(0).await;
        eventually("it streams", || async { (seen().await["presence"] == "streaming").then_some(()) }).await;
        metric(&admin, r#"riposte_agents{presence="streaming"} 1"#).await;
        drop(stream);
        eventually("it is away", || async { (seen().await["presence"] == "away").then_some(()) }).await;
    }
}

/// An agent that gave streams up while the manager was down does not keep polling for minutes.
#[tokio::test]
async fn promise_14_an_agent_streams_again_within_a_minute_of_a_managers_restart() {
    let mut manager = Manager::start().await;
    let agent = Agent::start(&manager, "web-01").await;
    manager.api().agent_streams(&agent.id).await;
    // It is back when the first poll comes, or later.
    for is_quick in [true, false] {
        manager.kill9();
        if is_quick {
            agent.has_logged("no connection to the manager", 2).await;
        } else {
            agent.has_logged("polling", 2).await;
        }
        manager.start_again().await;
        let (api, began) = (manager.api(), Instant::now());
        while api.get(&format!("/v1/agents/{}", agent.id)).await["presence"] != "streaming" {
            assert!(began.elapsed() < Duration::from_mins(1), "it does not stream again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
