//! `ip-customblock`: an empty file named after the address in `/ipblock`, for the administrator's
//! own programs that look there; Wazuh's example of a response.

use std::io;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::{About, Action, ActionError, Attempt, Host, Os, Step};
use crate::platform::guarded::{self, Folder, PathError};

/// The action.
#[derive(Debug)]
pub(super) struct IpCustomblock;

const FOLDER: &str = "/ipblock";

const ABOUT: About = About {
    name: "ip-customblock",
    summary: "Marks an address by an empty file in /ipblock",
    targets: &[TargetKind::Ip],
    platforms: Os::UNIX,
    lock_domain: "ipblock",
    applied: "the file `/ipblock/ADDRESS`",
    verified: "the file is there",
    undone: "the file is removed, unless it was there before",
    rights: "write access to /ipblock",
    ..About::DEFAULT
};

impl Action for IpCustomblock {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        let folder = host.path(FOLDER);
        if folder.exists() && !folder.is_dir() {
            return Err(format!("{FOLDER} is not a folder"));
        }
        // A sandboxed service cannot create the folder: the administrator has to.
        let place = if folder.exists() { folder } else { host.path("/") };
        let writable = guarded::may_write(&place);
        writable.map_err(|error| {
            let place = place.display();
            format!("{FOLDER} cannot be written: {place}: {error}; make it, and let the service write it")
        })
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        let verb = if op == Op::Apply { "create" } else { "remove" };
        format!("{verb} {FOLDER}/{}", attempt.target.value())
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(json!({ "was_so": is_there(attempt)? })) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let path = attempt.host.path(FOLDER);
            let made = guarded::make_folder(&path, Mode::from(0o755)).and_then(|folder| {
                // Never through a link, and never truncating an existing file.
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                if folder.stat(attempt.target.value())?.is_none() {
                    folder.open(attempt.target.value(), flags, Mode::from(0o644))?;
                }
                Ok(())
            });
            made.map_err(|error| failed("created", &path.join(attempt.target.value()), &error.into()))
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { is_there(attempt) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if attempt.undo.is_none_or(|undo| undo["was_so"] != false) {
                return Ok(());
            }
            match folder(attempt) {
                Ok(Some(folder)) => folder.unlink(attempt.target.value()).map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(|error| failed("removed", &attempt.host.path(FOLDER).join(attempt.target.value()), &error.into()))
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // Without a journal entry, any such file may be the effect's.
        Box::pin(async { Ok(attempt.undo.is_some_and(|undo| undo["was_so"] != false) || !is_there(attempt)?) })
    }
}

/// The folder; `None` if it does not exist.
fn folder(attempt: &Attempt<'_>) -> Result<Option<Folder>, PathError> {
    match guarded::folder(&attempt.host.path(FOLDER)) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the marker exists. A canonical address has no character that is special in a path.
fn is_there(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let marker = || Ok(folder(attempt)?.map(|folder| folder.stat(attempt.target.value())).transpose()?.flatten());
    let found = marker().map_err(|error: PathError| ActionError::Failed(error.to_string()))?;
    Ok(found.is_some())
}

fn failed(verb: &str, path: &std::path::Path, error: &io::Error) -> ActionError {
    ActionError::Failed(format!("{} cannot be {verb}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use riposte_protocol::target::Target;

    use super::*;
    use crate::actions::Transcript;
    use crate::runner::Runner;

    #[test]
    fn a_read_only_folder_makes_the_action_unavailable() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::new(Runner::new(), root.path());
        host.root = root.path().to_owned();
        assert_eq!(IpCustomblock.availability(&host), Ok(()), "it can be made");
        std::fs::create_dir(host.path(FOLDER)).unwrap();
        std::fs::set_permissions(host.path(FOLDER), std::fs::Permissions::from_mode(0o500)).unwrap();
        let file = tempfile::tempdir().unwrap();
        std::fs::write(file.path().join("ipblock"), "").unwrap();
        let mut taken = Host::new(Runner::new(), root.path());
        taken.root = file.path().to_owned();
        assert_eq!(IpCustomblock.availability(&taken), Err("/ipblock is not a folder".into()));
        let look = move || IpCustomblock.availability(&host);
        let said = crate::platform::without(rustix::thread::CapabilitySet::DAC_OVERRIDE, look).unwrap_err();
        assert!(said.contains("/ipblock cannot be written") && said.contains("Permission denied"), "{said}");
    }

    #[tokio::test]
    async fn the_marker_comes_and_goes_and_an_administrators_stays() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::new(Runner::new(), root.path());
        host.root = root.path().to_owned();
        let transcript = Mutex::<Transcript>::default();
        for (address, was_so) in [("203.0.113.7", false), ("2001:db8::7", false), ("203.0.113.8", true)] {
            let target = Target::parse(TargetKind::Ip, address).unwrap();
            let path = root.path().join("ipblock").join(address);
            if was_so {
                std::fs::write(&path, "mine").unwrap();
            }
            let mut attempt = Attempt::new(&host, &transcript, &target);
            let undo = IpCustomblock.prepare(&attempt).await.unwrap();
            attempt.undo = Some(&undo);
            for _ in 0..2 {
                IpCustomblock.apply(&attempt).await.unwrap();
                assert!(IpCustomblock.is_in_force(&attempt).await.unwrap());
            }
            for _ in 0..2 {
                IpCustomblock.revert(&attempt).await.unwrap();
                assert!(IpCustomblock.is_lifted(&attempt).await.unwrap());
            }
            assert_eq!(path.exists(), was_so, "{address}");
        }
        assert_eq!(std::fs::read_to_string(root.path().join("ipblock/203.0.113.8")).unwrap(), "mine");
    }
}
