//! Which events a follower asks for.

use uuid::Uuid;

use super::front::error::{ApiError, ApiResult};
use crate::domain::canonical;
use crate::domain::event::TypePattern;
use crate::domain::fault::Fault;
use crate::store::StoreError;
use crate::views::events::EventRow;

/// What an event must be; what is absent does not matter.
#[derive(Debug, Default)]
pub(super) struct EventFilter {
    types: Vec<TypePattern>,
    policy: Option<String>,
    agent: Option<Uuid>,
    target: Option<String>,
}

impl EventFilter {
    /// Reads a filter from the parameters of a query; `called` finds an agent by its name.
    ///
    /// # Errors
    /// 422 with each type that no event has, and for an agent that is not there.
    pub(super) fn read(
        types: Option<&str>,
        policy: Option<String>,
        agent: Option<&str>,
        target: Option<String>,
        called: impl Fn(&str) -> Option<Uuid>,
    ) -> ApiResult<Self> {
        let (mut patterns, mut faults) = (Vec::new(), Vec::new());
        for word in types.into_iter().flat_map(|types| types.split(',')) {
            match TypePattern::parse(word) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => faults.push(Fault::at("/type", why)),
            }
        }
        let id = agent.map(|word| word.trim().parse().ok().or_else(|| called(word.trim())));
        if id.is_some_and(|id| id.is_none()) {
            faults.push(Fault::at("/agent", "is neither the id nor the name of an enrolled agent"));
        }
        if !faults.is_empty() {
            return Err(ApiError::invalid(faults));
        }
        let (policy, target) = (policy.map(|name| canonical::name(&name)), target.map(|text| canonical::target(&text)));
        Ok(Self { types: patterns, policy, agent: id.flatten(), target })
    }

    /// Whether it leaves events out.
    pub(super) const fn takes_some(&self) -> bool {
        !self.types.is_empty() || self.policy.is_some() || self.agent.is_some() || self.target.is_some()
    }

    /// Whether it takes this event.
    ///
    /// # Errors
    /// If the agents of its response cannot be read.
    pub(super) fn takes(&self, row: &EventRow) -> Result<bool, StoreError> {
        let is = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
        let is_of_type = self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(&row.r#type));
        if !is_of_type || !is(&self.policy, &row.policy) || !is(&self.target, &row.target_value) {
            return Ok(false);
        }
        let Some(agent) = self.agent else { return Ok(true) };
        match (&row.agent_id, &row.response_agents) {
            (Some(own), _) => Ok(*own == agent.to_string()),
            (None, Some(agents)) => Ok(agents.read::<Vec<Uuid>>()?.contains(&agent)),
            (None, None) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_and_agents_are_named() {
        let read = |types: &str, agent: Option<&str>| EventFilter::read(Some(types), None, agent, None, |_| None);
        assert!(read("response.*, effect.lifted", None).is_ok());
        let problem = read("response.create,effects.*", Some("web-1")).unwrap_err().problem();
        let faults: Vec<(&str, &str)> =
            problem.errors.iter().map(|fault| (fault.pointer.as_str(), fault.detail.as_str())).collect();
        assert_eq!(faults.iter().map(|(pointer, _)| *pointer).collect::<Vec<_>>(), ["/type", "/type", "/agent"]);
        assert!(faults[0].1.contains("response.create") && faults[1].1.contains("effects.*"), "{faults:?}");
    }
}
