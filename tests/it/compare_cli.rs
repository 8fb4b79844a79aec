//! `riposte compare`: Wazuh's own alerts of active responses beside what Riposte observed or did.

use serde_json::{Value, json};

use crate::processes::{FakeAgent, Manager, alert};

/// The alert that Wazuh makes of a line of its active responses.
fn logged(number: u64, of: &Value, program: &str, command: &str) -> Value {
    json!({
        "timestamp": of["timestamp"], "id": format!("1795514500.{number}"), "manager": of["manager"], "agent": of["agent"],
        "rule": {"level": 3, "id": if command == "add" { "651" } else { "652" }, "groups": ["ossec", "active_response"],
            "description": "Host Blocked by firewall-drop Active Response"},
        "decoder": {"name": "ar_log_json"}, "location": "/var/ossec/logs/active-responses.log",
        "data": {"version": "1", "origin": {"name": "node01", "module": "wazuh-execd"}, "command": command,
            "parameters": {"program": program, "alert": of}},
    })
}

fn policy(mode: &str) -> Value {
    json!({"name": "ssh", "mode": mode, "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "firewall-drop", "target": "source.ip", "on": "all", "for": "10m"}})
}

#[tokio::test]
async fn a_change_board_sees_what_both_did_and_where_they_differ() {
    let manager = Manager::start().await;
    let api = manager.api();
    FakeAgent::enroll(&manager, "web-01").await;
    api.post("/v1/policies", &policy("observe")).await;
    api.post("/v1/protected", &json!({"kind": "ip", "value": "198.51.100.9", "reason": "scanner"})).await;
    let same = alert(1, "203.0.113.1", "web-01");
    let spared = alert(2, "198.51.100.9", "web-01");
    let mut other = alert(3, "203.0.113.3", "web-01");
    other["rule"]["id"] = json!("31153");
    let only_riposte = alert(4, "203.0.113.4", "web-01");
    for one in [&same, &spared, &other, &only_riposte] {
        api.post("/v1/alerts", one).await;
    }
    let program = "active-response/bin/firewall-drop";
    for (number, of) in [(1, &same), (2, &spared), (3, &other)] {
        api.post("/v1/alerts", &logged(number, of, program, "add")).await;
    }
    // Wazuh writes some lines twice, and one when it undoes.
    api.post("/v1/alerts", &logged(4, &same, program, "add")).await;
    api.post("/v1/alerts", &logged(5, &same, program, "delete")).await;
    let (is_same, told) = manager.command(&["compare", "--json"]);
    assert!(!is_same);
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdict = |id: &str| {
        let found = lines.iter().find(|line| line["alert"].as_str().unwrap().ends_with(id));
        found.map(|line| line["verdict"].as_str().unwrap().to_owned())
    };
    assert_eq!(lines.len(), 4, "{told}");
    assert_eq!(verdict("1795514400.1").as_deref(), Some("same"));
    assert_eq!(verdict("1795514400.2").as_deref(), Some("spared"));
    assert_eq!(verdict("1795514400.3").as_deref(), Some("only_wazuh"));
    assert_eq!(lines.iter().filter(|line| line["verdict"] == "only_riposte").count(), 1);
    let first = lines.iter().find(|line| line["verdict"] == "same").unwrap();
    assert_eq!((&first["wazuh"]["agents"], first["wazuh"]["undone_at"].is_string()), (&json!(["web-01"]), true));
    let (_, told) = manager.command(&["compare", "--differences"]);
    assert!(told.contains("4 alerts: 1 same, 1 Riposte spares it, 1 only Wazuh, 1 only Riposte"), "{told}");
    assert!(told.contains("ssh: 1 the same, 2 different"), "{told}");
    // Once both act it is said.
    let (is_set, told) = manager.command(&["policy", "mode", "ssh", "enforce"]);
    assert!(is_set && told.contains("that is version 2"), "{told}");
    let both = alert(5, "203.0.113.5", "web-01");
    api.post("/v1/alerts", &both).await;
    api.post("/v1/alerts", &logged(6, &both, program, "add")).await;
    let (_, told) = manager.command(&["compare"]);
    assert!(told.contains("BOTH ACT") && told.contains("both act on 203.0.113.5"), "{told}");
    let (is_set, told) = manager.command(&["policy", "mode", "ssh", "enforce"]);
    assert!(is_set && told.contains("already"), "{told}");
    // What an agent of Riposte writes into the same log is none of Wazuh's doing, and what waits has not acted.
    let own = alert(6, "203.0.113.6", "web-01");
    api.post("/v1/alerts", &own).await;
    let mut line = logged(7, &own, program, "add");
    line["data"]["origin"]["name"] = json!("riposte");
    api.post("/v1/alerts", &line).await;
    let (is_set, _) = manager.command(&["policy", "mode", "ssh", "approve"]);
    let waiting = alert(7, "203.0.113.77", "web-01");
    api.post("/v1/alerts", &waiting).await;
    api.post("/v1/alerts", &logged(8, &waiting, program, "add")).await;
    let (_, told) = manager.command(&["compare"]);
    assert!(is_set && told.matches("BOTH ACT").count() == 2, "one row, and the sum: {told}");
    assert!(told.contains("Riposte waits for approval"), "{told}");
}
