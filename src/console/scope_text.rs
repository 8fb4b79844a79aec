//! Scopes and roles in forms: what was typed as values, and values in words.

use serde_json::Value;

use super::client::Trouble;
use crate::domain::principal::Role;
use crate::domain::scope::Scope;
use crate::views::problem::Problem;

/// What a form says about a scope's field.
pub(super) const SCOPE_HINT: &str =
    r#"JSON, such as {"agents": {"labels": {"env": "test"}}, "policies": ["ssh-*"]}. Empty: the role alone limits it."#;

/// A fault of what was typed, as the API would name it.
pub(super) fn mistyped(detail: impl Into<String>) -> Trouble {
    Trouble::Refused(Box::new(Problem {
        kind: "urn:riposte:problem:invalid".to_owned(),
        title: "Invalid input".to_owned(),
        status: 422,
        detail: detail.into(),
        errors: Vec::new(),
    }))
}

/// The scope that was typed; `None` if the field is empty.
///
/// # Errors
/// If it is not JSON.
pub(super) fn read_scope(text: &str) -> Result<Option<Value>, Trouble> {
    match text.trim() {
        "" => Ok(None),
        text => {
            let read = serde_json::from_str(text);
            read.map(Some).map_err(|error| mistyped(format!("the scope is not JSON: {error}")))
        }
    }
}

/// The role that was chosen.
///
/// # Errors
/// If there is none of this name.
pub(super) fn read_role(word: &str) -> Result<Role, Trouble> {
    Role::parse(word).ok_or_else(|| mistyped(format!("{word:?} is not a role")))
}

/// A scope as JSON; empty if it takes nothing away.
pub(super) fn scope_text(scope: &Scope) -> String {
    if scope.is_unlimited() { String::new() } else { serde_json::to_string(scope).unwrap_or_default() }
}

/// Roles of people, with what each may do.
pub(super) const ROLES: [(&str, &str); 4] = [
    ("viewer", "viewer: reads"),
    ("analyst", "analyst: reads, responds, approves"),
    ("engineer", "engineer: also changes policies and manages agents"),
    ("admin", "admin: everything"),
];

/// Roles of keys.
pub(super) const KEY_ROLES: [(&str, &str); 5] = [
    ("ingest", "ingest: sends alerts only"),
    ("viewer", "viewer: reads"),
    ("analyst", "analyst: reads, responds, approves"),
    ("engineer", "engineer: also changes policies and manages agents"),
    ("admin", "admin: everything"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_a_scope_or_a_fault_that_says_why() {
        assert_eq!(read_scope(" ").unwrap(), None);
        assert_eq!(read_scope("{}").unwrap(), Some(serde_json::json!({})));
        assert!(read_scope("{").unwrap_err().to_string().starts_with("the scope is not JSON: "));
        assert_eq!(read_role("root").unwrap_err().to_string(), "\"root\" is not a role");
    }

    #[test]
    fn every_role_is_offered_for_keys() {
        let offered: Vec<Role> = KEY_ROLES.iter().filter_map(|(word, _)| Role::parse(word)).collect();
        assert!(offered.len() == Role::ALL.len() && Role::ALL.iter().all(|role| offered.contains(role)));
    }
}
