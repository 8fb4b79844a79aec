//! Effects that a thread is at. A step that takes too long is given up, and its future dropped; a thread goes on. Whoever
//! undid meanwhile what it has not done yet would take its middle for its end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::ActionError;

/// Who is at work.
#[derive(Clone, Debug, Default)]
pub struct AtWork(Arc<Mutex<BTreeSet<Uuid>>>);

/// The right to work on an effect, until it is dropped.
#[derive(Debug)]
pub struct Work {
    effect: Uuid,
    at_work: AtWork,
}

impl AtWork {
    /// Begins to work on an effect.
    ///
    /// # Errors
    /// If somebody is at it.
    pub fn begin(&self, effect: Uuid) -> Result<Work, ActionError> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(effect) {
            Ok(Work { effect, at_work: self.clone() })
        } else {
            Err(ActionError::Failed("a step that took too long is still at it".into()))
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.at_work.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.effect);
    }
}
