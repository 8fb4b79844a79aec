//! Changes of configuration, numbered in the order of their commits (epochs). Each manager that
//! shares the database reads what is new here and refreshes exactly those caches.

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use crate::store::database::{Bind, Db, Result, Tx, binds, statements};

statements! {
    INSERT = "INSERT INTO changes (epoch, cache, item, at) VALUES {4}";
    /// The last change and the last audit entry in one row: both are moved by one statement.
    STANDS_AT = "SELECT epoch, seq FROM audit_head WHERE id = 1";
    FIRST = "SELECT CAST(COALESCE(MIN(epoch), 0) AS BIGINT) AS epoch, CAST(0 AS BIGINT) AS seq FROM changes";
    AFTER = "SELECT epoch, cache, item FROM changes WHERE epoch > $1 AND epoch <= $2 ORDER BY epoch, cache, item";
    FORGET = "DELETE FROM changes WHERE at < $1";
}

/// Where a ledger stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct StandsAt {
    /// The last change of configuration.
    pub epoch: i64,
    /// The last audit entry.
    pub seq: i64,
}

#[derive(sqlx::FromRow)]
struct ChangeRow {
    epoch: i64,
    cache: String,
    item: String,
}

/// What is to be refreshed to be up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// These caches.
    Caches(Vec<Cache>),
    /// All: what changed is not known any more, or a newer version knows of a cache that this one has not.
    All,
}

/// Where the ledger stands.
pub async fn stands_at(db: &Db) -> Result<StandsAt> {
    Ok(db.optional(STANDS_AT, vec![]).await?.unwrap_or_default())
}

/// What changes after `applied`, up to `epoch`, have made stale.
pub async fn between(db: &Db, applied: i64, epoch: i64) -> Result<Behind> {
    let rows: Vec<ChangeRow> = db.all(AFTER, binds![applied, epoch]).await?;
    let first: Option<StandsAt> = db.optional(FIRST, vec![]).await?;
    // Each epoch has a row, unless it was removed.
    let is_whole = first.is_some_and(|first| first.epoch > 0 && first.epoch <= applied + 1)
        && rows.last().is_some_and(|last| last.epoch == epoch);
    if !is_whole {
        return Ok(Behind::All);
    }
    let mut caches = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(cache) = Cache::parse(&row.cache, &row.item) else { return Ok(Behind::All) };
        caches.push(cache);
    }
    caches.sort_unstable();
    caches.dedup();
    Ok(Behind::Caches(caches))
}

/// Records a change with its transaction.
pub(in crate::store) async fn record(
    tx: &mut Tx,
    epoch: i64,
    caches: impl Iterator<Item = Cache> + Send,
    now: Timestamp,
) -> Result<()> {
    let rows = caches.map(|cache| {
        let (word, item) = cache.stored();
        binds![epoch, word, item, now]
    });
    let rows: Vec<Vec<Bind>> = rows.collect();
    tx.execute_rows(INSERT, rows, vec![]).await.map(drop)
}

/// Removes the changes before `cutoff`.
pub(in crate::store) async fn forget(tx: &mut Tx, cutoff: Timestamp) -> Result<u64> {
    tx.execute(FORGET, binds![cutoff]).await
}
