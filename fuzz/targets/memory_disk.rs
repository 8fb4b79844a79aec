//! A disk of a journal in memory: the journal's own code reads and writes it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use riposte_agent::journal::{Contents, Disk, JournalError, JournalFile};

/// The bytes of a journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<Vec<u8>>>);

impl MemoryDisk {
    pub(crate) fn with(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Opens the journal as the agent does, without a compaction.
    pub(crate) fn open(&self) -> Result<(JournalFile, Contents), JournalError> {
        let (mut file, contents) = JournalFile::load(Path::new("journal"), Box::new(self.clone()))?;
        file.repair()?;
        Ok((file, contents))
    }
}

impl Disk for MemoryDisk {
    fn load(&self) -> io::Result<Vec<u8>> {
        Ok(self.bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.change(|all| all.extend_from_slice(bytes));
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.change(|all| all.truncate(length));
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.change(|all| bytes.clone_into(all));
        Ok(())
    }
}
