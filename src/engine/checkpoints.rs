//! Checkpoints of the audit log: each minute in which it grew, the manager signs where its hash chain
//! stands, stores that, and sends it elsewhere (`checkpoint_copies.rs`). A place that cannot be reached
//! delays nothing: the copy comes later, and `/readyz?verbose` says why.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::MANAGER;

use super::Engine;
use super::checkpoint_copies::CheckpointCopies;
use super::checkpoint_webhook::CheckpointWebhook;
use crate::config::CheckpointPlaces;
use crate::domain::checkpoint::{ChainHash, Checkpoint, CheckpointOpener};
use crate::domain::merkle;
use crate::store::StoreError;
use crate::store::ledger::audit::{self, LedgerTx};
use crate::store::ledger::checkpoints::{self, Leaves};

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
    warn(engine, &format!("the audit log is not what it was: its entry {seq} was changed or deleted"));
    Ok(())
}

/// Signs and stores where the log stands, if it has grown.
async fn make(engine: &Engine) -> Result<Known, StoreError> {
    let last = checkpoints::last(&engine.db).await?;
    let stored = last.as_ref().map_or(0, |last| last.seq);
    // Without a lock: what is in the log stays as it is, and a quiet night has nothing new.
    let head = audit::head(&engine.db).await?.filter(|(seq, _)| *seq > stored);
    let Some((seq, hash)) = head.map(|(seq, hash)| (seq, ChainHash(hash))) else { return Ok(None) };
    let from = stored.max(seq - MAX_LEAVES);
    let Leaves { leaves, chain } = checkpoints::leaves(&engine.db, from, seq).await?;
    if chain != Some(hash) {
        warn(
            engine,
            &format!(
                "entries {} to {seq} of the audit log do not fit its head: they were changed or deleted",
                from + 1
            ),
        );
    }
    let first = checkpoints::hash(&engine.db, 1).await?;
    let first = first.ok_or_else(|| StoreError::Corrupt("the audit log has no first entry".into()))?;
    let now = engine.clock.now();
    let checkpoint = Checkpoint {
        iss: MANAGER.into(),
        ledger: first,
        seq,
        hash,
        from,
        root: (chain == Some(hash)).then(|| ChainHash(merkle::root(&leaves))),
        iat: now.as_secs(),
        prev: last.map(|last| ChainHash::of_text(&last.token)),
    };
    let token = engine.signer.sign_checkpoint(&checkpoint)?;
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    checkpoints::add(&mut ledger, seq, &token, now).await?;
    ledger.commit().await?;
    Ok(Some((seq, hash)))
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
