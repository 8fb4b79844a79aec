//! Starting and stopping tasks. Every task is spawned through [`Tasks`], which names it, counts it
//! and detects its unexpected end: a manager without one of its stages must not look alive.
//!
//! The first signal starts a graceful shutdown: finish open work, and tell agents to reconnect. The
//! second signal, or the deadline, ends at once.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time limit of a graceful shutdown.
pub const GRACE: Duration = Duration::from_secs(20);

/// All tasks of the program; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    stages: TaskTracker,
    connections: TaskTracker,
    stop: CancellationToken,
    finish: CancellationToken,
    failed: CancellationToken,
}

impl Tasks {
    /// An empty set of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the program is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Cancelled when every connection has ended, for tasks that connections need until then, such
    /// as the writer.
    pub fn finishing(&self) -> &CancellationToken {
        &self.finish
    }

    /// Asks all tasks to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Spawns `task`, which must end when [`Tasks::stopping`] or [`Tasks::finishing`] is cancelled.
    /// An earlier end, or a panic, stops the program.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        #[expect(clippy::disallowed_methods, reason = "this is where tasks are spawned")]
        let handle = tokio::spawn(task);
        #[expect(clippy::disallowed_methods, reason = "this is where tasks are spawned")]
        drop(tokio::spawn(self.stages.track_future(async move {
            let ended = handle.await;
            tracing::debug!(task = name, "task {name} has ended");
            if !stop.is_cancelled() {
                let cause = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                tracing::error!(task = name, cause, "task {name} ended unexpectedly, stopping");
                failed.cancel();
                stop.cancel();
            }
        })));
    }

    /// As [`Tasks::spawn`], in a thread of its own: for a task that blocks its thread.
    pub fn spawn_aside<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Handle::current();
        let (ends, end) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(task);
            drop(ends);
        });
        self.spawn(name, async move {
            match thread {
                // Also if the thread panics.
                Ok(_) => drop(end.await),
                Err(error) => tracing::error!("no thread for task {name}: {error}"),
            }
        });
    }

    /// Asks all tasks to stop after a failure; the program's exit code reports it.
    pub fn fail(&self) {
        self.failed.cancel();
        self.stop.cancel();
    }

    /// Whether a task ended too early, or [`Tasks::fail`] was called.
    pub fn has_failed(&self) -> bool {
        self.failed.is_cancelled()
    }

    /// Runs a task that shutdown does not wait for, such as a signal listener.
    pub fn watch<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is where tasks are spawned")]
        drop(tokio::spawn(task));
    }

    /// Spawns a short task that may end at any time, such as one connection.
    pub fn spawn_short<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is where tasks are spawned")]
        drop(tokio::spawn(self.connections.track_future(task)));
    }

    /// Waits until every connection and then every stage has ended, each for at most `grace`;
    /// returns whether they have.
    pub async fn ended(&self, grace: Duration) -> bool {
        self.connections.close();
        let quiet = tokio::time::timeout(grace, self.connections.wait()).await.is_ok();
        self.finish.cancel();
        self.stages.close();
        quiet && tokio::time::timeout(grace, self.stages.wait()).await.is_ok()
    }
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts listening; no later signal is lost.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
