//! The agent's own files, each by a path that `guarded` has walked. Replacing a file is atomic and
//! durable: after a power failure it is either the old one or the new one. It is written beside,
//! synced and renamed. The folder is synced too, because the rename itself can be lost. All files
//! are private (0600).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::platform::guarded::{self, Mode, OFlags};

/// Mode of the agent's own files: only their owner can read and write them.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// If a write, a sync or the rename fails; then the old file is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let guarded::Place { folder, name } = guarded::place(path)?;
    let beside = Path::new(&name).with_extension("new");
    let mut file = folder.open(&beside, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, PRIVATE)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| Ok(folder.rename(&beside, &name)?)) {
        // On a full disk, a half-written file would take up room.
        let _left_behind = folder.unlink(&beside);
        return Err(error);
    }
    Ok(folder.sync()?)
}

/// Gives the file at `from` the name `to`, in the same folder. A file that has it is replaced.
///
/// # Errors
/// When the system refuses; then both files are as they were.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (guarded::place(from)?, guarded::place(to)?);
    from.folder.rename(Path::new(&from.name), &to.name)?;
    Ok(from.folder.sync()?)
}

/// Opens the file at `path` to append to it; creates it durably if it does not exist.
///
/// # Errors
/// When it cannot be opened or created, or another account could have chosen what it is.
pub fn append(path: &Path) -> io::Result<File> {
    let guarded::Place { folder, name } = guarded::place(path)?;
    let file = folder.open(&name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND, PRIVATE)?;
    folder.sync()?;
    Ok(file)
}

/// Truncates the file at `path` to `length` bytes, durably; creates it if it does not exist.
///
/// # Errors
/// When it cannot be opened or truncated; then the rest may still be there.
pub fn cut(path: &Path, length: u64) -> io::Result<()> {
    let guarded::Place { folder, name } = guarded::place(path)?;
    let file = folder.open(&name, OFlags::WRONLY | OFlags::CREATE, PRIVATE)?;
    file.set_len(length)?;
    file.sync_all()?;
    Ok(folder.sync()?)
}

/// Opens the file at `path` to read it.
///
/// # Errors
/// When it is not there, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let guarded::Place { folder, name } = guarded::place(path)?;
    Ok(folder.open(&name, OFlags::RDONLY, Mode::empty())?)
}

/// Removes the file at `path`, if it is there.
///
/// # Errors
/// When the system refuses.
pub fn remove(path: &Path) -> io::Result<()> {
    let guarded::Place { folder, name } = guarded::place(path)?;
    Ok(folder.unlink(&name).map(drop)?)
}

/// Creates the state directory, readable by its owner alone, if it is not there.
///
/// # Errors
/// When it cannot be created.
pub fn create_directory(path: &Path) -> io::Result<()> {
    guarded::create_private_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_private_and_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_written_or_read_through_a_link_in_a_folder_that_others_can_write() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (open, victim) = (directory.path().join("open"), directory.path().join("victim"));
        std::fs::create_dir(&open).unwrap();
        std::fs::write(&victim, "mine").unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(&victim, open.join("journal")).unwrap();
        std::os::unix::fs::symlink(&victim, open.join("time.new")).unwrap();
        append(&open.join("journal")).unwrap_err();
        super::open(&open.join("journal")).unwrap_err();
        replace(&open.join("time"), b"theirs").unwrap_err();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    }
}
