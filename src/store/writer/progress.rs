//! How the writer's commits have gone of late: for the readiness check (`src/engine/readiness.rs`),
//! and for those whose change was not committed, who are told why.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::store::StoreError;

/// How long after a change was given up its fault is waited for. It is noted at once, unless the writer has ended.
const SOON: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct State {
    /// Last durable commit, or the writer's start before the first one.
    durable_at: Instant,
    /// Whether any commit was durable.
    has_committed: bool,
    /// When one failed last for want of room that was more than a probe, and why.
    failed: Option<(Instant, String)>,
    /// When the last one, of any kind, was found not to be durable, and why; `None` if it was durable.
    fault: Option<(Instant, Arc<StoreError>)>,
}

/// Recent success and failure of commits.
#[derive(Debug)]
pub struct CommitProgress {
    state: Mutex<State>,
    noted: Notify,
}

impl Default for CommitProgress {
    fn default() -> Self {
        let state = State { durable_at: Instant::now(), failed: None, fault: None, has_committed: false };
        Self { state: Mutex::new(state), noted: Notify::new() }
    }
}

impl CommitProgress {
    /// A commit ended, with this error if it failed.
    pub(super) fn note(&self, error: Option<&Arc<StoreError>>, is_probe: bool) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fault = error.map(|error| (now, Arc::clone(error)));
        match error {
            None => {
                (state.durable_at, state.has_committed) = (now, true);
            }
            Some(error) if error.is_full() && !is_probe => state.failed = Some((now, error.in_words())),
            Some(_) => {}
        }
        drop(state);
        self.noted.notify_waiters();
    }

    /// Time since the last durable commit.
    pub fn since_durable(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).durable_at.elapsed()
    }

    /// Whether the last commit succeeded within `period`.
    pub fn is_fresh(&self, period: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_committed && state.fault.is_none() && state.durable_at.elapsed() < period
    }

    /// Error of the last commit, if it failed.
    pub fn fault(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fault.as_ref().map(|(_, error)| error.in_words())
    }

    /// How long ago a commit failed for want of room, and why, if one did within `period`: a small commit may find room where a
    /// large one does not. Whatever else fails is over with the next commit.
    pub fn failed_within(&self, period: Duration) -> Option<(Duration, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, why) = state.failed.as_ref()?;
        Some((at.elapsed(), why.clone())).filter(|(ago, _)| *ago < period)
    }

    /// Why a change that was asked for at `asked` was given up with its group: the first fault that is noted after that.
    pub(super) async fn fault_since(&self, asked: Instant) -> StoreError {
        let found = async {
            loop {
                let noted = self.noted.notified();
                if let Some(error) = self.noted_since(asked) {
                    return StoreError::Shared(error);
                }
                noted.await;
            }
        };
        timeout(SOON, found).await.unwrap_or(StoreError::Busy)
    }

    fn noted_since(&self, asked: Instant) -> Option<Arc<StoreError>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fault.as_ref().filter(|(at, _)| *at >= asked).map(|(_, error)| Arc::clone(error))
    }
}
