//! Whether a ledger can be in a database, found out before anything is changed there: its server, what else
//! is in it, and whether its schema is one that this program has made.

use std::collections::BTreeSet;

use sqlx::migrate::Migrator;

use super::db::Db;
use super::error::{Result, StoreError};
use crate::store::transfer::tables::TABLES;

/// Oldest PostgreSQL, as `server_version_num` says it.
const OLDEST_POSTGRESQL: i64 = 140_000;

// Statements of one database each.
const SERVER: &str = "SELECT current_setting('server_version_num') AS number, version() AS version,
    current_setting('server_encoding') AS encoding, current_setting('transaction_read_only') AS read_only,
    CASE WHEN pg_is_in_recovery() THEN 'yes' ELSE 'no' END AS standby";
const TABLES_POSTGRESQL: &str = "SELECT CAST(relname AS TEXT) AS name FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'v', 'm')
        AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
    ORDER BY relname";
const TABLES_SQLITE: &str = "SELECT name FROM sqlite_master
    WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%' ORDER BY name";
const COLUMNS_POSTGRESQL: &str = "SELECT CAST(table_name AS TEXT) || '.' || CAST(column_name AS TEXT) AS name
    FROM information_schema.columns WHERE table_schema = current_schema()";
const COLUMNS_SQLITE: &str = "SELECT tables.name || '.' || columns.name AS name
    FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'";
const APPLIED: &str = "SELECT version, description, success, checksum FROM _sqlx_migrations ORDER BY version";

/// The table in which the schema's versions are.
const SCHEMA: &str = "_sqlx_migrations";

#[derive(sqlx::FromRow)]
struct Name {
    name: String,
}

#[derive(sqlx::FromRow)]
struct Server {
    number: String,
    version: String,
    encoding: String,
    read_only: String,
    standby: String,
}

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    description: String,
    success: bool,
    checksum: Vec<u8>,
}

fn refuse(why: String) -> Result<()> {
    Err(StoreError::Unsuitable(why))
}

/// Refuses a PostgreSQL that is too old, keeps texts in another encoding, or cannot be written.
///
/// # Errors
/// [`StoreError::Unsuitable`].
pub(super) async fn check_server(db: &Db) -> Result<()> {
    let Db::Postgres { .. } = db else { return Ok(()) };
    let Some(server) = db.optional::<Server>(SERVER, vec![]).await? else { return Ok(()) };
    let Server { number, version, encoding, read_only, standby } = server;
    if number.parse().is_ok_and(|number: i64| number < OLDEST_POSTGRESQL) {
        let oldest = OLDEST_POSTGRESQL / 10_000;
        return refuse(format!("Riposte needs PostgreSQL {oldest} or newer, and this server is {version}"));
    }
    if encoding != "UTF8" {
        return refuse(format!(
            "the database has the encoding {encoding}; Riposte needs UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    if standby == "yes" {
        return refuse(
            "this PostgreSQL is a standby, which cannot be written: use the address of the primary".to_owned(),
        );
    }
    if read_only == "on" {
        let why =
            "the database is read-only: default_transaction_read_only is on for it, for this user or for the server";
        return refuse(why.to_owned());
    }
    Ok(())
}

/// The names of the tables and views, without those of extensions.
async fn tables(db: &Db) -> Result<Vec<String>> {
    let sql = match db {
        Db::Sqlite { .. } => TABLES_SQLITE,
        Db::Postgres { .. } => TABLES_POSTGRESQL,
    };
    Ok(db.all::<Name>(sql, vec![]).await?.into_iter().map(|row| row.name).collect())
}

/// Whether there is a ledger in the database, of whatever version.
pub(super) async fn has_schema(db: &Db) -> Result<bool> {
    Ok(tables(db).await?.iter().any(|name| name == SCHEMA))
}

fn foreign(tables: &[String]) -> String {
    let mut names = tables[..tables.len().min(3)].join(", ");
    if tables.len() > 3 {
        names.push_str(" and others");
    }
    format!(
        "this database belongs to another program: it has the tables {names}. Create a database for Riposte alone; nothing was changed in this one"
    )
}

/// Refuses a database of another program.
///
/// # Errors
/// [`StoreError::Unsuitable`].
pub(super) async fn check_owner(db: &Db, migrations: &Migrator) -> Result<()> {
    let tables = tables(db).await?;
    if tables.is_empty() {
        return Ok(());
    }
    if !tables.iter().any(|name| name == SCHEMA) {
        return refuse(foreign(&tables));
    }
    let applied: Vec<Applied> = db.all(APPLIED, vec![]).await?;
    let first = applied.first().zip(migrations.iter().next());
    if first.is_some_and(|(applied, own)| (applied.version, &*applied.description) != (own.version, &*own.description))
    {
        return refuse(foreign(&tables));
    }
    Ok(())
}

/// Refuses a schema that this program cannot bring up to date.
///
/// # Errors
/// [`StoreError::Unsuitable`].
pub(super) async fn check_schema(db: &Db, migrations: &Migrator) -> Result<()> {
    const BEFORE: &str = "restore a backup of before that";
    if !has_schema(db).await? {
        return Ok(());
    }
    let known = Db::known_schema();
    let applied: Vec<Applied> = db.all(APPLIED, vec![]).await?;
    if let Some(newest) = applied.last().filter(|newest| newest.version > known) {
        return refuse(format!(
            "a newer version of Riposte has written this ledger: it has schema {}, and this version knows schema {known}. Start the newer \
             version, or {BEFORE}; nothing was changed",
            newest.version
        ));
    }
    for Applied { version, success, checksum, .. } in applied {
        let own = migrations.iter().find(|migration| migration.version == version);
        if !success {
            return refuse(format!("an upgrade of this ledger stopped in the middle of migration {version}: {BEFORE}"));
        }
        if own.is_none_or(|own| *own.checksum != *checksum) {
            return refuse(format!(
                "migration {version} of this ledger is not the one of this version: another build of Riposte has written it. Start that \
                 build, or {BEFORE}; nothing was changed"
            ));
        }
    }
    Ok(())
}

/// Refuses a ledger with parts missing, as after a restore that ended early.
///
/// # Errors
/// [`StoreError::Unsuitable`].
pub(super) async fn check_columns(db: &Db) -> Result<()> {
    let sql = match db {
        Db::Sqlite { .. } => COLUMNS_SQLITE,
        Db::Postgres { .. } => COLUMNS_POSTGRESQL,
    };
    let there: BTreeSet<String> = db.all::<Name>(sql, vec![]).await?.into_iter().map(|row| row.name).collect();
    let columns =
        TABLES.iter().flat_map(|table| table.columns.iter().map(|(name, _)| format!("{}.{name}", table.name)));
    let missing: Vec<String> = columns.filter(|column| !there.contains(column)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    refuse(format!(
        "the ledger is incomplete: {} columns are missing, such as {first}. A restore of it ended early, or another program removed them: \
         restore a backup",
        missing.len()
    ))
}
