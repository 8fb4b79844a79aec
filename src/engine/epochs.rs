//! Epochs: which changes of configuration are in force in this manager. Each change has a number, in
//! the order of the commits.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::store::StoreError;
use crate::store::database::Result;

/// How long alerts wait for a change of configuration that is committed and not in force here yet.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
struct Applied {
    /// Everything up to this one is in force.
    up_to: i64,
    /// Later ones that are in force too.
    ahead: BTreeSet<i64>,
}

/// The changes that are in force here.
#[derive(Debug)]
pub(super) struct Epochs {
    applied: Mutex<Applied>,
    tell: watch::Sender<i64>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self { applied: Mutex::default(), tell: watch::Sender::new(0) }
    }
}

impl Epochs {
    /// Everything up to this number is in force.
    pub(super) fn applied(&self) -> i64 {
        *self.tell.borrow()
    }

    /// The change `epoch` is in force.
    pub(super) fn add(&self, epoch: i64) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.ahead.insert(epoch);
        self.advance(&mut applied);
    }

    /// Everything up to `epoch` is in force.
    pub(super) fn reach(&self, epoch: i64) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.up_to = applied.up_to.max(epoch);
        self.advance(&mut applied);
    }

    fn advance(&self, applied: &mut Applied) {
        let up_to = applied.up_to;
        applied.ahead.retain(|epoch| *epoch > up_to);
        while applied.ahead.first() == Some(&(applied.up_to + 1)) {
            applied.ahead.pop_first();
            applied.up_to += 1;
        }
        self.tell.send_if_modified(|told| std::mem::replace(told, applied.up_to) != applied.up_to);
    }

    /// Waits until the change `epoch` is in force, with all before it.
    ///
    /// # Errors
    /// [`StoreError::Outdated`] if that takes too long.
    pub(super) async fn reached(&self, epoch: i64) -> Result<()> {
        let mut told = self.tell.subscribe();
        let reached = tokio::time::timeout(PATIENCE, told.wait_for(|applied| *applied >= epoch)).await;
        reached.ok().and_then(std::result::Result::ok).map(drop).ok_or(StoreError::Outdated(epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_counts_once_all_before_it_are_in_force() {
        let epochs = Epochs::default();
        epochs.add(2);
        assert_eq!(epochs.applied(), 0, "the first one is missing");
        epochs.add(1);
        assert_eq!(epochs.applied(), 2);
        epochs.reach(5);
        epochs.add(4);
        epochs.add(6);
        assert_eq!(epochs.applied(), 6);
        epochs.reach(3);
        assert_eq!(epochs.applied(), 6, "never back");
        epochs.reached(6).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_does_not_come_into_force_is_not_waited_for_without_end() {
        let refused = Epochs::default().reached(1).await.unwrap_err();
        assert!(matches!(refused, StoreError::Outdated(1)));
    }
}
