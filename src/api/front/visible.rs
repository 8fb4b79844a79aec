//! What a caller's scope leaves visible. What it hides is treated as if it did not exist.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::Guard;
use serde::Serialize;
use uuid::Uuid;

use super::auth::{Caller, Needed};
use super::error::{ApiError, ApiResult};
use super::filling::Filling;
use crate::domain::agent::Agent;
use crate::domain::alert::AlertAgent;
use crate::domain::fleet::Fleet;
use crate::domain::scope::Scopes;
use crate::engine::Engine;
use crate::store::database::StoreError;
use crate::views::columns::JsonText;
use crate::views::events::EventRow;
use crate::views::responses::{ResponseRow, ResponseView};

/// The view of one caller.
pub struct Visible<'a> {
    scopes: &'a Scopes,
    fleet: Guard<Arc<Fleet>>,
}

impl<'a> Visible<'a> {
    /// What `caller` may see now.
    pub fn to<R: Needed>(caller: &'a Caller<R>, engine: &Engine) -> Self {
        Self::of(&caller.principal.scopes, engine)
    }

    /// What these scopes leave visible now.
    pub fn of(scopes: &'a Scopes, engine: &Engine) -> Self {
        Self { scopes, fleet: engine.fleet.load() }
    }

    /// Whether nothing is hidden.
    pub fn is_everything(&self) -> bool {
        self.scopes.all().is_empty()
    }

    /// Whether agents are hidden.
    pub fn hides_agents(&self) -> bool {
        self.scopes.limit_agents()
    }

    /// Whether agents or policies are hidden.
    pub fn hides(&self) -> bool {
        self.scopes.limit_agents() || self.scopes.limit_policies()
    }

    /// The enrolled agent `id`, as text.
    pub fn enrolled(&self, id: &str) -> Option<&Agent> {
        self.fleet.get(id.parse().ok()?).map(AsRef::as_ref)
    }

    /// Number of enrolled agents that are visible.
    pub fn enrolled_count(&self) -> usize {
        self.fleet.iter().filter(|agent| self.scopes.take_agent(&***agent)).count()
    }

    /// Whether the agent `id` is visible; a revoked one has no labels that a scope could select.
    pub fn agent(&self, id: &str) -> bool {
        !self.hides_agents() || self.enrolled(id).is_some_and(|agent| self.scopes.take_agent(agent))
    }

    /// Whether an alert of this agent is visible.
    pub fn alert(&self, agent: &AlertAgent) -> bool {
        !self.hides_agents() || self.fleet.origin(agent).agent().is_some_and(|agent| self.scopes.take_agent(&**agent))
    }

    /// Whether the policy called `name` is visible.
    pub fn policy(&self, name: &str) -> bool {
        self.scopes.take_policy(name)
    }

    /// Whether one of these agents is visible.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn any_agent(&self, agents: &JsonText) -> Result<bool, StoreError> {
        Ok(!self.hides_agents() || !self.shown_agents(agents)?.is_empty())
    }

    /// Whether a response is visible: its policy is, and one of its agents.
    ///
    /// # Errors
    /// If its agents cannot be read.
    pub fn response(&self, row: &ResponseRow) -> Result<bool, StoreError> {
        if !row.policy.as_deref().is_none_or(|policy| self.policy(policy)) {
            return Ok(false);
        }
        self.any_agent(&row.agents)
    }

    /// Whether an event is visible: what it is about is. What concerns the whole installation is hidden from a
    /// caller with a scope.
    ///
    /// # Errors
    /// If the agents of its response cannot be read.
    pub fn event(&self, row: &EventRow) -> Result<bool, StoreError> {
        if self.is_everything() {
            return Ok(true);
        }
        if !row.policy.as_deref().is_none_or(|policy| self.policy(policy)) {
            return Ok(false);
        }
        match (&row.agent_id, &row.response_agents) {
            (Some(agent), _) => Ok(self.agent(agent)),
            (None, Some(agents)) => self.any_agent(agents),
            // A response that retention removed; else a policy, or what has neither policy nor agent.
            (None, None) => Ok(row.policy.is_some() && row.response_id.is_none()),
        }
    }

    /// Those of these agents that are visible.
    fn shown_agents(&self, agents: &JsonText) -> Result<BTreeSet<Uuid>, StoreError> {
        let agents: Vec<Uuid> = agents.read()?;
        Ok(agents.into_iter().filter(|agent| self.agent(&agent.to_string())).collect())
    }

    /// Removes the agents of `row` that are hidden. Returns whether there were any.
    ///
    /// # Errors
    /// If its agents cannot be read.
    pub fn cut_agents(&self, row: &mut ResponseRow) -> Result<bool, StoreError> {
        if !self.hides_agents() {
            return Ok(false);
        }
        let all: Vec<Uuid> = row.agents.read()?;
        let shown = self.shown_agents(&row.agents)?;
        let hides = shown.len() < all.len();
        row.agents = JsonText::of(&shown)?;
        Ok(hides)
    }

    /// Removes what happened on hidden agents.
    pub fn cut(&self, view: &mut ResponseView) {
        if self.hides_agents() {
            view.effects.retain(|row| self.agent(&row.agent_id));
            view.commands.retain(|row| self.agent(&row.agent_id));
            let commands: BTreeSet<&str> = view.commands.iter().map(|row| row.id.as_str()).collect();
            view.results.retain(|row| commands.contains(row.command_id.as_str()));
        }
    }

    /// An empty page of a list, to be filled with what is visible.
    pub fn filling<T: Serialize>(&self, limit: i64, cursor: Option<String>) -> Filling<T> {
        Filling::new(limit, cursor, !self.is_everything())
    }
}

impl<R: Needed> Caller<R> {
    /// Refuses a caller with a scope to change what concerns all agents and policies; `what` says what it is.
    ///
    /// # Errors
    /// 403.
    pub fn unlimited(&self, what: &str) -> ApiResult<()> {
        self.principal.scopes.check_everything(what).map_err(|error| ApiError::forbidden(error.to_string()))
    }
}
