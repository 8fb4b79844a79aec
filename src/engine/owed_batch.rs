//! Batched queries for pending commands. A commit wakes all agents concerned at once; one query
//! serves all that asked while the previous one ran.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::database::{Db, Result, StoreError};
use crate::store::ledger::commands::{self, OwedCommand};

/// Queue capacity; each conversation has at most one request.
const QUEUE: usize = 4096;
/// Agents per query.
const MAX_AGENTS: usize = 256;

struct Ask {
    agent: Uuid,
    only_reverts: bool,
    answer: oneshot::Sender<std::result::Result<Vec<OwedCommand>, Arc<StoreError>>>,
}

/// Handle of the reader; cheap to clone.
#[derive(Clone, Debug)]
pub struct OwedReader {
    asks: mpsc::Sender<Ask>,
    db: Db,
}

impl OwedReader {
    /// Returns a reader and the task that runs it until `stop`.
    pub fn start(db: Db, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (asks, asked) = mpsc::channel(QUEUE);
        (Self { asks, db: db.clone() }, run(db, asked, stop))
    }

    /// The first pending commands of `agent`, in sending order. With `only_reverts` the result may
    /// omit all others.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn of(&self, agent: Uuid, only_reverts: bool) -> Result<Vec<OwedCommand>> {
        // An agent that is alone reads at once: two wake-ups of tasks less.
        if self.asks.capacity() == self.asks.max_capacity()
            && let Some(owed) = commands::owed_now(&self.db, agent, only_reverts)?
        {
            return Ok(owed);
        }
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { agent, only_reverts, answer }).await.map_err(|_| StoreError::Busy)?;
        let owed = answered.await.map_err(|_| StoreError::Busy)?;
        owed.map_err(StoreError::shared)
    }
}

async fn run(db: Db, mut asked: mpsc::Receiver<Ask>, stop: CancellationToken) {
    let mut asks = Vec::with_capacity(MAX_AGENTS);
    loop {
        let count = tokio::select! {
            count = asked.recv_many(&mut asks, MAX_AGENTS) => count,
            () = stop.cancelled() => return,
        };
        if count == 0 {
            return;
        }
        // During a freeze, read only reverts. Requests made before the freeze get everything.
        let (few, all): (Vec<Ask>, Vec<Ask>) = asks.drain(..).partition(|ask| ask.only_reverts);
        for (asks, only_reverts) in [(few, true), (all, false)] {
            look(&db, asks, only_reverts).await;
        }
    }
}

async fn look(db: &Db, asks: Vec<Ask>, only_reverts: bool) {
    if asks.is_empty() {
        return;
    }
    let mut agents: Vec<Uuid> = asks.iter().map(|ask| ask.agent).collect();
    agents.sort_unstable();
    agents.dedup();
    let found = commands::owed(db, agents, only_reverts).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(cause, "pending commands cannot be read: {error}");
        Arc::new(error)
    });
    for Ask { agent, answer, .. } in asks {
        // Cloned, not removed: a stream and a poll of one agent may ask at once.
        let owed = found.as_ref().map(|found| found.get(&agent).cloned().unwrap_or_default());
        let _ = answer.send(owed.map_err(Arc::clone));
    }
}
