//! Labels: what people and enrolment tokens say of an agent, and what policies select agents by.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fault::Fault;
use super::shapes::wazuh::canonical_agent_id;

/// The label that holds an agent's Wazuh id.
pub const WAZUH_ID: &str = "wazuh_id";
/// The label that names the Wazuh manager or cluster that gave the id; `manager.name` or `cluster.name` in its alerts.
pub const WAZUH_MANAGER: &str = "wazuh_manager";
/// The label that holds an agent's name in Wazuh, where that is not the name it is enrolled by.
pub const WAZUH_NAME: &str = "wazuh_name";
/// The most labels of an agent.
const MAX_LABELS: usize = 64;

/// Labels of an agent: keys of 1 to 64 characters (a-z, 0-9, `_`, `-`, `.`), values of at most 256 characters, without
/// blanks around them.
///
/// # Errors
/// Every label that is not one, with a pointer relative to the object.
pub fn parse_labels(object: &Map<String, Value>) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut labels = BTreeMap::new();
    if object.len() > MAX_LABELS {
        faults.push(Fault::at("", format!("has more than {MAX_LABELS} labels")));
    }
    for (key, value) in object {
        // YAML takes what has no quotes for a number or a truth value.
        let text = match value {
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            other => other.as_str().map(|text| text.trim().to_owned()),
        };
        let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        let key_ok = (1..=64).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.'));
        if !key_ok {
            faults.push(Fault::at(pointer, "a label's key is 1 to 64 characters of a-z, 0-9, '_', '-' and '.'"));
            continue;
        }
        match text {
            Some(text) if key == WAZUH_ID => match canonical_agent_id(&text) {
                Some(id) => drop(labels.insert(key.clone(), id)),
                None => faults.push(Fault::at(pointer, "a Wazuh agent id is one to ten digits")),
            },
            Some(text) if [WAZUH_MANAGER, WAZUH_NAME].contains(&key.as_str()) && text.trim().is_empty() => {
                faults.push(Fault::at(pointer, "must name something"));
            }
            Some(text) if text.chars().count() <= 256 && !text.chars().any(char::is_control) => {
                drop(labels.insert(key.clone(), text));
            }
            _ => faults.push(Fault::at(
                pointer,
                "a label's value is a text of at most 256 characters without control characters",
            )),
        }
    }
    if faults.is_empty() { Ok(labels) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked_and_wazuh_ids_padded() {
        let parse = |value: serde_json::Value| parse_labels(value.as_object().unwrap());
        assert_eq!(parse(serde_json::json!({"wazuh_id": "5"})).unwrap()["wazuh_id"], "005");
        assert_eq!(
            parse(serde_json::json!({"wazuh_id": 5, "env": " prod ", "rack": 7, "dmz": true})).unwrap(),
            [("dmz", "true"), ("env", "prod"), ("rack", "7"), ("wazuh_id", "005")]
                .map(|(key, value)| (key.into(), value.into()))
                .into()
        );
        for bad in [
            serde_json::json!({"Env": "x"}),
            serde_json::json!({"env": ["x"]}),
            serde_json::json!({"env": null}),
            serde_json::json!({"env": "a\0"}),
            serde_json::json!({"wazuh_id": "x"}),
            serde_json::json!({"wazuh_manager": " "}),
            serde_json::json!({"wazuh_name": ""}),
            serde_json::json!({"": "x"}),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
    }
}
