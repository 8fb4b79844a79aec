//! What is removed by age: alerts, responses that are over, and the beginning of the audit log. The
//! store asks in each transaction whether a row is over and under no legal hold
//! (`store/ledger/retention.rs`). The audit log loses only what a signed checkpoint has moved out of
//! it: first the checkpoint, then the rows
//! (`docs/decisions/0033-the-beginning-of-the-audit-log-is-signed.md`).

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use super::log_beginning::signed_beginning;
use crate::domain::checkpoint::{ChainHash, Checkpoint, LogBeginning};
use crate::store::StoreError;
use crate::store::configured::legal_holds;
use crate::store::ledger::{alerts, checkpoints, retention};
use crate::store::seals::whole;

/// Rows per transaction, so that removing delays no alert.
const BATCH: i64 = 500;
/// Least time between two moves of the beginning of the audit log. Each removal is an entry itself, so
/// a log that is trimmed every minute would be about nothing else.
const MOVE_EVERY: Duration = Duration::from_hours(24);
/// Entries that are looked at for one move. The next checkpoint goes on from there.
const MAX_LOOK: i64 = 200_000;

/// Deletes old alerts that nothing needs.
pub(super) async fn clear_alerts(engine: &Engine) -> Result<(), StoreError> {
    let Some(age) = engine.retention.alerts else { return Ok(()) };
    if !may_remove(engine).await? {
        return Ok(());
    }
    let (cutoff, mut after) = (engine.clock.now().minus(age), Uuid::nil());
    loop {
        let old = alerts::forgettable(&engine.db, after, cutoff, BATCH).await?;
        let Some(last) = old.last() else { return Ok(()) };
        after = *last;
        engine.writer.forget_alerts(old).await?;
    }
}

/// Whether something may be removed by its age: not while a legal hold may be missing.
async fn may_remove(engine: &Engine) -> Result<bool, StoreError> {
    whole::examine_legal_holds(&engine.db).await?;
    let Some(breach) = engine.db.seals().keeps_all() else { return Ok(true) };
    tracing::warn!("nothing is removed by its age: {}", breach.describe());
    Ok(false)
}

/// Forgets people whom a manager began to forget, and removes old responses, and the entries of the audit log that are no longer part of it.
pub(super) async fn step(engine: &Arc<Engine>) -> Result<(), StoreError> {
    if !may_remove(engine).await? {
        return Ok(());
    }
    let forgotten = Box::pin(engine.finish_forgetting()).await;
    let responses = remove_responses(engine).await;
    forgotten.and(responses).and(remove_entries(engine).await)
}

async fn remove_responses(engine: &Engine) -> Result<(), StoreError> {
    let Some(age) = engine.retention.responses else { return Ok(()) };
    let (cutoff, mut after) = (engine.clock.now().minus(age), Uuid::nil());
    loop {
        let old = retention::over(&engine.db, after, cutoff, BATCH).await?;
        let Some(last) = old.last() else { return Ok(()) };
        after = *last;
        while engine.writer.forget_responses(old.clone(), BATCH).await? {}
    }
}

async fn remove_entries(engine: &Engine) -> Result<(), StoreError> {
    let last = checkpoints::last(&engine.db).await?.map(|last| last.token);
    let Some(last) = signed_beginning(engine, last.as_deref()).map(|begins| begins.seq) else { return Ok(()) };
    while engine.writer.forget_entries(last, BATCH).await? > 0 {}
    Ok(())
}

/// A later beginning of the audit log, and the legal holds with which it was looked for.
#[derive(Debug)]
pub(super) struct Move {
    /// Where the log begins from now on.
    pub(super) begins: LogBeginning,
    /// Ids of all legal holds.
    pub(super) holds: Vec<String>,
}

/// Looks for a later beginning of the audit log, before its checkpoint `last`: a checkpoint that is
/// older than the retention, up to which every entry fits the chain and none is under a legal hold.
/// Returns a text instead if the log does not fit.
pub(super) async fn look(
    engine: &Engine,
    begins: Option<&LogBeginning>,
    last: i64,
) -> Result<Result<Option<Move>, String>, StoreError> {
    let (Some(age), now) = (engine.retention.audit, engine.clock.now()) else { return Ok(Ok(None)) };
    if !may_remove(engine).await? {
        return Ok(Ok(None));
    }
    let is_early = |begins: &LogBeginning| begins.moved_at() > now.minus(MOVE_EVERY);
    if begins.is_some_and(is_early) {
        return Ok(Ok(None));
    }
    let holds = legal_holds::ids(&engine.db).await?;
    let (mut from, mut start) = begins.map_or((0, None), |begins| (begins.seq, Some(begins.hash)));
    let (cutoff, most) = (now.minus(age), from.saturating_add(MAX_LOOK));
    let mut found = None;
    while from < most {
        let Some((seq, hash)) = older(engine, from, cutoff).await?.filter(|(seq, _)| *seq < last) else { break };
        if checkpoints::leaves(&engine.db, from, seq, start).await?.chain != Some(hash) {
            return Ok(Err(format!("entries {} to {seq} of the audit log do not fit their checkpoint", from + 1)));
        }
        if !holds.is_empty() && retention::first_held(&engine.db, from, seq).await?.is_some() {
            break;
        }
        (from, start) = (seq, Some(hash));
        found = Some(LogBeginning { seq, hash, at: now.as_secs() });
    }
    Ok(Ok(found.map(|begins| Move { begins, holds })))
}

/// The next checkpoint after an entry, if it is older than `cutoff`.
async fn older(engine: &Engine, from: i64, cutoff: Timestamp) -> Result<Option<(i64, ChainHash)>, StoreError> {
    let next = checkpoints::after(&engine.db, from, 1).await?.pop();
    let Some(checkpoint) = next.and_then(|next| Checkpoint::peek(&next.token)) else { return Ok(None) };
    Ok((checkpoint.issued_at() < cutoff).then_some((checkpoint.seq, checkpoint.hash)))
}
