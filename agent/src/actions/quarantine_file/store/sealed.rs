//! One open file on its way into the quarantine or out of it: how it is taken from its owner and given back, compared and
//! copied.
//!
//! An account that had the file open before still reads and writes it, and can give it any size. So nothing here reads more
//! than the file had when it was looked at.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, Stat, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};

use super::super::super::ActionError;
use super::Kept;
use crate::platform::guarded::{Folder, mode_of};

/// The bits of a mode that are not the kind of file.
const MODE: u32 = 0o7777;

/// Whether the step that a thread works for was given up. A thread that reads looks at it with every chunk.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(in super::super) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("the step was given up")) } else { Ok(()) }
    }
}

/// Whether no account but the agent's own (root) can open the file, change its mode or give it another name.
pub(super) fn is_sealed(stat: &Stat) -> bool {
    mode_of(stat) & MODE == 0 && stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Takes the file from its owner. The owner first: afterwards no other account changes the mode back.
pub(super) fn seal(file: &File) -> io::Result<()> {
    fchown(file, Some(rustix::process::geteuid().as_raw()), None)?;
    file.set_permissions(Permissions::from_mode(0o0))
}

/// Gives the file its owner, mode and time again; returns whether it has the bytes that it had.
pub(super) fn unseal(file: &mut File, kept: &Kept, given_up: &GivenUp) -> io::Result<bool> {
    let is_same = is_unchanged(file, kept, given_up)?;
    dress(file, kept, is_same)?;
    Ok(is_same)
}

/// Gives the file its owner, mode and time. The owner first: changing it takes privileged bits off the mode. What was written
/// into the file meanwhile must not run as another account, so a changed one never gets those bits.
pub(super) fn dress(file: &File, kept: &Kept, is_same: bool) -> io::Result<()> {
    fchown(file, Some(kept.uid), Some(kept.gid))?;
    let mode = if is_same { kept.mode } else { kept.mode & 0o777 };
    file.set_permissions(Permissions::from_mode(mode))?;
    let modified = Timespec { tv_sec: kept.modified_secs, tv_nsec: kept.modified_nanos };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: modified, last_modification: modified })?)
}

/// Whether it has the bytes that it had. A file of another size is not read, and one that grows meanwhile is not read on.
fn is_unchanged(file: &mut File, kept: &Kept, given_up: &GivenUp) -> io::Result<bool> {
    if file.metadata()?.len() != kept.size_bytes {
        return Ok(false);
    }
    file.rewind()?;
    match hash(file, io::sink(), kept.size_bytes, given_up) {
        Ok(sha256) => Ok(sha256 == kept.sha256),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies `size_bytes` to `name`, on disk, and lets `finish` set owner and mode. With `sha256` the copy has those bytes and the
/// file no more, or it is an error; without, what comes after `size_bytes` is left.
pub(super) fn copy(
    from: &mut File,
    (folder, name): (&Folder, &str),
    (size_bytes, sha256): (u64, Option<&str>),
    given_up: &GivenUp,
    finish: impl Fn(&File) -> io::Result<()>,
) -> Result<(), ActionError> {
    let mut copied = || -> io::Result<()> {
        let _left_from_a_crash = folder.unlink(name)?;
        let to = folder.open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::from(0o600))?;
        from.rewind()?;
        let found = match sha256 {
            Some(_) => hash(&mut *from, &to, size_bytes, given_up)?,
            None => hash((&mut *from).take(size_bytes), &to, size_bytes, given_up)?,
        };
        if sha256.is_some_and(|sha256| sha256 != found) {
            return Err(io::Error::other("the file changed while it was copied"));
        }
        finish(&to)?;
        to.sync_all()
    };
    copied().map_err(|error| {
        let _unused = folder.unlink(name);
        failed(&folder.path().join(name), "be written", &error)
    })
}

/// Reads to the end, which must come within `limit_bytes`: a file may grow faster than it is read.
pub(super) fn hash(
    mut from: impl Read,
    mut to: impl io::Write,
    limit_bytes: u64,
    given_up: &GivenUp,
) -> io::Result<String> {
    let mut left = limit_bytes;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 64 * 1024]);
    let grows = || io::Error::new(io::ErrorKind::FileTooLarge, "it grows while it is read");
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => {
                given_up.check()?;
                left = left.checked_sub(length as u64).ok_or_else(grows)?;
                hash.update(&chunk[..length]);
                to.write_all(&chunk[..length])?;
            }
        }
    }
}

pub(super) fn failed(path: &Path, what: &str, error: &io::Error) -> ActionError {
    ActionError::Failed(format!("{} cannot {what}: {error}", path.display()))
}
