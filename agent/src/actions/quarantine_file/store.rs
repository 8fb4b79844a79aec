//! The folder of quarantined files: how a file is moved in and out. Every step can be repeated. A
//! crash between two steps leaves the file at its path or in the folder.
//!
//! Every name is looked up in a folder that is held open, in and out: the owner of the file's
//! folder can exchange the path at any moment.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::super::{ActionError, Host};
use crate::guarded::{self, Folder, PathError, Place};

/// systemd hides `openat2` from a service that may not set the set-user-ID bit; such a service
/// could not restore that bit either.
const CANNOT_OPEN: &str =
    "no file can be opened without following links: the service has RestrictSUIDSGID=yes, or the kernel is too old";

/// Linux only. Without these calls an attacker could have another file moved.
#[cfg(target_os = "linux")]
mod kernel {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags};
    use rustix::io::Errno;
    use rustix::path::Arg;

    /// Whether the system has the call that a sandboxed service may lack.
    pub(super) fn probe() -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// Renames without replacing an existing file.
    pub(super) fn rename(from: impl AsFd, old: impl Arg, to: impl AsFd, new: impl Arg) -> Result<(), Errno> {
        rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
    }
}

/// The action is not offered there.
#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::io::Errno;
    use rustix::path::Arg;

    pub(super) fn probe() -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    pub(super) fn rename(_: impl AsFd, _: impl Arg, _: impl AsFd, _: impl Arg) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
}

/// Limits of quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, in bytes, holes included: it has to be read, and perhaps copied.
    pub max_file_bytes: u64,
    /// Space that a copy leaves free on the disk of the agent's state, in bytes: the journal is
    /// there too.
    pub min_free_bytes: u64,
}

impl Limits {
    /// Defaults of the local policy.
    pub const DEFAULT: Self = Self { max_file_bytes: 256 * 1024 * 1024, min_free_bytes: 32 * 1024 * 1024 };
}

/// Whether the step of a thread was abandoned. A thread that reads checks it with every chunk.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("the step was abandoned")) } else { Ok(()) }
    }
}

/// The file's attributes, and its name in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its name in the quarantine.
    name: String,
    pub(super) sha256: String,
    size_bytes: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    modified_secs: i64,
    modified_nanos: i64,
    device: u64,
    inode: u64,
    /// Its path with all links resolved. Absent in older journals, which had no links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<PathBuf>,
}

impl Kept {
    /// Looks at the file at `place`; changes nothing.
    pub(super) fn look(place: &Place, effect: Uuid, limits: Limits, given_up: &GivenUp) -> Result<Self, ActionError> {
        let path = place.path();
        let mut file = open(place)?;
        let metadata = file.metadata().map_err(|error| failed(&path, "be looked at", &error))?;
        if metadata.nlink() > 1 {
            let (path, names) = (path.display(), metadata.nlink());
            return Err(ActionError::Refused(format!(
                "{path} has {names} names (hard links): to move one would leave the file in reach by the others; find them \
                 with find / -xdev -samefile {path}"
            )));
        }
        if metadata.len() > limits.max_file_bytes {
            let (path, size, limit) = (path.display(), metadata.len(), limits.max_file_bytes);
            return Err(ActionError::Refused(format!(
                "{path} has {size} bytes, more than the {limit} of quarantine_max_file_bytes in the local policy"
            )));
        }
        let sha256 = hash(&mut file, io::sink(), limits.max_file_bytes, given_up);
        let sha256 = sha256.map_err(|error| failed(&path, "be read", &error))?;
        Ok(Self {
            name: format!("{}-{}", effect.simple(), sha256.get(..16).unwrap_or_default()),
            sha256,
            size_bytes: metadata.len(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified_secs: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
            place: Some(path),
        })
    }

    fn is(&self, stat: &Stat) -> bool {
        (stat.st_dev, stat.st_ino) == (self.device, self.inode)
    }
}

/// The quarantine, and the original path of a file.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    path: PathBuf,
    limits: Limits,
}

impl Store {
    pub(super) fn folder(host: &Host) -> PathBuf {
        host.state_dir.join("quarantine")
    }

    pub(super) fn new(host: &Host, path: &str, kept: &Kept) -> Self {
        let path = kept.place.clone().unwrap_or_else(|| path.into());
        Self { folder: Self::folder(host), path, limits: host.quarantine }
    }

    /// The folder of the quarantine, held open.
    fn inside(&self) -> Result<Folder, ActionError> {
        let folder = guarded::folder(&self.folder).and_then(|folder| folder.require_sure().map(|()| folder));
        folder.map_err(|error| ActionError::Failed(error.to_string()))
    }

    pub(super) fn holds(&self, kept: &Kept) -> Result<bool, ActionError> {
        if !self.folder.exists() {
            return Ok(false);
        }
        let stat = self.inside()?.stat(&kept.name).map_err(|error| ActionError::Failed(error.to_string()))?;
        Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
    }

    /// Whether the quarantine holds a file of this effect, even without a record of it.
    pub(super) fn has_taken(host: &Host, effect: Uuid) -> Result<bool, ActionError> {
        let folder = Self::folder(host);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(|error| failed(&folder, "be read", &error))?,
        };
        let prefix = format!("{}-", effect.simple());
        for entry in entries {
            let entry = entry.map_err(|error| failed(&folder, "be read", &error))?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the file into the quarantine.
    pub(super) fn take(&self, kept: &Kept, given_up: &GivenUp) -> Result<(), ActionError> {
        crate::durable::create_directory(&self.folder).map_err(|error| failed(&self.folder, "be made", &error))?;
        let inside = self.inside()?;
        if !self.holds(kept)? {
            self.move_in(&inside, kept, given_up)?;
        }
        // Mode 000 even for a file that a crash left half done.
        let file = inside.open(&kept.name, OFlags::RDONLY, Mode::empty()).map_err(io::Error::from);
        file.and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o0)))
            .and_then(|()| Ok(inside.sync()?))
            .map_err(|error| failed(&self.path, "be put out of reach", &error))
    }

    fn move_in(&self, inside: &Folder, kept: &Kept, given_up: &GivenUp) -> Result<(), ActionError> {
        let changed = || ActionError::Failed(format!("{} has changed since it was looked at", self.path.display()));
        let from = guarded::place(&self.path).map_err(|error| refused(&error))?;
        let mut file = open(&from)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(&self.path, "be looked at", &error.into()))?;
        if !kept.is(&stat) || stat.st_nlink != 1 {
            return Err(changed());
        }
        given_up.check().map_err(|error| failed(&self.path, "be moved", &error))?;
        match kernel::rename(&from.folder, &from.name, inside, &kept.name) {
            Ok(()) => {
                // Between the two, the name may have been moved to another file.
                if inside.stat(&kept.name).is_ok_and(|stat| stat.is_some_and(|stat| kept.is(&stat))) {
                    return sync(&from.folder, &self.path);
                }
                let _back = kernel::rename(inside, &kept.name, &from.folder, &from.name);
                Err(changed())
            }
            Err(Errno::XDEV) => {
                let free = inside.free_bytes().map_err(|error| ActionError::Failed(error.to_string()))?;
                if free < kept.size_bytes.saturating_add(self.limits.min_free_bytes) {
                    return Err(ActionError::Failed(format!(
                        "{} is on another file system and has to be copied: {} bytes, and quarantine_min_free_bytes ({}) have to \
                         stay free where the agent's state is; {free} are free",
                        self.path.display(),
                        kept.size_bytes,
                        self.limits.min_free_bytes
                    )));
                }
                let beside = format!("{}.new", kept.name);
                copy(&mut file, inside, &beside, kept, 0, given_up)?;
                inside.rename(&beside, &kept.name).map_err(|error| failed(&self.path, "be copied", &error.into()))?;
                let now = from.stat();
                if !now.is_ok_and(|now| now.is_some_and(|now| kept.is(&now))) {
                    let _unused = inside.unlink(&kept.name);
                    return Err(changed());
                }
                from.folder.unlink(&from.name).map_err(|error| failed(&self.path, "be removed", &error.into()))?;
                sync(&from.folder, &self.path)
            }
            Err(error) => Err(failed(&self.path, "be moved", &error.into())),
        }
    }

    /// Moves the file back to its path, with its attributes.
    pub(super) fn give_back(&self, kept: &Kept, given_up: &GivenUp) -> Result<(), ActionError> {
        if !self.holds(kept)? {
            return Ok(());
        }
        let inside = self.inside()?;
        let held = self.folder.join(&kept.name);
        let to = guarded::place(&self.path).map_err(|error| refused(&error))?;
        if to.stat().map_err(|error| ActionError::Failed(error.to_string()))?.is_some() {
            let (path, held) = (self.path.display(), held.display());
            return Err(ActionError::Failed(format!("something else is at {path} now; the file is kept at {held}")));
        }
        // Mode 000 does not stop a privileged process; but the file has to be readable to be
        // compared.
        let opened = inside.open(&kept.name, OFlags::RDONLY, Mode::empty()).map_err(io::Error::from);
        let opened = opened.and_then(|mut file| Ok((hash(&mut file, io::sink(), u64::MAX, given_up)?, file)));
        let (sha256, mut file) = opened.map_err(|error| failed(&held, "be read", &error))?;
        let is_same = sha256 == kept.sha256;
        if !is_same {
            // A program that had it open may have gone on writing. Keeping the file for ever would
            // not help.
            tracing::warn!(path = %self.path.display(), "a quarantined file has changed since it was moved");
        }
        // Data that was written into it meanwhile must not run as another account.
        let mode = if is_same { kept.mode } else { kept.mode & 0o777 };
        // Before the move, so that the file is never at its path with the wrong owner or mode.
        // Inside the folder no other account reaches it, whatever its mode.
        dress(&file, kept, mode).map_err(|error| failed(&self.path, "get back its owner, mode and time", &error))?;
        match kernel::rename(&inside, &kept.name, &to.folder, &to.name) {
            Ok(()) => {}
            Err(Errno::XDEV) => {
                let beside = format!(".{}", kept.name);
                let now = Kept { sha256, size_bytes: u64::MAX, ..kept.clone() };
                rewind(&mut file).and_then(|()| copy(&mut file, &to.folder, &beside, &now, mode, given_up))?;
                let moved = kernel::rename(&to.folder, &beside, &to.folder, &to.name);
                moved.map_err(|error| failed(&self.path, "be put back", &error.into()))?;
                inside.unlink(&kept.name).map_err(|error| failed(&held, "be removed", &error.into()))?;
            }
            Err(error) => return Err(failed(&self.path, "be put back", &error.into())),
        }
        sync(&to.folder, &self.path)
    }
}

/// A durable copy with the original's owner and time; an error if the bytes differ.
fn copy(
    from: &mut File,
    folder: &Folder,
    name: &str,
    kept: &Kept,
    mode: u32,
    given_up: &GivenUp,
) -> Result<(), ActionError> {
    let mut copied = || -> io::Result<String> {
        let _left_from_a_crash = folder.unlink(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let to = folder.open(name, flags, Mode::from(0o600))?;
        let sha256 = hash(from, &to, kept.size_bytes.max(1), given_up)?;
        dress(&to, kept, mode)?;
        to.sync_all()?;
        Ok(sha256)
    };
    let done = copied();
    let done = done.and_then(|sha256| {
        if sha256 == kept.sha256 { Ok(()) } else { Err(io::Error::other("the file changed while it was copied")) }
    });
    done.map_err(|error| {
        let _unused = folder.unlink(name);
        failed(&folder.path().join(name), "be written", &error)
    })
}

/// The owner first: changing it removes privileged bits of the mode.
fn dress(file: &File, kept: &Kept, mode: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(kept.uid), Some(kept.gid))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    let modified = Timespec { tv_sec: kept.modified_secs, tv_nsec: kept.modified_nanos };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: modified, last_modification: modified })?)
}

/// Hashes to the end, which must come within `limit_bytes`: a file may grow faster than it is read.
fn hash(from: &mut File, mut to: impl io::Write, limit_bytes: u64, given_up: &GivenUp) -> io::Result<String> {
    let mut left = limit_bytes;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => {
                given_up.check()?;
                left = left.checked_sub(length as u64).ok_or_else(|| io::Error::other("it grows while it is read"))?;
                hash.update(&chunk[..length]);
                to.write_all(&chunk[..length])?;
            }
        }
    }
}

fn rewind(file: &mut File) -> Result<(), ActionError> {
    io::Seek::rewind(file).map_err(|error| ActionError::Failed(format!("the file cannot be read again: {error}")))
}

/// Opens a regular file for reading, and nothing else.
fn open(place: &Place) -> Result<File, ActionError> {
    match place.folder.open(&place.name, OFlags::RDONLY, Mode::empty()) {
        Ok(file) => Ok(file),
        Err(error) if error.is_missing() => {
            Err(ActionError::Refused(format!("there is no file {}", place.path().display())))
        }
        Err(error) => Err(refused(&error)),
    }
}

/// Checks that files can be opened without following links, and restored with their attributes.
///
/// # Errors
/// Why not, for people.
pub(super) fn can_open() -> Result<(), String> {
    match kernel::probe() {
        Ok(_) => Ok(()),
        Err(Errno::NOSYS) => Err(CANNOT_OPEN.into()),
        // Some seccomp filters answer EPERM to system calls that they do not know.
        Err(error) => Err(format!("no file can be opened without following links: {}", io::Error::from(error))),
    }
}

fn sync(folder: &Folder, path: &Path) -> Result<(), ActionError> {
    folder.sync().map_err(|error| failed(path, "be made durable", &error.into()))
}

pub(super) fn refused(error: &PathError) -> ActionError {
    match error {
        error if error.is_missing() => ActionError::Refused(format!("there is no file: {error}")),
        PathError::Refused { .. } => ActionError::Refused(error.to_string()),
        PathError::System { .. } => ActionError::Failed(error.to_string()),
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> ActionError {
    ActionError::Failed(format!("{} cannot {what}: {error}", path.display()))
}
