//! A test write that shows whether alerts can be committed: as large as an ordinary request,
//! durable, and on the same path. Runs only on request (`src/engine/readiness.rs`).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use riposte_protocol::time::Timestamp;

use super::{Db, Result, binds, statements};
use crate::store::ledger::audit::LedgerTx;

statements! {
    WRITE = "INSERT INTO probes (id, at, filler) VALUES (1, $1, $2)
        ON CONFLICT (id) DO UPDATE SET at = excluded.at, filler = excluded.filler";
}

/// Large enough to need disk space, small enough to be cheap.
const FILLER_BYTES: usize = 64 * 1024;

/// Checks for free space on the ledger's disk. SQLite reuses its WAL, so small commits succeed for
/// a while after larger ones fail.
///
/// # Errors
/// The cause, in words for an operator.
pub async fn room(db: &Db) -> std::result::Result<(), String> {
    let Db::Sqlite { file, .. } = db else { return Ok(()) };
    let beside = file.with_added_extension("probe");
    let written = tokio::task::spawn_blocking(move || write_beside(&beside)).await;
    let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("the disk is full ({error})"),
        io::ErrorKind::ReadOnlyFilesystem => format!("the file system is read-only ({error})"),
        _ => format!("the disk cannot be written ({error})"),
    })
}

/// Space for a batch of alerts, in bytes.
const ROOM_BYTES: usize = 256 * 1024;

fn write_beside(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    // Some file systems store zeros without using space.
    let written = file.and_then(|mut file| file.write_all(&vec![1; ROOM_BYTES]).and_then(|()| file.sync_data()));
    let removed = std::fs::remove_file(path);
    written.and(removed)
}

/// Writes the test row.
pub(in crate::store) async fn write(ledger: &mut LedgerTx, now: Timestamp) -> Result<()> {
    ledger.tx.execute(WRITE, binds![now, vec![0_u8; FILLER_BYTES]]).await?;
    Ok(())
}
