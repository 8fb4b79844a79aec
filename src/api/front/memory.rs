//! Memory for request bodies: bounded by permits, one budget per kind of caller.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, ApiResult};

/// `Retry-After` in seconds when the memory budget is exhausted.
const FULL_RETRY_SECS: u64 = 1;

/// A memory budget in bytes, shared by concurrent requests.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Semaphore>);

impl MemoryBudget {
    /// Creates a budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes a permit for `bytes`, if available.
    pub fn take(&self, bytes: usize) -> ApiResult<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        taken.map_err(|_| {
            ApiError::unavailable("the memory for request bodies is in use; retry after 1 s", FULL_RETRY_SECS)
        })
    }
}

/// Memory budgets for request bodies, one per kind of caller, so that one kind cannot exhaust the
/// budget of another.
#[derive(Clone, Debug)]
pub struct MemoryBudgets {
    /// Alerts, until they are committed.
    pub alerts: MemoryBudget,
    /// Requests with an API key, until they are parsed.
    pub people: MemoryBudget,
    /// Polls of agents, until they are parsed.
    agents: MemoryBudget,
    /// Unauthenticated requests.
    unauthenticated: MemoryBudget,
}

impl MemoryBudgets {
    /// Creates the budgets; `alerts` is the one for alerts, in bytes.
    pub fn new(alerts: usize) -> Self {
        const AUTHENTICATED: usize = 64 * 1024 * 1024;
        const UNAUTHENTICATED: usize = 8 * 1024 * 1024;
        let [people, agents] = [AUTHENTICATED; 2].map(MemoryBudget::new);
        Self { alerts: MemoryBudget::new(alerts), people, agents, unauthenticated: MemoryBudget::new(UNAUTHENTICATED) }
    }

    /// The budget for JSON bodies on this path.
    pub(in crate::api) fn of(&self, path: &str) -> &MemoryBudget {
        match path {
            "/v1/agent/poll" | "/v1/agent/key" => &self.agents,
            "/v1/agents/enroll" => &self.unauthenticated,
            _ => &self.people,
        }
    }
}
