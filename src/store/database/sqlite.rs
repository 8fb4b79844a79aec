//! Opens SQLite: one connection that writes, one beside it for checkpoints, and several that read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::bounds::{ACQUIRE_TIMEOUT, STATEMENTS};
use super::db::Db;
use super::error::Result;
use super::local::LocalConnection;
use crate::store::ledger::contained::TimeToContain;
use crate::store::ledger::story::{Ended, Names};
use crate::store::ledger::trace_queue::TraceQueue;
use crate::store::seals::known::SharedSeals;

/// How long a statement waits for SQLite's write lock, which a backup or a shell may hold.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page cache of SQLite's write connection, in KiB (negative by SQLite's convention). At the
/// default of 2 MiB the upper index pages of a few hundred thousand alerts do not fit, and each
/// alert costs hundreds of reads.
const WRITER_CACHE: &str = "-16384";
/// WAL size in pages (64 MiB) at which a commit checkpoints by itself, if [`Db::tidy`] fell behind.
const WAL_PAGES: &str = "16000";

/// Opens the file at `path`, without checking its schema; creates it if it is missing.
///
/// # Errors
/// If it cannot be opened.
pub(super) async fn open(path: &Path) -> Result<Db> {
    let file: Arc<Path> = path.into();
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: a commit is on disk when it returns, even if the power fails a moment later
        // (promise 1).
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", WAL_PAGES)
        .statement_cache_capacity(STATEMENTS);
    // Connections to a file need no recycling. Each replaced connection fragments the heap: 23
    // MiB every half-hour.
    let ageless = || SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None).acquire_timeout(ACQUIRE_TIMEOUT);
    let write = LocalConnection::open(&file, &writing())?;
    let aside = ageless().max_connections(1).connect_lazy_with(options.clone());
    let several = ageless().max_connections(4);
    let read = several.connect_with(options.read_only(true)).await?;
    let near = LocalConnection::open_to_look(&file, &format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis()))?;
    Ok(database((write, near), read, aside, file))
}

/// The settings of the connection that writes.
fn writing() -> String {
    let busy = BUSY_TIMEOUT.as_millis();
    // FULL: a commit is on disk when it returns, even if the power fails a moment later (promise 1). Many-row statements keep a
    // statement journal in a temporary folder, which may be full; in memory it is a few pages.
    format!(
        "PRAGMA busy_timeout = {busy}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
        PRAGMA wal_autocheckpoint = {WAL_PAGES}; PRAGMA cache_size = {WRITER_CACHE}; PRAGMA temp_store = MEMORY"
    )
}

fn database(
    (write, near): (LocalConnection, LocalConnection),
    read: SqlitePool,
    aside: SqlitePool,
    file: Arc<Path>,
) -> Db {
    let (head, names, ended, seals) = (Arc::default(), Names::default(), Ended::default(), SharedSeals::default());
    let (time_to_contain, traces, feed) = (TimeToContain::default(), TraceQueue::default(), Arc::default());
    Db::Sqlite { write, near, read, aside, file, head, names, ended, time_to_contain, traces, seals, feed }
}

/// Opens the file at `path` read-only.
///
/// # Errors
/// If it cannot be opened.
pub(super) async fn open_to_look(path: &Path) -> Result<Db> {
    let file: Arc<Path> = path.into();
    let options = SqliteConnectOptions::new().filename(&file).read_only(true);
    let pool =
        SqlitePoolOptions::new().max_connections(2).acquire_timeout(ACQUIRE_TIMEOUT).connect_with(options).await?;
    Ok(database((LocalConnection::none(), LocalConnection::none()), pool.clone(), pool, file))
}
