//! Changes a text file of the system: it is written beside and renamed, so that it is never half a
//! file. A mount point (a container, an image with a read-only root) cannot be replaced by a
//! rename; then the file is written in place, under a lock. The old and the new content are stored
//! in the agent's state meanwhile, so that the next look repairs the file after a crash.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ActionError;
use crate::platform::guarded::{self, PathError, Place};

/// Largest file that is rewritten, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Largest stored content: the file before and after, each byte as JSON may write it.
const MAX_KEPT_BYTES: u64 = 2 * 6 * MAX_BYTES + 4096;
/// Time limit for another program's lock on the file, and the interval of attempts.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Name of the file in the state directory with the contents of a write in place.
const KEPT: &str = "rewriting.json";

/// The contents of a write in place.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    old: String,
    new: String,
}

/// Content of the file at `path`; empty if it does not exist.
///
/// # Errors
/// If it cannot be read, or a crashed write cannot be repaired.
pub(super) fn read(state_dir: &Path, path: &Path) -> Result<String, ActionError> {
    let place = guarded::place(path).map_err(|error| failed(path, "read", &plain(error)))?;
    recover(state_dir, &place).map_err(|error| failed(path, "rewritten", &error))?;
    let opened = match place.folder.open(&place.name, OFlags::RDONLY, Mode::empty()) {
        Err(error) if error.is_missing() => return Ok(String::new()),
        opened => opened.map_err(io::Error::from),
    };
    opened.and_then(|file| text(&file)).map_err(|error| failed(path, "read", &error))
}

/// Replaces the file by the result of `change`, with its owner and mode; without a change nothing
/// is written. A link that only root can have made is followed, so that it stays a link.
///
/// # Errors
/// If it cannot be read or written.
pub(super) async fn edit(
    state_dir: &Path,
    path: &Path,
    change: impl Fn(&str) -> Option<String>,
) -> Result<(), ActionError> {
    let Some(text) = change(&read(state_dir, path)?) else { return Ok(()) };
    let place = guarded::place(path).and_then(|place| place.folder.require_sure().map(|()| place));
    let place = place.map_err(|error| failed(path, "rewritten", &plain(error)))?;
    match replace(&place, &text) {
        Err(error) if is_fixed_in_place(&error) => {}
        done => return done.map_err(|error| failed(path, "rewritten", &error)),
    }
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match write_in_place(state_dir, &place, &change) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            done => return done.map_err(|error| failed(path, "rewritten in place", &error)),
        }
    }
}

fn text(mut file: &File) -> io::Result<String> {
    let mut text = String::new();
    Read::take(&mut file, MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

fn failed(path: &Path, verb: &str, error: &io::Error) -> ActionError {
    ActionError::Failed(format!("{} cannot be {verb}: {error}", path.display()))
}

/// The system's error, if it was one: its kind decides what is tried next.
fn plain(error: PathError) -> io::Error {
    match error {
        PathError::System { source, .. } => source,
        refused @ PathError::Refused { .. } => io::Error::other(refused.to_string()),
    }
}

/// Whether the file cannot be replaced but may be written: it is a mount point, or its folder is
/// read-only.
fn is_fixed_in_place(error: &io::Error) -> bool {
    let fixed = [Errno::BUSY, Errno::XDEV, Errno::ROFS, Errno::ACCESS, Errno::PERM];
    error.raw_os_error().is_some_and(|code| fixed.iter().any(|errno| errno.raw_os_error() == code))
}

fn replace(place: &Place, text: &str) -> io::Result<()> {
    let mut beside = place.name.clone();
    beside.push(".riposte-new");
    // The remains of a crash.
    place.folder.unlink(&beside).map_err(plain)?;
    let written =
        write_beside(place, &beside, text).and_then(|()| place.folder.rename(&beside, &place.name).map_err(plain));
    if written.is_err() {
        let _never_made_or_useless = place.folder.unlink(&beside);
    }
    written?;
    place.folder.sync().map_err(plain)
}

fn write_beside(place: &Place, beside: &std::ffi::OsStr, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut file = place.folder.open(beside, flags, Mode::from(0o600)).map_err(plain)?;
    file.write_all(text.as_bytes())?;
    match place.folder.open(&place.name, OFlags::RDONLY, Mode::empty()) {
        Ok(before) => {
            let before = before.metadata()?;
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
            file.set_permissions(before.permissions())?;
        }
        // Services read it under any account.
        Err(error) if error.is_missing() => file.set_permissions(std::fs::Permissions::from_mode(0o644))?,
        Err(error) => return Err(plain(error)),
    }
    file.sync_all()
}

/// Opens and locks the file; other programs that write it in place may wait for the lock.
fn open_locked(place: &Place) -> io::Result<File> {
    let file = place.folder.open(&place.name, OFlags::RDWR, Mode::empty()).map_err(plain)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn write_in_place(state_dir: &Path, place: &Place, change: impl Fn(&str) -> Option<String>) -> io::Result<()> {
    let file = open_locked(place)?;
    let old = text(&file)?;
    // Computed again, now that the lock keeps other writers out.
    let Some(new) = change(&old) else { return Ok(()) };
    let kept = Kept { path: place.path(), old, new };
    crate::durable::replace(&state_dir.join(KEPT), &serde_json::to_vec(&kept)?)?;
    overwrite(&file, &kept.new)?;
    crate::durable::remove(&state_dir.join(KEPT))
}

fn overwrite(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

/// Finishes a write that a crash interrupted, unless another program has changed the file since.
fn recover(state_dir: &Path, place: &Place) -> io::Result<()> {
    let kept = match guarded::read(&state_dir.join(KEPT), MAX_KEPT_BYTES) {
        Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)?,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if kept.path != place.path() {
        return Ok(());
    }
    place.folder.require_sure().map_err(plain)?;
    let mut bytes = Vec::new();
    let file = open_locked(place)?;
    Read::take(&mut &file, MAX_BYTES).read_to_end(&mut bytes)?;
    if bytes != kept.old.as_bytes() && is_between(&bytes, kept.old.as_bytes(), kept.new.as_bytes()) {
        overwrite(&file, &kept.new)?;
        tracing::warn!(path = %kept.path.display(), "a file that a crash left half written was repaired");
    }
    crate::durable::remove(&state_dir.join(KEPT))
}

/// Whether `now` is a mixture of `old` and `new`: blocks reach a disk in any order.
fn is_between(now: &[u8], old: &[u8], new: &[u8]) -> bool {
    let lengths = old.len().min(new.len())..=old.len().max(new.len());
    let mut bytes = now.iter().enumerate();
    lengths.contains(&now.len()) && bytes.all(|(at, byte)| old.get(at) == Some(byte) || new.get(at) == Some(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_in_the_middle_of_writing_in_place_is_made_good_and_another_hand_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let (state, path) = (folder.path().join("state"), folder.path().join("file"));
        std::fs::create_dir(&state).unwrap();
        let (old, new) = ("ALL:192.0.2.1\nALL:192.0.2.22\nsshd: 192.0.2.3\n", "ALL:192.0.2.1\nsshd: 192.0.2.3\n");
        for cut in 0..=new.len() {
            for is_cut_off in [false, true] {
                let mut half = new.as_bytes()[..cut].to_vec();
                half.extend_from_slice(&old.as_bytes()[cut..]);
                half.truncate(if is_cut_off { new.len() } else { old.len() });
                std::fs::write(&path, &half).unwrap();
                let kept = Kept { path: guarded::place(&path).unwrap().path(), old: old.into(), new: new.into() };
                std::fs::write(state.join(KEPT), serde_json::to_vec(&kept).unwrap()).unwrap();
                let text = read(&state, &path).unwrap();
                assert!(text == new || (text == old && half == old.as_bytes()), "{cut}: {text}");
                assert!(!state.join(KEPT).exists());
            }
        }
        let kept = Kept { path: guarded::place(&path).unwrap().path(), old: old.into(), new: new.into() };
        std::fs::write(state.join(KEPT), serde_json::to_vec(&kept).unwrap()).unwrap();
        std::fs::write(&path, "an administrator's\n").unwrap();
        assert_eq!(read(&state, &path).unwrap(), "an administrator's\n");
    }
}
