//! Alerts as Wazuh writes them, with the fields that matter to a test.

use serde_json::{Value, json};

/// Returns a rule 5763 alert (level 10) of agent 005 `web-01`, numbered `id`, from `source_ip`.
pub(crate) fn brute_force(id: &str, source_ip: &str) -> Value {
    json!({
        "timestamp": "2026-11-24T09:59:58.123+0000",
        "rule": {
            "id": "5763", "level": 10, "description": "sshd: brute force",
            "groups": ["syslog", "sshd", "authentication_failures"], "pci_dss": ["11.4"]
        },
        "agent": {"id": "005", "name": "web-01", "ip": "10.20.1.15"},
        "manager": {"name": "siem-1"},
        "id": id,
        "data": {"srcip": source_ip, "dstuser": "jdoe"}
    })
}

/// The same alert from another host.
pub(crate) fn from_agent(mut alert: Value, id: &str, name: &str) -> Value {
    alert["agent"] = json!({"id": id, "name": name});
    alert
}

/// Joins alerts as newline-delimited JSON.
pub(crate) fn ndjson<'a>(alerts: impl IntoIterator<Item = &'a Value>) -> String {
    alerts.into_iter().map(|alert| format!("{alert}\n")).collect()
}

/// Returns a policy that drops the source of rule 5763 for ten minutes.
pub(crate) fn drop_policy(name: &str) -> Value {
    json!({
        "name": name,
        "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "firewall-drop", "target": "source.ip", "on": "origin", "for": "10m"}
    })
}
