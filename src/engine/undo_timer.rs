//! When the undo stage checks again: at the time that it planned, or earlier when a commit brings a
//! response that ends sooner. A wake-up is a hint; the stage reads the store.

use std::sync::atomic::{AtomicI64, Ordering};

use riposte_protocol::time::Timestamp;
use tokio::sync::Notify;

use crate::clock::Clock;

/// Wake-ups of the undo stage.
#[derive(Debug)]
pub struct UndoTimer {
    planned: AtomicI64,
    sooner: Notify,
}

impl Default for UndoTimer {
    fn default() -> Self {
        Self { planned: AtomicI64::new(i64::MIN), sooner: Notify::new() }
    }
}

impl UndoTimer {
    /// Wakes the stage after any change.
    pub fn look_again(&self) {
        self.sooner.notify_one();
    }

    /// Schedules a check at `at`, if the next one is later.
    pub fn expect(&self, at: Timestamp) {
        if at.as_millis() < self.planned.load(Ordering::SeqCst) {
            self.sooner.notify_one();
        }
    }

    /// Begins a check. A commit during it sees no plan, and wakes the stage.
    pub(super) fn begin(&self) {
        self.planned.store(i64::MAX, Ordering::SeqCst);
    }

    /// Plans the next check at `at`, and waits for it or for a wake-up.
    pub(super) async fn wait(&self, clock: &Clock, at: Timestamp) {
        self.planned.store(at.as_millis(), Ordering::SeqCst);
        tokio::select! {
            () = clock.sleep_until(at) => {}
            () = self.sooner.notified() => {}
        }
    }
}
