//! Wazuh's active-response programs, unchanged, run by the real manager and the real agent:
//! imported from an `ossec.conf`, run with `add`, asked for their keys, run again with `delete`.
//! Also, manager and agent must agree on the actions.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::processes::{Agent, Manager, PATIENCE, alert, eventually, text};

const CONF: &str = "<ossec_config>
  <command><name>guard</name><executable>guard.sh</executable><timeout_allowed>yes</timeout_allowed></command>
  <command><name>scan</name><executable>scan.py</executable><extra_args>-deep now</extra_args></command>
  <active-response><command>guard</command><location>local</location><rules_id>5763</rules_id><timeout>600</timeout></active-response>
  <active-response><command>scan</command><location>local</location><rules_id>5763</rules_id></active-response>
</ossec_config>";

/// Stateful, as they are written for Wazuh 4: one line in, its key out, the answer in, and done.
const GUARD: &str = r#"#!/bin/bash
read -r INPUT
COMMAND=$(echo "$INPUT" | sed -n 's/.*"command":"\([a-z]*\)".*/\1/p')
IP=$(echo "$INPUT" | sed -n 's/.*"srcip":"\([0-9.]*\)".*/\1/p')
if [ "$COMMAND" = add ]; then
  printf '{"version":1,"origin":{"name":"guard","module":"active-response"},"command":"check_keys","parameters":{"keys":["%s"]}}\n' "$IP"
  read -r ANSWER
  case "$ANSWER" in *'"command":"continue"'*) echo "add $IP" >> "$(dirname "$0")/../ran" ;; esac
else
  echo "delete $IP" >> "$(dirname "$0")/../ran"
fi
"#;

/// Stateless, reads to end of file and prints nothing: the kind that freezes Wazuh's own executor.
const SCAN: &str = r#"#!/bin/sh
INPUT=$(cat)
echo "scan $(echo "$INPUT" | grep -o '"extra_args":\[[^]]*\]')" >> "$(dirname "$0")/../ran"
"#;

fn program(home: &Path, name: &str, text: &str) {
    let folder = home.join("active-response/bin");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
    std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o750)).unwrap();
}

#[tokio::test]
async fn programs_written_for_wazuh_run_unchanged_and_are_undone() {
    let manager = Manager::start().await;
    let api = manager.api();
    let home = tempfile::tempdir().unwrap();
    program(home.path(), "guard.sh", GUARD);
    program(home.path(), "scan.py", SCAN);
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    agent.run(&["--wazuh-home", home.path().to_str().unwrap()]);
    api.agent_streams(&agent.id).await;
    let import = api.request(Method::POST, "/v1/policies/import").header("content-type", "application/xml").body(CONF);
    assert_eq!(import.send().await.unwrap().status(), 201);
    let known = api.get(&format!("/v1/agents/{}", agent.id)).await;
    let runs = |name: &str| {
        known["capabilities"].as_array().unwrap().iter().any(|one| one["action"] == name && one["available"] == true)
    };
    assert!(runs("script:guard.sh") && runs("script:scan.py"), "{known}");

    let intake = api.post("/v1/alerts", &alert(1, "203.0.113.7", "web-01")).await;
    let ids: Vec<String> =
        intake["responses"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2, "{intake}");
    let mut guard = Value::Null;
    for id in &ids {
        let response = eventually("the program has run", PATIENCE, || async {
            let response = api.response(id).await;
            // A response is read before its commands, so it may be older than they are.
            let is_over = response["action"] == "guard" || response["state"] == "ended";
            (is_over && response["commands"][0]["state"] == "succeeded").then_some(response)
        })
        .await;
        if response["action"] == "guard" {
            guard = response;
        } else {
            assert_eq!((&response["state"], &response["reason"]), (&json!("ended"), &json!("done")), "{response}");
        }
    }
    assert_eq!(guard["state"], "active", "{guard}");
    let ran = || std::fs::read_to_string(home.path().join("active-response/ran")).unwrap_or_default();
    assert!(ran().contains("add 203.0.113.7") && ran().contains(r#"scan "extra_args":["-deep","now"]"#), "{}", ran());
    let lift = format!("/v1/responses/{}/lift", text(&guard, "id"));
    api.post(&lift, &json!({"reason": "over"})).await;
    eventually("the program has undone it", PATIENCE, || async { ran().contains("delete 203.0.113.7").then_some(()) })
        .await;
    assert_eq!(ran().lines().count(), 3, "each ran once: {}", ran());
}

/// Slow, so that the manager can be killed meanwhile.
const SLOW: &str = r#"#!/bin/sh
read -r INPUT
sleep 1
case "$INPUT" in *'"command":"add"'*) WORD=add ;; *) WORD=delete ;; esac
echo "$WORD" >> "$(dirname "$0")/../ran"
"#;

/// Promise 10: an administrator releases the effect on the host before the manager knows that it is
/// in force there.
#[tokio::test]
async fn promise_10_a_release_before_the_result_is_told_ends_the_response_too() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    let home = tempfile::tempdir().unwrap();
    program(home.path(), "slow.sh", SLOW);
    let action = json!({"name": "slow", "summary": "Is slow.", "executable": "slow.sh", "undoable": true,
        "target_kinds": ["ip"], "default_target": "source.ip"});
    api.post("/v1/actions", &action).await;
    api.make_policy("slow", "1h").await;
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    let wazuh_home = home.path().to_str().unwrap();
    agent.run(&["--wazuh-home", wazuh_home]);
    api.agent_streams(&agent.id).await;
    let (response, command) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    api.command_is(text(&command, "id"), "acknowledged").await;
    manager.kill9();
    agent.has_logged("outcome=", 1).await;
    agent.kill9();
    let released = agent.order(&["release", "--wazuh-home", wazuh_home]);
    assert!(released.status.success(), "{released:?}");
    let ran = || std::fs::read_to_string(home.path().join("active-response/ran")).unwrap();
    assert_eq!(ran(), "add\ndelete\n");
    manager.start_again().await;
    agent.run_again();
    let api = manager.api();
    let seen = std::sync::Mutex::new(serde_json::Value::Null);
    eventually("the response has ended", PATIENCE, || async {
        let response = api.response(&response).await;
        let mut seen = seen.lock().unwrap();
        if *seen != response {
            eprintln!("{response}\n{}", agent.log());
            *seen = response.clone();
        }
        (response["reason"] == "released" && response["commands"][0]["state"] == "succeeded").then_some(())
    })
    .await;
    // The response stays ended when the agent has forgotten the release.
    agent.run_again();
    api.agent_streams(&agent.id).await;
    let commands = api.get("/v1/commands").await;
    let applies = commands["items"].as_array().unwrap().iter().filter(|command| command["op"] == "apply").count();
    assert_eq!(applies, 1, "{commands}");
}

#[test]
fn manager_and_agent_say_the_same_of_every_action() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/actions.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| [`"));
    let mut of_agent = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_start_matches("[`").split('`').next().unwrap().to_owned();
        let mut kinds: Vec<String> = match cells[3] {
            "any" => ["none", "ip", "user", "file", "process", "host"].map(String::from).to_vec(),
            kinds => kinds.split(", ").filter(|kind| *kind != "also networks").map(str::to_owned).collect(),
        };
        kinds.sort();
        of_agent.push((name, kinds, cells[cells.len() - 2] == "yes"));
    }
    of_agent.sort();
    let catalogue = riposte::domain::action::Catalogue::built_in();
    let of_manager: Vec<_> = catalogue
        .iter()
        .map(|action| {
            let mut kinds: Vec<String> = action.target_kinds.iter().map(ToString::to_string).collect();
            kinds.sort();
            (action.name.clone(), kinds, action.undoable)
        })
        .collect();
    assert_eq!(of_manager, of_agent);
}
