//! The sweep: the owner of every deadline except the end of a block (`undo.rs`) (promise 11). It
//! takes no input and keeps no state: each round reads the store and handles what is due, also
//! after a crash. What is due in the ledger is done by one of the managers that share it; each looks
//! after its own memory.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::{
    Engine, account_duties, capabilities, key_rotation, own_ids, presence_news, pull_feeds, rejected, retention,
    seal_watch,
};
use crate::store::StoreError;
use crate::store::configured::{changes, protected};
use crate::store::database::duties::{Claim, Duty};
use crate::store::ledger::{forwarders, late_alerts};
use crate::store::writer::SweepStep;

/// Interval between checkpoints.
const TIDY_PERIOD: Duration = Duration::from_secs(1);
/// Interval between rounds.
const PERIOD: Duration = Duration::from_secs(5);
/// Interval between two deletions of old rows.
const CLEAR_EVERY: Duration = Duration::from_mins(5);
/// Interval between two removals of responses and audit entries.
const REMOVE_EVERY: Duration = Duration::from_hours(1);
/// Rounds between two looks at all sealed rows.
const EXAMINE_EVERY: u32 = 60;
/// Rounds between two refreshes of all caches: the guarantee behind the refresh at each change.
const RELOAD_EVERY: u32 = 12;
/// Rows per transaction, so that the sweep does not delay the intake.
const BATCH: i64 = 500;
/// Retention of responses to requests with an `Idempotency-Key`.
const KEEP_ANSWERS: Duration = Duration::from_hours(24);
/// Longest window of a threshold.
const KEEP_SIGHTINGS: Duration = Duration::from_hours(24);
/// How long a manager that is away can still follow what was changed, instead of reading everything.
const KEEP_CHANGES: Duration = Duration::from_hours(1);
/// A forwarder reports each minute.
const FORWARDER_SILENT: Duration = Duration::from_mins(5);
/// Without another late alert for so long, a pipeline has caught up.
const LATE_QUIET: Duration = Duration::from_secs(30);
/// The same after a start: the longest wait of a forwarder between two tries comes before.
const LATE_AFTER_START: Duration = Duration::from_mins(1);
/// How long expired enrolment tokens stay listed, and expired sessions stored.
const KEEP_TOKENS: Duration = Duration::from_hours(168);

/// The duties of a round, with their intervals.
const DUTIES: [(&str, Duration); 19] = [
    ("expire", PERIOD),
    ("time_out", PERIOD),
    ("silence", PERIOD),
    ("unconfirmed", PERIOD),
    ("waves", PERIOD),
    ("breakers", PERIOD),
    ("logins", PERIOD),
    ("denials", PERIOD),
    ("late_alerts", PERIOD),
    ("fetches", PERIOD),
    ("feeds", PERIOD),
    ("rotation", PERIOD),
    ("presence", PERIOD),
    ("forwarders", PERIOD),
    ("seals", PERIOD),
    ("keys", PERIOD.saturating_mul(RELOAD_EVERY)),
    ("reload", PERIOD.saturating_mul(RELOAD_EVERY)),
    ("clear", CLEAR_EVERY),
    ("retention", REMOVE_EVERY),
];

/// Those that one of the managers does for all.
pub(super) const SHARED: [&str; 14] = [
    "expire",
    "time_out",
    "silence",
    "unconfirmed",
    "waves",
    "breakers",
    "rotation",
    "presence",
    "forwarders",
    "late_alerts",
    "feeds",
    "seals",
    "clear",
    "retention",
];

/// Runs until the engine stops.
pub async fn run(engine: &Arc<Engine>) {
    let stop = engine.tasks.stopping().clone();
    for (duty, every) in DUTIES {
        engine.health.expect(duty, every, engine.clock.now());
    }
    let mut round: u32 = 0;
    let (mut clear_at, mut remove_at) = (engine.clock.now(), engine.clock.now());
    while !stop.is_cancelled() {
        own(engine, round).await;
        let duties = engine.duties.load_full();
        if let Some(claim) = duties.own.get(&Duty::Sweep) {
            shared(engine, round, claim).await;
            if is_due(engine, clear_at, CLEAR_EVERY) {
                clear_at = engine.clock.now().plus(CLEAR_EVERY);
                duty(engine, "clear", clear(engine, claim)).await;
            }
            if is_due(engine, remove_at, REMOVE_EVERY) {
                remove_at = engine.clock.now().plus(REMOVE_EVERY);
                duty(engine, "retention", retention::step(engine)).await;
            }
        } else if duties.elsewhere.contains(&Duty::Sweep) {
            engine.presence_news.forget().await;
            let now = engine.clock.now();
            for name in SHARED {
                engine.health.report(name, (now, now), None);
            }
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = engine.clock.sleep(PERIOD) => {}
            () = stop.cancelled() => {}
        }
    }
    // First what needs the writer, which ends soon after the last connection.
    duty(engine, "fetches", pull_feeds::watch::write_fetches(engine)).await;
    duty(engine, "keys", account_duties::look_after_keys(engine)).await;
    duty(engine, "logins", account_duties::record_failed_logins(engine, true)).await;
    duty(engine, "denials", account_duties::record_denials(engine, true)).await;
}

/// Whether a duty is due at this time; a clock that was set back must not put it off.
fn is_due(engine: &Engine, at: Timestamp, every: Duration) -> bool {
    let now = engine.clock.now();
    now >= at || at > now.plus(every)
}

/// Checkpoints the database every second until the engine stops.
pub async fn tidy(engine: &Engine) {
    let stop = engine.tasks.stopping().clone();
    let mut is_named = false;
    while !stop.is_cancelled() {
        if let Err(error) = engine.db.tidy().await {
            tracing::debug!("the database could not be checkpointed: {error}");
        }
        if !is_named {
            is_named = own_ids::step(engine).await.unwrap_or_else(|error| {
                tracing::debug!("the pipelines' ids of older alerts could not be stored, retrying: {error}");
                false
            });
        }
        tokio::select! {
            () = tokio::time::sleep(TIDY_PERIOD) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// One round of what each manager looks after. Each duty is independent: a failure does not stop the others.
async fn own(engine: &Arc<Engine>, round: u32) {
    engine.metrics.writer_load.set(engine.writer.load());
    let heard = engine.hub.take_heard();
    if !heard.is_empty() {
        engine.writer.seen(heard);
    }
    engine.clocks.note(&engine.fleet.load(), &engine.writer, engine.clock.now());
    capabilities::take_in(engine).await;
    if engine.take_stale() || (round.is_multiple_of(RELOAD_EVERY) && round > 0) {
        duty(engine, "reload", reload(engine)).await;
    }
    duty(engine, "logins", account_duties::record_failed_logins(engine, false)).await;
    duty(engine, "denials", account_duties::record_denials(engine, false)).await;
    duty(engine, "fetches", pull_feeds::watch::write_fetches(engine)).await;
    if round.is_multiple_of(RELOAD_EVERY) {
        duty(engine, "keys", account_duties::look_after_keys(engine)).await;
    }
}

/// One round of what one manager does for all.
async fn shared(engine: &Arc<Engine>, round: u32, claim: &Claim) {
    for (name, step) in [
        ("expire", SweepStep::Expire),
        ("time_out", SweepStep::TimeOut),
        ("silence", SweepStep::Silence),
        ("unconfirmed", SweepStep::Unconfirmed),
        ("waves", SweepStep::Waves),
    ] {
        duty(engine, name, all(engine, step, claim)).await;
    }
    duty(engine, "breakers", trip(engine)).await;
    duty(engine, "rotation", key_rotation::step(engine)).await;
    duty(engine, "presence", presence_news::tell(engine)).await;
    duty(engine, "forwarders", find_silent_forwarders(engine, claim)).await;
    duty(engine, "late_alerts", record_late_alerts(engine, claim)).await;
    duty(engine, "feeds", pull_feeds::watch::look(engine)).await;
    duty(engine, "seals", look_at_seals(engine, round)).await;
}

/// Tells of forwarders that do not report any more.
async fn find_silent_forwarders(engine: &Engine, claim: &Claim) -> Result<(), StoreError> {
    let now = engine.clock.now();
    // While the manager was away, no forwarder could report.
    if now < engine.started_at.plus(FORWARDER_SILENT) {
        return Ok(());
    }
    forwarders::find_silent(&engine.db, now.minus(FORWARDER_SILENT), claim.fence.as_ref(), now).await
}

/// Records alerts that came too late, once their pipeline has caught up: an outage is one entry.
async fn record_late_alerts(engine: &Engine, claim: &Claim) -> Result<(), StoreError> {
    let now = engine.clock.now();
    // While the manager was away, a pipeline could not go on: it tries again at most half a minute later.
    if now >= engine.started_at && now < engine.started_at.plus(LATE_AFTER_START) {
        return Ok(());
    }
    late_alerts::record_due(&engine.db, LATE_QUIET, engine.rules.max_age, claim.fence.as_ref(), now).await
}

/// Looks at all sealed rows now and then, and records what was found there or where rows were read.
async fn look_at_seals(engine: &Engine, round: u32) -> Result<(), StoreError> {
    if round.is_multiple_of(EXAMINE_EVERY) && round > 0 {
        seal_watch::look(engine).await?;
    }
    seal_watch::record(engine).await
}

/// Runs one duty and reports its outcome.
async fn duty(engine: &Engine, name: &'static str, work: impl Future<Output = Result<(), StoreError>>) {
    let begun = engine.clock.now();
    let fault = work.await.err().map(|error| error.in_words());
    if let Some(error) = &fault {
        tracing::warn!(duty = name, "the sweep's duty {name} failed, retrying: {error}");
    }
    engine.health.report(name, (begun, engine.clock.now()), fault);
}

async fn reload(engine: &Engine) -> Result<(), StoreError> {
    let stands = changes::stands_at(&engine.db).await;
    let reloaded = engine.refresh_all().await;
    if let (Ok(stands), Ok(())) = (&stands, &reloaded) {
        engine.epochs.reach(stands.epoch);
    }
    let reloaded = stands.map(drop).and(reloaded);
    let lifted = lift_protected(engine).await;
    let outcome = reloaded.and(lifted);
    // Unreadable data will not be readable in the next round.
    if outcome.as_ref().is_err_and(|error| !error.is_corruption()) {
        engine.mark_stale();
    }
    outcome
}

/// Ends responses that were decided just before an entry was added and passed both checks.
async fn lift_protected(engine: &Engine) -> Result<(), StoreError> {
    let entries = protected::all(&engine.db).await?;
    if !entries.is_empty() {
        engine.lift_protected(entries).await?;
    }
    Ok(())
}

/// Deletes rows whose retention has ended.
async fn clear(engine: &Engine, claim: &Claim) -> Result<(), StoreError> {
    let now = engine.clock.now();
    engine.writer.sweep(SweepStep::ForgetAnswers(now.minus(KEEP_ANSWERS)), BATCH, claim.fence.clone()).await?;
    engine.writer.sweep(SweepStep::ForgetSightings(now.minus(KEEP_SIGHTINGS)), BATCH, claim.fence.clone()).await?;
    engine.writer.sweep(SweepStep::ForgetTokens(now.minus(KEEP_TOKENS)), BATCH, claim.fence.clone()).await?;
    engine.writer.sweep(SweepStep::ForgetSessions(now.minus(KEEP_TOKENS)), BATCH, claim.fence.clone()).await?;
    engine.writer.sweep(SweepStep::ForgetChanges(now.minus(KEEP_CHANGES)), BATCH, claim.fence.clone()).await?;
    all(engine, SweepStep::ForgetRejected(rejected::cutoff(now)), claim).await?;
    if let Some(age) = engine.retention.events {
        all(engine, SweepStep::ForgetEvents(now.minus(age)), claim).await?;
    }
    retention::clear_alerts(engine).await
}

/// Opens the breakers of failing policies before the next alert.
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
async fn all(engine: &Engine, step: SweepStep, claim: &Claim) -> Result<(), StoreError> {
    let full = usize::try_from(BATCH).unwrap_or(usize::MAX);
    while engine.writer.sweep(step, BATCH, claim.fence.clone()).await? >= full {}
    Ok(())
}
