//! Parses policy documents. By hand instead of by derive, to report all faults at once, each with
//! its place and a suggestion. `field_reader.rs` reads single fields.

use std::sync::Arc;

use riposte_protocol::target::{TargetKind, WIDEST};
use serde_json::{Map, Value};

use super::age::MaxAge;
use super::definition::{Mode, Network, On, Policy, PolicyTest, Respond, Selector, is_name};
use super::guardrails::Guardrails;
use super::guardrails_reader::{escalation, waves};
use crate::domain::action::{Action, Catalogue};
use crate::domain::agent_selector::AgentSelector;
use crate::domain::alert::TargetField;
use crate::domain::canonical;
use crate::domain::duration::InvalidSpan;
use crate::domain::expression::{Expression, Strictness};
use crate::domain::fault::Fault;
use crate::domain::field_reader::{FieldReader, MAX_ENTRIES, suggest};
use crate::domain::formats::wazuh::canonical_rule_id;
use crate::domain::group_expression::GroupExpression;
use crate::domain::tlp::Tlp;
use crate::domain::wazuh_words;

/// Maximum number of tests.
const MAX_TESTS: usize = 64;

impl Policy {
    /// Parses a policy that may use `actions`.
    ///
    /// # Errors
    /// All faults, each with a pointer and, for a probable misspelling, a suggestion.
    pub fn parse(document: &Value, actions: &Catalogue) -> Result<Self, Vec<Fault>> {
        read(document, actions, Strictness::New)
    }

    /// Parses a stored policy of this or an earlier version. Earlier versions accepted conditions
    /// with unknown functions. They never held, and must not prevent a start.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_stored(document: &Value, actions: &Catalogue) -> Result<Self, Vec<Fault>> {
        read(document, actions, Strictness::Stored)
    }
}

fn read(document: &Value, actions: &Catalogue, strictness: Strictness) -> Result<Policy, Vec<Fault>> {
    let Some(object) = document.as_object() else {
        return Err(vec![Fault::at("", "a policy is a JSON object")]);
    };
    let mut read = FieldReader::default();
    let known = [
        "name",
        "mode",
        "match",
        "max_age",
        "respond",
        "threshold",
        "limits",
        "breaker",
        "approval",
        "tests",
        "tlp",
        "note",
    ];
    read.known(object, "", &known);
    let name = name(&mut read, object);
    let mode = match read.text(object, "", "mode").as_deref() {
        None | Some("enforce") => Mode::Enforce,
        Some("observe") => Mode::Observe,
        Some("approve") => Mode::Approve,
        Some(other) => {
            read.fault(
                "/mode",
                suggest("must be enforce, approve or observe", other, ["enforce", "approve", "observe"]),
            );
            Mode::Observe
        }
    };
    let selectors = selectors(&mut read, object, strictness);
    let max_age = max_age(&mut read, object);
    let respond = respond(&mut read, object, actions);
    let guardrails = Guardrails::read(&mut read, object);
    let tests = tests(&mut read, object);
    let tlp = tlp(&mut read, object);
    let note = read.text(object, "", "note").unwrap_or_default();
    let faults = read.into_faults();
    match respond {
        Some(respond) if faults.is_empty() => {
            Ok(Policy { name, mode, selectors, max_age, respond, guardrails, tests, tlp, note })
        }
        _ => Err(faults),
    }
}

fn name(read: &mut FieldReader, object: &Map<String, Value>) -> String {
    let name = read.text(object, "", "name").unwrap_or_default();
    if !is_name(&name) && !read.has_fault_at("/name") {
        read.fault("/name", "must be 1 to 64 characters of a-z, 0-9 and '-'");
    }
    name
}

/// The label of the Traffic Light Protocol.
fn tlp(read: &mut FieldReader, object: &Map<String, Value>) -> Tlp {
    let Some(word) = read.text(object, "", "tlp") else { return Tlp::default() };
    Tlp::parse(&word).unwrap_or_else(|| {
        let labels = Tlp::ALL.map(Tlp::as_str);
        read.fault("/tlp", suggest(&format!("must be one of {}", labels.join(", ")), &word, labels));
        Tlp::default()
    })
}

/// A duration, or `none`.
fn max_age(read: &mut FieldReader, policy: &Map<String, Value>) -> Option<MaxAge> {
    if let Some(number) = policy.get("max_age")?.as_u64() {
        read.fault("/max_age", format!("write a duration: \"{number}s\", or none"));
        return None;
    }
    let text = read.text(policy, "", "max_age")?;
    let age = text.parse().map_err(|error: InvalidSpan| error.to_string());
    age.map_err(|error| read.fault("/max_age", format!("{error}; none lifts the limit"))).ok()
}

fn selectors(read: &mut FieldReader, policy: &Map<String, Value>, strictness: Strictness) -> Vec<Selector> {
    let Some(value) = policy.get("match") else {
        read.fault("/match", "is missing");
        return Vec::new();
    };
    if value.is_object() {
        read.fault("/match", "write a list of selectors: begin each with a dash");
        return Vec::new();
    }
    let Some(list) = value.as_array().filter(|list| list.len() <= MAX_ENTRIES) else {
        read.fault("/match", format!("must be a list of at most {MAX_ENTRIES} selectors"));
        return Vec::new();
    };
    list.iter().enumerate().map(|(index, item)| selector(read, item, &format!("/match/{index}"), strictness)).collect()
}

fn selector(read: &mut FieldReader, value: &Value, at: &str, strictness: Strictness) -> Selector {
    let Some(object) = read.object(value, at) else { return Selector::default() };
    const KNOWN: [&str; 9] = [
        "rule_ids",
        "min_level",
        "max_level",
        "rule_groups",
        "wazuh_rules_group",
        "mitre",
        "pipelines",
        "agents",
        "when",
    ];
    read.known(object, at, &KNOWN);
    let rule_ids = read.terms(object, at, "rule_ids").iter().map(|id| canonical_rule_id(id)).collect();
    let rule_groups = read.terms(object, at, "rule_groups");
    let (min_level, max_level) = (level(read, object, at, "min_level"), level(read, object, at, "max_level"));
    let mitre = read.terms(object, at, "mitre").iter().map(|id| canonical::technique(id)).collect();
    let pipelines = read.terms(object, at, "pipelines");
    let agents = object
        .get("agents")
        .map_or_else(AgentSelector::default, |value| AgentSelector::read(read, value, &format!("{at}/agents")));
    let when = read.text(object, at, "when").and_then(|source| match Expression::read(&source, strictness) {
        Ok(expression) => Some(expression),
        Err(fault) => {
            read.fault(format!("{at}/when"), fault);
            None
        }
    });
    let wazuh_rules_group =
        read.text(object, at, "wazuh_rules_group").and_then(|source| match GroupExpression::parse(&source) {
            Ok(expression) => Some(expression),
            Err(error) => {
                read.fault(format!("{at}/wazuh_rules_group"), error);
                None
            }
        });
    Selector { rule_ids, min_level, rule_groups, wazuh_rules_group, max_level, mitre, pipelines, agents, when }
}

fn level(read: &mut FieldReader, object: &Map<String, Value>, at: &str, key: &str) -> Option<u8> {
    let value = object.get(key)?;
    let level = value.as_u64().and_then(|level| u8::try_from(level).ok()).filter(|level| *level <= 16);
    if level.is_none() {
        let number = value.as_str().filter(|text| text.parse::<u8>().is_ok_and(|level| level <= 16));
        let hint = number.map_or_else(String::new, |number| format!("; write {number} without quotes"));
        read.fault(format!("{at}/{key}"), format!("must be a whole number from 0 to 16{hint}"));
    }
    level
}

fn respond(read: &mut FieldReader, policy: &Map<String, Value>, actions: &Catalogue) -> Option<Respond> {
    let Some(value) = policy.get("respond") else {
        read.fault("/respond", "is missing");
        return None;
    };
    let object = read.object(value, "/respond")?;
    read.known(object, "/respond", &["action", "target", "network", "on", "waves", "for", "escalate", "arguments"]);
    let action = action(read, object, actions);
    let target = target(read, object, action.as_deref());
    let network = object.get("network").and_then(|value| network(read, value, target));
    let on = object.get("on").map_or(On::Origin, |value| On::read(read, value, "/respond/on"));
    let waves = object.get("waves").and_then(|value| waves(read, value));
    if waves.is_some() && matches!(on, On::Origin | On::Server) {
        read.fault("/respond/waves", "needs an on that names several agents");
    }
    let duration = read.span(object, "/respond", "for");
    if let Some(action) = action.as_deref().filter(|action| !action.undoable && duration.is_some()) {
        read.fault("/respond/for", format!("is not allowed: {} leaves nothing to undo", action.name));
    }
    let escalate = object.get("escalate").and_then(|value| escalation(read, value, duration.is_some()));
    let arguments = read.words(object, "/respond", "arguments");
    if let Some(action) = &action {
        read.add(action.check_arguments(&arguments, "/respond/arguments"));
    }
    Some(Respond { action: action?.name.clone(), target, network, on, waves, duration, escalate, arguments })
}

/// Prefix lengths of the network around a target.
fn network(read: &mut FieldReader, value: &Value, target: Option<TargetField>) -> Option<Network> {
    const AT: &str = "/respond/network";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["v4", "v6"]);
    if target.is_none_or(|field| field.kind() != TargetKind::Ip) {
        read.fault(AT, "needs a target that is an address");
    }
    let mut prefix = |key: &str, widest: u8, longest: u32| {
        let prefix = read.count(object, AT, key, u32::from(widest)..=longest);
        prefix.and_then(|prefix| u8::try_from(prefix).ok())
    };
    Some(Network { v4: prefix("v4", WIDEST.0, 32), v6: prefix("v6", WIDEST.1, 128) })
}

fn tests(read: &mut FieldReader, policy: &Map<String, Value>) -> Vec<PolicyTest> {
    let Some(value) = policy.get("tests") else { return Vec::new() };
    let Some(list) = value.as_array().filter(|list| list.len() <= MAX_TESTS) else {
        read.fault("/tests", format!("must be a list of at most {MAX_TESTS} tests"));
        return Vec::new();
    };
    let tests = list.iter().enumerate().filter_map(|(index, item)| {
        let at = format!("/tests/{index}");
        let object = read.object(item, &at)?;
        read.known(object, &at, &["name", "alert", "fires", "target"]);
        let fires = object.get("fires").and_then(Value::as_bool);
        if fires.is_none() {
            read.fault(format!("{at}/fires"), "must be true or false");
        }
        let alert = object.get("alert").filter(|alert| alert.is_object());
        if alert.is_none() {
            read.fault(format!("{at}/alert"), "must be an alert, a JSON object");
        }
        let name = read.text(object, &at, "name").unwrap_or_default();
        let target = read.text(object, &at, "target");
        Some(PolicyTest { name, alert: alert?.clone(), fires: fires?, target })
    });
    tests.collect()
}

fn action(read: &mut FieldReader, respond: &Map<String, Value>, actions: &Catalogue) -> Option<Arc<Action>> {
    if !respond.contains_key("action") {
        read.fault("/respond/action", "is missing");
    }
    let name = read.text(respond, "/respond", "action")?;
    let found = actions.find(&name).cloned();
    if found.is_none() {
        let meant = actions.nearest(&name);
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        read.fault("/respond/action", format!("is not a known action{hint}"));
    }
    found
}

fn target(read: &mut FieldReader, respond: &Map<String, Value>, action: Option<&Action>) -> Option<TargetField> {
    let Some(value) = respond.get("target") else {
        let action = action?;
        if action.default_target.is_none() && !action.target_kinds.contains(&TargetKind::None) {
            read.fault("/respond/target", format!("is missing: {} has no target of its own", action.name));
        }
        return action.default_target;
    };
    let field = read.observable(value, "/respond/target")?;
    if let Some(action) = action.filter(|action| !action.target_kinds.contains(&field.kind())) {
        let detail = format!("is a target of kind {}, which {} does not take", field.kind(), action.name);
        read.fault("/respond/target", detail);
    }
    Some(field)
}

impl On {
    /// Reads it as part of a document.
    pub fn read(read: &mut FieldReader, value: &Value, at: &str) -> Self {
        const DETAIL: &str = "must be origin, all, server, {agents: [...]} or {labels: {...}}";
        match value {
            Value::String(word) if word == "origin" => Self::Origin,
            Value::String(word) if word == "all" => Self::All,
            Value::String(word) if word == "server" => Self::Server,
            Value::Object(object) if object.len() == 1 && object.contains_key("agents") => {
                let agents = read.terms(object, at, "agents");
                if agents.is_empty() {
                    read.fault(format!("{at}/agents"), "must name at least one agent");
                }
                Self::Agents(agents)
            }
            Value::Object(object) if !object.contains_key("agents") => {
                let selector = AgentSelector::read(read, value, at);
                let is_empty = |part: &&str| match object.get(*part) {
                    Some(Value::Object(part)) => part.is_empty(),
                    Some(Value::Array(part)) => part.is_empty(),
                    _ => false,
                };
                if let Some(part) = ["labels", "ids", "not"].into_iter().find(is_empty) {
                    let what = if part == "labels" { "label" } else { "condition" };
                    read.fault(format!("{at}/{part}"), format!("must name at least one {what}"));
                } else if selector.is_empty() {
                    read.fault(at, "must name at least one label");
                }
                Self::Select(selector)
            }
            Value::String(word) => {
                let hint = wazuh_words::location(word).map(str::to_owned);
                read.fault(at, hint.unwrap_or_else(|| suggest(DETAIL, word, ["origin", "all", "server"])));
                Self::Origin
            }
            _ => {
                read.fault(at, DETAIL);
                Self::Origin
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_survives_a_round_trip() {
        let document = json!({
            "name": "block-ssh", "mode": "observe",
            "match": [{"rule_ids": ["5712", "5763"], "agents": {"labels": {"env": "prod"}}}, {"min_level": 12, "rule_groups": ["web"]}],
            "max_age": "30m",
            "respond": {"action": "firewall-drop", "target": "source.ip", "on": {"agents": ["web-01"]}, "for": "10m"},
            "note": "why"
        });
        let policy = Policy::parse(&document, Catalogue::built_in()).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), document);
        assert!(policy.warnings().is_empty());
    }

    #[test]
    fn omitted_fields_have_defaults() {
        let policy = Policy::parse(
            &json!({"name": "a", "match": [{"rule_ids": [5763]}], "respond": {"action": "disable-account"}}),
            Catalogue::built_in(),
        )
        .unwrap();
        assert_eq!((policy.mode, policy.respond.on), (Mode::Enforce, On::Origin));
        assert_eq!(policy.respond.target, Some(TargetField::DestinationUser));
        assert_eq!(policy.selectors[0].rule_ids, ["5763"]);
    }

    #[test]
    fn every_fault_has_a_pointer_and_a_suggestion() {
        let document = json!({
            "name": "Bad Name", "mode": "enforced", "treshold": 1,
            "match": [{"rule_id": ["1"], "min_level": 17}, 3],
            "respond": {"action": "firewal-drop", "target": "source.ipp", "on": "every", "for": "10"}
        });
        let faults = Policy::parse(&document, Catalogue::built_in()).unwrap_err();
        let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /treshold: is not a known field; did you mean threshold?
        /name: must be 1 to 64 characters of a-z, 0-9 and '-'
        /mode: must be enforce, approve or observe; did you mean enforce?
        /match/0/rule_id: is not a known field; did you mean rule_ids?
        /match/0/min_level: must be a whole number from 0 to 16
        /match/1: must be an object
        /respond/action: is not a known action; did you mean firewall-drop?
        /respond/target: must be one of source.ip, destination.ip, source.user, destination.user, file.path, process.id, host; did you mean source.ip?
        /respond/on: must be origin, all, server, {agents: [...]} or {labels: {...}}
        /respond/for: is not a duration such as "30s", "10m", "2h" or "7d" (more than zero, ten years at most)
        "#);
    }

    /// Typical input from a user of `ossec.conf`.
    #[test]
    fn wazuhs_words_and_malformed_values_get_a_suggestion() {
        let base = || json!({"name": "a", "match": [{"rule_ids": ["1"]}], "respond": {"action": "firewall-drop"}});
        let fault = |pointer: &str, value: Value| {
            let mut document = base();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[key] = value;
            let faults = Policy::parse(&document, Catalogue::built_in()).unwrap_err();
            let here = faults.iter().find(|fault| fault.pointer == pointer);
            here.unwrap_or_else(|| panic!("{pointer}: {faults:?}")).detail.clone()
        };
        assert_eq!(fault("/match/0/rule_ids", json!(5763)), "write a list: [\"5763\"]");
        assert_eq!(fault("/match/0/rule_ids", json!("5712, 5763")), "write a list: [\"5712\", \"5763\"]");
        assert_eq!(fault("/match/0/rule_groups", json!("sshd")), "write a list: [\"sshd\"]");
        assert_eq!(
            fault("/match/0/min_level", json!("10")),
            "must be a whole number from 0 to 16; write 10 without quotes"
        );
        assert_eq!(fault("/match", json!({"rule_ids": ["1"]})), "write a list of selectors: begin each with a dash");
        assert_eq!(fault("/respond/on", json!("local")), "Wazuh's local is origin");
        assert_eq!(fault("/respond/on", json!("defined-agent")), "Wazuh's defined-agent is {agents: [...]}");
        assert_eq!(fault("/respond/for", json!(600)), "write a duration: \"600s\"");
        assert!(fault("/max_age", json!(3600)).contains("\"3600s\""));
        for (pointer, meant) in [
            ("/respond/location", "on in respond"),
            ("/respond/timeout", "\"600s\""),
            ("/respond/command", "action"),
            ("/match/0/level", "min_level"),
            ("/match/0/rules_id", "rule_ids"),
            ("/match/0/rules_group", "rule_groups"),
            ("/active-response", "policy import"),
            ("/timeout", "for in respond"),
        ] {
            let detail = fault(pointer, json!("x"));
            assert!(detail.contains("Wazuh's word") && detail.contains(meant), "{pointer}: {detail}");
        }
    }

    #[test]
    fn an_action_gets_only_targets_that_it_accepts() {
        let document =
            json!({"name": "a", "match": [], "respond": {"action": "firewall-drop", "target": "source.user"}});
        assert_eq!(Policy::parse(&document, Catalogue::built_in()).unwrap_err()[0].pointer, "/respond/target");
    }
}
