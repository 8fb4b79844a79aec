//! `Idempotency-Key` on requests that create something: the first is carried out and remembered in the same
//! transaction, a repetition changes nothing (promise 2). Secrets are not remembered, so they are not repeated either.

use riposte_protocol::time::Timestamp;

use super::AppState;
use super::error::{ApiError, ApiResult};
use crate::store::audit::LedgerTx;
use crate::store::idempotency::{self, Answered, Once};

/// A request that may carry a key, looked up.
#[derive(Debug)]
pub struct Claim {
    once: Option<Once>,
    answered: Option<Answered>,
}

/// Looks up whether the request was answered before.
///
/// # Errors
/// 422 if its key was used for another request.
pub async fn claim(state: &AppState, once: Option<Once>) -> ApiResult<Claim> {
    let answered = match &once {
        Some(once) => idempotency::find(&state.engine.db, once).await?,
        None => None,
    };
    match (&once, &answered) {
        (Some(once), Some(answered)) if !answered.is_for(once) => Err(ApiError::key_reused()),
        _ => Ok(Claim { once, answered }),
    }
}

impl Claim {
    /// The response to an earlier request with the same key. A retry may follow a failure after
    /// commit: refresh the caches before replaying the response.
    pub fn answered(&self) -> Option<&str> {
        self.answered.as_ref().map(|answered| answered.body.as_str())
    }

    /// Remembers the answer: `id` is enough to make it again.
    pub async fn keep(&self, ledger: &mut LedgerTx, status: u16, id: &str, now: Timestamp) -> ApiResult<()> {
        if let Some(once) = &self.once
            && !idempotency::keep(ledger, once, status, id, now).await?
        {
            return Err(ApiError::conflict("the same request is being carried out just now"));
        }
        Ok(())
    }
}
