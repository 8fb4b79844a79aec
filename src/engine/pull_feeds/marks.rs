//! Which consumer was given which revision of a list. A fetch is noted in memory and written by the sweep with
//! others, so that it costs no write. A manager that is killed loses seconds of them: its consumers are told
//! again what they were told then, and are shown as if they had not fetched it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use riposte_protocol::time::Timestamp;

use super::consumers::has_fetched;
use super::kept::ServedList;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::ledger::feeds::{self, ConsumerRow};

impl Engine {
    /// What is known of a consumer of a feed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn feed_consumer(&self, feed: &str, consumer: &str) -> Result<Option<ConsumerRow>, StoreError> {
        let stored = feeds::consumer(&self.db, feed, consumer).await?;
        Ok(self.pull_feeds.marks.newest(feed, consumer, stored))
    }

    /// What is known of all consumers of a feed that have fetched it or said something of themselves.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) async fn feed_consumers(&self, feed: &str) -> Result<BTreeMap<String, ConsumerRow>, StoreError> {
        let stored = feeds::consumers(&self.db, feed).await?;
        let mut known: BTreeMap<String, ConsumerRow> =
            stored.into_iter().map(|row| (row.consumer.clone(), row)).collect();
        for consumer in self.pull_feeds.marks.of(feed) {
            if let Some(newest) = self.pull_feeds.marks.newest(feed, &consumer, known.remove(&consumer)) {
                known.insert(consumer, newest);
            }
        }
        Ok(known)
    }

    /// Notes that a consumer was given a list. `before` is what is known of it.
    pub fn note_fetch(&self, served: &ServedList, consumer: &str, before: Option<&ConsumerRow>, from: IpAddr) {
        let revision = served.list.revision;
        // The revision goes back where the ledger was restored.
        let told = (before.map_or(revision, |row| row.revision.min(revision)), revision);
        self.note(served, consumer, before, from, told);
    }

    /// Notes that a bouncer asked for everything in force. Such an answer names no removal, so a bouncer that was
    /// given lists before is owed what it was owed.
    pub fn note_start(&self, served: &ServedList, consumer: &str, before: Option<&ConsumerRow>, from: IpAddr) {
        let revision = served.list.revision;
        let told = before.filter(|row| has_fetched(row)).map_or((revision, revision), |row| (row.before, row.revision));
        self.note(served, consumer, before, from, told);
    }

    /// `told` are the revisions of the answer before the last one and of the last one.
    fn note(
        &self,
        served: &ServedList,
        consumer: &str,
        known: Option<&ConsumerRow>,
        from: IpAddr,
        (before, revision): (i64, i64),
    ) {
        let now: Timestamp = self.clock.now();
        let first_at = known.map(|row| row.first_at).filter(|at| Timestamp::from(*at).as_millis() > 0);
        self.pull_feeds.marks.note(ConsumerRow {
            feed: served.spec.name.clone(),
            consumer: consumer.to_owned(),
            first_at: first_at.unwrap_or(now.into()),
            last_at: now.into(),
            address: from.to_string(),
            revision,
            before,
            event: served.event,
            silent_since: None,
            metrics: None,
            metrics_at: None,
        });
    }
}
