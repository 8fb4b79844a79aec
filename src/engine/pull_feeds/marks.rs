//! Which consumer was given which revision of a list. A fetch is noted in memory and written by the sweep with
//! others, so that it costs no write. A manager that is killed loses seconds of them: its consumers are told
//! again what they were told then, and are shown as if they had not fetched it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use riposte_protocol::time::Timestamp;

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
        let now: Timestamp = self.clock.now();
        let first_at = before.map(|row| row.first_at).filter(|at| Timestamp::from(*at).as_millis() > 0);
        let revision = served.list.revision;
        self.pull_feeds.marks.note(ConsumerRow {
            feed: served.spec.name.clone(),
            consumer: consumer.to_owned(),
            first_at: first_at.unwrap_or(now.into()),
            last_at: now.into(),
            address: from.to_string(),
            revision,
            before: before.map_or(revision, |row| row.revision),
            event: served.event,
            silent_since: None,
            metrics: None,
            metrics_at: None,
        });
    }
}
