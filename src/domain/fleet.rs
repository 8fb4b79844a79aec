//! All agents with the lookups for decisions, and the origin of an alert. A Wazuh id alone does not
//! identify an agent: every Wazuh manager counts from 001, and reinstalled hosts get new ids. So
//! the id is compared with the name, and a contradiction prevents any response.

use std::collections::HashMap;
use std::sync::Arc;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::agent::Agent;
use super::agent_selector::AgentSelector;
use super::alert::AlertAgent;
use super::host_name::{HostName, is_same_host};
use super::policy::On;

/// Wazuh's id of the manager's own host, which is never reassigned.
const SERVER: &str = "000";
/// Maximum number of agents named in a contradiction.
const MAX_NAMED: usize = 4;

/// Agents by a word that several may share. Immutable lists, shared by copies of the fleet.
type Words = HashMap<Arc<str>, Arc<[Uuid]>>;

/// The enrolled agent that an alert comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// This agent.
    Agent(Arc<Agent>),
    /// No enrolled agent.
    Unknown,
    /// No single agent matches the alert; the sentence says which contradict.
    Ambiguous(String),
}

impl Origin {
    /// The agent, if it is one.
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        if let Self::Agent(agent) = self { Some(agent) } else { None }
    }
}

/// End of a contradiction's text, for readers outside `riposte doctor`, which names the command.
pub const SEE_DOCTOR: &str = "; `riposte doctor` says how to fix the labels";

/// All agents except revoked ones, with lookups. Immutable, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    by_id: HashMap<Uuid, Arc<Agent>>,
    by_wazuh_id: Words,
    by_full_name: Words,
    by_short_name: Words,
    revoked: HashMap<Uuid, Timestamp>,
}

impl Fleet {
    /// Builds the lookups.
    pub fn new(mut agents: Vec<Agent>) -> Self {
        let mut fleet = Self::default();
        agents.sort_by_key(|agent| agent.id);
        for agent in agents {
            match agent.revoked_at {
                Some(at) => drop(fleet.revoked.insert(agent.id, at)),
                None => fleet.add(agent),
            }
        }
        fleet
    }

    /// A copy with `agent` added or replaced; a replacement has the same labels.
    #[must_use]
    pub fn with(&self, agent: Agent) -> Self {
        let mut fleet = self.clone();
        fleet.add(agent);
        fleet
    }

    fn add(&mut self, agent: Agent) {
        let add = |words: &mut Words, word: &str| {
            let known = words.get(word).map_or(&[][..], |ids| ids);
            if !known.contains(&agent.id) {
                let all: Vec<Uuid> = known.iter().copied().chain([agent.id]).collect();
                words.insert(word.into(), all.into());
            }
        };
        if let Some(wazuh_id) = agent.wazuh_id() {
            add(&mut self.by_wazuh_id, wazuh_id);
        }
        for name in [&agent.name, agent.wazuh_name()] {
            let name = HostName::new(name);
            add(&mut self.by_full_name, name.full());
            add(&mut self.by_short_name, name.short());
        }
        self.by_id.insert(agent.id, Arc::new(agent));
    }

    /// The agent with that id.
    pub fn get(&self, id: Uuid) -> Option<&Arc<Agent>> {
        self.by_id.get(&id)
    }

    /// Whether the agent was revoked.
    pub fn is_revoked(&self, id: Uuid) -> bool {
        self.revoked.contains_key(&id)
    }

    /// All agents except revoked ones, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.by_id.values()
    }

    /// Whether the host of any Wazuh manager is enrolled.
    pub fn has_server(&self) -> bool {
        self.all_of(&self.by_wazuh_id, SERVER).next().is_some()
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the fleet is empty.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn all_of<'a>(&'a self, words: &'a Words, word: &str) -> impl Iterator<Item = &'a Arc<Agent>> {
        words.get(word).into_iter().flat_map(|ids| ids.iter()).filter_map(|id| self.by_id.get(id))
    }

    /// Agents that match a name by `of`: exact matches, or else those whose short and full host
    /// names correspond.
    fn named<'a>(&'a self, name: &str, of: impl Fn(&Agent) -> &str) -> Vec<&'a Arc<Agent>> {
        let name = HostName::new(name);
        let exact = self.all_of(&self.by_full_name, name.full());
        let exact: Vec<_> = exact.filter(|agent| HostName::new(of(agent)).full() == name.full()).collect();
        if !exact.is_empty() {
            return exact;
        }
        let alike = self.all_of(&self.by_short_name, name.short());
        alike.filter(|agent| HostName::new(of(agent)).is_same(&name)).collect()
    }

    /// The origin of an alert: the agent with the alert's id at its Wazuh manager *and* its name,
    /// or else the one with that name. Never an agent with a contradicting name, except the Wazuh
    /// manager's own host if the label `wazuh_manager` confirms it.
    pub fn origin(&self, alert: &AlertAgent) -> Origin {
        let name = alert.name.as_deref().filter(|name| !name.trim().is_empty());
        let holders: Vec<_> = alert.id.iter().flat_map(|id| self.all_of(&self.by_wazuh_id, id)).collect();
        let near: Vec<_> = holders.iter().copied().filter(|agent| fits(agent, alert) != Fit::Not).collect();
        let agrees = |agent: &Agent| match name {
            Some(name) => is_same_host(agent.wazuh_name(), name),
            None => true,
        };
        let is_server = |agent: &Agent| alert.id.as_deref() == Some(SERVER) && fits(agent, alert) == Fit::Certain;
        let mut agreeing: Vec<_> = near.iter().copied().filter(|agent| agrees(agent) || is_server(agent)).collect();
        let certain = |agent: &&Arc<Agent>| fits(agent, alert) == Fit::Certain;
        if agreeing.iter().any(certain) {
            agreeing.retain(certain);
        }
        match (agreeing.as_slice(), name) {
            ([only], _) => return Origin::Agent(Arc::clone(only)),
            ([], _) => {}
            (several, Some(name)) => {
                let exact: Vec<_> = several
                    .iter()
                    .filter(|agent| HostName::new(agent.wazuh_name()).full() == HostName::new(name).full())
                    .collect();
                if let [only] = exact.as_slice() {
                    return Origin::Agent(Arc::clone(only));
                }
                return Origin::Ambiguous(several_sentence(alert, several));
            }
            (several, None) => return Origin::Ambiguous(several_sentence(alert, several)),
        }
        let Some(name) = name else { return Origin::Unknown };
        let named = self.named(name, Agent::wazuh_name);
        let possible: Vec<_> = named.iter().copied().filter(|agent| fits(agent, alert) != Fit::Not).collect();
        match possible.as_slice() {
            // No agent has the number, so the name decides.
            [only] if near.is_empty() || only.wazuh_id().is_none() => Origin::Agent(Arc::clone(only)),
            [] if near.is_empty() && named.is_empty() => Origin::Unknown,
            [] => {
                let all: Vec<_> = near.iter().chain(&named).copied().collect();
                Origin::Ambiguous(contradiction(alert, &all))
            }
            several => {
                let all: Vec<_> = near.iter().chain(several).copied().collect();
                Origin::Ambiguous(contradiction(alert, &all))
            }
        }
    }

    /// The agent on the Wazuh manager's own host. Agents whose label names another manager than the
    /// alert are excluded; several remaining ones are ambiguous.
    fn server(&self, alert: Option<&AlertAgent>) -> Origin {
        let mut servers: Vec<_> = self.all_of(&self.by_wazuh_id, SERVER).collect();
        if let Some(alert) = alert {
            servers.retain(|agent| fits(agent, alert) != Fit::Not);
            let certain = |agent: &&Arc<Agent>| fits(agent, alert) == Fit::Certain;
            if servers.iter().any(certain) {
                servers.retain(certain);
            }
        }
        match servers.as_slice() {
            [] => Origin::Unknown,
            [only] => Origin::Agent(Arc::clone(only)),
            several => {
                let names = named_list(several);
                Origin::Ambiguous(format!(
                    "{names} all have the Wazuh id 000; the label wazuh_manager tells them apart"
                ))
            }
        }
    }

    /// Finds an agent by id or name, or by the short or full form of its name if unambiguous.
    pub fn called(&self, word: &str) -> Option<&Arc<Agent>> {
        let by_id = word.parse().ok().and_then(|id: Uuid| self.by_id.get(&id));
        by_id.or_else(|| match self.named(word, |agent| &agent.name).as_slice() {
            [only] => Some(*only),
            several => several.iter().find(|agent| agent.name == word).copied(),
        })
    }

    /// The agents that `selector` selects.
    pub fn selected(&self, selector: &AgentSelector) -> impl Iterator<Item = &Arc<Agent>> {
        self.by_id.values().filter(|agent| selector.selects(&***agent))
    }

    /// Ids of the agents selected by `on`, ascending; `origin` is where `alert` comes from.
    ///
    /// # Errors
    /// Why the agent is ambiguous.
    pub fn select(&self, on: &On, origin: &Origin, alert: Option<&AlertAgent>) -> Result<Vec<Arc<Agent>>, String> {
        let one = |origin: Origin| match origin {
            Origin::Agent(agent) => Ok(vec![agent]),
            Origin::Unknown => Ok(Vec::new()),
            Origin::Ambiguous(why) => Err(why),
        };
        let mut agents: Vec<Arc<Agent>> = match on {
            On::Origin => one(origin.clone())?,
            On::All => self.by_id.values().cloned().collect(),
            On::Server => one(self.server(alert))?,
            On::Agents(words) => words.iter().filter_map(|word| self.called(word)).cloned().collect(),
            On::Select(selector) => self.selected(selector).cloned().collect(),
        };
        agents.sort_by_key(|agent| agent.id);
        agents.dedup_by_key(|agent| agent.id);
        Ok(agents)
    }
}

/// How an agent's label `wazuh_manager` relates to the alert's Wazuh manager.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Both name the same manager or cluster.
    Certain,
    /// One of them is missing.
    Unsaid,
    /// They name different ones.
    Not,
}

fn fits(agent: &Agent, alert: &AlertAgent) -> Fit {
    let mut said = [&alert.manager, &alert.cluster].into_iter().flatten().peekable();
    match agent.wazuh_manager() {
        Some(_) if said.peek().is_none() => Fit::Unsaid,
        None => Fit::Unsaid,
        Some(manager) if said.any(|name| is_same_host(manager, name)) => Fit::Certain,
        Some(_) => Fit::Not,
    }
}

/// Escapes the alert's text, which an attacker may control.
fn said(alert: &AlertAgent) -> String {
    let word = |text: &String| text.escape_debug().take(256).collect::<String>();
    let agent = match (&alert.id, &alert.name) {
        (Some(id), Some(name)) => format!("agent {} {}", word(id), word(name)),
        (Some(one), None) | (None, Some(one)) => format!("agent {}", word(one)),
        (None, None) => "no agent".to_owned(),
    };
    match alert.manager.as_ref().or(alert.cluster.as_ref()) {
        Some(manager) => format!("the alert names {agent} of {}", word(manager)),
        None => format!("the alert names {agent}"),
    }
}

fn several_sentence(alert: &AlertAgent, agents: &[&Arc<Agent>]) -> String {
    let names = named_list(agents);
    format!("{}, which can be {names}; the labels wazuh_manager and wazuh_id tell them apart", said(alert))
}

fn contradiction(alert: &AlertAgent, agents: &[&Arc<Agent>]) -> String {
    let names = named_list(agents);
    format!("{}, and here there is {names}{SEE_DOCTOR}", said(alert))
}

/// Formats agents as `old-host (wazuh_id 007)`, and so on.
fn named_list(agents: &[&Arc<Agent>]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut sorted: Vec<_> = agents.to_vec();
    sorted.sort_by_key(|agent| agent.id);
    sorted.dedup_by_key(|agent| agent.id);
    for agent in sorted.iter().take(MAX_NAMED) {
        let mut labels = Vec::new();
        labels.extend(agent.wazuh_id().map(|id| format!("wazuh_id {id}")));
        labels.extend(agent.wazuh_manager().map(|manager| format!("wazuh_manager {manager}")));
        if agent.wazuh_name() != agent.name {
            labels.push(format!("wazuh_name {}", agent.wazuh_name()));
        }
        let labels = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
        words.push(format!("{}{labels}", agent.name));
    }
    if sorted.len() > MAX_NAMED {
        words.push(format!("{} more", sorted.len() - MAX_NAMED));
    }
    words.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agent(n: u128, name: &str, labels: &[(&str, &str)]) -> Agent {
        let key = riposte_protocol::key::SigningKey::from_seed(&[7; 32]).unwrap();
        Agent {
            id: Uuid::from_u128(n),
            name: name.into(),
            key: crate::domain::agent_key::AgentKey::first(key.verifying_key(), Timestamp::from_millis(0)),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            version: String::new(),
            capabilities: vec![],
            revoked_at: None,
        }
    }

    /// Parses `id name manager cluster`, with `-` for none.
    fn alert(words: &str) -> AlertAgent {
        let mut words = words.split(' ').map(|word| (word != "-").then(|| word.to_owned()));
        let mut next = || words.next().flatten();
        AlertAgent { id: next(), name: next(), manager: next(), cluster: next() }
    }

    fn origin(fleet: &Fleet, words: &str) -> String {
        match fleet.origin(&alert(words)) {
            Origin::Agent(agent) => agent.name.clone(),
            Origin::Unknown => "unknown".into(),
            Origin::Ambiguous(why) => format!("ambiguous: {why}"),
        }
    }

    #[test]
    fn an_origin_has_the_number_and_the_name() {
        let fleet = Fleet::new(vec![
            agent(1, "acme-web", &[("wazuh_id", "001")]),
            agent(2, "globex-db", &[("wazuh_id", "001")]),
            agent(3, "old-host", &[("wazuh_id", "007")]),
            agent(4, "plain", &[]),
            agent(5, "riposte-5", &[("wazuh_id", "005"), ("wazuh_name", "web-05")]),
        ]);
        assert_eq!(origin(&fleet, "001 acme-web wazuh.manager"), "acme-web");
        assert_eq!(origin(&fleet, "001 globex-db wazuh.manager"), "globex-db");
        let new = origin(&fleet, "007 new-host wm");
        assert!(new.contains("007 new-host") && new.contains("old-host (wazuh_id 007)"), "{new}");
        assert!(origin(&fleet, "001 third").starts_with("ambiguous"));
        assert!(origin(&fleet, "001 -").starts_with("ambiguous"));
        assert_eq!(origin(&fleet, "007 -"), "old-host");
        assert_eq!(origin(&fleet, "007 plain"), "plain", "the name decides where it contradicts the number");
        assert!(origin(&fleet, "007 acme-web").starts_with("ambiguous"), "both say that they are another one");
        assert_eq!(origin(&fleet, "009 plain"), "plain");
        assert_eq!(origin(&fleet, "- PLAIN.corp.example"), "plain");
        assert_eq!(origin(&fleet, "005 WEB-05"), "riposte-5");
        assert!(origin(&fleet, "005 riposte-5").starts_with("ambiguous"), "wazuh_name takes the name's place");
        assert_eq!(origin(&fleet, "012 elsewhere"), "unknown");
        assert_eq!(origin(&fleet, "- -"), "unknown");
    }

    #[test]
    fn agents_of_different_wazuh_managers_are_distinguished() {
        let at = |id: &'static str, manager: &'static str| [("wazuh_id", id), ("wazuh_manager", manager)];
        let fleet = Fleet::new(vec![
            agent(1, "web1.acme.example", &at("001", "acme")),
            agent(2, "web1.globex.example", &at("001", "globex")),
            agent(3, "siem-a", &at("000", "acme")),
            agent(4, "siem-b", &at("000", "globex")),
            agent(5, "lone", &at("009", "globex")),
        ]);
        assert_eq!(origin(&fleet, "001 web1 ACME"), "web1.acme.example");
        assert_eq!(origin(&fleet, "001 web1 wazuh.manager globex"), "web1.globex.example");
        assert!(origin(&fleet, "001 web1 other").contains("wazuh_manager acme"));
        assert!(origin(&fleet, "001 web1").starts_with("ambiguous"));
        assert_eq!(origin(&fleet, "001 web1.acme.example"), "web1.acme.example");
        assert!(origin(&fleet, "009 lone acme").starts_with("ambiguous"), "the name belongs to another manager's host");
        assert_eq!(origin(&fleet, "000 wazuh.manager globex"), "siem-b", "that number is never given anew");
        let server = |words: &str| {
            let alert = alert(words);
            let agents = fleet.select(&On::Server, &Origin::Unknown, Some(&alert));
            agents.map(|agents| agents.iter().map(|agent| agent.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(server("001 web1 acme").unwrap(), ["siem-a"]);
        assert_eq!(server("001 web1 other").unwrap(), Vec::<String>::new());
        assert!(server("001 web1").unwrap_err().contains("siem-a (wazuh_id 000, wazuh_manager acme) and siem-b"));
        let single = Fleet::new(vec![agent(1, "siem", &[("wazuh_id", "000")])]);
        let agents = single.select(&On::Server, &Origin::Unknown, Some(&alert("001 web1 any"))).unwrap();
        assert_eq!(agents.len(), 1, "the only one, and nothing says that it belongs elsewhere");
        assert_eq!(origin(&single, "000 siem.corp.example any"), "siem");
        assert!(origin(&single, "000 other any").starts_with("ambiguous"));
    }

    #[test]
    fn a_revoked_agent_is_unknown() {
        let revoked =
            Agent { revoked_at: Some(Timestamp::from_millis(1)), ..agent(1, "web-01", &[("wazuh_id", "005")]) };
        let fleet = Fleet::new(vec![revoked]);
        assert_eq!(origin(&fleet, "005 web-01"), "unknown");
        assert!(fleet.select(&On::All, &Origin::Unknown, None).unwrap().is_empty());
        assert!(fleet.is_revoked(Uuid::from_u128(1)));
    }

    #[test]
    fn agents_are_selected_once_each() {
        let fleet = Fleet::new(vec![
            agent(1, "a", &[("env", "prod")]),
            agent(2, "b.corp.example", &[("env", "prod"), ("role", "web")]),
            agent(3, "c", &[]),
        ]);
        let select = |on: On| {
            let agents = fleet.select(&on, &Origin::Unknown, None).unwrap();
            agents.iter().map(|agent| agent.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(select(On::All), ["a", "b.corp.example", "c"]);
        assert_eq!(
            select(On::Agents(vec!["c".into(), Uuid::from_u128(3).to_string(), "absent".into(), "B".into()])),
            ["b.corp.example", "c"]
        );
        assert_eq!(
            select(On::Select(AgentSelector::parse(&serde_json::json!({"labels": {"env": "prod"}}), "").unwrap())),
            ["a", "b.corp.example"]
        );
    }

    #[test]
    fn an_enrolled_agent_is_found_at_once_and_once() {
        let fleet = Fleet::new(vec![agent(1, "a", &[("wazuh_id", "001")])]);
        let fleet = fleet.with(agent(2, "b", &[("wazuh_id", "002")])).with(agent(2, "b", &[("wazuh_id", "002")]));
        assert_eq!(origin(&fleet, "002 b"), "b");
        assert_eq!(fleet.len(), 2);
    }

    fn word(words: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
        prop::option::of(prop::sample::select(words).prop_map(str::to_owned))
    }

    proptest! {
        /// A response never acts on a host that the alert does not name.
        #[test]
        fn an_origin_never_contradicts_the_alerts_name(
            agents in prop::collection::vec((
                prop::sample::select(vec!["web1", "WEB1.a.example", "web1.b.example", "db", "db.a.example", "10.0.0.1"]),
                word(&["000", "001", "002"]), word(&["m1", "m2"]), word(&["web1", "db", "x"]),
            ), 0..6),
            id in word(&["000", "001", "002", "003"]),
            name in word(&["web1", "Web1.A.example", "db", "x", "10.0.0.1", "10", " "]),
            manager in word(&["m1", "M2", "m3"]),
        ) {
            let agents = agents.iter().enumerate().map(|(n, (name, wazuh_id, manager, wazuh_name))| {
                let mut labels = Vec::new();
                labels.extend(wazuh_id.as_deref().map(|id| ("wazuh_id", id)));
                labels.extend(manager.as_deref().map(|manager| ("wazuh_manager", manager)));
                labels.extend(wazuh_name.as_deref().map(|name| ("wazuh_name", name)));
                agent(n as u128 + 1, name, &labels)
            });
            let agents: Vec<Agent> = agents.collect();
            let fleet = Fleet::new(agents.clone());
            let alert = AlertAgent { id: id.clone(), name: name.clone(), manager: manager.clone(), cluster: None };
            if let Origin::Agent(found) = fleet.origin(&alert) {
                let named = name.as_ref().filter(|name| !name.trim().is_empty());
                let is_server = id.as_deref() == Some("000") && found.wazuh_manager().is_some() && manager.is_some();
                if let Some(name) = named {
                    prop_assert!(is_server || is_same_host(found.wazuh_name(), name), "{found:?}");
                }
                if let (Some(said), Some(label)) = (&manager, found.wazuh_manager()) {
                    prop_assert!(is_same_host(said, label), "{found:?}");
                }
                prop_assert!(named.is_some() || found.wazuh_id() == id.as_deref(), "{found:?}");
            }
        }
    }
}
