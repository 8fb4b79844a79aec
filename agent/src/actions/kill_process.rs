//! `kill-process`: kills one process, and never a later one with the same number. The process is
//! first held by a descriptor (Windows: a handle), then looked at, and what is held is killed. Its protection is checked again while it is held: before, the number may have been
//! another's. It cannot be undone.
//!
//! The order names a process that ran at some time; `in_time.rs` and the file of the system decide whether the held one is it.

mod in_time;
#[cfg(unix)]
#[path = "kill_process/unix.rs"]
mod native;
#[cfg(windows)]
#[path = "kill_process/windows.rs"]
mod native;

use futures_util::future::BoxFuture;
use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use serde_json::Value;

use super::{About, Action, Attempt, Form, Host, Os, Parameter, Proof, Step};
use crate::platform;

/// The action.
#[derive(Debug)]
pub(super) struct KillProcess;

const ABOUT: About = About {
    name: "kill-process",
    summary: "Kills a process",
    targets: &[TargetKind::Process],
    platforms: &[Os::Linux, Os::Windows],
    windows: Proof::Wine,
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
            check: |value| if is_absolute(value) { Ok(()) } else { Err("is not an absolute path".into()) },
            ..Parameter::DEFAULT
        },
    ],
    applied: "SIGKILL through a descriptor of the process (pidfd), if it began at most 50 ms after the time in the order \
              and has the name in the order. Never the agent itself, its parent, process 1 or a thread of the \
              kernel. The result records its program with the SHA-256, arguments, parent, account, control group and \
              sockets. Windows: `TerminateProcess` by a handle, never a process that the system ends with",
    verified: "the process with that number and start time is gone, or is a zombie; not its children, nor a \
               supervisor that restarts it",
    undone: "nothing to undo",
    rights: "root or CAP_KILL; Administrator",
    ..About::DEFAULT
};

/// Whether the text is an absolute path of any system: the manager does not know the agent's.
fn is_absolute(path: &str) -> bool {
    path.starts_with('/') || matches!(path.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic())
}

impl Action for KillProcess {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        native::can_look(host)?;
        platform::may_kill()
    }

    fn plan(&self, _op: Op, attempt: &Attempt<'_>) -> String {
        format!("{} process {}", native::VERB, attempt.target.value())
    }

    fn evidence<'a>(&'a self, attempt: &'a Attempt<'_>) -> BoxFuture<'a, Option<Value>> {
        Box::pin(native::evidence(attempt))
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(native::apply(attempt))
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(attempt.take_seen_in_force() || native::is_gone(attempt)?) })
    }
}

#[cfg(test)]
mod tests;
