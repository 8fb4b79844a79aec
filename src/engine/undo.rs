//! Undo: when a response's time is over, it ends here, and what nobody else holds is lifted. The agent has a timer of
//! its own; whichever acts first, the outcome is the same (promise 5).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use tokio::sync::Notify;

use super::Engine;
use crate::store::ledger::EndReason;
use crate::store::writer::SweepStep;
use crate::store::{StoreError, effects, responses};

/// Responses ended in one transaction.
const BATCH: i64 = 500;
/// The longest wait between two looks at the store: the guarantee behind every hint.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// What the undo stage waits for.
#[derive(Debug)]
pub struct Undo {
    planned: AtomicI64,
    sooner: Notify,
}

impl Default for Undo {
    fn default() -> Self {
        Self { planned: AtomicI64::new(i64::MIN), sooner: Notify::new() }
    }
}

impl Undo {
    /// Something has changed that may be over soon.
    pub fn look_again(&self) {
        self.sooner.notify_one();
    }

    /// Something is over at `at`: look again then, if the next look is planned for later.
    pub fn expect(&self, at: Timestamp) {
        if at.as_millis() < self.planned.load(Ordering::SeqCst) {
            self.sooner.notify_one();
        }
    }
}

/// Ends what is over, until the engine stops.
pub async fn run(engine: &Engine) {
    let stop = engine.tasks.stopping().clone();
    while !stop.is_cancelled() {
        let begun = engine.clock.now();
        let outcome = tick(engine).await;
        let fault = outcome.as_ref().err().map(ToString::to_string);
        engine.health.report("undo", MAX_WAIT, (begun, engine.clock.now()), fault);
        let wait_until = match outcome {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!("cannot end what is over, trying again: {error}");
                engine.clock.now().plus(RETRY)
            }
        };
        engine.undo.planned.store(wait_until.as_millis(), Ordering::SeqCst);
        tokio::select! {
            () = engine.clock.sleep_until(wait_until) => {}
            () = engine.undo.sooner.notified() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Ends everything that is over now; gives when to look again.
async fn tick(engine: &Engine) -> Result<Timestamp, StoreError> {
    // Whoever commits something sooner while this runs finds no plan, and nudges.
    engine.undo.planned.store(i64::MAX, Ordering::SeqCst);
    loop {
        let now = engine.clock.now();
        let due = responses::due(&engine.db, now, BATCH).await?;
        if due.is_empty() {
            break;
        }
        let why = EndReason { word: "elapsed", detail: "its time is over".into(), by: "riposte".into() };
        engine.writer.release(due, why).await?;
    }
    while engine.writer.sweep(SweepStep::RetryReverts, BATCH).await? > 0 {}
    let next = [responses::next_due(&engine.db).await?, effects::next_retry(&engine.db).await?];
    let latest = engine.clock.now().plus(MAX_WAIT);
    Ok(next.into_iter().flatten().min().map_or(latest, |next| next.min(latest)))
}
