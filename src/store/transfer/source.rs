//! Reads every row of a ledger, in one snapshot: what a running manager writes meanwhile is not in it.

use super::row::{LinesDigest, encode};
use super::tables::{ExportedTable, TABLES};
use crate::store::database::{Db, Result, StoreError, Tx};
use crate::store::seals::value::SealedRow;

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// A line of an export.
#[derive(Debug)]
pub struct ExportedLine<'a> {
    /// The row as text.
    pub text: &'a str,
    /// Columns in which U+0000 was replaced.
    pub replaced: &'a [&'static str],
}

/// One state of a ledger.
#[derive(Debug)]
pub struct LedgerSnapshot {
    tx: Tx,
}

impl LedgerSnapshot {
    /// Begins to read.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn begin(db: &Db) -> Result<Self> {
        Ok(Self { tx: db.snapshot().await? })
    }

    /// The number of rows of each table, in the order of [`TABLES`].
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn counts(&mut self) -> Result<Vec<u64>> {
        let mut counts = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let found: Option<Count> = self.tx.optional(table.count, vec![]).await?;
            counts.push(found.map_or(0, |found| u64::try_from(found.count).unwrap_or_default()));
        }
        Ok(counts)
    }

    /// Passes on each row of a table as a line. Returns the digest of them all.
    ///
    /// # Errors
    /// If the database cannot be read, or `each` fails.
    pub async fn each_line<E: From<StoreError>>(
        &mut self,
        table: &ExportedTable,
        mut each: impl FnMut(ExportedLine<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<LinesDigest, E> {
        let mut digest = LinesDigest::default();
        let one = |row: SealedRow| {
            let (text, replaced) = encode(table, &row)?;
            digest.add(&text);
            each(ExportedLine { text: &text, replaced: &replaced })
        };
        self.tx.for_each(table.all, one).await?;
        Ok(digest)
    }
}
