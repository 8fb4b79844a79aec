//! The order of keys in the line for a custom program: that of Wazuh. JSON has no order, but programs
//! written for Wazuh search the line as text. What the agent receives has lost its order on the way.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// An alert's keys as analysisd writes them; others follow by name.
const ALERT: [&str; 13] = [
    "timestamp",
    "rule",
    "agent",
    "manager",
    "id",
    "cluster",
    "previous_output",
    "full_log",
    "syscheck",
    "predecoder",
    "decoder",
    "data",
    "location",
];
/// Those of its rule.
const RULE: [&str; 8] = ["level", "description", "id", "mitre", "frequency", "firedtimes", "mail", "groups"];
/// Those of its agent.
const AGENT: [&str; 3] = ["id", "name", "ip"];

/// The message to a program of Wazuh 4, in the order of its fields.
#[derive(Debug, Serialize)]
pub(super) struct WazuhMessage<'a> {
    pub(super) version: u8,
    pub(super) origin: WazuhOrigin,
    pub(super) command: &'a str,
    pub(super) parameters: WazuhParameters<'a>,
}

/// Who sends the message.
#[derive(Debug, Serialize)]
pub(super) struct WazuhOrigin {
    pub(super) name: &'static str,
    pub(super) module: &'static str,
}

/// What the program works on.
#[derive(Debug, Serialize)]
pub(super) struct WazuhParameters<'a> {
    pub(super) extra_args: &'a [String],
    pub(super) alert: OrderedAlert<'a>,
    pub(super) program: String,
}

/// An alert with its keys in Wazuh's order.
#[derive(Debug)]
pub(super) struct OrderedAlert<'a>(pub(super) &'a Value);

impl Serialize for OrderedAlert<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Ordered { value: self.0, first: &ALERT }.serialize(serializer)
    }
}

/// An object whose keys `first` come first.
struct Ordered<'a> {
    value: &'a Value,
    first: &'a [&'a str],
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(object) = self.value else { return self.value.serialize(serializer) };
        let first = self.first.iter().filter_map(|key| object.get_key_value(*key));
        let others = object.iter().filter(|(key, _)| !self.first.contains(&key.as_str()));
        let mut map = serializer.serialize_map(Some(object.len()))?;
        for (key, value) in first.chain(others) {
            // Only the alert has such parts.
            let of_part: &[&str] = match key.as_str() {
                "rule" if self.first.contains(&"rule") => &RULE,
                "agent" if self.first.contains(&"agent") => &AGENT,
                _ => &[],
            };
            match of_part {
                [] => map.serialize_entry(key, value)?,
                first => map.serialize_entry(key, &Ordered { value, first })?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_keys_of_the_message_are_in_wazuhs_order() {
        let alert = json!({"zebra": {"rule": {"id": "1", "level": 1}}, "data": {"srcip": "203.0.113.7"}, "id": "1.2",
            "agent": {"name": "web-01", "id": "005"}, "timestamp": "2026-11-24T10:00:00.000+0000",
            "rule": {"groups": ["sshd"], "id": "5712", "level": 10, "extra": true}});
        let message = WazuhMessage {
            version: 1,
            origin: WazuhOrigin { name: "", module: "wazuh-execd" },
            command: "add",
            parameters: WazuhParameters {
                extra_args: &[],
                alert: OrderedAlert(&alert),
                program: "active-response/bin/x".into(),
            },
        };
        assert_eq!(
            serde_json::to_string(&message).unwrap(),
            concat!(
                r#"{"version":1,"origin":{"name":"","module":"wazuh-execd"},"command":"add","#,
                r#""parameters":{"extra_args":[],"#,
                r#""alert":{"timestamp":"2026-11-24T10:00:00.000+0000","#,
                r#""rule":{"level":10,"id":"5712","groups":["sshd"],"extra":true},"#,
                r#""agent":{"id":"005","name":"web-01"},"#,
                r#""id":"1.2","data":{"srcip":"203.0.113.7"},"zebra":{"rule":{"id":"1","level":1}}},"#,
                r#""program":"active-response/bin/x"}}"#
            )
        );
    }
}
