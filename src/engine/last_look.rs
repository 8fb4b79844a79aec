//! The last result of the readiness check, kept for a second: requests that come at once share one
//! check. The log has one line for each change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long a result is cached.
pub(super) const KEEP: Duration = Duration::from_secs(1);

/// The cached result and its time.
#[derive(Debug, Default)]
pub struct LastLook(Mutex<Option<(Instant, Arc<Vec<String>>)>>);

impl LastLook {
    /// Whether the last check found a problem.
    pub(super) async fn was_wrong(&self) -> bool {
        self.0.lock().await.as_ref().is_some_and(|(_, found)| !found.is_empty())
    }

    /// The problems that the last check found, if it is fresh, or else those that `look` finds.
    pub(super) async fn fresh(&self, look: impl Future<Output = Vec<String>>) -> Arc<Vec<String>> {
        // The lock is held during the check: concurrent requests share one result.
        let mut last = self.0.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < KEEP
        {
            return Arc::clone(found);
        }
        let found = Arc::new(look.await);
        let was_ready = last.as_ref().is_none_or(|(_, before)| before.is_empty());
        match (was_ready, found.is_empty()) {
            (true, false) => tracing::warn!("not ready: {}", found.join("; ")),
            (false, true) => tracing::info!("ready again"),
            _ => {}
        }
        *last = Some((Instant::now(), Arc::clone(&found)));
        found
    }
}
