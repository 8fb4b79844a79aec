//! The limits of quarantine, which the local policy sets.

/// Limits of quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, in bytes, holes included: it has to be read, and perhaps copied.
    pub max_file_bytes: u64,
    /// Space that a copy leaves free on the disk of the agent's state, in bytes: the journal is
    /// there too.
    pub min_free_bytes: u64,
}

impl Limits {
    /// Defaults of the local policy.
    pub const DEFAULT: Self = Self { max_file_bytes: 256 * 1024 * 1024, min_free_bytes: 32 * 1024 * 1024 };
}
