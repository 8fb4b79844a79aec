//! The consumers of a feed: the names of the keys that are bound to it, what each was given last, and what it
//! must still be told. Two keys of one name are one consumer, so that one replaces the other without a gap.

use std::collections::BTreeMap;
use std::sync::Arc;

use riposte_protocol::time::Timestamp;

use super::kept::ServedList;
use crate::domain::feed::FeedSpec;
use crate::domain::principal::{Credentials, Principal};
use crate::domain::right::Right;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::ledger::feeds::ConsumerRow;
use crate::views::columns::Millis;
use crate::views::effects::EffectFeed;
use crate::views::feeds::FeedConsumer;

impl Engine {
    /// The names of the keys that are bound to a feed, with the number of valid keys of each. A consumer whose key has
    /// expired blocks what it has still, until an administrator revokes the key.
    pub(super) fn names_of_consumers(&self, feed: &str) -> BTreeMap<String, i64> {
        let now = self.clock.now();
        let mut names = BTreeMap::new();
        for stored in self.keys.load().values() {
            let key = &stored.key;
            let is_bound = key.scope.feeds_alone().is_some_and(|feeds| feeds.iter().any(|own| own == feed));
            if is_bound
                && key.revoked_at.is_none()
                && key.user.is_none()
                && !key.is_webhook
                && key.role.may(Right::PullFeeds)
            {
                *names.entry(key.name.clone()).or_insert(0) += i64::from(stored.is_valid(now));
            }
        }
        names
    }

    /// The name of the consumer whose key a request has; `None` for a caller that looks at a feed and is no consumer.
    pub fn consumer_name(&self, principal: &Principal) -> Option<String> {
        principal.feeds()?;
        let Credentials::Key(id) = &principal.via else { return None };
        self.keys.load().get(id).map(|stored| stored.key.name.clone())
    }

    /// The consumers of a feed, by name, with what they must still be told.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn consumers_of(&self, served: &ServedList) -> Result<Vec<FeedConsumer>, StoreError> {
        let mut known = self.feed_consumers(&served.spec.name).await?;
        let now = self.clock.now();
        let names = self.names_of_consumers(&served.spec.name);
        Ok(names.into_iter().map(|(name, keys)| view(name.clone(), keys, known.remove(&name), served, now)).collect())
    }

    /// The feeds that list or listed `target`, and how many of their consumers know.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn feeds_of_target(&self, target: &str) -> Result<Vec<EffectFeed>, StoreError> {
        let mut found = Vec::new();
        let specs: Vec<Arc<FeedSpec>> = self.pull_feeds.specs.load().values().cloned().collect();
        for spec in specs {
            let served = match self.feed_list(&spec).await {
                // It was deleted meanwhile.
                Err(StoreError::NotFound) => continue,
                served => served?,
            };
            let Some(entry) = served.list.entries.get(target) else { continue };
            let known = self.feed_consumers(&spec.name).await?;
            let names = self.names_of_consumers(&spec.name);
            let knows =
                |name: &&String| known.get(*name).is_some_and(|row| has_fetched(row) && row.revision >= entry.revision);
            let fetched_by = names.keys().filter(knows).count();
            found.push(EffectFeed {
                feed: spec.name.clone(),
                is_removed: !entry.is_listed,
                fetched_by: i64::try_from(fetched_by).unwrap_or(i64::MAX),
                consumers: i64::try_from(names.len()).unwrap_or(i64::MAX),
            });
        }
        Ok(found)
    }
}

/// Whether a consumer has ever fetched: one that has only said something of itself has not.
pub(super) fn has_fetched(row: &ConsumerRow) -> bool {
    Timestamp::from(row.last_at).as_millis() > 0
}

fn view(name: String, keys: i64, known: Option<ConsumerRow>, served: &ServedList, now: Timestamp) -> FeedConsumer {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let fetched = known.as_ref().filter(|row| has_fetched(row));
    let owed = match fetched {
        Some(row) => served.list.owed(served.spec.form, row.revision, now),
        // It has nothing that must be removed.
        None => crate::domain::feed_list::OwedEntries { new: served.list.listed().count(), removed: 0 },
    };
    let silent_since = fetched.and_then(|row| row.silent_since);
    let time = |of: fn(&ConsumerRow) -> Millis| fetched.map(of);
    FeedConsumer {
        name,
        keys,
        first_at: time(|row| row.first_at),
        last_at: time(|row| row.last_at),
        address: fetched.map(|row| row.address.clone()),
        sequence: fetched.map(|row| row.event),
        owed_new: count(owed.new),
        owed_removed: count(owed.removed),
        silent_since,
        metrics_at: known.as_ref().and_then(|row| row.metrics_at),
        metrics: known.and_then(|row| row.metrics),
    }
}
