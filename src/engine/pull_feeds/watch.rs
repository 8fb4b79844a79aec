//! What the sweep does about feeds: fetches go into the store, and a consumer that must be told of a removal and
//! does not fetch is an incident, once for each outage.

use std::sync::Arc;

use super::consumers::has_fetched;
use crate::domain::feed::FeedSpec;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::feeds;
use riposte_protocol::time::Timestamp;

/// Writes the fetches at this manager, and forgets feeds that were deleted.
pub(in crate::engine) async fn write_fetches(engine: &Engine) -> Result<(), StoreError> {
    let known = engine.pull_feeds.specs.load_full();
    engine.pull_feeds.marks.retain(|feed| known.contains_key(feed));
    engine.pull_feeds.lists.retain(|feed| known.contains_key(feed));
    let fetches = engine.pull_feeds.marks.take();
    if fetches.is_empty() {
        return Ok(());
    }
    let written = engine.writer.feeds_fetched(fetches.clone()).await;
    if written.is_err() {
        engine.pull_feeds.marks.put_back(&fetches);
    }
    written.map(drop)
}

/// Looks at the consumers of every feed.
pub(in crate::engine) async fn look(engine: &Engine) -> Result<(), StoreError> {
    let specs: Vec<Arc<FeedSpec>> = engine.pull_feeds.specs.load().values().cloned().collect();
    for spec in specs {
        match of_feed(engine, &spec).await {
            // It was deleted meanwhile.
            Ok(()) | Err(StoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn of_feed(engine: &Engine, spec: &Arc<FeedSpec>) -> Result<(), StoreError> {
    let mut known = engine.feed_consumers(&spec.name).await?;
    // One whose keys were revoked is no consumer any more.
    let names = engine.names_of_consumers(&spec.name);
    known.retain(|name, _| names.contains_key(name));
    let now = engine.clock.now();
    let is_late = |last_at: Timestamp| now.since(last_at) > spec.expected_interval;
    let fetched = known.values().filter(|row| has_fetched(row));
    // The list is worked out only for consumers that are late: without one, no fetch says what was removed.
    if !fetched.clone().any(|row| is_late(row.last_at.into()) || row.silent_since.is_some()) {
        return Ok(());
    }
    let served = engine.feed_list(spec).await?;
    let consumers = engine.consumers_of(&served).await?;
    for consumer in consumers {
        let Some(last_at) = consumer.last_at.map(Timestamp::from) else { continue };
        let (feed, name, was_silent) = (spec.name.as_str(), consumer.name.as_str(), consumer.silent_since.is_some());
        let owed = consumer.owed_removed;
        let (is_silent, detail) = match (is_late(last_at), was_silent) {
            (true, false) if owed > 0 => {
                let what = if owed == 1 { "1 removal is".to_owned() } else { format!("{owed} removals are") };
                let key = if consumer.keys == 0 { "; its key has expired" } else { "" };
                (true, format!("consumer {name} fetched last at {last_at}, and {what} owed to it{key}"))
            }
            (false, true) => (false, format!("consumer {name} fetched at {last_at}")),
            _ => continue,
        };
        if is_silent {
            tracing::error!(feed, consumer = name, "feed {feed}: {detail}");
        } else {
            tracing::info!(feed, consumer = name, "feed {feed}: {detail}");
        }
        let mut ledger = LedgerTx::begin(&engine.db).await?;
        feeds::note_silence(&mut ledger, (feed, name), is_silent, detail, now).await?;
        ledger.commit().await?;
    }
    Ok(())
}
