//! An agent's disk, in memory: it fills up, and it tears the write during which the agent crashes.
//! It outlives the agent.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::Disk;

/// Content of the disk, and the fate of the next write.
#[derive(Debug, Default)]
pub struct Platter {
    /// The content.
    pub bytes: Vec<u8>,
    /// Whether every write fails.
    pub is_full: bool,
    /// After this many more appends the agent crashes during one. The second number is how many
    /// parts of 256 are written: 0 is before the write, 256 after it.
    pub tear: Option<(usize, usize)>,
    /// The agent has crashed during a write, and writes no more.
    pub is_dead: bool,
}

/// The disk; its clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Platter>>);

impl MemoryDisk {
    /// Its content.
    pub fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn writable(platter: &Platter) -> io::Result<()> {
    if platter.is_dead {
        Err(io::Error::other("dead"))
    } else if platter.is_full {
        Err(io::ErrorKind::StorageFull.into())
    } else {
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn load(&self) -> io::Result<Vec<u8>> {
        Ok(self.platter().bytes.clone())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        if platter.is_full && !platter.is_dead {
            // As on a full disk: a part of the write is stored.
            platter.bytes.extend(&bytes[..bytes.len() / 3]);
        }
        writable(&platter)?;
        if let Some((writes, parts)) = platter.tear.take() {
            if writes > 0 {
                platter.tear = Some((writes - 1, parts));
                platter.bytes.extend(bytes);
                return Ok(());
            }
            platter.is_dead = true;
            platter.bytes.extend(&bytes[..(bytes.len() * parts / 256).min(bytes.len())]);
            return Err(io::Error::other("dead"));
        }
        platter.bytes.extend(bytes);
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut platter = self.platter();
        // A file can be truncated on a full disk.
        if platter.is_dead {
            return writable(&platter);
        }
        platter.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        writable(&platter)?;
        platter.bytes = bytes.into();
        Ok(())
    }
}
