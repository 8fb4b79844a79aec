//! The journal's file. One line is one batch of records that became durable together:
//!
//! ```text
//! <crc32 of the JSON, 8 hexadecimal digits> <JSON array of records>\n
//! ```
//!
//! A batch is one line, because a line is the unit that a crash can tear. Every line is synced
//! before the next one is written, so at most the last is incomplete. A batch is there as a whole
//! or not at all. Every other fault of the file is damage, and the agent refuses to guess around
//! it.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileDisk};
use super::record::Record;

/// Limit of records that compaction puts on one line: keeps a line within a few hundred KiB.
const RECORDS_PER_LINE: usize = 512;
/// A journal below this size is not compacted while running, in bytes.
const COMPACT_ABOVE_BYTES: u64 = 1024 * 1024;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("cannot {doing} the journal {path}")]
    File {
        /// The operation that failed.
        doing: &'static str,
        /// Path of the journal.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A line in the middle is damaged; a crash does not cause that.
    #[error(
        "the journal {path} is damaged at line {line} with intact lines after it; it says which effects are in \
         force, so it is not repaired by guessing: restore it, or lift the effects by hand and remove it"
    )]
    Damaged {
        /// Path of the journal.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// A line is intact but holds a record that this version does not know.
    #[error("line {line} of the journal {path} was written by a newer version of the agent: {reason}")]
    Unknown {
        /// Path of the journal.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The parser's message.
        reason: String,
    },
}

/// An open journal, positioned at its end.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    disk: Box<dyn Disk>,
    size_bytes: u64,
    /// Size after the last compaction, in bytes.
    compact_bytes: u64,
}

/// Content of a journal.
#[derive(Debug, Default)]
pub struct Contents {
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// Size of its whole lines, in bytes.
    pub whole_bytes: u64,
    /// Size of the torn line that follows, in bytes.
    pub torn_bytes: u64,
}

/// Reads a journal and changes nothing; a missing one is empty.
///
/// # Errors
/// When it cannot be read or is damaged before its last line.
pub fn read(path: &Path) -> Result<Contents, JournalError> {
    parse(path, &FileDisk::new(path).load().map_err(|source| failed(path, "read", source))?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, JournalError> {
    let mut contents = Contents::default();
    let mut bad_line = None;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match (payload(line), bad_line) {
            (Some(json), None) => {
                let batch: Vec<Record> = serde_json::from_slice(json).map_err(|error| JournalError::Unknown {
                    path: path.into(),
                    line: number + 1,
                    reason: error.to_string(),
                })?;
                contents.records.extend(batch);
                contents.whole_bytes += line.len() as u64;
            }
            (Some(_), Some(line)) => return Err(JournalError::Damaged { path: path.into(), line }),
            (None, _) if hides_a_line(line) => {
                return Err(JournalError::Damaged { path: path.into(), line: bad_line.unwrap_or(number + 1) });
            }
            (None, _) => {
                bad_line.get_or_insert(number + 1);
                contents.torn_bytes += line.len() as u64;
            }
        }
    }
    Ok(contents)
}

/// Returns the JSON of a line whose checksum is right.
fn payload(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = (line.get(..8)?, line.get(9..)?);
    if line[8] != b' ' || !checksum.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    (crc32fast::hash(json) == checksum).then_some(json)
}

/// Whether an intact line follows within a bad one. Then a line's end was damaged, which no crash
/// does.
fn hides_a_line(line: &[u8]) -> bool {
    (1..line.len()).any(|start| payload(&line[start..]).is_some())
}

fn line(records: &[Record]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(records)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn failed(path: &Path, doing: &'static str, source: io::Error) -> JournalError {
    JournalError::File { doing, path: path.into(), source }
}

impl JournalFile {
    /// Reads the journal on `disk`; `path` is its name in messages. [`JournalFile::repair`] cuts a
    /// torn last line off.
    ///
    /// # Errors
    /// As [`read`].
    pub fn load(path: &Path, disk: Box<dyn Disk>) -> Result<(Self, Contents), JournalError> {
        let bytes = disk.load().map_err(|source| failed(path, "read", source))?;
        let contents = parse(path, &bytes)?;
        let journal = Self { path: path.into(), disk, size_bytes: contents.whole_bytes, compact_bytes: 0 };
        Ok((journal, contents))
    }

    /// Cuts off everything after the whole lines.
    ///
    /// # Errors
    /// When it may still be there; then nothing may be appended.
    pub fn repair(&mut self) -> Result<(), JournalError> {
        self.disk.cut(self.size_bytes).map_err(|source| failed(&self.path, "repair", source))
    }

    /// Appends a batch and waits until it is on disk.
    ///
    /// # Errors
    /// When it is not on disk. Then nothing may be appended before a [`JournalFile::compact`] has
    /// succeeded.
    pub fn append(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let written = line(batch)
            .and_then(|line| self.disk.append(&line).map(|()| u64::try_from(line.len()).unwrap_or(u64::MAX)));
        self.size_bytes += written.map_err(|source| failed(&self.path, "write", source))?;
        Ok(())
    }

    /// Returns the records that are certainly on disk, without the remains of a failed write.
    ///
    /// # Errors
    /// As [`read`].
    pub fn certain(&self) -> Result<Vec<Record>, JournalError> {
        let bytes = self.disk.load().map_err(|source| failed(&self.path, "read", source))?;
        let length = usize::try_from(self.size_bytes).unwrap_or(usize::MAX).min(bytes.len());
        Ok(parse(&self.path, &bytes[..length])?.records)
    }

    /// Whether the journal has doubled since the last compaction.
    pub fn is_worth_compacting(&self) -> bool {
        self.size_bytes > COMPACT_ABOVE_BYTES.max(2 * self.compact_bytes)
    }

    /// Replaces the journal by one that holds `records` alone.
    ///
    /// # Errors
    /// When that is uncertain. Then either the old or the new one is there, and both mean the same.
    pub fn compact(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        let replaced = records
            .chunks(RECORDS_PER_LINE)
            .try_for_each(|chunk| line(chunk).map(|line| bytes.extend(line)))
            .and_then(|()| self.disk.replace(&bytes));
        let size_bytes = match &replaced {
            Ok(()) => bytes.len(),
            Err(_) => self.disk.load().map_err(|source| failed(&self.path, "read", source))?.len(),
        };
        self.size_bytes = u64::try_from(size_bytes).unwrap_or(u64::MAX);
        // After a failure too: compaction is tried again when the journal has doubled, not with
        // every line.
        self.compact_bytes = self.size_bytes;
        replaced.map_err(|source| failed(&self.path, "compact", source))
    }
}
