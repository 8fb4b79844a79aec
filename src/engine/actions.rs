//! Changes of custom actions. An action that policies use stays right for them, and one of which something is in force stays.

use std::sync::Arc;

use serde_json::Value;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::policies::not_right;
use super::refusal::{Refusal, UseCase};
use crate::domain::action::Action;
use crate::domain::actor::Actor;
use crate::domain::policy::Policy;
use crate::store::StoreError;
use crate::store::configured::caches::Cache;
use crate::store::configured::{actions, policies};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;

impl Engine {
    /// Adds a custom action, once for each idempotency key. Returns its name.
    ///
    /// # Errors
    /// Faults of the document, or an action of that name.
    pub async fn create_action(self: &Arc<Self>, document: &Value, once: Option<Once>, by: &Actor) -> UseCase<String> {
        let action = Action::parse(document).map_err(Refusal::Invalid)?;
        let request = IdempotentRequest::find(&self.db, once).await?;
        if request.answered().is_some() {
            self.refresh(Cache::Actions).await?;
            return Ok(action.name);
        }
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let created = actions::create(&mut ledger, &action.name, document, by, now).await;
        created.map_err(|error| match error {
            StoreError::Duplicate => Refusal::Conflict(format!("an action named {} exists already", action.name)),
            other => other.into(),
        })?;
        request.keep(&mut ledger, 201, "", now).await?;
        self.commit_and_refresh(ledger).await?;
        Ok(action.name)
    }

    /// Replaces the custom action `name`, which must be at `version`.
    ///
    /// # Errors
    /// Faults of the document, another version, a built-in action, or a policy that would not be right with it.
    pub async fn replace_action(
        self: &Arc<Self>,
        name: &str,
        version: i64,
        document: &Value,
        by: &Actor,
    ) -> UseCase<()> {
        if self.actions.load().find(name).is_some_and(|action| action.script.is_none()) {
            let why = format!("{name} is a built-in action; only custom actions can be replaced");
            return Err(Refusal::Conflict(why));
        }
        let action = Action::parse(document).map_err(Refusal::Invalid)?;
        if action.name != name {
            return Err(Refusal::fault("/name", "must equal the name in the path"));
        }
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let updated = actions::update(&mut ledger, name, document, version, by, now).await;
        updated.map_err(|error| stale(error, name))?;
        let catalogue = actions::catalogue(&mut ledger).await?;
        for (user, document) in policies::users(&mut ledger, name).await? {
            Policy::parse_stored(&document, &catalogue).map_err(|faults| not_right(&user, &faults))?;
        }
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Deletes the custom action `name`, which must be at `version`.
    ///
    /// # Errors
    /// If a policy uses it, or while something of it is in force: its undo needs it.
    pub async fn delete_action(self: &Arc<Self>, name: &str, version: i64, by: &Actor) -> UseCase<()> {
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        if actions::is_in_use(&mut ledger, name).await? {
            return Err(Refusal::Conflict(
                "an effect of the action is in force or has a command in flight; lift it first".to_owned(),
            ));
        }
        if let Some((user, _)) = policies::users(&mut ledger, name).await?.first() {
            return Err(Refusal::Conflict(format!("policy {user} uses it")));
        }
        actions::delete(&mut ledger, name, version, by, now).await.map_err(|error| stale(error, name))?;
        Ok(self.commit_and_refresh(ledger).await?)
    }
}

fn stale(error: StoreError, name: &str) -> Refusal {
    match error {
        StoreError::NotFound => Refusal::NotFound(format!("action {name:?} does not exist")),
        StoreError::Conflict => {
            Refusal::Changed(format!("action {name} has another version than If-Match states; read it again"))
        }
        other => other.into(),
    }
}
