//! What the benches share: the server as a child process, a cheap client, alerts and agents to load
//! the server with, the limits to compare with, and the printed table. Client and server share the
//! same cores. The benches use only what a pipeline or an agent can use.

pub(crate) mod agents;
pub(crate) mod alerts;
pub(crate) mod floor;
mod ground;
pub(crate) mod http;
pub(crate) mod postgres;
pub(crate) mod report;
pub(crate) mod server;

use anyhow::{Context as _, bail};

pub(crate) use ground::{disk, knob, run};

/// Starts this program again with a limit of `files` open files, if the limit is lower.
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
