//! Alerts that were not taken in: kept with the reason, and taken in again when a mapping was mended.

use riposte_protocol::time::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::Engine;
use super::intake::{Receipt, encode};
use crate::domain::fault::Fault;
use crate::domain::formats::dedupe;
use crate::domain::principal::Principal;
use crate::store::database::{Result, StoreError};
use crate::store::ledger::rejected::{self, NewRejected};
use crate::store::writer::IdempotentOutcome;
use crate::views::alerts::RejectedAlert;

/// Rejected alerts of one request that are kept. A sender whose alerts are all wrong is told so by the answer.
const MOST_OF_A_REQUEST: usize = 100;
/// Bytes of an alert that are kept.
const MOST_BYTES: usize = 64 * 1024;
/// Faults of an alert that are kept.
const MOST_FAULTS: usize = 20;

impl Engine {
    /// Keeps what was rejected of a request.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub(super) async fn keep_rejected(
        &self,
        raws: &[&[u8]],
        faulty: &[(usize, Vec<Fault>)],
        sender: &Principal,
    ) -> Result<()> {
        if faulty.is_empty() {
            return Ok(());
        }
        let actor = sender.actor.to_string();
        let mut kept = Vec::new();
        for (index, faults) in faulty.iter().take(MOST_OF_A_REQUEST) {
            let raw = raws.get(*index).copied().unwrap_or_default();
            let pipeline = sender.pipeline.clone();
            let content = String::from_utf8_lossy(raw);
            let errors = &faults[..faults.len().min(MOST_FAULTS)];
            kept.push(NewRejected {
                digest: dedupe(&["rejected", pipeline.as_deref().unwrap_or_default(), &content]),
                sender: actor.clone(),
                pipeline,
                errors: serde_json::to_string(errors).map_err(|error| StoreError::Corrupt(error.to_string()))?,
                size: i64::try_from(raw.len()).unwrap_or(i64::MAX),
                raw: (raw.len() <= MOST_BYTES).then(|| encode(raw)),
            });
        }
        self.writer.keep_rejected(kept).await
    }

    /// Takes a rejected alert in again, as one of the same pipeline. It stays where it is if it is rejected again.
    ///
    /// # Errors
    /// If the ledger cannot be read or written.
    pub async fn resend(
        &self,
        row: &RejectedAlert,
        id: Uuid,
        by: &Principal,
        permit: OwnedSemaphorePermit,
    ) -> Result<Option<Receipt>> {
        let Some(raw) = rejected::raw(&self.db, id).await? else { return Ok(None) };
        let sender = Principal { pipeline: row.pipeline.clone(), ..by.clone() };
        let IdempotentOutcome::Done(receipt) = self.accept(vec![&raw], &sender, None, None, permit).await? else {
            return Ok(None);
        };
        if receipt.rejected.is_empty() {
            rejected::delete(&self.db, id).await?;
        }
        Ok(Some(receipt))
    }
}

/// Before when what came last is removed.
pub(super) fn cutoff(now: Timestamp) -> Timestamp {
    const KEEP: std::time::Duration = std::time::Duration::from_hours(7 * 24);
    now.minus(KEEP)
}
