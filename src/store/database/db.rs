//! `Db`, the pools of connections to one of the two databases, and `Tx`, a transaction on it: how
//! statements run. `open.rs` opens a database.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgPool, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Executor as _, FromRow, SqlSafeStr as _, Transaction};
use tokio::sync::Notify;

use super::bind::{Bind, bind_all};
use super::error::{Result, StoreError};
use super::local::{LocalConnection, LocalRow, LocalTx};
use super::reconnects::Reconnects;
use super::rows::{in_chunks, sample};
use crate::store::ledger::audit_head::CachedAuditHead;
use crate::store::ledger::contained::TimeToContain;
use crate::store::ledger::story::{Ended, Names};
use crate::store::ledger::trace_queue::TraceQueue;
use crate::store::seals::known::SharedSeals;

/// Up to this number of rows, a read in the thread that asks takes less than telling the runtime of it.
const NEAR_ROWS: usize = 8;

/// How long PostgreSQL may take to answer a statement: more than its own limits (`postgresql.rs`). An answer that is lost with
/// its connection would be waited for without end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// As [`ANSWER_TIMEOUT`], for reads.
const READ_TIMEOUT: Duration = Duration::from_secs(125);

/// Waits for an answer of PostgreSQL.
async fn answered<T>(limit: Duration, answer: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    let late = || sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut));
    Ok(tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))?)
}

/// Run id of the manager that a [`Db`] writes for; unset in tools, which run no manager.
pub type Writes = Arc<OnceLock<String>>;

/// A row that both databases can return.
pub trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, LocalRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}
impl<T> Row for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, LocalRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// The database; cheap to clone.
#[derive(Clone, Debug)]
pub enum Db {
    /// One SQLite file with one write connection and several read connections.
    Sqlite {
        /// The one connection that writes.
        write: LocalConnection,
        /// Reads in the thread that asks.
        near: LocalConnection,
        /// Reads committed data and never waits for the writer (WAL).
        read: SqlitePool,
        /// Runs checkpoints and migrations, so that commits do not have to.
        aside: SqlitePool,
        /// Path of the file.
        file: Arc<Path>,
        /// The end of the audit chain. No other process writes this file, so the cached value is
        /// always current.
        head: CachedAuditHead,
        /// Names of ids, for log lines.
        names: Names,
        /// Responses that have ended.
        ended: Ended,
        /// How long containment takes.
        time_to_contain: TimeToContain,
        /// Changes that belong into traces.
        traces: TraceQueue,
        /// The seals of rows that grant power.
        seals: SharedSeals,
        /// Told of each commit that has events.
        feed: Arc<Notify>,
    },
    /// A PostgreSQL server.
    Postgres {
        /// One connection for all writes. Writers queue at the audit head anyway. The many-row
        /// statements are then prepared once instead of on ten connections; those used most of the
        /// memory of a loaded manager and its server.
        write: PgPool,
        /// The pool of read connections.
        read: PgPool,
        /// A separate connection for the manager's lease, so that a renewal never queues.
        lease: PgPool,
        /// Connections for what concerns the other managers: hints, duties, presence.
        peers: PgPool,
        /// Run id of the manager that writes.
        writes: Writes,
        /// Which connections are too old.
        reconnects: Reconnects,
        /// Names of ids, for log lines.
        names: Names,
        /// Responses that have ended.
        ended: Ended,
        /// How long containment takes.
        time_to_contain: TimeToContain,
        /// Changes that belong into traces.
        traces: TraceQueue,
        /// The seals of rows that grant power.
        seals: SharedSeals,
        /// Told of each commit that has events.
        feed: Arc<Notify>,
    },
}

impl Db {
    /// Checks the SQLite file; returns the damage found. PostgreSQL checks its own files.
    ///
    /// # Errors
    /// If the check cannot run.
    pub async fn damage(&self) -> Result<Option<String>> {
        let Self::Sqlite { read, .. } = self else { return Ok(None) };
        let said: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(read).await?;
        Ok((said != "ok").then_some(said))
    }

    /// Begins a write transaction. SQLite takes the write lock here: a deferred transaction would
    /// read first, then fail as busy.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite { write, .. } => Tx::Local(write.begin().await?),
            Self::Postgres { write, .. } => Tx::Postgres(write.begin().await?),
        })
    }

    /// Whether a transaction blocks its thread.
    pub const fn blocks(&self) -> bool {
        matches!(self, Self::Sqlite { .. })
    }

    /// What gives connections up; without effect on SQLite.
    pub(in crate::store) fn reconnects(&self) -> Reconnects {
        match self {
            Self::Sqlite { .. } => Reconnects::default(),
            Self::Postgres { reconnects, .. } => reconnects.clone(),
        }
    }

    /// Begins a read transaction, whose statements all see the same state.
    pub async fn snapshot(&self) -> Result<Tx> {
        const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Ok(match self {
            Self::Sqlite { read, .. } => Tx::Sqlite(read.begin().await?),
            Self::Postgres { read, .. } => Tx::Postgres(read.begin_with(SNAPSHOT).await?),
        })
    }

    /// All rows.
    pub async fn all<T: Row>(&self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<T>> {
        Ok(match self {
            Self::Sqlite { read, .. } => bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(read).await?,
            Self::Postgres { read, .. } => {
                answered(READ_TIMEOUT, bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(read)).await?
            }
        })
    }

    /// At most one row.
    pub async fn optional<T: Row>(&self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<T>> {
        Ok(self.all(sql, binds).await?.pop())
    }

    /// As [`Tx::each_row`], outside a transaction.
    pub async fn each_row<T: Row>(&self, sql: &'static str, rows: Vec<Vec<Bind>>, first: Vec<Bind>) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for (sql, binds) in in_chunks(sql, rows, &first, matches!(self, Self::Postgres { .. })) {
            let sql = AssertSqlSafe(sql);
            found.extend(match self {
                Self::Sqlite { read, .. } => bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(read).await?,
                Self::Postgres { read, .. } => {
                    answered(READ_TIMEOUT, bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(read)).await?
                }
            });
        }
        Ok(found)
    }

    /// As [`Db::each_row`], in the thread that asks: for what is read again and again, by an index, for one caller at a time.
    pub async fn each_row_near<T: Row>(
        &self,
        sql: &'static str,
        rows: Vec<Vec<Bind>>,
        first: Vec<Bind>,
    ) -> Result<Vec<T>> {
        let Self::Sqlite { near, .. } = self else { return self.each_row(sql, rows, first).await };
        let few = rows.len() <= NEAR_ROWS;
        near.all(in_chunks(sql, rows, &first, false), few).await
    }

    /// As [`Db::each_row_near`], if the database is near and free now; else nothing.
    pub fn row_near_now<T: Row>(&self, sql: &'static str, row: Vec<Bind>, first: &[Bind]) -> Result<Option<Vec<T>>> {
        let Self::Sqlite { near, .. } = self else { return Ok(None) };
        near.all_if_free(|| in_chunks(sql, vec![row], first, false))
    }

    /// Checkpoints the WAL outside of commits. Skipping it is harmless.
    pub async fn tidy(&self) -> Result<()> {
        if let Self::Sqlite { aside, .. } = self {
            sqlx::query::<Sqlite>("PRAGMA wal_checkpoint(PASSIVE)").execute(aside).await?;
        }
        Ok(())
    }

    /// Prepares a statement without running it, a many-row statement with one row.
    ///
    /// # Errors
    /// If the database cannot parse it.
    pub async fn prepare(&self, sql: &'static str) -> Result<()> {
        let sql = AssertSqlSafe(sample(sql, 1).0).into_sql_str();
        match self {
            Self::Sqlite { aside, .. } => drop(aside.prepare(sql).await?),
            Self::Postgres { write, .. } => drop(write.prepare(sql).await?),
        }
        Ok(())
    }

    /// Names of ids, for log lines.
    pub fn names(&self) -> &Names {
        match self {
            Self::Sqlite { names, .. } | Self::Postgres { names, .. } => names,
        }
    }

    /// The seals of rows that grant power.
    pub fn seals(&self) -> &SharedSeals {
        match self {
            Self::Sqlite { seals, .. } | Self::Postgres { seals, .. } => seals,
        }
    }

    /// Told of each commit that has events. Only a hint: other managers write to the same database.
    pub fn feed(&self) -> &Arc<Notify> {
        match self {
            Self::Sqlite { feed, .. } | Self::Postgres { feed, .. } => feed,
        }
    }

    /// Responses that have ended, by what became of them.
    pub fn ended(&self) -> &Ended {
        match self {
            Self::Sqlite { ended, .. } | Self::Postgres { ended, .. } => ended,
        }
    }

    /// How long it takes until effects are in force.
    pub fn time_to_contain(&self) -> &TimeToContain {
        match self {
            Self::Sqlite { time_to_contain, .. } | Self::Postgres { time_to_contain, .. } => time_to_contain,
        }
    }

    /// Changes that belong into traces.
    pub fn traces(&self) -> &TraceQueue {
        match self {
            Self::Sqlite { traces, .. } | Self::Postgres { traces, .. } => traces,
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { write, near, read, aside, .. } => {
                aside.close().await;
                read.close().await;
                near.close().await;
                write.close().await;
            }
            Self::Postgres { write, read, lease, peers, .. } => {
                peers.close().await;
                lease.close().await;
                read.close().await;
                write.close().await;
            }
        }
    }
}

/// A transaction; rolled back if dropped before [`Tx::commit`].
#[derive(Debug)]
pub enum Tx {
    /// On the SQLite connection that writes.
    Local(LocalTx),
    /// On a SQLite connection that reads.
    Sqlite(Transaction<'static, Sqlite>),
    /// On the PostgreSQL write connection.
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Commits durably.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Local(tx) => tx.commit()?,
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => answered(ANSWER_TIMEOUT, tx.commit()).await?,
        }
        Ok(())
    }

    /// All rows.
    pub async fn all<T: Row>(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<T>> {
        Ok(match self {
            Self::Local(tx) => tx.all(sql, &binds)?,
            Self::Sqlite(tx) => bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(&mut **tx).await?,
            Self::Postgres(tx) => {
                answered(ANSWER_TIMEOUT, bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(&mut **tx))
                    .await?
            }
        })
    }

    /// Passes each row to `each` as it comes, so that a whole table takes no memory.
    pub async fn for_each<T: Row, E: From<StoreError>>(
        &mut self,
        sql: &'static str,
        mut each: impl FnMut(T) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        macro_rules! pass_on {
            ($database:ty, $tx:ident) => {{
                let mut rows = sqlx::query_as::<$database, T>(sql).fetch(&mut **$tx);
                while let Some(row) = rows.try_next().await.map_err(StoreError::from)? {
                    each(row)?;
                }
            }};
        }
        match self {
            Self::Local(tx) => tx.for_each(sql, &[], each)?,
            Self::Sqlite(tx) => pass_on!(Sqlite, tx),
            Self::Postgres(tx) => pass_on!(Postgres, tx),
        }
        Ok(())
    }

    /// At most one row.
    pub async fn optional<T: Row>(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<T>> {
        Ok(self.all(sql, binds).await?.pop())
    }

    /// Runs a statement and returns the number of affected rows.
    pub async fn execute(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<u64> {
        Ok(match self {
            Self::Local(tx) => tx.execute(sql, &binds)?,
            Self::Sqlite(tx) => bind_all!(sqlx::query::<Sqlite>(sql), binds).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => {
                let done = bind_all!(sqlx::query::<Postgres>(sql), binds).execute(&mut **tx);
                answered(ANSWER_TIMEOUT, done).await?.rows_affected()
            }
        })
    }

    /// Runs a many-row statement over `rows`, in as few statements as possible. `VALUES {4}` in `sql` stands for the rows, with 4 values each. `first`
    /// binds take the lowest numbers.
    pub async fn each_row<T: Row>(
        &mut self,
        sql: &'static str,
        rows: Vec<Vec<Bind>>,
        first: Vec<Bind>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for (sql, binds) in in_chunks(sql, rows, &first, self.names_parameters()) {
            found.extend(match self {
                Self::Local(tx) => tx.all(&sql, &binds)?,
                Self::Sqlite(tx) => {
                    bind_all!(sqlx::query_as::<Sqlite, T>(AssertSqlSafe(sql)), binds).fetch_all(&mut **tx).await?
                }
                Self::Postgres(tx) => {
                    let rows = bind_all!(sqlx::query_as::<Postgres, T>(AssertSqlSafe(sql)), binds).fetch_all(&mut **tx);
                    answered(ANSWER_TIMEOUT, rows).await?
                }
            });
        }
        Ok(found)
    }

    /// As [`Tx::each_row`], for statements without result rows; returns the number of affected
    /// rows.
    pub async fn execute_rows(&mut self, sql: &'static str, rows: Vec<Vec<Bind>>, first: Vec<Bind>) -> Result<u64> {
        let mut touched = 0;
        for (sql, binds) in in_chunks(sql, rows, &first, self.names_parameters()) {
            touched += match self {
                Self::Local(tx) => tx.execute(&sql, &binds)?,
                Self::Sqlite(tx) => {
                    let done = bind_all!(sqlx::query::<Sqlite>(AssertSqlSafe(sql)), binds).execute(&mut **tx);
                    done.await?.rows_affected()
                }
                Self::Postgres(tx) => {
                    let done = bind_all!(sqlx::query::<Postgres>(AssertSqlSafe(sql)), binds).execute(&mut **tx);
                    answered(ANSWER_TIMEOUT, done).await?.rows_affected()
                }
            };
        }
        Ok(touched)
    }

    /// Whether parameters are named. SQLite looks up each name in a list, which dominates
    /// statements with a thousand parameters; its many-row statements use unnamed ones.
    const fn names_parameters(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}
