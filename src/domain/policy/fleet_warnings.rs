//! Warnings about a policy and the currently enrolled agents: unused labels, unknown names, an
//! unsupported action, and a lasting block at a noisy level. These are not faults, because the
//! agents may enrol later: the policy is saved, and the warning shown.

use super::definition::{On, Policy, Selector};
use crate::domain::action::Action;
use crate::domain::agent::Agent;
use crate::domain::agent_selector::AgentSelector;
use crate::domain::fault::Fault;
use crate::domain::fleet::{Fleet, Origin};

/// Highest level of ordinary events in Wazuh's rules; a block without an end at this level is a
/// mistake.
const NOISE_LEVEL: u8 = 5;

impl Policy {
    /// Warnings about the currently enrolled agents: unused labels, unknown names, unsupported
    /// `action`.
    pub fn fleet_warnings(&self, action: &Action, fleet: &Fleet) -> Vec<Fault> {
        let mut warnings = Vec::new();
        for (index, selector) in self.selectors.iter().enumerate() {
            // An id may be one of the pipeline, of a host without an agent.
            let labels = AgentSelector { labels: selector.agents.labels.clone(), ..AgentSelector::default() };
            if selects_none(&labels, fleet) {
                let detail = format!("no enrolled agent carries {labels}, so the selector matches no alert yet");
                warnings.push(Fault::at(format!("/match/{index}/agents/labels"), detail));
            }
        }
        match &self.respond.on {
            On::Select(selector) if selects_none(selector, fleet) => {
                let labels = AgentSelector { labels: selector.labels.clone(), ..AgentSelector::default() };
                let (pointer, verb) = if labels == *selector { ("/labels", "carries") } else { ("", "is") };
                let detail = format!("no enrolled agent {verb} {selector}, so responses reach no agent yet");
                warnings.push(Fault::at(format!("/respond/on{pointer}"), detail));
            }
            On::Agents(words) => {
                let unknown = words.iter().enumerate().filter(|(_, word)| fleet.called(word).is_none());
                warnings.extend(unknown.map(|(index, word)| {
                    let is_revoked = word.parse().is_ok_and(|id| fleet.is_revoked(id));
                    let what = if is_revoked {
                        "is an agent that was revoked"
                    } else {
                        "is not the id or name of an enrolled agent"
                    };
                    Fault::at(format!("/respond/on/agents/{index}"), format!("{what}: no response reaches it"))
                }));
            }
            On::Server if !fleet.has_server() => {
                let detail =
                    "is server, and no enrolled agent has the label wazuh_id 000, so responses reach no agent yet";
                warnings.push(Fault::at("/respond/on", detail));
            }
            On::Origin | On::All | On::Server | On::Select(_) => {}
        }
        warnings.extend(unable(self, action, fleet));
        warnings.extend(lasting(self, action));
        warnings
    }
}

/// Whether the selector has conditions that no agent meets.
fn selects_none(selector: &AgentSelector, fleet: &Fleet) -> bool {
    !selector.is_empty() && fleet.selected(selector).next().is_none()
}

/// That every agent in question says it cannot run the action, offers no such program, or only observes. An agent that says
/// nothing is asked when it comes to it.
fn unable(policy: &Policy, action: &Action, fleet: &Fleet) -> Option<Fault> {
    let agents = match &policy.respond.on {
        On::Origin => fleet.select(&On::All, &Origin::Unknown, None),
        on => fleet.select(on, &Origin::Unknown, None),
    };
    // With several Wazuh managers, only an alert tells which is meant.
    let agents = agents.unwrap_or_default();
    let first = agents.first()?;
    let all = |is_so: fn(&Agent, &Action) -> bool| agents.iter().all(|agent| is_so(agent, action));
    if all(Agent::lacks_program) {
        let program = action.script.as_ref().map_or("", |script| &script.executable);
        let detail = format!(
            "runs the program {program}, which none of the agents in question has in its folder for programs: put it there, for \
             root alone to change"
        );
        return Some(Fault::at("/respond/action", detail));
    }
    if all(Agent::only_observes) {
        let detail = "only observing agents can be meant (they run with observe = true), so nothing comes into force";
        return Some(Fault::at("/respond/action", detail));
    }
    if !all(|agent, action| agent.cannot(action).is_some()) {
        return None;
    }
    let (name, reason) = (&first.name, first.cannot(action)?);
    let who = if agents.len() == 1 { "the only agent in question" } else { "none of the agents in question" };
    let verb = if agents.len() == 1 { "cannot" } else { "can" };
    Some(Fault::at("/respond/action", format!("{who} {verb} run {}; {name} says: {reason}", action.name)))
}

/// Warns about a lasting effect at a low level.
fn lasting(policy: &Policy, action: &Action) -> Option<Fault> {
    let is_noise = |selector: &Selector| {
        selector.rule_ids.is_empty()
            && selector.rule_groups.is_empty()
            && selector.wazuh_rules_group.is_none()
            && selector.min_level.is_some_and(|level| level <= NOISE_LEVEL)
    };
    // An action without a change on the host may last: it blocks nothing.
    let is_harmless = !action.undoable || action.name == "log-only";
    if policy.respond.duration.is_some() || is_harmless || !policy.selectors.iter().any(is_noise) {
        return None;
    }
    let detail = format!(
        "is missing: alerts of level {NOISE_LEVEL} and below are ordinary events, and what they bring into force would stay \
         until it is lifted by hand; write for: 10m"
    );
    Some(Fault::at("/respond/for", detail))
}

#[cfg(test)]
mod tests {
    use riposte_protocol::message::Capability;
    use riposte_protocol::time::Timestamp;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::domain::action::Catalogue;

    fn agent(n: u128, name: &str, labels: &[(&str, &str)], cannot: &[&str]) -> Agent {
        let unable = |action: &&str| Capability {
            action: (*action).to_owned(),
            available: false,
            reason: Some("nft is missing".to_owned()),
        };
        Agent {
            id: Uuid::from_u128(n),
            name: name.into(),
            key: crate::domain::agent_key::AgentKey::first(
                riposte_protocol::key::SigningKey::from_seed(&[7; 32]).unwrap().verifying_key(),
                riposte_protocol::time::Timestamp::from_millis(0),
            ),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            version: String::new(),
            capabilities: cannot.iter().map(unable).collect(),
            revoked_at: None,
        }
    }

    fn warnings(document: &Value, agents: Vec<Agent>) -> Vec<String> {
        let mut whole = json!({"name": "a", "match": [{"min_level": 12}], "respond": {"action": "firewall-drop"}});
        for (key, value) in document.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let policy = Policy::parse(&whole, Catalogue::built_in()).unwrap();
        let action = Catalogue::built_in().find(&policy.respond.action).unwrap();
        let found = policy.fleet_warnings(action, &Fleet::new(agents));
        found.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
    }

    #[test]
    fn unknown_labels_and_names_cause_warnings() {
        let fleet = || vec![agent(1, "web-01", &[("env", "prod")], &[])];
        let on = |on: Value| json!({"respond": {"action": "firewall-drop", "on": on, "for": "10m"}});
        assert!(warnings(&on(json!({"labels": {"env": "prod"}})), fleet()).is_empty());
        assert_eq!(
            warnings(&on(json!({"labels": {"env": "prd"}})), fleet()),
            ["/respond/on/labels no enrolled agent carries env=prd, so responses reach no agent yet"]
        );
        assert_eq!(
            warnings(&json!({"match": [{"min_level": 12, "agents": {"labels": {"env": "test"}}}]}), fleet()),
            ["/match/0/agents/labels no enrolled agent carries env=test, so the selector matches no alert yet"]
        );
        let revoked = Agent { revoked_at: Some(Timestamp::from_millis(1)), ..agent(2, "web-02", &[], &[]) };
        let named = on(json!({"agents": ["web-01", "web-03", Uuid::from_u128(2).to_string()]}));
        assert_eq!(
            warnings(&named, [fleet(), vec![revoked]].concat()),
            [
                "/respond/on/agents/1 is not the id or name of an enrolled agent: no response reaches it",
                "/respond/on/agents/2 is an agent that was revoked: no response reaches it"
            ]
        );
    }

    #[test]
    fn an_unsupported_action_causes_a_warning_with_a_reason() {
        let drop = ["firewall-drop"];
        let (one, two) = (agent(1, "web-01", &[], &drop), agent(2, "web-02", &[], &drop));
        assert_eq!(
            warnings(&json!({}), vec![one.clone(), two]),
            ["/respond/action none of the agents in question can run firewall-drop; web-01 says: nft is missing"]
        );
        assert_eq!(
            warnings(&json!({}), vec![one.clone()]),
            ["/respond/action the only agent in question cannot run firewall-drop; web-01 says: nft is missing"]
        );
        assert!(warnings(&json!({}), vec![one, agent(3, "web-03", &[], &[])]).is_empty());
        assert!(warnings(&json!({}), vec![]).is_empty());
    }

    #[test]
    fn a_server_that_is_not_enrolled_is_said() {
        let on = json!({"respond": {"action": "firewall-drop", "on": "server", "for": "10m"}});
        assert_eq!(
            warnings(&on, vec![agent(1, "web-01", &[("wazuh_id", "001")], &[])]),
            [
                "/respond/on is server, and no enrolled agent has the label wazuh_id 000, so responses reach no agent yet"
            ]
        );
        assert!(warnings(&on, vec![agent(1, "wazuh", &[("wazuh_id", "000")], &[])]).is_empty());
    }

    fn says(n: u128, action: &str, reason: Option<&str>) -> Agent {
        let capability = Capability { action: action.into(), available: true, reason: reason.map(ToOwned::to_owned) };
        Agent { capabilities: vec![capability], ..agent(n, &format!("web-{n:02}"), &[], &[]) }
    }

    #[test]
    fn an_action_that_agents_only_observe_is_said() {
        let observed = Some("only observed here");
        let only = "/respond/action only observing agents can be meant (they run with observe = true), so nothing comes into \
                    force";
        let (one, two) = (says(1, "firewall-drop", observed), says(2, "firewall-drop", observed));
        assert_eq!(warnings(&json!({}), vec![one.clone(), two]), [only]);
        let lacking = says(2, "firewall-drop", Some("only observed here; else nft is missing"));
        assert_eq!(warnings(&json!({}), vec![one.clone(), lacking]), [only]);
        assert!(warnings(&json!({}), vec![one, says(2, "firewall-drop", None)]).is_empty());
    }

    #[test]
    fn a_program_that_no_agent_offers_is_said() {
        let custom = Action::parse(&json!({"name": "yara", "summary": "Scans.", "executable": "yara.sh"})).unwrap();
        let catalogue = Catalogue::with(vec![custom]);
        let document = json!({"name": "a", "match": [{"min_level": 12}], "respond": {"action": "yara"}});
        let policy = Policy::parse(&document, &catalogue).unwrap();
        let found = |agents| policy.fleet_warnings(catalogue.find("yara").unwrap(), &Fleet::new(agents));
        let other = || says(1, "script:other.sh", None);
        let said = found(vec![other()]);
        assert!(said.len() == 1 && said[0].detail.starts_with("runs the program yara.sh, which none of"), "{said:?}");
        assert_eq!(said[0].pointer, "/respond/action");
        assert!(found(vec![other(), says(2, "script:yara.sh", None)]).is_empty());
        assert!(found(vec![agent(1, "web-01", &[], &[])]).is_empty(), "one that has said nothing is asked");
        let script = |n| Capability { action: format!("script:{n}"), available: true, reason: None };
        let full = Agent { capabilities: (0..200).map(script).collect(), ..agent(1, "web-01", &[], &[]) };
        assert!(found(vec![full]).is_empty(), "an agent names 200 programs at most");
    }

    #[test]
    fn a_lasting_block_on_noise_causes_a_warning() {
        let at = |level: u8, respond: Value| json!({"match": [{"min_level": level}], "respond": respond});
        let found = warnings(&at(5, json!({"action": "firewall-drop"})), vec![]);
        assert!(found.len() == 1 && found[0].starts_with("/respond/for is missing"), "{found:?}");
        assert!(warnings(&at(6, json!({"action": "firewall-drop"})), vec![]).is_empty());
        assert!(warnings(&at(5, json!({"action": "firewall-drop", "for": "10m"})), vec![]).is_empty());
        assert!(warnings(&at(1, json!({"action": "log-only"})), vec![]).is_empty());
        let named = json!({"match": [{"rule_ids": ["5710"], "min_level": 5}], "respond": {"action": "firewall-drop"}});
        assert!(warnings(&named, vec![]).is_empty());
    }
}
