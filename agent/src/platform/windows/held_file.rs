//! A file that is held open: what is done to it is done by the handle, so that no account can put
//! another one in its place meanwhile.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::AsRawHandle as _;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::{ERROR_SHARING_VIOLATION, GENERIC_READ, HANDLE};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, DELETE, FILE_DISPOSITION_INFO, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES, FILE_RENAME_INFO, FILE_SHARE_DELETE, FILE_SHARE_READ,
    FILE_SHARE_WRITE, FileDispositionInfo, FileRenameInfo, FlushFileBuffers, GetFileInformationByHandle,
    GetFinalPathNameByHandleW, READ_CONTROL, SetFileInformationByHandle, WRITE_DAC,
};

use super::wide::narrow;

/// What tells a file from every other of this host: its volume, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The volume's serial number.
    pub volume: u32,
    /// The file's number in the volume.
    pub number: u64,
    /// How many names it has.
    pub names: u32,
}

/// A file that is held open, to be moved.
#[derive(Debug)]
pub struct HeldFile {
    file: File,
    path: PathBuf,
}

impl HeldFile {
    /// Holds the file at `path`, which must be there by exactly this path: no link may lead to it.
    ///
    /// # Errors
    /// When it is not there, a link leads to it, it is no regular file, or another program does not
    /// share it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.access_mode(GENERIC_READ | DELETE | READ_CONTROL | WRITE_DAC);
        options.share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
        let file =
            options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(path).map_err(|error| in_use(error, path))?;
        let held = Self { file, path: path.to_owned() };
        if !held.file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{} is not a regular file", path.display())));
        }
        require_path(&held.file, path)?;
        Ok(held)
    }

    /// The open file, to read it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What tells it from others.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn id(&self) -> io::Result<FileId> {
        id_of(&self.file)
    }

    /// Moves it to `to` in the same volume, where nothing may be. `parent`, the folder of `to`, is
    /// held meanwhile, so that it stays where it is.
    ///
    /// # Errors
    /// When a link is on the way to `to`, something is there, or it is another volume.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn move_to(&mut self, to: &Path) -> io::Result<()> {
        let parent = to.parent().ok_or_else(|| io::Error::other("it is not a file's path"))?;
        let _held = hold_folder(parent)?;
        let name: Vec<u16> = to.as_os_str().encode_wide().collect();
        let name_bytes = name.len() * 2;
        // The name follows the structure, whose last field is its first unit. Words of eight bytes align it.
        let size = size_of::<FILE_RENAME_INFO>() + name_bytes;
        let mut buffer = vec![0_u64; size.div_ceil(8)];
        let info = buffer.as_mut_ptr().cast::<FILE_RENAME_INFO>();
        // SAFETY: the buffer is large enough for the structure and the name, and zeros are valid for it.
        unsafe {
            (*info).FileNameLength = u32::try_from(name_bytes).map_err(io::Error::other)?;
            std::ptr::copy_nonoverlapping(name.as_ptr(), (&raw mut (*info).FileName).cast::<u16>(), name.len());
        }
        let size = u32::try_from(size).map_err(io::Error::other)?;
        // SAFETY: the structure and its size belong to this kind of information.
        let is_moved = unsafe { SetFileInformationByHandle(self.raw(), FileRenameInfo, info.cast::<c_void>(), size) };
        if is_moved == 0 {
            return Err(io::Error::last_os_error());
        }
        to.clone_into(&mut self.path);
        self.flush();
        Ok(())
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the system refuses.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn remove(self) -> io::Result<()> {
        let info = FILE_DISPOSITION_INFO { DeleteFile: true };
        let size = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
        // SAFETY: the structure and its size belong to this kind of information.
        let is_removed = unsafe {
            SetFileInformationByHandle(self.raw(), FileDispositionInfo, (&raw const info).cast::<c_void>(), size)
        };
        if is_removed == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The access list as text.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn access(&self) -> io::Result<String> {
        super::acl::get(&self.path)
    }

    /// Takes it from every account but the system and the administrators.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn seal(&self) -> io::Result<()> {
        super::acl::seal(&self.path)
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn flush(&self) {
        // SAFETY: the handle is open. A handle that only reads may not flush; the name is in the volume's journal then.
        unsafe { FlushFileBuffers(self.raw()) };
    }

    fn raw(&self) -> HANDLE {
        self.file.as_raw_handle().cast()
    }
}

/// Takes a file in a folder of the agent's own from every account but the system and the administrators.
///
/// # Errors
/// When the system refuses.
pub fn seal(path: &Path) -> io::Result<()> {
    super::acl::seal(path)
}

/// Whether [`seal`] is in force.
///
/// # Errors
/// When the system refuses.
pub fn is_sealed(path: &Path) -> io::Result<bool> {
    super::acl::is_sealed(path)
}

/// What tells the file or folder at `path` from others, without a link followed and without a right to read it.
///
/// # Errors
/// When it is not there, or the system does not tell.
pub fn id_at(path: &Path) -> io::Result<FileId> {
    let mut options = OpenOptions::new();
    options.access_mode(FILE_READ_ATTRIBUTES).share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
    id_of(&options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS).open(path)?)
}

/// Sets the access list that `text` describes for a file in a folder of the agent's own.
///
/// # Errors
/// When the system refuses.
pub fn set_access(path: &Path, text: &str) -> io::Result<()> {
    super::acl::set(path, text)
}

/// What tells an open file from others.
///
/// # Errors
/// When the system does not tell.
#[expect(unsafe_code, reason = "the system's call")]
fn id_of(file: &File) -> io::Result<FileId> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle().cast(), &raw mut info) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let number = u64::from(info.nFileIndexHigh) << 32 | u64::from(info.nFileIndexLow);
    Ok(FileId { volume: info.dwVolumeSerialNumber, number, names: info.nNumberOfLinks })
}

/// Holds a folder so that it cannot be moved away, and checks that no link leads to it.
fn hold_folder(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without the right to share its removal.
    options.access_mode(GENERIC_READ).share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE);
    let folder = options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS).open(path)?;
    require_path(&folder, path)?;
    Ok(folder)
}

/// Checks that what is open is at `path` itself, and not where a link on the way leads.
#[expect(unsafe_code, reason = "the system's call")]
fn require_path(file: &File, path: &Path) -> io::Result<()> {
    let mut buffer = vec![0_u16; 32 * 1024];
    let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: `length` is that of the buffer.
    let told = unsafe { GetFinalPathNameByHandleW(file.as_raw_handle().cast(), buffer.as_mut_ptr(), length, 0) };
    if told == 0 || told >= length {
        return Err(io::Error::last_os_error());
    }
    let found = narrow(&buffer);
    let found = found.strip_prefix(r"\\?\").unwrap_or(&found);
    if found.to_lowercase() == path.to_string_lossy().to_lowercase() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} leads to {found} by a link, which the agent does not follow", path.display())))
}

/// The error of an open, with the reason that administrators look for.
fn in_use(error: io::Error, path: &Path) -> io::Error {
    let is_in_use = error.raw_os_error().and_then(|code| u32::try_from(code).ok()) == Some(ERROR_SHARING_VIOLATION);
    if is_in_use {
        return io::Error::new(
            error.kind(),
            format!("another program has {} open and does not share it", path.display()),
        );
    }
    error
}
