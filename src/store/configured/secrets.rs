//! Secrets that policies and actions refer to. Only what the ledger key sealed is stored.

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::columns::json;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::SECRETS;
use crate::views::secrets::SecretRow;

statements! {
    ALL = "SELECT name, actions, changed_at, changed_by, sealed, seal FROM secrets ORDER BY name";
    PAGE = "SELECT name, actions, changed_at, changed_by FROM secrets WHERE name > $1 ORDER BY name LIMIT $2";
    SET = "INSERT INTO secrets (name, actions, changed_at, changed_by, sealed) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (name) DO UPDATE SET actions = excluded.actions, changed_at = excluded.changed_at,
            changed_by = excluded.changed_by, sealed = excluded.sealed";
    DELETE = "DELETE FROM secrets WHERE name = $1";
}

/// A secret with what was sealed of it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct SealedSecret {
    /// The secret, without its value.
    #[sqlx(flatten)]
    pub secret: SecretRow,
    /// The value, sealed.
    pub sealed: Vec<u8>,
}

/// All secrets.
pub async fn all(db: &Db) -> Result<Vec<SealedSecret>> {
    db.sealed_set(&SECRETS, ALL, Purpose::Force).await
}

/// A page of secrets, by name, after `after`.
pub async fn list(db: &Db, after: &str, limit: i64) -> Result<Vec<SecretRow>> {
    db.all(PAGE, binds![after, limit]).await
}

/// Sets a secret for these actions.
pub async fn set(
    ledger: &mut LedgerTx,
    name: &str,
    actions: &[String],
    sealed: Vec<u8>,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Secrets);
    ledger.reseals(&SECRETS, name).await?;
    ledger.tx.execute(SET, binds![name, json(&actions)?, now, by, sealed]).await?;
    let detail = format!("for {}", actions.join(", "));
    record(ledger, AuditEvent::SecretSet, name, detail, by, now);
    Ok(())
}

/// Deletes a secret.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none of that name.
pub async fn delete(ledger: &mut LedgerTx, name: &str, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Secrets);
    ledger.reseals(&SECRETS, name).await?;
    if ledger.tx.execute(DELETE, binds![name]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, AuditEvent::SecretDeleted, name, String::new(), by, now);
    Ok(())
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, name: &str, detail: String, by: &Actor, now: Timestamp) {
    let (noun_id, actor) = (name.to_owned(), by.clone());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
