//! API keys; only hashes of their secrets are stored.

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::principal::Role;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::views::keys::KeyRow;

statements! {
    ALL = "SELECT id, name, hash, role, pipeline, created_at, created_by, expires_at, revoked_at FROM api_keys
        ORDER BY id";
    PAGE = "SELECT id, name, role, pipeline, created_at, created_by, expires_at, revoked_at FROM api_keys
        WHERE id > $1 ORDER BY id LIMIT $2";
    INSERT = "INSERT INTO api_keys (id, name, hash, role, created_at, created_by, expires_at, pipeline)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    REVOKE = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
}

/// An API key with the hash that its secret is compared with.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StoredKey {
    /// The key, without its secret.
    #[sqlx(flatten)]
    pub key: KeyRow,
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
}

/// An API key to create.
#[derive(Debug)]
pub struct NewKey {
    /// Public part of the key.
    pub id: String,
    /// Purpose, as the operator named it.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// Role, which decides the key's rights.
    pub role: Role,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// Expiry time; `None`: valid until revoked.
    pub expires_at: Option<Timestamp>,
}

/// All keys, including revoked ones.
pub async fn all(db: &Db) -> Result<Vec<StoredKey>> {
    db.all(ALL, vec![]).await
}

/// A page of keys, after `after`.
pub async fn list(db: &Db, after: &str, limit: i64) -> Result<Vec<KeyRow>> {
    db.all(PAGE, binds![after, limit]).await
}

/// Creates a key.
pub async fn create(ledger: &mut LedgerTx, key: &NewKey, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Keys);
    let NewKey { id, name, hash, role, pipeline, expires_at } = key;
    let binds = binds![id.as_str(), name.as_str(), hash.clone(), *role, now, by, *expires_at, pipeline.as_deref()];
    ledger.tx.execute(INSERT, binds).await?;
    let bound = pipeline.as_ref().map_or_else(String::new, |pipeline| format!(", pipeline {pipeline}"));
    let detail = format!("{name}, role {}{bound}", role.as_str());
    let (event, noun_id) = (AuditEvent::KeyCreated, id.clone());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}

/// Revokes a key.
///
/// # Errors
/// [`StoreError::NotFound`] if the key does not exist or is already revoked.
pub async fn revoke(ledger: &mut LedgerTx, id: &str, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Keys);
    if ledger.tx.execute(REVOKE, binds![id, now]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let (event, noun_id, detail) = (AuditEvent::KeyRevoked, id.to_owned(), String::new());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}
