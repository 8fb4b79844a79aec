//! Field cases 01 and 08, by the real manager and the real agent: a block is one `add` and one `delete`, however it ends and
//! however often it is extended.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::processes::{Agent, Manager, PATIENCE, alert, eventually, now};

/// Keeps a list as most firewall APIs do: what is there already is an error, and so is what is not there any more.
const LIST: &str = r#"#!/bin/bash
read -r IN
C=$(printf '%s' "$IN" | sed 's/.*"command":"\([a-z]*\)".*/\1/')
IP=$(printf '%s' "$IN" | sed 's/.*"srcip":"\([^"]*\)".*/\1/')
echo "$C $IP" >> list.log
case $C in
  add) [ -e "state/$IP" ] && { echo "409 exists" >&2; exit 1; }; touch "state/$IP" ;;
  delete) [ -e "state/$IP" ] || { echo "404 no such entry" >&2; exit 1; }; rm "state/$IP" ;;
esac
"#;

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("active-response/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir(home.path().join("state")).unwrap();
    std::fs::write(bin.join("list.sh"), LIST).unwrap();
    std::fs::set_permissions(bin.join("list.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    home
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// An alert of now, so that its age is none.
fn fresh(number: u64, source: &str) -> Value {
    let mut alert = alert(number, source, "web-01");
    alert["timestamp"] = now().to_string().into();
    alert
}

async fn with_policy(action: &str, duration: &str, home: &Path) -> (Manager, Agent) {
    let manager = Manager::start().await;
    let api = manager.api();
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    let log = home.join("active-responses.log");
    agent.run(&["--wazuh-home", home.to_str().unwrap(), "--responses-log", log.to_str().unwrap()]);
    api.agent_streams(&agent.id).await;
    if action == "x-list" {
        let action = json!({"name": "x-list", "executable": "list.sh", "target_kinds": ["ip"],
            "default_target": "source.ip", "undoable": true});
        api.post("/v1/actions", &action).await;
    }
    let respond = json!({"action": action, "for": duration});
    api.post("/v1/policies", &json!({"name": "p", "match": [{"min_level": 1}], "respond": respond})).await;
    (manager, agent)
}

#[tokio::test]
async fn field_01_a_block_that_ends_by_its_time_is_deleted_once_and_fails_nowhere() {
    let home = home();
    let (manager, agent) = with_policy("x-list", "2s", home.path()).await;
    let api = manager.api();
    for number in 1..=5 {
        api.post("/v1/alerts", &fresh(number, &format!("203.0.113.{number}"))).await;
    }
    let is_settled = |effect: &Value| effect["desired"] == "absent" && effect["actual"] == "absent";
    let over = async || {
        let effects = api.get("/v1/effects").await;
        let effects = effects["items"].as_array().unwrap().clone();
        // Those that are over are not listed as in force any more, or are listed as absent.
        let all = lines(&home.path().join("list.log")).iter().filter(|line| line.starts_with("delete")).count() >= 5;
        (all && effects.iter().all(is_settled)).then_some(())
    };
    eventually("every block has ended at both sides", PATIENCE, over).await;
    // The manager's own revert is answered by now, or comes within its period: 3 s are more than both.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in ["list.log", "active-responses.log"] {
        let all = lines(&home.path().join(name));
        for verb in ["add", "delete"] {
            let with = |line: &&String| line.starts_with(verb) || line.contains(&format!("\"command\":\"{verb}\""));
            assert_eq!(all.iter().filter(with).count(), 5, "{name}: {all:#?}");
        }
    }
    let failing = api.get("/v1/effects?failing=true").await;
    assert_eq!(failing["items"], json!([]), "{failing}");
    assert_eq!(agent.status()["incidents"], 0);
    assert!(!agent.log().contains("404"), "no program was asked twice");
}

#[tokio::test]
async fn field_08_a_block_that_is_extended_is_one_line_and_its_end_another() {
    let home = home();
    let (manager, agent) = with_policy("log-only", "2s", home.path()).await;
    let api = manager.api();
    for number in 1..=4 {
        api.post("/v1/alerts", &fresh(number, "203.0.113.7")).await;
    }
    let log = home.path().join("active-responses.log");
    eventually("the block has ended", PATIENCE, async || {
        lines(&log).iter().any(|line| line.contains("\"command\":\"delete\"")).then_some(())
    })
    .await;
    let all = lines(&log);
    let verbs: Vec<bool> = all.iter().map(|line| line.contains("\"command\":\"add\"")).collect();
    assert_eq!(verbs, [true, false], "{all:#?}");
    assert_eq!(agent.status()["incidents"], 0);
}
