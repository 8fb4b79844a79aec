//! Programs of two versions with each other. In `make test` both are of this build; `make
//! compatibility` names the program of another commit for one side, in `MANAGER_PROGRAM` or
//! `AGENT_PROGRAM`. So these tests must use nothing that only a new version has.

mod recorded;
mod recording;

use std::path::Path;

use serde_json::json;

use super::delivery::lift;
use super::processes::{Agent, Manager, PATIENCE, agent_program, alert, eventually, manager_program, text};

/// Fails if a child runs another program than the one that was asked for.
fn runs(id: u32, program: &Path) {
    let run = std::fs::read_link(format!("/proc/{id}/exe")).unwrap();
    assert_eq!(run, program.canonicalize().unwrap());
}

/// A block from its alert to its end, with both programs started again in between.
async fn is_blocked_and_lifted_over(transport: &str) {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    agent.run(&["--transport", transport]);
    let (response, command) = api.answer_to(&alert(1, "10.0.0.1", "web-01")).await;
    let command = api.command_is(text(&command, "id"), "succeeded").await;
    assert!(command["acknowledged_at"].is_string(), "{command}");
    assert_eq!((&command["op"], &command["result"]["verified"]), (&json!("apply"), &json!(true)), "{command}");
    let held = agent.status();
    assert_eq!(held["effects"].as_array().unwrap().len(), 1, "{held}");
    assert_eq!(held["effects"][0]["until"], api.response(&response).await["until"], "{held}");
    runs(manager.child.id(), &manager_program());
    runs(agent.child.as_ref().unwrap().id(), &agent_program());

    // What the journal and the ledger hold is read again.
    manager.start_again().await;
    agent.run_again();
    let (other, command) = api.answer_to(&alert(2, "10.0.0.2", "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
    for response in [&response, &other] {
        lift(&api, response).await;
        let revert = api.response(response).await["commands"][0].clone();
        assert_eq!(revert["op"], "revert", "{revert}");
        api.command_is(text(&revert, "id"), "succeeded").await;
        assert_eq!(api.response(response).await["state"], "ended");
    }
    eventually("the agent holds nothing", PATIENCE, async || (agent.status()["effects"] == json!([])).then_some(()))
        .await;
    let log = agent.log();
    let times = |what: &str| log.matches(what).count();
    assert_eq!((times("log-only: applied"), times("log-only: reverted")), (2, 2), "{log}");
    assert_eq!(api.get(&format!("/v1/agents/{}", agent.id)).await["rejected_orders"], 0);
    api.audit_is_intact().await;
}

#[tokio::test]
async fn an_alert_is_answered_and_its_block_lifted_over_a_stream() {
    is_blocked_and_lifted_over("stream").await;
}

#[tokio::test]
async fn an_alert_is_answered_and_its_block_lifted_over_polls() {
    is_blocked_and_lifted_over("poll").await;
}
