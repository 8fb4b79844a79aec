//! Agreement between the managers that share a database: a change of configuration is answered once
//! it is in force in all of them (`epochs.rs` counts the changes). Alerts that were decided by an
//! older configuration are decided again (`intake.rs`).

use std::sync::Arc;

use super::Engine;
use crate::store::configured::changes::{self, Behind};
use crate::store::database::Result;

impl Engine {
    /// The configuration is read: from now on this manager serves, and the others wait for it.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn serve(&self) -> Result<()> {
        // In this order: what is changed from now on waits, what was changed before is read.
        self.lease.announce().await?;
        self.catch_up().await?;
        self.lease.caught_up(self.epochs.applied()).await?;
        self.duties.store(Arc::new(self.lease.claim().await?));
        Ok(())
    }

    /// A change of this manager is committed and in force here. Returns once it is in force in all managers, or they have
    /// lost their leases.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn agree(&self, epoch: i64) -> Result<()> {
        self.epochs.add(epoch);
        // One before it may be under way here, or another manager made it.
        if self.epochs.applied() < epoch {
            self.catch_up().await?;
        }
        self.deliveries.ended().await;
        if self.lease.peers().is_none() {
            return Ok(());
        }
        self.lease.publish(self.epochs.applied()).await?;
        self.peers.look();
        self.lease.agreed(epoch).await
    }

    /// Puts into force what other managers have changed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn catch_up(&self) -> Result<()> {
        let epoch = changes::stands_at(&self.db).await?.epoch;
        let applied = self.epochs.applied();
        if epoch <= applied {
            return Ok(());
        }
        let refreshed = match changes::between(&self.db, applied, epoch).await? {
            Behind::All => self.refresh_all().await,
            Behind::Caches(caches) => self.refresh_each(caches).await,
        };
        // What cannot be read will not be readable at the next attempt: it holds up nothing else.
        if refreshed.as_ref().is_err_and(|error| !error.is_corruption()) {
            return refreshed;
        }
        self.epochs.reach(epoch);
        self.deliveries.ended().await;
        self.lease.publish(self.epochs.applied()).await?;
        refreshed
    }
}
