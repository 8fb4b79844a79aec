//! Opens the database that a URL names, and migrates its schema.

use std::path::Path;

use sqlx::migrate::Migrator;

use super::db::Db;
use super::error::{Result, StoreError};
use super::{nodes, postgresql, sqlite};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

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
            sqlite::open(Path::new(path.trim_start_matches("//"))).await?
        } else {
            let hint = "a database URL starts with sqlite: or postgres://";
            return Err(StoreError::Address(hint.into()));
        };
        match &db {
            // Not on the write connection: it keeps temporary files in memory, and sorting for a
            // new index needs disk.
            Self::Sqlite { aside, .. } => MIGRATIONS.run(aside).await,
            Self::Postgres { lease, .. } => {
                nodes::outlast_earlier(lease).await?;
                let unhurried = postgresql::unhurried(url).await?;
                let migrated = MIGRATIONS.run(&unhurried).await;
                unhurried.close().await;
                migrated
            }
        }
        .map_err(StoreError::Migrate)?;
        Ok(db)
    }

    /// Opens `url` read-only, without migrating the schema.
    ///
    /// # Errors
    /// As [`Db::open`], or if the schema version differs from this program's.
    pub async fn open_to_look(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return sqlite::open_to_look(Path::new(path.trim_start_matches("//"))).await;
        }
        postgresql::open_to_look(url).await
    }
}
