//! The folder that quarantined files are in: how one gets in and out again. Every step can be repeated, and a crash
//! between two leaves the file at its place or in the folder, never nowhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::super::{ActionError, Host};

/// systemd hides `openat2` from a service that may not make a program privileged; such a service could not put the mode
/// of one back either.
const CANNOT_OPEN: &str =
    "no file can be opened without following links: the service has RestrictSUIDSGID=yes, or the kernel is too old";

/// What only Linux has, and without which an attacker could have another file moved.
#[cfg(target_os = "linux")]
mod kernel {
    use std::os::fd::{AsFd, OwnedFd};
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags};
    use rustix::io::Errno;
    use rustix::path::Arg;

    /// Opens without following a link anywhere on the way.
    pub(super) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// Renames, and never over what is there.
    pub(super) fn rename(from: impl AsFd, old: impl Arg, to: impl AsFd, new: impl Arg) -> Result<(), Errno> {
        rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
    }
}

/// The action is not offered there.
#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::os::fd::{AsFd, OwnedFd};
    use std::path::Path;

    use rustix::fs::OFlags;
    use rustix::io::Errno;
    use rustix::path::Arg;

    pub(super) fn open(_: &Path, _: OFlags) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    pub(super) fn rename(_: impl AsFd, _: impl Arg, _: impl AsFd, _: impl Arg) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
}

/// What a file was, and where it is kept.
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
}

impl Kept {
    /// Looks at the file at `path`; changes nothing.
    pub(super) fn look(path: &Path, effect: Uuid) -> Result<Self, ActionError> {
        let mut file = open(path, OFlags::RDONLY).map_err(|error| refused(path, error))?;
        let metadata = file.metadata().map_err(|error| failed(path, "be looked at", &error))?;
        if !metadata.is_file() {
            return Err(ActionError::Refused(format!("{} is not a regular file", path.display())));
        }
        let sha256 = hash(&mut file, io::sink()).map_err(|error| failed(path, "be read", &error))?;
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
        })
    }

    fn is(&self, metadata: &std::fs::Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }
}

/// The quarantine, and the place that a file was taken from.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    path: PathBuf,
}

impl Store {
    pub(super) fn folder(host: &Host) -> PathBuf {
        host.state_dir.join("quarantine")
    }

    pub(super) fn new(host: &Host, path: &str) -> Self {
        Self { folder: Self::folder(host), path: path.into() }
    }

    pub(super) fn holds(&self, kept: &Kept) -> bool {
        self.folder.join(&kept.name).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Moves the file into the quarantine.
    pub(super) fn take(&self, kept: &Kept) -> Result<(), ActionError> {
        crate::durable::create_directory(&self.folder).map_err(|error| failed(&self.folder, "be made", &error))?;
        if !self.holds(kept) {
            self.move_in(kept)?;
        }
        // Mode 000 even for one that a crash left behind half done.
        let inside = self.folder.join(&kept.name);
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o0))
            .and_then(|()| crate::durable::sync_directory_of(&inside))
            .map_err(|error| failed(&self.path, "be put out of reach", &error))
    }

    fn move_in(&self, kept: &Kept) -> Result<(), ActionError> {
        let changed = || ActionError::Failed(format!("{} has changed since it was looked at", self.path.display()));
        let mut file = open(&self.path, OFlags::RDONLY).map_err(|error| refused(&self.path, error))?;
        if !file.metadata().is_ok_and(|metadata| kept.is(&metadata)) {
            return Err(changed());
        }
        let (parent, name) = parent(&self.path)?;
        let inside = self.folder.join(&kept.name);
        match kernel::rename(&parent, name, CWD, &inside) {
            Ok(()) => {
                // The name may have got another file between the two.
                if inside.symlink_metadata().is_ok_and(|metadata| kept.is(&metadata)) {
                    return sync(&parent, &self.path);
                }
                let _back = kernel::rename(CWD, &inside, &parent, name);
                Err(changed())
            }
            Err(Errno::XDEV) => {
                let beside = self.folder.join(format!("{}.new", kept.name));
                copy(&mut file, &beside, kept, 0)?;
                std::fs::rename(&beside, &inside).map_err(|error| failed(&self.path, "be copied", &error))?;
                let now = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
                if !now.is_ok_and(|now| now.st_ino == kept.inode) {
                    let _unused = std::fs::remove_file(&inside);
                    return Err(changed());
                }
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())
                    .map_err(|error| failed(&self.path, "be removed", &error.into()))?;
                sync(&parent, &self.path)
            }
            Err(error) => Err(failed(&self.path, "be moved", &error.into())),
        }
    }

    /// Moves the file back to its place, as it was.
    pub(super) fn give_back(&self, kept: &Kept) -> Result<(), ActionError> {
        if !self.holds(kept) {
            return Ok(());
        }
        let inside = self.folder.join(&kept.name);
        let (parent, name) = parent(&self.path)?;
        if rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            let (path, inside) = (self.path.display(), inside.display());
            return Err(ActionError::Failed(format!("something else is at {path} now; the file is kept at {inside}")));
        }
        // Mode 000 keeps nobody out who may do this; but it has to be readable to be compared.
        let opened = File::open(&inside).and_then(|mut file| Ok((hash(&mut file, io::sink())?, file)));
        let (sha256, mut file) = opened.map_err(|error| failed(&inside, "be read", &error))?;
        if sha256 != kept.sha256 {
            // A program that had it open may have gone on writing; keeping it for ever would help nobody.
            tracing::warn!(path = %self.path.display(), "a quarantined file is not what it was when it was taken");
        }
        // First, so that it is never at its place half dressed; nobody reaches it in the folder, whatever its mode.
        dress(&file, kept, kept.mode)
            .map_err(|error| failed(&self.path, "get back its owner, mode and time", &error))?;
        match kernel::rename(CWD, &inside, &parent, name) {
            Ok(()) => {}
            Err(Errno::XDEV) => {
                let beside = self.path.with_file_name(format!(".{}", kept.name));
                rewind(&mut file).and_then(|()| copy(&mut file, &beside, kept, kept.mode))?;
                let moved = kernel::rename(CWD, &beside, &parent, name);
                moved.map_err(|error| failed(&self.path, "be put back", &error.into()))?;
                std::fs::remove_file(&inside).map_err(|error| failed(&inside, "be removed", &error))?;
            }
            Err(error) => return Err(failed(&self.path, "be put back", &error.into())),
        }
        sync(&parent, &self.path)
    }
}

/// A copy with the owner and the time of the original, on disk; the same bytes, or an error.
fn copy(from: &mut File, to: &Path, kept: &Kept, mode: u32) -> Result<(), ActionError> {
    let mut copied = || -> io::Result<String> {
        let _left_from_a_crash = std::fs::remove_file(to);
        let mut options = File::options();
        let to = std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600).open(to)?;
        let sha256 = hash(from, &to)?;
        dress(&to, kept, mode)?;
        to.sync_all()?;
        Ok(sha256)
    };
    let failed = |error: &io::Error| failed(to, "be written", error);
    if copied().map_err(|error| failed(&error))? == kept.sha256 {
        Ok(())
    } else {
        let _unused = std::fs::remove_file(to);
        Err(failed(&io::Error::other("the file changed while it was copied")))
    }
}

/// The owner first: changing it takes privileged bits off the mode.
fn dress(file: &File, kept: &Kept, mode: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(kept.uid), Some(kept.gid))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    let modified = Timespec { tv_sec: kept.modified_secs, tv_nsec: kept.modified_nanos };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: modified, last_modification: modified })?)
}

fn hash(from: &mut File, mut to: impl io::Write) -> io::Result<String> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => {
                hash.update(&chunk[..length]);
                to.write_all(&chunk[..length])?;
            }
        }
    }
}

fn rewind(file: &mut File) -> Result<(), ActionError> {
    io::Seek::rewind(file).map_err(|error| ActionError::Failed(format!("the file cannot be read again: {error}")))
}

/// Without following a link anywhere on the way, and without waiting for whoever is at the other end of a pipe.
fn open(path: &Path, flags: OFlags) -> Result<File, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    kernel::open(path, flags).map(File::from)
}

/// Whether files can be opened like that here.
///
/// # Errors
/// Why not, for people.
pub(super) fn can_open() -> Result<(), String> {
    match open(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(_) => Ok(()),
        Err(Errno::NOSYS) => Err(CANNOT_OPEN.into()),
        // Some filters of system calls refuse what they do not know as not permitted.
        Err(error) => Err(format!("no file can be opened without following links: {}", io::Error::from(error))),
    }
}

fn parent(path: &Path) -> Result<(OwnedFd, &std::ffi::OsStr), ActionError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ActionError::Refused(format!("{} is not a file's path", path.display())));
    };
    let folder = open(parent, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| refused(parent, error))?;
    Ok((folder.into(), name))
}

fn sync(parent: &OwnedFd, path: &Path) -> Result<(), ActionError> {
    rustix::fs::fsync(parent).map_err(|error| failed(path, "be made durable", &error.into()))
}

fn refused(path: &Path, error: Errno) -> ActionError {
    let path = path.display();
    match error {
        Errno::LOOP => ActionError::Refused(format!("{path} is a symbolic link, or is reached through one")),
        Errno::NOENT => ActionError::Refused(format!("there is no file {path}")),
        Errno::NOSYS => ActionError::Failed(CANNOT_OPEN.into()),
        error => ActionError::Failed(format!("{path} cannot be opened: {}", io::Error::from(error))),
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> ActionError {
    ActionError::Failed(format!("{} cannot {what}: {error}", path.display()))
}
