//! All policies, compiled. Candidate selectors are looked up by rule id, group or level, so the
//! cost of a decision does not grow with policies that cannot match.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::agent::Agent;
use super::agent_selector::{LabelValues, Selectable};
use super::alert::Alert;
use super::canonical;
use super::expression::{Bindings, EVERYTHING, Failure, FieldRefs};
use super::policy::{Policy, Selector};

/// A policy and its version.
#[derive(Clone, Debug)]
pub struct VersionedPolicy {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Version, which increases with every change; the policy's `ETag`.
    pub version: i64,
}

/// A selector: index of the policy, index within it.
type Place = (u32, u32);

/// The compiled policies; immutable, replaced as a whole.
#[derive(Debug, Default)]
pub struct PolicyIndex {
    policies: Vec<Arc<VersionedPolicy>>,
    by_rule_id: HashMap<String, Vec<Place>>,
    by_group: HashMap<String, Vec<Place>>,
    /// Selectors without rule ids and groups, by `min_level`.
    by_level: [Vec<Place>; 17],
    /// Fields that the expressions of all policies read.
    field_refs: FieldRefs,
}

impl PolicyIndex {
    /// Compiles `policies`. Each selector is filed once, under its most selective condition: rule
    /// id before group before level.
    pub fn compile(policies: Vec<Arc<VersionedPolicy>>) -> Self {
        let mut index = Self::default();
        for (at, versioned) in (0_u32..).zip(&policies) {
            for (nth, selector) in (0_u32..).zip(&versioned.policy.selectors) {
                let place = (at, nth);
                if let Some(when) = &selector.when {
                    index.field_refs.add(when.field_refs());
                }
                if selector.is_empty() {
                    continue;
                }
                if !selector.rule_ids.is_empty() {
                    for id in &selector.rule_ids {
                        index.by_rule_id.entry(id.clone()).or_default().push(place);
                    }
                } else if !selector.rule_groups.is_empty() {
                    for group in &selector.rule_groups {
                        index.by_group.entry(canonical::group(group).to_owned()).or_default().push(place);
                    }
                } else {
                    index.by_level[usize::from(selector.min_level.unwrap_or(0).min(16))].push(place);
                }
            }
        }
        index.policies = policies;
        index
    }

    /// Whether an alert with this rule and level could match at all; avoids parsing most stored
    /// alerts.
    pub fn could_match(&self, rule_id: &str, level: u8) -> bool {
        let by_level = || self.by_level.iter().take(usize::from(level) + 1).any(|places| !places.is_empty());
        level > 0 && (!self.by_group.is_empty() || self.by_rule_id.contains_key(rule_id) || by_level())
    }

    /// All policies, by name.
    pub fn policies(&self) -> &[Arc<VersionedPolicy>] {
        &self.policies
    }

    /// What this alert (whose text is `raw`) fires: each policy once, in the order of their names. `origin` is the enrolled agent
    /// that the alert comes from, if there is one. A level-0 alert fires nothing, as in Wazuh.
    pub fn matching<'s: 'a, 'a>(
        &'s self,
        alert: &'a Alert,
        raw: &'a str,
        origin: &'a dyn Fn() -> Option<&'a Agent>,
    ) -> Matched<'s> {
        let seen = Seen { field_refs: &self.field_refs, ..Seen::new(alert, raw, origin) };
        let level = alert.rule.level;
        if level == 0 {
            return Matched::default();
        }
        let mut failed = Vec::new();
        let mut fired: Vec<u32> = Vec::new();
        let mut try_all = |places: &[Place]| {
            for (at, nth) in places {
                let versioned = &self.policies[*at as usize];
                match why_not(&versioned.policy.selectors[*nth as usize], &seen) {
                    None => fired.push(*at),
                    Some(WhyNot::Failed(failure)) => failed.push((&**versioned, failure)),
                    Some(WhyNot::Fails(_)) => {}
                }
            }
        };
        if let Some(places) = self.by_rule_id.get(&alert.rule.id) {
            try_all(places);
        }
        if !self.by_group.is_empty() {
            let groups = alert.rule.groups.iter().map(|group| canonical::group(group));
            groups.filter_map(|group| self.by_group.get(group)).for_each(|places| try_all(places));
        }
        self.by_level.iter().take(usize::from(level) + 1).for_each(|places| try_all(places));
        fired.sort_unstable();
        fired.dedup();
        Matched { fired: fired.into_iter().map(|at| &self.policies[at as usize]).collect(), failed }
    }
}

/// Result of matching an alert.
#[derive(Debug, Default)]
pub struct Matched<'a> {
    /// The matching policies, by name.
    pub fired: Vec<&'a Arc<VersionedPolicy>>,
    /// Failed conditions, each with its policy.
    pub failed: Vec<(&'a VersionedPolicy, Failure)>,
}

/// Why a selector does not hold.
#[derive(Clone, Debug)]
pub enum WhyNot {
    /// A condition does not hold.
    Fails(&'static str),
    /// The evaluation of the expression failed.
    Failed(Failure),
}

impl WhyNot {
    /// The reason, for people.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Fails(why) => Cow::Borrowed(why),
            Self::Failed(failure) => Cow::Owned(format!("when: the expression cannot be decided: {failure}")),
        }
    }
}

/// An alert as selectors see it.
pub struct Seen<'a> {
    alert: &'a Alert,
    raw: &'a str,
    /// Looked for when the first selector asks: for most alerts none does.
    origin: &'a dyn Fn() -> Option<&'a Agent>,
    /// What expressions may ask for.
    field_refs: &'a FieldRefs,
    /// Built by the first expression, and shared.
    bindings: OnceCell<Bindings<'a>>,
}

impl<'a> Seen<'a> {
    /// `alert`, whose text is `raw`, coming from the enrolled agent `origin`.
    pub fn new(alert: &'a Alert, raw: &'a str, origin: &'a dyn Fn() -> Option<&'a Agent>) -> Self {
        Self { alert, raw, origin, field_refs: &EVERYTHING, bindings: OnceCell::new() }
    }
}

/// The agent that the alert names, and the enrolled one that it comes from.
impl Selectable for Seen<'_> {
    fn has_id(&self, ids: &[String]) -> bool {
        self.alert.agent.id.as_ref().is_some_and(|id| ids.contains(id))
            || (self.origin)().is_some_and(|origin| ids.iter().any(|id| *id == origin.id.to_string()))
    }

    fn has_labels(&self, labels: &BTreeMap<String, LabelValues>) -> bool {
        (self.origin)().is_some_and(|origin| origin.has_labels(labels))
    }
}

/// Whether all conditions of `selector` hold.
pub fn holds(selector: &Selector, seen: &Seen) -> bool {
    why_not(selector, seen).is_none()
}

/// The first condition of `selector` that does not hold, cheap ones first; `None` if all hold.
pub fn why_not(selector: &Selector, seen: &Seen) -> Option<WhyNot> {
    plain(selector, seen).map(WhyNot::Fails).or_else(|| {
        let bindings = || seen.bindings.get_or_init(|| Bindings::new(seen.alert, seen.raw, seen.field_refs));
        match selector.when.as_ref()?.holds(bindings()) {
            Ok(true) => None,
            Ok(false) => Some(WhyNot::Fails("when: the expression does not hold")),
            Err(failure) => Some(WhyNot::Failed(failure)),
        }
    })
}

/// The same without the expression.
fn plain(selector: &Selector, seen: &Seen) -> Option<&'static str> {
    let Selector { rule_ids, min_level, max_level, rule_groups, wazuh_rules_group, mitre, pipelines, agents, when: _ } =
        selector;
    let rule = &seen.alert.rule;
    let technique = |wanted: &String| {
        let below = |id: &String| id.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('.'));
        rule.mitre.iter().any(|id| id == wanted || below(id))
    };
    let is_in = |wanted: &String| {
        let wanted = canonical::group(wanted);
        rule.groups.iter().any(|group| canonical::group(group) == wanted)
    };
    if selector.is_empty() {
        Some("the selector has no condition")
    } else if !rule_ids.is_empty() && !rule_ids.contains(&rule.id) {
        Some("rule_ids: the alert's rule is not among them")
    } else if seen.alert.is_own_echo && rule_ids.is_empty() {
        Some("the alert reports an active response: only a selector that names its rule in rule_ids takes it")
    } else if min_level.is_some_and(|level| rule.level < level) {
        Some("min_level: the alert's level is lower")
    } else if max_level.is_some_and(|level| rule.level > level) {
        Some("max_level: the alert's level is higher")
    } else if !rule_groups.is_empty() && !rule_groups.iter().any(is_in) {
        Some("rule_groups: the alert's rule is in none of them")
    } else if wazuh_rules_group.as_ref().is_some_and(|expression| !expression.matches(&rule.groups)) {
        Some("wazuh_rules_group: the expression does not match the rule's groups")
    } else if !mitre.is_empty() && !mitre.iter().any(technique) {
        Some("mitre: the alert's rule names none of them")
    } else if !pipelines.is_empty() && !pipelines.contains(&seen.alert.pipeline) {
        Some("pipelines: the alert was sent by another one")
    } else if !agents.includes(seen) {
        Some("agents: the alert comes from another agent, or one without these labels")
    } else if agents.excludes(seen) {
        Some("agents.not: the alert comes from one of these")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index(matches: &[serde_json::Value]) -> PolicyIndex {
        let policy = |(n, selectors): (usize, &serde_json::Value)| {
            let document = json!({"name": format!("p{n}"), "match": selectors, "respond": {"action": "log-only"}});
            Arc::new(VersionedPolicy {
                policy: Arc::new(Policy::parse(&document, crate::domain::action::Catalogue::built_in()).unwrap()),
                version: 1,
            })
        };
        PolicyIndex::compile(matches.iter().enumerate().map(policy).collect())
    }

    fn alert(id: &str, level: u8, groups: &[&str]) -> Alert {
        let raw = json!({"timestamp": "2026-11-20T10:11:12Z", "id": "1", "agent": {"id": "005"},
            "rule": {"id": id, "level": level, "groups": groups}});
        crate::domain::formats::parse(&raw.to_string(), &crate::domain::formats::AlertMappings::default(), None)
            .unwrap()
    }

    fn fired(index: &PolicyIndex, alert: &Alert) -> Vec<String> {
        index.matching(alert, "{}", &|| None).fired.iter().map(|versioned| versioned.policy.name.clone()).collect()
    }

    #[test]
    fn selectors_are_alternatives_and_conditions_are_joint() {
        let index = index(&[
            json!([{"rule_ids": ["5763"]}]),
            json!([{"min_level": 10}]),
            json!([{"min_level": 11, "rule_groups": ["sshd"]}]),
            json!([{"min_level": 11, "rule_groups": ["sshd"]}, {"rule_ids": [5763]}]),
            json!([{"rule_groups": ["ssh"]}]),
            json!([{"agents": {"ids": ["5"]}}]),
            json!([{"agents": {"ids": ["006"]}, "min_level": 3}]),
            json!([{"rule_ids": ["5763"], "min_level": 11}]),
            json!([]),
            json!([{}]),
            json!([{"min_level": 0}]),
        ]);
        assert_eq!(fired(&index, &alert("5763", 10, &["syslog", "sshd"])), ["p0", "p1", "p3", "p5", "p10"]);
        assert_eq!(fired(&index, &alert("5763", 0, &["syslog", "sshd"])), Vec::<String>::new());
        assert_eq!(fired(&index, &alert("1", 12, &["sshd"])), ["p1", "p2", "p3", "p5", "p10"]);
    }

    #[test]
    fn spaces_case_and_spelling_do_not_matter() {
        let index = index(&[
            json!([{"rule_groups": ["WEF"]}]),
            json!([{"rule_groups": [" WEF "]}]),
            json!([{"rule_groups": ["we"]}]),
            json!([{"rule_ids": [" 05763 "]}]),
            json!([{"rule_ids": [5763]}]),
            json!([{"min_level": 1, "mitre": [" t1110 "]}]),
            json!([{"min_level": 1, "agents": {"ids": [" 5 "]}}]),
            json!([{"wazuh_rules_group": "sshd, wef"}]),
            json!([{"wazuh_rules_group": "^sshd"}]),
        ]);
        let mut alert = alert("5763", 10, &["sshd", " WEF"]);
        alert.rule.mitre = vec!["T1110.001".into()];
        assert_eq!(fired(&index, &alert), ["p0", "p1", "p3", "p4", "p5", "p6", "p7", "p8"]);
    }

    #[test]
    fn the_finer_conditions_hold_as_written() {
        let index = index(&[
            json!([{"rule_ids": ["5763"], "max_level": 9}]),
            json!([{"rule_ids": ["5763"], "max_level": 10}]),
            json!([{"mitre": ["t1110"]}]),
            json!([{"mitre": ["T111"]}]),
            json!([{"pipelines": ["suricata"], "min_level": 1}]),
            json!([{"min_level": 1, "agents": {"not": {"ids": ["5"]}}}]),
            json!([{"min_level": 1, "agents": {"not": {"ids": ["6"]}}}]),
            json!([{"rule_ids": ["5763"], "when": "rule.level == 10"}]),
            json!([{"rule_ids": ["5763"], "when": "rule.level == 11"}]),
        ]);
        let mut alert = alert("5763", 10, &["sshd"]);
        alert.rule.mitre = vec!["T1110.001".into()];
        assert_eq!(fired(&index, &alert), ["p1", "p2", "p6", "p7"]);
    }

    proptest::proptest! {
        /// The index must return what trying every selector returns.
        #[test]
        fn the_index_agrees_with_trying_everything(
            selectors in proptest::collection::vec((0u8..4, proptest::option::of(0u8..17), 0u8..4), 1..12),
            id in 0u8..4, level in 0u8..17, group in 0u8..4,
        ) {
            let documents: Vec<_> = selectors.iter().map(|(id, min_level, group)| {
                let mut selector = serde_json::Map::new();
                if *id > 0 { selector.insert("rule_ids".into(), json!([id])); }
                if let Some(min_level) = min_level { selector.insert("min_level".into(), json!(min_level)); }
                if *group > 0 { selector.insert("rule_groups".into(), json!([format!("g{group}"), "other"])); }
                json!([selector])
            }).collect();
            let index = index(&documents);
            let group = format!("g{group}");
            let alert = alert(&id.to_string(), level, &[&group]);
            let plain: Vec<String> = index.policies().iter()
                .filter(|versioned| level > 0 && versioned.policy.selectors.iter().any(|selector| holds(selector, &Seen::new(&alert, "{}", &|| None))))
                .map(|versioned| versioned.policy.name.clone()).collect();
            proptest::prop_assert_eq!(fired(&index, &alert), plain);
        }
    }
}
