//! Legal holds, and what they cover. Every removal by age asks here, in its own transaction.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::legal_hold::LegalHold;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::sets::LEGAL_HOLDS;
use crate::views::legal_holds::LegalHoldRow;

/// Whether a legal hold covers the row of `responses` that a statement looks at, in SQL.
macro_rules! is_held {
    () => {
        "EXISTS (SELECT 1 FROM legal_holds
            WHERE (legal_holds.kind = 'response' AND legal_holds.value = responses.id)
                OR (legal_holds.kind = 'policy' AND legal_holds.value = responses.policy)
                OR (legal_holds.kind = 'agent' AND responses.agents LIKE '%' || legal_holds.value || '%')
                OR (legal_holds.kind = 'target' AND legal_holds.value = responses.target_value)
                OR (legal_holds.kind = 'time' AND responses.created_at < legal_holds.until
                    AND COALESCE(responses.ended_at, responses.created_at) >= legal_holds.since))"
    };
}
pub(in crate::store) use is_held;

statements! {
    PAGE = "SELECT id, name, reason, kind, value, NULLIF(since, 0) AS since, NULLIF(until, 9223372036854775807) AS until,
            created_at, created_by
        FROM legal_holds WHERE id > $1 ORDER BY id LIMIT $2";
    ONE = "SELECT id, name, reason, kind, value, NULLIF(since, 0) AS since, NULLIF(until, 9223372036854775807) AS until,
            created_at, created_by
        FROM legal_holds WHERE id = $1";
    IDS = "SELECT id FROM legal_holds ORDER BY id";
    NAMED = "SELECT id FROM legal_holds WHERE name = $1";
    INSERT = "INSERT INTO legal_holds (id, name, reason, kind, value, since, until, first_id, last_id, created_at, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    DELETE = "DELETE FROM legal_holds WHERE id = $1";
    OF_POLICY = "SELECT id FROM responses WHERE policy = $1 LIMIT 1";
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

/// A page of legal holds, oldest first, after `after`.
pub async fn list(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<LegalHoldRow>> {
    db.all(PAGE, binds![after.unwrap_or(Uuid::nil()), limit]).await
}

/// The legal hold of that id.
pub async fn find(db: &Db, hold: Uuid) -> Result<Option<LegalHoldRow>> {
    db.optional(ONE, binds![hold]).await
}

/// The ids of all legal holds: a list that is the same again shows that none was added meanwhile.
pub async fn ids(db: &Db) -> Result<Vec<String>> {
    Ok(db.all::<Id>(IDS, vec![]).await?.into_iter().map(|row| row.id).collect())
}

/// As [`ids`], inside a transaction.
pub async fn ids_in(ledger: &mut LedgerTx) -> Result<Vec<String>> {
    Ok(ledger.tx.all::<Id>(IDS, vec![]).await?.into_iter().map(|row| row.id).collect())
}

/// Whether there is a response of this policy.
pub async fn has_responses(db: &Db, policy: &str) -> Result<bool> {
    Ok(db.optional::<Id>(OF_POLICY, binds![policy]).await?.is_some())
}

/// Creates a legal hold. Returns false if another one has its name.
pub async fn create(ledger: &mut LedgerTx, hold: &LegalHold, by: &Actor, now: Timestamp) -> Result<bool> {
    let LegalHold { id, name, reason, covers } = hold;
    if ledger.tx.optional::<Id>(NAMED, binds![name.as_str()]).await?.is_some() {
        return Ok(false);
    }
    let (kind, value, (since, until)) = (covers.kind(), covers.value(), covers.range());
    let (first, last) = (first_id(since), first_id(until));
    let binds = binds![*id, name.as_str(), reason.as_str(), kind, value.as_str(), since, until, first, last, now, by];
    ledger.reseals(&LEGAL_HOLDS, &id.to_string()).await?;
    ledger.tx.execute(INSERT, binds).await?;
    let what = match kind {
        "time" => format!("{since} to {until}"),
        _ => value,
    };
    let detail = format!("{name}: {kind} {what}: {reason}");
    let (event, noun_id) = (AuditEvent::LegalHoldPlaced, id.to_string());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(true)
}

/// The least id of what was received at `at` or later: UUIDv7 sorts by time.
pub(in crate::store) fn first_id(at: Timestamp) -> Uuid {
    const LAST_MILLIS: u64 = (1 << 48) - 1;
    let millis = u64::try_from(at.as_millis()).unwrap_or(0).min(LAST_MILLIS);
    Uuid::from_u64_pair(millis << 16, 0)
}

/// Releases a legal hold.
///
/// # Errors
/// [`StoreError::NotFound`] if it does not exist.
pub async fn release(ledger: &mut LedgerTx, hold: Uuid, by: &Actor, now: Timestamp) -> Result<()> {
    let row: LegalHoldRow = ledger.tx.optional(ONE, binds![hold]).await?.ok_or(StoreError::NotFound)?;
    ledger.reseals(&LEGAL_HOLDS, &hold.to_string()).await?;
    ledger.tx.execute(DELETE, binds![hold]).await?;
    let detail = format!("{}: {} {}", row.name, row.kind, row.value).trim_end().to_owned();
    let (event, noun_id) = (AuditEvent::LegalHoldReleased, hold.to_string());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}
