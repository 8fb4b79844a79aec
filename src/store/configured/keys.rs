//! API keys; only hashes of their secrets are stored.

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use super::scope;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::client_certificate::Fingerprint;
use crate::domain::principal::Role;
use crate::domain::scope::Scope;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::KEYS;
use crate::views::keys::KeyRow;

statements! {
    ALL = "SELECT id, name, hash, role, user_name, pipeline, created_at, created_by, expires_at, revoked_at, last_used_at,
            last_used_from, scope, is_webhook, certificate, token_generation, seal
        FROM api_keys ORDER BY id";
    PAGE = "SELECT id, name, role, user_name, pipeline, created_at, created_by, expires_at, revoked_at, last_used_at,
            last_used_from, scope, is_webhook, certificate
        FROM api_keys WHERE id > $1 AND ($2 IS NULL OR user_name = $2) ORDER BY id LIMIT $3";
    INSERT = "INSERT INTO api_keys (id, name, hash, role, created_at, created_by, expires_at, pipeline, user_name, scope, is_webhook,
            certificate)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    REVOKE = "UPDATE api_keys SET revoked_at = $2
        WHERE id = $1 AND revoked_at IS NULL AND ($3 IS NULL OR user_name = $3)";
    END_TOKENS = "UPDATE api_keys SET token_generation = token_generation + 1 WHERE id = $1";
    LIVE_OF_NAME = "SELECT COUNT(*) AS count FROM api_keys
        WHERE user_name = $1 AND name = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)";
    LIVE = "SELECT COUNT(*) AS count FROM api_keys
        WHERE user_name = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
    LIVE_OF_CERTIFICATE = "SELECT id FROM api_keys
        WHERE certificate = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
    USED = "UPDATE api_keys SET last_used_at = CAST(v.column2 AS BIGINT), last_used_from = v.column3
        FROM (VALUES {3}) AS v WHERE api_keys.id = v.column1";
}

/// An API key with the hash that its secret is compared with.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StoredKey {
    /// The key, without its secret.
    #[sqlx(flatten)]
    pub key: KeyRow,
    /// SHA-256 of the secret, or what stands for a client certificate.
    pub hash: Vec<u8>,
    /// Generation of the tokens that stand for it. It is not sealed: with an older one, tokens that were ended are
    /// valid again for their 15 minutes, and none can be made.
    pub token_generation: i64,
}

impl StoredKey {
    /// Whether it is neither revoked nor expired.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        let is_expired = self.key.expires_at.is_some_and(|at| Timestamp::from(at) <= now);
        self.key.revoked_at.is_none() && !is_expired
    }
}

/// An API key to create.
#[derive(Debug)]
pub struct NewKey {
    /// Public part of the key.
    pub id: String,
    /// Purpose, as the operator named it.
    pub name: String,
    /// SHA-256 of the secret, or what stands for a client certificate.
    pub hash: Vec<u8>,
    /// Role, which decides the key's rights.
    pub role: Role,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// The person that it belongs to; `None` for a service key.
    pub user: Option<String>,
    /// Expiry time; `None`: valid until revoked.
    pub expires_at: Option<Timestamp>,
    /// What it may do at most.
    pub scope: Scope,
    /// Whether its sender signs instead of sending it.
    pub is_webhook: bool,
    /// The client certificate that stands for it.
    pub certificate: Option<Fingerprint>,
}

#[derive(sqlx::FromRow)]
struct KeyId {
    id: String,
}

#[derive(sqlx::FromRow)]
struct LiveCount {
    count: i64,
}

/// A use of a key: its id, when, and from which address.
pub type KeyUse = (String, Timestamp, String);

/// All keys, including revoked ones.
pub async fn all(db: &Db) -> Result<Vec<StoredKey>> {
    db.sealed_set(&KEYS, ALL, Purpose::Force).await
}

/// A page of keys, after `after`; with `user` only those of that person.
pub async fn list(db: &Db, user: Option<&str>, after: &str, limit: i64) -> Result<Vec<KeyRow>> {
    db.all(PAGE, binds![after, user, limit]).await
}

/// Number of valid personal keys of `user` with this name.
pub async fn live_of_name(ledger: &mut LedgerTx, user: &str, name: &str, now: Timestamp) -> Result<i64> {
    let row: Option<LiveCount> = ledger.tx.optional(LIVE_OF_NAME, binds![user, name, now]).await?;
    Ok(row.map_or(0, |row| row.count))
}

/// The number of a person's valid keys.
pub async fn live(ledger: &mut LedgerTx, user: &str, now: Timestamp) -> Result<i64> {
    let row: Option<LiveCount> = ledger.tx.optional(LIVE, binds![user, now]).await?;
    Ok(row.map_or(0, |row| row.count))
}

/// The id of the valid key that this certificate stands for.
pub async fn of_certificate(ledger: &mut LedgerTx, certificate: Fingerprint, now: Timestamp) -> Result<Option<String>> {
    let row: Option<KeyId> = ledger.tx.optional(LIVE_OF_CERTIFICATE, binds![certificate.to_string(), now]).await?;
    Ok(row.map(|row| row.id))
}

/// Records the last uses of keys.
pub(in crate::store) async fn used(ledger: &mut LedgerTx, uses: Vec<KeyUse>) -> Result<usize> {
    let rows: Vec<_> = uses.into_iter().map(|(id, at, from)| binds![id, at, from]).collect();
    let count = rows.len();
    ledger.tx.execute_rows(USED, rows, vec![]).await?;
    Ok(count)
}

/// Creates a key.
pub async fn create(ledger: &mut LedgerTx, key: &NewKey, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Keys);
    ledger.reseals(&KEYS, &key.id).await?;
    let NewKey { id, name, hash, role, pipeline, user, expires_at, scope, is_webhook, certificate } = key;
    let (pipeline, user) = (pipeline.as_deref(), user.as_deref());
    let scope = scope::stored(scope)?;
    let limited = scope.as_ref().map_or_else(String::new, |scope| format!(", scope {scope}"));
    let binds = binds![
        id.as_str(),
        name.as_str(),
        hash.clone(),
        *role,
        now,
        by,
        *expires_at,
        pipeline,
        user,
        scope,
        *is_webhook,
        certificate.map(|certificate| certificate.to_string())
    ];
    ledger.tx.execute(INSERT, binds).await?;
    let kind = user.map_or_else(String::new, |user| format!(", personal key of {user}"));
    let bound = pipeline.map_or_else(String::new, |pipeline| format!(", pipeline {pipeline}"));
    let shown = certificate.map_or_else(String::new, |certificate| format!(", client certificate {certificate}"));
    let detail = format!("{name}, role {}{bound}{kind}{limited}{shown}", role.as_str());
    let (event, noun_id) = (AuditEvent::KeyCreated, id.clone());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}

/// Ends all tokens that stand for a key.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such key.
pub async fn end_tokens(ledger: &mut LedgerTx, id: &str, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Keys);
    if ledger.tx.execute(END_TOKENS, binds![id]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let (event, noun_id) = (AuditEvent::KeyLoggedOut, id.to_owned());
    let detail = "all tokens that stand for the key have ended".to_owned();
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}

/// Revokes a key; with `user` only one of that person.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such key, or it is already revoked.
pub async fn revoke(ledger: &mut LedgerTx, id: &str, user: Option<&str>, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Keys);
    ledger.reseals(&KEYS, id).await?;
    if ledger.tx.execute(REVOKE, binds![id, now, user]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let (event, noun_id, detail) = (AuditEvent::KeyRevoked, id.to_owned(), String::new());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}
