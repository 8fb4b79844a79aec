//! The fields of an agent by which clients of Wazuh's API filter, sort and select. A field that Wazuh has and
//! Riposte does not, such as `os.major`, is an unknown field: leaving it out in silence would change what a
//! playbook acts on.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use crate::views::wazuh::WazuhAgent;

/// A field of an agent.
#[derive(Clone, Copy, Debug)]
pub struct AgentField {
    /// Its name, with a dot before a nested part.
    pub name: &'static str,
    read: fn(&WazuhAgent) -> FieldValue<'_>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// A number: it is compared as one.
    Number(u64, &'a str),
    /// A text.
    Text(&'a str),
    /// A time in Wazuh's form.
    Time(&'a str),
    /// Texts, one of which is enough.
    Texts(&'a [String]),
    /// The agent has none.
    Absent,
}

/// Every field.
pub const FIELDS: [AgentField; 17] = [
    AgentField { name: "id", read: |agent| FieldValue::Number(agent.id.parse().unwrap_or(u64::MAX), &agent.id) },
    AgentField { name: "name", read: |agent| FieldValue::Text(&agent.name) },
    AgentField { name: "status", read: |agent| FieldValue::Text(&agent.status) },
    AgentField {
        name: "status_code",
        read: |agent| FieldValue::Number(agent.status_code.into(), if agent.status_code == 0 { "0" } else { "1" }),
    },
    AgentField { name: "ip", read: |agent| FieldValue::Text(&agent.ip) },
    AgentField { name: "registerIP", read: |agent| FieldValue::Text(&agent.register_ip) },
    AgentField { name: "version", read: |agent| FieldValue::Text(&agent.version) },
    AgentField { name: "manager", read: |agent| FieldValue::Text(&agent.manager) },
    AgentField { name: "node_name", read: |agent| FieldValue::Text(&agent.node_name) },
    AgentField { name: "group", read: |agent| FieldValue::Texts(&agent.group) },
    AgentField { name: "group_config_status", read: |agent| FieldValue::Text(&agent.group_config_status) },
    AgentField { name: "dateAdd", read: |agent| FieldValue::Time(&agent.date_add) },
    AgentField {
        name: "lastKeepAlive",
        read: |agent| agent.last_keep_alive.as_deref().map_or(FieldValue::Absent, FieldValue::Time),
    },
    AgentField { name: "os.name", read: |agent| FieldValue::Text(&agent.os.name) },
    AgentField { name: "os.platform", read: |agent| FieldValue::Text(&agent.os.platform) },
    AgentField { name: "os.version", read: |agent| FieldValue::Text(&agent.os.version) },
    AgentField { name: "os.arch", read: |agent| FieldValue::Text(&agent.os.arch) },
];

/// The names of the fields that hold a time.
pub const TIMES: [&str; 2] = ["dateAdd", "lastKeepAlive"];

// By the name: addresses of functions need not differ.
impl PartialEq for AgentField {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for AgentField {}

impl AgentField {
    /// The field of that name.
    pub fn named(name: &str) -> Option<Self> {
        FIELDS.into_iter().find(|field| field.name == name)
    }

    /// Whether it holds a time.
    pub fn is_time(self) -> bool {
        TIMES.contains(&self.name)
    }

    /// Its value at an agent.
    pub fn of(self, agent: &WazuhAgent) -> FieldValue<'_> {
        (self.read)(agent)
    }

    /// The order of two agents by this field; one without a value comes first.
    pub fn order(self, one: &WazuhAgent, other: &WazuhAgent) -> Ordering {
        self.of(one).key().cmp(&self.of(other).key())
    }
}

impl FieldValue<'_> {
    /// Its texts.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Number(_, text) | Self::Text(text) | Self::Time(text) => vec![text],
            Self::Texts(texts) => texts.iter().map(String::as_str).collect(),
            Self::Absent => Vec::new(),
        }
    }

    fn key(&self) -> (u64, String) {
        match self {
            Self::Number(number, _) => (*number, String::new()),
            other => (0, other.texts().join(",").to_lowercase()),
        }
    }

    fn json(&self) -> Option<Value> {
        Some(match self {
            Self::Texts(texts) => json!(texts),
            Self::Number(_, text) | Self::Text(text) | Self::Time(text) => json!(text),
            Self::Absent => return None,
        })
    }
}

/// The agent with these fields alone.
pub fn selected(agent: &WazuhAgent, fields: &[AgentField]) -> Value {
    let mut object = Map::new();
    for field in fields {
        let value = match field.name {
            "status_code" => Some(json!(agent.status_code)),
            _ => field.of(agent).json(),
        };
        let Some(value) = value else { continue };
        match field.name.split_once('.') {
            None => drop(object.insert(field.name.to_owned(), value)),
            Some((whole, part)) => {
                if let Some(whole) = object.entry(whole).or_insert_with(|| json!({})).as_object_mut() {
                    whole.insert(part.to_owned(), value);
                }
            }
        }
    }
    Value::Object(object)
}
