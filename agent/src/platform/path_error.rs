//! Why a path is not used, and how much of a file is read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Why a path is not used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A system call failed.
    #[error("{path}: {source}")]
    System {
        /// The part of the path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another account could have chosen what it leads to, or it has the wrong kind.
    #[error("{path} is not used: {reason}")]
    Refused {
        /// The part of the path.
        path: PathBuf,
        /// What is wrong, and the command that fixes it.
        reason: String,
    },
}

impl PathError {
    pub(crate) fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn system(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::System { path: path.into(), source: error.into() }
    }

    /// Whether the error is that nothing is there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether another process holds a lease on it, which the kernel has asked back now.
    pub fn is_leased(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }
}

impl From<PathError> for io::Error {
    fn from(error: PathError) -> Self {
        match error {
            PathError::System { path, source } => Self::new(source.kind(), format!("{}: {source}", path.display())),
            PathError::Refused { .. } => Self::new(io::ErrorKind::PermissionDenied, error.to_string()),
        }
    }
}

/// Reads an open file, whose path is `path`, up to `limit_bytes`.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(crate) fn read_limited(file: &File, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(|error| PathError::system(path, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(PathError::refused(path, format!("it is larger than {limit_bytes} bytes")));
    }
    Ok(bytes)
}
