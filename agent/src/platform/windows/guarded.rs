//! Opens paths for a privileged process, so that no other account can choose what is opened. Every
//! folder on the way is looked at: where only the system, its administrators and the agent's own
//! account can replace what is in it, a path keeps its meaning. Links of any kind (reparse points)
//! are not followed at all.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use windows_sys::Win32::Storage::FileSystem::{
    FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_OPEN_REPARSE_POINT, GetDiskFreeSpaceExW, MOVEFILE_REPLACE_EXISTING,
    MOVEFILE_WRITE_THROUGH, MoveFileExW,
};

use super::acl::{self, Access};
use super::tree;
use super::wide::wide;
pub use crate::platform::path_error::PathError;
use crate::platform::path_error::read_limited;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OFlags(u8);

impl OFlags {
    /// To read it.
    pub const RDONLY: Self = Self(0);
    /// To write it.
    pub const WRONLY: Self = Self(1);
    /// Make it if it is not there.
    pub const CREATE: Self = Self(2);
    /// Empty it first.
    pub const TRUNC: Self = Self(4);
    /// Write at its end only.
    pub const APPEND: Self = Self(8);

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for OFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who may read a file that is made. On Windows every file of the agent gets the same list: it has
/// no group that collects logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u16);

impl Mode {
    /// The owner can read.
    pub const RUSR: Self = Self(0o400);
    /// The owner can write.
    pub const WUSR: Self = Self(0o200);

    /// No rights, for a file that is not made.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<u16> for Mode {
    fn from(bits: u16) -> Self {
        Self(bits)
    }
}

/// What is at a path.
#[derive(Debug)]
pub struct Stat {
    is_regular: bool,
    is_link: bool,
    /// Who else can change it.
    doubt: Option<String>,
}

impl Stat {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        let is_link = is_link(&metadata);
        let doubt = Access::of(path)?.other_with(acl::CHANGE_FILE);
        Ok(Self { is_regular: metadata.is_file() && !is_link, is_link, doubt })
    }

    fn require_regular(&self, path: &Path) -> Result<(), PathError> {
        match (self.is_regular, self.is_link) {
            (true, _) => Ok(()),
            (false, true) => Err(PathError::refused(path, "it is a link (reparse point)")),
            (false, false) => Err(PathError::refused(path, "it is not a regular file")),
        }
    }
}

fn is_link(metadata: &Metadata) -> bool {
    metadata.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0
}

/// The command that keeps a path to the system and its administrators.
fn mend(path: &Path) -> String {
    let path = path.display();
    format!(
        "icacls \"{path}\" /setowner *S-1-5-32-544 & icacls \"{path}\" /reset & icacls \"{path}\" /inheritance:r /grant:r \
         *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F"
    )
}

/// Why other accounts can change this file, with the command that fixes it; `None` if they cannot.
pub fn distrust(stat: &Stat, path: &Path) -> Option<String> {
    stat.doubt.as_ref().map(|reason| format!("{reason} ({})", mend(path)))
}

/// Why the file with this status must not be run as a custom program; `None` if it may be.
pub fn fault_of_program(stat: &Stat, path: &Path) -> Option<String> {
    if !stat.is_regular {
        Some("it is not a regular file".into())
    } else if let Some(reason) = distrust(stat, path) {
        Some(reason)
    } else if !tree::is_program(path) {
        Some("it is not a program: .exe, .com, .cmd, .bat or .ps1".into())
    } else {
        None
    }
}

/// A folder whose way was looked at.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    doubt: Option<(PathBuf, String)>,
    is_shared: bool,
}

/// A name in such a folder. The file need not exist.
#[derive(Debug)]
pub struct Place {
    /// The folder that holds the name.
    pub folder: Folder,
    /// The last part of the path.
    pub name: OsString,
}

impl Place {
    /// The whole path.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// What is there; `None` if nothing is.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stat(&self) -> Result<Option<Stat>, PathError> {
        self.folder.stat(&self.name)
    }
}

impl Folder {
    /// The whole path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first part of the path that other accounts can change, and why; `None` if there is none.
    pub fn doubt(&self) -> Option<(&Path, &str)> {
        self.doubt.as_ref().map(|(path, reason)| (path.as_path(), reason.as_str()))
    }

    /// Checks that only trusted accounts can change or create what is at this path.
    ///
    /// # Errors
    /// The part of the path that others can change, and the command that fixes it.
    pub fn require_sure(&self) -> Result<(), PathError> {
        if let Some((path, reason)) = &self.doubt {
            return Err(PathError::refused(path, reason.as_str()));
        }
        if self.is_shared {
            return Err(PathError::refused(
                &self.path,
                format!("other accounts can put files there ({})", mend(&self.path)),
            ));
        }
        Ok(())
    }

    /// What is at `name`; `None` if nothing is.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>, PathError> {
        let path = self.path.join(name.as_ref());
        match Stat::of(&path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PathError::system(&path, error)),
        }
    }

    /// Opens a regular file of this folder. It follows no link. A file that is made is kept to the
    /// system, its administrators and the agent's account.
    ///
    /// # Errors
    /// When it is not there or is something else.
    pub fn open(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> Result<File, PathError> {
        let path = self.path.join(name.as_ref());
        let before = self.stat(name.as_ref())?;
        if let Some(stat) = &before {
            stat.require_regular(&path)?;
            // A file that another account has put there, or could read, must not get what is the agent's.
            if let Some(reason) = distrust(stat, &path).filter(|_| flags.has(OFlags::WRONLY)) {
                return Err(PathError::refused(&path, reason));
            }
        }
        let mut options = OpenOptions::new();
        let writes = flags.has(OFlags::WRONLY);
        options.read(!writes).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
        if flags.has(OFlags::APPEND) {
            // Also to read: a handle that only appends cannot be locked.
            options.read(true).append(true);
        } else {
            options.write(writes).truncate(flags.has(OFlags::TRUNC));
        }
        options.create(flags.has(OFlags::CREATE));
        let file = options.open(&path).map_err(|error| PathError::system(&path, error))?;
        let metadata = file.metadata().map_err(|error| PathError::system(&path, error))?;
        if !metadata.is_file() || is_link(&metadata) {
            return Err(PathError::refused(&path, "it is not a regular file"));
        }
        if before.is_none() && mode != Mode::empty() {
            acl::keep_to_ourselves(&path).map_err(|error| PathError::system(&path, error))?;
        }
        Ok(file)
    }

    /// As [`Folder::open`]: nothing has to be waited for here.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_waiting(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> Result<File, PathError> {
        self.open(name, flags, mode)
    }

    /// Renames within this folder, and waits until it is durable. A file with the new name is
    /// replaced.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<(), PathError> {
        let (from, to) = (self.path.join(from.as_ref()), self.path.join(to.as_ref()));
        rename(&from, &to, true).map_err(|error| PathError::system(&from, error))
    }

    /// Removes a file; returns whether it was there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<bool, PathError> {
        let path = self.path.join(name.as_ref());
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(PathError::system(&path, error)),
        }
    }

    /// Nothing to do: NTFS keeps names in its own journal, and a rename here waits for it.
    ///
    /// # Errors
    /// Never.
    pub fn sync(&self) -> Result<(), PathError> {
        Ok(())
    }

    /// Bytes that its file system has free for the agent.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn free_bytes(&self) -> Result<u64, PathError> {
        free_bytes(&self.path).map_err(|error| PathError::system(&self.path, error))
    }
}

/// Gives a file another name, durably, on one file system.
///
/// # Errors
/// When the system refuses; then nothing has changed.
#[expect(unsafe_code, reason = "the system's call")]
pub(crate) fn rename(from: &Path, to: &Path, replaces: bool) -> io::Result<()> {
    let flags = MOVEFILE_WRITE_THROUGH | if replaces { MOVEFILE_REPLACE_EXISTING } else { 0 };
    let (from, to) = (wide(from), wide(to));
    // SAFETY: both names end with a zero.
    let is_moved = unsafe { MoveFileExW(from.as_ptr(), to.as_ptr(), flags) };
    if is_moved == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "the system's call")]
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let mut free = 0;
    let name = wide(folder);
    // SAFETY: the name ends with a zero; the two other numbers are not asked for.
    let is_told =
        unsafe { GetDiskFreeSpaceExW(name.as_ptr(), &raw mut free, std::ptr::null_mut(), std::ptr::null_mut()) };
    if is_told == 0 { Err(io::Error::last_os_error()) } else { Ok(free) }
}

/// Looks at the way to the folder at `path`.
///
/// # Errors
/// When it is not there, or a link is on the way.
pub fn folder(path: &Path) -> Result<Folder, PathError> {
    let path = std::path::absolute(path).map_err(|error| PathError::system(path, error))?;
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(PathError::refused(&path, "it leads upwards"));
    }
    let (mut here, mut doubt, mut is_shared) = (PathBuf::new(), None, false);
    for part in path.components() {
        here.push(part);
        if matches!(part, Component::Prefix(_)) {
            continue;
        }
        let failed = |error: io::Error| PathError::system(&here, error);
        let metadata = here.symlink_metadata().map_err(failed)?;
        if is_link(&metadata) {
            return Err(PathError::refused(&here, "it is a link (reparse point), which the agent does not follow"));
        }
        if !metadata.is_dir() {
            return Err(PathError::refused(&here, "it is not a folder"));
        }
        let access = Access::of(&here).map_err(failed)?;
        // At the root of a drive Windows lets every account make folders; none can replace another's.
        is_shared = access.other_with(acl::ADD_ENTRIES).is_some();
        let reason = access.other_with(acl::REPLACE_ENTRIES);
        // Without a command for those above: on a folder of Windows itself it would do damage.
        let told = |reason: String| if here == path { format!("{reason} ({})", mend(&here)) } else { reason };
        doubt = doubt.or_else(|| reason.map(|reason| (here.clone(), told(reason))));
    }
    Ok(Folder { path, doubt, is_shared })
}

/// Looks at the way to the folder that holds `path`.
///
/// # Errors
/// As [`folder`].
pub fn place(path: &Path) -> Result<Place, PathError> {
    let path = std::path::absolute(path).map_err(|error| PathError::system(path, error))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PathError::refused(&path, "it is not a file's path"));
    };
    Ok(Place { folder: folder(parent)?, name: name.to_owned() })
}

/// Reads a file that only trusted accounts can change, up to `limit_bytes`.
///
/// # Errors
/// When it is not there, others could have written or chosen it, or it is larger.
pub fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PathError> {
    let place = place(path)?;
    place.folder.require_sure()?;
    let (path, file) = (place.path(), place.folder.open(&place.name, OFlags::RDONLY, Mode::empty())?);
    if let Some(reason) = place.stat()?.and_then(|stat| distrust(&stat, &path)) {
        return Err(PathError::refused(&path, reason));
    }
    read_limited(&file, &path, limit_bytes)
}

/// Reads a file that an administrator names on a command line, up to `limit_bytes`.
///
/// # Errors
/// When it does not exist, a link leads to it, it is not a regular file, or it is larger.
pub fn read_named(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PathError> {
    let place = place(path)?;
    let file = place.folder.open(&place.name, OFlags::RDONLY, Mode::empty())?;
    read_limited(&file, &place.path(), limit_bytes)
}

/// Checks that only trusted accounts can change or replace the file at `path`. The file need not
/// exist.
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

/// What is wrong with the rights of a secret file, with the command that fixes it; `None` if no
/// other account can read it.
///
/// # Errors
/// When it cannot be looked at.
pub fn exposure(path: &Path) -> io::Result<Option<(String, String)>> {
    Ok(Access::of(path)?
        .other_with(acl::READ | acl::CHANGE_FILE)
        .map(|reason| (format!("is exposed: {reason}"), mend(path))))
}

/// An administrator may act on the files of every account here, so the owner does not matter.
///
/// # Errors
/// When it cannot be looked at.
pub fn other_owner(path: &Path) -> io::Result<Option<(String, String)>> {
    path.symlink_metadata().map(|_| None)
}

/// Checks that the file or folder is there and not read-only. What its list allows is found when it
/// is written.
///
/// # Errors
/// Why not.
pub fn may_write(path: &Path) -> io::Result<()> {
    if path.metadata()?.permissions().readonly() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

/// Creates a folder with those above it, if it is not there, and keeps it to the system, its
/// administrators and the agent's account.
///
/// # Errors
/// When it cannot be created.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    acl::create_folder_of_ours(path)
}
