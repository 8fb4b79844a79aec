//! Readiness: alerts can be committed, the ledger can be read, deadlines are kept, and no other
//! manager has taken over. The check runs only on request, and costs at most one small commit per
//! second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Engine;
use crate::store::{StoreError, policies, probe};

/// Time limit of one check, so that the response arrives within 2 seconds.
const LOOK: Duration = Duration::from_millis(1500);
/// How long what a look found is told again, instead of looking anew.
const KEEP: Duration = Duration::from_secs(1);
/// How long a request that could not be committed counts although a small probe could: the disk may have room for that alone.
const FAILED: Duration = Duration::from_secs(5);
/// How late the owner of a deadline may be, beyond the time it comes in anyway.
const LATE: Duration = Duration::from_secs(30);
/// What has no deadline that anything outside depends on.
const HOUSEKEEPING: [&str; 2] = ["reload", "clear"];

/// What the last look found, and when.
#[derive(Debug, Default)]
pub struct LastLook(tokio::sync::Mutex<Option<(Instant, Arc<Vec<String>>)>>);

/// What cannot be done now, each in a sentence; empty if all is well.
pub async fn problems(engine: &Engine) -> Arc<Vec<String>> {
    // The lock is held during the check: concurrent requests share one result.
    let mut last = engine.readiness.0.lock().await;
    if let Some((at, found)) = &*last
        && at.elapsed() < KEEP
    {
        return Arc::clone(found);
    }
    let found = Arc::new(look(engine).await);
    *last = Some((Instant::now(), Arc::clone(&found)));
    found
}

async fn look(engine: &Engine) -> Vec<String> {
    let (committing, reading, room) = tokio::join!(committing(engine), reading(engine), room(engine));
    let lease = engine.lease.trouble();
    // Both fail when the database is gone, and the lease says best why.
    let reading = reading.filter(|_| committing.is_none() && lease.is_none());
    let lease = lease.map(|why| format!("alerts cannot be committed: {why}"));
    let committing = if lease.is_some() { None } else { committing };
    let committing = committing.or(room);
    lease.into_iter().chain(committing).chain(reading).chain(late(engine)).collect()
}

/// Why alerts cannot be committed, if so.
async fn committing(engine: &Engine) -> Option<String> {
    let progress = engine.writer.progress();
    let begun = Instant::now();
    let why = if progress.is_fresh(KEEP) {
        None
    } else {
        match timeout(LOOK, engine.writer.probe()).await {
            Ok(Ok(())) => None,
            // What fails before any job of a group is begun is known to the writer alone.
            Ok(Err(StoreError::Busy)) => Some(progress.fault().unwrap_or_else(|| StoreError::Busy.to_string())),
            Ok(Err(error)) => Some(error.in_words()),
            // It is at work and has finished something meanwhile.
            Err(_) if progress.since_durable() < begun.elapsed() => None,
            Err(_) => {
                let secs = progress.since_durable().as_secs();
                let fault = progress.fault().map_or_else(String::new, |fault| format!(": {fault}"));
                Some(format!("the writer does not get on, nothing was committed for {secs} s{fault}"))
            }
        }
    };
    let why = why.or_else(|| progress.failed_within(FAILED));
    why.map(|why| format!("alerts cannot be committed: {why}"))
}

/// Why there will soon be no room to commit alerts, if so.
async fn room(engine: &Engine) -> Option<String> {
    let why = match timeout(LOOK, probe::room(&engine.db)).await {
        Ok(Ok(())) => return None,
        Ok(Err(why)) => why,
        Err(_) => "the disk does not answer".to_owned(),
    };
    Some(format!("alerts cannot be committed, or not for long: {why}"))
}

/// Why the ledger cannot be read, if so.
async fn reading(engine: &Engine) -> Option<String> {
    match timeout(LOOK, policies::find(&engine.db, "")).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("the ledger cannot be read: {}", error.in_words())),
        Err(_) => Some("the ledger cannot be read: the database does not answer".to_owned()),
    }
}

/// The owners of deadlines that do not come.
fn late(engine: &Engine) -> impl Iterator<Item = String> + use<> {
    let rounds = engine.health.rounds(engine.clock.now());
    let bound = u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX);
    rounds.into_iter().filter_map(move |(stage, round)| {
        let is_late = round.late_millis > bound && !HOUSEKEEPING.contains(&stage);
        let fault = round.fault.map_or_else(String::new, |fault| format!(": {fault}"));
        is_late.then(|| format!("deadlines are missed: `{stage}` is {} s late{fault}", round.late_millis / 1000))
    })
}
