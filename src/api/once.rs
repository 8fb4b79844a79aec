//! `Idempotency-Key` on requests that create objects: the first request is carried out and its
//! response stored in the same transaction; a retry changes nothing (promise 2). Secrets are not
//! stored, so a retry does not return them.

use riposte_protocol::time::Timestamp;

use super::AppState;
use super::error::{ApiError, ApiResult};
use crate::store::audit::LedgerTx;
use crate::store::idempotency::{self, Answered, Once};

/// A request whose key was looked up.
#[derive(Debug)]
pub struct Claim {
    once: Option<Once>,
    answered: Option<Answered>,
}

/// Looks up the stored response to the request.
///
/// # Errors
/// 422 if the key was used for another request.
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

    /// Stores the response; `id` is enough to rebuild it.
    pub async fn keep(&self, ledger: &mut LedgerTx, status: u16, id: &str, now: Timestamp) -> ApiResult<()> {
        if let Some(once) = &self.once
            && !idempotency::keep(ledger, once, status, id, now).await?
        {
            return Err(ApiError::conflict("the first request with this key is still in progress; retry later"));
        }
        Ok(())
    }
}
