//! The runtime that the commands run on.

/// One thread is enough: the agent almost always waits, and an idle thread costs memory.
pub(super) fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
