//! The agents that a call names by their Wazuh ids, which are labels here. What a scope hides is treated as
//! if it did not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::agent::Agent;
use crate::domain::fleet::Fleet;
use crate::domain::formats::wazuh::canonical_agent_id;
use crate::domain::scope::Scopes;
use crate::views::wazuh::{WazuhFailedItem, WazuhItemError};

/// Id of the Wazuh manager's own host, which no call reaches.
const MANAGER: &str = "000";

/// The agents of a call: those that are there, by id, and why the others are not.
#[derive(Clone, Debug, Default)]
pub struct ChosenAgents {
    /// Ids and their agents.
    pub found: BTreeMap<String, Arc<Agent>>,
    /// Ids that no agent can be found by.
    pub failed: Vec<WazuhFailedItem>,
}

/// The visible agents by their Wazuh id.
pub fn by_wazuh_id(fleet: &Fleet, scopes: &Scopes) -> BTreeMap<String, Vec<Arc<Agent>>> {
    let mut by_id: BTreeMap<String, Vec<Arc<Agent>>> = BTreeMap::new();
    for agent in fleet.iter().filter(|agent| scopes.take_agent(&***agent)) {
        if let Some(id) = agent.wazuh_id().and_then(canonical_agent_id) {
            by_id.entry(id).or_default().push(Arc::clone(agent));
        }
    }
    by_id
}

/// Reads a list of ids.
///
/// # Errors
/// The first text that is no id.
pub fn read_ids(list: &str) -> Result<BTreeSet<String>, String> {
    list.split(',').map(|text| canonical_agent_id(text).ok_or_else(|| text.chars().take(64).collect())).collect()
}

/// Chooses the agents with these ids; all of them if `listed` is absent. The manager is left out in silence, as
/// in Wazuh.
pub fn choose(listed: Option<&BTreeSet<String>>, fleet: &Fleet, scopes: &Scopes) -> ChosenAgents {
    let by_id = by_wazuh_id(fleet, scopes);
    let all = || by_id.keys().cloned().collect();
    let wanted: BTreeSet<String> = listed.map_or_else(all, Clone::clone);
    let mut chosen = ChosenAgents::default();
    for id in wanted.into_iter().filter(|id| id != MANAGER) {
        match by_id.get(&id).map(Vec::as_slice) {
            Some([only]) => drop(chosen.found.insert(id, Arc::clone(only))),
            Some([_, _, ..]) => chosen.failed.push(WazuhItemError::ambiguous().of(&[id])),
            _ => chosen.failed.push(WazuhItemError::no_agent().of(&[id])),
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_with_at_least_three_digits() {
        let ids = |list: &str| read_ids(list).map(|ids| ids.into_iter().collect::<Vec<_>>());
        assert_eq!(ids("005,5,010"), Ok(vec!["005".to_owned(), "010".to_owned()]));
        assert_eq!(ids("000"), Ok(vec!["000".to_owned()]));
        for wrong in ["", "all", "005,", "-1", "1e3", "005;006", "12345678901"] {
            assert!(ids(wrong).is_err(), "{wrong}");
        }
    }
}
