//! Custom actions: those that operators define.

use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::caches::Cache;
use crate::domain::action::{Action, Catalogue};
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::ACTIONS;
use crate::views::columns::{JsonText, Millis};

statements! {
    ALL = "SELECT name, version, document, created_at, updated_at, seal FROM actions ORDER BY name";
    ONE = "SELECT name, version, document, created_at, updated_at FROM actions WHERE name = $1";
    INSERT = "INSERT INTO actions (name, version, document, created_at, updated_at, updated_by)
        VALUES ($1, 1, $2, $3, $3, $4)";
    UPDATE = "UPDATE actions SET version = version + 1, document = $3, updated_at = $4, updated_by = $5
        WHERE name = $1 AND version = $2";
    DELETE = "DELETE FROM actions WHERE name = $1 AND version = $2";
    IN_USE = "SELECT COUNT(*) AS count FROM effects WHERE action = $1 AND (desired = 'in_force' OR next_revert_at IS NOT NULL)";
    OWED = "SELECT COUNT(*) AS count FROM commands WHERE action = $1 AND state IN ('queued', 'delivered', 'acknowledged')";
}

/// A custom action at its current version.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ActionRow {
    /// Unique name.
    pub name: String,
    /// Current version, from 1.
    pub version: i64,
    /// The action's JSON document as submitted.
    pub document: JsonText,
    /// Creation time.
    pub created_at: Millis,
    /// Time of the last change.
    pub updated_at: Millis,
}

impl ActionRow {
    /// Parses the document.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if this version cannot parse it.
    pub fn action(&self) -> Result<Action> {
        Action::parse_stored(&self.document.read()?)
            .map_err(|faults| StoreError::Corrupt(format!("action {}: {faults:?}", self.name)))
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// All custom actions, by name.
pub async fn all(db: &Db) -> Result<Vec<ActionRow>> {
    db.sealed_set(&ACTIONS, ALL, Purpose::Force).await
}

/// All actions, as this transaction sees them.
pub async fn catalogue(ledger: &mut LedgerTx) -> Result<Catalogue> {
    let rows: Vec<ActionRow> = ledger.sealed(&ACTIONS.rows, ALL, vec![]).await?;
    Ok(Catalogue::with(rows.iter().map(ActionRow::action).collect::<Result<_>>()?))
}

/// The custom action called `name`.
pub async fn find(db: &Db, name: &str) -> Result<Option<ActionRow>> {
    db.optional(ONE, binds![name]).await
}

/// Creates an action.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn create(ledger: &mut LedgerTx, name: &str, document: &Value, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Actions);
    ledger.reseals(&ACTIONS, name).await?;
    ledger.tx.execute(INSERT, binds![name, document.to_string(), now, by]).await?;
    record(ledger, AuditEvent::ActionCreated, name, by, now);
    Ok(())
}

/// Replaces an action whose version is `expected`.
///
/// # Errors
/// [`StoreError::Conflict`] at another version, [`StoreError::NotFound`] if it does not exist.
pub async fn update(
    ledger: &mut LedgerTx,
    name: &str,
    document: &Value,
    expected: i64,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Actions);
    ledger.makes_stale(Cache::Policies);
    ledger.reseals(&ACTIONS, name).await?;
    if ledger.tx.execute(UPDATE, binds![name, expected, document.to_string(), now, by]).await? == 0 {
        return Err(missing_or_changed(ledger, name).await?);
    }
    record(ledger, AuditEvent::ActionUpdated, name, by, now);
    Ok(())
}

/// Deletes an action whose version is `expected`.
///
/// # Errors
/// As [`update`].
pub async fn delete(ledger: &mut LedgerTx, name: &str, expected: i64, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Actions);
    ledger.reseals(&ACTIONS, name).await?;
    if ledger.tx.execute(DELETE, binds![name, expected]).await? == 0 {
        return Err(missing_or_changed(ledger, name).await?);
    }
    record(ledger, AuditEvent::ActionDeleted, name, by, now);
    Ok(())
}

/// Whether an effect of the action is in force or has a command in flight: undoing it needs the
/// action.
pub async fn is_in_use(ledger: &mut LedgerTx, name: &str) -> Result<bool> {
    for sql in [IN_USE, OWED] {
        if ledger.tx.optional::<Count>(sql, binds![name]).await?.is_some_and(|row| row.count > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn missing_or_changed(ledger: &mut LedgerTx, name: &str) -> Result<StoreError> {
    let there: Option<ActionRow> = ledger.tx.optional(ONE, binds![name]).await?;
    Ok(if there.is_some() { StoreError::Conflict } else { StoreError::NotFound })
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, name: &str, by: &Actor, now: Timestamp) {
    let (actor, noun_id, detail) = (by.clone(), name.to_owned(), String::new());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
