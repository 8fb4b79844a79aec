//! Which agents the feed says are connected, as the manager that writes these events knows it.

use std::collections::BTreeSet;

use tokio::sync::Mutex;
use uuid::Uuid;

/// The agents that the feed says are connected; `None` before it was read.
#[derive(Debug, Default)]
pub struct PresenceNews(pub(super) Mutex<Option<BTreeSet<Uuid>>>);

impl PresenceNews {
    /// Another manager writes these events now: what the feed says is read again before the next one here.
    pub async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
