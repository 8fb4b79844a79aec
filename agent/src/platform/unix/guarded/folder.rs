//! A folder that is held open, and the files in it. Nothing is looked up by more than its name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::PathError;
use super::trust::is_trusted;

/// How long the holder of a lease is waited for before the kernel takes the lease, in seconds, and how much of it a thread of the
/// agent may wait.
#[cfg(target_os = "linux")]
const LEASE_BREAK_TIME: &str = "/proc/sys/fs/lease-break-time";
#[cfg(target_os = "linux")]
const MAX_LEASE_BREAK_SECONDS: u64 = 60;

/// A folder that is held open.
#[derive(Debug)]
pub struct Folder {
    pub(super) held: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) doubt: Option<(PathBuf, String)>,
    pub(super) owner: u32,
    pub(super) is_shared: bool,
}

/// A name in a folder that is held open. The file need not exist.
#[derive(Debug)]
pub struct Place {
    /// The folder that holds the name.
    pub folder: Folder,
    /// The last part of the path.
    pub name: OsString,
}

fn require_regular(stat: &Stat, path: &Path) -> Result<(), PathError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(PathError::refused(path, "it is a symbolic link")),
        _ => Err(PathError::refused(path, "it is not a regular file")),
    }
}

fn leased(path: &Path) -> PathError {
    PathError::system(path, io::Error::new(io::ErrorKind::WouldBlock, "another process holds a lease on it"))
}

impl Place {
    /// The path with all links resolved.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// The status of the file, or of the link itself; `None` if nothing is there.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn stat(&self) -> Result<Option<Stat>, PathError> {
        self.folder.stat(&self.name)
    }
}

impl Folder {
    /// The path with all links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first part of the path that other accounts can change, and why; `None` if there is none.
    pub fn doubt(&self) -> Option<(&Path, &str)> {
        self.doubt.as_ref().map(|(path, reason)| (path.as_path(), reason.as_str()))
    }

    /// Checks that only root and the agent's own account can change or create what is at this path.
    ///
    /// # Errors
    /// The part of the path that others can change, and the command that fixes it.
    pub fn require_sure(&self) -> Result<(), PathError> {
        if let Some((path, reason)) = &self.doubt {
            return Err(PathError::refused(path, reason.as_str()));
        }
        if self.is_shared {
            return Err(PathError::refused(&self.path, "every account can put files there"));
        }
        Ok(())
    }

    /// The status of the file at `name`, or of the link itself; `None` if nothing is there.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>, PathError> {
        match rustix::fs::statat(&self.held, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(PathError::system(&self.path.join(name.as_ref()), error)),
        }
    }

    /// Opens a regular file of this folder. It follows no link, waits for no pipe and opens no
    /// device.
    ///
    /// In a folder of another account the file must have one name only, because a second one could
    /// be a file elsewhere. It must belong to root, the agent or the folder's owner.
    ///
    /// # Errors
    /// When it is not there or is something else.
    pub fn open(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> Result<File, PathError> {
        let (name, path) = (name.as_ref(), self.path.join(name.as_ref()));
        // Before it is opened too: to open a device may already do something.
        if let Some(stat) = self.stat(name)? {
            require_regular(&stat, &path)?;
        }
        let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(&self.held, name, flags | safe, mode);
        let file =
            file.map_err(|error| if error == Errno::AGAIN { leased(&path) } else { PathError::system(&path, error) })?;
        self.vet(&file, &path, flags)?;
        Ok(file.into())
    }

    /// As [`Folder::open`], for a thread that may wait. Where another process holds a lease on the file (`fcntl(2)`, `F_SETLEASE`),
    /// until that process has given it up, or the kernel has taken it: after `/proc/sys/fs/lease-break-time`, 45 seconds
    /// by default.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_waiting(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> Result<File, PathError> {
        let name = name.as_ref();
        match self.open(name, flags, mode) {
            Err(error) if error.is_leased() => self.open_leased(name, flags),
            opened => opened,
        }
    }

    /// The kernel waits with an open that blocks. One that is tried again and again could be kept out for ever, by a process that
    /// gives its lease up and takes it anew in between.
    #[cfg(target_os = "linux")]
    fn open_leased(&self, name: &OsStr, flags: OFlags) -> Result<File, PathError> {
        use std::os::fd::AsRawFd as _;
        let path = self.path.join(name);
        let system = |error: Errno| PathError::system(&path, error);
        let limit = std::fs::read_to_string(LEASE_BREAK_TIME).ok().and_then(|text| text.trim().parse().ok());
        // Zero is without an end.
        if !limit.is_some_and(|seconds: u64| (1..=MAX_LEASE_BREAK_SECONDS).contains(&seconds)) {
            return Err(leased(&path));
        }
        // What is held cannot become a pipe, which would be waited for without an end, as what has the name can.
        let held = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::openat(&self.held, name, held, Mode::empty()).map_err(system)?;
        self.vet(&held, &path, flags)?;
        let flags = flags.difference(OFlags::CREATE) | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open(format!("/proc/self/fd/{}", held.as_raw_fd()), flags, Mode::empty());
        let file = file.map_err(system)?;
        self.vet(&file, &path, flags)?;
        Ok(file.into())
    }

    #[cfg(not(target_os = "linux"))]
    fn open_leased(&self, name: &OsStr, _flags: OFlags) -> Result<File, PathError> {
        Err(leased(&self.path.join(name)))
    }

    /// What [`Folder::open`] requires of a file that is open.
    fn vet(&self, file: &OwnedFd, path: &Path, flags: OFlags) -> Result<(), PathError> {
        let stat = rustix::fs::fstat(file).map_err(|error| PathError::system(path, error))?;
        require_regular(&stat, path)?;
        if (self.doubt.is_some() || self.is_shared) && flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            if stat.st_nlink > 1 {
                let reason = "it has more than one name (hard links), and others can change the folder that it is in";
                return Err(PathError::refused(path, reason));
            }
            if !is_trusted(stat.st_uid) && stat.st_uid != self.owner {
                return Err(PathError::refused(path, "it belongs neither to root nor to the owner of its folder"));
            }
        }
        Ok(())
    }

    /// Renames within this folder. A file or link with the new name is replaced.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<(), PathError> {
        let renamed = rustix::fs::renameat(&self.held, from.as_ref(), &self.held, to.as_ref());
        renamed.map_err(|error| PathError::system(&self.path.join(from.as_ref()), error))
    }

    /// Removes a name that is not a folder's; returns whether it was there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<bool, PathError> {
        match rustix::fs::unlinkat(&self.held, name.as_ref(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(PathError::system(&self.path.join(name.as_ref()), error)),
        }
    }

    /// Syncs the folder, which makes its entries durable.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn sync(&self) -> Result<(), PathError> {
        // A descriptor opened with `O_PATH` cannot sync.
        let open =
            rustix::fs::openat(&self.held, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        open.and_then(rustix::fs::fsync).map_err(|error| PathError::system(&self.path, error))
    }

    /// Bytes that its file system has free for an unprivileged account.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn free_bytes(&self) -> Result<u64, PathError> {
        let stat = rustix::fs::fstatvfs(&self.held).map_err(|error| PathError::system(&self.path, error))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.held.as_fd()
    }
}
