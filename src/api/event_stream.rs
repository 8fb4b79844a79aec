//! A stream of events to one client: filters what the reader of the feed passes on (`engine/feed.rs`),
//! and reads from the store what it missed. It holds the number of its last event and nothing else, so
//! a client that reads slowly costs no memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::Stream;
use riposte_protocol::time::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::front::auth;
use super::front::follower_slots::FollowerSlot;
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::principal::Principal;
use crate::engine::event_filter::EventFilter;
use crate::engine::feed::FeedBatch;
use crate::store::StoreError;
use crate::views::events::EventGap;

/// Longest silence: below the idle timeout of common proxies.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Interval between two looks at whether the caller may still read.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Milliseconds after which a client that lost its connection comes again.
const RETRY_MILLIS: u32 = 2000;
/// Last message of a stream whose caller may no longer read as before.
const REVOKED: &str = ": the credentials, the role or the scope have changed: connect again\n\n";

/// One client.
pub(super) struct Follower {
    state: AppState,
    principal: Principal,
    filter: EventFilter,
    batches: Receiver<Arc<FeedBatch>>,
    /// Number of the last event that it has, or that is not for it.
    mark: i64,
    is_behind: bool,
    beat_at: Timestamp,
    check: tokio::time::Interval,
    is_new: bool,
    is_over: bool,
    _slot: FollowerSlot,
}

impl Follower {
    /// A client that has every event up to `mark`.
    pub(super) fn new(
        state: AppState,
        principal: Principal,
        filter: EventFilter,
        batches: Receiver<Arc<FeedBatch>>,
        mark: i64,
        slot: FollowerSlot,
    ) -> Self {
        let beat_at = state.engine.clock.now().plus(HEARTBEAT);
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (is_new, is_over) = (true, false);
        Self { state, principal, filter, batches, mark, is_behind: true, beat_at, check, is_new, is_over, _slot: slot }
    }

    /// The messages of the stream, until the client is gone, the manager stops, or the caller may no longer read.
    pub(super) fn messages(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        futures_util::stream::unfold(self, |mut follower| async move {
            let message = follower.next().await?;
            Some((Ok(message), follower))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.is_new {
            self.is_new = false;
            // With a number, so that a client which loses its connection before the first event misses nothing.
            return Some(format!(": events of Riposte\nretry: {RETRY_MILLIS}\nid: {}\n\n", self.mark).into());
        }
        let stop = self.state.engine.tasks.stopping().clone();
        while !self.is_over && !stop.is_cancelled() {
            if !auth::may_go_on(&self.state.engine, &self.principal) {
                self.is_over = true;
                return Some(Bytes::from_static(REVOKED.as_bytes()));
            }
            let messages = if self.is_behind { self.catch_up().await } else { self.wait().await };
            match messages {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => {
                    self.beat_at = self.state.engine.clock.now().plus(HEARTBEAT);
                    return Some(messages);
                }
                Err(error) => {
                    // The client comes again, and goes on where it was.
                    tracing::warn!("a stream of events to {} ends: {error}", self.principal.actor);
                    return None;
                }
            }
        }
        None
    }

    /// Reads the next page from the store.
    async fn catch_up(&mut self) -> Result<Bytes, StoreError> {
        let (batch, is_last) = self.state.engine.batch_after(self.mark).await?;
        self.is_behind = !is_last;
        let mut messages = Vec::new();
        if batch.after > self.mark {
            let gap = EventGap { from: self.mark + 1, to: batch.after };
            let (to, data) = (batch.after, serde_json::to_string(&gap)?);
            messages.extend_from_slice(format!("id: {to}\nevent: gap\ndata: {data}\n\n").as_bytes());
        }
        self.take(&batch, &mut messages)?;
        Ok(messages.into())
    }

    /// Waits for the next batch, a heartbeat, or a look at the caller's rights.
    async fn wait(&mut self) -> Result<Bytes, StoreError> {
        let (clock, stop) = (self.state.engine.clock.clone(), self.state.engine.tasks.stopping().clone());
        tokio::select! {
            () = stop.cancelled() => Ok(Bytes::new()),
            received = self.batches.recv() => match received {
                Ok(batch) => self.receive(&batch),
                Err(RecvError::Lagged(_)) => {
                    self.is_behind = true;
                    Ok(Bytes::new())
                }
                Err(RecvError::Closed) => {
                    self.is_over = true;
                    Ok(Bytes::new())
                }
            },
            // The number without an event: a client to whose filter nothing fits does not fall behind.
            () = clock.sleep_until(self.beat_at) => Ok(format!(": heartbeat\nid: {}\n\n", self.mark).into()),
            _ = self.check.tick() => Ok(Bytes::new()),
        }
    }

    fn receive(&mut self, batch: &FeedBatch) -> Result<Bytes, StoreError> {
        if batch.after > self.mark {
            self.is_behind = true;
            return Ok(Bytes::new());
        }
        if batch.after == self.mark && !self.filter.takes_some() && self.principal.scopes.all().is_empty() {
            self.mark = batch.last;
            return Ok(batch.all.clone());
        }
        let mut messages = Vec::new();
        self.take(batch, &mut messages)?;
        Ok(messages.into())
    }

    /// Adds the messages of the events that are new to the client, and for it.
    fn take(&mut self, batch: &FeedBatch, messages: &mut Vec<u8>) -> Result<(), StoreError> {
        let visible = Visible::of(&self.principal.scopes, &self.state.engine);
        for event in batch.events.iter().filter(|event| event.row.seq > self.mark) {
            if self.filter.takes(&event.row)? && visible.event(&event.row)? {
                messages.extend_from_slice(&event.frame);
            }
        }
        self.mark = self.mark.max(batch.last);
        Ok(())
    }
}
