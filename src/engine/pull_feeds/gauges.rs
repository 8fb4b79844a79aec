//! What the metrics show of feeds and their consumers.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;

use super::consumers::has_fetched;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::ledger::feeds;

/// What the metrics show.
#[derive(Debug, Default)]
pub(in crate::engine) struct FeedGauges {
    /// Each feed, and whether it is not served because there is more to list than it may hold.
    pub(in crate::engine) feeds: Vec<(String, bool)>,
    /// Each consumer.
    pub(in crate::engine) consumers: Vec<ConsumerGauge>,
}

/// A consumer of a feed.
#[derive(Debug)]
pub(in crate::engine) struct ConsumerGauge {
    pub(in crate::engine) feed: String,
    pub(in crate::engine) consumer: String,
    /// Its last fetch.
    pub(in crate::engine) fetched_at: Option<Timestamp>,
    /// Whether it stays away while a removal is owed to it.
    pub(in crate::engine) is_silent: bool,
}

impl Engine {
    /// Reads what the metrics show of feeds. Lists are not worked out for it, since a scrape needs no key.
    pub(in crate::engine) async fn feed_gauges(&self) -> Result<FeedGauges, StoreError> {
        let mut gauges = FeedGauges::default();
        let specs = self.pull_feeds.specs.load_full();
        if specs.is_empty() {
            return Ok(gauges);
        }
        let too_long: BTreeMap<String, bool> = feeds::too_long(&self.db).await?.into_iter().collect();
        let mut stored: BTreeMap<_, _> = feeds::all_consumers(&self.db)
            .await?
            .into_iter()
            .map(|row| ((row.feed.clone(), row.consumer.clone()), row))
            .collect();
        for feed in specs.keys() {
            gauges.feeds.push((feed.clone(), too_long.get(feed).copied().unwrap_or_default()));
            for consumer in self.names_of_consumers(feed).into_keys() {
                let known = stored.remove(&(feed.clone(), consumer.clone()));
                let known = self.pull_feeds.marks.newest(feed, &consumer, known).filter(has_fetched);
                let fetched_at = known.as_ref().map(|row| Timestamp::from(row.last_at));
                let is_silent = known.is_some_and(|row| row.silent_since.is_some());
                gauges.consumers.push(ConsumerGauge { feed: feed.clone(), consumer, fetched_at, is_silent });
            }
        }
        Ok(gauges)
    }
}
