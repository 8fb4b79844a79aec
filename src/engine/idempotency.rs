//! `Idempotency-Key` on requests that create something: the first is carried out and remembered in the same
//! transaction, a repetition changes nothing (promise 2). Secrets are not remembered, so they are not repeated either.

use riposte_protocol::time::Timestamp;

use super::refusal::{Refusal, UseCase};
use crate::store::database::Db;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::{self, Answered, Once};

/// A request that may carry a key, looked up.
#[derive(Debug)]
pub struct IdempotentRequest {
    once: Option<Once>,
    answered: Option<Answered>,
}

impl IdempotentRequest {
    /// Looks up whether the request was answered before.
    ///
    /// # Errors
    /// [`Refusal::KeyReused`] if its key was used for another request.
    pub async fn find(db: &Db, once: Option<Once>) -> UseCase<Self> {
        let answered = match &once {
            Some(once) => idempotency::find(db, once).await?,
            None => None,
        };
        match (&once, &answered) {
            (Some(once), Some(answered)) if !answered.is_for(once) => Err(Refusal::KeyReused),
            _ => Ok(Self { once, answered }),
        }
    }

    /// The body of the earlier answer, if the request was made before. A retry may follow a failure after commit: refresh the
    /// caches before replaying the response.
    pub fn answered(&self) -> Option<&str> {
        self.answered.as_ref().map(|answered| answered.body.as_str())
    }

    /// Remembers the answer: `id` is enough to make it again.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if the same request is being carried out at the same time.
    pub async fn keep(&self, ledger: &mut LedgerTx, status: u16, id: &str, now: Timestamp) -> UseCase<()> {
        if let Some(once) = &self.once
            && !idempotency::keep(ledger, once, status, id, now).await?
        {
            return Err(Refusal::Conflict(
                "the first request with this key is still in progress; retry later".to_owned(),
            ));
        }
        Ok(())
    }
}
