//! One interface to two databases: an enum of two pools, one transaction type, one kind of bind
//! value. Statements are written once, in the subset that SQLite and PostgreSQL share
//! (`docs/decisions/0002-one-sql-text.md`).

pub mod codec;
pub mod columns;
pub mod error;
pub mod nodes;
mod postgresql;
pub mod probe;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgPool, PgRow, Postgres};
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, FromRow, SqlSafeStr as _, Transaction};

use uuid::Uuid;

use crate::store::ledger::audit_head::CachedAuditHead;
use crate::store::ledger::story::{Ended, Names};
pub use error::{Result, StoreError};
use nodes::Writes;
use rows::in_chunks;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a statement waits for SQLite's write lock, which a backup or a shell may hold.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits for a connection before it is answered 503.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements cached per connection: every constant, and each size of the many-row
/// statements.
pub(in crate::store) const STATEMENTS: usize = 1024;
/// Page cache of SQLite's write connection, in KiB (negative by SQLite's convention). At the
/// default of 2 MiB the upper index pages of a few hundred thousand alerts do not fit, and each
/// alert costs hundreds of reads.
const WRITER_CACHE: &str = "-16384";
/// WAL size in pages (64 MiB) at which a commit checkpoints by itself, if [`Db::tidy`] fell behind.
const WAL_PAGES: &str = "16000";

/// Replaces NUL, which PostgreSQL cannot store as text. The API refuses it in requests; an agent's
/// report must not be lost because of one character.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A bind value. Absent values are typed too, because PostgreSQL needs the type of a NULL.
#[derive(Clone, Debug)]
pub enum Bind {
    /// An integer or a time in milliseconds.
    Int(Option<i64>),
    /// A text or an id.
    Text(Option<String>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A boolean.
    Bool(Option<bool>),
}

macro_rules! bind_from {
    ($($type:ty => |$value:ident| $bind:expr;)*) => {
        $(impl From<$type> for Bind { fn from($value: $type) -> Self { $bind } })*
    };
}

bind_from! {
    i64 => |value| Self::Int(Some(value));
    Option<i64> => |value| Self::Int(value);
    Timestamp => |value| Self::Int(Some(value.as_millis()));
    Option<Timestamp> => |value| Self::Int(value.map(Timestamp::as_millis));
    &str => |value| Self::Text(Some(storable(value.to_owned())));
    String => |value| Self::Text(Some(storable(value)));
    Option<String> => |value| Self::Text(value.map(storable));
    Option<&str> => |value| Self::Text(value.map(|text| storable(text.to_owned())));
    Uuid => |value| Self::Text(Some(value.to_string()));
    Option<Uuid> => |value| Self::Text(value.map(|id| id.to_string()));
    Vec<u8> => |value| Self::Bytes(value);
    bool => |value| Self::Bool(Some(value));
    Option<bool> => |value| Self::Bool(value);
}

/// Builds bind values in the order of their numbers.
macro_rules! binds {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::database::Bind::from($value)),*] };
}
pub(in crate::store) use binds;

/// Declares a module's statements, and lists them for the test that prepares each on both
/// databases.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* const $name: &str = $text;)*
        /// Every statement of this module.
        pub(in crate::store) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}
pub(in crate::store) use statements;

/// A row that both databases can return.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

macro_rules! bind_all {
    ($query:expr, $binds:expr) => {{
        let mut query = $query;
        for bind in $binds {
            query = match bind {
                Bind::Int(value) => query.bind(value),
                Bind::Text(value) => query.bind(value),
                Bind::Bytes(value) => query.bind(value),
                Bind::Bool(value) => query.bind(value),
            };
        }
        query
    }};
}

/// The database; cheap to clone.
#[derive(Clone, Debug)]
pub enum Db {
    /// One SQLite file with one write connection and several read connections.
    Sqlite {
        /// Exactly one connection, so that writers queue here instead of failing with
        /// `SQLITE_BUSY`.
        write: SqlitePool,
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
        /// Run id of the manager that writes.
        writes: Writes,
        /// Names of ids, for log lines.
        names: Names,
        /// Responses that have ended.
        ended: Ended,
    },
}

impl Db {
    /// Opens `url` (`sqlite:PATH` or `postgres://…`) and migrates the schema.
    ///
    /// # Errors
    /// If the URL is invalid, the database cannot be opened, or its schema is newer than this
    /// program.
    pub async fn open(url: &str) -> Result<Self> {
        let db = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            postgresql::open(url).await?
        } else if let Some(path) = url.strip_prefix("sqlite:") {
            Self::open_sqlite(PathBuf::from(path.trim_start_matches("//"))).await?
        } else {
            let hint = "a database URL starts with sqlite: or postgres://";
            return Err(StoreError::Address(hint.into()));
        };
        match &db {
            // Not on the write connection: it keeps temporary files in memory, and sorting for a
            // new index needs disk.
            Self::Sqlite { aside, .. } => MIGRATIONS.run(aside).await,
            Self::Postgres { write, .. } => MIGRATIONS.run(write).await,
        }
        .map_err(StoreError::Migrate)?;
        Ok(db)
    }

    async fn open_sqlite(path: PathBuf) -> Result<Self> {
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
        let ageless =
            || SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None).acquire_timeout(ACQUIRE_TIMEOUT);
        let one = ageless().max_connections(1).min_connections(1);
        // After an error such as a full disk, SQLite rolls back by itself. sqlx still counts an
        // open transaction and could never begin another one on this connection.
        let one = one.before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }));
        // Many-row statements keep a statement journal in a temporary folder, which may be full; in
        // memory it is a few pages.
        let writing = options.clone().pragma("cache_size", WRITER_CACHE).pragma("temp_store", "MEMORY");
        let write = one.connect_with(writing).await?;
        let aside = ageless().max_connections(1).connect_lazy_with(options.clone());
        let several = ageless().max_connections(4);
        let read = several.connect_with(options.read_only(true)).await?;
        Ok(Self::Sqlite {
            write,
            read,
            aside,
            file,
            head: Arc::default(),
            names: Names::default(),
            ended: Ended::default(),
        })
    }

    /// Opens `url` read-only, without migrating the schema.
    ///
    /// # Errors
    /// As [`Db::open`], or if the schema version differs from this program's.
    pub async fn open_to_look(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let file: Arc<Path> = Path::new(path.trim_start_matches("//")).into();
            let options = SqliteConnectOptions::new().filename(&file).read_only(true);
            let pool = SqlitePoolOptions::new()
                .max_connections(2)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await?;
            let (write, read) = (pool.clone(), pool.clone());
            return Ok(Self::Sqlite {
                write,
                read,
                aside: pool,
                file,
                head: Arc::default(),
                names: Names::default(),
                ended: Ended::default(),
            });
        }
        postgresql::open_to_look(url).await
    }

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
            Self::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres { write, .. } => Tx::Postgres(write.begin().await?),
        })
    }

    /// All rows.
    pub async fn all<T: Row>(&self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<T>> {
        Ok(match self {
            Self::Sqlite { read, .. } => bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(read).await?,
            Self::Postgres { read, .. } => bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(read).await?,
        })
    }

    /// At most one row.
    pub async fn optional<T: Row>(&self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<T>> {
        Ok(self.all(sql, binds).await?.pop())
    }

    /// As [`Tx::each_row`], outside a transaction.
    pub async fn each_row<T: Row>(
        &self,
        before: &'static str,
        rows: Vec<Vec<Bind>>,
        after: &'static str,
        first: Vec<Bind>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for (sql, binds) in in_chunks(before, rows, after, &first, matches!(self, Self::Postgres { .. })) {
            let sql = AssertSqlSafe(sql);
            found.extend(match self {
                Self::Sqlite { read, .. } => bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(read).await?,
                Self::Postgres { read, .. } => {
                    bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(read).await?
                }
            });
        }
        Ok(found)
    }

    /// Checkpoints the WAL outside of commits. Skipping it is harmless.
    pub async fn tidy(&self) -> Result<()> {
        if let Self::Sqlite { aside, .. } = self {
            sqlx::query::<Sqlite>("PRAGMA wal_checkpoint(PASSIVE)").execute(aside).await?;
        }
        Ok(())
    }

    /// Prepares a statement without running it.
    ///
    /// # Errors
    /// If the database cannot parse it.
    pub async fn prepare(&self, sql: &'static str) -> Result<()> {
        match self {
            Self::Sqlite { write, .. } => drop(write.prepare(sql.into_sql_str()).await?),
            Self::Postgres { write, .. } => drop(write.prepare(sql.into_sql_str()).await?),
        }
        Ok(())
    }

    /// Names of ids, for log lines.
    pub fn names(&self) -> &Names {
        match self {
            Self::Sqlite { names, .. } | Self::Postgres { names, .. } => names,
        }
    }

    /// Responses that have ended, by what became of them.
    pub fn ended(&self) -> &Ended {
        match self {
            Self::Sqlite { ended, .. } | Self::Postgres { ended, .. } => ended,
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { write, read, aside, .. } => {
                aside.close().await;
                read.close().await;
                write.close().await;
            }
            Self::Postgres { write, read, lease, .. } => {
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
    /// On the SQLite write connection.
    Sqlite(Transaction<'static, Sqlite>),
    /// On the PostgreSQL write connection.
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Commits durably.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// All rows.
    pub async fn all<T: Row>(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Vec<T>> {
        Ok(match self {
            Self::Sqlite(tx) => bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(&mut **tx).await?,
            Self::Postgres(tx) => bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(&mut **tx).await?,
        })
    }

    /// At most one row.
    pub async fn optional<T: Row>(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<Option<T>> {
        Ok(self.all(sql, binds).await?.pop())
    }

    /// Runs a statement and returns the number of affected rows.
    pub async fn execute(&mut self, sql: &'static str, binds: Vec<Bind>) -> Result<u64> {
        Ok(match self {
            Self::Sqlite(tx) => bind_all!(sqlx::query::<Sqlite>(sql), binds).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => {
                bind_all!(sqlx::query::<Postgres>(sql), binds).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    /// Runs `before VALUES (…), (…) after` over `rows` of equal length, in as few statements as
    /// possible: sqlx pays a thread hop per statement. `first` binds take the lowest numbers, for
    /// use in `before` and `after`.
    pub async fn each_row<T: Row>(
        &mut self,
        before: &'static str,
        rows: Vec<Vec<Bind>>,
        after: &'static str,
        first: Vec<Bind>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for (sql, binds) in in_chunks(before, rows, after, &first, self.names_parameters()) {
            let sql = AssertSqlSafe(sql);
            match self {
                Self::Sqlite(tx) => {
                    found.extend(bind_all!(sqlx::query_as::<Sqlite, T>(sql), binds).fetch_all(&mut **tx).await?);
                }
                Self::Postgres(tx) => {
                    found.extend(bind_all!(sqlx::query_as::<Postgres, T>(sql), binds).fetch_all(&mut **tx).await?);
                }
            }
        }
        Ok(found)
    }

    /// As [`Tx::each_row`], for statements without result rows; returns the number of affected
    /// rows.
    pub async fn execute_rows(
        &mut self,
        before: &'static str,
        rows: Vec<Vec<Bind>>,
        after: &'static str,
        first: Vec<Bind>,
    ) -> Result<u64> {
        let mut touched = 0;
        for (sql, binds) in in_chunks(before, rows, after, &first, self.names_parameters()) {
            let sql = AssertSqlSafe(sql);
            touched += match self {
                Self::Sqlite(tx) => {
                    bind_all!(sqlx::query::<Sqlite>(sql), binds).execute(&mut **tx).await?.rows_affected()
                }
                Self::Postgres(tx) => {
                    bind_all!(sqlx::query::<Postgres>(sql), binds).execute(&mut **tx).await?.rows_affected()
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

/// SQLite's query plan.
#[cfg(test)]
pub(in crate::store) async fn plan(sql: &str) -> Vec<String> {
    plan_with(sql.into(), vec![]).await
}

/// Tables that SQLite scans in full for a many-row statement, without the values themselves.
#[cfg(test)]
pub(in crate::store) async fn reads_whole(before: &str, columns: usize, after: &str, first: usize) -> Vec<String> {
    let plan = plan_of_rows(before, columns, after, first).await.into_iter();
    plan.filter(|step| step.starts_with("SCAN ") && step != "SCAN v" && !step.contains("VALUES CLAUSE")).collect()
}

/// SQLite's query plan of a many-row statement.
#[cfg(test)]
pub(in crate::store) async fn plan_of_rows(before: &str, columns: usize, after: &str, first: usize) -> Vec<String> {
    let rows = vec![vec![Bind::from(1_i64); columns]; 3];
    let (sql, binds) = in_chunks(before, rows, after, &vec![Bind::from(1_i64); first], false).remove(0);
    plan_with(sql, binds).await
}

#[cfg(test)]
async fn plan_with(sql: String, binds: Vec<Bind>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let Db::Sqlite { write, .. } = &db else { unreachable!("a file") };
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let query = bind_all!(sqlx::query_as::<Sqlite, (i64, i64, i64, String)>(sql), binds);
    query.fetch_all(write).await.unwrap().into_iter().map(|step| step.3).collect()
}

#[cfg(test)]
mod tests;
