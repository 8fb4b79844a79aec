//! Opens paths for a privileged process, so that no other account can choose what is opened. A path
//! is walked part by part from folders that are held open; no part is looked up twice.
//!
//! A link is followed only where root and the agent's own account alone could have made it. Its
//! destination is then the place that is protected and acted on. Where another account can change a
//! part of the path, no link is followed, and the folder reports it ([`Folder::doubt`]). What the
//! agent must be able to trust is not read or written there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use walk::Walk;

/// Bits of a mode: the group or others can write. With the sticky bit, only the owner of an entry
/// can replace it.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// How long the holder of a lease is waited for before the kernel takes the lease, in seconds, and how much of it a thread of the
/// agent may wait.
#[cfg(target_os = "linux")]
const LEASE_BREAK_TIME: &str = "/proc/sys/fs/lease-break-time";
#[cfg(target_os = "linux")]
const MAX_LEASE_BREAK_SECONDS: u64 = 60;

/// Why a path is not used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A system call failed.
    #[error("{path}: {source}")]
    System {
        /// The part of the path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another account could have chosen what it leads to, or it has the wrong kind.
    #[error("{path} is not used: {reason}")]
    Refused {
        /// The part of the path.
        path: PathBuf,
        /// What is wrong, and the command that fixes it.
        reason: String,
    },
}

impl PathError {
    fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), reason: reason.into() }
    }

    fn system(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::System { path: path.into(), source: error.into() }
    }

    /// Whether the error is that nothing is there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether another process holds a lease on it, which the kernel has asked back now.
    pub fn is_leased(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }
}

impl From<PathError> for io::Error {
    fn from(error: PathError) -> Self {
        match error {
            PathError::System { path, source } => Self::new(source.kind(), format!("{}: {source}", path.display())),
            PathError::Refused { .. } => Self::new(io::ErrorKind::PermissionDenied, error.to_string()),
        }
    }
}

/// A folder that is held open.
#[derive(Debug)]
pub struct Folder {
    held: OwnedFd,
    path: PathBuf,
    doubt: Option<(PathBuf, String)>,
    owner: u32,
    is_shared: bool,
}

/// A name in a folder that is held open. The file need not exist.
#[derive(Debug)]
pub struct Place {
    /// The folder that holds the name.
    pub folder: Folder,
    /// The last part of the path.
    pub name: OsString,
}

/// Whether `owner` is root or the account that the agent runs as. A user namespace may not know the
/// real root, such as a container without root. There the system's own files belong to the overflow
/// account, which stands for all unknown accounts.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw() || *STAND_IN == Some(owner)
}

static STAND_IN: LazyLock<Option<u32>> = LazyLock::new(|| {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    stand_in(&text("/proc/self/uid_map")?, &text("/proc/sys/kernel/overflowuid")?)
});

/// The overflow account, which stands for those that are unknown here; `None` if all are known.
fn stand_in(map: &str, overflow: &str) -> Option<u32> {
    let knows_all = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if knows_all { None } else { overflow.trim().parse().ok() }
}

/// Why other accounts can change this file or folder, with the command that fixes it; `None` if
/// they cannot.
pub fn distrust(stat: &Stat, path: &Path) -> Option<String> {
    let path = path.display();
    if !is_trusted(stat.st_uid) {
        let owner = stat.st_uid;
        Some(format!("it belongs to the account {owner}, neither root nor the agent's (chown root {path})"))
    } else if stat.st_mode & OTHERS_WRITE != 0 {
        Some(format!("accounts other than its owner can write it (chmod go-w {path})"))
    } else {
        None
    }
}

/// Walks to the folder at `path`.
///
/// # Errors
/// When it is not there, or a link on the path could be another account's.
pub fn folder(path: &Path) -> Result<Folder, PathError> {
    Walk::to(path)?.finish()
}

/// Walks to the folder at `path`, and creates it if it does not exist. Its parent must exist.
///
/// # Errors
/// As [`folder`], and when it cannot be created.
pub fn make_folder(path: &Path, mode: Mode) -> Result<Folder, PathError> {
    let at = place(path)?;
    match rustix::fs::mkdirat(&at.folder.held, &at.name, mode) {
        Ok(()) | Err(Errno::EXIST) => folder(path),
        Err(error) => Err(PathError::system(&at.path(), error)),
    }
}

/// Walks to the folder that holds `path`. A link at its end is followed like any other.
///
/// # Errors
/// As [`folder`].
pub fn place(path: &Path) -> Result<Place, PathError> {
    let mut walk = Walk::to(path)?;
    loop {
        let Some(name) = walk.step_to_last()? else { return Err(PathError::refused(path, "it is not a file's path")) };
        let here = walk.path().join(&name);
        match rustix::fs::statat(walk.top(), &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                walk.follow(&name, &stat, &here)?;
            }
            Ok(_) | Err(Errno::NOENT) => return Ok(Place { folder: walk.finish()?, name }),
            Err(error) => return Err(PathError::system(&here, error)),
        }
    }
}

/// Reads a file that only root and the agent's own account can change, up to `limit_bytes`.
///
/// # Errors
/// When it is not there, others could have written or chosen it, or it is larger.
pub fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PathError> {
    let place = place(path)?;
    place.folder.require_sure()?;
    let (path, file) = (place.path(), place.folder.open(&place.name, OFlags::RDONLY, Mode::empty())?);
    let stat = rustix::fs::fstat(&file).map_err(|error| PathError::system(&path, error))?;
    if let Some(reason) = distrust(&stat, &path) {
        return Err(PathError::refused(&path, reason));
    }
    read_limited(&file, &path, limit_bytes)
}

/// Reads a file that an administrator names on a command line, up to `limit_bytes`. It may belong
/// to any account: with `sudo` it is often the administrator's own. No link of other accounts is
/// followed, and no pipe is waited for.
///
/// # Errors
/// When it does not exist, a link of another account leads to it, it is not a regular file, or it
/// is larger.
pub fn read_named(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PathError> {
    let place = place(path)?;
    let file = place.folder.open(&place.name, OFlags::RDONLY, Mode::empty())?;
    read_limited(&file, &place.path(), limit_bytes)
}

fn read_limited(file: &File, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(|error| PathError::system(path, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(PathError::refused(path, format!("it is larger than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// Checks that only root and the agent's own account can change or replace the file at `path`. The
/// file need not exist.
///
/// # Errors
/// What others can change, and the command that fixes it.
pub fn require_sure(path: &Path) -> Result<(), PathError> {
    let place = place(path)?;
    place.folder.require_sure()?;
    match place.stat()?.and_then(|stat| distrust(&stat, &place.path())) {
        Some(reason) => Err(PathError::refused(&place.path(), reason)),
        None => Ok(()),
    }
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
                return Err(PathError::refused(
                    path,
                    "it is neither root's nor the owner's of the folder that it is in",
                ));
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

#[cfg(test)]
pub(crate) mod tests;
mod walk;
