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
}

impl StoreError {
    /// What each of those is told who share a failure.
    pub fn shared(error: Arc<Self>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(Self::Shared)
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

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            _ => Self::Unavailable(error),
        }
    }
}

/// Result of everything in this floor.
pub type Result<T> = std::result::Result<T, StoreError>;
