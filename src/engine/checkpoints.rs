//! Checkpoints of the audit log: each minute in which it grew, the manager signs where its hash chain
//! stands, stores that, and sends it elsewhere (`checkpoint_copies.rs`). A place that cannot be reached
//! delays nothing: the copy comes later, and `/readyz?verbose` says why.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::MANAGER;

use super::Engine;
use super::checkpoint_copies::CheckpointCopies;
use crate::config::CheckpointPlaces;
use crate::domain::checkpoint::{ChainHash, Checkpoint, CheckpointOpener};
use crate::store::StoreError;
use crate::store::ledger::audit::{self, LedgerTx};
use crate::store::ledger::checkpoints;

/// Least time between two checkpoints.
const EVERY: Duration = Duration::from_mins(1);
/// Name of the stage.
const STAGE: &str = "checkpoint";

/// Where the log stood when this manager looked last.
type Known = Option<(i64, ChainHash)>;

/// Runs until the engine stops; the last checkpoint is made then.
pub(super) async fn run(engine: &Arc<Engine>, places: CheckpointPlaces) {
    let stop = engine.tasks.stopping().clone();
    engine.health.expect(STAGE, EVERY, engine.clock.now());
    let mut copies = CheckpointCopies::new(places);
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
    if checkpoints::hash(&engine.db, seq).await? == Some(hash) {
        return Ok(());
    }
    let warning = format!(
        "the audit log is not what it was: its entry {seq} was changed or deleted. Compare it with the checkpoints that were kept \
         elsewhere: riposte audit verify --checkpoint FILE"
    );
    if engine.health.warn("audit log", Some(warning.clone())) {
        tracing::error!("{warning}");
    }
    Ok(())
}

/// Signs and stores where the log stands, if it has grown.
async fn make(engine: &Engine) -> Result<Known, StoreError> {
    let stored = checkpoints::last(&engine.db).await?.map_or(0, |last| last.seq);
    // Without a lock first: most minutes of a quiet night have nothing new.
    if audit::last_seq(&engine.db).await? <= stored {
        return Ok(None);
    }
    let now = engine.clock.now();
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    let (seq, hash) = ledger.head();
    let last = checkpoints::last(&engine.db).await?;
    let first = checkpoints::hash(&engine.db, 1).await?;
    let first = first.ok_or_else(|| StoreError::Corrupt("the audit log has no first entry".into()))?;
    let checkpoint = Checkpoint {
        iss: MANAGER.into(),
        ledger: first,
        seq,
        hash: ChainHash(hash),
        iat: now.as_secs(),
        prev: last.map(|last| ChainHash::of_token(&last.token)),
    };
    let token = engine.signer.sign_checkpoint(&checkpoint)?;
    checkpoints::add(&mut ledger, seq, &token, now).await?;
    ledger.commit().await?;
    Ok(Some((seq, ChainHash(hash))))
}

/// What the last checkpoint in the file says, so that a log that was changed while no manager ran is noticed.
async fn last_copy(engine: &Engine, copies: &CheckpointCopies) -> Known {
    let lines = copies.last_lines().await;
    let keys = engine.signer.checkpoint_keys();
    let mut known = lines.iter().rev().filter_map(|line| CheckpointOpener::new(&keys).open(line).ok());
    known.next().map(|last| (last.seq, last.hash))
}
