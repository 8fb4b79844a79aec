//! `quarantine-file`: moves a file out of reach; reverting restores it with owner, mode and time.
//! It is moved into a folder of the agent's state that only root may enter, with mode 000 and a
//! meaningless name.
//!
//! The path comes from an alert, so an attacker may change where it leads at any moment. No link
//! that another account could have made is followed. The inodes of the checked file and of the
//! moved file are compared.

#[cfg(unix)]
mod store;
#[cfg(windows)]
#[path = "quarantine_file/windows.rs"]
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;

use futures_util::future::BoxFuture;
use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::Value;

use self::store::{GivenUp, Kept, Store};
use super::{About, Action, ActionError, Attempt, Host, Os, Proof, Step, evidence};
use crate::platform::guarded;
use crate::platform::{self, places};

/// The action.
#[derive(Debug)]
pub(super) struct QuarantineFile;

const ABOUT: About = About {
    name: "quarantine-file",
    summary: "Moves a file out of reach, and back",
    targets: &[TargetKind::File],
    platforms: &[Os::Linux, Os::Windows],
    windows: Proof::Wine,
    lock_domain: "files",
    applied: "the file is renamed (across file systems: copied and removed) into `quarantine` in the agent's state directory, mode \
              000; its SHA-256 is recorded. Only regular files with one name, not larger than `quarantine_max_file_bytes`, never \
              through a symbolic link that another account could have made, and nothing that the system or the agent needs to \
              run. Windows: by a handle, within one volume, and no account but the system's can read it there",
    verified: "the file is in the quarantine",
    undone: "the file is moved back with its owner, mode and time (Windows: with its access list), unless another file is at its \
             path now",
    rights: "root; Administrator",
    ..About::DEFAULT
};

/// Folders that the system needs to run.
pub(super) const SYSTEM: &[&str] = &[
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
    "/etc/ssl",
];
/// What every account may put files into all the same, and malware does. Not `/dev/mqueue`: a message queue holds no file, and
/// could not be put back.
pub(super) const NOT_SYSTEM: &str = "/dev/shm";
/// And these files.
pub(super) const SYSTEM_FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/fstab",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/machine-id",
];

/// The same on Windows, in any case of letters.
pub(super) const WINDOWS_SYSTEM: &[&str] = &[
    r"C:\Windows",
    r"C:\Program Files\Riposte",
    r"C:\Program Files\Windows Defender",
    r"C:\ProgramData\Microsoft\Windows Defender",
    r"C:\Boot",
    r"C:\EFI",
    r"C:\Recovery",
    r"C:\System Volume Information",
    r"C:\bootmgr",
    r"C:\pagefile.sys",
];

/// Why the file at this resolved path must not be moved; `None` if it may be.
fn protected(attempt: &Attempt<'_>, path: &Path) -> Option<String> {
    let host = attempt.host;
    let mut own = vec![host.state_dir.clone(), host.wazuh_home.join("bin"), host.wazuh_home.join("etc")];
    if host.os == Os::Windows {
        // There Wazuh has its programs in its home itself.
        own.push(host.wazuh_home.clone());
    }
    let own = own.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    let program = std::env::current_exe().ok();
    let is_exempt = path.starts_with(NOT_SYSTEM) && path != Path::new(NOT_SYSTEM);
    let is_below = SYSTEM.iter().any(|system| path.starts_with(system)) && !is_exempt;
    let is_windows = host.os == Os::Windows && WINDOWS_SYSTEM.iter().any(|system| is_below_windows(path, system));
    if is_below || is_windows || SYSTEM_FILES.iter().any(|file| path == Path::new(file)) {
        return Some("the system needs it to run".into());
    }
    if own.chain(program).any(|own| places::is_below(path, &own)) {
        return Some("it is the agent's own or Wazuh's".into());
    }
    let target = Target::parse(TargetKind::File, &path.to_string_lossy()).ok()?;
    attempt.policy.and_then(|policy| policy.protects(&target).or_else(|| policy.protects_by_default(&target)))
}

/// Whether `path` is `folder` or in it, as Windows compares them. Any drive may be the system's.
fn is_below_windows(path: &Path, folder: &str) -> bool {
    let (path, folder) = (path.to_string_lossy().to_lowercase(), folder.to_lowercase());
    let (Some(path), Some(folder)) = (path.get(1..), folder.get(1..)) else { return false };
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
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
            let place = guarded::place(Path::new(attempt.target.value())).map_err(|error| store::refused(&error))?;
            // The destination of the links is moved, so its protection is what counts.
            let path = place.path();
            if let Some(reason) = protected(attempt, &path) {
                return Err(ActionError::Refused(format!("{} is protected: {reason}", path.display())));
            }
            let (effect, limits) = (attempt.effect, attempt.host.quarantine);
            let kept = blocking(attempt, move |given_up| Kept::look(&place, effect, limits, given_up)).await?;
            serde_json::to_value(kept).map_err(|error| ActionError::Failed(error.to_string()))
        })
    }

    fn evidence<'a>(&'a self, attempt: &'a Attempt<'_>) -> BoxFuture<'a, Option<Value>> {
        Box::pin(async {
            let (path, kept) = (attempt.target.value().to_owned(), attempt.undo.cloned().unwrap_or_default());
            evidence::in_thread(move || evidence::file(Path::new(&path), &kept)).await
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let Some((store, kept)) = store(attempt)? else {
                return Err(ActionError::Failed("the file was not looked at first".into()));
            };
            blocking(attempt, move |given_up| store.take(&kept, given_up)).await
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            // A thread that is still working has not reached a final state.
            let _alone = attempt.host.at_work.begin(attempt.effect)?;
            match store(attempt)? {
                Some((store, kept)) => store.holds(&kept),
                // Not held: the original path is not known, but a moved file would show.
                None => Store::has_taken(attempt.host, attempt.effect),
            }
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let Some((store, kept)) = store(attempt)? else { return Ok(()) };
            if !blocking(attempt, move |given_up| store.give_back(&kept, given_up)).await? {
                let changed = "an account that had the file open has changed it while it was in quarantine";
                tracing::warn!(path = attempt.target.value(), "{changed}");
                attempt.note(None, changed);
            }
            Ok(())
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            let _alone = attempt.host.at_work.begin(attempt.effect)?;
            match store(attempt)? {
                // More than not being in force: a file that another account has linked back is still to be given back.
                Some((store, kept)) => store.has_given_back(&kept),
                None => Ok(!Store::has_taken(attempt.host, attempt.effect)?),
            }
        })
    }
}

/// The quarantine, and the record of the file; `None` if the effect is not held.
fn store(attempt: &Attempt<'_>) -> Result<Option<(Store, Kept)>, ActionError> {
    let Some(undo) = attempt.undo.filter(|undo| !undo.is_null()) else { return Ok(None) };
    let kept: Kept = serde_json::from_value(undo.clone())
        .map_err(|error| ActionError::Failed(format!("the journal has no valid record of the file: {error}")))?;
    Ok(Some((Store::new(attempt.host, attempt.target.value(), &kept), kept)))
}

/// Runs in a thread: a large file takes long, and the agent has one thread. If the step is
/// abandoned, the thread stops at the next chunk; until then the effect counts as being worked on.
async fn blocking<T: Send + 'static>(
    attempt: &Attempt<'_>,
    work: impl FnOnce(&GivenUp) -> Result<T, ActionError> + Send + 'static,
) -> Result<T, ActionError> {
    struct GiveUp(GivenUp);
    impl Drop for GiveUp {
        fn drop(&mut self) {
            self.0.give_up();
        }
    }
    let alone = attempt.host.at_work.begin(attempt.effect)?;
    let given_up = GivenUp::default();
    let _until_dropped = GiveUp(given_up.clone());
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&given_up);
        drop(alone);
        done
    })
    .await;
    done.unwrap_or_else(|error| Err(ActionError::Failed(format!("the file could not be worked on: {error}"))))
}
