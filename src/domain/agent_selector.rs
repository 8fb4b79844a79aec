//! The one language that selects agents: in policies, in responses by hand and in scopes. All parts of
//! a selector must hold; `any` and `all` combine selectors, `not` excludes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::canonical;
use super::fault::Fault;
use super::field_reader::FieldReader;
use super::formats::wazuh::canonical_agent_id;
use super::labels::parse_labels;

/// Selectors may be nested this deep.
const MAX_DEPTH: usize = 4;
/// Maximum number of selectors in `any` or `all`, and of values of one label.
const MAX_PARTS: usize = 64;

/// The accepted values of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelValues(Vec<String>);

impl LabelValues {
    /// Whether `value` is one of them.
    pub fn accept(&self, value: &str) -> bool {
        self.0.iter().any(|accepted| accepted == value.trim())
    }

    fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|value| other.accept(value))
    }
}

impl Serialize for LabelValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_str(only),
            several => several.serialize(serializer),
        }
    }
}

/// Selects agents. An empty selector selects every agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct AgentSelector {
    /// Ids of the agent: the pipeline's (`"005"`) or Riposte's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Labels that the enrolled agent must all have, each with one of the values in a list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Value>)]
    pub labels: BTreeMap<String, LabelValues>,
    /// Excluded agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub not: Option<Box<AgentSelector>>,
    /// At least one of these selects the agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub any: Vec<AgentSelector>,
    /// Each of these selects the agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub all: Vec<AgentSelector>,
}

/// What a selector asks about an agent.
pub trait Selectable {
    /// Whether one of `ids` is an id of it.
    fn has_id(&self, ids: &[String]) -> bool;
    /// Whether it carries each of `labels`.
    fn has_labels(&self, labels: &BTreeMap<String, LabelValues>) -> bool;
}

/// An agent that will be enrolled with these labels.
impl Selectable for BTreeMap<String, String> {
    fn has_id(&self, _: &[String]) -> bool {
        false
    }

    fn has_labels(&self, labels: &BTreeMap<String, LabelValues>) -> bool {
        labels.iter().all(|(key, values)| self.get(key).is_some_and(|own| values.accept(own)))
    }
}

impl AgentSelector {
    /// Whether it has no condition.
    pub fn is_empty(&self) -> bool {
        let Self { ids, labels, not, any, all } = self;
        ids.is_empty()
            && labels.is_empty()
            && not.as_ref().is_none_or(|not| not.is_empty())
            && any.is_empty()
            && all.is_empty()
    }

    /// Whether it selects `agent`.
    pub fn selects(&self, agent: &dyn Selectable) -> bool {
        self.includes(agent) && !self.excludes(agent)
    }

    /// Whether `agent` meets all conditions except `not`.
    pub fn includes(&self, agent: &dyn Selectable) -> bool {
        (self.ids.is_empty() || agent.has_id(&self.ids))
            && (self.labels.is_empty() || agent.has_labels(&self.labels))
            && (self.any.is_empty() || self.any.iter().any(|one| one.selects(agent)))
            && self.all.iter().all(|one| one.selects(agent))
    }

    /// Whether `not` excludes `agent`. One without a condition excludes nothing.
    pub fn excludes(&self, agent: &dyn Selectable) -> bool {
        self.not.as_ref().is_some_and(|not| !not.is_empty() && not.selects(agent))
    }

    /// Whether its form shows that `outer` selects every agent that it selects, now and with any labels.
    /// A selector for which that holds only for other reasons is refused, never accepted.
    pub fn is_within(&self, outer: &Self) -> bool {
        let Self { ids, labels, not, any, all } = outer;
        let has_ids = |own: &Self| !own.ids.is_empty() && own.ids.iter().all(|id| ids.contains(id));
        let has_label = |own: &Self, key: &String, values: &LabelValues| {
            own.labels.get(key).is_some_and(|narrower| narrower.is_within(values))
        };
        (ids.is_empty() || self.implies(&has_ids))
            && labels.iter().all(|(key, values)| self.implies(&|own| has_label(own, key, values)))
            && not.as_ref().is_none_or(|not| not.is_empty() || self.implies(&|own| own.not.as_ref() == Some(not)))
            && (any.is_empty() || any.iter().any(|one| self.is_within(one)) || self.implies(&|own| own.any == *any))
            && all.iter().all(|one| self.is_within(one))
    }

    /// Whether `condition` is one of its own, or of a part that must hold.
    fn implies(&self, condition: &dyn Fn(&Self) -> bool) -> bool {
        condition(self)
            || self.all.iter().any(|one| one.implies(condition))
            || (!self.any.is_empty() && self.any.iter().all(|one| one.implies(condition)))
    }

    /// Reads a selector at `at`.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn parse(value: &Value, at: &str) -> Result<Self, Vec<Fault>> {
        let mut read = FieldReader::default();
        let selector = Self::read(&mut read, value, at);
        let faults = read.into_faults();
        if faults.is_empty() { Ok(selector) } else { Err(faults) }
    }

    /// Reads a selector as part of a document.
    pub fn read(read: &mut FieldReader, value: &Value, at: &str) -> Self {
        Self::read_nested(read, value, at, MAX_DEPTH)
    }

    fn read_nested(read: &mut FieldReader, value: &Value, at: &str, depth: usize) -> Self {
        let Some(object) = read.object(value, at) else { return Self::default() };
        read.known(object, at, &["ids", "labels", "not", "any", "all"]);
        let ids = read.terms(object, at, "ids");
        let ids = ids.iter().map(|id| canonical_agent_id(id).unwrap_or_else(|| canonical::id(id))).collect();
        let labels = object.get("labels").map(|value| label_values(read, value, &format!("{at}/labels")));
        let nested = ["not", "any", "all"].into_iter().find(|key| object.contains_key(*key));
        if let (0, Some(key)) = (depth, nested) {
            read.fault(format!("{at}/{key}"), format!("is nested more than {MAX_DEPTH} deep"));
            return Self::default();
        }
        let not = object.get("not").map(|value| Self::read_nested(read, value, &format!("{at}/not"), depth - 1));
        let mut parts = |key| Self::read_parts(read, object, &format!("{at}/{key}"), key, depth);
        let (any, all) = (parts("any"), parts("all"));
        Self { ids, labels: labels.unwrap_or_default(), not: not.map(Box::new), any, all }
    }

    fn read_parts(read: &mut FieldReader, object: &Map<String, Value>, at: &str, key: &str, depth: usize) -> Vec<Self> {
        let Some(value) = object.get(key) else { return Vec::new() };
        let Some(list) = value.as_array().filter(|list| (1..=MAX_PARTS).contains(&list.len())) else {
            read.fault(at, format!("must be a list of 1 to {MAX_PARTS} selectors"));
            return Vec::new();
        };
        let part = |(index, part)| Self::read_nested(read, part, &format!("{at}/{index}"), depth - 1);
        list.iter().enumerate().map(part).collect()
    }
}

/// Labels, each with one value or a list of accepted values.
fn label_values(read: &mut FieldReader, value: &Value, at: &str) -> BTreeMap<String, LabelValues> {
    let Some(object) = read.object(value, at) else { return BTreeMap::new() };
    let mut labels: BTreeMap<String, LabelValues> = BTreeMap::new();
    for (key, value) in object {
        let values = match value {
            Value::Array(values) if (1..=MAX_PARTS).contains(&values.len()) => values.as_slice(),
            Value::Array(_) => {
                let detail = format!("a list of accepted values has 1 to {MAX_PARTS} of them");
                read.fault(format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), detail);
                continue;
            }
            single => std::slice::from_ref(single),
        };
        for value in values {
            match parse_labels(&Map::from_iter([(key.clone(), value.clone())])) {
                Ok(one) => {
                    for (key, value) in one {
                        labels.entry(key).or_insert_with(|| LabelValues(Vec::new())).0.push(value);
                    }
                }
                Err(faults) => {
                    read.add(faults.into_iter().map(|fault| Fault::at(format!("{at}{}", fault.pointer), fault.detail)));
                }
            }
        }
    }
    labels
}

impl fmt::Display for AgentSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ids, labels, not, any, all } = self;
        let mut parts = Vec::new();
        if !ids.is_empty() {
            parts.push(format!("id in ({})", ids.join(", ")));
        }
        parts.extend(labels.iter().map(|(key, values)| match values.0.as_slice() {
            [only] => format!("{key}={only}"),
            several => format!("{key} in ({})", several.join(", ")),
        }));
        if !any.is_empty() {
            let any: Vec<String> = any.iter().map(ToString::to_string).collect();
            parts.push(format!("any of ({})", any.join(" | ")));
        }
        parts.extend(all.iter().map(ToString::to_string));
        parts.extend(not.iter().map(|not| format!("not ({not})")));
        formatter.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    struct Host(&'static str, Vec<(&'static str, &'static str)>);

    impl Selectable for Host {
        fn has_id(&self, ids: &[String]) -> bool {
            ids.iter().any(|id| id == self.0)
        }

        fn has_labels(&self, labels: &BTreeMap<String, LabelValues>) -> bool {
            let own = |key: &str| self.1.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
            labels.iter().all(|(key, values)| own(key).is_some_and(|value| values.accept(value)))
        }
    }

    fn parse(value: &Value) -> AgentSelector {
        AgentSelector::parse(value, "").unwrap()
    }

    #[test]
    fn a_selector_combines_ids_labels_lists_and_exclusions() {
        let prod = Host("005", vec![("env", "prod"), ("role", "db")]);
        let table = [
            (json!({}), true),
            (json!({"labels": {"env": "prod"}}), true),
            (json!({"labels": {"env": ["staging", "prod"]}}), true),
            (json!({"labels": {"env": ["staging", "dev"]}}), false),
            (json!({"labels": {"env": "prod", "role": "web"}}), false),
            (json!({"ids": ["5"]}), true),
            (json!({"ids": ["006"]}), false),
            (json!({"not": {"labels": {"role": "db"}}}), false),
            (json!({"labels": {"env": "prod"}, "not": {"ids": ["5"], "labels": {"role": "web"}}}), true),
            (json!({"any": [{"labels": {"role": "web"}}, {"labels": {"role": "db"}}]}), true),
            (json!({"any": [{"labels": {"role": "web"}}, {"labels": {"role": "mail"}}]}), false),
            (json!({"all": [{"labels": {"env": "prod"}}, {"not": {"labels": {"role": ["web", "db"]}}}]}), false),
        ];
        for (value, selects) in table {
            assert_eq!(parse(&value).selects(&prod), selects, "{value}");
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        let faults = |value: Value| {
            let faults = AgentSelector::parse(&value, "/on").unwrap_err();
            faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(faults(json!({
            "label": {"env": "prod"}, "ids": "5", "labels": {"Env": "x", "env": [], "role": ["a", null], "a/b": []},
            "any": [], "all": {"ids": ["1"]}, "not": {"any": [7]}
        })), @r#"
        /on/label: is not a known field; did you mean labels?
        /on/ids: write a list: ["5"]
        /on/labels/Env: a label's key is 1 to 64 characters of a-z, 0-9, '_', '-' and '.'
        /on/labels/a~1b: a list of accepted values has 1 to 64 of them
        /on/labels/env: a list of accepted values has 1 to 64 of them
        /on/labels/role: a label's value is a text of at most 256 characters without control characters
        /on/not/any/0: must be an object
        /on/any: must be a list of 1 to 64 selectors
        /on/all: must be a list of 1 to 64 selectors
        "#);
        let deep = json!({"not": {"not": {"not": {"not": {"not": {"ids": ["1"]}}}}}});
        assert!(faults(deep).contains("/on/not/not/not/not/not: is nested more than 4 deep"));
    }

    #[test]
    fn a_selector_is_within_another_by_its_form() {
        let dev = json!({"labels": {"env": "dev"}});
        let table = [
            (json!({"labels": {"env": "dev", "role": "db"}}), dev.clone(), true),
            (json!({"labels": {"env": ["dev", "prod"]}}), dev.clone(), false),
            (json!({"labels": {"env": "dev"}}), json!({"labels": {"env": ["dev", "staging"]}}), true),
            (json!({}), dev.clone(), false),
            (json!({"ids": ["1"]}), dev.clone(), false),
            (json!({"all": [{"ids": ["1"]}, dev.clone()]}), dev.clone(), true),
            (json!({"any": [dev.clone(), {"labels": {"env": "prod"}}]}), dev.clone(), false),
            (json!({"any": [dev.clone(), {"labels": {"env": "dev", "a": "b"}}]}), dev.clone(), true),
            (json!({"not": {"labels": {"env": "prod"}}}), dev.clone(), false),
            (dev.clone(), json!({"labels": {"env": "dev"}, "not": {"ids": ["1"]}}), false),
            (json!({"labels": {"env": "dev"}, "not": {"ids": ["1"]}}), json!({"not": {"ids": ["1"]}}), true),
            (dev.clone(), json!({"any": [{"ids": ["1"]}, {"labels": {"env": "dev"}}]}), true),
            (dev.clone(), json!({}), true),
        ];
        for (inner, outer, within) in table {
            assert_eq!(parse(&inner).is_within(&parse(&outer)), within, "{inner} within {outer}");
        }
    }

    fn selectors() -> impl Strategy<Value = AgentSelector> {
        let key = || prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned);
        let values = prop::collection::vec(prop::sample::select(vec!["1", "2", "3"]), 1..3)
            .prop_map(|values| LabelValues(values.into_iter().map(str::to_owned).collect()));
        let labels = prop::collection::btree_map(key(), values, 0..3);
        let ids = prop::collection::vec(prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned), 0..2);
        let leaf = (ids, labels).prop_map(|(ids, labels)| AgentSelector { ids, labels, ..AgentSelector::default() });
        leaf.prop_recursive(3, 12, 2, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..3);
            (inner.clone(), prop::option::of(inner.clone()), list.clone(), list)
                .prop_map(|(own, not, any, all)| AgentSelector { not: not.map(Box::new), any, all, ..own })
        })
    }

    proptest! {
        #[test]
        fn what_is_within_selects_nothing_more(inner in selectors(), outer in selectors()) {
            if inner.is_within(&outer) {
                for id in ["x", "y", "z"] {
                    for (a, b) in [("1", "1"), ("1", "2"), ("2", "3"), ("3", "1"), ("9", "2"), ("3", "9")] {
                        let host = Host(id, vec![("a", a), ("b", b)]);
                        prop_assert!(!inner.selects(&host) || outer.selects(&host), "{inner} / {outer} / {id} {a} {b}");
                    }
                }
            }
        }

        #[test]
        fn a_selector_is_the_same_after_it_was_written(selector in selectors()) {
            let written = serde_json::to_value(&selector).unwrap();
            let read = AgentSelector::parse(&written, "").unwrap();
            prop_assert_eq!(serde_json::to_value(&read).unwrap(), written);
        }
    }
}
