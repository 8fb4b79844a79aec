//! Recent success and failure of the writer's commits, for the readiness check
//! (`src/engine/readiness.rs`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

#[derive(Debug)]
struct State {
    /// When one was durable last; when the writer began if none was yet.
    durable_at: Instant,
    /// Whether one was at all.
    has_committed: bool,
    /// When one failed last that was more than a probe, and why.
    failed: Option<(Instant, String)>,
    /// Why the last one, of any kind, was not durable; `None` if it was.
    fault: Option<String>,
}

/// How the writer's commits have gone of late.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(State { durable_at: Instant::now(), failed: None, fault: None, has_committed: false }))
    }
}

impl Progress {
    /// A commit ended, with this error if it failed.
    pub(super) fn note(&self, error: Option<&StoreError>, is_probe: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.fault = error.map(StoreError::in_words);
        match error {
            None => (state.durable_at, state.has_committed) = (Instant::now(), true),
            Some(StoreError::Unavailable(_)) if !is_probe => {
                state.failed = state.fault.clone().map(|why| (Instant::now(), why));
            }
            Some(_) => {}
        }
    }

    /// How long ago something was durable last.
    pub fn since_durable(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).durable_at.elapsed()
    }

    /// Whether the last commit was durable, and not longer than `period` ago.
    pub fn is_fresh(&self, period: Duration) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_committed && state.fault.is_none() && state.durable_at.elapsed() < period
    }

    /// Why the last commit failed, if it did.
    pub fn fault(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fault.clone()
    }

    /// Why a commit failed within `period`, if one did. A small probe may find room where a large request does not.
    pub fn failed_within(&self, period: Duration) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.as_ref().filter(|(at, _)| at.elapsed() < period).map(|(_, why)| why.clone())
    }
}
