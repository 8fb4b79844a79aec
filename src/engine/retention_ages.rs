//! How long things are kept, as the configuration says it to the engine.

use std::time::Duration;

/// How long things are kept; `None`: for good.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Alerts, from their receipt.
    pub alerts: Option<Duration>,
    /// Responses with all that belongs to them, from their end.
    pub responses: Option<Duration>,
    /// Events of the feed.
    pub events: Option<Duration>,
    /// Entries of the audit log.
    pub audit: Option<Duration>,
}
