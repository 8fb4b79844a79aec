//! The agent's memory: an append-only file of records ([`JournalFile`]) and the state that follows from them
//! ([`Ledger`]), kept together by [`Book`]. Nothing is executed or acknowledged before its record is on disk, and
//! a journal that cannot be written stops the agent: acting without memory is how blocks are forgotten.

mod file;
mod ledger;
mod record;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use file::{Contents, JournalError, JournalFile, read};
pub use ledger::{Ledger, Pending};
pub use record::{Held, Record};

/// The journal and the state that follows from it.
#[derive(Debug)]
pub struct Book {
    file: JournalFile,
    ledger: Ledger,
    unwritten: Vec<Record>,
    /// A write has failed: what is on disk is not known any more, so nothing may be done on its word.
    broken: bool,
}

impl Book {
    /// Opens the journal at `path`, rebuilds the state and compacts the file.
    ///
    /// # Errors
    /// When the journal cannot be read or written, or is damaged.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let (mut file, records) = JournalFile::open(path)?;
        let mut ledger = Ledger::default();
        for record in records {
            ledger.apply(record);
        }
        file.compact(&ledger.records())?;
        Ok(Self { file, ledger, unwritten: Vec::new(), broken: false })
    }

    /// The state.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a write has failed.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Adds a record to the batch and to the state. Nobody may act on it before [`Book::commit`] has succeeded.
    pub fn add(&mut self, record: Record) {
        self.unwritten.push(record.clone());
        self.ledger.apply(record);
    }

    /// Makes the batch durable.
    ///
    /// # Errors
    /// When it is not; the book is broken from then on.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.unwritten);
        let mut written = self.file.append(&batch);
        if written.is_ok() && self.file.is_worth_compacting() {
            written = self.file.compact(&self.ledger.records());
        }
        self.broken |= written.is_err();
        written
    }
}
