//! Agents with contradicting labels: several with one Wazuh id. New duplicates are refused;
//! existing ones are reported with the command that fixes them.

use std::collections::BTreeMap;

use super::agent::Agent;

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

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn agent(n: u128, name: &str, labels: &[(&str, &str)]) -> Agent {
        Agent {
            id: Uuid::from_u128(n),
            name: name.into(),
            public_key: ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            version: String::new(),
            capabilities: vec![],
            revoked_at: None,
        }
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
