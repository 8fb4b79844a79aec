//! Which events a follower of the feed asks for.

use uuid::Uuid;

use crate::domain::canonical;
use crate::domain::event::TypePattern;
use crate::store::StoreError;
use crate::views::events::EventRow;

/// What an event must be; what is absent does not matter.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    types: Vec<TypePattern>,
    policy: Option<String>,
    agent: Option<Uuid>,
    target: Option<String>,
}

impl EventFilter {
    /// Events of one of these types, or of all if there are none, about this policy, agent and target.
    pub fn new(types: Vec<TypePattern>, policy: Option<&str>, agent: Option<Uuid>, target: Option<&str>) -> Self {
        Self { types, policy: policy.map(canonical::name), agent, target: target.map(canonical::target) }
    }

    /// Whether it leaves events out.
    pub const fn takes_some(&self) -> bool {
        !self.types.is_empty() || self.policy.is_some() || self.agent.is_some() || self.target.is_some()
    }

    /// Whether it takes this event.
    ///
    /// # Errors
    /// If the agents of its response cannot be read.
    pub fn takes(&self, row: &EventRow) -> Result<bool, StoreError> {
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
