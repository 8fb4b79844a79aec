//! Scopes: what a person or a key may do at most, beside the role. A scope only takes away. The scopes
//! of a person and of the person's key apply together.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::agent::Agent;
use super::agent_selector::{AgentSelector, Selectable};
use super::alert::{Alert, AlertAgent};
use super::fault::Fault;
use super::field_reader::{FieldReader, suggest};
use super::fleet::Fleet;
use super::host_name::is_same_host;
use super::policy::{On, Policy};
use super::right::Right;

/// What a person or a key may do at most. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Scope {
    /// Rights; those of the role that are not listed are taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rights: Vec<Right>,
    /// Actions, by name: of responses by hand, of responses to approve or lift, and of policies to
    /// write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// Agents; everything about other agents is hidden, and their alerts are rejected.
    #[serde(skip_serializing_if = "AgentSelector::is_empty")]
    pub agents: AgentSelector,
    /// Policies, by name; `*` stands for any characters. Other policies and their responses are hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Pipelines whose alerts may be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<String>,
    /// Wazuh managers or clusters whose alerts may be sent, by `manager.name` or `cluster.name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wazuh_managers: Vec<String>,
    /// Feeds that may be fetched, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub feeds: Vec<String>,
    /// Maximum number of agents of one response that is ordered or approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents_per_response: Option<u32>,
    /// Maximum number of responses that are ordered or approved within an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responses_per_hour: Option<u32>,
}

impl Scope {
    /// Reads a scope at `at`.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn parse(value: &Value, at: &str) -> Result<Self, Vec<Fault>> {
        const LISTS: [&str; 6] = ["rights", "actions", "policies", "pipelines", "wazuh_managers", "feeds"];
        const FIELDS: [&str; 9] = [
            "rights",
            "actions",
            "agents",
            "policies",
            "pipelines",
            "wazuh_managers",
            "feeds",
            "agents_per_response",
            "responses_per_hour",
        ];
        let mut read = FieldReader::default();
        let mut scope = Self::default();
        if let Some(object) = read.object(value, at) {
            read.known(object, at, &FIELDS);
            for (index, word) in read.terms(object, at, "rights").iter().enumerate() {
                match Right::parse(word) {
                    Some(right) => scope.rights.push(right),
                    None => {
                        let names = Right::ALL.map(Right::as_str);
                        let message = format!("is not a right ({})", names.join(", "));
                        read.fault(format!("{at}/rights/{index}"), suggest(&message, word, names));
                    }
                }
            }
            scope.actions = read.terms(object, at, "actions");
            scope.policies = read.terms(object, at, "policies");
            scope.pipelines = read.terms(object, at, "pipelines");
            scope.wazuh_managers = read.terms(object, at, "wazuh_managers");
            scope.feeds = read.terms(object, at, "feeds");
            for (index, pattern) in scope.policies.iter().enumerate() {
                if !pattern
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*".contains(&byte))
                {
                    read.fault(
                        format!("{at}/policies/{index}"),
                        "is a policy's name of a-z, 0-9 and '-', with '*' for any characters",
                    );
                }
            }
            if let Some(agents) = object.get("agents") {
                scope.agents = AgentSelector::read(&mut read, agents, &format!("{at}/agents"));
            }
            scope.agents_per_response = read.count(object, at, "agents_per_response", 1..=1_000_000);
            scope.responses_per_hour = read.count(object, at, "responses_per_hour", 1..=1_000_000);
            // An empty list would read as "nothing", and mean "everything".
            for key in LISTS {
                if object.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                    read.fault(format!("{at}/{key}"), "is empty: leave the field out for no limit");
                }
            }
        }
        let faults = read.into_faults();
        if faults.is_empty() { Ok(scope) } else { Err(faults) }
    }

    /// Whether it takes nothing away.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
            || (Self { agents: AgentSelector::default(), ..self.clone() } == Self::default() && self.agents.is_empty())
    }

    /// The feeds that it names, if it leaves no right but to fetch them.
    pub fn feeds_alone(&self) -> Option<&[String]> {
        (self.rights == [Right::PullFeeds] && !self.feeds.is_empty()).then_some(self.feeds.as_slice())
    }

    /// Whether it limits what may be changed beyond the rights.
    fn limits_changes(&self) -> bool {
        !(Self { rights: Vec::new(), ..self.clone() }).is_unlimited()
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(&value, "").map_err(|faults| {
            let texts: Vec<String> =
                faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
            D::Error::custom(texts.join("; "))
        })
    }
}

/// The stored form of a scope cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a stored scope cannot be read: {0}")]
pub struct UnreadableScope(serde_json::Error);

impl TryFrom<Option<String>> for Scope {
    type Error = UnreadableScope;

    fn try_from(stored: Option<String>) -> Result<Self, UnreadableScope> {
        stored.map_or_else(|| Ok(Self::default()), |text| serde_json::from_str(&text).map_err(UnreadableScope))
    }
}

/// Whether `pattern`, in which `*` stands for any characters, is the form of `name`. Each part between
/// stars is taken where it occurs first, so the time is bounded: trying every place takes years for
/// a pattern with many stars.
pub fn is_like(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = name.strip_prefix(head).and_then(|left| left.strip_suffix(tail)) else { return false };
    middle.split('*').all(|part| left.split_once(part).map(|(_, behind)| left = behind).is_some())
}

/// Why something is outside a scope, in a sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfScope(String);

impl fmt::Display for OutOfScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The scopes of a principal; all of them apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Whether what a Wazuh manager of this name says is within all scopes.
    pub fn speak_for(&self, manager: &str) -> bool {
        let is_named = |scope: &Scope| scope.wazuh_managers.iter().any(|own| is_same_host(own, manager));
        self.all().iter().all(|scope| scope.wazuh_managers.is_empty() || is_named(scope))
    }

    /// Those of `scopes` that take something away.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().filter(|scope| !scope.is_unlimited()).collect())
    }

    /// The single scopes.
    pub fn all(&self) -> &[Scope] {
        &self.0
    }

    /// Whether all of them leave `right`. Nothing takes the right to know oneself.
    pub fn leave(&self, right: Right) -> bool {
        right == Right::Identify || self.0.iter().all(|scope| scope.rights.is_empty() || scope.rights.contains(&right))
    }

    /// Whether `agent` may be seen and acted on.
    pub fn take_agent(&self, agent: &dyn Selectable) -> bool {
        self.0.iter().all(|scope| scope.agents.selects(agent))
    }

    /// Whether the agents are limited.
    pub fn limit_agents(&self) -> bool {
        self.0.iter().any(|scope| !scope.agents.is_empty())
    }

    /// Whether the policy called `name` may be seen and changed.
    pub fn take_policy(&self, name: &str) -> bool {
        self.0
            .iter()
            .all(|scope| scope.policies.is_empty() || scope.policies.iter().any(|pattern| is_like(pattern, name)))
    }

    /// Whether the feed called `name` may be fetched.
    pub fn take_feed(&self, name: &str) -> bool {
        self.0.iter().all(|scope| scope.feeds.is_empty() || scope.feeds.iter().any(|own| own == name))
    }

    /// Whether one of them limits the policies.
    pub fn limit_policies(&self) -> bool {
        self.0.iter().any(|scope| !scope.policies.is_empty())
    }

    /// Refuses a change of what concerns all agents and policies.
    ///
    /// # Errors
    /// If a scope limits what may be changed; `what` names it.
    pub fn check_everything(&self, what: &str) -> Result<(), OutOfScope> {
        if self.0.iter().any(Scope::limits_changes) {
            return Err(OutOfScope(format!("{what}, and this principal has a scope (GET /v1/whoami shows it)")));
        }
        Ok(())
    }

    /// Refuses a response that is not within all scopes; `agents` are those that it acts on, and `None` stands
    /// for one that is not enrolled.
    ///
    /// # Errors
    /// What is outside.
    pub fn check_response<'a>(
        &self,
        action: &str,
        policy: Option<&str>,
        agents: impl IntoIterator<Item = Option<&'a Agent>>,
    ) -> Result<(), OutOfScope> {
        if let Some(scope) =
            self.0.iter().find(|scope| !scope.actions.is_empty() && !scope.actions.iter().any(|own| own == action))
        {
            return Err(OutOfScope(format!(
                "the action {action} is outside your scope, which has {}",
                scope.actions.join(", ")
            )));
        }
        if let Some(policy) = policy.filter(|policy| !self.take_policy(policy)) {
            return Err(OutOfScope(format!("the policy {policy} is outside your scope")));
        }
        let mut count = 0_usize;
        for agent in agents {
            count += 1;
            match agent {
                Some(agent) if self.take_agent(agent) => {}
                // What is outside is hidden, so it is not named.
                _ if self.limit_agents() => {
                    return Err(OutOfScope("some of its agents are outside your scope".to_owned()));
                }
                _ => {}
            }
        }
        match self.0.iter().filter_map(|scope| scope.agents_per_response).min() {
            Some(most) if count > most as usize => {
                Err(OutOfScope(format!("it has {count} agents, and your scope allows {most} in one response")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses an alert that speaks for others than the scopes name.
    ///
    /// # Errors
    /// What is outside.
    pub fn check_alert(&self, alert: &Alert, fleet: &Fleet) -> Result<(), Vec<Fault>> {
        let faults: Vec<Fault> = self.0.iter().flat_map(|scope| scope.alert_faults(alert, fleet)).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The least of the limits of responses within an hour.
    pub fn responses_per_hour(&self) -> Option<u32> {
        self.0.iter().filter_map(|scope| scope.responses_per_hour).min()
    }

    /// Refuses to write a policy that could do more than the scopes allow.
    ///
    /// # Errors
    /// What is outside, with its place in the policy.
    pub fn check_policy(&self, policy: &Policy, fleet: &Fleet) -> Result<(), Vec<Fault>> {
        let faults: Vec<Fault> = self.0.iter().flat_map(|scope| scope.policy_faults(policy, fleet)).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

impl Scope {
    fn alert_faults(&self, alert: &Alert, fleet: &Fleet) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !self.pipelines.is_empty() && !self.pipelines.contains(&alert.pipeline) {
            let (own, names) = (&alert.pipeline, self.pipelines.join(", "));
            faults
                .push(Fault::at("", format!("is of the pipeline {own:?}, and this key sends alerts of {names} only")));
        }
        let AlertAgent { manager, cluster, .. } = &alert.agent;
        let is_named = |name: &String| self.wazuh_managers.iter().any(|own| is_same_host(own, name));
        if !self.wazuh_managers.is_empty() && ![manager, cluster].into_iter().flatten().any(is_named) {
            let names = self.wazuh_managers.join(", ");
            faults.push(Fault::at("/manager/name", format!("is not one for which this key speaks ({names})")));
        }
        let is_within = |agent: &Arc<Agent>| self.agents.selects(&**agent);
        if !self.agents.is_empty() && !fleet.origin(&alert.agent).agent().is_some_and(is_within) {
            let detail = format!("is not an enrolled agent for which this key speaks ({})", self.agents);
            faults.push(Fault::at("/agent", detail));
        }
        faults
    }

    fn policy_faults(&self, policy: &Policy, fleet: &Fleet) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !self.policies.is_empty() && !self.policies.iter().any(|pattern| is_like(pattern, &policy.name)) {
            let detail = format!("is outside your scope, which has {}", self.policies.join(", "));
            faults.push(Fault::at("/name", detail));
        }
        let respond = &policy.respond;
        if !self.actions.is_empty() && !self.actions.contains(&respond.action) {
            let detail = format!("is outside your scope, which has {}", self.actions.join(", "));
            faults.push(Fault::at("/respond/action", detail));
        }
        if !self.agents.is_empty() {
            let detail = format!("can reach agents outside your scope: it must select {}", self.agents);
            match &respond.on {
                On::Origin => {
                    let outside =
                        policy.selectors.iter().enumerate().filter(|(_, own)| !own.agents.is_within(&self.agents));
                    faults
                        .extend(outside.map(|(index, _)| Fault::at(format!("/match/{index}/agents"), detail.clone())));
                }
                On::Select(selector) if selector.is_within(&self.agents) => {}
                On::Agents(words) => {
                    let is_outside =
                        |word: &&String| !fleet.called(word).is_some_and(|agent| self.agents.selects(&**agent));
                    if let Some(word) = words.iter().find(is_outside) {
                        faults.push(Fault::at(
                            "/respond/on/agents",
                            format!("{word:?} is outside your scope: {}", self.agents),
                        ));
                    }
                }
                On::Select(_) | On::All | On::Server => faults.push(Fault::at("/respond/on", detail)),
            }
        }
        let limits = policy.guardrails.limits.as_ref();
        if let (Some(most), false) = (self.agents_per_response, matches!(respond.on, On::Origin | On::Server))
            && limits.and_then(|limits| limits.agents_per_response).is_none_or(|own| own > most)
        {
            let detail = format!("must be set, to at most {most}, which your scope allows in one response");
            faults.push(Fault::at("/limits/agents_per_response", detail));
        }
        if let Some(most) = self.responses_per_hour
            && limits.and_then(|limits| limits.responses).is_none_or(|rate| rate.most_per_hour() > u64::from(most))
        {
            let detail = format!("must be set, to at most {most}/1h, which your scope allows");
            faults.push(Fault::at("/limits/responses", detail));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_with_many_stars_is_judged_at_once() {
        let pattern = format!("{}b", "*a".repeat(2000));
        assert!(!is_like(&pattern, &"a".repeat(64)));
        assert!(is_like(&"*".repeat(4096), "block-ssh"));
    }

    /// Tries every place for every star: too slow for use, and plainly right.
    fn by_trying(pattern: &str, name: &str) -> bool {
        match pattern.split_once('*') {
            None => pattern == name,
            Some((head, rest)) => {
                name.strip_prefix(head).is_some_and(|tail| (0..=tail.len()).any(|at| by_trying(rest, &tail[at..])))
            }
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_any_characters(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            prop_assert_eq!(is_like(&pattern, &name), by_trying(&pattern, &name));
        }
    }
}
