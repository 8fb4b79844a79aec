//! The clock. Every part that needs the time receives a [`Clock`], so tests advance time instead of
//! waiting. Only this file reads the system time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use tokio::sync::Notify;

/// Longest single sleep: a clock change or a resumed machine is noticed within this time.
const MAX_SLEEP: Duration = Duration::from_secs(5);

/// A source of time; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    millis: AtomicI64,
    moved: Notify,
}

impl Clock {
    /// The system clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stays at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        let millis = AtomicI64::new(start.as_millis());
        Self(Source::Manual(Arc::new(Manual { millis, moved: Notify::new() })))
    }

    /// The current time, in milliseconds.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the clock")]
            Source::System => Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()),
            Source::Manual(manual) => Timestamp::from_millis(manual.millis.load(Ordering::SeqCst)),
        }
    }

    /// Advances a manual clock and wakes the tasks that wait for it. The system clock is
    /// unaffected.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// Waits until the clock shows `instant`.
    pub async fn sleep_until(&self, instant: Timestamp) {
        loop {
            match &self.0 {
                Source::System => {
                    let left = instant.since(self.now());
                    if left.is_zero() {
                        return;
                    }
                    tokio::time::sleep(left.min(MAX_SLEEP)).await;
                }
                Source::Manual(manual) => {
                    // Register before reading the clock, so that no advance is missed.
                    let moved = manual.moved.notified();
                    if self.now() >= instant {
                        return;
                    }
                    moved.await;
                }
            }
        }
    }

    /// Waits for `duration` by this clock.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().plus(duration)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_is_moved() {
        let clock = Clock::manual(Timestamp::from_millis(1000));
        let sleeper = clock.sleep(Duration::from_secs(10));
        tokio::pin!(sleeper);
        let early = tokio::time::timeout(Duration::from_millis(5), &mut sleeper).await;
        assert!(early.is_err());
        clock.advance(Duration::from_secs(10));
        sleeper.await;
        assert_eq!(clock.now().as_millis(), 11_000);
    }
}
