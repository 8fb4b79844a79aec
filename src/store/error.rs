//! What can go wrong with what is remembered.

use std::sync::Arc;

/// What can go wrong with what is remembered.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot do its work just now.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// Something of that key exists already.
    #[error("it exists already")]
    Duplicate,
    /// It has changed since it was read.
    #[error("it has changed meanwhile")]
    Conflict,
    /// There is no such thing.
    #[error("there is no such thing")]
    NotFound,
    /// The stored data is not what this program writes.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(String),
    /// The database's file is not whole.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The writer has more work than it may queue.
    #[error("the ledger is busy")]
    Busy,
    /// The transaction that this was part of, with what others wanted, failed.
    #[error("what this was done together with failed")]
    Shared(#[source] Arc<Self>),
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database's address is not one.
    #[error("{0}")]
    Address(String),
    /// Another manager has the ledger.
    #[error(
        "another manager runs on this ledger: {0}. Stop it first, or give this one a database of its own; several managers on \
         one database are not supported"
    )]
    Held(String),
    /// Another manager has taken over what this one was writing.
    #[error("another manager has taken this ledger over: nothing is written here any more")]
    Superseded,
    /// A pooler stands in front of the database.
    #[error(
        "the database URL leads to a connection pooler that changes the server's connection between transactions (PgBouncer with \
         pool_mode=transaction or statement). Riposte needs pool_mode=session for this database, or PostgreSQL's own address"
    )]
    Pooled,
}

impl StoreError {
    /// What each of those is told who share a failure.
    pub fn shared(error: Arc<Self>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(Self::Shared)
    }

    /// What is wrong, for a person who has to mend it.
    pub fn in_words(&self) -> String {
        match self {
            Self::Shared(shared) => shared.in_words(),
            Self::Unavailable(source) => in_words(source),
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

    /// Whether there was no room for something: SQLite's `SQLITE_FULL`, PostgreSQL's `disk_full`.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_full(),
            Self::Unavailable(source) => known(source) == Some(FULL),
            _ => false,
        }
    }

    /// Whether a connection was waited for in vain.
    pub(super) fn is_without_connection(&self) -> bool {
        matches!(self, Self::Unavailable(sqlx::Error::PoolTimedOut))
    }

    /// Whether something was waited for in vain: PostgreSQL's `lock_not_available` and `query_canceled`.
    pub(super) fn is_wait(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| matches!(&*code, "55P03" | "57014"))
    }

    /// Whether the database's file itself is not whole.
    pub fn is_damage(&self) -> bool {
        let source = match self {
            Self::Shared(shared) => return shared.is_damage(),
            Self::Unavailable(source) | Self::Migrate(sqlx::migrate::MigrateError::Execute(source)) => Some(source),
            _ => None,
        };
        // SQLITE_CORRUPT and SQLITE_NOTADB, with whatever SQLite adds in the upper bits.
        let code = source.and_then(sqlx::Error::as_database_error).and_then(|error| error.code()?.parse::<u32>().ok());
        code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
    }
}

const FULL: &str = "the disk is full";

/// What a database's error means for whoever runs it. Codes are SQLite's result codes and PostgreSQL's SQLSTATEs.
fn known(error: &sqlx::Error) -> Option<&'static str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|code| {
        let sqlite = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|code| code & 0xff);
        Some(match (sqlite, &*code) {
            (Some(5 | 6), _) => "another process holds the ledger's file locked",
            (Some(8), _) => "the ledger's file, or its file system, is read-only",
            (Some(10), _) => "the disk that holds the ledger fails",
            (Some(13), _) | (_, "53100") => FULL,
            (Some(14), _) => "the ledger's file cannot be opened",
            (_, "25006") => "the database is read-only: a standby, or set so",
            (_, "53300") => "the database takes no more connections",
            (_, "57P01" | "57P02" | "57P03") => "the database is shutting down, or starting",
            (_, "28000" | "28P01") => "the database refuses this user or password",
            (_, "3D000") => "there is no such database",
            _ => return None,
        })
    })
}

fn in_words(error: &sqlx::Error) -> String {
    match (known(error), error) {
        (Some(known), _) => format!("{known} ({error})"),
        (None, sqlx::Error::PoolTimedOut) => "the database gives no connection".into(),
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

/// Result of everything in this floor.
pub type Result<T> = std::result::Result<T, StoreError>;
