//! What is protected, and the freeze: changes that count as soon as they are committed.

use std::sync::Arc;

use uuid::Uuid;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use crate::domain::actor::Actor;
use crate::domain::protected::ProtectedEntry;
use crate::domain::response::Hold;
use crate::store::configured::caches::Cache;
use crate::store::configured::{freeze, protected};
use crate::store::database::columns;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;

impl Engine {
    /// Adds a protected entry, once for each idempotency key, and lifts what is in force against it. `read` returns the entry
    /// that is asked for. Returns the entry and what was lifted.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn protect(
        self: &Arc<Self>,
        read: impl FnOnce() -> UseCase<ProtectedEntry>,
        once: Option<Once>,
        by: &Actor,
    ) -> UseCase<(ProtectedEntry, Vec<Hold>)> {
        let request = IdempotentRequest::find(&self.db, once).await?;
        // A repetition is not judged anew. The first request may have failed after its commit, so what it lifts is looked for
        // again.
        if let Some(id) = request.answered() {
            self.refresh(Cache::Protected).await?;
            let row = protected::find(&self.db, columns::id(id)?).await?;
            let row = row.ok_or_else(|| Refusal::NotFound("the entry was created, and deleted since".to_owned()))?;
            let entry = ProtectedEntry::try_from(row)?;
            let lifts = self.lift_protected(vec![entry.clone()]).await?;
            return Ok((entry, lifts));
        }
        let (entry, now) = (read()?, self.clock.now());
        let mut ledger = LedgerTx::begin(&self.db).await?;
        protected::create(&mut ledger, &entry, by, now).await?;
        request.keep(&mut ledger, 201, &entry.id.to_string(), now).await?;
        let against = vec![entry.clone()];
        let lift = |engine: Arc<Self>| async move { engine.lift_protected(against).await };
        let lifts = self.commit_refresh_then(ledger, lift).await?;
        Ok((entry, lifts))
    }

    /// Deletes a protected entry.
    ///
    /// # Errors
    /// If there is no such entry.
    pub async fn unprotect(self: &Arc<Self>, entry: Uuid, by: &Actor) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        protected::delete(&mut ledger, entry, by, self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Freezes the manager, or thaws it.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub async fn set_freeze(self: &Arc<Self>, frozen: bool, why: &str, by: &Actor) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        freeze::set(&mut ledger, frozen, why, by, self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }
}
