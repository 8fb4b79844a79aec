//! Bounds of every connection, to either database.

use std::time::Duration;

/// How long a request waits for a connection before it is answered 503.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements cached per connection: every constant, and each size of the many-row
/// statements.
pub(super) const STATEMENTS: usize = 1024;
