//! Scopes: what is stored is read again, a scope only takes away, and its check takes bounded time.

use riposte::domain::right::Right;
use riposte::domain::scope::{Scope, Scopes};
use serde_json::Value;

use crate::input::{parts, text};

/// A scope, and names of policies, one a line.
pub(crate) fn check(input: &[u8]) {
    let [document, names] = parts(input);
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    let scope = match Scope::parse(&document, "/scope") {
        Ok(scope) => scope,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| fault.pointer.starts_with("/scope")), "{faults:?}");
            return;
        }
    };
    let written = serde_json::to_string(&scope).unwrap();
    let stored = Scope::try_from(Some(written.clone())).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(stored, scope, "{written}");
    let patterns = scope.policies.clone();
    let is_unlimited = scope.is_unlimited();
    let scopes = Scopes::of([scope]);
    for name in text(names).lines().take(16) {
        let takes = scopes.take_policy(name);
        assert!(takes || !is_unlimited);
        assert!(
            takes || !patterns.iter().any(|pattern| pattern == name && !pattern.contains('*')),
            "{name} in {written}"
        );
        assert!(takes || !patterns.iter().any(|pattern| pattern == "*"), "{name} in {written}");
        let twice = Scopes::of([stored.clone(), stored.clone()]);
        assert_eq!(twice.take_policy(name), takes, "a scope twice is that scope");
    }
    assert!(Right::ALL.into_iter().all(|right| scopes.leave(right) || !is_unlimited));
}
