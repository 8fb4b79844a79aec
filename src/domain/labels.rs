//! Labels of agents, set by operators and enrolment tokens; policies select agents by them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fault::Fault;
use super::formats::wazuh::canonical_agent_id;

/// Label with the agent's Wazuh id.
pub const WAZUH_ID: &str = "wazuh_id";
/// Label with the Wazuh manager or cluster that assigned the id; `manager.name` or `cluster.name`
/// in its alerts.
pub const WAZUH_MANAGER: &str = "wazuh_manager";
/// Label with the agent's name in Wazuh, if it differs from the enrolled name.
pub const WAZUH_NAME: &str = "wazuh_name";
/// Maximum number of labels per agent.
const MAX_LABELS: usize = 64;

/// Parses labels: keys of 1 to 64 characters (a-z, 0-9, `_`, `-`, `.`), trimmed values of at most
/// 256 characters.
///
/// # Errors
/// Every invalid label, with a pointer relative to the object.
pub fn parse_labels(object: &Map<String, Value>) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut labels = BTreeMap::new();
    if object.len() > MAX_LABELS {
        faults.push(Fault::at("", format!("has more than {MAX_LABELS} labels")));
    }
    for (key, value) in object {
        // YAML parses unquoted values as numbers or booleans.
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
