//! Checkpoints of the audit log: each minute in which it grew, the manager signs where its hash chain
//! stands, stores that, and sends it elsewhere (`checkpoint_copies.rs`). A place that cannot be reached
//! delays nothing: the copy comes later, and `/readyz?verbose` says why.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::MANAGER;

use super::Engine;
use super::checkpoint_copies::CheckpointCopies;
use super::checkpoint_webhook::CheckpointWebhook;
use super::log_beginning::signed_beginning;
use super::retention::{self as retention_stage, Move};
use crate::config::CheckpointPlaces;
use crate::domain::checkpoint::{ChainHash, Checkpoint, CheckpointOpener, LogBeginning};
use crate::domain::merkle;
use crate::store::StoreError;
use crate::store::configured::legal_holds;
use crate::store::database::duties::Duty;
use crate::store::ledger::audit::{self, LedgerTx};
use crate::store::ledger::checkpoints::{self, Leaves};
use crate::store::ledger::retention;

/// Least time between two checkpoints.
const EVERY: Duration = Duration::from_mins(1);
/// Entries that one checkpoint can prove one by one: after an upgrade the first one has the whole log
/// before it.
const MAX_LEAVES: i64 = 1_000_000;
/// Name of the stage.
const STAGE: &str = "checkpoint";

/// Where the log stood when this manager looked last.
type Known = Option<(i64, ChainHash)>;

/// Runs until the engine stops; the last checkpoint is made then.
pub(super) async fn run(engine: &Arc<Engine>, places: CheckpointPlaces, webhook: Option<CheckpointWebhook>) {
    let stop = engine.tasks.stopping().clone();
    engine.health.expect(STAGE, EVERY, engine.clock.now());
    let mut copies = CheckpointCopies::new(places, webhook);
    let mut known = last_copy(engine, &copies).await;
    loop {
        let begun = engine.clock.now();
        let done = round(engine, &mut known, &mut copies).await;
        let fault = done.err().map(|error| error.in_words());
        if let Some(error) = &fault {
            tracing::warn!("no checkpoint of the audit log could be made, retrying: {error}");
        }
        engine.health.report(STAGE, (begun, engine.clock.now()), fault);
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = engine.clock.sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn round(engine: &Engine, known: &mut Known, copies: &mut CheckpointCopies) -> Result<(), StoreError> {
    if !engine.claims.load().contains_key(&Duty::Checkpoints) {
        return Ok(());
    }
    compare(engine, *known).await?;
    if let Some(made) = make(engine).await? {
        *known = Some(made);
    }
    copies.send(engine).await
}

/// Whether the log still has the entry that it had. A manager that runs on a log that was rewritten
/// goes on, because blocks must be lifted; and says so until it is restarted.
async fn compare(engine: &Engine, known: Known) -> Result<(), StoreError> {
    let Some((seq, hash)) = known else { return Ok(()) };
    // A copy elsewhere may be behind where the log begins.
    let is_removed = engine.log_beginning.load().as_ref().is_some_and(|begins| seq <= begins.seq);
    if is_removed || checkpoints::hash(&engine.db, seq).await? == Some(hash) {
        return Ok(());
    }
    warn(engine, &format!("the audit log is not what it was: its entry {seq} was changed or deleted"));
    Ok(())
}

/// Signs and stores where the log stands, if it has grown, and where it begins.
async fn make(engine: &Engine) -> Result<Known, StoreError> {
    let last = checkpoints::last(&engine.db).await?;
    let stored = last.as_ref().map_or(0, |last| last.seq);
    let known = signed_beginning(engine, last.as_ref().map(|last| last.token.as_str()));
    let is_complete = is_complete(engine, known.as_ref()).await?;
    // Without a lock: what is in the log stays as it is, and a quiet night has nothing new.
    let head = audit::head(&engine.db).await?.filter(|(seq, _)| *seq > stored);
    let Some((seq, hash)) = head.map(|(seq, hash)| (seq, ChainHash(hash))) else { return Ok(None) };
    let from = stored.max(seq - MAX_LEAVES);
    let Leaves { leaves, chain } = checkpoints::leaves(&engine.db, from, seq, None).await?;
    if chain != Some(hash) {
        let span = format!("entries {} to {seq} of the audit log do not fit its head", from + 1);
        warn(engine, &format!("{span}: they were changed or deleted"));
    }
    let (now, ledger) =
        (engine.clock.now(), name_of_ledger(engine, last.as_ref().map(|last| last.token.as_str())).await?);
    let moved = if is_complete { moved(engine, known.as_ref(), stored).await? } else { None };
    let (moved, holds) = moved.map_or((None, None), |Move { begins, holds }| (Some(begins), Some(holds)));
    let begins = moved.or(known);
    let checkpoint = Checkpoint {
        iss: MANAGER.into(),
        ledger,
        seq,
        hash,
        from,
        root: (chain == Some(hash)).then(|| ChainHash(merkle::root(&leaves))),
        iat: now.as_secs(),
        prev: last.map(|last| ChainHash::of_text(&last.token)),
        begins: begins.clone(),
    };
    let token = engine.signer.sign_checkpoint(&checkpoint)?;
    let mut tx = LedgerTx::begin(&engine.db).await?;
    if holds.is_some() && holds != Some(legal_holds::ids_in(&mut tx).await?) {
        // A legal hold came meanwhile: the next round looks again.
        return Ok(None);
    }
    checkpoints::add(&mut tx, seq, &token, now).await?;
    tx.commit().await?;
    engine.log_beginning.store(begins.map(Arc::new));
    Ok(Some((seq, hash)))
}

/// Whether the log has its entries from where it begins on. If not, the manager says so and removes none.
async fn is_complete(engine: &Engine, begins: Option<&LogBeginning>) -> Result<bool, StoreError> {
    let first = retention::first_entry(&engine.db).await?.unwrap_or(1);
    let is_complete = first <= begins.map_or(1, |begins| begins.seq + 1);
    if !is_complete {
        warn(engine, &format!("entries of the audit log before {first} are missing, and no checkpoint says so"));
    }
    Ok(is_complete)
}

/// A later beginning, where retention asks for it.
async fn moved(engine: &Engine, begins: Option<&LogBeginning>, stored: i64) -> Result<Option<Move>, StoreError> {
    let found = retention_stage::look(engine, begins, stored).await?;
    Ok(found.unwrap_or_else(|fault| {
        warn(engine, &format!("{fault}, so none is removed"));
        None
    }))
}

/// Which ledger it is: the hash of its first entry, or what the last checkpoint says if that is removed.
async fn name_of_ledger(engine: &Engine, last: Option<&str>) -> Result<ChainHash, StoreError> {
    let first = checkpoints::hash(&engine.db, 1).await?;
    let said = || last.and_then(Checkpoint::peek).map(|last| last.ledger);
    first.or_else(said).ok_or_else(|| StoreError::Corrupt("the audit log has no first entry".into()))
}

/// Says that the log was changed, once in the log and until a restart in `/readyz?verbose`.
fn warn(engine: &Engine, what: &str) {
    let warning = format!(
        "{what}. Compare the log with the checkpoints that were kept elsewhere: riposte audit verify --checkpoint FILE"
    );
    if engine.health.warn("audit log", Some(&warning)) {
        tracing::error!("{warning}");
    }
}

/// What the last checkpoint in the file says, so that a log that was changed while no manager ran is noticed.
async fn last_copy(engine: &Engine, copies: &CheckpointCopies) -> Known {
    let lines = copies.last_lines().await;
    let keys = engine.signer.checkpoint_keys();
    let mut known = lines.iter().rev().filter_map(|line| CheckpointOpener::new(&keys).open(line).ok());
    known.next().map(|last| (last.seq, last.hash))
}
