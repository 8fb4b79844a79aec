//! Atomic, durable files: after a power failure a file is either the old one or the new one. It is
//! written beside, synced and renamed. The directory is synced too, because the rename itself can
//! be lost. All files are private (0600).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// If a write, a sync or the rename fails; then the old file is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(&beside)?;
    let renamed = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if let Err(error) = renamed {
        // On a full disk, a half-written file would take up room.
        let _left_behind = std::fs::remove_file(&beside);
        return Err(error);
    }
    sync_directory_of(path)
}

/// Makes the entries of the directory that holds `path` durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Makes what these options create readable by its owner alone.
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Creates the state directory, readable by its owner alone, if it is not there.
///
/// # Errors
/// When it cannot be created.
pub fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
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
}
