//! What every bench, the agent's too, is built on: settings, one thread, and a directory on a real
//! disk.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};

use super::report;

/// Returns the value of an environment variable, or `default` if it is not set.
///
/// # Errors
/// If the value does not parse.
pub(crate) fn knob<T: FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text} is not a number that fits")),
        Err(_) => Ok(default),
    }
}

/// Runs `work` on one thread: the load shares its cores with the server and must not take both.
///
/// # Errors
/// Those of `work`.
pub(crate) fn run<F: Future<Output = anyhow::Result<()>>>(work: F) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Creates a directory on a real disk, removed when it is dropped.
///
/// # Errors
/// If only a memory file system is there: a flush that costs nothing makes every figure wrong.
pub(crate) fn disk() -> anyhow::Result<tempfile::TempDir> {
    let parent =
        std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent)?;
    let parent = parent.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(place, _)| parent.starts_with(place))
        .max_by_key(|(place, _)| place.len())
        .map_or("?", |(_, kind)| kind);
    if ["tmpfs", "ramfs"].contains(&kind) {
        bail!("{} is memory ({kind}); set BENCH_DIR to a directory on a disk", parent.display());
    }
    report::say(&format!("data on {kind}, {}", parent.display()));
    Ok(tempfile::Builder::new().prefix("riposte-bench-").tempdir_in(parent)?)
}
