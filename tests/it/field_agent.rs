//! Field cases 01 and 08, with the real manager and the real agent: a block is one `add` and one
//! `delete`, however it ends and however often it is extended.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::processes::{Agent, Api, Manager, PATIENCE, alert, eventually, now};
use crate::support::Database;

/// Keeps a list as most firewall APIs do: adding a present entry and deleting an absent one are
/// errors.
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

fn home(program: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("active-response/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir(home.path().join("state")).unwrap();
    std::fs::write(bin.join("list.sh"), program).unwrap();
    std::fs::set_permissions(bin.join("list.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    home
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// An alert with the current time, so that its age is zero.
fn fresh(number: u64, source: &str) -> Value {
    let mut alert = alert(number, source, "web-01");
    alert["timestamp"] = now().to_string().into();
    alert
}

/// Refuses everything, and prints when it ran, in milliseconds.
const BAD: &str = r#"#!/bin/bash
read -r IN
echo "$(date +%s%3N) $(printf '%s' "$IN" | sed 's/.*"command":"\([a-z]*\)".*/\1/')" >> list.log
exit 1
"#;

async fn with_policy(database: &Database, action: &str, duration: &str, home: &Path) -> (Manager, Agent) {
    let url = database.url();
    let flags = ["--database-url", url.as_str()];
    let manager = Manager::start_with(if url.is_empty() { &[] } else { &flags }).await;
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

/// Waits until every response has ended, no effect is wanted or in force, and no command is in
/// progress.
async fn is_over(api: &Api, responses: usize) {
    eventually("everything is over at both sides", PATIENCE, async || {
        let ended = api.get("/v1/responses?state=ended").await["items"].as_array().unwrap().len();
        let effects = api.get("/v1/effects").await;
        let is_absent = |effect: &Value| effect["desired"] == "absent" && effect["actual"] == "absent";
        let commands = api.get("/v1/commands").await;
        let is_open = |it: &Value| ["queued", "delivered", "acknowledged"].iter().any(|state| it["state"] == *state);
        let is_quiet = !commands["items"].as_array().unwrap().iter().any(is_open);
        (ended >= responses && is_quiet && effects["items"].as_array().unwrap().iter().all(is_absent)).then_some(())
    })
    .await;
}

on_both_databases! {
    async fn field_01_a_block_that_ends_by_its_time_is_deleted_once_and_fails_nowhere(database: Database) {
        let home = home(LIST);
        let (manager, agent) = with_policy(&database, "x-list", "2s", home.path()).await;
        let api = manager.api();
        for number in 1..=5 {
            api.post("/v1/alerts", &fresh(number, &format!("203.0.113.{number}"))).await;
        }
        is_over(&api, 5).await;
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
        assert!(!agent.log().contains("404 no such entry"), "no program was asked twice");
    }

    async fn field_01_a_failed_clean_up_waits_and_is_not_applied_again(database: Database) {
        let home = home(BAD);
        let (manager, agent) = with_policy(&database, "x-list", "10m", home.path()).await;
        let api = manager.api();
        api.post("/v1/alerts", &fresh(1, "203.0.113.1")).await;
        let log = home.path().join("list.log");
        eventually("the clean-up is tried three times", PATIENCE, async || (lines(&log).len() >= 4).then_some(())).await;
        let asked: Vec<(i64, String)> = lines(&log)
            .iter()
            .map(|line| line.split_once(' ').map(|(at, verb)| (at.parse().unwrap(), verb.to_owned())).unwrap())
            .collect();
        let verbs: Vec<&str> = asked.iter().map(|(_, verb)| verb.as_str()).collect();
        assert_eq!(verbs[..4], ["add", "delete", "delete", "delete"]);
        assert!(asked[2].0 - asked[1].0 >= 500 && asked[3].0 - asked[2].0 >= 500, "each try waits: {asked:?}");
        assert_eq!(agent.status()["incidents"], 1);
        assert_eq!(lines(&home.path().join("active-responses.log")), Vec::<String>::new(), "nothing came into force");
        eventually("the manager shows it as failing", PATIENCE, async || {
            let failing = api.get("/v1/effects?failing=true").await;
            (failing["items"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
    }

    async fn field_08_a_block_that_is_extended_is_one_line_and_its_end_another(database: Database) {
        let home = home(LIST);
        let (manager, agent) = with_policy(&database, "log-only", "2s", home.path()).await;
        let api = manager.api();
        for number in 1..=4 {
            api.post("/v1/alerts", &fresh(number, "203.0.113.7")).await;
        }
        is_over(&api, 4).await;
        let all = lines(&home.path().join("active-responses.log"));
        let verbs: Vec<bool> = all.iter().map(|line| line.contains("\"command\":\"add\"")).collect();
        assert_eq!(verbs, [true, false], "{all:#?}");
        assert_eq!(agent.status()["incidents"], 0);
    }
}
