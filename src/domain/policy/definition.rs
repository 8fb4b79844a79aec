//! What a policy is: which alerts get which response, on which agents, for how long. Its guardrails
//! are in `guardrails.rs`; `reader.rs` parses a policy out of a document.

use serde::Serialize;
use serde_json::Value;

use super::age::MaxAge;
use super::guardrails::{Escalation, Guardrails, Waves};
use crate::domain::agent_selector::AgentSelector;
use crate::domain::alert::TargetField;
use crate::domain::duration::Span;
use crate::domain::expression::Expression;
use crate::domain::fault::Fault;
use crate::domain::group_expression::GroupExpression;
use crate::domain::tlp::Tlp;

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
    /// Every agent that this selects.
    #[serde(untagged)]
    Select(AgentSelector),
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
    /// How far what its responses do may be passed on, by the Traffic Light Protocol.
    #[serde(skip_serializing_if = "Tlp::is_default")]
    #[schema(value_type = Option<String>, pattern = "^(clear|green|amber|amber[+]strict|red)$", example = "amber")]
    pub tlp: Tlp,
    /// Purpose of the policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Policy {
    /// Stored conditions that can never hold and would be refused today.
    pub fn dead_conditions(&self) -> Vec<Fault> {
        let whens = self.selectors.iter().enumerate().filter_map(|(index, one)| Some((index, one.when.as_ref()?)));
        let dead = whens.filter_map(|(index, when)| Some((index, when.why_dead()?)));
        dead.map(|(index, why)| Fault::at(format!("/match/{index}/when"), why)).collect()
    }
}

/// Whether `name` is a valid policy name.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
