//! The canonical YAML form of a policy or custom action, for display and comparison: important
//! fields first, whatever the stored order.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Order of fields; others follow by name. One list serves every level, because a field name has
/// one meaning.
const ORDER: [&str; 67] = [
    "name",
    "kind",
    "value",
    "policies",
    "reason",
    "expires_in",
    "expires",
    "summary",
    "executable",
    "style",
    "target_kinds",
    "user",
    "default_target",
    "undoable",
    "wants_alert",
    "platforms",
    "parameters",
    "mode",
    "match",
    "rule_ids",
    "rule_groups",
    "wazuh_rules_group",
    "min_level",
    "max_level",
    "mitre",
    "pipelines",
    "agents",
    "ids",
    "labels",
    "not",
    "when",
    "max_age",
    "threshold",
    "fires",
    "respond",
    "action",
    "target",
    "network",
    "v4",
    "v6",
    "on",
    "waves",
    "for",
    "escalate",
    "ladder",
    "forget_after",
    "arguments",
    "limits",
    "responses",
    "targets",
    "agents_per_response",
    "fleet_share",
    "cooldown",
    "over_limit",
    "breaker",
    "failed",
    "undone",
    "at_least",
    "approval",
    "quorum",
    "count",
    "within",
    "over",
    "by",
    "note",
    "tests",
    "alert",
];
/// Fields whose content keeps its own order.
const FOREIGN: [&str; 3] = ["alert", "labels", "parameters"];

/// An action as the manager has it: its program is a part of its own. A file has the program's
/// fields beside the others.
#[derive(Serialize, Deserialize)]
struct ActionForm {
    #[serde(skip_serializing)]
    script: Option<Program>,
    #[serde(flatten, skip_deserializing)]
    program: Option<Program>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Program {
    executable: Value,
    style: Value,
}

/// A custom action as a file has it, from the manager's or the domain's form.
///
/// # Errors
/// If it is not an action.
pub(super) fn action(document: &Value) -> anyhow::Result<Value> {
    let mut form = ActionForm::deserialize(document)?;
    form.rest.retain(|_, value| !value.is_null());
    form.program = form.script.take();
    Ok(serde_json::to_value(form)?)
}

/// Writes `document` as YAML.
///
/// # Errors
/// Never for a policy or an action; the library might.
pub(super) fn write(document: &Value) -> anyhow::Result<String> {
    Ok(yaml_serde::to_string(&ordered(document))?)
}

fn ordered(value: &Value) -> yaml_serde::Value {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<(&String, &Value)> = object.iter().collect();
            fields.sort_by_key(|(key, _)| ORDER.iter().position(|word| word == key).unwrap_or(ORDER.len()));
            let in_order = |(key, value): (&String, &Value)| {
                let value = if FOREIGN.contains(&key.as_str()) { as_it_is(value) } else { ordered(value) };
                (yaml_serde::Value::String(key.clone()), value)
            };
            yaml_serde::Value::Mapping(fields.into_iter().map(in_order).collect())
        }
        Value::Array(list) => yaml_serde::Value::Sequence(list.iter().map(ordered).collect()),
        other => as_it_is(other),
    }
}

fn as_it_is(value: &Value) -> yaml_serde::Value {
    yaml_serde::to_value(value).unwrap_or(yaml_serde::Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::{Action, Catalogue};
    use crate::domain::policy::Policy;
    use serde_json::json;

    #[test]
    fn a_policy_is_written_in_canonical_order_and_survives_a_round_trip() {
        let document = json!({"name": "p", "mode": "enforce", "match": [{"rule_ids": ["005712"], "when": "!has(data.x)"}],
            "respond": {"action": "firewall-drop", "target": "source.ip", "on": {"labels": {"zone": "dmz", "env": "on"}}, "for": "10m"},
            "tests": [{"fires": true, "alert": {"name": 1, "id": "0", "agent": null}}], "note": "a: b"});
        let policy = Policy::parse(&document, Catalogue::built_in()).unwrap();
        let value = serde_json::to_value(&policy).unwrap();
        let text = write(&value).unwrap();
        insta::assert_snapshot!(text, @r"
        name: p
        mode: enforce
        match:
        - rule_ids:
          - '5712'
          when: '!has(data.x)'
        respond:
          action: firewall-drop
          target: source.ip
          on:
            labels:
              env: on
              zone: dmz
          for: 10m
        note: 'a: b'
        tests:
        - fires: true
          alert:
            agent: null
            id: '0'
            name: 1
        ");
        let read: Value = yaml_serde::from_str(&text).unwrap();
        assert_eq!(Policy::parse(&read, Catalogue::built_in()), Ok(policy));
    }

    #[test]
    fn a_custom_action_survives_a_round_trip() {
        let given = json!({"name": "scan", "summary": "Scans.", "executable": "scan.sh", "target_kinds": ["file"]});
        let parsed = Action::parse(&given).unwrap();
        let written = action(&serde_json::to_value(&parsed).unwrap()).unwrap();
        assert_eq!(action(&written).unwrap(), written, "a file's form stays");
        assert_eq!(Action::parse(&written), Ok(parsed));
    }
}
