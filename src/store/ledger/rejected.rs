//! Alerts that were not taken in, with the reason. They are kept for a week, and for each sender only so many, so that
//! none can fill the ledger.

use std::collections::{BTreeMap, BTreeSet};

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::id::new_id;
use crate::store::database::codec;
use crate::store::database::{Db, Result, binds, statements};
use crate::views::alerts::RejectedAlert;

/// Rejected alerts that are kept for a sender.
const MOST_OF_A_SENDER: i64 = 1000;

statements! {
    /// What comes again counts up, with the reasons of now. No two rows of a statement may be the same alert.
    INSERT = "INSERT INTO rejected_alerts (id, digest, sender, pipeline, last_at, count, errors, size, is_kept, raw) VALUES {10}
        ON CONFLICT (digest) DO UPDATE SET count = rejected_alerts.count + excluded.count, last_at = excluded.last_at, errors = excluded.errors";
    TRIM = "DELETE FROM rejected_alerts WHERE id IN (
        SELECT id FROM rejected_alerts WHERE sender = $1 ORDER BY last_at DESC LIMIT 1000 OFFSET $2)";
    PAGE = "SELECT id, sender, pipeline, last_at, count, errors, size, is_kept FROM rejected_alerts
        WHERE id < $1 AND ($2 IS NULL OR pipeline = $2) ORDER BY id DESC LIMIT $3";
    ONE = "SELECT id, sender, pipeline, last_at, count, errors, size, is_kept FROM rejected_alerts
        WHERE id = $1";
    RAW = "SELECT raw FROM rejected_alerts WHERE id = $1 AND is_kept";
    DELETE = "DELETE FROM rejected_alerts WHERE id = $1";
    FORGET = "DELETE FROM rejected_alerts WHERE id IN (
        SELECT id FROM rejected_alerts WHERE last_at < $1 ORDER BY last_at LIMIT $2)";
}

/// An alert that was not taken in.
#[derive(Debug)]
pub struct NewRejected {
    /// What makes it the same again.
    pub digest: [u8; 16],
    /// The sender, as in the audit log.
    pub sender: String,
    /// The pipeline of the sender's key.
    pub pipeline: Option<String>,
    /// The faults, as JSON.
    pub errors: String,
    /// Bytes, as they came.
    pub size: i64,
    /// The bytes in stored form; `None` where they are too many.
    pub raw: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct Raw {
    raw: Vec<u8>,
}

/// Stores rejected alerts, and removes the oldest of each sender beyond their number.
pub(in crate::store) async fn keep(ledger: &mut LedgerTx, rejected: Vec<NewRejected>, now: Timestamp) -> Result<()> {
    // In one order in all managers: two that store the same two alerts would wait for each other.
    let mut known: BTreeMap<[u8; 16], (NewRejected, i64)> = BTreeMap::new();
    for alert in rejected {
        let count = known.get(&alert.digest).map_or(0, |(_, count)| *count);
        known.insert(alert.digest, (alert, count + 1));
    }
    let senders: BTreeSet<String> = known.values().map(|(alert, _)| alert.sender.clone()).collect();
    let row = |(alert, count): (NewRejected, i64)| {
        let NewRejected { digest, sender, pipeline, errors, size, raw } = alert;
        let (is_kept, raw) = (raw.is_some(), raw.unwrap_or_default());
        binds![new_id(now), digest.to_vec(), sender, pipeline, now, count, errors, size, is_kept, raw]
    };
    ledger.tx.execute_rows(INSERT, known.into_values().map(row).collect(), vec![]).await?;
    for sender in senders {
        ledger.tx.execute(TRIM, binds![sender, MOST_OF_A_SENDER]).await?;
    }
    Ok(())
}

/// A page of rejected alerts, newest first, before `before`.
pub async fn list(db: &Db, pipeline: Option<&str>, before: Option<Uuid>, limit: i64) -> Result<Vec<RejectedAlert>> {
    db.all(PAGE, binds![before.unwrap_or(Uuid::max()), pipeline, limit]).await
}

/// The rejected alert of that id.
pub async fn find(db: &Db, id: Uuid) -> Result<Option<RejectedAlert>> {
    db.optional(ONE, binds![id]).await
}

/// Its bytes, as they came; `None` if they are not kept.
pub async fn raw(db: &Db, id: Uuid) -> Result<Option<Vec<u8>>> {
    let row: Option<Raw> = db.optional(RAW, binds![id]).await?;
    row.map(|row| codec::decode(&row.raw)).transpose()
}

/// Deletes a rejected alert: it was taken in.
pub async fn delete(db: &Db, id: Uuid) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.execute(DELETE, binds![id]).await?;
    tx.commit().await
}

/// Deletes what came last before `cutoff`, at most `limit`.
pub(in crate::store) async fn forget(ledger: &mut LedgerTx, cutoff: Timestamp, limit: i64) -> Result<u64> {
    ledger.tx.execute(FORGET, binds![cutoff, limit]).await
}
