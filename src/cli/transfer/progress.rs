//! Progress of an export or an import, as lines on standard error.

use std::time::{Duration, Instant};

use crate::cli::output::complain;

/// Interval between two lines.
const EVERY: Duration = Duration::from_secs(2);

/// How far it is.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    said_at: Instant,
}

impl Progress {
    /// `what` is being done to `total` rows, of which `done` are done.
    pub(super) fn new(what: &'static str, done: u64, total: u64) -> Self {
        Self { what, total, done, said_at: Instant::now() }
    }

    /// `rows` more of `table` are done.
    pub(super) fn add(&mut self, rows: u64, table: &str) {
        self.done += rows;
        if self.said_at.elapsed() >= EVERY {
            self.said_at = Instant::now();
            let percent = self.done.saturating_mul(100) / self.total.max(1);
            complain(&format!("riposte: {} {} of {} rows, {percent} % ({table})", self.what, self.done, self.total));
        }
    }
}
