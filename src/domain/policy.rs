//! A policy: which alerts get which response, on which agents, for how long. It is read by hand rather than by
//! derive, because a person who writes one deserves every fault at once, each with its place and a suggestion.
//! Matching itself is in `domain/index.rs`.

use std::collections::BTreeMap;

use riposte_protocol::target::TargetKind;
use serde::Serialize;
use serde_json::{Map, Value};

use super::action::{self, ACTIONS, nearest};
use super::alert::TargetField;
use super::duration::Span;
use super::expression::Expression;
use super::fault::Fault;
use super::shapes::wazuh::{canonical_agent_id, canonical_rule_id};

/// The longest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// The most entries of any list in a policy.
const MAX_ENTRIES: usize = 4096;
/// The most arguments of an action, and the longest of them in bytes.
const MAX_ARGUMENTS: (usize, usize) = (32, 1024);

/// What a policy does when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Responds.
    Enforce,
    /// Records exactly what it would have done, and does nothing.
    Observe,
}

impl Mode {
    /// The word used in policies and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// Whose alerts a selector takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct AgentSelector {
    /// Ids of the alert's agent: the pipeline's (`"005"`) or Riposte's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Labels that the enrolled agent must carry, all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose alerts it does not take: ids, or agents that carry all of these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub not: Option<Box<AgentSelector>>,
}

impl AgentSelector {
    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.labels.is_empty() && self.not.as_ref().is_none_or(|not| not.is_empty())
    }
}

/// Conditions that must all hold; a policy fires when any of its selectors does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Selector {
    /// The rule is one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_ids: Vec<String>,
    /// The rule's level is at least this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_level: Option<u8>,
    /// The rule is in one of these groups; whole words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_groups: Vec<String>,
    /// The rule's level is at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_level: Option<u8>,
    /// The rule names one of these ATT&CK techniques; `T1110` takes `T1110.001` too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mitre: Vec<String>,
    /// The alert was sent by one of these pipelines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<String>,
    /// The alert comes from one of these agents.
    #[serde(skip_serializing_if = "AgentSelector::is_empty")]
    pub agents: AgentSelector,
    /// A condition in CEL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "data.srcport > 1024 && !source.ip.startsWith(\"10.\")")]
    pub when: Option<Expression>,
}

impl Selector {
    /// Whether it says nothing at all, and so never holds: "everything" has to be asked for (`min_level: 1`).
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
            || (Self { agents: AgentSelector::default(), ..self.clone() } == Self::default() && self.agents.is_empty())
    }
}

/// On which agents a response is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The agent that the alert comes from.
    Origin,
    /// Every enrolled agent.
    All,
    /// These agents, by Riposte's id or by name.
    Agents(Vec<String>),
    /// Every agent that carries these labels, all of them.
    Labels(BTreeMap<String, String>),
}

/// The response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Respond {
    /// The action's name.
    pub action: String,
    /// The observable it is aimed at; absent for actions that need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetField>,
    /// On which agents.
    pub on: On,
    /// For how long; absent means until lifted by hand.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub duration: Option<Span>,
    /// Passed to the action as data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

/// A policy that can be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Policy {
    /// Unique: a-z, 0-9 and '-', 64 characters at most.
    pub name: String,
    /// What it does when it fires.
    pub mode: Mode,
    /// Any of these must hold.
    #[serde(rename = "match")]
    pub selectors: Vec<Selector>,
    /// What it does.
    pub respond: Respond,
    /// Why it exists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Policy {
    /// Reads a policy document.
    ///
    /// # Errors
    /// Every fault, each with a pointer and, where a word looks misspelt, a suggestion.
    pub fn parse(document: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let Some(object) = document.as_object() else {
            return Err(vec![Fault::at("", "a policy is a JSON object")]);
        };
        let mut read = Reader { faults: &mut faults };
        read.known(object, "", &["name", "mode", "match", "respond", "note"]);
        let name = read.name(object);
        let mode = match read.text(object, "", "mode").as_deref() {
            None | Some("enforce") => Mode::Enforce,
            Some("observe") => Mode::Observe,
            Some(other) => {
                read.fault("/mode", suggest("must be enforce or observe", other, ["enforce", "observe"]));
                Mode::Observe
            }
        };
        let selectors = read.selectors(object);
        let respond = read.respond(object);
        let note = read.text(object, "", "note").unwrap_or_default();
        match respond {
            Some(respond) if faults.is_empty() => Ok(Self { name, mode, selectors, respond, note }),
            _ => Err(faults),
        }
    }

    /// What is odd about the policy without being wrong: reasons why it, or a part of it, can never match.
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = Vec::new();
        if self.selectors.is_empty() {
            warnings.push(Fault::at("/match", "has no selector, so the policy never matches"));
        }
        for (index, selector) in self.selectors.iter().enumerate() {
            if selector.is_empty() {
                let detail = "has no condition, so it never matches; write min_level: 1 for every alert";
                warnings.push(Fault::at(format!("/match/{index}"), detail));
            }
            if let (Some(min), Some(max)) = (selector.min_level, selector.max_level)
                && min > max
            {
                let detail = "is below min_level, so the selector never matches";
                warnings.push(Fault::at(format!("/match/{index}/max_level"), detail));
            }
            if selector.max_level == Some(0) {
                let detail = "alerts of level 0 fire nothing, so the selector never matches";
                warnings.push(Fault::at(format!("/match/{index}/max_level"), detail));
            }
        }
        warnings
    }
}

fn suggest<'a>(message: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(meant) => format!("{message}; did you mean {meant}?"),
        None => message.to_owned(),
    }
}

/// Reads fields and collects faults.
struct Reader<'a> {
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(Fault::at(pointer, detail));
    }

    fn known(&mut self, object: &Map<String, Value>, at: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            self.fault(pointer, suggest("is not a field that is known here", key, known.iter().copied()));
        }
    }

    fn text(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<String> {
        match object.get(key)? {
            Value::String(text) if !text.contains('\0') && text.len() <= 4096 => Some(text.clone()),
            Value::String(_) => {
                self.fault(format!("{at}/{key}"), "is longer than 4096 bytes or contains NUL");
                None
            }
            _ => {
                self.fault(format!("{at}/{key}"), "must be a text");
                None
            }
        }
    }

    fn name(&mut self, object: &Map<String, Value>) -> String {
        let name = self.text(object, "", "name").unwrap_or_default();
        if !is_name(&name) && !self.faults.iter().any(|fault| fault.pointer == "/name") {
            self.fault("/name", "must be 1 to 64 characters of a-z, 0-9 and '-'");
        }
        name
    }

    fn object<'v>(&mut self, value: &'v Value, at: &str) -> Option<&'v Map<String, Value>> {
        if value.is_object() {
            value.as_object()
        } else {
            self.fault(at, "must be an object");
            None
        }
    }

    /// A list of words; numbers count as words where people write rule ids without quotes.
    fn words(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Vec<String> {
        let Some(value) = object.get(key) else { return Vec::new() };
        let at = format!("{at}/{key}");
        let Some(list) = value.as_array().filter(|list| list.len() <= MAX_ENTRIES) else {
            self.fault(at, format!("must be a list of at most {MAX_ENTRIES} texts"));
            return Vec::new();
        };
        let mut words = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            match item {
                Value::String(text) if !text.is_empty() && text.len() <= 256 && !text.contains('\0') => {
                    words.push(text.clone());
                }
                Value::Number(number) if number.is_u64() => words.push(number.to_string()),
                _ => self.fault(format!("{at}/{index}"), "must be a text of 1 to 256 bytes"),
            }
        }
        words
    }

    fn labels(&mut self, value: &Value, at: &str) -> BTreeMap<String, String> {
        let Some(object) = self.object(value, at) else { return BTreeMap::new() };
        match super::labels::parse_labels(object) {
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
        let Some(list) = value.as_array().filter(|list| list.len() <= MAX_ENTRIES) else {
            self.fault("/match", format!("must be a list of at most {MAX_ENTRIES} selectors"));
            return Vec::new();
        };
        list.iter().enumerate().map(|(index, item)| self.selector(item, &format!("/match/{index}"))).collect()
    }

    fn selector(&mut self, value: &Value, at: &str) -> Selector {
        let Some(object) = self.object(value, at) else { return Selector::default() };
        const KNOWN: [&str; 8] =
            ["rule_ids", "min_level", "max_level", "rule_groups", "mitre", "pipelines", "agents", "when"];
        self.known(object, at, &KNOWN);
        let rule_ids = self.words(object, at, "rule_ids").iter().map(|id| canonical_rule_id(id)).collect();
        let rule_groups = self.words(object, at, "rule_groups");
        let (min_level, max_level) = (self.level(object, at, "min_level"), self.level(object, at, "max_level"));
        let mitre = self.words(object, at, "mitre").iter().map(|id| id.to_ascii_uppercase()).collect();
        let pipelines = self.words(object, at, "pipelines");
        let agents = object
            .get("agents")
            .map_or_else(AgentSelector::default, |value| self.agents(value, &format!("{at}/agents"), true));
        let when = self.text(object, at, "when").and_then(|source| match Expression::parse(&source) {
            Ok(expression) => Some(expression),
            Err(fault) => {
                self.fault(format!("{at}/when"), fault);
                None
            }
        });
        Selector { rule_ids, min_level, rule_groups, max_level, mitre, pipelines, agents, when }
    }

    fn level(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<u8> {
        let value = object.get(key)?;
        let level = value.as_u64().and_then(|level| u8::try_from(level).ok()).filter(|level| *level <= 16);
        if level.is_none() {
            self.fault(format!("{at}/{key}"), "must be a whole number from 0 to 16");
        }
        level
    }

    fn agents(&mut self, value: &Value, at: &str, may_negate: bool) -> AgentSelector {
        let Some(object) = self.object(value, at) else { return AgentSelector::default() };
        self.known(object, at, if may_negate { &["ids", "labels", "not"] } else { &["ids", "labels"] });
        let ids = self.words(object, at, "ids");
        let ids = ids.into_iter().map(|id| canonical_agent_id(&id).unwrap_or(id)).collect();
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
        self.known(object, "/respond", &["action", "target", "on", "for", "arguments"]);
        let action = self.action(object);
        let target = self.target(object, action);
        let on = self.on(object);
        let duration = self.text(object, "/respond", "for").and_then(|text| match text.parse::<Span>() {
            Ok(span) => Some(span),
            Err(error) => {
                self.fault("/respond/for", error.to_string());
                None
            }
        });
        let arguments = self.words(object, "/respond", "arguments");
        if arguments.len() > MAX_ARGUMENTS.0 || arguments.iter().any(|argument| argument.len() > MAX_ARGUMENTS.1) {
            let (count, bytes) = MAX_ARGUMENTS;
            self.fault("/respond/arguments", format!("takes at most {count} texts of {bytes} bytes each"));
        }
        Some(Respond { action: action?.name.into(), target, on, duration, arguments })
    }

    fn action(&mut self, respond: &Map<String, Value>) -> Option<&'static action::Action> {
        if !respond.contains_key("action") {
            self.fault("/respond/action", "is missing");
        }
        let name = self.text(respond, "/respond", "action")?;
        let found = action::action(&name);
        if found.is_none() {
            let names = ACTIONS.iter().map(|action| action.name);
            self.fault("/respond/action", suggest("is not an action that is known", &name, names));
        }
        found
    }

    fn target(&mut self, respond: &Map<String, Value>, action: Option<&action::Action>) -> Option<TargetField> {
        let Some(value) = respond.get("target") else {
            let action = action?;
            if action.default_target.is_none() && !action.target_kinds.contains(&TargetKind::None) {
                self.fault("/respond/target", format!("is missing: {} has no target of its own", action.name));
            }
            return action.default_target;
        };
        let Ok(field) = serde_json::from_value::<TargetField>(value.clone()) else {
            let word = value.as_str().unwrap_or_default();
            let message = format!("must be one of {}", TargetField::NAMES.join(", "));
            self.fault("/respond/target", suggest(&message, word, TargetField::NAMES));
            return None;
        };
        if let Some(action) = action.filter(|action| !action.target_kinds.contains(&field.kind())) {
            let detail = format!("is a target of kind {}, which {} does not take", field.kind(), action.name);
            self.fault("/respond/target", detail);
        }
        Some(field)
    }

    fn on(&mut self, respond: &Map<String, Value>) -> On {
        const DETAIL: &str = "must be origin, all, {agents: [...]} or {labels: {...}}";
        match respond.get("on") {
            None => On::Origin,
            Some(Value::String(word)) if word == "origin" => On::Origin,
            Some(Value::String(word)) if word == "all" => On::All,
            Some(Value::Object(object)) if object.len() == 1 && object.contains_key("agents") => {
                let agents = self.words(object, "/respond/on", "agents");
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
                self.fault("/respond/on", suggest(DETAIL, word, ["origin", "all"]));
                On::Origin
            }
            Some(_) => {
                self.fault("/respond/on", DETAIL);
                On::Origin
            }
        }
    }
}

/// Whether `name` can name a policy.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_is_read_and_written_alike() {
        let document = json!({
            "name": "block-ssh", "mode": "observe",
            "match": [{"rule_ids": ["5712", "5763"], "agents": {"labels": {"env": "prod"}}}, {"min_level": 12, "rule_groups": ["web"]}],
            "respond": {"action": "firewall-drop", "target": "source.ip", "on": {"agents": ["web-01"]}, "for": "10m"},
            "note": "why"
        });
        let policy = Policy::parse(&document).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), document);
        assert!(policy.warnings().is_empty());
    }

    #[test]
    fn what_is_left_out_has_a_plain_default() {
        let policy = Policy::parse(
            &json!({"name": "a", "match": [{"rule_ids": [5763]}], "respond": {"action": "disable-account"}}),
        )
        .unwrap();
        assert_eq!((policy.mode, policy.respond.on), (Mode::Enforce, On::Origin));
        assert_eq!(policy.respond.target, Some(TargetField::DestinationUser));
        assert_eq!(policy.selectors[0].rule_ids, ["5763"]);
    }

    #[test]
    fn every_fault_is_pointed_at_with_a_suggestion() {
        let document = json!({
            "name": "Bad Name", "mode": "enforced", "treshold": 1,
            "match": [{"rule_id": ["1"], "min_level": 17}, 3],
            "respond": {"action": "firewal-drop", "target": "source.ipp", "on": "every", "for": "10"}
        });
        let faults = Policy::parse(&document).unwrap_err();
        let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /treshold: is not a field that is known here
        /name: must be 1 to 64 characters of a-z, 0-9 and '-'
        /mode: must be enforce or observe; did you mean enforce?
        /match/0/rule_id: is not a field that is known here; did you mean rule_ids?
        /match/0/min_level: must be a whole number from 0 to 16
        /match/1: must be an object
        /respond/action: is not an action that is known; did you mean firewall-drop?
        /respond/target: must be one of source.ip, destination.ip, source.user, destination.user, file.path; did you mean source.ip?
        /respond/on: must be origin, all, {agents: [...]} or {labels: {...}}
        /respond/for: is not a duration such as "30s", "10m", "2h" or "7d" (more than zero, ten years at most)
        "#);
    }

    #[test]
    fn an_action_gets_only_targets_that_it_takes() {
        let document =
            json!({"name": "a", "match": [], "respond": {"action": "firewall-drop", "target": "source.user"}});
        assert_eq!(Policy::parse(&document).unwrap_err()[0].pointer, "/respond/target");
    }

    #[test]
    fn a_policy_that_can_never_match_is_a_warning() {
        let warnings = |selectors: Value| {
            let document = json!({"name": "a", "match": selectors, "respond": {"action": "log-only"}});
            Policy::parse(&document).unwrap().warnings().into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert_eq!(warnings(json!([])), ["/match"]);
        assert_eq!(warnings(json!([{"min_level": 3}, {}])), ["/match/1"]);
    }
}
