//! Programs that are killed at any instant lose nothing that they promised.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::processes::{Agent, Api, FakeAgent, Manager, PATIENCE, alert, eventually, random_below, signal, text};

/// An address for each number: unique up to 2^24, and private.
fn address(number: u64) -> String {
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

/// Posts alerts from `first` on, one or several in a request, until the manager is gone. Returns
/// the acknowledged ones and the others.
async fn post_until_gone(api: Api, first: u64, step: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut acknowledged, mut next) = (Vec::new(), first);
    loop {
        let count = 1 + random_below(3);
        let numbers: Vec<u64> = (0..count).map(|index| next + index * step).collect();
        next += count * step;
        match post(&api, &numbers).await {
            Some((StatusCode::ACCEPTED, intake)) => {
                assert_eq!((&intake["accepted"], &intake["duplicates"]), (&json!(count), &json!(0)), "{intake}");
                acknowledged.extend(numbers);
            }
            Some((status, problem)) => panic!("{status}: {problem}"),
            None => return (acknowledged, numbers),
        }
    }
}

/// Posts these alerts in one request, if the manager answers.
async fn post(api: &Api, numbers: &[u64]) -> Option<(StatusCode, Value)> {
    let alerts: Vec<Value> = numbers.iter().map(|number| alert(*number, &address(*number), "web-01")).collect();
    let answer = api.request(Method::POST, "/v1/alerts").json(&alerts).send().await.ok()?;
    let status = answer.status();
    Some((status, answer.json().await.ok()?))
}

/// Returns the number in an alert's id.
fn number(item: &Value) -> u64 {
    text(item, "pipeline_id").rsplit('.').next().unwrap().parse().unwrap()
}

/// The ledger's content by id, gathered round by round.
#[derive(Default)]
struct Gathered {
    seen: HashSet<String>,
    alerts: HashMap<u64, String>,
    response_of: HashMap<String, String>,
    command_of: HashMap<String, String>,
}

impl Gathered {
    /// Reads everything new; fails if an item is there twice or without its counterpart.
    async fn look(&mut self, api: &Api) {
        let before = self.seen.clone();
        let known = |id: &str| before.contains(id);
        for item in api.newer_than("/v1/alerts", known).await {
            if self.seen.insert(text(&item, "id").into()) {
                let twin = self.alerts.insert(number(&item), text(&item, "id").into());
                assert_eq!(twin, None, "an alert is stored twice: {item}");
            }
        }
        for item in api.newer_than("/v1/responses", known).await {
            if self.seen.insert(text(&item, "id").into()) {
                let twin = self.response_of.insert(text(&item, "alert_id").into(), text(&item, "id").into());
                assert_eq!(twin, None, "an alert was answered twice: {item}");
            }
        }
        for item in api.newer_than("/v1/commands", known).await {
            if self.seen.insert(text(&item, "id").into()) {
                let twin = self.command_of.insert(text(&item, "response_id").into(), text(&item, "id").into());
                assert_eq!(twin, None, "a response has two commands: {item}");
            }
        }
        assert_eq!(self.response_of.len(), self.alerts.len(), "alerts and responses were not committed together");
        assert_eq!(self.command_of.len(), self.alerts.len(), "responses and commands were not committed together");
    }

    /// The alert of that number must be there, with its response and its command.
    fn assert_has(&self, number: u64) {
        let alert = self.alerts.get(&number);
        let response = alert.and_then(|alert| self.response_of.get(alert));
        let command = response.and_then(|response| self.command_of.get(response));
        assert!(command.is_some(), "alert {number} was acknowledged and is lost: {alert:?} {response:?} {command:?}");
    }
}

#[tokio::test]
async fn promise_1_durable_before_2xx_whenever_the_manager_is_killed() {
    const ROUNDS: usize = 25;
    const POSTERS: u64 = 4;
    let mut manager = Manager::start().await;
    let api = manager.api();
    let _offline = FakeAgent::enroll(&manager, "web-01").await;
    api.make_policy("log-only", "7d").await;
    let (mut gathered, mut next, mut killed_under_load) = (Gathered::default(), 1, 0);
    for round in 0..ROUNDS {
        let mut posters = JoinSet::new();
        for poster in 0..POSTERS {
            posters.spawn(post_until_gone(api.clone(), next + poster, POSTERS));
        }
        tokio::time::sleep(Duration::from_micros(random_below(250_000))).await;
        manager.kill9();
        let (acknowledged, unknown): (Vec<_>, Vec<_>) = posters.join_all().await.into_iter().unzip();
        let (acknowledged, unknown) = (acknowledged.concat(), unknown.concat());
        manager.start_again().await;

        gathered.look(&api).await;
        for number in &acknowledged {
            gathered.assert_has(*number);
        }
        // A client that sends them again learns that they are known, and changes nothing.
        if !acknowledged.is_empty() {
            killed_under_load += 1;
            let (_, intake) = post(&api, &acknowledged).await.unwrap();
            assert_eq!(
                (&intake["accepted"], &intake["duplicates"]),
                (&json!(0), &json!(acknowledged.len())),
                "{round}"
            );
        }
        // An alert in progress is stored as a whole, or not at all; sending it again settles
        // it.
        let there = unknown.iter().filter(|number| gathered.alerts.contains_key(number)).count();
        let (_, intake) = post(&api, &unknown).await.unwrap();
        assert_eq!(intake["duplicates"], there, "{intake}");
        next = [acknowledged, unknown].concat().into_iter().max().unwrap_or(next) + 1;
        gathered.look(&api).await;
    }
    assert!(killed_under_load > ROUNDS / 2, "only {killed_under_load} rounds had anything to lose");

    let mut all = Gathered::default();
    all.look(&api).await;
    assert_eq!(all.alerts, gathered.alerts, "something that was seen after an earlier kill is gone");
    api.audit_is_intact().await;
    eprintln!("{} alerts survived {ROUNDS} kills, {killed_under_load} of them under load", all.alerts.len());
}

#[tokio::test]
async fn promise_3_every_command_is_executed_once_whichever_program_is_killed() {
    const ROUNDS: u64 = 12;
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "7d").await;
    let mut agent = Agent::start(&manager, "web-01").await;
    let (mut next, mut handed_in) = (1, HashSet::new());
    for round in 0..ROUNDS {
        let posting = tokio::time::timeout(Duration::from_millis(100 + random_below(700)), async {
            loop {
                let numbers: Vec<u64> = (next..next + 1 + random_below(4)).collect();
                next += 5;
                if post(&api, &numbers).await.is_some_and(|(status, _)| status == StatusCode::ACCEPTED) {
                    handed_in.extend(numbers);
                }
            }
        });
        assert!(posting.await.is_err());
        match round % 3 {
            0 => manager.start_again().await,
            1 => agent.run_again(),
            _ => {
                agent.kill9();
                manager.start_again().await;
                agent.run_again();
            }
        }
        // Often killed again before they have connected, sometimes while they process leftover
        // commands.
        if random_below(2) == 0 {
            api.agent_streams(&agent.id).await;
        }
    }
    eventually("every command has an answer", 2 * PATIENCE, async || {
        let open = ["queued", "delivered", "acknowledged"];
        let commands = api.newer_than("/v1/commands", |_| false).await;
        commands.iter().all(|command| !open.contains(&text(command, "state"))).then_some(())
    })
    .await;

    let log = agent.log();
    let mut executed: HashMap<&str, u32> = HashMap::new();
    for line in log.lines().filter(|line| line.contains("log-only: applied")) {
        let (_, target) = line.split_once("target=ip ").unwrap();
        *executed.entry(target.split_whitespace().next().unwrap()).or_default() += 1;
    }
    let commands = api.newer_than("/v1/commands", |_| false).await;
    let mut cut_short = 0;
    for command in &commands {
        let command = api.command(text(command, "id")).await;
        assert_eq!(command["state"], "succeeded", "{command}");
        let result = &command["result"];
        assert_eq!(result["command_id"], command["id"]);
        let times = executed.get(text(&command, "target_value")).copied().unwrap_or(0);
        // Killed after the intent was on disk and before the line was written: verified, never
        // executed again.
        let resumed = text(result, "message").contains("the agent was stopped during the execution");
        cut_short += usize::from(resumed);
        assert!(times == 1 || (times == 0 && resumed), "executed {times} times: {command}");
    }
    let answered: HashSet<&str> = commands.iter().map(|command| text(command, "target_value")).collect();
    assert_eq!(answered.len(), commands.len(), "an alert was answered twice");
    for number in handed_in {
        assert!(answered.contains(address(number).as_str()), "alert {number} was acknowledged and never answered");
    }
    api.audit_is_intact().await;
    eprintln!("{} commands were executed once each, {cut_short} of them cut short by a kill", commands.len());
}

#[tokio::test]
async fn promise_9_no_lost_result_when_the_agent_finishes_while_the_manager_is_down() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agent = Agent::start(&manager, "web-01").await;
    // The agent is suspended while the command arrives, and continues when the manager is gone.
    signal(agent.child.as_ref().unwrap(), "STOP");
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    let id = text(&command, "id").to_owned();
    api.command_is(&id, "delivered").await;
    manager.kill9();
    signal(agent.child.as_ref().unwrap(), "CONT");
    agent.has_logged(&format!("command done command={id}"), 1).await;
    assert_eq!(agent.status()["results_unsent"], 1);

    // A restart of the agent does not lose it either.
    agent.run_again();
    manager.start_again().await;
    let command = api.command_is(&id, "succeeded").await;
    assert_eq!(command["result"]["verified"], true, "{command}");
    eventually("the agent may forget the result", PATIENCE, async || {
        (agent.status()["results_unsent"] == 0).then_some(())
    })
    .await;
    assert_eq!(agent.log().matches("log-only: applied").count(), 1);
    api.audit_is_intact().await;
}

#[tokio::test]
async fn promise_9_a_result_whose_acknowledgement_is_lost_is_told_again_and_counted_once() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let agent = FakeAgent::enroll(&manager, "web-01").await;
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    let order = agent.poll(json!({"cursor": 0})).await.remove(0);
    let result = super::processes::succeeded(order.jti);
    let telling = json!({"cursor": order.seq, "acks": [order.jti], "results": [result]});
    for _ in 0..2 {
        let (status, answer) = agent.exchange(&telling).await;
        assert_eq!((status, &answer["result_acks"]), (StatusCode::OK, &json!([order.jti])));
        manager.start_again().await;
    }
    assert_eq!(api.command(text(&command, "id")).await["state"], "succeeded");
    let audit = api.get(&format!("/v1/audit?noun=command&noun_id={}", order.jti)).await;
    let verbs: Vec<&str> = audit["items"].as_array().unwrap().iter().map(|entry| text(entry, "verb")).collect();
    assert_eq!(verbs, ["succeeded", "acknowledged", "queued"]);
}
