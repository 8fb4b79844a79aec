//! Requests that carry an `Idempotency-Key`: the first one is carried out and its answer kept in the same
//! transaction, a repetition gets that answer and changes nothing (promise 2).

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use super::db::{Db, Result, binds, statements};

statements! {
    FIND = "SELECT fingerprint, status, body FROM idempotency WHERE principal = $1 AND key = $2";
    INSERT = "INSERT INTO idempotency (principal, key, fingerprint, status, body, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (principal, key) DO NOTHING";
    FORGET = "DELETE FROM idempotency WHERE created_at < $1";
}

/// A request that must be carried out once.
#[derive(Clone, Debug)]
pub struct Once {
    /// Who asks: keys of different principals are different keys.
    pub principal: String,
    /// The key.
    pub key: String,
    /// SHA-256 of what is asked.
    pub fingerprint: Vec<u8>,
}

/// The answer that was given the first time.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Answered {
    fingerprint: Vec<u8>,
    /// The HTTP status.
    pub status: i64,
    /// The body, without secrets.
    pub body: String,
}

impl Answered {
    /// Whether the same was asked then.
    pub fn is_for(&self, once: &Once) -> bool {
        self.fingerprint == once.fingerprint
    }
}

/// The answer to an earlier request with the same key.
pub async fn find(db: &Db, once: &Once) -> Result<Option<Answered>> {
    db.optional(FIND, binds![once.principal.as_str(), once.key.as_str()]).await
}

/// The same, inside a transaction.
pub(super) async fn find_in(ledger: &mut LedgerTx, once: &Once) -> Result<Option<Answered>> {
    ledger.tx.optional(FIND, binds![once.principal.as_str(), once.key.as_str()]).await
}

/// Keeps the answer; gives false if there is one already, which stays.
pub async fn keep(ledger: &mut LedgerTx, once: &Once, status: u16, body: &str, now: Timestamp) -> Result<bool> {
    let Once { principal, key, fingerprint } = once;
    let binds = binds![principal.as_str(), key.as_str(), fingerprint.clone(), i64::from(status), body, now];
    Ok(ledger.tx.execute(INSERT, binds).await? == 1)
}

/// Forgets answers given before `cutoff`.
pub(super) async fn forget(ledger: &mut LedgerTx, cutoff: Timestamp) -> Result<u64> {
    ledger.tx.execute(FORGET, binds![cutoff]).await
}
