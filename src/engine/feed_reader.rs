//! The reader of the feed: one task reads new events from the store and passes them on to all
//! followers, each event rendered once. Two hundred followers cost one read. Without a follower
//! nothing is read.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::feed::{FeedBatch, FeedEvent};
use crate::domain::event::EventType;
use crate::store::StoreError;
use crate::store::ledger::events::{self, EventBounds, LooseEvent};
use crate::views::events::{CloudEvent, EventRow};

/// Events per read.
const PAGE: i64 = 500;
/// Delay after a commit, so that commits of the same moment share a read.
const COALESCE: Duration = Duration::from_millis(8);
/// Additional delay after a batch for each follower: every batch is a write on each connection, so
/// their number is bounded to about 2,000 a second however many followers there are.
const PACE: Duration = Duration::from_micros(500);
/// Longest delay for that reason.
const PACE_MAX: Duration = Duration::from_millis(200);
/// Interval between two looks without a commit here: other managers may write to the same database.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// The event of a row.
    pub fn cloud_event(&self, row: EventRow) -> CloudEvent {
        let agent = row.agent_id.as_deref().and_then(|id| id.parse().ok());
        let agent = agent.and_then(|agent| self.db.names().agent(agent));
        let d3fend = self.countermeasures(row.action.as_deref());
        row.cloud_event(&self.feed.source, agent, d3fend)
    }

    /// Events after `mark` from the store, at most `limit`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn events_after(&self, mark: i64, limit: i64) -> Result<Vec<EventRow>, StoreError> {
        let _permit = self.feed.catching_up.acquire().await.map_err(|_| StoreError::Busy)?;
        events::after(&self.db, mark, limit).await
    }

    /// The next batch after `mark` from the store, and whether it reaches the end of the feed. It begins later
    /// than behind `mark` if retention has removed events in between.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn batch_after(&self, mark: i64) -> Result<(FeedBatch, bool), StoreError> {
        let rows = self.events_after(mark, PAGE).await?;
        let is_last = i64::try_from(rows.len()).unwrap_or(PAGE) < PAGE;
        let mut batch = self.batch(rows, mark)?;
        if batch.events.is_empty() {
            // Everything behind the mark may have been removed. What was committed since the read comes with the next one.
            let bounds = self.event_bounds().await?;
            if !bounds.reach(mark) {
                let last = bounds.last.max(mark);
                (batch.after, batch.last) = (last, last);
            }
        }
        Ok((batch, is_last))
    }

    /// Which events are kept.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn event_bounds(&self) -> Result<EventBounds, StoreError> {
        events::bounds(&self.db).await
    }

    fn batch(&self, rows: Vec<EventRow>, mark: i64) -> Result<FeedBatch, StoreError> {
        let after = rows.first().map_or(mark, |row| row.seq - 1);
        let last = rows.last().map_or(mark, |row| row.seq);
        let (mut events, mut all) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let data = serde_json::to_string(&self.cloud_event(row.clone()))?;
            // JSON has no line breaks outside its texts, where they are escaped.
            let frame = format!("id: {}\nevent: {}\ndata: {data}\n\n", row.seq, row.r#type);
            all.extend_from_slice(frame.as_bytes());
            events.push(FeedEvent { row, frame: frame.into() });
        }
        Ok(FeedBatch { after, last, events, all: all.into() })
    }
}

/// Says that this manager has started, passes on events until it stops, and says so.
pub(super) async fn run(engine: &Engine) {
    say(engine, EventType::NodeStarted).await;
    let stop = engine.tasks.stopping().clone();
    loop {
        tokio::select! {
            () = engine.feed.came.notified() => {}
            () = stop.cancelled() => break,
        }
        tokio::select! {
            read = pass_on(engine) => if let Err(error) = read {
                tracing::warn!("events could not be read for followers, retrying: {error}");
                // Those that follow still wait.
                engine.feed.came.notify_one();
                tokio::time::sleep(LOOK_EVERY).await;
            },
            () = stop.cancelled() => break,
        }
    }
    say(engine, EventType::NodeStopped).await;
}

/// Passes on events as long as there are followers.
async fn pass_on(engine: &Engine) -> Result<(), StoreError> {
    let feed = &engine.feed;
    let mut mark = engine.event_bounds().await?.last;
    // A follower that asked the store before now reads there what it misses.
    let mut batch = engine.batch(Vec::new(), mark)?;
    // The receiver count is looked at after each batch; the send fails only without receivers.
    while feed.batches.receiver_count() > 0 {
        if batch.last > mark || batch.events.is_empty() {
            mark = batch.last;
            let _ = feed.batches.send(Arc::new(batch));
            let followers = u32::try_from(feed.batches.receiver_count()).unwrap_or(u32::MAX);
            tokio::time::sleep(PACE.saturating_mul(followers).min(PACE_MAX)).await;
        }
        batch = loop {
            tokio::select! {
                () = engine.db.feed().notified() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let rows = events::after(&engine.db, mark, PAGE).await?;
            if !rows.is_empty() {
                if i64::try_from(rows.len()).unwrap_or(PAGE) >= PAGE {
                    // There may be more, of which no further commit would tell.
                    engine.db.feed().notify_one();
                }
                break engine.batch(rows, mark)?;
            }
            if feed.batches.receiver_count() == 0 {
                return Ok(());
            }
        };
    }
    Ok(())
}

async fn say(engine: &Engine, kind: EventType) {
    let (noun_id, actor) = (engine.lease.node().to_owned(), "riposte".to_owned());
    let detail = format!("version {}", env!("CARGO_PKG_VERSION"));
    let told = LooseEvent { kind, noun: "node", noun_id, actor, detail };
    if let Err(error) = engine.writer.tell(vec![told]).await {
        tracing::warn!("the event {} could not be written: {error}", kind.as_str());
    }
}
