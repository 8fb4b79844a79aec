//! Protected entries in files and on a manager. Entries have no name: target and policies identify
//! them. A duration counts from the request, so a file entry with `expires_in` equals any stored
//! entry with an end.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::domain::protected_document::ProtectedDocument;
use crate::views::protected::ProtectedRow;

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
    /// The entry of a file.
    pub(super) fn of_file(document: ProtectedDocument) -> Self {
        let ProtectedDocument { kind, value, policies, reason, expires_in } = document;
        let end = expires_in.map(|span| format!("in {span}"));
        Self { protection: ProtectedKey { kind, value, policies }, reason, end, id: None }
    }

    /// Parses an entry of a manager.
    ///
    /// # Errors
    /// If it is invalid.
    pub(super) fn stored(row: ProtectedRow) -> anyhow::Result<Self> {
        let ProtectedRow { id, kind, value, policies, reason, expires_at, .. } = row;
        let mut policies: Vec<String> = policies.read().context("the policies of a protected entry")?;
        policies.sort();
        let protection = ProtectedKey { kind, value, policies };
        Ok(Self { protection, reason, end: expires_at.map(|at| at.to_string()), id: Some(id) })
    }

    /// Whether a stored entry has the same effect as this one.
    pub(super) fn is_like(&self, stored: &Self) -> bool {
        self.protection == stored.protection
            && self.reason == stored.reason
            && self.end.is_some() == stored.end.is_some()
    }

    /// The entry for display.
    ///
    /// # Errors
    /// Never; the library might.
    pub(super) fn shown(&self) -> anyhow::Result<Value> {
        let Self { protection: ProtectedKey { kind, value, policies }, reason, end, .. } = self;
        Ok(serde_json::to_value(ShownEntry { kind, value, policies, reason, expires: end.as_deref() })?)
    }
}

/// An entry as a difference shows it.
#[derive(Serialize)]
struct ShownEntry<'a> {
    kind: &'a str,
    value: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    policies: &'a [String],
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::protected_document::AgentIds;

    fn parse(document: &Value) -> ProtectedItem {
        let agents = AgentIds::from([("web-01".to_owned(), "id-1".to_owned())]);
        ProtectedItem::of_file(ProtectedDocument::parse(document, Some(&agents)).unwrap())
    }

    #[test]
    fn an_entry_is_identified_by_target_and_policies() {
        let entry = |value: &str, policies: &[&str]| {
            parse(&json!({"kind": "ip", "value": value, "policies": policies, "reason": "r"})).protection
        };
        assert_eq!(entry("::ffff:203.0.113.7", &["b", "a"]), entry("203.0.113.7/32", &["a", "b", "a"]));
        assert_ne!(entry("203.0.113.7", &[]), entry("203.0.113.7", &["a"]));
        let host = parse(&json!({"kind": "host", "value": "web-01", "reason": "r"}));
        assert_eq!(host.protection.name(), "host id-1");
    }

    #[test]
    fn an_end_in_a_file_equals_any_end() {
        let file = |more: Value| {
            let mut document = json!({"kind": "user", "value": "Alice", "reason": "r"});
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            parse(&document)
        };
        let row = json!({"id": "1", "kind": "user", "value": "alice", "policies": [], "reason": "r",
            "expires_at": "2026-12-01T00:00:00.000Z", "created_at": "2026-11-24T10:00:00.000Z", "created_by": "key:a"});
        let stored = ProtectedItem::stored(serde_json::from_value(row).unwrap()).unwrap();
        assert!(file(json!({"expires_in": "30d"})).is_like(&stored));
        assert!(
            !file(json!({})).is_like(&stored) && !file(json!({"expires_in": "30d", "reason": "s"})).is_like(&stored)
        );
        let shown = json!({"kind": "user", "value": "alice", "reason": "r", "expires": "in 30d"});
        assert_eq!(file(json!({"expires_in": "30d"})).shown().unwrap(), shown);
    }
}
