//! The only place that reads the wall clock. Everything else is given a [`Clock`], so that a test can decide
//! what time it is.

use riposte_protocol::time::Timestamp;
use tokio::time::Instant;

/// Where the time of day comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's wall clock.
    System,
    /// A clock that read `origin` at `started` and follows the runtime's own time, which a test can pause and advance.
    Simulated {
        /// What it read at the start.
        origin: Timestamp,
        /// When that was.
        started: Instant,
    },
}

impl Clock {
    /// A clock that reads `origin` now and follows the runtime's time.
    pub fn simulated(origin: Timestamp) -> Self {
        Self::Simulated { origin, started: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => wall_clock(),
            Self::Simulated { origin, started } => origin.plus(started.elapsed()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the home of the wall clock")]
fn wall_clock() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0).plus(since_epoch)
}
