//! `kill-process`: kills one process, and never a later one with the same number. The process is
//! first held by a descriptor, then looked at through `/proc`, and the signal goes to the
//! descriptor. Its protection is checked again while it is held: before, the number may have been
//! another's. It cannot be undone.
//!
//! The order names a process that ran at some time; `meant.rs` decides whether the held one is it.

mod meant;

use std::time::Duration;

use futures_util::future::BoxFuture;
use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use rustix::process::Pid;
use serde_json::Value;
use tokio::time::Instant;

use super::{About, Action, ActionError, Attempt, Form, Host, Os, Parameter, Step, evidence, process_stat};
use crate::platform;

/// The action.
#[derive(Debug)]
pub(super) struct KillProcess;

/// Time limit for a killed process to disappear; one that waits for a disk takes long.
const PATIENCE: Duration = Duration::from_secs(5);

const ABOUT: About = About {
    name: "kill-process",
    summary: "Kills a process",
    targets: &[TargetKind::Process],
    platforms: &[Os::Linux],
    lock_domain: "processes",
    undoable: false,
    parameters: &[
        Parameter {
            form: Form::Value("name", "NAME"),
            summary: "only if this is its name, as `ps -o comm` shows it, or the file name of its program",
            check: |value| if value.is_empty() { Err("is empty".into()) } else { Ok(()) },
            ..Parameter::DEFAULT
        },
        Parameter {
            form: Form::Value("path", "PATH"),
            summary: "only if this is its program",
            check: |value| if value.starts_with('/') { Ok(()) } else { Err("is not an absolute path".into()) },
            ..Parameter::DEFAULT
        },
    ],
    applied: "SIGKILL through a descriptor of the process (pidfd), if it began at most 50 ms after the time in the order \
              and has the name in the order. Never the agent itself, its parent, process 1 or a thread of the \
              kernel. The result records its program with the SHA-256, arguments, parent, account, control group and \
              sockets",
    verified: "the process with that number and start time is gone, or is a zombie; not its children, nor a \
               supervisor that restarts it",
    undone: "nothing to undo",
    rights: "root or CAP_KILL",
    ..About::DEFAULT
};

impl Action for KillProcess {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        let proc = host.path("/proc/self/stat");
        if proc.exists() { platform::may_kill() } else { Err("/proc is not there".into()) }
    }

    fn plan(&self, _op: Op, attempt: &Attempt<'_>) -> String {
        format!("SIGKILL to process {}", attempt.target.value())
    }

    fn evidence<'a>(&'a self, attempt: &'a Attempt<'_>) -> BoxFuture<'a, Option<Value>> {
        Box::pin(async {
            let (host, number) = (attempt.host.path("/proc"), attempt.target.value().to_owned());
            let started = process_stat::read(attempt.host, &number).ok().flatten()?.started;
            evidence::in_thread(move || evidence::process(&host, &number, started)).await
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let number = attempt.target.value();
            let pid = number.parse().ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| ActionError::Refused(format!("{number} is not a process")))?;
            if pid == rustix::process::getpid() || Some(pid) == rustix::process::getppid() {
                return Err(ActionError::Refused("the process is the agent itself or its parent: protected".into()));
            }
            let gone = || ActionError::Refused(format!("there is no process {number} on this host (any more)"));
            let failed = |what: &str, error: rustix::io::Errno| {
                ActionError::Failed(format!("process {number} cannot be {what}: {}", std::io::Error::from(error)))
            };
            let held = pidfd::hold(pid).map_err(|error| match error {
                rustix::io::Errno::SRCH => gone(),
                error => failed("held", error),
            })?;
            // What `/proc` shows from here on is the held process or a later one with its number.
            // If the held one still accepts a signal afterwards, it was the held one.
            let seen = process_stat::read(attempt.host, number)?.filter(|seen| !seen.is_dead).ok_or_else(gone)?;
            if seen.is_kernels {
                return Err(ActionError::Refused(format!("process {number} is a thread of the kernel: protected")));
            }
            meant::check(attempt, number, &seen).map_err(ActionError::Refused)?;
            if let Some(reason) = attempt.policy.and_then(|policy| policy.protects(attempt.target)) {
                return Err(ActionError::Refused(format!("the target is protected: {reason}")));
            }
            pidfd::kill(&held).map_err(|error| match error {
                rustix::io::Errno::SRCH => gone(),
                error => failed("killed", error),
            })?;
            let deadline = Instant::now() + PATIENCE;
            while process_stat::read(attempt.host, number)?
                .is_some_and(|now| now.started == seen.started && !now.is_dead)
            {
                if Instant::now() >= deadline {
                    return Err(ActionError::TimedOut(format!("process {number} was killed and is not gone yet")));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // By now another process may have its number.
            attempt.saw_in_force();
            Ok(())
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            let is_gone = || {
                let seen = process_stat::read(attempt.host, attempt.target.value())?;
                Ok(seen.is_none_or(|seen| seen.is_dead || meant::is_another(attempt, &seen)))
            };
            Ok(attempt.take_seen_in_force() || is_gone()?)
        })
    }
}

/// A process held by a descriptor, so that its number cannot be reused unnoticed.
#[cfg(target_os = "linux")]
mod pidfd {
    use std::os::fd::OwnedFd;

    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    pub(super) fn hold(pid: Pid) -> Result<OwnedFd, Errno> {
        pidfd_open(pid, PidfdFlags::empty())
    }

    pub(super) fn kill(held: &OwnedFd) -> Result<(), Errno> {
        pidfd_send_signal(held, Signal::KILL)
    }
}

/// Other systems cannot hold a process by a handle; the action is not offered there.
#[cfg(not(target_os = "linux"))]
mod pidfd {
    use rustix::io::Errno;
    use rustix::process::Pid;

    pub(super) fn hold(_: Pid) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    pub(super) fn kill((): &()) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
}

#[cfg(test)]
mod tests;
