//! Scopes as people write them, for users and keys.

use serde_json::Value;
use uuid::Uuid;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use crate::domain::agent::Agent;
use crate::domain::agent_selector::Selectable;
use crate::domain::fault::Fault;
use crate::domain::principal::{Principal, Role};
use crate::domain::scope::Scope;
use crate::store::StoreError;
use crate::views::responses::ResponseRow;

/// Where a scope is in a request.
const AT: &str = "/scope";

impl Engine {
    /// Reads the scope that a request gives a user or a key with `role`.
    ///
    /// # Errors
    /// Its faults, also an action that does not exist.
    pub(super) fn read_scope(&self, value: Option<&Value>, role: Role) -> UseCase<Option<Scope>> {
        let Some(value) = value else { return Ok(None) };
        let scope = Scope::parse(value, AT).map_err(Refusal::Invalid)?;
        check_admin(role, &scope)?;
        let actions = self.actions.load();
        let unknown = scope.actions.iter().enumerate().filter(|(_, name)| actions.find(name).is_none());
        let faults: Vec<Fault> =
            unknown.map(|(index, _)| Fault::at(format!("{AT}/actions/{index}"), "is not a known action")).collect();
        if faults.is_empty() { Ok(Some(scope)) } else { Err(Refusal::Invalid(faults)) }
    }
}

impl Engine {
    /// Refuses a principal to whom a response is hidden, or whose scope does not cover it as a whole.
    ///
    /// # Errors
    /// No such response, or what is outside the scope.
    pub fn check_scope_of_response(&self, row: &ResponseRow, by: &Principal) -> UseCase<()> {
        if by.scopes.all().is_empty() {
            return Ok(());
        }
        let fleet = self.fleet.load();
        let agents: Vec<Uuid> = row.agents.read().map_err(StoreError::from)?;
        let agents: Vec<Option<&Agent>> = agents.iter().map(|id| fleet.get(*id).map(AsRef::as_ref)).collect();
        let is_seen = agents.iter().flatten().any(|agent| by.scopes.take_agent(*agent));
        let is_hidden = by.scopes.limit_agents() && !is_seen;
        if is_hidden || !row.policy.as_deref().is_none_or(|policy| by.scopes.take_policy(policy)) {
            return Err(Refusal::NotFound("the response does not exist".to_owned()));
        }
        Ok(by.scopes.check_response(&row.action, row.policy.as_deref(), agents)?)
    }

    /// Refuses a principal to whom an agent with these labels is hidden.
    ///
    /// # Errors
    /// No such agent.
    pub(super) fn check_scope_of_agent(agent: &Agent, by: &Principal) -> UseCase<()> {
        let hidden = || Refusal::NotFound("the agent does not exist".to_owned());
        by.scopes.take_agent(agent).then_some(()).ok_or_else(hidden)
    }
}

/// Refuses labels, which are at `at`, that would take an agent out of the scope of who sets them.
///
/// # Errors
/// The fault.
pub(super) fn check_labels(agent: &dyn Selectable, at: &str, by: &Principal) -> UseCase<()> {
    let outside = || Refusal::fault(at, "must leave the agent within your scope");
    by.scopes.take_agent(agent).then_some(()).ok_or_else(outside)
}

/// Refuses a scope for the role `admin`, which could give itself another user without one.
pub(super) fn check_admin(role: Role, scope: &Scope) -> UseCase<()> {
    if role == Role::Admin && !scope.is_unlimited() {
        let why = "the role admin has no scope, because it can create users and keys without one";
        return Err(Refusal::Conflict(why.to_owned()));
    }
    Ok(())
}
