//! Opens paths for a privileged process, so that no other account can choose what is opened. A path
//! is walked part by part from folders that are held open; no part is looked up twice.
//!
//! A link is followed only where root and the agent's own account alone could have made it. Its
//! destination is then the place that is protected and acted on. Where another account can change a
//! part of the path, no link is followed, and the folder reports it ([`Folder::doubt`]). What the
//! agent must be able to trust is not read or written there.

mod folder;
#[cfg(test)]
pub(crate) mod tests;
mod trust;
mod walk;

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat};
pub use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use self::folder::{Folder, Place};
pub use self::trust::distrust;
pub(crate) use self::trust::mode_of;
use self::walk::Walk;
pub use crate::platform::path_error::PathError;
use crate::platform::path_error::read_limited;
use rustix::fs::Stat;

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

/// Why the file with this status must not be run as a custom program; `None` if it may be. Only root
/// and the agent's account may be able to change it, and it runs as the agent.
pub fn fault_of_program(stat: &Stat, path: &Path) -> Option<String> {
    let text = path.display();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        Some("it is not a regular file".into())
    } else if let Some(reason) = distrust(stat, path) {
        Some(reason)
    } else if mode_of(stat) & 0o6000 != 0 {
        Some(format!("it is setuid or setgid and would run as another account (chmod u-s,g-s {text})"))
    } else if mode_of(stat) & 0o111 == 0 {
        Some(format!("it is not executable (chmod u+x {text})"))
    } else {
        None
    }
}

/// What is wrong with the rights of a secret file, with the command that fixes it; `None` if no
/// other account can read it.
///
/// # Errors
/// When it cannot be looked at.
pub fn exposure(path: &Path) -> io::Result<Option<(String, String)>> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    let is_exposed = mode & 0o077 != 0;
    if !is_exposed {
        return Ok(None);
    }
    let what = format!("has the mode {mode:04o}, so that other accounts have access to it");
    Ok(Some((what, format!("chmod 600 {}", path.display()))))
}

/// Whose file this is, and who asks, if they are not the same account.
///
/// # Errors
/// When it cannot be looked at.
pub fn other_owner(path: &Path) -> io::Result<Option<(String, String)>> {
    let (owner, account) = (std::fs::metadata(path)?.uid(), rustix::process::geteuid().as_raw());
    Ok((owner != account).then(|| (owner.to_string(), account.to_string())))
}

/// Checks that this process may write the file or folder.
///
/// # Errors
/// Why not.
pub fn may_write(path: &Path) -> io::Result<()> {
    Ok(accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)?)
}

/// Creates a folder with those above it, for its owner alone, if it is not there.
///
/// # Errors
/// When it cannot be created.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
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
