//! Feeds as people define them. Their lists are in `store/ledger/feeds.rs`.

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::columns::json;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::feeds as lists;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::FEEDS;
use crate::views::columns::{JsonText, Millis};
use crate::views::feeds::FeedDocument;

statements! {
    ALL = "SELECT name, version, document, created_at, updated_at, updated_by, seal FROM feeds ORDER BY name";
    PAGE = "SELECT name, version, document, created_at, updated_at, updated_by FROM feeds WHERE name > $1 ORDER BY name LIMIT $2";
    ONE = "SELECT name, version, document, created_at, updated_at, updated_by FROM feeds WHERE name = $1";
    COUNT = "SELECT COUNT(*) AS count FROM feeds";
    INSERT = "INSERT INTO feeds (name, version, document, created_at, updated_at, updated_by) VALUES ($1, 1, $2, $3, $3, $4)";
    UPDATE = "UPDATE feeds SET version = version + 1, document = $3, updated_at = $4, updated_by = $5
        WHERE name = $1 AND version = $2";
    DELETE = "DELETE FROM feeds WHERE name = $1 AND version = $2";
}

/// A feed at its current version.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FeedRow {
    /// Unique name.
    pub name: String,
    /// Current version, from 1.
    pub version: i64,
    /// The feed as it was sent.
    pub document: JsonText,
    /// Creation time.
    pub created_at: Millis,
    /// Time of the last change.
    pub updated_at: Millis,
    /// Principal that made the last change.
    pub updated_by: String,
}

#[derive(sqlx::FromRow)]
struct FeedCount {
    count: i64,
}

/// All feeds, by name.
pub async fn all(db: &Db) -> Result<Vec<FeedRow>> {
    db.sealed_set(&FEEDS, ALL, Purpose::Force).await
}

/// A page of feeds, by name, after `after`.
pub async fn list(db: &Db, after: &str, limit: i64) -> Result<Vec<FeedRow>> {
    db.all(PAGE, binds![after, limit]).await
}

/// The feed called `name`.
pub async fn find(db: &Db, name: &str) -> Result<Option<FeedRow>> {
    db.optional(ONE, binds![name]).await
}

/// The number of feeds.
pub async fn count(ledger: &mut LedgerTx) -> Result<i64> {
    Ok(ledger.tx.optional::<FeedCount>(COUNT, vec![]).await?.map_or(0, |row| row.count))
}

/// Creates a feed, with an empty list.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn create(ledger: &mut LedgerTx, document: &FeedDocument, by: &Actor, now: Timestamp) -> Result<()> {
    let name = document.name.as_str();
    ledger.makes_stale(Cache::Feeds);
    ledger.reseals(&FEEDS, name).await?;
    ledger.tx.execute(INSERT, binds![name, json(document)?, now, by]).await?;
    lists::begin(ledger, name).await?;
    record(ledger, AuditEvent::FeedCreated, name, document.form.as_str().to_owned(), by, now);
    Ok(())
}

/// Replaces a feed whose version is `expected`.
///
/// # Errors
/// [`StoreError::Conflict`] at another version, [`StoreError::NotFound`] if it does not exist.
pub async fn update(
    ledger: &mut LedgerTx,
    document: &FeedDocument,
    expected: i64,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    let name = document.name.as_str();
    ledger.makes_stale(Cache::Feeds);
    ledger.reseals(&FEEDS, name).await?;
    if ledger.tx.execute(UPDATE, binds![name, expected, json(document)?, now, by]).await? == 0 {
        return Err(missing_or_changed(ledger, name).await?);
    }
    record(ledger, AuditEvent::FeedUpdated, name, document.form.as_str().to_owned(), by, now);
    Ok(())
}

/// Deletes a feed whose version is `expected`, with its list and what is known of its consumers.
///
/// # Errors
/// As [`update`].
pub async fn delete(ledger: &mut LedgerTx, name: &str, expected: i64, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Feeds);
    ledger.reseals(&FEEDS, name).await?;
    if ledger.tx.execute(DELETE, binds![name, expected]).await? == 0 {
        return Err(missing_or_changed(ledger, name).await?);
    }
    lists::forget(ledger, name).await?;
    record(ledger, AuditEvent::FeedDeleted, name, String::new(), by, now);
    Ok(())
}

async fn missing_or_changed(ledger: &mut LedgerTx, name: &str) -> Result<StoreError> {
    let row: Option<FeedRow> = ledger.tx.optional(ONE, binds![name]).await?;
    Ok(if row.is_some() { StoreError::Conflict } else { StoreError::NotFound })
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, name: &str, detail: String, by: &Actor, now: Timestamp) {
    let (noun_id, actor) = (name.to_owned(), by.clone());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
