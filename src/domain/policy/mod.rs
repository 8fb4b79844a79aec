//! Policies: which alerts get which response, on which agents, for how long, under which
//! guardrails. `reader.rs` parses them, `guardrails.rs` defines the limits, and `domain/index.rs`
//! matches alerts.

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

/// Maximum size of a policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// What a policy does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Responds.
    Enforce,
    /// Waits for approval.
    Approve,
    /// Records what it would have done, and does nothing.
    Observe,
}

impl Mode {
    /// Name in policies and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Approve => "approve",
            Self::Observe => "observe",
        }
    }
}

/// Selects alerts by their agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct AgentSelector {
    /// Ids of the alert's agent: the pipeline's (`"005"`) or Riposte's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Labels that the enrolled agent must all have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Excluded agents: by id, or with all of these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub not: Option<Box<AgentSelector>>,
}

impl AgentSelector {
    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.labels.is_empty() && self.not.as_ref().is_none_or(|not| not.is_empty())
    }
}

/// Conditions that must all hold; a policy matches if any of its selectors does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Selector {
    /// The rule's id is one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_ids: Vec<String>,
    /// The rule's minimum level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_level: Option<u8>,
    /// The rule has one of these groups; whole words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_groups: Vec<String>,
    /// Wazuh's own `rules_group`, with its semantics: a search in the rule's group text `a,b,c,`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "web_scan|recon")]
    pub wazuh_rules_group: Option<GroupExpression>,
    /// The rule's maximum level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_level: Option<u8>,
    /// The rule has one of these ATT&CK techniques; `T1110` includes `T1110.001`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mitre: Vec<String>,
    /// The alert's pipeline is one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<String>,
    /// The alert's agent is one of these.
    #[serde(skip_serializing_if = "AgentSelector::is_empty")]
    pub agents: AgentSelector,
    /// A condition in CEL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "data.srcport > 1024 && !source.ip.startsWith(\"10.\")")]
    pub when: Option<Expression>,
}

impl Selector {
    /// Whether it has no condition. An empty selector never holds; use `min_level: 1` for all
    /// alerts.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
            || (Self { agents: AgentSelector::default(), ..self.clone() } == Self::default() && self.agents.is_empty())
    }
}

/// The agents on which a response acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The agent that the alert comes from.
    Origin,
    /// Every enrolled agent.
    All,
    /// The agent on the Wazuh manager's own host, with `wazuh_id` `000`.
    Server,
    /// These agents, by Riposte's id or by name.
    Agents(Vec<String>),
    /// Every agent that has all of these labels.
    Labels(BTreeMap<String, String>),
}

/// Widens a response from an address to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Network {
    /// Prefix length of IPv4 networks; absent: the address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4: Option<u8>,
    /// Prefix length of IPv6 networks; absent: the address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6: Option<u8>,
}

/// An example stored with its policy, and checked on every save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PolicyTest {
    /// What the example shows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The alert.
    #[schema(value_type = Object)]
    pub alert: Value,
    /// Whether the policy must match.
    pub fires: bool,
    /// Expected target in canonical form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The response of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Respond {
    /// Name of the action.
    pub action: String,
    /// Observable to target; absent for actions without a target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetField>,
    /// Network around the target; absent: the address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Agents on which it acts.
    pub on: On,
    /// Waves in which the agents are reached; absent: all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Duration; absent: until lifted by hand.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub duration: Option<Span>,
    /// Longer durations for repeated targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate: Option<Escalation>,
    /// Arguments, passed to the action as data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

/// A valid policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Policy {
    /// Unique name: a-z, 0-9 and '-', at most 64 characters.
    pub name: String,
    /// What it does when it matches.
    pub mode: Mode,
    /// Selectors, of which any must hold.
    #[serde(rename = "match")]
    pub selectors: Vec<Selector>,
    /// Maximum age of an alert, a duration or `none`; older alerts, or those dated ahead, are
    /// spared as `stale`. Absent: the configuration's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub max_age: Option<MaxAge>,
    /// The response.
    pub respond: Respond,
    /// Guardrails.
    #[serde(flatten)]
    pub guardrails: Guardrails,
    /// Examples that must or must not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<PolicyTest>,
    /// Purpose of the policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Policy {
    /// Parses a policy that may use `actions`.
    ///
    /// # Errors
    /// All faults, each with a pointer and, for a probable misspelling, a suggestion.
    pub fn parse(document: &Value, actions: &Catalogue) -> Result<Self, Vec<Fault>> {
        reader::read(document, actions)
    }

    /// Parses a stored policy of this or an earlier version. Earlier versions accepted conditions
    /// with unknown functions. They never held, and must not prevent a start.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_stored(document: &Value, actions: &Catalogue) -> Result<Self, Vec<Fault>> {
        reader::read_stored(document, actions)
    }

    /// Stored conditions that can never hold and would be refused today.
    pub fn dead_conditions(&self) -> Vec<Fault> {
        let whens = self.selectors.iter().enumerate().filter_map(|(index, one)| Some((index, one.when.as_ref()?)));
        let dead = whens.filter_map(|(index, when)| Some((index, when.why_dead()?)));
        dead.map(|(index, why)| Fault::at(format!("/match/{index}/when"), why)).collect()
    }

    /// Warnings: parts of the policy that can never have an effect.
    pub fn warnings(&self) -> Vec<Fault> {
        warnings::of(self)
    }

    /// Warnings about the currently enrolled agents: unused labels, unknown names, unsupported
    /// `action`.
    pub fn fleet_warnings(&self, action: &Action, fleet: &Fleet) -> Vec<Fault> {
        fleet_warnings::of(self, action, fleet)
    }
}

/// Whether `name` is a valid policy name.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
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
