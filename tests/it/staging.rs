//! What stops a policy or a response that goes wrong: the breaker, waves, the share of the fleet;
//! and the counters meanwhile. On both databases.

use std::time::Duration;

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::{Client, Database, FakeAgent, TestApp, eventually};

async fn post(admin: &Client, id: &str, source: &str) -> Value {
    let answer = admin.post("/v1/alerts", &brute_force(id, source)).await.is(202);
    let id = answer["responses"][0].as_str().unwrap_or_else(|| panic!("no response: {answer}")).to_owned();
    admin.get(&format!("/v1/responses/{id}")).await.is(200)
}

fn state(response: &Value) -> (&str, &str) {
    (response["state"].as_str().unwrap(), response["reason"].as_str().unwrap_or_default())
}

async fn lift(admin: &Client, response: &Value) {
    let path = format!("/v1/responses/{}/lift", response["id"].as_str().unwrap());
    admin.post(&path, &json!({"reason": "wrong"})).await.is(200);
}

async fn fleet(app: &TestApp, admin: &Client, count: usize) -> Vec<FakeAgent> {
    let mut agents = Vec::new();
    for n in 0..count {
        let labels = json!({"wazuh_id": format!("{:03}", n + 5), "env": "prod"});
        agents.push(app.enrol(admin, &format!("web-{:02}", n + 1), &labels).await);
    }
    agents
}

async fn commands(admin: &Client) -> usize {
    admin.list("/v1/commands").await.len()
}

/// Waits for a change that the sweep makes between two looks.
async fn soon(what: &str, holds: impl AsyncFn() -> bool) {
    eventually(what, || async { holds().await.then_some(()) }).await;
}

on_both_databases! {
    async fn a_policy_whose_responses_people_undo_stops_itself_until_people_start_it_again(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let _agents = fleet(&app, &admin, 1).await;
        let mut policy = drop_policy("drop");
        policy["breaker"] = json!({"undone": "50%", "at_least": 4, "within": "1h"});
        admin.policy(&policy).await;
        for n in 0..4 {
            let response = post(&admin, &format!("a{n}"), &format!("203.0.113.{n}")).await;
            assert_eq!(state(&response), ("active", ""), "{n}");
            if n % 2 == 0 {
                lift(&admin, &response).await;
            }
        }
        let stopped = post(&admin, "b", "203.0.113.50").await;
        assert_eq!(state(&stopped), ("spared", "breaker"));
        assert!(stopped["detail"].as_str().unwrap().contains("2 of 4 responses were undone by people"), "{stopped}");
        let shown = admin.get("/v1/policies/drop").await.is(200);
        assert_eq!((&shown["stopped"]["is_open"], &shown["stopped"]["changed_by"]), (&json!(true), &json!("riposte")));
        assert_eq!(admin.list("/v1/policies").await[0]["stopped"]["is_open"], true);
        app.advance(7200);
        assert_eq!(state(&post(&admin, "c", "203.0.113.51").await), ("spared", "breaker"), "time does not start it again");
        admin.post("/v1/policies/drop/reset", &json!({"reason": " "})).await.is_problem(422);
        admin.post("/v1/policies/drop/reset", &json!({"reason": "rule repaired"})).await.is(200);
        admin.post("/v1/policies/drop/reset", &json!({"reason": "again"})).await.is_problem(409);
        assert_eq!(state(&post(&admin, "d", "203.0.113.52").await), ("active", ""), "earlier outcomes no longer count");
        let verbs = admin.list("/v1/audit").await;
        let says = |verb: &str| verbs.iter().any(|entry| entry["verb"] == verb && entry["noun"] == "policy");
        assert!(says("stopped") && says("reset"));
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    /// Promise 15: the failures of one agent stop the policy on that agent only, and name it.
    async fn promise_15_one_agents_failures_stop_the_policy_on_that_agent_only(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agents = fleet(&app, &admin, 2).await;
        let mut policy = drop_policy("drop");
        policy["breaker"] = json!({"failed": "50%", "at_least": 3});
        policy["respond"]["on"] = json!("all");
        admin.policy(&policy).await;
        for n in 0..3 {
            post(&admin, &format!("a{n}"), &format!("203.0.113.{n}")).await;
            agents[0].answer(Outcome::Failed, None).await;
            agents[1].answer(Outcome::Succeeded, Some(true)).await;
        }
        app.advance(6);
        soon("the sweep opens the breaker", async || {
            admin.get("/v1/policies/drop").await.is(200)["stopped_agents"][0]["agent"] == "web-01"
        })
        .await;
        let shown = admin.get("/v1/policies/drop").await.is(200);
        assert_eq!(shown["stopped"], Value::Null, "{shown}");
        assert!(shown["stopped_agents"][0]["reason"].as_str().unwrap().contains("on agent web-01: 3 of 3 commands failed"));
        assert_eq!(admin.list("/v1/policies").await[0]["stopped_agents"].as_array().unwrap().len(), 1);
        admin.metrics_show("riposte_breakers_open{scope=\"agent\"} 1\n", true).await;
        let goes_on = post(&admin, "b", "203.0.113.50").await;
        assert_eq!((state(&goes_on), &goes_on["agents"]), (("active", ""), &json!([agents[1].id])), "the other goes on");
        assert!(goes_on["detail"].as_str().unwrap().contains("web-01"), "{goes_on}");
        agents[1].answer(Outcome::Succeeded, Some(true)).await;
        let history = admin.list("/v1/audit").await;
        let said = |verb: &str| history.iter().any(|entry| entry["verb"] == verb && entry["noun"] == "policy");
        assert!(said("stopped"));
        let reset = |agent: &str| json!({"reason": "nft is back", "agent": agent});
        admin.post("/v1/policies/drop/reset", &reset("web-02")).await.is_problem(409);
        assert_eq!(admin.post("/v1/policies/drop/reset", &reset("no-such-agent")).await.points_at(), ["/agent"]);
        admin.post("/v1/policies/drop/reset", &reset("web-01")).await.is(200);
        let again = post(&admin, "c", "203.0.113.51").await;
        assert_eq!(again["agents"].as_array().unwrap().len(), 2, "earlier outcomes no longer count");
    }

    /// A policy that acts on that agent alone is spared there, with the reason. Failures on several
    /// agents stop all of it.
    async fn promise_15_failures_on_several_agents_stop_the_policy_as_a_whole(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agents = fleet(&app, &admin, 2).await;
        let mut policy = drop_policy("drop");
        policy["breaker"] = json!({"failed": "100%", "at_least": 3});
        admin.policy(&policy).await;
        for n in 0..3 {
            post(&admin, &format!("a{n}"), &format!("203.0.113.{n}")).await;
            agents[0].answer(Outcome::Failed, None).await;
        }
        let spared = post(&admin, "b", "203.0.113.50").await;
        assert_eq!(state(&spared), ("spared", "breaker"));
        assert!(spared["detail"].as_str().unwrap().contains("on agent web-01: 3 of 3 commands failed"), "{spared}");
        assert_eq!(admin.get("/v1/policies/drop").await.is(200)["stopped"], Value::Null);
        let elsewhere = |id: &str, n: u8| from_agent(brute_force(id, &format!("203.0.113.{n}")), "006", "web-02");
        admin.post("/v1/alerts", &elsewhere("c", 60)).await.is(202);
        agents[1].answer(Outcome::Failed, None).await;
        app.advance(6);
        soon("the sweep opens the breaker", async || {
            admin.get("/v1/policies/drop").await.is(200)["stopped"]["is_open"] == true
        })
        .await;
        let shown = admin.get("/v1/policies/drop").await.is(200);
        assert!(shown["stopped"]["reason"].as_str().unwrap().contains("4 of 4 commands failed within 1h, on 2 agents"), "{shown}");
        admin.post("/v1/policies/drop/reset", &json!({"reason": "mended"})).await.is(200);
        let shown = admin.get("/v1/policies/drop").await.is(200);
        assert_eq!((&shown["stopped"], &shown["stopped_agents"]), (&Value::Null, &Value::Null), "both are closed");
    }

    async fn fewer_outcomes_than_asked_for_stop_nothing(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agents = fleet(&app, &admin, 1).await;
        let mut policy = drop_policy("drop");
        policy["breaker"] = json!({"failed": "50%", "undone": "100%", "at_least": 3});
        admin.policy(&policy).await;
        for n in 0..2 {
            let response = post(&admin, &format!("a{n}"), &format!("203.0.113.{n}")).await;
            agents[0].answer(Outcome::Failed, None).await;
            lift(&admin, &response).await;
            agents[0].obey().await;
        }
        assert_eq!(state(&post(&admin, "b", "203.0.113.50").await), ("active", ""));
    }

    async fn waves_reach_the_fleet_step_by_step(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agents = fleet(&app, &admin, 5).await;
        let mut policy = drop_policy("drop");
        policy["respond"]["on"] = json!({"labels": {"env": "prod"}});
        policy["respond"]["for"] = json!("1h");
        policy["respond"]["waves"] = json!({"count": 3, "over": "3m"});
        admin.policy(&policy).await;
        let response = post(&admin, "a", "203.0.113.7").await;
        assert_eq!((response["agents"].as_array().unwrap().len(), commands(&admin).await), (5, 2));
        app.advance(59);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(commands(&admin).await, 2, "the second wave is not due");
        for agent in &agents[..2] {
            agent.answer(Outcome::Succeeded, Some(true)).await;
        }
        app.advance(6);
        // A round of the sweep may be under way, so the clock moves on.
        app.in_time("the second wave", || async { (commands(&admin).await == 4).then_some(()) }).await;
        app.advance(60);
        app.in_time("the third wave", || async { (commands(&admin).await == 5).then_some(()) }).await;
        assert_eq!(admin.list("/v1/effects").await.len(), 5);
        let all = admin.get(&format!("/v1/responses/{}", response["id"].as_str().unwrap())).await.is(200);
        let ends: std::collections::BTreeSet<&str> =
            all["commands"].as_array().unwrap().iter().map(|command| command["until"].as_str().unwrap()).collect();
        assert_eq!(ends.len(), 1, "all of them end together");
    }

    async fn too_many_failures_stop_the_waves_that_are_left(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agents = fleet(&app, &admin, 4).await;
        let mut policy = drop_policy("drop");
        policy["respond"]["on"] = json!("all");
        policy["respond"]["for"] = json!("1h");
        policy["respond"]["waves"] = json!({"count": 4, "over": "4m", "stop_at": "50%"});
        admin.policy(&policy).await;
        let response = post(&admin, "a", "203.0.113.7").await;
        agents[0].answer(Outcome::Failed, None).await;
        let path = format!("/v1/responses/{}", response["id"].as_str().unwrap());
        app.advance(61);
        soon("the response says that it stopped", async || {
            admin.get(&path).await.is(200)["detail"].as_str().unwrap().contains("3 pending waves")
        })
        .await;
        app.advance(600);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(commands(&admin).await, 1, "no further command is sent");
    }

    async fn a_lifted_response_sends_no_further_wave(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let _agents = fleet(&app, &admin, 4).await;
        let mut policy = drop_policy("drop");
        policy["respond"]["on"] = json!("all");
        policy["respond"]["for"] = json!("1h");
        policy["respond"]["waves"] = json!({"count": 2, "over": "2m"});
        admin.policy(&policy).await;
        let response = post(&admin, "a", "203.0.113.7").await;
        lift(&admin, &response).await;
        let lifted = admin.get(&format!("/v1/responses/{}", response["id"].as_str().unwrap())).await.is(200);
        assert_eq!(state(&lifted), ("ended", "lifted"));
        app.advance(120);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let applies = admin.list("/v1/commands").await.iter().filter(|command| command["op"] == "apply").count();
        assert_eq!(applies, 2);
    }

    /// Between two waves a response may hold nothing at all. It still ends, whatever the end is.
    async fn promise_11_a_staged_response_that_holds_nothing_between_its_waves_still_ends(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agents = fleet(&app, &admin, 2).await;
        let action = json!({"name": "scan", "summary": "Scans.", "executable": "scan.sh"});
        admin.post("/v1/actions", &action).await.is(201);
        let mut policy = drop_policy("scan");
        policy["respond"] = json!({"action": "scan", "on": "all", "waves": {"count": 2, "over": "10m", "stop_at": "50%"}});
        admin.policy(&policy).await;
        let find = async |response: &Value| {
            admin.get(&format!("/v1/responses/{}", response["id"].as_str().unwrap())).await.is(200)
        };
        let lifted = post(&admin, "a", "203.0.113.7").await;
        agents[0].answer(Outcome::Succeeded, None).await;
        assert_eq!(state(&find(&lifted).await).0, "active", "its second wave is to come");
        lift(&admin, &lifted).await;
        assert_eq!(state(&find(&lifted).await), ("ended", "lifted"));
        let stopped = post(&admin, "b", "203.0.113.7").await;
        agents[0].answer(Outcome::Failed, None).await;
        app.advance(301);
        soon("too many have failed", async || find(&stopped).await["state"] == "ended").await;
        let stopped = find(&stopped).await;
        assert_eq!(state(&stopped), ("ended", "stopped"));
        assert!(stopped["detail"].as_str().unwrap().contains("1 of 1 commands"), "{stopped}");

        let mut policy = drop_policy("drop");
        policy["respond"]["on"] = json!("all");
        policy["respond"]["for"] = json!("1m");
        policy["respond"]["waves"] = json!({"count": 2, "over": "1h"});
        admin.policy(&policy).await;
        admin.delete("/v1/policies/scan", Some("\"1\"")).await.is(204);
        let left_alone = post(&admin, "c", "203.0.113.7").await;
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        admin.post("/v1/protected", &json!({"kind": "agent", "value": "web-01", "reason": "the bank"})).await.is(201);
        assert_eq!(state(&find(&left_alone).await).0, "active", "its second wave is to come");
        app.advance(61);
        soon("its time is over", async || find(&left_alone).await["state"] == "ended").await;
        let other = post(&admin, "d", "203.0.113.8").await;
        app.advance(61);
        soon("the undo stage goes on", async || find(&other).await["state"] == "ended").await;
    }

    async fn approval_and_waves_go_together(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let _agents = fleet(&app, &admin, 4).await;
        let mut policy = drop_policy("drop");
        policy["mode"] = json!("approve");
        policy["respond"]["on"] = json!("all");
        policy["respond"]["for"] = json!("1h");
        policy["respond"]["waves"] = json!({"count": 2, "over": "2m"});
        admin.policy(&policy).await;
        let response = post(&admin, "a", "203.0.113.7").await;
        assert_eq!((state(&response).0, commands(&admin).await), ("awaiting_approval", 0));
        let path = format!("/v1/responses/{}/approve", response["id"].as_str().unwrap());
        let approver = app.person(&admin, "alice", "analyst").await;
        approver.post(&path, &json!({"reason": "yes"})).await.is(200);
        assert_eq!(commands(&admin).await, 2);
        app.advance(61);
        soon("the second wave", async || commands(&admin).await == 4).await;
    }

    async fn a_response_on_too_large_a_share_of_the_fleet_is_over_the_limit(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let _agents = fleet(&app, &admin, 4).await;
        let mut policy = drop_policy("drop");
        policy["respond"]["on"] = json!("all");
        policy["limits"] = json!({"fleet_share": "99%", "over_limit": "drop"});
        admin.policy(&policy).await;
        let over = post(&admin, "a", "203.0.113.1").await;
        assert_eq!(state(&over), ("spared", "over_limit"));
        assert!(over["detail"].as_str().unwrap().contains("fleet_share"));
        let mut policy = drop_policy("one");
        policy["match"] = json!([{"rule_ids": ["1"]}]);
        policy["limits"] = json!({"fleet_share": "1%", "over_limit": "drop"});
        admin.policy(&policy).await;
        let mut alert = brute_force("b", "203.0.113.2");
        alert["rule"]["id"] = json!("1");
        let answer = admin.post("/v1/alerts", &alert).await.is(202);
        let one = admin.get(&format!("/v1/responses/{}", answer["responses"][0].as_str().unwrap())).await.is(200);
        assert_eq!(state(&one), ("active", ""), "one agent is never too many");
    }

    async fn observing_counts_what_would_have_been_limits_included(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let _agents = fleet(&app, &admin, 1).await;
        let mut policy = drop_policy("drop");
        policy["mode"] = json!("observe");
        policy["limits"] = json!({"responses": "2/1m"});
        admin.policy(&policy).await;
        for n in 0..3 {
            assert_eq!(state(&post(&admin, &format!("a{n}"), &format!("203.0.113.{n}")).await).0, "observed");
        }
        post(&admin, "b", "127.0.0.1").await;
        let counts = admin.get("/v1/policies/drop/counts?within=1h").await.is(200);
        assert_eq!(counts["observed"], json!({"would_act": 2, "over_limit": 1}));
        assert_eq!((&counts["spared"], &counts["targets"]), (&json!({"protected": 1}), &json!(3)));
        assert_eq!(counts["responses"], json!({"observed": 3, "spared": 1}));
        assert_eq!(commands(&admin).await, 0, "and nothing is done");
        app.advance(3601);
        assert_eq!(admin.get("/v1/policies/drop/counts?within=1h").await.is(200)["responses"], json!({}));
        admin.get("/v1/policies/drop/counts?within=never").await.is_problem(400);
    }

    async fn a_storm_under_limits_acts_within_them_and_every_alert_has_its_answer(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let _agents = fleet(&app, &admin, 1).await;
        let mut policy = drop_policy("drop");
        policy["limits"] = json!({"responses": "50/1m", "targets": "40/1h", "over_limit": "drop"});
        policy["breaker"] = json!({"failed": "50%", "undone": "30%"});
        admin.policy(&policy).await;
        // 4,000 alerts of 250 sources, 500 to a request, four requests at a time.
        let batches = (0..8).map(|batch| {
            let admin = admin.clone();
            async move {
                let alert = |n: usize| brute_force(&format!("s{batch}-{n}"), &format!("10.{}.0.1", (batch * 500 + n) % 250));
                let alerts: Vec<Value> = (0..500).map(alert).collect();
                let answer = admin.post("/v1/alerts", &json!(alerts)).await.is(202);
                answer["responses"].as_array().unwrap().len()
            }
        });
        let answered: usize = futures_util::future::join_all(batches).await.into_iter().sum();
        assert_eq!(answered, 4000);
        let counts = admin.get("/v1/policies/drop/counts").await.is(200);
        let acted = counts["responses"]["active"].as_u64().unwrap();
        assert!((40..=50).contains(&acted), "{counts}");
        assert_eq!(counts["spared"], json!({"over_limit": 4000 - acted}));
        assert_eq!(counts["targets"], 40);
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }
}
