//! Forwarders: when each one reported last, and which have fallen silent.

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use super::events::LooseEvent;
use super::story::About;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::event::EventType;
use crate::store::database::duties::{self, Fence};
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::views::columns::Millis;
use crate::views::forwarders::{ForwarderReport, ForwarderRow};

statements! {
    PAGE = "SELECT name, principal, version, heard_at, behind_bytes, last_alert_at, is_silent
        FROM forwarders WHERE name > $1 ORDER BY name LIMIT $2";
    KNOWN = "SELECT name, heard_at, is_silent FROM forwarders WHERE name = $1";
    COUNT = "SELECT COUNT(*) AS count FROM forwarders";
    REPORT = "INSERT INTO forwarders (name, principal, version, heard_at, behind_bytes, last_alert_at, is_silent)
        VALUES ($1, $2, $3, $4, $5, $6, FALSE)
        ON CONFLICT (name) DO UPDATE SET principal = excluded.principal, version = excluded.version,
            heard_at = excluded.heard_at, behind_bytes = excluded.behind_bytes, last_alert_at = excluded.last_alert_at,
            is_silent = FALSE";
    LATE = "SELECT name, heard_at, is_silent FROM forwarders WHERE is_silent = FALSE AND heard_at < $1 ORDER BY name";
    SILENCE = "UPDATE forwarders SET is_silent = TRUE WHERE name = $1 AND is_silent = FALSE AND heard_at < $2";
    DELETE = "DELETE FROM forwarders WHERE name = $1";
    SILENT = "SELECT COUNT(*) AS count FROM forwarders WHERE is_silent = TRUE";
}

/// Most forwarders.
const MOST: i64 = 1000;

#[derive(sqlx::FromRow)]
struct Known {
    name: String,
    heard_at: Millis,
    is_silent: bool,
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// A page of forwarders, by name, after `after`.
pub async fn list(db: &Db, after: &str, limit: i64) -> Result<Vec<ForwarderRow>> {
    db.all(PAGE, binds![after, limit]).await
}

/// How many are silent.
pub async fn silent(db: &Db) -> Result<i64> {
    Ok(db.optional::<Count>(SILENT, vec![]).await?.map_or(0, |row| row.count))
}

/// Notes a report. One that was silent is told of as back.
///
/// # Errors
/// [`StoreError::Conflict`] if there are too many.
pub async fn report(db: &Db, name: &str, said: &ForwarderReport, by: &Actor, now: Timestamp) -> Result<()> {
    let mut ledger = LedgerTx::begin_without_head(db).await?;
    let known: Option<Known> = ledger.tx.optional(KNOWN, binds![name]).await?;
    if known.is_none() && ledger.tx.optional::<Count>(COUNT, vec![]).await?.is_some_and(|row| row.count >= MOST) {
        return Err(StoreError::Conflict);
    }
    let mut back = known.filter(|known| known.is_silent);
    if back.is_some() {
        ledger.lock_head().await?;
        // The sweep writes this under the same lock.
        back = ledger.tx.optional::<Known>(KNOWN, binds![name]).await?.filter(|known| known.is_silent);
    }
    let row = binds![name, by, said.version.as_str(), now, said.behind_bytes.max(0), said.last_alert_at];
    ledger.tx.execute(REPORT, row).await?;
    if let Some(Known { heard_at, .. }) = back {
        let detail = format!("it had not been heard since {heard_at}");
        ledger.tell(&told(EventType::IncidentForwarderBack, name, detail), &About::default(), now);
    }
    ledger.commit().await
}

/// Tells of those that have not reported since `cutoff`, once each.
///
/// # Errors
/// [`StoreError::LeaseLost`] if another manager has the duty now.
pub async fn find_silent(db: &Db, cutoff: Timestamp, fence: Option<&Fence>, now: Timestamp) -> Result<()> {
    if db.all::<Known>(LATE, binds![cutoff]).await?.is_empty() {
        return Ok(());
    }
    let mut ledger = LedgerTx::begin(db).await?;
    duties::check(&mut ledger.tx, fence).await?;
    for Known { name, heard_at, .. } in ledger.tx.all::<Known>(LATE, binds![cutoff]).await? {
        ledger.tx.execute(SILENCE, binds![name.as_str(), cutoff]).await?;
        let detail = format!("it was heard last at {heard_at}; its alerts do not arrive");
        tracing::warn!(forwarder = name, "the forwarder {name} is silent: {detail}");
        ledger.tell(&told(EventType::IncidentForwarderSilent, &name, detail), &About::default(), now);
    }
    ledger.commit().await
}

/// Forgets a forwarder that is no more. Returns whether it was known.
pub async fn delete(db: &Db, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
    let mut ledger = LedgerTx::begin(db).await?;
    let is_known = ledger.tx.execute(DELETE, binds![name]).await? > 0;
    if is_known {
        let (noun_id, event, detail) = (name.to_owned(), AuditEvent::ForwarderDeleted, String::new());
        ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    }
    ledger.commit().await?;
    Ok(is_known)
}

fn told(kind: EventType, name: &str, detail: String) -> LooseEvent {
    LooseEvent { kind, noun: "forwarder", noun_id: name.to_owned(), actor: "riposte".to_owned(), detail }
}
