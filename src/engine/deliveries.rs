//! Deliveries under way: from the look at what is protected or frozen until the commands are handed
//! to the connection. A change counts as in force once those that began before it have ended.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

/// How long a change waits at most: a slow connection holds up no freeze.
const PATIENCE: Duration = Duration::from_secs(1);
/// Interval between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A delivery under way, until it is dropped.
pub type Delivery = Arc<()>;

/// All deliveries under way.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Shared by those that have begun since the last change.
    since: ArcSwap<()>,
}

impl Deliveries {
    /// A delivery begins.
    pub fn begin(&self) -> Delivery {
        self.since.load_full()
    }

    /// Waits until those that have begun before now have ended, for a second at most.
    pub async fn ended(&self) {
        let before = self.since.swap(Arc::new(()));
        let deadline = Instant::now() + PATIENCE;
        while Arc::strong_count(&before) > 1 && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_for_deliveries_that_began_before_it_and_not_for_long() {
        let deliveries = Deliveries::default();
        deliveries.ended().await;
        let slow = deliveries.begin();
        let begun = Instant::now();
        let (first, quick) = tokio::join!(
            async {
                deliveries.ended().await;
                begun.elapsed()
            },
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // One that begins after the change holds up nothing.
                let later = deliveries.begin();
                drop(slow);
                later
            }
        );
        assert!(first >= Duration::from_millis(50) && first < Duration::from_millis(100), "{first:?}");
        let begun = Instant::now();
        deliveries.ended().await;
        assert!(begun.elapsed() >= PATIENCE, "one that does not end");
        drop(quick);
    }
}
