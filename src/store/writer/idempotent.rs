//! Jobs with an `Idempotency-Key`: the first one's outcome is stored with its change, and later ones
//! return it.

use riposte_protocol::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::database::columns::json;
use crate::store::database::{Result, StoreError};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::{self, Once};

/// Outcome of a request with an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotentOutcome<T> {
    /// Carried out, now or by the first request.
    Done(T),
    /// The key was used for another request.
    KeyReused,
}

/// The stored outcome of an idempotent request.
pub(super) async fn earlier<T: DeserializeOwned>(
    ledger: &mut LedgerTx,
    once: Option<&Once>,
) -> Result<Option<IdempotentOutcome<T>>> {
    let Some(once) = once else { return Ok(None) };
    let Some(answered) = idempotency::find_in(ledger, once).await? else { return Ok(None) };
    if !answered.is_for(once) {
        return Ok(Some(IdempotentOutcome::KeyReused));
    }
    let corrupt = |error| StoreError::Corrupt(format!("a stored response: {error}"));
    serde_json::from_str(&answered.body).map(|kept| Some(IdempotentOutcome::Done(kept))).map_err(corrupt)
}

/// Stores the outcome of an idempotent request.
pub(super) async fn keep<T: Serialize>(
    ledger: &mut LedgerTx,
    once: Option<&Once>,
    status: u16,
    kept: &T,
    now: Timestamp,
) -> Result<()> {
    match once {
        Some(once) => idempotency::keep(ledger, once, status, &json(kept)?, now).await.map(|_| ()),
        None => Ok(()),
    }
}
