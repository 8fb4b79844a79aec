//! Where the forwarder is in its files, durably. A file is recognised by its first bytes and its inode: inodes are used again,
//! names change at each rotation, and an old file is replaced by a compressed one.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes at the beginning of a file that are compared: the first alerts, with their times and ids.
pub(super) const HEAD_BYTES: u64 = 1024;

/// What a file is recognised by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileMark {
    /// Device and inode. A compressed or copied file has another.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Bytes at the beginning that `head` is of; 0 before the first line.
    head_bytes: u64,
    /// SHA-256 in hexadecimal digits.
    head: String,
}

impl FileMark {
    /// The mark of `file`, of which `known` bytes are complete lines.
    pub(super) fn of(file: &File, known: u64) -> io::Result<Self> {
        let status = file.metadata()?;
        let mut head = vec![0; usize::try_from(known.min(HEAD_BYTES)).unwrap_or_default()];
        file.read_exact_at(&mut head, 0)?;
        Ok(Self { device: status.dev(), inode: status.ino(), head_bytes: head.len() as u64, head: digest(&head) })
    }

    /// The same file, whose content `reader` returns.
    pub(super) fn with_head_of(self, reader: impl io::Read) -> io::Result<Self> {
        let mut head = Vec::new();
        reader.take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok(Self { head_bytes: head.len() as u64, head: digest(&head), ..self })
    }

    /// Whether the mark can be of more, now that `known` bytes are complete lines.
    pub(super) fn can_grow(&self, known: u64) -> bool {
        self.head_bytes < known.min(HEAD_BYTES)
    }

    /// Whether it says anything about the content.
    pub(super) const fn has_head(&self) -> bool {
        self.head_bytes > 0
    }

    /// Whether the content that `reader` returns begins as that of the file.
    pub(super) fn begins(&self, reader: impl io::Read) -> bool {
        let mut head = Vec::new();
        let read = reader.take(self.head_bytes).read_to_end(&mut head);
        read.is_ok() && head.len() as u64 == self.head_bytes && digest(&head) == self.head
    }

    /// Whether `file` is still this one, and not written anew.
    pub(super) fn is_of(&self, mut file: &File) -> io::Result<bool> {
        file.seek(SeekFrom::Start(0))?;
        Ok(self.begins(file))
    }
}

fn digest(head: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(head))
}

/// What has been forwarded: all lines before `offset` of a file, and all files before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) file: FileMark,
    /// Where the file was, for messages.
    pub(super) path: PathBuf,
    /// Bytes, uncompressed.
    pub(super) offset: u64,
    /// Time of the first alert in the file, which orders the files.
    pub(super) started: Option<Timestamp>,
}

/// The cursor as a file.
#[derive(Debug)]
pub(super) struct CursorFile {
    dir: PathBuf,
    path: PathBuf,
    /// Kept for as long as the program runs: two forwarders on one cursor would lose alerts.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct StoredCursor {
    version: u32,
    position: Position,
}

/// The version of the file that this program writes.
const VERSION: u32 = 1;

impl CursorFile {
    /// Opens the cursor in `dir`, which is created.
    ///
    /// # Errors
    /// If another forwarder has it, or it cannot be written.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let place = dir.display();
        fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {place}"))?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.with_context(|| format!("cannot write to {place}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => bail!("another forwarder uses {place}: give each its own --state-dir"),
            Err(fs::TryLockError::Error(error)) => return Err(error).context(format!("cannot lock {place}")),
        }
        Ok(Self { dir: dir.to_owned(), path: dir.join("cursor.json"), _lock: lock })
    }

    /// The stored position; `None` at the first start.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(&self) -> anyhow::Result<Option<Position>> {
        let place = self.path.display();
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(format!("cannot read {place}")),
        };
        let hint = || format!("{place} is no cursor of this version; `--from now` or `--from beginning` replaces it");
        let stored: StoredCursor = serde_json::from_str(&text).with_context(hint)?;
        if stored.version != VERSION {
            bail!(hint());
        }
        Ok(Some(stored.position))
    }

    /// Stores `position`, so that it is there after a power cut.
    ///
    /// # Errors
    /// If it cannot be written; what was stored before stays.
    pub(super) fn write(&self, position: &Position) -> io::Result<()> {
        let next = self.dir.join("cursor.json.new");
        let mut file = File::create(&next)?;
        let stored = StoredCursor { version: VERSION, position: position.clone() };
        serde_json::to_writer(&mut file, &stored)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_recognised_by_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.json");
        fs::write(&path, "one\ntwo\n").unwrap();
        let file = File::open(&path).unwrap();
        let mark = FileMark::of(&file, 4).unwrap();
        assert!(mark.is_of(&file).unwrap() && mark.begins(&b"one\nmore"[..]));
        assert!(!mark.begins(&b"on"[..]) && !mark.begins(&b"two\n"[..]));
        fs::write(&path, "six\n").unwrap();
        assert!(!mark.is_of(&file).unwrap(), "the inode is the same, the content is not");
    }

    #[test]
    fn a_cursor_is_read_back_and_one_that_is_broken_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cursor = CursorFile::open(dir.path()).unwrap();
        assert!(cursor.read().unwrap().is_none());
        let path = dir.path().join("alerts.json");
        fs::write(&path, "one\n").unwrap();
        let file = FileMark::of(&File::open(&path).unwrap(), 4).unwrap();
        let position = Position { file, path, offset: 4, started: Some(Timestamp::from_millis(5)) };
        cursor.write(&position).unwrap();
        assert_eq!(cursor.read().unwrap(), Some(position));
        assert!(CursorFile::open(dir.path()).unwrap_err().to_string().contains("another forwarder"));
        for broken in ["", "{}", "{\"version\":2,\"position\":{}}"] {
            fs::write(dir.path().join("cursor.json"), broken).unwrap();
            assert!(format!("{:#}", cursor.read().unwrap_err()).contains("cursor.json is no cursor"), "{broken}");
        }
    }
}
