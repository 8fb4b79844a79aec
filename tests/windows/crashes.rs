//! The journal against the death of the program at any point: promise 6 on Windows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wine::{Agent, Manager, eventually};

const ROUNDS: u64 = 100;

/// In each round the agent is ended (as by `TerminateProcess`) at another moment of its work: at its
/// start, before and after what it was told is on disk, while a program runs, while it lifts. In the
/// end every response has one result, no program ran twice for one effect, and nothing is in force.
#[tokio::test]
async fn promise_6_a_hundred_ends_at_any_point_lose_nothing_and_do_nothing_twice() {
    let manager = Manager::start().await;
    let agent = Agent::new("win-crash");
    agent.enrol(&manager).await;
    agent.install("mark.exe");
    let action = json!({"name": "mark", "summary": "A test.", "target_kinds": ["ip"], "executable": "mark.exe", "style": "argv",
        "parameters": {"type": "array"}, "undoable": true});
    manager.post("/v1/actions", &action).await;
    let mut responses = Vec::new();
    for round in 0..ROUNDS {
        let mut running = agent.start(&[]);
        let target = json!({"kind": "ip", "value": format!("198.51.100.{}", round + 1)});
        responses.push(manager.order("win-crash", "mark", target, json!({"for": "2s"})).await);
        // From the loader's first instructions to long after the result.
        tokio::time::sleep(Duration::from_millis(round * 37 % 1500)).await;
        running.kill();
    }
    let _running = agent.connect(&manager, &[]).await;
    for response in &responses {
        eventually(&format!("{response} has ended"), async || {
            let whole = manager.get(&format!("/v1/responses/{response}")).await;
            (whole["state"] == "ended" && whole["outcome"] != "in_force").then_some(())
        })
        .await;
    }
    eventually("the agent holds nothing", async || {
        let (is_shown, status) = agent.run(&["status", "--json"]);
        assert!(is_shown, "{status}");
        let status: Value = serde_json::from_str(&status).unwrap();
        (status["effects"] == json!([])).then_some(())
    })
    .await;
    let mut runs: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (words, _) in agent.recorded("mark.exe") {
        *runs.entry((words[2].clone(), words[0].clone())).or_default() += 1;
    }
    let twice: Vec<_> = runs.iter().filter(|((_, verb), count)| verb == "add" && **count > 1).collect();
    assert!(twice.is_empty(), "applied twice: {twice:?}");
    // What was applied is lifted; what the crash left open is lifted too, to be sure.
    for (address, verb) in runs.keys() {
        let is_lifted = runs.contains_key(&(address.clone(), "delete".to_owned()));
        assert!(verb == "delete" || is_lifted, "{address} was applied and never lifted");
    }
    assert!(runs.keys().filter(|(_, verb)| verb == "add").count() > 20, "the campaign did something: {runs:?}");
}
