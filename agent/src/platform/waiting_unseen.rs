//! For systems that do not show what a process waits for: a program's input is closed after half of
//! its time limit. A program that reads to the end then continues, and one that asks has had that
//! long.

use std::time::Duration;

use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::Instant;

/// Decides when a program's input is closed.
#[derive(Debug)]
pub(crate) struct Watch {
    end: Instant,
}

impl Watch {
    /// Starts a watch over a program that has just started and may run for `timeout`.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { end: Instant::now() + timeout / 2 }
    }

    /// Time of the next look.
    pub(crate) fn next_look(&self) -> Instant {
        self.end
    }

    /// A write to the program changes nothing: its reaction cannot be seen.
    #[expect(clippy::unused_self, reason = "the watch of a system that shows it uses it")]
    pub(crate) fn start_anew(&mut self) {}

    /// Whether the time has passed.
    pub(crate) fn sees_waiting(&mut self, _leader: i32, _stdin: &ChildStdin, _stdout: Option<&ChildStdout>) -> bool {
        Instant::now() >= self.end
    }
}
