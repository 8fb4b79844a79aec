//! Undo: ends responses whose time is over, and lifts effects whose last hold has ended. The agent
//! has a timer of its own; whichever acts first, the outcome is the same (promise 5). Of the managers
//! that share a database, one has this duty.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::Engine;
use crate::domain::response::{EndReason, ResponseEnd};
use crate::store::StoreError;
use crate::store::database::duties::{Claim, Duty};
use crate::store::ledger::{effects, responses};
use crate::store::writer::SweepStep;

/// Responses ended per transaction.
const BATCH: i64 = 500;
/// Longest wait between two checks, in case a wake-up is lost.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Delay after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Ends expired responses until the engine stops.
pub async fn run(engine: &Engine) {
    let stop = engine.tasks.stopping().clone();
    for stage in ["undo", "retry_reverts"] {
        engine.health.expect(stage, MAX_WAIT, engine.clock.now());
    }
    while !stop.is_cancelled() {
        engine.undo.begin();
        // Both run even if one fails, and both have finished where another manager does it.
        let claim = engine.claims.load().get(&Duty::Undo).cloned();
        let ended = stage(engine, "undo", end_what_is_over(engine, claim.as_ref())).await;
        let retried = stage(engine, "retry_reverts", retry_reverts(engine, claim.as_ref())).await;
        let latest = engine.clock.now().plus(MAX_WAIT);
        let wait_until = [ended, retried].into_iter().flatten().min().map_or(latest, |next| next.min(latest));
        tokio::select! {
            () = engine.undo.wait(&engine.clock, wait_until) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Runs one stage and reports its outcome; returns when to run again, if known.
async fn stage(
    engine: &Engine,
    name: &'static str,
    work: impl Future<Output = Result<Option<Timestamp>, StoreError>>,
) -> Option<Timestamp> {
    let begun = engine.clock.now();
    let outcome = work.await;
    let now = engine.clock.now();
    engine.health.report(name, (begun, now), outcome.as_ref().err().map(StoreError::in_words));
    outcome.unwrap_or_else(|error| {
        tracing::warn!(stage = name, "expired responses cannot be ended, retrying: {}", error.in_words());
        Some(now.plus(RETRY))
    })
}

/// Ends every expired response; returns when the next one expires.
async fn end_what_is_over(engine: &Engine, claim: Option<&Claim>) -> Result<Option<Timestamp>, StoreError> {
    let Some(Claim { fence }) = claim else { return Ok(None) };
    let (mut before, mut unreadable) = (Vec::new(), None);
    loop {
        let due = responses::due(&engine.db, engine.clock.now(), BATCH).await?;
        if due.is_empty() {
            return responses::next_due(&engine.db).await;
        }
        if due == before {
            let stuck = format!("{} responses, {} first, that do not end", due.len(), due[0]);
            return Err(unreadable.unwrap_or(StoreError::Corrupt(stuck)));
        }
        let why = ResponseEnd::by_riposte(EndReason::Elapsed, "it has expired");
        match engine.writer.end(due.clone(), why.clone(), fence.clone()).await {
            // One that cannot be read must not keep the others in force.
            Err(error) if error.is_corruption() => {
                for response in &due {
                    match engine.writer.end(vec![*response], why.clone(), fence.clone()).await {
                        Err(error) if !error.is_corruption() => return Err(error),
                        _ => {}
                    }
                }
                unreadable = Some(error);
            }
            released => released?,
        }
        before = due;
    }
}

/// Repeats failed reverts; returns when the next one is due.
async fn retry_reverts(engine: &Engine, claim: Option<&Claim>) -> Result<Option<Timestamp>, StoreError> {
    let Some(Claim { fence }) = claim else { return Ok(None) };
    while engine.writer.sweep(SweepStep::RetryReverts, BATCH, fence.clone()).await? > 0 {}
    effects::next_retry(&engine.db).await
}
