//! The connection that writes the SQLite file, and one for the reads of every delivery, by SQLite's C API. Statements run in the
//! thread that asks: sqlx passes each statement to a thread of its own, and the two wake-ups cost more than most statements do.
//!
//! A call blocks its thread. The group commit has a thread of its own for that; transactions elsewhere are few and short.

mod nothing;
mod row;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags};
use sqlx::FromRow;
use sqlx::error::{DatabaseError, ErrorKind};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

use super::bind::Bind;
use super::bounds::{ACQUIRE_TIMEOUT, STATEMENTS};
use super::error::{Result, StoreError};
pub(in crate::store) use row::LocalRow;
use row::{LocalColumn, LocalValue};

/// The connection, until it is closed. A `rusqlite` connection may be used by one thread at a time, so that it is in a mutex,
/// which is never locked.
type Held = Option<Mutex<Connection>>;

/// A connection, and who waits for it: those that write queue here instead of failing with `SQLITE_BUSY`.
#[derive(Clone, Debug)]
pub struct LocalConnection(Arc<Queue<Held>>);

impl LocalConnection {
    /// Opens the file, creates it if it is missing, and runs `settings` on the connection.
    pub(super) fn open(path: &Path, settings: &str) -> Result<Self> {
        // No URIs: a path that begins with `file:` is a path.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::with(path, flags, settings)
    }

    fn with(path: &Path, flags: OpenFlags, settings: &str) -> Result<Self> {
        let connection = Connection::open_with_flags(path, flags).map_err(fault)?;
        connection.execute_batch(settings).map_err(fault)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self(Arc::new(Queue::new(Some(Mutex::new(connection))))))
    }

    /// No connection, for a database that is only read.
    pub(super) fn none() -> Self {
        Self(Arc::default())
    }

    /// A connection to an existing file that cannot write it.
    pub(super) fn open_to_look(path: &Path, settings: &str) -> Result<Self> {
        Self::with(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX, settings)
    }

    /// Begins a transaction that takes the write lock: a deferred one would read first, then fail as busy.
    pub(super) async fn begin(&self) -> Result<LocalTx> {
        let mut tx = self.hold().await?;
        // It waits for other programs, such as a backup.
        blocking(|| tx.run("BEGIN IMMEDIATE"))?;
        Ok(tx)
    }

    /// All rows of some statements, each of which sees what is committed then. `few` are read without a word to the runtime.
    pub(super) async fn all<T: for<'r> FromRow<'r, LocalRow>>(
        &self,
        statements: Vec<(String, Vec<Bind>)>,
        few: bool,
    ) -> Result<Vec<T>> {
        let mut looks = self.hold().await?;
        if few { looks.all_of(&statements) } else { blocking(|| looks.all_of(&statements)) }
    }

    /// As [`LocalConnection::all`], if nothing else uses the connection now.
    pub(super) fn all_if_free<T: for<'r> FromRow<'r, LocalRow>>(
        &self,
        statements: impl FnOnce() -> Vec<(String, Vec<Bind>)>,
    ) -> Result<Option<Vec<T>>> {
        let Ok(held) = Arc::clone(&self.0).try_lock_owned() else { return Ok(None) };
        LocalTx { held }.all_of(&statements()).map(Some)
    }

    /// The connection, as soon as it is free.
    async fn hold(&self) -> Result<LocalTx> {
        let held = tokio::time::timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.0).lock_owned()).await;
        Ok(LocalTx { held: held.map_err(|_| sqlx::Error::PoolTimedOut)? })
    }

    /// Closes the connection after the last transaction.
    pub(super) async fn close(&self) {
        drop(self.0.lock().await.take());
    }
}

/// A transaction on the connection; rolled back if it is dropped before [`LocalTx::commit`].
#[derive(Debug)]
pub struct LocalTx {
    held: OwnedMutexGuard<Held>,
}

impl LocalTx {
    fn connection(&mut self) -> sqlx::Result<&mut Connection> {
        let held = self.held.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        Ok(held.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    fn run(&mut self, sql: &str) -> sqlx::Result<()> {
        let connection = self.connection()?;
        connection.prepare_cached(sql).and_then(|mut statement| statement.raw_execute()).map(drop).map_err(fault)
    }

    /// Commits durably.
    pub(super) fn commit(mut self) -> sqlx::Result<()> {
        // It waits for the disk.
        blocking(|| self.run("COMMIT"))
    }

    /// Passes each row to `each` as it comes.
    pub(super) fn for_each<T, E>(
        &mut self,
        sql: &str,
        binds: &[Bind],
        mut each: impl FnMut(T) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E>
    where
        T: for<'r> FromRow<'r, LocalRow>,
        E: From<StoreError>,
    {
        let failed = |error| E::from(StoreError::from(error));
        let connection = self.connection().map_err(failed)?;
        let mut statement = prepared(connection, sql, binds).map_err(failed)?;
        let count = statement.column_count();
        let columns = LocalColumn::all(statement.column_names());
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(fault).map_err(failed)? {
            let values = (0..count).map(|at| row.get_ref(at).map_err(fault).and_then(value));
            let values = values.collect::<sqlx::Result<_>>().map_err(failed)?;
            each(T::from_row(&LocalRow::new(&columns, values)).map_err(failed)?)?;
        }
        Ok(())
    }

    /// All rows.
    pub(super) fn all<T: for<'r> FromRow<'r, LocalRow>>(&mut self, sql: &str, binds: &[Bind]) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.for_each(sql, binds, |row| {
            found.push(row);
            Result::Ok(())
        })?;
        Ok(found)
    }

    fn all_of<T: for<'r> FromRow<'r, LocalRow>>(&mut self, statements: &[(String, Vec<Bind>)]) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for (sql, binds) in statements {
            found.extend(self.all(sql, binds)?);
        }
        Ok(found)
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(super) fn execute(&mut self, sql: &str, binds: &[Bind]) -> Result<u64> {
        let connection = self.connection()?;
        let mut statement = prepared(connection, sql, binds)?;
        let mut rows = statement.raw_query();
        while rows.next().map_err(fault)?.is_some() {}
        drop(rows);
        drop(statement);
        Ok(connection.changes())
    }
}

impl Drop for LocalTx {
    fn drop(&mut self) {
        // After an error such as a full disk, SQLite rolls back by itself.
        if let Ok(connection) = self.connection()
            && !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!("a transaction could not be rolled back: {error}");
        }
    }
}

/// Runs what may wait for long. Other tasks of this thread go on elsewhere, if the runtime has several threads.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) { tokio::task::block_in_place(work) } else { work() }
}

/// The statement, from the cache if it was prepared before, with its values.
fn prepared<'c>(connection: &'c Connection, sql: &str, binds: &[Bind]) -> sqlx::Result<CachedStatement<'c>> {
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    bind(&mut statement, binds).map_err(fault)?;
    Ok(statement)
}

/// Binds the values: `$3` is the third, and each `?` the next one.
fn bind(statement: &mut CachedStatement, binds: &[Bind]) -> rusqlite::Result<()> {
    let mut unnamed = 0;
    for at in 1..=statement.parameter_count() {
        let number = statement.parameter_name(at).map(|name| name.trim_start_matches('$').parse::<usize>());
        let nth = match number {
            Some(number) => number.unwrap_or(0),
            None => {
                unnamed += 1;
                unnamed
            }
        };
        match nth.checked_sub(1).and_then(|nth| binds.get(nth)) {
            Some(Bind::Int(value)) => statement.raw_bind_parameter(at, value)?,
            Some(Bind::Text(value)) => statement.raw_bind_parameter(at, value)?,
            Some(Bind::Bytes(value)) => statement.raw_bind_parameter(at, value)?,
            Some(Bind::Bool(value)) => statement.raw_bind_parameter(at, value)?,
            None => return Err(rusqlite::Error::InvalidParameterCount(binds.len(), nth)),
        }
    }
    Ok(())
}

fn value(value: ValueRef<'_>) -> sqlx::Result<LocalValue> {
    Ok(match value {
        ValueRef::Null => LocalValue::Null,
        ValueRef::Integer(number) => LocalValue::Integer(number),
        ValueRef::Real(number) => LocalValue::Real(number),
        ValueRef::Text(text) => {
            LocalValue::Text(String::from_utf8(text.to_vec()).map_err(|error| sqlx::Error::Decode(error.into()))?)
        }
        ValueRef::Blob(bytes) => LocalValue::Blob(bytes.to_vec()),
    })
}

/// An error of SQLite, as sqlx has it.
#[derive(Debug, thiserror::Error)]
#[error("(code: {code}) {message}")]
struct LocalFault {
    /// The extended result code.
    code: i32,
    message: String,
}

/// `SQLITE_CONSTRAINT_UNIQUE` and `SQLITE_CONSTRAINT_PRIMARYKEY`.
const NOT_UNIQUE: [i32; 2] = [2067, 1555];

impl DatabaseError for LocalFault {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.code.to_string().into())
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        if NOT_UNIQUE.contains(&self.code) { ErrorKind::UniqueViolation } else { ErrorKind::Other }
    }
}

fn fault(error: rusqlite::Error) -> sqlx::Error {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            let message = message.unwrap_or_else(|| failure.to_string());
            sqlx::Error::Database(Box::new(LocalFault { code: failure.extended_code, message }))
        }
        other => sqlx::Error::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
