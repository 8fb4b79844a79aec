//! The runtime that the commands run on.

use std::time::Duration;

/// Time limit for threads to finish after the work.
const THREADS_GRACE: Duration = Duration::from_secs(10);

/// One thread is enough: the agent almost always waits, and an idle thread costs memory.
pub(super) fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A thread that reads from a disk which does not answer must not keep the process alive.
    runtime.shutdown_timeout(THREADS_GRACE);
    done
}
