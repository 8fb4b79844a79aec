//! The freeze: a switch that stops the delivery of everything except reverts.

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::{Db, Result, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::FREEZE;
use crate::views::freeze::FreezeRow;

statements! {
    GET = "SELECT id, frozen, reason, changed_at, changed_by, seal FROM freezes";
    SET = "INSERT INTO freezes (id, frozen, reason, changed_at, changed_by) VALUES (1, $1, $2, $3, $4)
        ON CONFLICT (id) DO UPDATE SET frozen = excluded.frozen, reason = excluded.reason,
            changed_at = excluded.changed_at, changed_by = excluded.changed_by";
    HELD_BACK = "SELECT COUNT(*) AS count FROM commands WHERE state IN ('queued', 'delivered') AND op = 'apply'";
}

/// The state, if it was ever set.
pub async fn find(db: &Db) -> Result<Option<FreezeRow>> {
    Ok(db.sealed_set(&FREEZE, GET, Purpose::Look).await?.pop())
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// Number of commands that a freeze holds back: applies that no agent has acknowledged.
pub async fn held_back(db: &Db) -> Result<i64> {
    Ok(db.optional::<Count>(HELD_BACK, vec![]).await?.map_or(0, |row| row.count))
}

/// As [`find`], for the caller that puts it into force.
pub async fn find_for_force(db: &Db) -> Result<Option<FreezeRow>> {
    Ok(db.sealed_set(&FREEZE, GET, Purpose::Force).await?.pop())
}

/// Sets or lifts the freeze.
pub async fn set(ledger: &mut LedgerTx, frozen: bool, reason: &str, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Freeze);
    ledger.reseals(&FREEZE, "1").await?;
    ledger.tx.execute(SET, binds![frozen, reason, now, by]).await?;
    let event = if frozen { AuditEvent::ManagerFrozen } else { AuditEvent::ManagerThawed };
    let (noun_id, detail) = ("freeze".to_owned(), reason.to_owned());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}
