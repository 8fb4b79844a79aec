//! What the system knows of a file, as evidence.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

/// The file at `path` itself, also if it is a link.
///
/// # Errors
/// When it cannot be looked at.
pub fn of_file(path: &Path) -> io::Result<Value> {
    let metadata = path.symlink_metadata()?;
    let time = |time: io::Result<SystemTime>| {
        let since = time.ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Timestamp::from_millis(0).plus(since))
    };
    Ok(json!({
        "size_bytes": metadata.len(),
        "access_list": super::acl::get(path).ok(),
        "owner": super::acl::owner(path).ok(),
        "created_at": time(metadata.created()),
        "modified_at": time(metadata.modified()),
        "accessed_at": time(metadata.accessed()),
    }))
}
