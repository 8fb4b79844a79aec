//! The guardrails of responses by hand: when a second person must agree.

use std::time::Duration;

/// The limits of responses by hand, by configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// Maximum number of agents of a response that needs no second person.
    pub max_agents: usize,
    /// Actions that need a second person on more than one agent.
    pub second_person: Vec<String>,
    /// How long a response waits for the second person.
    pub decide_within: Duration,
}

impl ByHand {
    /// Why `action` on so many agents needs a second person, if it does.
    pub fn why_second_person(&self, action: &str, agents: usize) -> Option<String> {
        if agents > self.max_agents {
            return Some(format!("{agents} agents are more than the {} that one person may act on", self.max_agents));
        }
        let is_listed = self.second_person.iter().any(|listed| listed == action);
        (agents > 1 && is_listed).then(|| format!("{action} on more than one agent"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_person_is_needed_for_many_agents_and_for_listed_actions_on_more_than_one() {
        let second_person = ["kill-process", "isolate-host", "disable-account"].map(str::to_owned).to_vec();
        let by_hand = ByHand { max_agents: 10, second_person, decide_within: Duration::from_hours(1) };
        let needed = |action, agents| by_hand.why_second_person(action, agents).is_some();
        assert!(!needed("firewall-drop", 10) && needed("firewall-drop", 11));
        for action in ["kill-process", "isolate-host", "disable-account"] {
            assert!(!needed(action, 1) && needed(action, 2), "{action}");
        }
        let none = ByHand { second_person: Vec::new(), ..by_hand.clone() };
        assert_eq!(none.why_second_person("kill-process", 10), None);
    }
}
