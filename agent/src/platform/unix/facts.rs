//! What the system knows of a file, as evidence.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

/// The file at `path` itself, also if it is a link.
///
/// # Errors
/// When it cannot be looked at.
pub fn of_file(path: &Path) -> io::Result<Value> {
    let metadata = path.symlink_metadata()?;
    let time = |seconds: i64, nanos: i64| {
        Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
    };
    Ok(json!({
        "size_bytes": metadata.len(),
        "mode": format!("{:04o}", metadata.mode() & 0o7777),
        "owner": { "uid": metadata.uid(), "name": super::accounts::name_of_number(metadata.uid()) },
        "group": { "gid": metadata.gid(), "name": super::accounts::group_name_of_number(metadata.gid()) },
        "links": metadata.nlink(),
        "inode": metadata.ino(),
        "modified_at": time(metadata.mtime(), metadata.mtime_nsec()),
        "changed_at": time(metadata.ctime(), metadata.ctime_nsec()),
        "accessed_at": time(metadata.atime(), metadata.atime_nsec()),
    }))
}
