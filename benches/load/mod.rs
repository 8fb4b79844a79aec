//! What the benches share: the server under load as a child process, a client that costs little (both share the same
//! cores), alerts and agents to load it with, the floors that the figures are held against, and the table that is
//! printed. Everything is in the open: nothing here may know of a shortcut that a pipeline or an agent has not.

pub(crate) mod agents;
pub(crate) mod alerts;
pub(crate) mod floor;
pub(crate) mod http;
pub(crate) mod report;
pub(crate) mod server;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// The value of an environment variable, or `default` if it is not set.
///
/// # Errors
/// If it is set to something else than is expected.
pub(crate) fn knob<T: FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text} is not a number that fits")),
        Err(_) => Ok(default),
    }
}

/// Runs `work` on one thread: the load shares its cores with the server and must not take both.
///
/// # Errors
/// Whatever `work` says.
pub(crate) fn run<F: Future<Output = anyhow::Result<()>>>(work: F) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// A fresh directory on a real disk, removed when it is dropped.
///
/// # Errors
/// If there is only memory to write to: a flush that costs nothing makes every figure a lie.
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

/// Starts this program again with room for `files` open files, if it has less.
///
/// # Errors
/// If the system does not allow that many.
pub(crate) fn make_room(files: u64) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("no limit of open files")?;
    if soft == "unlimited" || soft.parse::<u64>()? >= files {
        return Ok(());
    }
    if std::env::var_os("BENCH_HAS_ROOM").is_some() {
        bail!("{files} open files are needed and only {soft} are allowed: ulimit -Hn {files}");
    }
    let program = std::env::current_exe()?;
    let mut shell = std::process::Command::new("sh");
    shell.env("BENCH_HAS_ROOM", "1").args(["-c", "ulimit -n \"$0\"; exec \"$@\"", &files.to_string()]);
    Err(shell.arg(program).args(std::env::args_os().skip(1)).exec().into())
}
