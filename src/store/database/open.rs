//! Opens the database that a URL names, and migrates its schema.

use std::path::Path;

use sqlx::migrate::Migrator;

use super::db::Db;
use super::error::{Result, StoreError};
use super::{import_marker, nodes, postgresql, sqlite, suitable};

const SCHEMA_VERSION: &str = "SELECT COALESCE(MAX(version), 0) AS version FROM _sqlx_migrations WHERE success = TRUE";

#[derive(sqlx::FromRow)]
struct SchemaVersion {
    version: i64,
}

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

impl Db {
    /// Opens `url` (`sqlite:PATH` or `postgres://…`) and migrates the schema.
    ///
    /// # Errors
    /// If the URL is invalid, the database cannot be opened or is none that a ledger can be in, or an
    /// import into it has not ended.
    pub async fn open(url: &str) -> Result<Self> {
        let db = Self::connect(url).await?;
        import_marker::refuse(&db).await?;
        db.bring_up_to_date(url).await?;
        Ok(db)
    }

    /// Opens `url` as [`Db::open`] does, although an import into it has not ended.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn open_to_import(url: &str) -> Result<Self> {
        let db = Self::connect(url).await?;
        db.bring_up_to_date(url).await?;
        Ok(db)
    }

    async fn connect(url: &str) -> Result<Self> {
        Ok(if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            postgresql::open(url).await?
        } else if let Some(path) = url.strip_prefix("sqlite:") {
            sqlite::open(Path::new(path.trim_start_matches("//"))).await?
        } else {
            let hint = "a database URL starts with sqlite: or postgres://";
            return Err(StoreError::Address(hint.into()));
        })
    }

    /// Migrates the schema of a database that a ledger can be in.
    async fn bring_up_to_date(&self, url: &str) -> Result<()> {
        suitable::check_server(self).await?;
        suitable::check_owner(self, &MIGRATIONS).await?;
        suitable::check_schema(self, &MIGRATIONS).await?;
        match self {
            // Not on the write connection: it keeps temporary files in memory, and sorting for a
            // new index needs disk.
            Self::Sqlite { aside, .. } => MIGRATIONS.run(aside).await,
            Self::Postgres { lease, .. } => {
                if let Some((found, known)) = self.pending().await? {
                    tracing::warn!(
                        "the ledger is upgraded from schema {found} to {known}; Riposte makes no backup of PostgreSQL: to \
                         go back to the version before, restore one of your own"
                    );
                }
                nodes::outlast_earlier(lease).await?;
                let unhurried = postgresql::unhurried(url).await?;
                let migrated = MIGRATIONS.run(&unhurried).await;
                unhurried.close().await;
                migrated
            }
        }
        .map_err(StoreError::Migrate)?;
        suitable::check_columns(self).await
    }

    /// Opens `url` read-only, without migrating the schema.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn open_to_look(url: &str) -> Result<Self> {
        let db = Self::open_to_verify(url).await?;
        import_marker::refuse(&db).await?;
        Ok(db)
    }

    /// Opens `url` as [`Db::open_to_look`] does, although an import into it has not ended. Its reads have no
    /// time limit.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn open_to_verify(url: &str) -> Result<Self> {
        let db = match url.strip_prefix("sqlite:") {
            Some(path) => sqlite::open_to_look(Path::new(path.trim_start_matches("//"))).await?,
            None => postgresql::open_to_look(url).await?,
        };
        suitable::check_owner(&db, &MIGRATIONS).await?;
        Ok(db)
    }

    /// The schema of the ledger at `url`, and the one of this program, if [`Db::open`] would migrate it. None for a
    /// database without a ledger, and for one of a later version, which is refused when it is opened.
    ///
    /// # Errors
    /// As [`Db::open_to_look`].
    pub async fn pending_upgrade(url: &str) -> Result<Option<(i64, i64)>> {
        let db = Self::open_to_look(url).await?;
        let pending = db.pending().await;
        db.close().await;
        pending
    }

    async fn pending(&self) -> Result<Option<(i64, i64)>> {
        if !suitable::has_schema(self).await? {
            return Ok(None);
        }
        let (found, known) = self.schema_versions().await?;
        Ok((0 < found && found < known).then_some((found, known)))
    }

    /// The version of the schema that this program knows: the number of its last migration.
    pub fn known_schema() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
    }

    /// The version of the schema that the database has, and the one that this program knows.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn schema_versions(&self) -> Result<(i64, i64)> {
        let found: Option<SchemaVersion> = self.optional(SCHEMA_VERSION, vec![]).await?;
        Ok((found.map_or(0, |found| found.version), Self::known_schema()))
    }
}
