//! Readiness: alerts can be committed, the ledger can be read, deadlines are kept, and no other
//! manager has taken over. The check runs only on request, and costs at most one small commit per
//! second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Engine;
use super::health::Round;
use crate::store::{StoreError, policies, probe};

/// Time limit of one check, so that the response arrives within 2 seconds.
const LOOK: Duration = Duration::from_millis(1500);
/// How long a result is cached.
const KEEP: Duration = Duration::from_secs(1);
/// How long a failed request counts although a small probe succeeds: the disk may have space for
/// the probe only.
const FAILED: Duration = Duration::from_secs(5);
/// Tolerated delay of a deadline's owner beyond its interval.
const LATE: Duration = Duration::from_secs(30);
/// Stages without externally visible deadlines.
const HOUSEKEEPING: [&str; 2] = ["reload", "clear"];

/// The cached result and its time.
#[derive(Debug, Default)]
pub struct LastLook(tokio::sync::Mutex<Option<(Instant, Arc<Vec<String>>)>>);

/// The current problems, one sentence each; empty if ready.
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
    // Both fail when the database is gone, and the lease's error is the clearest.
    let reading = reading.filter(|_| committing.is_none() && lease.is_none());
    let lease = lease.map(|why| format!("alerts cannot be committed: {why}"));
    let committing = if lease.is_some() { None } else { committing };
    let committing = committing.or(room);
    let late = late(engine.health.rounds(engine.clock.now()));
    lease.into_iter().chain(committing).chain(reading).chain(late).collect()
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
            // A failure before the group starts is known only to the writer.
            Ok(Err(StoreError::Busy)) => Some(progress.fault().unwrap_or_else(|| StoreError::Busy.to_string())),
            Ok(Err(error)) => Some(error.in_words()),
            // The writer is busy, but has committed meanwhile.
            Err(_) if progress.since_durable() < begun.elapsed() => None,
            Err(_) => {
                let secs = progress.since_durable().as_secs();
                let fault = progress.fault().map_or_else(String::new, |fault| format!(": {fault}"));
                Some(format!("the writer is stuck: no commit for {secs} s{fault}"))
            }
        }
    };
    let why = why.or_else(|| progress.failed_within(FAILED));
    why.map(|why| format!("alerts cannot be committed: {why}"))
}

/// Why the disk will soon be too full to commit alerts, if so.
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
fn late(rounds: BTreeMap<&'static str, Round>) -> impl Iterator<Item = String> {
    let bound = u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX);
    rounds.into_iter().filter_map(move |(stage, round)| {
        let is_late = round.late_millis > bound && !HOUSEKEEPING.contains(&stage);
        let fault = round.fault.map_or_else(String::new, |fault| format!(": {fault}"));
        is_late.then(|| format!("deadlines are missed: `{stage}` is {} s late{fault}", round.late_millis / 1000))
    })
}

#[cfg(test)]
mod tests {
    use riposte_protocol::time::Timestamp;

    use super::super::health::Health;
    use super::*;

    #[test]
    fn promise_14_a_deadline_whose_owner_does_not_come_is_not_ready() {
        let (health, at) = (Health::default(), |secs: i64| Timestamp::from_millis(secs * 1000));
        health.expect("expire", Duration::from_secs(5), at(0));
        health.expect("reload", Duration::from_secs(5), at(0));
        let said = |secs| late(health.rounds(at(secs))).collect::<Vec<_>>();
        assert_eq!(said(35), Vec::<String>::new(), "at the bound");
        assert_eq!(said(36), ["deadlines are missed: `expire` is 31 s late"], "housekeeping has no deadline");
        health.report("expire", (at(36), at(36)), Some("no database".into()));
        assert_eq!(said(40), ["deadlines are missed: `expire` is 35 s late: no database"]);
        health.report("expire", (at(41), at(41)), None);
        assert_eq!(said(42), Vec::<String>::new(), "it has come");
    }
}
