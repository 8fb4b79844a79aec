//! What agents say they can do and which version they run: stored when it is news, at the pace of
//! `announcements.rs`.

use std::sync::Arc;

use uuid::Uuid;

use super::Engine;
pub use super::announcements::Announcement;
use crate::store::StoreError;
use crate::store::configured::agents;
use crate::store::ledger::audit::LedgerTx;

impl Engine {
    /// Takes in what an agent announces, if that is news; now, or when it has not changed too often.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn announce(self: &Arc<Self>, agent: Uuid, said: Announcement) -> Result<(), StoreError> {
        let fleet = self.fleet.load();
        let Some(known) = fleet.get(agent) else { return Ok(()) };
        let names = |said: &Announcement| (said.version.is_some(), said.capabilities.is_some());
        let (version, capabilities) = names(&said);
        let news = said.news(known);
        let (new_version, new_capabilities) = names(&news);
        self.announcements.unchanged(agent, version && !new_version, capabilities && !new_capabilities);
        if news.is_empty() {
            return Ok(());
        }
        match self.announcements.announce(agent, news, self.clock.now()) {
            Some(said) => self.keep_announcement(agent, said).await,
            None => Ok(()),
        }
    }

    async fn keep_announcement(self: &Arc<Self>, agent: Uuid, said: Announcement) -> Result<(), StoreError> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let now = self.clock.now();
        if let Some(version) = &said.version {
            agents::set_version(&mut ledger, agent, version, now).await?;
        }
        if let Some(list) = &said.capabilities {
            agents::set_capabilities(&mut ledger, agent, list, now).await?;
        }
        self.commit_and_refresh(ledger).await
    }
}

/// Stores the lists whose wait is over.
pub(super) async fn take_in(engine: &Arc<Engine>) {
    for (agent, said) in engine.announcements.due(engine.clock.now()) {
        if engine.fleet.load().get(agent).is_none() {
            continue;
        }
        if let Err(error) = engine.keep_announcement(agent, said.clone()).await {
            tracing::warn!(%agent, "what agent {agent} can do could not be written down, trying again: {error}");
            engine.announcements.announce(agent, said, engine.clock.now());
        }
    }
}
