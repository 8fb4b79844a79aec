//! Changes of policies: a policy is checked, tested by its own tests, stored, and in force when the change is answered.

use std::sync::Arc;

use serde_json::Value;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::policy_tests::run_tests;
use super::refusal::{Refusal, UseCase};
use crate::domain::fault::Fault;
use crate::domain::policy::{Mode, Policy};
use crate::domain::principal::Principal;
use crate::domain::right::Right;
use crate::domain::scope::Scopes;
use crate::store::StoreError;
use crate::store::configured::caches::Cache;
use crate::store::configured::users::StoredUser;
use crate::store::configured::{actions, breakers, policies};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;

impl Engine {
    /// The policy that a document is, if it is right and its own tests agree.
    ///
    /// # Errors
    /// Every fault.
    pub fn check_policy(&self, document: &Value) -> UseCase<Policy> {
        let policy = Policy::parse(document, &self.actions.load()).map_err(Refusal::Invalid)?;
        let (action, arguments) = (&policy.respond.action, &policy.respond.arguments);
        let mut faults = self.secrets.load().faults(action, arguments, "/respond/arguments");
        faults.extend(run_tests(&policy, &self.mappings));
        if faults.is_empty() { Ok(policy) } else { Err(Refusal::Invalid(faults)) }
    }

    /// Creates a policy, once for each idempotency key. Returns its name.
    ///
    /// # Errors
    /// Faults of the document, or a policy of that name.
    pub async fn create_policy(
        self: &Arc<Self>,
        document: &Value,
        once: Option<Once>,
        by: &Principal,
    ) -> UseCase<String> {
        let request = IdempotentRequest::find(&self.db, once).await?;
        // A repetition is not judged anew: what stands against it now did not then.
        if request.answered().is_some() {
            self.refresh(Cache::Policies).await?;
            return Ok(document["name"].as_str().unwrap_or_default().to_owned());
        }
        let policy = self.check_policy(document)?;
        by.scopes.check_policy(&policy, &self.fleet.load()).map_err(Refusal::Invalid)?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        policies::create(&mut ledger, &policy, &by.actor, now).await.map_err(|error| taken(error, &policy.name))?;
        require_right(&mut ledger, &policy).await?;
        request.keep(&mut ledger, 201, "", now).await?;
        self.commit_and_refresh(ledger).await?;
        Ok(policy.name)
    }

    /// Replaces the policy `name`, which must be at `version`.
    ///
    /// # Errors
    /// Faults of the document, no such policy, or another version.
    pub async fn replace_policy(
        self: &Arc<Self>,
        name: &str,
        version: i64,
        document: &Value,
        by: &Principal,
    ) -> UseCase<()> {
        let policy = self.check_policy(document)?;
        self.check_scope_of(name, by)?;
        by.scopes.check_policy(&policy, &self.fleet.load()).map_err(Refusal::Invalid)?;
        if policy.name != name {
            return Err(Refusal::fault("/name", "must equal the name in the path; a policy keeps its name"));
        }
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        policies::update(&mut ledger, &policy, version, &by.actor, now).await.map_err(|error| stale(error, name))?;
        require_right(&mut ledger, &policy).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Makes an earlier version of the policy `name`, which must be at `expected`, the newest. It is checked anew: it may use an
    /// action that is gone.
    ///
    /// # Errors
    /// As [`Engine::replace_policy`], and if there is no such version.
    pub async fn roll_back_policy(
        self: &Arc<Self>,
        name: &str,
        expected: i64,
        version: i64,
        by: &Principal,
    ) -> UseCase<()> {
        let row = policies::version(&self.db, name, version).await?;
        let document = row.and_then(|row| row.document).ok_or_else(|| {
            Refusal::fault("/version", "is not a version of this policy, or is the one that deleted it")
        })?;
        let document: Value = document.read().map_err(StoreError::from)?;
        self.replace_policy(name, expected, &document, by).await
    }

    /// Deletes the policy `name`, which must be at `version`. Its responses go on and its versions are kept.
    ///
    /// # Errors
    /// No such policy, or another version.
    pub async fn delete_policy(self: &Arc<Self>, name: &str, version: i64, by: &Principal) -> UseCase<()> {
        self.check_scope_of(name, by)?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        policies::delete(&mut ledger, name, version, &by.actor, now).await.map_err(|error| stale(error, name))?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// A warning if too few people could approve the responses of `policy`: its author does not, and each person counts
    /// once.
    pub fn approval_warning(&self, policy: &Policy) -> Option<Fault> {
        let asks = policy.mode == Mode::Approve || policy.guardrails.approval.is_some();
        let quorum = policy.guardrails.approval.as_ref().map_or(1, |approval| approval.quorum);
        let users = self.users.load();
        let may_approve = |user: &&StoredUser| {
            let user = &user.user;
            let scopes = Scopes::of([user.scope.clone()]);
            user.disabled_at.is_none() && user.role.may(Right::Approve) && scopes.leave(Right::Approve)
        };
        let people = users.values().filter(may_approve).count();
        (asks && people <= quorum as usize).then(|| {
            let detail = format!(
                "needs {quorum} people who may approve beside its author, and {people} are enabled: without them only \
                 break-glass lets a response act"
            );
            Fault::at("/approval", detail)
        })
    }

    /// Refuses a caller to whom the policy `name`, as it is, is hidden or could do more than the caller.
    fn check_scope_of(&self, name: &str, by: &Principal) -> UseCase<()> {
        if !by.scopes.take_policy(name) {
            return Err(Refusal::NotFound(format!("no policy named {name:?} exists")));
        }
        let policies = self.policies.load();
        let Some(current) = policies.policies().iter().find(|versioned| versioned.policy.name == name) else {
            return Ok(());
        };
        by.scopes.check_policy(&current.policy, &self.fleet.load()).map_err(|faults| {
            let faults: Vec<String> =
                faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
            Refusal::Forbidden(format!("the policy is not within your scope: {}", faults.join("; ")))
        })
    }

    /// Closes the breaker of the policy `name`: on one agent, by id or name, or everywhere.
    ///
    /// # Errors
    /// If the agent is unknown, or the breaker has not stopped the policy there.
    pub async fn reset_breaker(&self, name: &str, agent: Option<&str>, why: &str, by: &Principal) -> UseCase<()> {
        self.check_scope_of(name, by)?;
        let fleet = self.fleet.load();
        let agent =
            agent.map(|word| fleet.called(word).ok_or_else(|| Refusal::fault("/agent", "the agent is not enrolled")));
        let agent = agent.transpose()?.map(|agent| (agent.id, agent.name.as_str()));
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let closed = breakers::reset(&mut ledger, name, agent, &by.actor, why, now).await;
        closed.map_err(|error| match error {
            StoreError::Conflict => Refusal::Conflict(format!("policy {name} has no open breaker there")),
            other => other.into(),
        })?;
        Ok(ledger.commit().await?)
    }
}

/// The policy is right with the actions as this transaction finds them: the cache that was looked at before may miss another
/// change.
pub(super) async fn require_right(ledger: &mut LedgerTx, policy: &Policy) -> UseCase<()> {
    let document = serde_json::to_value(policy).map_err(|error| Refusal::System(error.to_string()))?;
    let parsed = Policy::parse(&document, &actions::catalogue(ledger).await?);
    parsed.map(drop).map_err(|faults| not_right(&policy.name, &faults))
}

/// The policy would be wrong, or is.
pub(super) fn not_right(name: &str, faults: &[Fault]) -> Refusal {
    let fault = faults.first().map_or_else(String::new, |Fault { pointer, detail }| format!(": {pointer} {detail}"));
    Refusal::Conflict(format!("policy {name} would be invalid with the current actions{fault}"))
}

fn taken(error: StoreError, name: &str) -> Refusal {
    match error {
        StoreError::Duplicate => Refusal::Conflict(format!("a policy named {name} exists already")),
        other => other.into(),
    }
}

fn stale(error: StoreError, name: &str) -> Refusal {
    match error {
        StoreError::NotFound => Refusal::NotFound(format!("policy {name:?} does not exist")),
        StoreError::Conflict => {
            Refusal::Changed(format!("policy {name} has another version than If-Match states; read it again"))
        }
        other => other.into(),
    }
}
