//! One reading of both clocks.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

/// One instant, read on both clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since the host's start.
    pub since_boot: Duration,
    /// The boot id of that start.
    pub boot: Arc<str>,
}
