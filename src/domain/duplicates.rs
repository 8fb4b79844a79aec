//! Agents with contradicting labels: several with one Wazuh id. New duplicates are refused;
//! existing ones are reported with the command that fixes them.

use std::collections::BTreeMap;

use super::agent::{Agent, is_name};
use super::alert::AlertAgent;
use super::host_name::is_same_host;

/// Agents that share a Wazuh id without different Wazuh managers, with the remedy; revoked ones are
/// ignored.
pub fn of(agents: &[Agent]) -> Vec<String> {
    let mut by_number: BTreeMap<&str, Vec<&Agent>> = BTreeMap::new();
    for agent in agents.iter().filter(|agent| agent.revoked_at.is_none()) {
        if let Some(number) = agent.wazuh_id() {
            by_number.entry(number).or_default().push(agent);
        }
    }
    let mut found = Vec::new();
    for (number, holders) in by_number.into_iter().filter(|(_, holders)| holders.len() > 1) {
        for (index, one) in holders.iter().enumerate() {
            let others = &holders[index + 1..];
            if let Some(other) = others.iter().find(|other| one.shares_wazuh_id(&other.labels)) {
                let hint = match one.wazuh_manager() {
                    Some(_) => String::new(),
                    None => format!(
                        "if two Wazuh managers count here: `riposte agent label {} wazuh_manager=NAME`, and for {} too; ",
                        one.name, other.name
                    ),
                };
                found.push(format!(
                    "{} and {} both have the wazuh_id {number}: {hint}if one has it no more: `riposte agent label NAME wazuh_id-`",
                    one.name, other.name
                ));
            }
        }
        let unsaid: Vec<&&Agent> = holders.iter().filter(|holder| holder.wazuh_manager().is_none()).collect();
        if let [one] = unsaid.as_slice() {
            found.push(format!(
                "{} has the wazuh_id {number} as others do, and does not say of which Wazuh manager: \
                 `riposte agent label {} wazuh_manager=NAME`",
                one.name, one.name
            ));
        }
    }
    found
}

/// What mends the labels, where an alert names an agent otherwise than it is enrolled here; nothing if no agent of `fleet` has the
/// alert's number or name. The commands are to be copied into a shell, so an alert's word stands in them only if it is a name.
pub fn mend(alert: &AlertAgent, fleet: &[Agent]) -> Option<String> {
    let name = alert.name.as_deref().filter(|name| is_name(name));
    let number = alert.id.as_deref().filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))?;
    let is_named = |agent: &Agent| name.is_some_and(|name| is_same_host(agent.wazuh_name(), name));
    let mut ways = Vec::new();
    for agent in fleet.iter().filter(|agent| agent.revoked_at.is_none()) {
        let own = &agent.name;
        match (agent.wazuh_id() == Some(number), is_named(agent)) {
            (true, false) => {
                let name = name.unwrap_or("NAME");
                ways.push(format!("if {own} is that host: `riposte agent label {own} wazuh_name={name}`"));
                ways.push(format!("if {own} has the number no more: `riposte agent label {own} wazuh_id-`"));
            }
            (false, true) => {
                ways.push(format!("if {own} has the number now: `riposte agent label {own} wazuh_id={number}`"));
            }
            _ => {}
        }
    }
    (!ways.is_empty()).then(|| ways.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn agent(n: u128, name: &str, labels: &[(&str, &str)]) -> Agent {
        Agent {
            id: Uuid::from_u128(n),
            name: name.into(),
            key: crate::domain::agent_key::AgentKey::first(
                riposte_protocol::key::SigningKey::from_seed(&[7; 32]).unwrap().verifying_key(),
                riposte_protocol::time::Timestamp::from_millis(0),
            ),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            version: String::new(),
            capabilities: vec![],
            revoked_at: None,
        }
    }

    #[test]
    fn a_contradiction_is_mended_by_a_command_with_its_names() {
        let fleet = [agent(1, "db-01", &[("wazuh_id", "006")]), agent(2, "mail", &[("wazuh_id", "007")])];
        let alert =
            |name: &str| AlertAgent { id: Some("006".into()), name: Some(name.into()), ..AlertAgent::default() };
        assert_eq!(
            mend(&alert("mail"), &fleet).as_deref(),
            Some(
                "if db-01 is that host: `riposte agent label db-01 wazuh_name=mail`; if db-01 has the number no more: \
                 `riposte agent label db-01 wazuh_id-`; if mail has the number now: `riposte agent label mail wazuh_id=006`"
            )
        );
        assert_eq!(mend(&alert("mail"), &[]), None);
        let hostile = mend(&alert("x; reboot"), &fleet).unwrap();
        assert!(hostile.contains("wazuh_name=NAME") && !hostile.contains("reboot"), "{hostile}");
    }

    #[test]
    fn ambiguous_agents_are_reported_with_the_remedy() {
        let at = |manager: &'static str| [("wazuh_id", "001"), ("wazuh_manager", manager)];
        let alone = [("wazuh_id", "001")];
        assert!(of(&[agent(1, "a", &at("x")), agent(2, "b", &at("y")), agent(3, "c", &[])]).is_empty());
        let revoked =
            Agent { revoked_at: Some(riposte_protocol::time::Timestamp::from_millis(1)), ..agent(2, "b", &alone) };
        assert!(of(&[agent(1, "a", &alone), revoked]).is_empty());
        let two = of(&[agent(1, "a", &alone), agent(2, "b", &alone)]);
        let [both] = two.as_slice() else { panic!("{two:?}") };
        assert!(both.contains("a and b both") && both.contains("label a wazuh_manager=NAME"), "{both}");
        let same = of(&[agent(1, "a", &at("x")), agent(2, "b", &at("X"))]);
        assert!(same[0].contains("wazuh_id-"), "{same:?}");
        let unsaid = of(&[agent(1, "a", &alone), agent(2, "b", &at("x"))]);
        assert!(unsaid[0].starts_with("a has the wazuh_id 001 as others do"), "{unsaid:?}");
    }
}
