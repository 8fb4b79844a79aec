//! The list of a feed, worked out from the ledger when it is asked for. While the ledger stands still, the last
//! list is right and costs one row. A change of the list is stored before it is given to a consumer, with a
//! revision, so that a removal is known after a restart and at every manager.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::kept::{Basis, ServedList};
use crate::domain::feed::{FeedForm, FeedSpec};
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::feeds::{self, LedgerMark};

/// A list is worked out anew after this time, whatever the ledger says.
const MAX_AGE: Duration = Duration::from_secs(30);
/// Attempts to store a change while other managers store theirs.
const ATTEMPTS: usize = 5;

/// Whether a list that was worked out from `basis` is right still.
fn stands(basis: &Basis, engine: &Engine, spec: &FeedSpec, mark: LedgerMark, now: Timestamp) -> bool {
    basis.mark == mark
        && basis.version == spec.version
        && basis.is_held_back == engine.held_back().is_some()
        && Arc::ptr_eq(&basis.fleet, &engine.fleet.load())
        && Arc::ptr_eq(&basis.protected, &engine.protected.load())
        && basis.next_change.is_none_or(|at| at > now)
        // A clock that was set back must not keep a list.
        && now >= basis.at
        && now.since(basis.at) < MAX_AGE
}

impl Engine {
    /// The feed called `name`.
    pub fn feed_spec(&self, name: &str) -> Option<Arc<FeedSpec>> {
        self.pull_feeds.specs.load().get(name).cloned()
    }

    /// The feeds of a form, by name.
    pub fn feeds_of_form(&self, form: FeedForm) -> Vec<Arc<FeedSpec>> {
        self.pull_feeds.specs.load().values().filter(|spec| spec.form == form).cloned().collect()
    }

    /// The list of a feed as it is now. Requests at the same time share the work.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the feed was deleted; or if the store cannot be read or written.
    pub async fn feed_list(&self, spec: &Arc<FeedSpec>) -> Result<ServedList, StoreError> {
        let kept = self.pull_feeds.lists.of(&spec.name);
        let mut kept = kept.lock().await;
        let (mark, now) = (feeds::stands_at(&self.db).await?, self.clock.now());
        if let Some((served, basis)) = kept.as_mut()
            && stands(basis, self, spec, mark, now)
        {
            return Ok(served.clone());
        }
        let known = kept.take().map(|(served, _)| served);
        let (served, basis) = self.worked_out(spec, known, mark).await?;
        *kept = Some((served.clone(), basis));
        Ok(served)
    }

    async fn worked_out(
        &self,
        spec: &Arc<FeedSpec>,
        mut known: Option<ServedList>,
        mark: LedgerMark,
    ) -> Result<(ServedList, Basis), StoreError> {
        for _ in 0..ATTEMPTS {
            // The ledger is read after its mark, so it is at least as new.
            let (fleet, protected) = (self.fleet.load_full(), self.protected.load_full());
            let is_held_back = self.held_back().is_some();
            let before = match known.take() {
                Some(served) if self.is_only_manager() => served,
                // Another manager may have changed the list.
                _ => self.stored_list(spec).await?,
            };
            let blocks = feeds::blocked(&self.db).await?;
            let now = self.clock.now();
            let selected = spec.select(&blocks, &fleet, &protected, now);
            let basis = Basis {
                mark,
                fleet,
                protected,
                version: spec.version,
                is_held_back,
                at: now,
                next_change: selected.next_change,
            };
            // While new blocks are held back, only what is listed already can stay.
            let stays = |value: &&String| before.list.entries.get(*value).is_some_and(|entry| entry.is_listed);
            let count = selected.entries.keys().filter(|value| !is_held_back || stays(value)).count();
            if count > spec.max_entries as usize {
                let over_since = self.note_length(spec, &before, Some(count), now).await?;
                let spec = Arc::clone(spec);
                return Ok((
                    ServedList { spec, too_many: Some(count), over_since, event: mark.events, ..before },
                    basis,
                ));
            }
            let over_since = self.note_length(spec, &before, None, now).await?;
            let mut list = Arc::clone(&before.list);
            if let Some(change) = before.list.change(spec.form, &selected, mark.events, is_held_back, now) {
                let (feed, event) = (spec.name.clone(), mark.events);
                if !self.writer.change_feed(feed, before.list.revision, change.clone(), event).await? {
                    continue;
                }
                Arc::make_mut(&mut list).apply(&change);
            }
            let spec = Arc::clone(spec);
            return Ok((ServedList { spec, list, event: mark.events, too_many: None, over_since }, basis));
        }
        Err(StoreError::Busy)
    }

    /// Whether no other manager writes this ledger, so that what is kept here is what is stored.
    fn is_only_manager(&self) -> bool {
        self.lease.peers().is_none()
    }

    async fn stored_list(&self, spec: &Arc<FeedSpec>) -> Result<ServedList, StoreError> {
        let stored = feeds::find(&self.db, &spec.name).await?.ok_or(StoreError::NotFound)?;
        let (list, spec) = (Arc::new(stored.list), Arc::clone(spec));
        Ok(ServedList { spec, list, event: stored.event, too_many: None, over_since: stored.over_since })
    }

    /// Records that a feed has become too long, or is short enough again. Returns since when it is too long.
    async fn note_length(
        &self,
        spec: &FeedSpec,
        before: &ServedList,
        too_many: Option<usize>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        if too_many.is_some() == before.over_since.is_some() {
            return Ok(before.over_since);
        }
        let detail = match too_many {
            Some(count) => {
                format!("{count} entries, and the feed may hold {}: it is served to no consumer", spec.max_entries)
            }
            None => format!("at most {} entries again", spec.max_entries),
        };
        match too_many {
            Some(_) => tracing::error!(feed = spec.name, "the feed {} has {detail}", spec.name),
            None => tracing::info!(feed = spec.name, "the feed {} has {detail}", spec.name),
        }
        let mut ledger = LedgerTx::begin(&self.db).await?;
        feeds::note_length(&mut ledger, &spec.name, too_many.is_some(), detail, now).await?;
        ledger.commit().await?;
        Ok(too_many.map(|_| now))
    }
}
