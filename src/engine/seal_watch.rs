//! What follows when another program has changed rows that grant power: nothing new is delivered while it is
//! not known what they were, and the audit log has each such row once.

use std::sync::atomic::Ordering;

use super::Engine;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::StoreError;
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::whole;

impl Engine {
    /// Why nothing new is delivered, if nothing is. Reverts are.
    pub fn held_back(&self) -> Option<&'static str> {
        if self.frozen.load(Ordering::SeqCst) {
            return Some("deliveries are frozen");
        }
        self.db
            .seals()
            .holds_back()
            .then_some("deliveries are held back, because another program has changed the ledger")
    }
}

/// Looks at all sets of sealed rows.
pub(super) async fn look(engine: &Engine) -> Result<(), StoreError> {
    whole::examine(&engine.db).await
}

/// Records what was found, once each. Wakes the agents when nothing is held back any more.
pub(super) async fn record(engine: &Engine) -> Result<(), StoreError> {
    let seals = engine.db.seals();
    engine.metrics.seal_breaches.set(i64::try_from(seals.breaches().len()).unwrap_or(i64::MAX));
    let new = seals.unrecorded();
    if !new.is_empty() {
        let (mut ledger, at) = (LedgerTx::begin(&engine.db).await?, engine.clock.now());
        for breach in &new {
            let (actor, event, noun_id) = (Actor::Riposte, AuditEvent::LedgerBreached, breach.set.to_owned());
            ledger.record(AuditEntry { at, actor, event, noun_id, detail: breach.describe() });
        }
        ledger.commit().await?;
    }
    if seals.record(new) && engine.held_back().is_none() {
        engine.hub.wake_all();
    }
    Ok(())
}
