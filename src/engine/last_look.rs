//! The last result of an expensive check or read, kept for a second: requests that come at once
//! share one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long a result is cached.
pub(super) const KEEP: Duration = Duration::from_secs(1);

/// The cached result and its time.
#[derive(Debug)]
pub struct LastLook<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for LastLook<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> LastLook<T> {
    /// The last result, however old.
    pub(super) async fn last(&self) -> Option<Arc<T>> {
        self.0.lock().await.as_ref().map(|(_, found)| Arc::clone(found))
    }

    /// The last result if it is fresh, or else that of `look`, which is called with the last one.
    pub(super) async fn fresh<F: Future<Output = T>>(&self, look: impl FnOnce(Option<Arc<T>>) -> F) -> Arc<T> {
        // The lock is held meanwhile: concurrent requests wait for one result. A request that is
        // cancelled releases it, and the next one looks.
        let mut last = self.0.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < KEEP
        {
            return Arc::clone(found);
        }
        let found = Arc::new(look(last.as_ref().map(|(_, found)| Arc::clone(found))).await);
        *last = Some((Instant::now(), Arc::clone(&found)));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn concurrent_requests_share_one_look() {
        let (cache, looks, end) = (LastLook::default(), AtomicUsize::new(0), Notify::new());
        let request = || {
            cache.fresh(|_| async {
                end.notified().await;
                looks.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        let (found, ()) = tokio::join!(join_all((0..50).map(|_| request())), async { end.notify_one() });
        assert!(found.iter().all(|number| **number == 1), "{found:?}");
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_look_that_is_cancelled_is_made_by_the_next_request() {
        let cache = LastLook::default();
        let cancelled = cache.fresh(|_| std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(1), cancelled).await.is_err());
        assert_eq!(*cache.fresh(|_| async { 2 }).await, 2);
        assert_eq!(*cache.fresh(|_| async { 3 }).await, 2, "within a second");
        cache.0.lock().await.as_mut().unwrap().0 -= KEEP;
        assert_eq!(*cache.fresh(|last| async move { *last.unwrap() + 10 }).await, 12, "after a second");
    }
}
