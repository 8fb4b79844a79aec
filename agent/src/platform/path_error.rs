//! Why a path is not used.

use std::io;
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
