//! Parses policy documents. By hand instead of by derive, to report all faults at once, each with
//! its place and a suggestion.

use std::collections::BTreeMap;
use std::sync::Arc;

use riposte_protocol::target::{TargetKind, WIDEST};
use riposte_protocol::words::nearest;
use serde_json::{Map, Value};

use super::guardrails::{escalation, waves};
use super::wazuh_words;
use super::{AgentSelector, Guardrails, MaxAge, Mode, Network, On, Policy, PolicyTest, Respond, Selector, is_name};
use crate::domain::action::{Action, Catalogue};
use crate::domain::alert::TargetField;
use crate::domain::canonical;
use crate::domain::duration::Span;
use crate::domain::expression::{Expression, Strictness};
use crate::domain::fault::Fault;
use crate::domain::formats::wazuh::{canonical_agent_id, canonical_rule_id};
use crate::domain::group_expression::GroupExpression;
use crate::domain::labels;

/// Maximum number of entries of a list.
const MAX_ENTRIES: usize = 4096;
/// Maximum number of tests.
const MAX_TESTS: usize = 64;

/// Parses a policy document.
///
/// # Errors
/// All faults.
pub(super) fn read(document: &Value, actions: &Catalogue) -> Result<Policy, Vec<Fault>> {
    read_as(document, actions, Strictness::New)
}

/// Parses a stored policy document of this or an earlier version.
///
/// # Errors
/// All faults.
pub(super) fn read_stored(document: &Value, actions: &Catalogue) -> Result<Policy, Vec<Fault>> {
    read_as(document, actions, Strictness::Stored)
}

fn read_as(document: &Value, actions: &Catalogue, strictness: Strictness) -> Result<Policy, Vec<Fault>> {
    let mut faults = Vec::new();
    let Some(object) = document.as_object() else {
        return Err(vec![Fault::at("", "a policy is a JSON object")]);
    };
    let mut read = Reader { faults: &mut faults, actions, strictness };
    let known =
        ["name", "mode", "match", "max_age", "respond", "threshold", "limits", "breaker", "approval", "tests", "note"];
    read.known(object, "", &known);
    let name = read.name(object);
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
    let selectors = read.selectors(object);
    let max_age = read.max_age(object);
    let respond = read.respond(object);
    let guardrails = Guardrails::read(&mut read, object);
    let tests = read.tests(object);
    let note = read.text(object, "", "note").unwrap_or_default();
    match respond {
        Some(respond) if faults.is_empty() => {
            Ok(Policy { name, mode, selectors, max_age, respond, guardrails, tests, note })
        }
        _ => Err(faults),
    }
}

pub(super) fn suggest<'a>(message: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(meant) => format!("{message}; did you mean {meant}?"),
        None => message.to_owned(),
    }
}

/// A short string or number in the place of a list.
fn one_word(value: &Value) -> Option<String> {
    let word = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (word.len() <= 256).then_some(word)
}

/// Reads fields and collects faults.
pub(super) struct Reader<'a> {
    faults: &'a mut Vec<Fault>,
    actions: &'a Catalogue,
    strictness: Strictness,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(Fault::at(pointer, detail));
    }

    pub(super) fn known(&mut self, object: &Map<String, Value>, at: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            let hint = wazuh_words::field(key);
            let detail = hint.unwrap_or_else(|| suggest("is not a known field", key, known.iter().copied()));
            self.fault(pointer, detail);
        }
    }

    pub(super) fn text(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<String> {
        match object.get(key)? {
            Value::String(text) if !text.contains('\0') && text.chars().count() <= 4096 => Some(text.clone()),
            Value::String(_) => {
                self.fault(format!("{at}/{key}"), "is longer than 4096 characters or contains NUL");
                None
            }
            _ => {
                self.fault(format!("{at}/{key}"), "must be a text");
                None
            }
        }
    }

    pub(super) fn span(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<Span> {
        if let Some(number) = object.get(key)?.as_u64() {
            self.fault(format!("{at}/{key}"), format!("write a duration: \"{number}s\""));
            return None;
        }
        let text = self.text(object, at, key)?;
        let span = text.parse().map_err(|error: crate::domain::duration::InvalidSpan| error.to_string());
        span.map_err(|error| self.fault(format!("{at}/{key}"), error)).ok()
    }

    /// A duration, or `none`.
    fn max_age(&mut self, policy: &Map<String, Value>) -> Option<MaxAge> {
        if let Some(number) = policy.get("max_age")?.as_u64() {
            self.fault("/max_age", format!("write a duration: \"{number}s\", or none"));
            return None;
        }
        let text = self.text(policy, "", "max_age")?;
        let age = text.parse().map_err(|error: crate::domain::duration::InvalidSpan| error.to_string());
        age.map_err(|error| self.fault("/max_age", format!("{error}; none lifts the limit"))).ok()
    }

    /// A whole number within `range`.
    pub(super) fn count(
        &mut self,
        object: &Map<String, Value>,
        at: &str,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let number = object.get(key)?.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            let (least, most) = range.into_inner();
            self.fault(format!("{at}/{key}"), format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    /// An observable.
    pub(super) fn observable(&mut self, value: &Value, at: &str) -> Option<TargetField> {
        let field = serde_json::from_value(value.clone()).ok();
        if field.is_none() {
            let message = format!("must be one of {}", TargetField::NAMES.join(", "));
            self.fault(at, suggest(&message, value.as_str().unwrap_or_default(), TargetField::NAMES));
        }
        field
    }

    fn name(&mut self, object: &Map<String, Value>) -> String {
        let name = self.text(object, "", "name").unwrap_or_default();
        if !is_name(&name) && !self.faults.iter().any(|fault| fault.pointer == "/name") {
            self.fault("/name", "must be 1 to 64 characters of a-z, 0-9 and '-'");
        }
        name
    }

    pub(super) fn object<'v>(&mut self, value: &'v Value, at: &str) -> Option<&'v Map<String, Value>> {
        if value.is_object() {
            value.as_object()
        } else {
            self.fault(at, "must be an object");
            None
        }
    }

    /// A list of strings; numbers are accepted for unquoted rule ids.
    fn words(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Vec<String> {
        let Some(value) = object.get(key) else { return Vec::new() };
        let at = format!("{at}/{key}");
        if let Some(written) = one_word(value) {
            let words: Vec<String> = written.split(',').map(|word| format!("{:?}", word.trim())).collect();
            self.fault(at, format!("write a list: [{}]", words.join(", ")));
            return Vec::new();
        }
        let Some(list) = value.as_array().filter(|list| list.len() <= MAX_ENTRIES) else {
            self.fault(at, format!("must be a list of at most {MAX_ENTRIES} texts"));
            return Vec::new();
        };
        let mut words = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            match item {
                Value::String(text) if !text.is_empty() && text.chars().count() <= 256 && !text.contains('\0') => {
                    words.push(text.clone());
                }
                Value::Number(number) if number.is_u64() => words.push(number.to_string()),
                _ => self.fault(format!("{at}/{index}"), "must be a text of 1 to 256 characters"),
            }
        }
        words
    }

    /// As [`Self::words`], for texts that are compared: spaces around them do not matter.
    fn terms(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Vec<String> {
        let words = self.words(object, at, key);
        for (index, _) in words.iter().enumerate().filter(|(_, word)| word.trim().is_empty()) {
            self.fault(format!("{at}/{key}/{index}"), "is blank");
        }
        words.iter().map(|word| word.trim().to_owned()).collect()
    }

    fn labels(&mut self, value: &Value, at: &str) -> BTreeMap<String, String> {
        let Some(object) = self.object(value, at) else { return BTreeMap::new() };
        match labels::parse_labels(object) {
            Ok(labels) => labels,
            Err(faults) => {
                let placed = faults.into_iter().map(|fault| Fault::at(format!("{at}{}", fault.pointer), fault.detail));
                self.faults.extend(placed);
                BTreeMap::new()
            }
        }
    }

    fn selectors(&mut self, policy: &Map<String, Value>) -> Vec<Selector> {
        let Some(value) = policy.get("match") else {
            self.fault("/match", "is missing");
            return Vec::new();
        };
        if value.is_object() {
            self.fault("/match", "write a list of selectors: begin each with a dash");
            return Vec::new();
        }
        let Some(list) = value.as_array().filter(|list| list.len() <= MAX_ENTRIES) else {
            self.fault("/match", format!("must be a list of at most {MAX_ENTRIES} selectors"));
            return Vec::new();
        };
        list.iter().enumerate().map(|(index, item)| self.selector(item, &format!("/match/{index}"))).collect()
    }

    fn selector(&mut self, value: &Value, at: &str) -> Selector {
        let Some(object) = self.object(value, at) else { return Selector::default() };
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
        self.known(object, at, &KNOWN);
        let rule_ids = self.terms(object, at, "rule_ids").iter().map(|id| canonical_rule_id(id)).collect();
        let rule_groups = self.terms(object, at, "rule_groups");
        let (min_level, max_level) = (self.level(object, at, "min_level"), self.level(object, at, "max_level"));
        let mitre = self.terms(object, at, "mitre").iter().map(|id| canonical::technique(id)).collect();
        let pipelines = self.terms(object, at, "pipelines");
        let agents = object
            .get("agents")
            .map_or_else(AgentSelector::default, |value| self.agents(value, &format!("{at}/agents"), true));
        let strictness = self.strictness;
        let when = self.text(object, at, "when").and_then(|source| match Expression::read(&source, strictness) {
            Ok(expression) => Some(expression),
            Err(fault) => {
                self.fault(format!("{at}/when"), fault);
                None
            }
        });
        let wazuh_rules_group =
            self.text(object, at, "wazuh_rules_group").and_then(|source| match GroupExpression::parse(&source) {
                Ok(expression) => Some(expression),
                Err(error) => {
                    self.fault(format!("{at}/wazuh_rules_group"), error);
                    None
                }
            });
        Selector { rule_ids, min_level, rule_groups, wazuh_rules_group, max_level, mitre, pipelines, agents, when }
    }

    fn level(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<u8> {
        let value = object.get(key)?;
        let level = value.as_u64().and_then(|level| u8::try_from(level).ok()).filter(|level| *level <= 16);
        if level.is_none() {
            let number = value.as_str().filter(|text| text.parse::<u8>().is_ok_and(|level| level <= 16));
            let hint = number.map_or_else(String::new, |number| format!("; write {number} without quotes"));
            self.fault(format!("{at}/{key}"), format!("must be a whole number from 0 to 16{hint}"));
        }
        level
    }

    fn agents(&mut self, value: &Value, at: &str, may_negate: bool) -> AgentSelector {
        let Some(object) = self.object(value, at) else { return AgentSelector::default() };
        self.known(object, at, if may_negate { &["ids", "labels", "not"] } else { &["ids", "labels"] });
        let ids = self.terms(object, at, "ids");
        let ids = ids.iter().map(|id| canonical_agent_id(id).unwrap_or_else(|| canonical::id(id))).collect();
        let labels = object.get("labels").map(|value| self.labels(value, &format!("{at}/labels")));
        let not = object.get("not").filter(|_| may_negate).map(|value| self.agents(value, &format!("{at}/not"), false));
        AgentSelector { ids, labels: labels.unwrap_or_default(), not: not.map(Box::new) }
    }

    fn respond(&mut self, policy: &Map<String, Value>) -> Option<Respond> {
        let Some(value) = policy.get("respond") else {
            self.fault("/respond", "is missing");
            return None;
        };
        let object = self.object(value, "/respond")?;
        self.known(object, "/respond", &["action", "target", "network", "on", "waves", "for", "escalate", "arguments"]);
        let action = self.action(object);
        let target = self.target(object, action.as_deref());
        let network = object.get("network").and_then(|value| self.network(value, target));
        let on = self.on(object);
        let waves = object.get("waves").and_then(|value| waves(self, value));
        if waves.is_some() && matches!(on, On::Origin | On::Server) {
            self.fault("/respond/waves", "needs an on that names several agents");
        }
        let duration = self.span(object, "/respond", "for");
        if let Some(action) = action.as_deref().filter(|action| !action.undoable && duration.is_some()) {
            self.fault("/respond/for", format!("is not allowed: {} leaves nothing to undo", action.name));
        }
        let escalate = object.get("escalate").and_then(|value| escalation(self, value, duration.is_some()));
        let arguments = self.words(object, "/respond", "arguments");
        if let Some(action) = &action {
            self.faults.extend(action.check_arguments(&arguments, "/respond/arguments"));
        }
        Some(Respond { action: action?.name.clone(), target, network, on, waves, duration, escalate, arguments })
    }

    /// Prefix lengths of the network around a target.
    fn network(&mut self, value: &Value, target: Option<TargetField>) -> Option<Network> {
        const AT: &str = "/respond/network";
        let object = self.object(value, AT)?;
        self.known(object, AT, &["v4", "v6"]);
        if target.is_none_or(|field| field.kind() != TargetKind::Ip) {
            self.fault(AT, "needs a target that is an address");
        }
        let mut prefix = |key: &str, widest: u8, longest: u32| {
            let prefix = self.count(object, AT, key, u32::from(widest)..=longest);
            prefix.and_then(|prefix| u8::try_from(prefix).ok())
        };
        Some(Network { v4: prefix("v4", WIDEST.0, 32), v6: prefix("v6", WIDEST.1, 128) })
    }

    fn tests(&mut self, policy: &Map<String, Value>) -> Vec<PolicyTest> {
        let Some(value) = policy.get("tests") else { return Vec::new() };
        let Some(list) = value.as_array().filter(|list| list.len() <= MAX_TESTS) else {
            self.fault("/tests", format!("must be a list of at most {MAX_TESTS} tests"));
            return Vec::new();
        };
        let read = list.iter().enumerate().filter_map(|(index, item)| {
            let at = format!("/tests/{index}");
            let object = self.object(item, &at)?;
            self.known(object, &at, &["name", "alert", "fires", "target"]);
            let fires = object.get("fires").and_then(Value::as_bool);
            if fires.is_none() {
                self.fault(format!("{at}/fires"), "must be true or false");
            }
            let alert = object.get("alert").filter(|alert| alert.is_object());
            if alert.is_none() {
                self.fault(format!("{at}/alert"), "must be an alert, a JSON object");
            }
            let name = self.text(object, &at, "name").unwrap_or_default();
            let target = self.text(object, &at, "target");
            Some(PolicyTest { name, alert: alert?.clone(), fires: fires?, target })
        });
        read.collect()
    }

    fn action(&mut self, respond: &Map<String, Value>) -> Option<Arc<Action>> {
        if !respond.contains_key("action") {
            self.fault("/respond/action", "is missing");
        }
        let name = self.text(respond, "/respond", "action")?;
        let found = self.actions.find(&name).cloned();
        if found.is_none() {
            let meant = self.actions.nearest(&name);
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            self.fault("/respond/action", format!("is not a known action{hint}"));
        }
        found
    }

    fn target(&mut self, respond: &Map<String, Value>, action: Option<&Action>) -> Option<TargetField> {
        let Some(value) = respond.get("target") else {
            let action = action?;
            if action.default_target.is_none() && !action.target_kinds.contains(&TargetKind::None) {
                self.fault("/respond/target", format!("is missing: {} has no target of its own", action.name));
            }
            return action.default_target;
        };
        let field = self.observable(value, "/respond/target")?;
        if let Some(action) = action.filter(|action| !action.target_kinds.contains(&field.kind())) {
            let detail = format!("is a target of kind {}, which {} does not take", field.kind(), action.name);
            self.fault("/respond/target", detail);
        }
        Some(field)
    }

    fn on(&mut self, respond: &Map<String, Value>) -> On {
        const DETAIL: &str = "must be origin, all, server, {agents: [...]} or {labels: {...}}";
        match respond.get("on") {
            None => On::Origin,
            Some(Value::String(word)) if word == "origin" => On::Origin,
            Some(Value::String(word)) if word == "all" => On::All,
            Some(Value::String(word)) if word == "server" => On::Server,
            Some(Value::Object(object)) if object.len() == 1 && object.contains_key("agents") => {
                let agents = self.terms(object, "/respond/on", "agents");
                if agents.is_empty() {
                    self.fault("/respond/on/agents", "must name at least one agent");
                }
                On::Agents(agents)
            }
            Some(Value::Object(object)) if object.len() == 1 && object.contains_key("labels") => {
                let labels = self.labels(&object["labels"], "/respond/on/labels");
                if labels.is_empty() {
                    self.fault("/respond/on/labels", "must name at least one label");
                }
                On::Labels(labels)
            }
            Some(Value::String(word)) => {
                let hint = wazuh_words::location(word).map(str::to_owned);
                self.fault("/respond/on", hint.unwrap_or_else(|| suggest(DETAIL, word, ["origin", "all", "server"])));
                On::Origin
            }
            Some(_) => {
                self.fault("/respond/on", DETAIL);
                On::Origin
            }
        }
    }
}
