//! Recent success and failure of the writer's commits, for the readiness check
//! (`src/engine/readiness.rs`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

#[derive(Debug)]
struct State {
    /// Last durable commit, or the writer's start before the first one.
    durable_at: Instant,
    /// Whether any commit was durable.
    has_committed: bool,
    /// Last failed commit that was not a probe, and its error.
    failed: Option<(Instant, String)>,
    /// Error of the last commit of any kind; `None` if it succeeded.
    fault: Option<String>,
}

/// Recent success and failure of commits.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(State { durable_at: Instant::now(), failed: None, fault: None, has_committed: false }))
    }
}

impl Progress {
    /// Records the end of a commit, with its error if it failed.
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

    /// Time since the last durable commit.
    pub fn since_durable(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).durable_at.elapsed()
    }

    /// Whether the last commit succeeded within `period`.
    pub fn is_fresh(&self, period: Duration) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_committed && state.fault.is_none() && state.durable_at.elapsed() < period
    }

    /// Error of the last commit, if it failed.
    pub fn fault(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fault.clone()
    }

    /// Error of a commit that failed within `period`. A small probe may succeed where a large
    /// request does not.
    pub fn failed_within(&self, period: Duration) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.as_ref().filter(|(at, _)| at.elapsed() < period).map(|(_, why)| why.clone())
    }
}
