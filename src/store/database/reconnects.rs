//! Connections that are too old to use. After a failover a pool may still hold connections to the former
//! primary, which is read-only now and behind; and a session that began read-only stays so. So the first
//! write that is refused for that reason makes every open connection of the manager too old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::StoreError;

/// At most one time in this interval: meanwhile the database may be read-only on purpose.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// When connections were given up, shared by all pools.
#[derive(Clone, Debug, Default)]
pub struct Reconnects(Arc<Mutex<Option<Instant>>>);

impl Reconnects {
    /// Gives up every connection that is open now if `error` says that the server refuses writes: the next one
    /// may lead to another server, or to a session that can write.
    pub(in crate::store) fn after(&self, error: &StoreError) {
        if !error.is_read_only() {
            return;
        }
        let mut given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given_up.is_none_or(|at| at.elapsed() >= AT_MOST_EVERY) {
            *given_up = Some(Instant::now());
        }
    }

    /// Whether a connection of this age can be used.
    pub(super) fn is_usable(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|at| age < at.elapsed())
    }
}
