//! The description of a file in the quarantine, as the journal holds it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a file was, and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Kept {
    /// Its name in the quarantine.
    pub(super) name: String,
    pub(in super::super) sha256: String,
    pub(super) size_bytes: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified_secs: i64,
    pub(super) modified_nanos: i64,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Its path with all links resolved. Absent in older journals, which had no links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<PathBuf>,
}
