//! The feed, as followers and its reader (`feed_reader.rs`) share it. A follower holds the number of
//! its last event and nothing else. What it misses here, because it is slow or has just come, it
//! reads from the store, so no follower holds up another.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, broadcast};

use crate::views::events::EventRow;

/// Batches that a follower may be behind before it reads from the store.
const BEHIND: usize = 64;
/// Followers that read from the store at the same time: deadlines need the same few connections.
const CATCHING_UP: usize = 4;

/// An event, ready to be sent.
#[derive(Debug)]
pub struct FeedEvent {
    /// Its row, by which followers filter.
    pub row: EventRow,
    /// It as a message of server-sent events.
    pub frame: Bytes,
}

/// Events that follow one another without a gap.
#[derive(Debug)]
pub struct FeedBatch {
    /// Number of the event before the first one.
    pub after: i64,
    /// Number of the last one.
    pub last: i64,
    /// The events.
    pub events: Vec<FeedEvent>,
    /// The messages of all of them.
    pub all: Bytes,
}

/// What followers and the reader share.
#[derive(Debug)]
pub struct Feed {
    pub(super) batches: broadcast::Sender<Arc<FeedBatch>>,
    /// A follower has come.
    pub(super) came: Notify,
    pub(super) catching_up: Semaphore,
    pub(super) source: String,
}

impl Feed {
    /// The feed of the manager at `public_url`.
    pub fn new(public_url: &str) -> Self {
        let source = if public_url.is_empty() { "/riposte" } else { public_url }.to_owned();
        let (batches, _) = broadcast::channel(BEHIND);
        Self { batches, came: Notify::new(), catching_up: Semaphore::new(CATCHING_UP), source }
    }

    /// Receives what is committed from now on. Subscribe before the store is asked where the feed ends.
    pub fn follow(&self) -> broadcast::Receiver<Arc<FeedBatch>> {
        let receiver = self.batches.subscribe();
        self.came.notify_one();
        receiver
    }
}
