//! An agent as the manager knows it, and the fleet: all of them, with the lookups that a decision needs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use riposte_protocol::message::Capability;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::action::Action;
use super::alert::AlertAgent;
use super::labels::WAZUH_ID;
use super::policy::On;

/// The longest agent name, in bytes: that of a DNS name.
const MAX_NAME_BYTES: usize = 253;

/// Wazuh's id of its manager's own host.
const SERVER: &str = "000";

/// One enrolled agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The key it signs its tokens with.
    pub public_key: VerifyingKey,
    /// What people and enrolment tokens said of it.
    pub labels: BTreeMap<String, String>,
    /// What it says it can do.
    pub capabilities: Vec<Capability>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

impl Agent {
    /// Whether it carries all of `labels`.
    pub fn carries(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }

    /// Why it says that it cannot run `action`, if it says so: by the action's name, or that of its program. An agent that
    /// mentions neither may still run it: it is asked, and can refuse.
    pub fn cannot(&self, action: &Action) -> Option<&str> {
        let named = |name: &str| self.capabilities.iter().find(|capability| capability.action == name);
        let capability = named(&action.name).or_else(|| named(&action.capability()))?;
        (!capability.available).then(|| capability.reason.as_deref().unwrap_or("not available there"))
    }
}

/// Why an agent does not believe an order: the word on the wire, and what it means.
const REASONS: [(&str, &str); 8] = [
    (
        "unknown_key",
        "signed with a key that the agent does not know: enrol it again, or put the right signing.key back",
    ),
    ("signature", "the signature is wrong: something changes them on the way, or forges them"),
    ("audience", "addressed to another agent: two hosts share an identity, or something replays them"),
    ("issuer", "not issued by a manager"),
    ("kind", "of another kind"),
    ("malformed", "malformed"),
    ("expired", "expired before they arrived: compare the clocks of the agent and of the manager"),
    ("future", "dated in the future: compare the clocks of the agent and of the manager"),
];

/// The word for a reason that an agent gives; `other` for one that is not known here.
pub fn known_reason(word: &str) -> &'static str {
    REASONS.iter().find(|(known, _)| *known == word).map_or("other", |(known, _)| known)
}

/// What a reason means.
pub fn reason_words(word: &str) -> &'static str {
    REASONS
        .iter()
        .find(|(known, _)| *known == word)
        .map_or("for a reason that this version does not know", |(_, what)| what)
}

/// Whether `name` can name an agent: what a host name or a Wazuh agent name may hold, nothing that could act up in
/// a log or a page.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Every agent that is not revoked, with the lookups a decision needs. Immutable, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    by_id: HashMap<Uuid, Arc<Agent>>,
    by_wazuh_id: HashMap<String, Uuid>,
    by_name: HashMap<String, Uuid>,
    revoked: HashMap<Uuid, Timestamp>,
}

impl Fleet {
    /// Builds the lookups. Among agents that share a name or a Wazuh id the one enrolled last wins.
    pub fn new(mut agents: Vec<Agent>) -> Self {
        let mut fleet = Self::default();
        agents.sort_by_key(|agent| agent.id);
        for agent in agents {
            if let Some(at) = agent.revoked_at {
                fleet.revoked.insert(agent.id, at);
                continue;
            }
            if let Some(wazuh_id) = agent.labels.get(WAZUH_ID) {
                fleet.by_wazuh_id.insert(wazuh_id.clone(), agent.id);
            }
            fleet.by_name.insert(agent.name.clone(), agent.id);
            fleet.by_id.insert(agent.id, Arc::new(agent));
        }
        fleet
    }

    /// The same fleet with `agent` added, or in the place of what it was.
    #[must_use]
    pub fn with(&self, agent: Agent) -> Self {
        let mut fleet = self.clone();
        if let Some(wazuh_id) = agent.labels.get(WAZUH_ID) {
            fleet.by_wazuh_id.insert(wazuh_id.clone(), agent.id);
        }
        fleet.by_name.insert(agent.name.clone(), agent.id);
        fleet.by_id.insert(agent.id, Arc::new(agent));
        fleet
    }

    /// The agent of that id.
    pub fn get(&self, id: Uuid) -> Option<&Arc<Agent>> {
        self.by_id.get(&id)
    }

    /// Whether the agent of that id was revoked.
    pub fn is_revoked(&self, id: Uuid) -> bool {
        self.revoked.contains_key(&id)
    }

    /// Every agent that is not revoked, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.by_id.values()
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The agent an alert comes from: the one whose label `wazuh_id` is the alert's agent id, else the one of that name.
    pub fn origin(&self, agent: &AlertAgent) -> Option<&Arc<Agent>> {
        let by_wazuh_id = agent.id.as_ref().and_then(|id| self.by_wazuh_id.get(id));
        by_wazuh_id
            .or_else(|| agent.name.as_ref().and_then(|name| self.by_name.get(name)))
            .and_then(|id| self.by_id.get(id))
    }

    /// The agent that a person calls `word`: its id or its name.
    pub fn called(&self, word: &str) -> Option<&Arc<Agent>> {
        let by_id = word.parse().ok().and_then(|id: Uuid| self.by_id.get(&id));
        by_id.or_else(|| self.by_name.get(word).and_then(|id| self.by_id.get(id)))
    }

    /// The agents that `on` names, by id, ascending; `origin` is the alert's.
    pub fn select(&self, on: &On, origin: Option<&Arc<Agent>>) -> Vec<Arc<Agent>> {
        let mut agents: Vec<Arc<Agent>> = match on {
            On::Origin => origin.cloned().into_iter().collect(),
            On::All => self.by_id.values().cloned().collect(),
            On::Server => self.by_wazuh_id.get(SERVER).and_then(|id| self.by_id.get(id)).cloned().into_iter().collect(),
            On::Agents(words) => words.iter().filter_map(|word| self.called(word)).cloned().collect(),
            On::Labels(labels) => self.by_id.values().filter(|agent| agent.carries(labels)).cloned().collect(),
        };
        agents.sort_by_key(|agent| agent.id);
        agents.dedup_by_key(|agent| agent.id);
        agents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: u128, name: &str, labels: &[(&str, &str)]) -> Agent {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        Agent {
            id: Uuid::from_u128(n),
            name: name.into(),
            public_key: key.verifying_key(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            capabilities: vec![],
            revoked_at: None,
        }
    }

    fn alert_agent(id: &str, name: &str) -> AlertAgent {
        AlertAgent { id: Some(id.into()), name: Some(name.into()) }
    }

    #[test]
    fn the_origin_is_found_by_wazuh_id_and_then_by_name() {
        let fleet = Fleet::new(vec![agent(1, "web-01", &[("wazuh_id", "005")]), agent(2, "web-02", &[])]);
        let origin = |id: &str, name: &str| fleet.origin(&alert_agent(id, name)).map(|agent| agent.name.clone());
        assert_eq!(origin("005", "web-02").as_deref(), Some("web-01"));
        assert_eq!(origin("006", "web-02").as_deref(), Some("web-02"));
        assert_eq!(origin("006", "web-03"), None);
    }

    #[test]
    fn a_revoked_agent_is_nobody() {
        let revoked =
            Agent { revoked_at: Some(Timestamp::from_millis(1)), ..agent(1, "web-01", &[("wazuh_id", "005")]) };
        let fleet = Fleet::new(vec![revoked]);
        assert!(fleet.origin(&alert_agent("005", "web-01")).is_none() && fleet.select(&On::All, None).is_empty());
        assert!(fleet.is_revoked(Uuid::from_u128(1)));
    }

    #[test]
    fn agents_are_selected_once_each() {
        let fleet = Fleet::new(vec![
            agent(1, "a", &[("env", "prod")]),
            agent(2, "b", &[("env", "prod"), ("role", "web")]),
            agent(3, "c", &[]),
        ]);
        let select = |on: On| fleet.select(&on, None).iter().map(|agent| agent.name.clone()).collect::<Vec<_>>();
        assert_eq!(select(On::All), ["a", "b", "c"]);
        assert_eq!(select(On::Agents(vec!["c".into(), Uuid::from_u128(3).to_string(), "nobody".into()])), ["c"]);
        assert_eq!(select(On::Labels([("env".to_owned(), "prod".to_owned())].into())), ["a", "b"]);
    }
}
