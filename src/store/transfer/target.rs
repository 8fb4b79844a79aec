//! Writes an export into an empty database. Each batch is one transaction, and says in the same
//! transaction how far the import is (`database/import_marker.rs`), so that one that was killed goes on
//! with the next row.

use super::row::decode;
use super::source::LedgerSnapshot;
use super::tables::{ExportedTable, TABLES};
use crate::store::database::import_marker::{self, ImportMarker};
use crate::store::database::{Db, Result, StoreError};

/// Begins to import the file with the digest `file`, or goes on. Returns how many rows are there.
///
/// # Errors
/// [`StoreError::Unsuitable`] if the database is not empty, is used by a manager, or another file is being
/// imported.
pub async fn begin(db: &Db, file: &str, total: u64) -> Result<u64> {
    if let Some(marker) = ImportMarker::read(db).await? {
        if marker.file == file {
            return Ok(marker.rows_done());
        }
        let why = "an import of another file into this database has not ended: import that file again, or make the database anew";
        return Err(StoreError::Unsuitable(why.to_owned()));
    }
    let counts = LedgerSnapshot::begin(db).await?.counts().await?;
    if let Some((count, table)) = counts.iter().zip(TABLES).find(|(count, _)| **count > 0) {
        let rows = if *count == 1 { "row" } else { "rows" };
        let why = format!(
            "the database is not empty: {} has {count} {rows}. Import into a new database; nothing was changed",
            table.name
        );
        return Err(StoreError::Unsuitable(why));
    }
    let mut tx = db.begin().await?;
    import_marker::create(&mut tx, file, total).await?;
    tx.commit().await?;
    Ok(0)
}

/// Checks that a line is a row of the table.
///
/// # Errors
/// What is wrong with it.
pub fn check(table: &ExportedTable, line: &str) -> std::result::Result<(), String> {
    decode(table, line).map(drop)
}

/// Writes `lines` of a table, when `before` rows are there.
///
/// # Errors
/// If they cannot be written.
pub async fn write(db: &Db, table: &'static ExportedTable, lines: &[String], before: u64) -> Result<u64> {
    let rows = lines.iter().map(|line| decode(table, line)).collect::<std::result::Result<Vec<_>, _>>();
    let rows = rows.map_err(StoreError::Corrupt)?;
    let after = before + rows.len() as u64;
    let mut tx = db.begin().await?;
    tx.execute_rows(table.insert, rows, vec![]).await?;
    import_marker::advance(&mut tx, before, after, table.name).await?;
    tx.commit().await?;
    Ok(after)
}

/// Ends the import: from now on a manager may start.
///
/// # Errors
/// If it cannot be written.
pub async fn finish(db: &Db) -> Result<()> {
    let mut tx = db.begin().await?;
    import_marker::drop_marker(&mut tx).await?;
    tx.commit().await
}
