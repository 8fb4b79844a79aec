//! Effects that a thread is working on. A step that exceeds its time limit is abandoned and its
//! future dropped, but its thread continues. A revert that starts meanwhile would take a half-done
//! change for the finished one, so it is refused.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::ActionError;

/// The effects that threads are working on.
#[derive(Clone, Debug, Default)]
pub struct AtWork(Arc<Mutex<BTreeSet<Uuid>>>);

/// The exclusive right to work on an effect, until it is dropped.
#[derive(Debug)]
pub struct Work {
    effect: Uuid,
    at_work: AtWork,
}

impl AtWork {
    /// Starts work on an effect.
    ///
    /// # Errors
    /// If a thread is still working on it.
    pub fn begin(&self, effect: Uuid) -> Result<Work, ActionError> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(effect) {
            Ok(Work { effect, at_work: self.clone() })
        } else {
            Err(ActionError::Failed("an earlier step that timed out is still running".into()))
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.at_work.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.effect);
    }
}
