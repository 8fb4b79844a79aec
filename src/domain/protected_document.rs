//! A protected entry as a file has it. As for policies and actions, every fault is reported.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::duration::Span;
use super::fault::Fault;
use super::policy;
use super::protected::{Covered, CoveredError};

/// Fields of an entry in a file, as in `POST /v1/protected`.
const FIELDS: [&str; 5] = ["kind", "value", "policies", "reason", "expires_in"];

/// Ids of agents, by id and by name.
pub type AgentIds = BTreeMap<String, String>;

/// A protected entry in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedDocument {
    /// `ip`, `user`, `file`, `process`, `host` or `agent`.
    pub kind: String,
    /// What it protects, in canonical form.
    pub value: String,
    /// Policies that it applies to, sorted; empty: all.
    pub policies: Vec<String>,
    /// Reason for the protection.
    pub reason: String,
    /// Validity from the request; `None`: until it is deleted.
    pub expires_in: Option<Span>,
}

impl ProtectedDocument {
    /// Parses an entry of a file. `agents` are the known agents; without a manager, any name is
    /// accepted.
    ///
    /// # Errors
    /// All faults.
    pub fn parse(document: &Value, agents: Option<&AgentIds>) -> Result<Self, Vec<Fault>> {
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
        let expires_in = match object.get("expires_in").map(|span| span.as_str().map(str::parse::<Span>)) {
            None => None,
            Some(Some(Ok(span))) => Some(span),
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
        Ok(Self { kind, value, policies, reason, expires_in })
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
    use serde_json::json;

    use super::*;

    fn parse(document: &Value) -> Result<ProtectedDocument, Vec<String>> {
        let told = |faults: Vec<Fault>| faults.into_iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
        ProtectedDocument::parse(document, None).map_err(told)
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
