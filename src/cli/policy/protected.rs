//! Protected entries in files and on a manager. Entries have no name: target and policies identify
//! them. A duration counts from the request, so a file entry with `expires_in` equals any stored
//! entry with an end.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::policy;
use crate::domain::protected::{Covered, CoveredError};

/// Fields of an entry in a file, as in `POST /v1/protected`.
const FIELDS: [&str; 5] = ["kind", "value", "policies", "reason", "expires_in"];

/// Ids of agents, by id and by name.
pub(super) type AgentIds = BTreeMap<String, String>;

/// A protected target in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProtectedKey {
    kind: String,
    value: String,
    /// Policies that it applies to, sorted; empty: all.
    policies: Vec<String>,
}

impl ProtectedKey {
    /// `ip 203.0.113.0/24`, with its policies.
    pub(super) fn name(&self) -> String {
        let policies =
            if self.policies.is_empty() { String::new() } else { format!(" for {}", self.policies.join(", ")) };
        format!("{} {}{policies}", self.kind, self.value)
    }

    /// Policies that it applies to; empty: all.
    pub(super) fn policies(&self) -> &[String] {
        &self.policies
    }
}

/// An entry of a file or of a manager.
#[derive(Clone, Debug)]
pub(super) struct ProtectedItem {
    /// What it protects.
    pub(super) protection: ProtectedKey,
    reason: String,
    /// Its end for display; absent: until it is deleted.
    end: Option<String>,
    /// Its id on the manager.
    pub(super) id: Option<String>,
}

impl ProtectedItem {
    /// Whether a document is an entry: policies and actions have a name, entries a kind.
    pub(super) fn is_meant(document: &Value) -> bool {
        document.get("kind").is_some() && document.get("name").is_none()
    }

    /// Parses an entry of a file. `agents` are the known agents; without a manager, any name is
    /// accepted.
    ///
    /// # Errors
    /// All faults.
    pub(super) fn parse(document: &Value, agents: Option<&AgentIds>) -> Result<Self, Vec<Fault>> {
        let Some(object) = document.as_object() else {
            return Err(vec![Fault::at("", "a protected entry is an object with kind, value and reason")]);
        };
        let mut faults: Vec<Fault> = object
            .keys()
            .filter(|key| !FIELDS.contains(&key.as_str()))
            .map(|key| {
                let known = FIELDS.join(", ");
                Fault::at(format!("/{key}"), format!("is not a field of a protected entry, which has {known}"))
            })
            .collect();
        let mut text = |key: &str| match object.get(key).map(|value| value.as_str()) {
            Some(Some(text)) if !text.trim().is_empty() => text.to_owned(),
            _ => {
                faults.push(Fault::at(format!("/{key}"), "is missing, empty or not a text"));
                String::new()
            }
        };
        let (kind, value, reason) = (text("kind"), text("value"), text("reason"));
        let policies = policies(object, &mut faults);
        let end = match object.get("expires_in").map(|span| span.as_str().map(str::parse::<Span>)) {
            None => None,
            Some(Some(Ok(span))) => Some(format!("in {span}")),
            Some(_) => {
                faults.push(Fault::at("/expires_in", "is not a duration such as 30d"));
                None
            }
        };
        let value = match canonical(&kind, &value, agents) {
            Ok(value) => value,
            Err(fault) => {
                faults.extend((!kind.is_empty() && !value.is_empty()).then_some(fault));
                String::new()
            }
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { protection: ProtectedKey { kind, value, policies }, reason, end, id: None })
    }

    /// Parses an entry of a manager.
    ///
    /// # Errors
    /// If it is invalid.
    pub(super) fn stored(view: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| {
            let found = view[key].as_str().map(str::to_owned);
            found.with_context(|| format!("the manager returned a protected entry without {key}"))
        };
        let names = view["policies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut policies: Vec<String> = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        policies.sort();
        Ok(Self {
            protection: ProtectedKey { kind: text("kind")?, value: text("value")?, policies },
            reason: text("reason")?,
            end: view["expires_at"].as_str().map(str::to_owned),
            id: Some(text("id")?),
        })
    }

    /// Whether a stored entry has the same effect as this one.
    pub(super) fn is_like(&self, stored: &Self) -> bool {
        self.protection == stored.protection
            && self.reason == stored.reason
            && self.end.is_some() == stored.end.is_some()
    }

    /// The entry for display.
    pub(super) fn view(&self) -> Value {
        let Self { protection: ProtectedKey { kind, value, policies }, reason, end, .. } = self;
        let mut view = json!({"kind": kind, "value": value, "reason": reason});
        if !policies.is_empty() {
            view["policies"] = json!(policies);
        }
        if let Some(end) = end {
            view["expires"] = json!(end);
        }
        view
    }
}

fn policies(object: &Map<String, Value>, faults: &mut Vec<Fault>) -> Vec<String> {
    let Some(names) = object.get("policies") else { return Vec::new() };
    let Some(names) = names.as_array() else {
        faults.push(Fault::at("/policies", "is not a list of policies' names"));
        return Vec::new();
    };
    let mut policies = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match name.as_str().filter(|name| policy::is_name(name)) {
            Some(name) => policies.push(name.to_owned()),
            None => faults.push(Fault::at(format!("/policies/{index}"), "is not a policy's name")),
        }
    }
    policies.sort();
    policies.dedup();
    policies
}

/// The entry's value in canonical form.
fn canonical(kind: &str, value: &str, agents: Option<&AgentIds>) -> Result<String, Fault> {
    let covered = match kind {
        "ip" => Covered::network(value),
        "user" => Covered::user(value),
        "file" => Covered::file(value),
        "process" => Covered::process(value),
        "host" | "agent" => {
            let Some(agents) = agents else { return Ok(value.to_owned()) };
            let id = agents.get(value).cloned();
            return id.ok_or_else(|| Fault::at("/value", CoveredError::Agent.to_string()));
        }
        _ => return Err(Fault::at("/kind", "must be ip, user, file, process, host or agent")),
    };
    covered.map(|covered| covered.value()).map_err(|error| Fault::at("/value", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(document: &Value) -> Result<ProtectedItem, Vec<String>> {
        let agents = AgentIds::from([("web-01".to_owned(), "id-1".to_owned())]);
        let told = |faults: Vec<Fault>| faults.into_iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
        ProtectedItem::parse(document, Some(&agents)).map_err(told)
    }

    #[test]
    fn an_entry_is_identified_by_target_and_policies() {
        let entry = |value: &str, policies: &[&str]| {
            let document = json!({"kind": "ip", "value": value, "policies": policies, "reason": "r"});
            parse(&document).unwrap().protection
        };
        assert_eq!(entry("::ffff:203.0.113.7", &["b", "a"]), entry("203.0.113.7/32", &["a", "b", "a"]));
        assert_ne!(entry("203.0.113.7", &[]), entry("203.0.113.7", &["a"]));
        let host = parse(&json!({"kind": "host", "value": "web-01", "reason": "r"})).unwrap();
        assert_eq!(host.protection.name(), "host id-1");
    }

    #[test]
    fn an_end_in_a_file_equals_any_end() {
        let file = |more: Value| {
            let mut document = json!({"kind": "user", "value": "Alice", "reason": "r"});
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            parse(&document).unwrap()
        };
        let view = json!({"id": "1", "kind": "user", "value": "alice", "policies": [], "reason": "r", "expires_at": "2026-12-01T00:00:00Z"});
        let stored = ProtectedItem::stored(&view).unwrap();
        assert!(file(json!({"expires_in": "30d"})).is_like(&stored));
        assert!(
            !file(json!({})).is_like(&stored) && !file(json!({"expires_in": "30d", "reason": "s"})).is_like(&stored)
        );
    }

    #[test]
    fn every_fault_of_an_entry_is_reported() {
        let faults =
            parse(&json!({"kind": "ip", "value": "203.0.113.7/24", "policies": ["A b"], "expires_in": 3, "why": 1}));
        assert_eq!(
            faults.unwrap_err(),
            [
                "/why is not a field of a protected entry, which has kind, value, policies, reason, expires_in",
                "/reason is missing, empty or not a text",
                "/policies/0 is not a policy's name",
                "/expires_in is not a duration such as 30d",
                "/value is not a network: host bits are set",
            ]
        );
        assert_eq!(
            parse(&json!({"kind": "ipp", "value": "x", "reason": "r"})).unwrap_err()[0],
            "/kind must be ip, user, file, process, host or agent"
        );
    }
}
