//! Forgetting a person who was deleted: in many small transactions, so that no other request waits for it.

use std::sync::Arc;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use super::users::missing;
use crate::domain::actor::Actor;
use crate::domain::forgotten::PSEUDONYM_PREFIX;
use crate::store::StoreError;
use crate::store::configured::users;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::forgotten::{self, Forgetting};

/// Rows per transaction.
const BATCH: i64 = 200;

impl Engine {
    /// Forgets the deleted user `name`: a pseudonym takes the place of the name, and texts of the audit log that can
    /// name the person are removed. Returns the pseudonym. It can be repeated after a failure, and goes on then.
    ///
    /// # Errors
    /// No such user, one who is not deleted, or what must be kept.
    pub async fn forget_user(self: &Arc<Self>, name: &str, by: &Actor) -> UseCase<String> {
        let user = users::find(&self.db, name).await?.ok_or_else(|| missing(StoreError::NotFound, name))?;
        if name.starts_with(PSEUDONYM_PREFIX) {
            return Err(Refusal::Conflict(format!("{name} is the pseudonym of a person who was forgotten")));
        }
        if user.deleted_at.is_none() {
            let why = format!("{name} is not deleted: a person is forgotten after the deletion (`riposte user revoke`)");
            return Err(Refusal::Conflict(why));
        }
        if let Some(view) = self.webhooks().await?.into_iter().find(|view| view.settings.person.as_deref() == Some(name)) {
            let why = format!("the webhook {} is for {name}: change or delete it first", view.name);
            return Err(Refusal::Conflict(why));
        }
        let who = self.begin_to_forget(name, by).await?;
        while self.forget_some(&who).await? {}
        let mut ledger = LedgerTx::begin(&self.db).await?;
        forgotten::finish(&mut ledger, &who, &self.former_name(name)?, by, self.clock.now()).await?;
        self.commit_and_refresh(ledger).await?;
        self.lockouts.forget(name);
        Ok(who.pseudonym)
    }

    async fn begin_to_forget(&self, name: &str, by: &Actor) -> UseCase<Forgetting> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| Refusal::System(error.to_string()))?;
        let pseudonym = format!("{PSEUDONYM_PREFIX}{:016x}", u64::from_be_bytes(random));
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let begun = forgotten::begin(&mut ledger, name, &pseudonym, by, self.clock.now()).await;
        let who = begun.map_err(|error| match error {
            StoreError::Conflict => Refusal::Conflict(format!(
                "entries of the audit log up to those of {name} are under a legal hold: release it first (`riposte hold list`)"
            )),
            other => other.into(),
        })?;
        ledger.commit().await?;
        Ok(who)
    }

    /// One batch. Returns whether there is more to do.
    async fn forget_some(&self, who: &Forgetting) -> UseCase<bool> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let removed = forgotten::remove_texts(&mut ledger, who, BATCH, self.clock.now()).await?;
        let replaced = if removed == 0 { forgotten::replace_names(&mut ledger, who, BATCH).await? } else { 0 };
        ledger.commit().await?;
        Ok(removed + replaced > 0)
    }

    /// What is kept of a forgotten name, so that it is not given again. Without the manager's key no guess can be checked.
    ///
    /// # Errors
    /// If the library refuses.
    pub(super) fn former_name(&self, name: &str) -> UseCase<Vec<u8>> {
        let derived = self.ledger_key.derive(&format!("former name {name}"));
        derived.map(|bytes| bytes.to_vec()).map_err(|error| Refusal::System(error.to_string()))
    }

    /// Goes on with people whom a manager began to forget before it ended.
    pub(super) async fn finish_forgetting(self: &Arc<Self>) -> Result<(), StoreError> {
        for name in forgotten::unfinished(&self.db).await? {
            match self.forget_user(&name, &Actor::Riposte).await {
                Ok(pseudonym) => tracing::info!("a person whom a manager began to forget is {pseudonym} now"),
                Err(Refusal::Store(error)) => return Err(error),
                Err(refusal) => tracing::error!("a person cannot be forgotten to the end: {refusal}"),
            }
        }
        Ok(())
    }
}
