//! The table that stands in a database as long as an import into it has not ended. It holds how far the
//! import is. While it is there, no manager starts and no other tool opens the ledger. It is no part of the
//! schema: an import creates it and, once everything is verified, drops it.

use super::bind::binds;
use super::db::{Db, Tx};
use super::error::{Result, StoreError};

// Not among the portable statements: the table is there during imports only.
const IS_THERE_SQLITE: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'riposte_import'";
const IS_THERE_POSTGRESQL: &str =
    "SELECT CAST(to_regclass('riposte_import') AS TEXT) AS name WHERE to_regclass('riposte_import') IS NOT NULL";
const CREATE: &str =
    "CREATE TABLE riposte_import (id BIGINT PRIMARY KEY, file TEXT NOT NULL, rows_done BIGINT NOT NULL,
    rows_total BIGINT NOT NULL, at_table TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO riposte_import (id, file, rows_done, rows_total, at_table) VALUES (1, $1, 0, $2, '')";
const READ: &str = "SELECT file, rows_done, rows_total, at_table FROM riposte_import WHERE id = 1";
const MOVE: &str = "UPDATE riposte_import SET rows_done = $1, at_table = $2 WHERE id = 1 AND rows_done = $3";
const DROP: &str = "DROP TABLE riposte_import";
/// A manager that starts waits for this lock, or is found to run.
const KEEP_MANAGERS_OUT: &str = "LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE";
const RUNNING: &str = "SELECT name FROM nodes
    WHERE lease_until > CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

#[derive(sqlx::FromRow)]
struct Name {
    name: String,
}

/// How far an import is.
#[derive(Debug, sqlx::FromRow)]
pub struct ImportMarker {
    /// Digest of the file that is imported.
    pub file: String,
    rows_done: i64,
    rows_total: i64,
    at_table: String,
}

impl ImportMarker {
    /// The marker of the import that has not ended, if there is one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn read(db: &Db) -> Result<Option<Self>> {
        let is_there = match db {
            Db::Sqlite { .. } => IS_THERE_SQLITE,
            Db::Postgres { .. } => IS_THERE_POSTGRESQL,
        };
        if db.optional::<Name>(is_there, vec![]).await?.is_none() {
            return Ok(None);
        }
        db.optional(READ, vec![]).await
    }

    /// How many rows are there.
    pub fn rows_done(&self) -> u64 {
        u64::try_from(self.rows_done).unwrap_or_default()
    }

    fn text(&self) -> String {
        let place = if self.at_table.is_empty() { String::new() } else { format!(", the last in {}", self.at_table) };
        format!("{} of {} rows are there{place}", self.rows_done, self.rows_total)
    }
}

/// Refuses a database with an import that has not ended.
///
/// # Errors
/// [`StoreError::Importing`].
pub async fn refuse(db: &Db) -> Result<()> {
    ImportMarker::read(db).await?.map_or(Ok(()), |marker| Err(StoreError::Importing(marker.text())))
}

/// Who runs on a PostgreSQL ledger now. A SQLite ledger has locks of files for that.
///
/// # Errors
/// If the database cannot be read.
pub async fn running(db: &Db) -> Result<Option<String>> {
    match db {
        Db::Sqlite { .. } => Ok(None),
        Db::Postgres { .. } => Ok(db.optional::<Name>(RUNNING, vec![]).await?.map(|found| found.name)),
    }
}

/// Puts the marker of an import of `total` rows into the transaction, and waits until no manager is about
/// to start.
///
/// # Errors
/// [`StoreError::Unsuitable`] if a manager runs on it.
pub(in crate::store) async fn create(tx: &mut Tx, file: &str, total: u64) -> Result<()> {
    if let Tx::Postgres(_) = tx {
        tx.execute(KEEP_MANAGERS_OUT, vec![]).await?;
        if let Some(Name { name }) = tx.optional(RUNNING, vec![]).await? {
            return Err(StoreError::Unsuitable(format!("a manager runs on this database: {name}. Stop it first")));
        }
    }
    tx.execute(CREATE, vec![]).await?;
    tx.execute(INSERT, binds![file, i64::try_from(total).unwrap_or(i64::MAX)]).await?;
    Ok(())
}

/// Notes that after `before` rows there are `done`, the last ones in `table`.
///
/// # Errors
/// [`StoreError::Unsuitable`] if another import has moved it meanwhile.
pub(in crate::store) async fn advance(tx: &mut Tx, before: u64, done: u64, table: &'static str) -> Result<()> {
    let number = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
    if tx.execute(MOVE, binds![number(done), table, number(before)]).await? == 0 {
        return Err(StoreError::Unsuitable("another import into this database is running".to_owned()));
    }
    Ok(())
}

/// Ends the import.
///
/// # Errors
/// If it cannot be written.
pub(in crate::store) async fn drop_marker(tx: &mut Tx) -> Result<()> {
    tx.execute(DROP, vec![]).await?;
    Ok(())
}
