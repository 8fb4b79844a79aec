//! Where the system does not show what a process waits for: a program that is talked to is told the end of its input when
//! half of its time is over. One that reads to the end goes on then, and one that asks has had that long to do it.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::time::Instant;

/// When a program's input is to be closed.
#[derive(Debug)]
pub(super) struct Watch {
    end: Instant,
}

impl Watch {
    /// A watch over a program that has begun now and may run for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { end: Instant::now() + timeout / 2 }
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Instant {
        self.end
    }

    /// The program was told something; what it does with it does not show.
    #[expect(clippy::unused_self, reason = "the watch of a system that shows it uses it")]
    pub(super) fn start_anew(&mut self) {}

    /// Whether the time is over.
    pub(super) fn sees_waiting(&mut self, _leader: i32, _stdin: &impl AsFd, _stdout: Option<&impl AsFd>) -> bool {
        Instant::now() >= self.end
    }
}
