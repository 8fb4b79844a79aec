//! The catalogue: all actions by name, for policies, requests and suggestions.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use riposte_protocol::words::nearest;

use super::built_in;
use super::definition::Action;

/// All actions, built-in and custom. Immutable, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    actions: BTreeMap<String, Arc<Action>>,
}

static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::with(Vec::new()));

impl Catalogue {
    /// The built-in and the `custom` actions. A custom action never replaces a built-in one.
    pub fn with(custom: Vec<Action>) -> Self {
        let own = built_in::all();
        let actions = custom.into_iter().chain(own).map(|action| (action.name.clone(), Arc::new(action)));
        Self { actions: actions.collect() }
    }

    /// The built-in actions.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// The action called `name`.
    pub fn find(&self, name: &str) -> Option<&Arc<Action>> {
        self.actions.get(name)
    }

    /// The action with the most similar name, for suggestions.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.actions.keys().map(String::as_str))
    }

    /// All actions by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Action>> {
        self.actions.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_action_is_found_by_its_exact_name() {
        assert!(Catalogue::built_in().find("route-null").is_some());
        assert!(Catalogue::built_in().find("firewall-drop600").is_none());
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let known = Catalogue::built_in();
        assert_eq!(known.nearest("firewal-drop"), Some("firewall-drop"));
        assert_eq!(known.nearest("log_only"), Some("log-only"));
        assert_eq!(known.nearest("quarantine"), None);
        assert!(known.iter().all(|action| jsonschema::validator_for(&action.parameters).is_ok()));
    }

    #[test]
    fn a_custom_action_never_replaces_a_built_in_one() {
        let own = Action {
            name: "firewall-drop".into(),
            ..Action::parse(&json!({"name": "x", "summary": "", "executable": "x.sh"})).unwrap()
        };
        assert!(Catalogue::with(vec![own]).find("firewall-drop").unwrap().script.is_none());
    }
}
