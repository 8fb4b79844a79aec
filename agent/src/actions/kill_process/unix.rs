//! Unix: the process is held by a descriptor and seen through `/proc`.

mod meant;

use std::time::Duration;

use rustix::process::Pid;
use serde_json::Value;
use tokio::time::Instant;

use super::super::{ActionError, Attempt, Host, evidence, process_stat};
use super::in_time::PATIENCE;

/// What is done to the process, for people.
pub(super) const VERB: &str = "SIGKILL to";

/// Checks that processes can be seen.
///
/// # Errors
/// Why not, for people.
pub(super) fn can_look(host: &Host) -> Result<(), String> {
    let proc = host.path("/proc/self/stat");
    if proc.exists() { Ok(()) } else { Err("/proc is not there".into()) }
}

pub(super) async fn evidence(attempt: &Attempt<'_>) -> Option<Value> {
    let (host, number) = (attempt.host.path("/proc"), attempt.target.value().to_owned());
    let started = process_stat::read(attempt.host, &number).ok().flatten()?.started;
    evidence::in_thread(move || evidence::process(&host, &number, started)).await
}

pub(super) async fn apply(attempt: &Attempt<'_>) -> Result<(), ActionError> {
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
    while process_stat::read(attempt.host, number)?.is_some_and(|now| now.started == seen.started && !now.is_dead) {
        if Instant::now() >= deadline {
            return Err(ActionError::TimedOut(format!("process {number} was killed and is not gone yet")));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // By now another process may have its number.
    attempt.saw_in_force();
    Ok(())
}

/// Whether the process is gone.
pub(super) fn is_gone(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let seen = process_stat::read(attempt.host, attempt.target.value())?;
    Ok(seen.is_none_or(|seen| seen.is_dead || meant::is_another(attempt, &seen)))
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
