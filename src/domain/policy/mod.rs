//! A policy: which alerts get which response, on which agents, for how long, under which guardrails. How it is read is in
//! `reader.rs`, what its limits mean in `guardrails.rs`; matching itself is in `domain/index.rs`.

mod age;
mod fleet_warnings;
mod guardrails;
mod reader;
mod warnings;
mod wazuh_words;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::action::{Action, Catalogue};
use super::alert::TargetField;
use super::duration::Span;
use super::expression::Expression;
use super::fault::Fault;
use super::fleet::Fleet;
use super::group_expression::GroupExpression;
pub use age::{FUTURE_SKEW, MaxAge};
pub use guardrails::{
    Approval, Breaker, Escalation, Guardrails, Limits, OnSilence, OverLimit, Percent, Rate, Threshold, Waves,
};

/// The longest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// What a policy does when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Responds.
    Enforce,
    /// Waits for people.
    Approve,
    /// Records exactly what it would have done, and does nothing.
    Observe,
}

impl Mode {
    /// The word used in policies and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Approve => "approve",
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
    /// Wazuh's own `rules_group`, with its semantics: tried anywhere in the rule's group text `a,b,c,`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "web_scan|recon")]
    pub wazuh_rules_group: Option<GroupExpression>,
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
    /// The agent on the Wazuh manager's own host: the one whose `wazuh_id` is `000`.
    Server,
    /// These agents, by Riposte's id or by name.
    Agents(Vec<String>),
    /// Every agent that carries these labels, all of them.
    Labels(BTreeMap<String, String>),
}

/// How much wider than the address in the alert a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Network {
    /// The prefix of IPv4 networks; absent: the address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<u8>,
    /// The prefix of IPv6 networks; absent: the address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<u8>,
}

/// An example that is kept with its policy, and tried whenever that is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PolicyTest {
    /// What it shows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The alert.
    #[schema(value_type = Object)]
    pub alert: Value,
    /// Whether the policy fires at it.
    pub fires: bool,
    /// What the response is aimed at then, in canonical form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Respond {
    /// The action's name.
    pub action: String,
    /// The observable it is aimed at; absent for actions that need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetField>,
    /// How much wider than that it is; absent: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// On which agents.
    pub on: On,
    /// Those agents are reached in waves; absent: all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// For how long; absent means until lifted by hand.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub duration: Option<Span>,
    /// A longer time for those who come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate: Option<Escalation>,
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
    /// Alerts that are older, or dated ahead, are spared as `stale`: a duration, or `none`; absent: the configuration's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub max_age: Option<MaxAge>,
    /// What it does.
    pub respond: Respond,
    /// What keeps it from doing too much.
    #[serde(flatten)]
    pub guardrails: Guardrails,
    /// Examples of what it fires at and what not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<PolicyTest>,
    /// Why it exists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Policy {
    /// Reads a policy document that may use the actions of `actions`.
    ///
    /// # Errors
    /// Every fault, each with a pointer and, where a word looks misspelt, a suggestion.
    pub fn parse(document: &Value, actions: &Catalogue) -> Result<Self, Vec<Fault>> {
        reader::read(document, actions)
    }

    /// Reads a policy that was saved, perhaps by an earlier version: a condition that calls a function that is not there was
    /// accepted once. It never held, and must not stop a start.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_stored(document: &Value, actions: &Catalogue) -> Result<Self, Vec<Fault>> {
        reader::read_stored(document, actions)
    }

    /// Conditions that could not be saved today, because they can never hold.
    pub fn dead_conditions(&self) -> Vec<Fault> {
        let whens = self.selectors.iter().enumerate().filter_map(|(index, one)| Some((index, one.when.as_ref()?)));
        let dead = whens.filter_map(|(index, when)| Some((index, when.why_dead()?)));
        dead.map(|(index, why)| Fault::at(format!("/match/{index}/when"), why)).collect()
    }

    /// What is odd about the policy without being wrong: reasons why it, or a part of it, can never come to anything.
    pub fn warnings(&self) -> Vec<Fault> {
        warnings::of(self)
    }

    /// The same beside the agents that are enrolled now: what no agent carries, is called or can run. `action` is the one
    /// that the policy names.
    pub fn fleet_warnings(&self, action: &Action, fleet: &Fleet) -> Vec<Fault> {
        fleet_warnings::of(self, action, fleet)
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
            "max_age": "30m",
            "respond": {"action": "firewall-drop", "target": "source.ip", "on": {"agents": ["web-01"]}, "for": "10m"},
            "note": "why"
        });
        let policy = Policy::parse(&document, Catalogue::built_in()).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), document);
        assert!(policy.warnings().is_empty());
    }

    #[test]
    fn what_is_left_out_has_a_plain_default() {
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
    fn every_fault_is_pointed_at_with_a_suggestion() {
        let document = json!({
            "name": "Bad Name", "mode": "enforced", "treshold": 1,
            "match": [{"rule_id": ["1"], "min_level": 17}, 3],
            "respond": {"action": "firewal-drop", "target": "source.ipp", "on": "every", "for": "10"}
        });
        let faults = Policy::parse(&document, Catalogue::built_in()).unwrap_err();
        let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /treshold: is not a field that is known here; did you mean threshold?
        /name: must be 1 to 64 characters of a-z, 0-9 and '-'
        /mode: must be enforce, approve or observe; did you mean enforce?
        /match/0/rule_id: is not a field that is known here; did you mean rule_ids?
        /match/0/min_level: must be a whole number from 0 to 16
        /match/1: must be an object
        /respond/action: is not a known action; did you mean firewall-drop?
        /respond/target: must be one of source.ip, destination.ip, source.user, destination.user, file.path, process.id, host; did you mean source.ip?
        /respond/on: must be origin, all, server, {agents: [...]} or {labels: {...}}
        /respond/for: is not a duration such as "30s", "10m", "2h" or "7d" (more than zero, ten years at most)
        "#);
    }

    /// What a tired administrator writes who comes from `ossec.conf`.
    #[test]
    fn wazuhs_words_and_values_without_their_form_say_what_to_write() {
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
    fn an_action_gets_only_targets_that_it_takes() {
        let document =
            json!({"name": "a", "match": [], "respond": {"action": "firewall-drop", "target": "source.user"}});
        assert_eq!(Policy::parse(&document, Catalogue::built_in()).unwrap_err()[0].pointer, "/respond/target");
    }
}
