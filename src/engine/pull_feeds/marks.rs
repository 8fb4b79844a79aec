//! Which consumer was given which revision of a list. A fetch is noted in memory and written by the sweep with
//! others, so that it costs no write. A manager that is killed loses seconds of them: its consumers are told
//! again what they were told then, and are shown as if they had not fetched it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use riposte_protocol::time::Timestamp;

use super::lists::ServedList;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::ledger::feeds::{self, ConsumerRow};

/// A feed and one of its consumers.
type Place = (String, String);

#[derive(Debug, Default)]
struct Fetches {
    last: BTreeMap<Place, ConsumerRow>,
    unwritten: BTreeSet<Place>,
}

/// The last fetch of each consumer at this manager.
#[derive(Debug, Default)]
pub struct Marks(Mutex<Fetches>);

impl Marks {
    fn note(&self, fetch: ConsumerRow) {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (fetch.feed.clone(), fetch.consumer.clone());
        fetches.unwritten.insert(place.clone());
        fetches.last.insert(place, fetch);
    }

    /// The newer one of what is noted here and what is stored.
    fn newest(&self, feed: &str, consumer: &str, stored: Option<ConsumerRow>) -> Option<ConsumerRow> {
        let fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = fetches.last.get(&(feed.to_owned(), consumer.to_owned()));
        match (noted, stored) {
            (Some(noted), Some(stored)) if noted.last_at >= stored.last_at => {
                let ConsumerRow { silent_since, metrics, metrics_at, .. } = stored;
                Some(ConsumerRow { silent_since, metrics, metrics_at, ..noted.clone() })
            }
            (Some(noted), None) => Some(noted.clone()),
            (_, stored) => stored,
        }
    }

    /// Takes the fetches that are not written yet.
    pub(super) fn take(&self) -> Vec<ConsumerRow> {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = std::mem::take(&mut fetches.unwritten);
        places.into_iter().filter_map(|place| fetches.last.get(&place).cloned()).collect()
    }

    /// These could not be written: they are tried again.
    pub(super) fn put_back(&self, fetches: &[ConsumerRow]) {
        let places = fetches.iter().map(|fetch| (fetch.feed.clone(), fetch.consumer.clone()));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unwritten.extend(places);
    }

    /// Forgets the feeds that are not known any more.
    pub(in crate::engine) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.last.retain(|(feed, _), _| is_known(feed));
        fetches.unwritten.retain(|(feed, _)| is_known(feed));
    }
}

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
        let noted: Vec<String> = {
            let fetches = self.pull_feeds.marks.0.lock().unwrap_or_else(PoisonError::into_inner);
            fetches.last.keys().filter(|(own, _)| own == feed).map(|(_, consumer)| consumer.clone()).collect()
        };
        for consumer in noted {
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
