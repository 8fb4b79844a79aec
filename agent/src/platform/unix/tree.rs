//! A program with everything that it starts: a process group.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Where programs are searched. The caller's own PATH is never used: an attacker on the host may
/// have changed it.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Time between SIGTERM and SIGKILL for a program that timed out.
const END_GRACE: Duration = Duration::from_secs(2);

/// Whether `name` is a path, and is not searched for.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains('/')
}

/// The paths where the program of that name may be.
pub(crate) fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    let absolute = name.starts_with('/').then(|| PathBuf::from(name));
    let searched =
        std::env::split_paths(SEARCH_PATH).filter(move |_| !is_path(name)).map(move |folder| folder.join(name));
    absolute.into_iter().chain(searched)
}

/// Whether the file at `path` is a program.
pub(crate) fn is_program(path: &Path) -> bool {
    let mode = |metadata: std::fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    path.metadata().is_ok_and(|metadata| metadata.is_file() && mode(metadata) & 0o111 != 0)
}

/// The exit code. A program that a signal ended has the signal's number plus 128, as in shells.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A running program and everything that it starts. Dropping it kills the whole group.
pub(crate) struct Tree {
    /// Its first process.
    pub(crate) child: Child,
    ended: bool,
}

impl Tree {
    /// Starts the program at `path`, with `argv` as it sees it, in `directory`.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn start(path: &Path, argv: &[&str], directory: &Path, has_input: bool) -> std::io::Result<Self> {
        let spawn = |path: &Path, arguments: &[&str]| {
            Command::new(path)
                .args(arguments)
                // The agent's own environment may hold a token, so nothing of it is passed on.
                .env_clear()
                .env("PATH", SEARCH_PATH)
                .env("LC_ALL", "C")
                .current_dir(directory)
                .stdin(if has_input { Stdio::piped() } else { Stdio::null() })
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
        };
        let child = match spawn(path, argv.get(1..).unwrap_or_default()) {
            // A script without a `#!` line: a shell runs it, as in `execvp`.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOEXEC) => spawn(Path::new("/bin/sh"), argv)?,
            spawned => spawned?,
        };
        Ok(Self { child, ended: false })
    }

    /// Waits until the first process has ended by itself. What it left behind goes on.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.ended = true;
        status
    }

    /// Sends SIGTERM to the group, and SIGKILL after the grace period.
    pub(crate) async fn end(&mut self) {
        if let Some(leader) = self.leader() {
            let _gone = killpg(leader, Signal::SIGTERM);
            let at = Instant::now() + END_GRACE;
            // Waits without reaping, so that its number is not reused before the group is killed.
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let is_running = || {
                let number = rustix::process::Pid::from_raw(leader.as_raw());
                number.is_some_and(|number| matches!(waitid(WaitId::Pid(number), look), Ok(None)))
            };
            while is_running() && Instant::now() < at {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self.kill();
        let _killed = self.child.wait().await;
    }

    /// Number of its first process, while it is not reaped.
    pub(crate) fn number(&self) -> Option<i32> {
        self.child.id().and_then(|id| i32::try_from(id).ok())
    }

    /// Only while the leader is not reaped, so that its number cannot belong to another process
    /// yet.
    fn kill(&mut self) {
        if let Some(leader) = self.leader() {
            let _gone = killpg(leader, Signal::SIGKILL);
        }
        self.ended = true;
    }

    fn leader(&self) -> Option<Pid> {
        self.number().map(Pid::from_raw)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
