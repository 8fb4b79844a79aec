//! `quarantine-file`: moves a file out of reach and can put it back as it was: owner, mode and time. It goes into a
//! folder of the agent's state that only root may enter, with mode 000, under a name that says nothing.
//!
//! The path comes from an alert, so an attacker may change what it leads to at any moment: no link on the way is
//! followed, and what was looked at and what was moved are compared by their inodes.

mod store;
#[cfg(test)]
mod tests;

use std::path::Path;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use serde_json::Value;

use self::store::{Kept, Store};
use super::{About, Action, ActionError, Attempt, Host, Os, Step};
use crate::platform;

/// The action.
#[derive(Debug)]
pub(super) struct QuarantineFile;

const ABOUT: About = About {
    name: "quarantine-file",
    summary: "Moves a file out of reach, and back",
    targets: &[TargetKind::File],
    platforms: &[Os::Linux],
    lock_domain: "files",
    applied: "the file is renamed (across file systems: copied and removed) into `quarantine` in the agent's state directory, mode \
              000; its SHA-256 is written down. Never through a symbolic link, only regular files, and nothing that the system or \
              the agent needs to run",
    verified: "the file is in the quarantine",
    undone: "the file is moved back with its owner, mode and time, unless something else is at its place now",
    rights: "root",
    ..About::DEFAULT
};

/// What the system needs to run: everything below these.
const SYSTEM: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/boot",
    "/proc",
    "/sys",
    "/dev",
    "/run/systemd",
    "/etc/pam.d",
    "/etc/ssl",
    "/etc/systemd",
];
/// And these files.
const SYSTEM_FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/fstab",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/machine-id",
];

/// Why the file may not be moved, if so.
fn protected(host: &Host, path: &Path) -> Option<String> {
    let own = [host.state_dir.clone(), host.wazuh_home.join("bin"), host.wazuh_home.join("etc")];
    let own = own.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    let program = std::env::current_exe().ok();
    if SYSTEM.iter().any(|system| path.starts_with(system)) || SYSTEM_FILES.iter().any(|file| path == Path::new(file)) {
        Some("the system needs it to run".into())
    } else if own.chain(program).any(|own| path.starts_with(own)) {
        Some("it is the agent's own or Wazuh's".into())
    } else {
        None
    }
}

impl Action for QuarantineFile {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        platform::must_be_root()?;
        platform::may_replace_files()?;
        store::can_open()
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        let (path, folder) = (attempt.target.value(), Store::folder(attempt.host));
        match op {
            Op::Apply => format!("move {path} into {}", folder.display()),
            Op::Revert => format!("move {path} back from {}", folder.display()),
        }
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async {
            let path = Path::new(attempt.target.value());
            if let Some(reason) = protected(attempt.host, path) {
                return Err(ActionError::Refused(format!("{} is protected: {reason}", path.display())));
            }
            let (path, effect) = (path.to_owned(), attempt.effect);
            let kept = blocking(attempt, move || Kept::look(&path, effect)).await?;
            serde_json::to_value(kept).map_err(|error| ActionError::Failed(error.to_string()))
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let Some((store, kept)) = store(attempt)? else {
                return Err(ActionError::Failed("the file was not looked at first".into()));
            };
            blocking(attempt, move || store.take(&kept)).await
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            // What a thread is at has not come to an end yet.
            let _alone = attempt.host.at_work.begin(attempt.effect)?;
            Ok(store(attempt)?.is_some_and(|(store, kept)| store.holds(&kept)))
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let Some((store, kept)) = store(attempt)? else { return Ok(()) };
            blocking(attempt, move || store.give_back(&kept)).await
        })
    }
}

/// The quarantine, and what is known of the file; none if the effect is not held.
fn store(attempt: &Attempt<'_>) -> Result<Option<(Store, Kept)>, ActionError> {
    let Some(undo) = attempt.undo.filter(|undo| !undo.is_null()) else { return Ok(None) };
    let kept = serde_json::from_value(undo.clone())
        .map_err(|error| ActionError::Failed(format!("the journal does not say what the file was: {error}")))?;
    Ok(Some((Store::new(attempt.host, attempt.target.value()), kept)))
}

/// A large file takes its time, and the agent has one thread.
async fn blocking<T: Send + 'static>(
    attempt: &Attempt<'_>,
    work: impl FnOnce() -> Result<T, ActionError> + Send + 'static,
) -> Result<T, ActionError> {
    let alone = attempt.host.at_work.begin(attempt.effect)?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(alone);
        done
    })
    .await;
    done.unwrap_or_else(|error| Err(ActionError::Failed(format!("the file could not be worked on: {error}"))))
}
