//! Errors of the store.

use std::sync::Arc;

use sqlx::migrate::MigrateError;

use crate::views::words::UnknownWord;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is temporarily unavailable.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The key exists already.
    #[error("it exists already")]
    Duplicate,
    /// The row has changed since it was read.
    #[error("it has changed since it was read")]
    Conflict,
    /// The row does not exist.
    #[error("it does not exist")]
    NotFound,
    /// Stored data that this program cannot have written.
    #[error("the database contains unreadable data: {0}")]
    Corrupt(String),
    /// A column holds a word that this program cannot have written.
    #[error(transparent)]
    Word(#[from] UnknownWord),
    /// A row that grants power was not written by this manager.
    #[error("{0}; `riposte doctor` says what to do")]
    Sealed(String),
    /// The database file is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The writer's queue is full.
    #[error("the writer's queue is full")]
    Busy,
    /// The shared transaction of a group of jobs failed.
    #[error("the shared transaction failed")]
    Shared(#[source] Arc<Self>),
    /// The schema migration failed.
    #[error("the schema migration failed")]
    Migrate(#[source] MigrateError),
    /// The database URL is invalid.
    #[error("{0}")]
    Address(String),
    /// The database is not one that this can be done with.
    #[error("{0}")]
    Unsuitable(String),
    /// An import into the database has not ended.
    #[error(
        "an import into this database has not ended ({0}): run `riposte import` with the same file again, and it goes on where it \
         stopped; or make the database anew"
    )]
    Importing(String),
    /// A manager of an earlier version holds the ledger for itself.
    #[error("a manager of an earlier version runs on this ledger: {0}. Stop it first: it does not share a database")]
    Held(String),
    /// This manager's lease has ended, so others may have changed what it decides by.
    #[error("this manager could not renew its lease in time; it does nothing until it has one again")]
    LeaseLost,
    /// The message came by a connection that is not the agent's newest.
    #[error("this agent has a newer connection")]
    OlderConnection,
    /// Alerts were decided by a configuration that has been changed since; the change of this number is the last one.
    #[error("the configuration was changed meanwhile (change {0})")]
    Outdated(i64),
    /// The database URL leads to a connection pooler.
    #[error(
        "the database URL leads to a connection pooler that changes the server's connection between transactions (PgBouncer with \
         pool_mode=transaction or statement). Riposte needs pool_mode=session for this database, or PostgreSQL's own address"
    )]
    Pooled,
}

impl StoreError {
    /// The error returned to each job of a failed group.
    pub fn shared(error: Arc<Self>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(Self::Shared)
    }

    /// The cause, in words for an operator.
    pub fn in_words(&self) -> String {
        match self {
            Self::Shared(shared) => shared.in_words(),
            Self::Unavailable(source) => in_words(source),
            Self::Migrate(MigrateError::Execute(source)) => {
                format!("the schema cannot be upgraded: {}", in_words(source))
            }
            Self::Migrate(MigrateError::ExecuteMigration(source, version)) => {
                format!("migration {version} of the schema failed, and was rolled back: {}", in_words(source))
            }
            other => other.to_string(),
        }
    }

    /// What is wrong, for a client: as [`StoreError::in_words`], without the database's own words where ours say it.
    pub fn in_brief(&self) -> String {
        match self {
            Self::Shared(shared) => shared.in_brief(),
            Self::Unavailable(source) => known(source).map_or_else(|| brief(source), str::to_owned),
            other => other.to_string(),
        }
    }

    /// Whether the database contains data that this program cannot read, now or at the next attempt.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_corruption(),
            Self::Corrupt(_) | Self::Word(_) => true,
            _ => false,
        }
    }

    /// Whether there was no room for something: SQLite's `SQLITE_FULL`, PostgreSQL's `disk_full`.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_full(),
            Self::Unavailable(source) => known(source) == Some(FULL),
            _ => false,
        }
    }

    /// Whether the server refuses writes: PostgreSQL's `read_only_sql_transaction`.
    pub(super) fn is_read_only(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        source.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "25006")
    }

    /// Whether a connection was waited for in vain.
    pub(in crate::store) fn is_without_connection(&self) -> bool {
        matches!(self, Self::Unavailable(sqlx::Error::PoolTimedOut))
    }

    /// Whether the database file is damaged.
    pub fn is_damage(&self) -> bool {
        let source = match self {
            Self::Shared(shared) => return shared.is_damage(),
            Self::Unavailable(source)
            | Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => Some(source),
            _ => None,
        };
        // SQLITE_CORRUPT and SQLITE_NOTADB, without the extended code in the upper bits.
        let code = source.and_then(sqlx::Error::as_database_error).and_then(|error| error.code()?.parse::<u32>().ok());
        code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
    }
}

const FULL: &str = "the disk is full";

/// What a database's error means for its operator. Codes are SQLite's result codes and PostgreSQL's SQLSTATEs.
fn known(error: &sqlx::Error) -> Option<&'static str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|code| {
        let sqlite = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|code| code & 0xff);
        Some(match (sqlite, &*code) {
            (Some(5 | 6), _) => "another process has locked the ledger's file",
            (Some(8), _) => "the ledger's file, or its file system, is read-only",
            (Some(10), _) => "an I/O error on the ledger's disk",
            (Some(13), _) | (_, "53100") => FULL,
            (Some(14), _) => "the ledger's file cannot be opened",
            (_, "25006") => "the database is read-only: a standby, or set so",
            (_, "53300") => "the database accepts no more connections",
            (_, "57P01" | "57P02" | "57P03") => "the database is shutting down, or starting",
            (_, "28000") => "the database refuses this user, or a connection from here without TLS",
            (_, "28P01") => "the database refuses this user or password",
            (_, "42501") => {
                "the database's user lacks a right: it must own the database, or be allowed to create tables"
            }
            (_, "3D000") => "the database does not exist",
            _ => return None,
        })
    })
}

fn in_words(error: &sqlx::Error) -> String {
    match (known(error), error) {
        (Some(known), sqlx::Error::Database(said)) => format!("{known} ({})", said.message()),
        (Some(known), _) => format!("{known} ({error})"),
        (None, sqlx::Error::PoolTimedOut) => {
            "the database gives no connection; a manager needs up to 16, beside those of other programs".into()
        }
        (None, sqlx::Error::Tls(error)) => {
            format!("no TLS with the database: {error}. See `sslmode` in the database's URL")
        }
        (None, sqlx::Error::Io(error)) => format!("the database cannot be reached ({error})"),
        (None, _) => error.to_string(),
    }
}

/// What can be said of an error that has no code of its own, without the words of the library.
fn brief(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => "it gives no connection".into(),
        sqlx::Error::Io(error) => format!("it cannot be reached ({})", error.kind()),
        _ => "the manager's log says more".into(),
    }
}

/// What PostgreSQL says when a prepared statement is there that should not be, or is not there that should: the connection is not
/// the one that it was.
const OTHER_CONNECTION: [&str; 2] = ["42P05", "26000"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { source, .. } = &error
            && let Some(unknown) = source.downcast_ref::<UnknownWord>()
        {
            return Self::Word(unknown.clone());
        }
        match &error {
            sqlx::Error::Database(database)
                if database.code().is_some_and(|code| OTHER_CONNECTION.contains(&&*code)) =>
            {
                Self::Pooled
            }
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            _ => Self::Unavailable(error),
        }
    }
}

/// Result type of the store.
pub type Result<T> = std::result::Result<T, StoreError>;
