//! What the journal needs of a disk, in four functions. A test replaces it by a disk that fills up,
//! tears a write or dies in the middle of one.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::durable;

/// Storage of a journal. A function that returns without an error has made its change durable.
pub trait Disk: Send + std::fmt::Debug {
    /// Returns the whole content; empty if the journal does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    fn load(&self) -> io::Result<Vec<u8>>;

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When that is uncertain: any part of `bytes` may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Truncates to `length`.
    ///
    /// # Errors
    /// When the rest may still be there.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Replaces the whole content by `bytes`.
    ///
    /// # Errors
    /// When it was not replaced; then the old content is still there.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A journal in a file.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    /// Opened by the first write, so that a journal on a read-only disk can be read.
    file: Option<File>,
}

impl FileDisk {
    /// The file at `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), file: None }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => durable::append(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

impl Disk for FileDisk {
    fn load(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match durable::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.open()?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        // A handle that appends may not cut on every system.
        durable::cut(&self.path, length)
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The open file is the old one from here on. It must not be written to, even if this fails.
        self.file = None;
        durable::replace(&self.path, bytes)
    }
}
