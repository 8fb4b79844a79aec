//! The log tells the story of an alert: one line for each decision and each change of state. With
//! the real programs.

use regex::Regex;
use serde_json::{Value, json};

use crate::processes::{Agent, Manager, PATIENCE, alert, eventually};

/// Returns the log lines about responses, commands and effects.
fn story(manager: &Manager) -> Vec<Value> {
    let log = manager.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            ["response ", "command ", "effect "].iter().any(|noun| message.starts_with(noun))
        })
        .collect()
}

#[tokio::test]
async fn the_log_tells_the_story_of_an_alert() {
    let manager = Manager::start_with(&["--log-format", "json"]).await;
    let api = manager.api();
    let agent = Agent::start(&manager, "web-01").await;
    api.make_policy("log-only", "10m").await;
    // An alert without a response leaves no line.
    let mut quiet = alert(1, "203.0.113.7", "web-01");
    quiet["rule"]["id"] = json!("1");
    api.post("/v1/alerts", &quiet).await;
    let (response, command) = api.answer_to(&alert(2, "203.0.113.7", "web-01")).await;
    api.command_is(command["id"].as_str().unwrap(), "succeeded").await;
    api.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "a mistake\nINFO forged"})).await;
    let lines = eventually("the effect is lifted", PATIENCE, async || {
        let lines = story(&manager);
        lines.iter().any(|line| line["message"].as_str().unwrap().starts_with("effect lifted")).then_some(lines)
    })
    .await;
    let ids = Regex::new("[0-9a-f]{8}-[0-9a-f-]{27}|key:[0-9a-f]+").unwrap();
    let mut told: Vec<String> = Vec::new();
    for line in &lines {
        let field = |name: &str| {
            line[name].as_str().map_or_else(|| "-".to_owned(), |text| ids.replace_all(text, "ID").into_owned())
        };
        assert_eq!(line["response"], response.as_str(), "{line}");
        assert_eq!(line["level"], "INFO", "{line}");
        let message = ids.replace_all(line["message"].as_str().unwrap(), "ID").into_owned();
        told.push(format!(
            "{message} | {} | {} | {} | {}",
            field("agent_name"),
            field("action"),
            field("target"),
            field("by")
        ));
    }
    let created = told.iter().position(|line| line.starts_with("response created")).unwrap();
    assert_eq!(lines[created]["source_id"], "1795514400.2");
    assert_eq!(lines[created]["policy"], "answer");
    assert_eq!(lines[created]["agent"], agent.id.as_str());
    insta::assert_snapshot!(told.join("\n"), @r"
    response created: log-only on 1 agents at ip 203.0.113.7, alert ID | web-01 | log-only | ip 203.0.113.7 | policy:answer
    command delivered: apply | web-01 | log-only | ip 203.0.113.7 | -
    command acknowledged: apply | web-01 | log-only | ip 203.0.113.7 | web-01 (agent:ID)
    command succeeded: verified: in force | web-01 | log-only | ip 203.0.113.7 | web-01 (agent:ID)
    response ended: lifted: a mistake\u{a}INFO forged | - | log-only | ip 203.0.113.7 | first admin key (ID)
    command delivered: revert | web-01 | log-only | ip 203.0.113.7 | -
    command acknowledged: revert | web-01 | log-only | ip 203.0.113.7 | web-01 (agent:ID)
    command succeeded: verified: lifted | web-01 | log-only | ip 203.0.113.7 | web-01 (agent:ID)
    effect lifted | web-01 | log-only | ip 203.0.113.7 | web-01 (agent:ID)
    ");
}

/// A response that came to nothing is a warning in the log, once, with the agent's own reason.
#[tokio::test]
async fn a_response_that_failed_is_a_warning() {
    let manager = Manager::start_with(&["--log-format", "json"]).await;
    let api = manager.api();
    let agent = Agent::start(&manager, "web-01").await;
    let own = agent.child.as_ref().unwrap().id().to_string();
    let asked = json!({"action": "kill-process", "target": own, "agents": ["web-01"], "arguments": ["name=riposte-agent"],
        "reason": "it must refuse"});
    let made = api.post("/v1/responses", &asked).await;
    let response = made["id"].as_str().unwrap();
    let ended = eventually("the response is over", PATIENCE, async || {
        let seen = api.get(&format!("/v1/responses/{response}")).await;
        (seen["state"] == "ended").then_some(seen)
    })
    .await;
    let why = "it was done on no agent: refused: the target is protected: the agent itself";
    assert_eq!((&ended["reason"], &ended["detail"]), (&json!("failed"), &json!(why)), "{ended}");
    let lines = eventually("it is in the log", PATIENCE, async || {
        let mut lines = story(&manager);
        lines.retain(|line| line["message"].as_str().unwrap().starts_with("response ended"));
        (!lines.is_empty()).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["level"], &lines[0]["message"]),
        (&json!("WARN"), &json!(format!("response ended: failed: {why}")))
    );
    let (_, metrics, _) = manager.ask("/metrics").await;
    assert!(metrics.contains("riposte_responses_ended_total{outcome=\"failed\"} 1\n"), "{metrics}");
}
