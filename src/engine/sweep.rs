//! The sweep: the owner of every deadline but that of a block (`undo.rs`) (promise 11). It takes no input and keeps no state: each round looks
//! at the store, does what is due, and would do the same after a crash.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, capabilities, clocks, own_ids};
use crate::store::writer::SweepStep;
use crate::store::{StoreError, protected};

/// The time between two rounds of tidying up.
const TIDY_PERIOD: Duration = Duration::from_secs(1);
/// The time between two rounds.
const PERIOD: Duration = Duration::from_secs(5);
/// Rounds between two clearances of what is kept for a time only.
const CLEAR_EVERY: u32 = 60;
/// Rounds between two fresh copies of policies, agents and keys: the guarantee behind the swap at each change.
const RELOAD_EVERY: u32 = 12;
/// Rows per transaction, so that no sweep holds up the intake.
const BATCH: i64 = 500;
/// How long answers to requests with an `Idempotency-Key` are kept.
const KEEP_ANSWERS: Duration = Duration::from_hours(24);
/// How far back a threshold may look.
const KEEP_SIGHTINGS: Duration = Duration::from_hours(24);
/// How long expired enrolment tokens stay listed.
const KEEP_TOKENS: Duration = Duration::from_hours(168);

/// What each round does, and how often it comes to it.
const DUTIES: [(&str, Duration); 8] = [
    ("expire", PERIOD),
    ("time_out", PERIOD),
    ("silence", PERIOD),
    ("unconfirmed", PERIOD),
    ("waves", PERIOD),
    ("breakers", PERIOD),
    ("reload", PERIOD.saturating_mul(RELOAD_EVERY)),
    ("clear", PERIOD.saturating_mul(CLEAR_EVERY)),
];

/// Sweeps until the engine stops.
pub async fn run(engine: &Arc<Engine>) {
    let stop = engine.tasks.stopping().clone();
    for (duty, every) in DUTIES {
        engine.health.expect(duty, every, engine.clock.now());
    }
    let mut round: u32 = 0;
    while !stop.is_cancelled() {
        tick(engine, round).await;
        round = round.wrapping_add(1);
        tokio::select! {
            () = engine.clock.sleep(PERIOD) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Has the database tidy up behind the commits, every second, until the engine stops.
pub async fn tidy(engine: &Engine) {
    let stop = engine.tasks.stopping().clone();
    let mut is_named = false;
    while !stop.is_cancelled() {
        if let Err(error) = engine.db.tidy().await {
            tracing::debug!("the database could not tidy up: {error}");
        }
        if !is_named {
            is_named = own_ids::step(engine).await.unwrap_or_else(|error| {
                tracing::debug!("the pipelines' ids of older alerts could not be noted, trying again: {error}");
                false
            });
        }
        tokio::select! {
            () = tokio::time::sleep(TIDY_PERIOD) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// One round. Every duty on its own: one that fails holds up no other.
async fn tick(engine: &Arc<Engine>, round: u32) {
    engine.metrics.writer_load.set(engine.writer.load());
    let heard = engine.hub.take_heard();
    if !heard.is_empty() {
        engine.writer.seen(heard);
    }
    clocks::note(engine);
    capabilities::take_in(engine).await;
    if engine.take_stale() || (round.is_multiple_of(RELOAD_EVERY) && round > 0) {
        duty(engine, "reload", reload(engine)).await;
    }
    duty(engine, "expire", all(engine, SweepStep::Expire)).await;
    duty(engine, "time_out", all(engine, SweepStep::TimeOut)).await;
    duty(engine, "silence", all(engine, SweepStep::Silence)).await;
    duty(engine, "unconfirmed", all(engine, SweepStep::Unconfirmed)).await;
    duty(engine, "waves", all(engine, SweepStep::Waves)).await;
    duty(engine, "breakers", trip(engine)).await;
    if round.is_multiple_of(CLEAR_EVERY) {
        duty(engine, "clear", clear(engine)).await;
    }
}

/// Does one duty, and says how that went.
async fn duty(engine: &Engine, name: &'static str, work: impl Future<Output = Result<(), StoreError>>) {
    let begun = engine.clock.now();
    let fault = work.await.err().map(|error| error.in_words());
    if let Some(error) = &fault {
        tracing::warn!(duty = name, "the sweep could not do its duty ({name}), trying again: {error}");
    }
    engine.health.report(name, (begun, engine.clock.now()), fault);
}

async fn reload(engine: &Engine) -> Result<(), StoreError> {
    let reloaded = engine.reload_all().await;
    let lifted = lift_protected(engine).await;
    let outcome = reloaded.and(lifted);
    // What cannot be read is not read better at the next round.
    if outcome.as_ref().is_err_and(|error| !matches!(error, StoreError::Corrupt(_))) {
        engine.mark_stale();
    }
    outcome
}

/// A response that was decided just before an entry was added slips past both checks; here it ends.
async fn lift_protected(engine: &Engine) -> Result<(), StoreError> {
    let entries = protected::all(&engine.db).await?;
    if !entries.is_empty() {
        engine.lift_protected(entries).await?;
    }
    Ok(())
}

/// Forgets what is kept for a time only.
async fn clear(engine: &Engine) -> Result<(), StoreError> {
    let now = engine.clock.now();
    engine.writer.sweep(SweepStep::ForgetAnswers(now.minus(KEEP_ANSWERS)), BATCH).await?;
    engine.writer.sweep(SweepStep::ForgetSightings(now.minus(KEEP_SIGHTINGS)), BATCH).await?;
    engine.writer.sweep(SweepStep::ForgetTokens(now.minus(KEEP_TOKENS)), BATCH).await?;
    match engine.alert_retention {
        Some(retention) => all(engine, SweepStep::ForgetAlerts(now.minus(retention))).await,
        None => Ok(()),
    }
}

/// A policy that has gone wrong says so before the next alert.
async fn trip(engine: &Engine) -> Result<(), StoreError> {
    let policies = engine.policies.load();
    let with_breaker = policies.policies().iter().filter(|versioned| versioned.policy.guardrails.breaker.is_some());
    let with_breaker: Vec<_> = with_breaker.map(|versioned| Arc::clone(&versioned.policy)).collect();
    if !with_breaker.is_empty() {
        engine.writer.trip(with_breaker).await?;
    }
    Ok(())
}

/// Repeats one step until it finds less than a full batch.
async fn all(engine: &Engine, step: SweepStep) -> Result<(), StoreError> {
    let full = usize::try_from(BATCH).unwrap_or(usize::MAX);
    while engine.writer.sweep(step, BATCH).await? >= full {}
    Ok(())
}
