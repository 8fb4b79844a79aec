//! The agent's memory: an append-only file of records ([`JournalFile`]) and the state that follows
//! from them ([`JournalState`]). [`Journal`] keeps both consistent.
//!
//! A command is executed or acknowledged only after its record is on disk. While the disk cannot be
//! written (it is full, or read-only), the journal is *broken*. Then nothing new is started, but
//! what must be lifted still is, and such facts are kept in memory ([`Journal::note`]) until the
//! disk can be written. A crash may lose them. The effects are then still held on disk and are
//! looked at again, so no block is forgotten.

mod disk;
mod file;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use disk::{Disk, FileDisk};
pub use file::{Contents, JournalError, JournalFile, read};
pub use record::{Failing, Held, Record, Released, Term};
pub use state::{JournalState, Pending};

/// The journal's file and the state that follows from it.
#[derive(Debug)]
pub struct Journal {
    file: JournalFile,
    state: JournalState,
    unwritten: Vec<Record>,
    /// Why the last write failed. Nothing is appended until the whole journal was rewritten.
    broken: Option<String>,
}

impl Journal {
    /// Opens the journal at `path`, rebuilds the state and compacts the file. If it can be read but
    /// not written, it is broken from the start.
    ///
    /// # Errors
    /// When the journal cannot be read, or is damaged.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Self::open_on(path, Box::new(FileDisk::new(path)))
    }

    /// As [`Journal::open`], on another disk.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_on(path: &Path, disk: Box<dyn Disk>) -> Result<Self, JournalError> {
        let (file, contents) = JournalFile::load(path, disk)?;
        let mut journal = Self { file, state: JournalState::of(contents.records), unwritten: Vec::new(), broken: None };
        if contents.torn_bytes > 0 {
            tracing::warn!(
                path = %path.display(),
                bytes = contents.torn_bytes,
                "the journal's last line is incomplete, as a crash leaves it: removed, it held nothing that was acknowledged"
            );
        }
        let repaired = journal.file.repair().and_then(|()| {
            // A compaction needs more free space than a line. Without it the journal is only longer
            // than necessary.
            let compacted = journal.file.compact(&journal.state.records());
            compacted.or_else(|_| journal.file.append(&[]))
        });
        journal.broken = repaired.err().map(|error| crate::telemetry::chain(&error));
        Ok(journal)
    }

    /// Creates the journal of an agent that has just been enrolled: no effect was ever in force for
    /// it. An existing journal is left unchanged.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(path: &Path) -> Result<(), JournalError> {
        let (mut file, contents) = JournalFile::load(path, Box::new(FileDisk::new(path)))?;
        if contents.whole_bytes + contents.torn_bytes > 0 {
            return Ok(());
        }
        file.append(&[Record::Inbox {
            cursor: 0,
            forgotten_up_to: 0,
            missing: Vec::new(),
            whole: true,
            latest_iat: None,
        }])
    }

    /// The state.
    pub fn state(&self) -> &JournalState {
        &self.state
    }

    /// Why the journal cannot be written; `None` if it can.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Adds a record to the batch and to the state. It must not be acted on before
    /// [`Journal::commit`] has succeeded.
    pub fn add(&mut self, record: Record) {
        self.unwritten.push(record.clone());
        self.state.apply(record);
    }

    /// Makes the batch durable. If that fails, the state is as before the batch, and the journal is
    /// broken.
    ///
    /// # Errors
    /// When the journal cannot even be read any more. Then nothing is known, and the agent has to
    /// stop.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.unwritten);
        if let Err(error) = self.file.append(&batch) {
            self.broken = Some(crate::telemetry::chain(&error));
            self.state = JournalState::of(self.file.certain()?);
            // If it stays, the worst case is a batch that counts after a crash: its effects are
            // looked at and cleaned up.
            let _tail_stays = self.file.repair();
        } else if self.file.is_worth_compacting()
            && let Err(error) = self.file.compact(&self.state.records())
        {
            tracing::warn!(
                reason = crate::telemetry::chain(&error),
                "the journal cannot be compacted; it keeps growing"
            );
        }
        Ok(())
    }

    /// Adds records that are true even if they cannot be written: something was lifted, or not even
    /// tried. They are made durable now, or as soon as the disk allows.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn note(&mut self, records: Vec<Record>) -> Result<(), JournalError> {
        if self.broken.is_none() {
            records.iter().cloned().for_each(|record| self.add(record));
            self.commit()?;
            if self.broken.is_none() {
                return Ok(());
            }
        }
        for record in records {
            self.state.apply(record);
        }
        Ok(())
    }

    /// Tries to rewrite the whole state; if that succeeds, the journal is not broken any more.
    pub fn mend(&mut self) {
        self.broken = self.file.compact(&self.state.records()).err().map(|error| crate::telemetry::chain(&error));
    }
}
