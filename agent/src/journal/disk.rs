//! What the journal needs of a disk, in four verbs, so that a test can be a disk that fills up, tears a write or dies
//! in the middle of one.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::durable;

/// Where a journal is kept. A verb that comes back without an error has made its change durable.
pub trait Disk: Send + std::fmt::Debug {
    /// Everything that is there; a journal that is not there yet is empty.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn load(&self) -> io::Result<Vec<u8>>;

    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// When that is not certain: any part of `bytes` may be there or not.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts off what is beyond `length`.
    ///
    /// # Errors
    /// When it may still be there.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Puts `bytes` in the place of everything.
    ///
    /// # Errors
    /// When it is not in place; what was there before still is then.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A file.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    /// Opened by the first write, so that a journal on a disk that can only be read can be read.
    file: Option<File>,
}

impl FileDisk {
    /// The file at `path`, which need not be there.
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
        let file = self.open()?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The open file is the old one from here on: it must not be written to, whether this works or not.
        self.file = None;
        durable::replace(&self.path, bytes)
    }
}
