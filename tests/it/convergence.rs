//! Promise 10: on every connect the agent reports what it holds, and ledger and host converge. On
//! both databases.

use riposte_protocol::command::Op;
use riposte_protocol::message::{Actual, FromAgent, HeldEffect, MAX_EFFECTS_BYTES, Outcome, PollRequest};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Client, Database, FakeAgent, TestApp};

/// A block that the agent has applied, and how the agent reports it.
async fn with_block(database: Database) -> (TestApp, Client, FakeAgent, HeldEffect) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let asked =
        json!({"action": "firewall-drop", "target": "203.0.113.7", "agents": ["web-01"], "for": "1h", "reason": "x"});
    admin.post("/v1/responses", &asked).await.is(201);
    let command = agent.answer(Outcome::Succeeded, Some(true)).await;
    let held = HeldEffect {
        effect: command.effect,
        action: command.action,
        target: command.target,
        until: command.until,
        actual: None,
        drifts: 0,
        failing: None,
        released: None,
    };
    (app, admin, agent, held)
}

/// The agent connects and reports what it holds.
async fn says(agent: &FakeAgent, effects: Option<Vec<HeldEffect>>) {
    agent.poll(&PollRequest { effects, cursor: u64::MAX >> 1, max: 0, ..PollRequest::default() }).await;
}

async fn effect(admin: &Client) -> Value {
    admin.list("/v1/effects").await.remove(0)
}

async fn verbs(admin: &Client, held: &HeldEffect) -> Vec<String> {
    let history = admin.history("effect", &held.effect.to_string()).await;
    history.into_iter().map(|(_, verb)| verb).collect()
}

on_both_databases! {
    async fn promise_10_effects_that_a_re_imaged_host_lost_are_applied_again(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        says(&agent, Some(vec![held.clone()])).await;
        assert!(agent.owed().await.is_empty(), "its effects are the expected ones");
        says(&agent, None).await;
        assert!(agent.owed().await.is_empty(), "an agent without a report has lost nothing");
        says(&agent, Some(vec![])).await;
        let again = agent.owed_one().await;
        assert_eq!((again.effect, again.until), (held.effect, held.until));
        assert_eq!(verbs(&admin, &held).await, ["lost"]);
        says(&agent, Some(vec![])).await;
        assert_eq!(agent.owed().await.len(), 1, "a command is under way: no second one");
        agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!(effect(&admin).await["actual"], "in_force");
    }

    async fn promise_10_effects_that_a_restored_host_reports_absent_are_applied_again(database: Database) {
        let (app, admin, agent, held) = with_block(database).await;
        // It had begun another command of this effect then, and finds on start that nothing is in
        // force.
        let absent = HeldEffect { actual: Some(Actual::Absent), ..held.clone() };
        says(&agent, Some(vec![absent.clone()])).await;
        let again = agent.owed_one().await;
        assert_eq!((again.effect, again.until), (held.effect, held.until));
        agent.answer(Outcome::Failed, Some(false)).await;
        says(&agent, Some(vec![absent.clone()])).await;
        assert!(agent.owed().await.is_empty(), "a failed apply is not retried at once");
        assert_eq!(effect(&admin).await["actual"], "absent");
        app.advance(301);
        says(&agent, Some(vec![absent])).await;
        assert_eq!(agent.owed().await.len(), 1);
    }

    async fn promise_10_a_long_list_that_may_have_been_cut_loses_nothing(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        let other = |n: usize| HeldEffect { effect: uuid::Uuid::from_u128(n as u128 + 1), ..held.clone() };
        let one = serde_json::to_vec(&other(0)).unwrap().len() + 1;
        says(&agent, Some((0..MAX_EFFECTS_BYTES / one).map(other).collect())).await;
        assert!(agent.owed().await.is_empty() && verbs(&admin, &held).await.is_empty());
    }

    async fn promise_10_an_effect_without_a_response_is_lifted(database: Database) {
        let (app, admin, agent, held) = with_block(database).await;
        let response = admin.list("/v1/responses").await.remove(0);
        let path = format!("/v1/responses/{}/lift", response["id"].as_str().unwrap());
        admin.post(&path, &json!({"reason": "over"})).await.is(200);
        agent.answer(Outcome::Succeeded, Some(true)).await;
        // The host is restored from a snapshot taken before the revert.
        says(&agent, Some(vec![held.clone()])).await;
        let revert = app.in_time("the revert is owed", || async { agent.owed().await.pop() }).await;
        assert_eq!((revert.op, revert.effect), (riposte_protocol::command::Op::Revert, held.effect));
    }

    async fn promise_10_an_effect_released_on_the_host_ends_in_the_ledger_too(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        let released = HeldEffect { actual: Some(Actual::Absent), released: Some("wrong host".into()), ..held };
        says(&agent, Some(vec![released])).await;
        let response = admin.list("/v1/responses").await.remove(0);
        assert_eq!((&response["state"], &response["reason"]), (&json!("ended"), &json!("released")));
        assert!(response["detail"].as_str().unwrap().contains("wrong host"));
        assert_eq!(effect(&admin).await["desired"], "absent");
    }

    async fn promise_10_drift_is_noted_and_so_is_its_repair(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        for (actual, word) in [(Actual::Drifted, "drifted"), (Actual::InForce, "in_force")] {
            says(&agent, Some(vec![HeldEffect { actual: Some(actual), ..held.clone() }])).await;
            assert_eq!(effect(&admin).await["actual"], word);
        }
        assert_eq!(verbs(&admin, &held).await, ["drifted", "repaired"]);
        assert!(agent.owed().await.is_empty(), "whether drift is repaired is the agent's own business");
    }

    async fn promise_10_a_different_end_on_the_host_is_corrected(database: Database) {
        let (_app, _admin, agent, held) = with_block(database).await;
        let other = Some(Timestamp::from_millis(held.until.unwrap().as_millis() + 60_000));
        says(&agent, Some(vec![HeldEffect { until: other, ..held.clone() }])).await;
        assert_eq!(agent.owed_one().await.until, held.until);
    }

    async fn promise_10_an_effect_that_cannot_be_lifted_is_an_incident(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        let response = admin.list("/v1/responses").await.remove(0);
        let path = format!("/v1/responses/{}/lift", response["id"].as_str().unwrap());
        admin.post(&path, &json!({"reason": "over"})).await.is(200);
        agent.answer(Outcome::Succeeded, Some(true)).await;
        says(&agent, Some(vec![HeldEffect { failing: Some("nft: permission denied".into()), ..held.clone() }])).await;
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 1);
        assert_eq!(verbs(&admin, &held).await, ["failing"]);
    }

    async fn the_remains_of_a_failed_apply_wait_for_the_agent_and_are_not_sent_again(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let asked = json!({"action": "firewall-drop", "target": "203.0.113.7", "agents": ["web-01"], "for": "1h", "reason": "x"});
        admin.post("/v1/responses", &asked).await.is(201);
        let command = agent.answer(Outcome::Failed, None).await;
        // The clean-up failed too: the effect is held and overdue, and the agent's own timer
        // retries it.
        let held = HeldEffect {
            effect: command.effect,
            action: command.action,
            target: command.target,
            until: Some(Timestamp::from_millis(command.until.unwrap().as_millis() - 3_600_000)),
            actual: None,
            drifts: 0,
            failing: Some("no".into()),
            released: None,
        };
        for _ in 0..2 {
            says(&agent, Some(vec![held.clone()])).await;
            assert!(agent.owed().await.is_empty(), "an effect that cannot be lifted is not applied again");
        }
        assert_eq!(verbs(&admin, &held).await, ["failing"], "one incident");
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 1);
    }

    async fn promise_10_no_agent_speaks_for_another(database: Database) {
        let (app, admin, _agent, held) = with_block(database).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        let released = HeldEffect { released: Some("mine".into()), actual: Some(Actual::Absent), ..held };
        says(&other, Some(vec![released])).await;
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 1);
    }

    async fn two_hosts_with_one_identity_are_an_incident_and_a_restart_is_none(database: Database) {
        let (_app, admin, agent, _held) = with_block(database).await;
        let run = |n: u128| Some(uuid::Uuid::from_u128(n));
        let incident = async || admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200)["incident"].clone();
        for n in [1, 1, 2, 2, 1, 2, 2] {
            agent.poll(&PollRequest { run: run(n), cursor: 1, max: 0, ..PollRequest::default() }).await;
        }
        assert_eq!(incident().await, Value::Null);
        agent.poll(&PollRequest { run: run(1), cursor: 1, max: 0, ..PollRequest::default() }).await;
        assert!(incident().await.as_str().unwrap().contains("two hosts"));
        admin.metrics_show("riposte_agents_incident 1\n", true).await;
        let history = admin.history("agent", &agent.id.to_string()).await;
        assert!(history.iter().any(|(_, verb)| verb == "cloned"), "{history:?}");
    }

    async fn a_ledger_older_than_the_agents_journal_numbers_on_from_there(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        let block = |target: &str| json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "reason": "x"});
        admin.post("/v1/responses", &block("203.0.113.8")).await.is(201);
        admin.post("/v1/responses", &block("203.0.113.9")).await.is(201);
        // The journal has seen forty commands that this ledger does not know.
        let request = PollRequest { effects: Some(vec![held]), cursor: 41, max: 64, ..PollRequest::default() };
        let sent = agent.poll(&request).await.commands;
        let numbers: Vec<(u64, String)> =
            sent.iter().map(|token| agent.open(token)).map(|command| (command.seq, command.target.value().to_owned())).collect();
        assert_eq!(numbers, [(42, "203.0.113.8".to_owned()), (43, "203.0.113.9".to_owned())]);
        admin.post("/v1/responses", &block("203.0.113.10")).await.is(201);
        assert!(agent.owed().await.iter().any(|command| command.seq == 44));
        let history = admin.history("agent", &agent.id.to_string()).await;
        assert!(history.iter().any(|(_, verb)| verb == "advanced"), "{history:?}");
    }

    async fn an_agent_restored_from_an_earlier_state_is_noticed(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        let hello = |cursor| PollRequest {
            effects: Some(vec![]), run: Some(uuid::Uuid::from_u128(1)), cursor, max: 0, ..PollRequest::default()
        };
        agent.poll(&hello(0)).await;
        let history = admin.history("agent", &agent.id.to_string()).await;
        assert!(history.iter().any(|(_, verb)| verb == "restored"), "{history:?}");
        assert_eq!(agent.owed_one().await.effect, held.effect, "and a forgotten effect is applied again");
    }

    async fn a_one_shot_is_not_executed_again_on_a_restored_host(database: Database) {
        let (_app, admin, agent, _held) = with_block(database).await;
        let action = json!({"name": "scan", "summary": "Scans.", "executable": "scan.sh"});
        admin.post("/v1/actions", &action).await.is(201);
        let scan = json!({"action": "scan", "agents": ["web-01"], "reason": "x"});
        let sent = admin.post("/v1/responses", &scan).await.is(201);
        let other = json!({"action": "firewall-drop", "target": "203.0.113.8", "agents": ["web-01"], "reason": "x"});
        admin.post("/v1/responses", &other).await.is(201);
        let owed = agent.owed().await;
        assert_eq!(owed.len(), 2);
        // It has executed both, and the result of the first was lost.
        agent.acknowledge(&[&owed[1]]).await;
        agent.report(vec![agent.result(owed[1].jti, Outcome::Succeeded, Some(true))]).await;
        let later = admin.post("/v1/responses", &scan).await.is(201);
        let hello = PollRequest { effects: Some(vec![]), run: Some(uuid::Uuid::from_u128(1)), max: 64, ..PollRequest::default() };
        let sent_again: Vec<_> = agent.poll(&hello).await.commands.iter().map(|token| agent.open(token)).collect();
        let scans: Vec<String> =
            sent_again.iter().filter(|command| command.action == "scan").map(|command| command.response.to_string()).collect();
        assert_eq!(scans, [later["id"].as_str().unwrap()], "only the unsent command is sent now");
        let ended = admin.get(&format!("/v1/responses/{}", sent["id"].as_str().unwrap())).await.is(200);
        assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("failed")));
        let command = &ended["commands"][0];
        assert_eq!(command["state"], "expired");
        assert!(command["detail"].as_str().unwrap().contains("rollback"), "{command}");
    }

    async fn promise_10_effects_that_a_restored_ledger_does_not_know_are_reported(database: Database) {
        let (_app, admin, agent, held) = with_block(database).await;
        let stranger = HeldEffect { effect: uuid::Uuid::from_u128(77), ..held.clone() };
        says(&agent, Some(vec![held.clone()])).await;
        let strangers = async || {
            let history = admin.history("agent", &agent.id.to_string()).await;
            history.iter().filter(|(_, verb)| verb == "holds strangers").count()
        };
        assert_eq!(strangers().await, 0);
        let run = Some(uuid::Uuid::from_u128(5));
        for _ in 0..2 {
            let effects = Some(vec![held.clone(), stranger.clone()]);
            agent.poll(&PollRequest { cursor: 1, effects, run, ..PollRequest::default() }).await;
            assert_eq!(strangers().await, 1, "once for each of its runs");
        }
        let effects = Some(vec![held, stranger]);
        let run = Some(uuid::Uuid::from_u128(6));
        agent.poll(&PollRequest { cursor: 1, effects, run, ..PollRequest::default() }).await;
        assert_eq!(strangers().await, 2);
    }

    async fn promise_10_an_effect_that_an_agent_ended_too_early_is_applied_again(database: Database) {
        let (app, admin, agent, held) = with_block(database).await;
        let mut stream = agent.stream(1).await;
        // Its clock is ahead: the block has an hour left.
        stream.say(&FromAgent::Effects { effects: vec![], ended: vec![held.effect] }).await;
        let again = stream.commands(&agent).await;
        assert_eq!((again.len(), again[0].effect, again[0].until), (1, held.effect, held.until));
        agent.acknowledge(&[&again[0]]).await;
        agent.report(vec![agent.result(again[0].jti, Outcome::Succeeded, Some(true))]).await;
        // Half a minute early is within the tolerance for clocks.
        app.advance(3570);
        stream.say(&FromAgent::Effects { effects: vec![], ended: vec![held.effect] }).await;
        app.in_time("the block is over", || async {
            (admin.list("/v1/responses").await[0]["state"] == "ended").then_some(())
        })
        .await;
        let applies = admin.list("/v1/commands").await.iter().filter(|command| command["op"] == "apply").count();
        assert_eq!(applies, 2);
    }

    async fn promise_5_an_incident_ends_when_its_effect_is_gone_however_it_was_lifted(database: Database) {
        let (app, admin, agent, held) = with_block(database).await;
        let response = admin.list("/v1/responses").await.remove(0);
        let path = format!("/v1/responses/{}/lift", response["id"].as_str().unwrap());
        admin.post(&path, &json!({"reason": "over"})).await.is(200);
        agent.answer(Outcome::Failed, None).await;
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 1);
        let mut stream = agent.stream(2).await;
        stream.say(&FromAgent::Effects { effects: vec![], ended: vec![held.effect] }).await;
        app.in_time("the incident is over", || async {
            admin.list("/v1/effects?failing=true").await.is_empty().then_some(())
        })
        .await;
    }

    /// This holds while the response is in force elsewhere; a response in force nowhere has ended.
    async fn promise_10_a_failed_apply_is_retried_when_the_agent_reconnects_later(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        let asked = json!({"action": "firewall-drop", "target": "203.0.113.7", "agents": ["web-01", "web-02"], "for": "1h", "reason": "x"});
        admin.post("/v1/responses", &asked).await.is(201);
        other.answer(Outcome::Succeeded, Some(true)).await;
        agent.answer(Outcome::Refused, None).await;
        says(&agent, Some(vec![])).await;
        assert!(agent.owed().await.is_empty(), "not at once: the agent would refuse it again");
        assert_eq!(admin.list("/v1/responses").await[0]["outcome"], "partly");
        app.advance(301);
        says(&agent, Some(vec![])).await;
        agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!(admin.list("/v1/responses").await[0]["outcome"], "in_force");
    }

    /// After a restore: an effect without an end would stay for good, so the manager orders its
    /// revert.
    async fn promise_5_an_effect_without_an_end_that_the_ledger_does_not_know_is_lifted(database: Database) {
        let (app, admin, agent, held) = with_block(database).await;
        let other = Target::parse(TargetKind::Ip, "203.0.113.8").unwrap();
        let endless = HeldEffect { effect: Uuid::from_u128(77), until: None, target: other, ..held.clone() };
        // A second effect with another id, for an action and target that the ledger does know.
        let twin = HeldEffect { effect: Uuid::from_u128(78), until: None, ..held.clone() };
        let ends = HeldEffect { effect: Uuid::from_u128(79), ..held.clone() };
        let unsound = HeldEffect { effect: Uuid::from_u128(80), until: None, action: "a\0b".into(), ..held.clone() };
        let strangers = vec![endless.clone(), twin.clone(), ends, unsound];
        let effects = Some([vec![held.clone()], strangers.clone()].concat());
        let hello = PollRequest { cursor: 1, effects, run: Some(Uuid::from_u128(5)), max: 64, ..PollRequest::default() };
        let sent = agent.poll(&hello).await.commands;
        let mut ordered: Vec<(Op, Uuid)> =
            sent.iter().map(|token| agent.open(token)).map(|command| (command.op, command.effect)).collect();
        ordered.sort_by_key(|(_, effect)| *effect);
        assert_eq!(ordered, [(Op::Revert, endless.effect), (Op::Revert, twin.effect)]);
        let verbs: Vec<String> =
            admin.history("agent", &agent.id.to_string()).await.into_iter().map(|(_, verb)| verb).collect();
        assert!(verbs.contains(&"holds strangers".to_owned()), "{verbs:?}");
        assert!(verbs.contains(&"holds what cannot be lifted".to_owned()), "{verbs:?}");
        // The revert is retried until it succeeds, and is an incident meanwhile.
        let revert = agent.owed().await.into_iter().find(|command| command.effect == endless.effect).unwrap();
        agent.acknowledge(&[&revert]).await;
        agent.report(vec![agent.result(revert.jti, Outcome::Failed, None)]).await;
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 1);
        let again = app
            .in_time("it is tried again", || async {
                agent.owed().await.into_iter().find(|command| command.effect == endless.effect && command.jti != revert.jti)
            })
            .await;
        agent.acknowledge(&[&again]).await;
        agent.report(vec![agent.result(again.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 0);
        assert_eq!(admin.list("/v1/effects?target=203.0.113.7").await[0]["actual"], "in_force", "a known effect stays");
    }
}
