//! Requests with an `Idempotency-Key`: the first one is carried out, and its response stored in the
//! same transaction. A retry gets the stored response and changes nothing (promise 2).

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::store::database::{Db, Result, binds, statements};

statements! {
    FIND = "SELECT fingerprint, status, body FROM idempotency WHERE principal = $1 AND key = $2";
    INSERT = "INSERT INTO idempotency (principal, key, fingerprint, status, body, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (principal, key) DO NOTHING";
    FORGET = "DELETE FROM idempotency WHERE created_at < $1";
}

/// An idempotent request.
#[derive(Clone, Debug)]
pub struct Once {
    /// Principal; keys are scoped to it.
    pub principal: Actor,
    /// Value of `Idempotency-Key`.
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: Vec<u8>,
}

/// The stored response.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Answered {
    fingerprint: Vec<u8>,
    /// HTTP status.
    pub status: i64,
    /// Response body, without secrets.
    pub body: String,
}

impl Answered {
    /// Whether `once` is the same request.
    pub fn is_for(&self, once: &Once) -> bool {
        self.fingerprint == once.fingerprint
    }
}

/// The stored response to a request with this key.
pub async fn find(db: &Db, once: &Once) -> Result<Option<Answered>> {
    db.optional(FIND, binds![&once.principal, once.key.as_str()]).await
}

/// The same, inside a transaction.
pub(in crate::store) async fn find_in(ledger: &mut LedgerTx, once: &Once) -> Result<Option<Answered>> {
    ledger.tx.optional(FIND, binds![&once.principal, once.key.as_str()]).await
}

/// Stores the response; returns false if one is already stored, which is kept.
pub async fn keep(ledger: &mut LedgerTx, once: &Once, status: u16, body: &str, now: Timestamp) -> Result<bool> {
    let Once { principal, key, fingerprint } = once;
    let binds = binds![principal, key.as_str(), fingerprint.clone(), i64::from(status), body, now];
    Ok(ledger.tx.execute(INSERT, binds).await? == 1)
}

/// Deletes responses stored before `cutoff`.
pub(in crate::store) async fn forget(ledger: &mut LedgerTx, cutoff: Timestamp) -> Result<u64> {
    ledger.tx.execute(FORGET, binds![cutoff]).await
}
