//! The only place that starts tasks, so that stopping can wait for each of them. It also remembers
//! why the agent had to stop after a failure that it cannot work with. The program then ends with
//! an error, and its supervisor restarts it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The running tasks, and the token that stops them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task; `name` appears in the log when it begins and ends. A task that panics stops
    /// the agent, because its work would no longer be done.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.tracker.spawn(async move {
            tracing::trace!(task = name, "task began");
            task.await;
            tracing::trace!(task = name, "task ended");
        });
        let tasks = self.clone();
        self.tracker.spawn(async move {
            if running.await.is_err() {
                tracing::error!(task = name, "task {name} has panicked, stopping");
                tasks.fail(format!("task {name} has panicked"));
            }
        });
    }

    /// Resolves when the agent has to stop; every loop waits for it beside its own work.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the agent is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks every task to stop after its current step.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops the agent because of `reason`; the first reason is stored.
    pub fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.stop.cancel();
    }

    /// Why the agent had to stop; `None` if it was asked to.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits at most `grace` for the tasks to end; returns whether all did.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn promise_5_a_task_that_panics_ends_the_agent_so_that_it_is_started_again() {
        let tasks = Tasks::new();
        tasks.spawn("lane", async { panic!("a bug") });
        tokio::time::timeout(Duration::from_secs(10), tasks.stopped()).await.unwrap();
        assert_eq!(tasks.failure().unwrap(), "task lane has panicked");
        assert!(tasks.finish(Duration::from_secs(10)).await);
    }
}
