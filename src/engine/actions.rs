//! Changes of custom actions. An action that policies use stays right for them, and one of which something is in force stays.

use std::sync::Arc;

use riposte_protocol::command::Script;
use serde_json::Value;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::policies::not_right;
use super::refusal::{Refusal, UseCase};
use crate::domain::action::Action;
use crate::domain::actor::Actor;
use crate::domain::policy::Policy;
use crate::domain::principal::Principal;
use crate::domain::right::Right;
use crate::store::StoreError;
use crate::store::configured::caches::Cache;
use crate::store::configured::{actions, policies};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;

impl Engine {
    /// Adds a custom action, once for each idempotency key. Returns its name.
    ///
    /// # Errors
    /// Faults of the document, an action of that name, or a secret that `by` may not give to its program.
    pub async fn create_action(
        self: &Arc<Self>,
        document: &Value,
        once: Option<Once>,
        by: &Principal,
    ) -> UseCase<String> {
        let action = Action::parse(document).map_err(Refusal::Invalid)?;
        let request = IdempotentRequest::find(&self.db, once).await?;
        if request.answered().is_some() {
            self.refresh(Cache::Actions).await?;
            return Ok(action.name);
        }
        self.check_receiver(&action, by)?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let created = actions::create(&mut ledger, &action.name, document, &by.at(), now).await;
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
    /// Faults of the document, another version, a built-in action, a policy that would not be right with it, or a secret that
    /// `by` may not give to its program.
    pub async fn replace_action(
        self: &Arc<Self>,
        name: &str,
        version: i64,
        document: &Value,
        by: &Principal,
    ) -> UseCase<()> {
        if self.actions.load().find(name).is_some_and(|action| action.script.is_none()) {
            let why = format!("{name} is a built-in action; only custom actions can be replaced");
            return Err(Refusal::Conflict(why));
        }
        let action = Action::parse(document).map_err(Refusal::Invalid)?;
        if action.name != name {
            return Err(Refusal::fault("/name", "must equal the name in the path"));
        }
        self.check_receiver(&action, by)?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let updated = actions::update(&mut ledger, name, document, version, &by.at(), now).await;
        updated.map_err(|error| stale(error, name))?;
        let catalogue = actions::catalogue(&mut ledger).await?;
        for (user, document) in policies::users(&mut ledger, name).await? {
            Policy::parse_stored(&document, &catalogue).map_err(|faults| not_right(&user, &faults))?;
        }
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// A secret names the actions that may receive it, and so their programs. Another program would receive it too: only an
    /// administrator, who sets secrets, may choose one.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], with the name of the secret.
    pub(super) fn check_receiver(&self, action: &Action, by: &Principal) -> UseCase<()> {
        let known = self.actions.load().find(&action.name).and_then(|known| known.script.clone());
        let executable = |script: &Script| script.executable.clone();
        if by.may(Right::Administer) || known.as_ref().map(executable) == action.script.as_ref().map(executable) {
            return Ok(());
        }
        match self.secrets.load().received_by(&action.name) {
            Some(secret) => Err(Refusal::Forbidden(format!(
                "the action {} may receive the secret {secret:?}, so only an administrator chooses its program",
                action.name
            ))),
            None => Ok(()),
        }
    }

    /// The D3FEND techniques that an action is; none if it is not known.
    pub fn countermeasures(&self, action: Option<&str>) -> Vec<String> {
        let known = self.actions.load();
        action.and_then(|name| known.find(name)).map(|action| action.d3fend.clone()).unwrap_or_default()
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
