//! Whether the manager can do its work now: alerts can be committed, the ledger can be read, deadlines are kept, and no other
//! manager has taken over. Nothing is looked at until a request asks or a commit fails, and at most one small commit a second
//! then (`last_look.rs`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Engine;
use super::last_look::KEEP;
use crate::store::StoreError;
use crate::store::configured::policies;
use crate::store::database::probe;
use crate::views::health::Round;

/// Time limit of one check, so that the response arrives within 2 seconds.
const LOOK: Duration = Duration::from_millis(1500);
/// How long a failed request counts although a small probe succeeds: the disk may have space for
/// the probe only.
const FAILED: Duration = Duration::from_secs(5);
/// Tolerated delay of a deadline's owner beyond its interval.
const LATE: Duration = Duration::from_secs(30);
/// How often the manager looks by itself whether something is wrong; without a write as long as nothing seems to be.
const WATCH: Duration = Duration::from_secs(2);
/// What has no deadline that anything outside depends on.
const HOUSEKEEPING: [&str; 3] = ["reload", "clear", "checkpoint"];

/// Looks by itself as long as something seems to be wrong, so that the log says it also without a request.
pub async fn watch(engine: &Engine) {
    let stop = engine.tasks.stopping().clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            () = stop.cancelled() => return,
        }
        if seems_wrong(engine).await {
            problems(engine).await;
        }
    }
}

/// Whether a look is due: what can be known without a write says that something is wrong, or the last look did.
async fn seems_wrong(engine: &Engine) -> bool {
    let was_wrong = engine.readiness.last().await.is_some_and(|found| !found.is_empty());
    let progress = engine.writer.progress();
    was_wrong
        || progress.fault().is_some()
        || progress.failed_within(FAILED).is_some()
        || engine.lease.trouble().is_some()
        || !late(engine.health.rounds(engine.clock.now()), false).is_empty()
}

/// What cannot be done now, each in a sentence; empty if all is well. The log has one line for each change.
pub async fn problems(engine: &Engine) -> Arc<Vec<String>> {
    engine
        .readiness
        .fresh(async |last| {
            let found = look(engine).await;
            match (last.is_none_or(|last| last.is_empty()), found.is_empty()) {
                (true, false) => tracing::warn!("not ready: {}", found.join("; ")),
                (false, true) => tracing::info!("ready again"),
                _ => {}
            }
            found
        })
        .await
}

async fn look(engine: &Engine) -> Vec<String> {
    let (committing, reading, room) = tokio::join!(committing(engine), reading(engine), room(engine));
    let lease = engine.lease.trouble().or_else(|| {
        let is_lost = !engine.lease.is_held();
        is_lost.then(|| "this manager's lease has ended, and it has no new one yet".to_owned())
    });
    // Both fail when the database is gone, and the lease's error is the clearest.
    let reading = reading.filter(|_| committing.is_none() && lease.is_none());
    let lease = lease.map(|why| format!("alerts cannot be committed: {why}"));
    let committing = committing.or(room).or_else(|| has_failed(engine)).filter(|_| lease.is_none());
    let mut problems: Vec<String> = lease.into_iter().chain(committing).chain(reading).collect();
    let is_explained = !problems.is_empty();
    problems.extend(late(engine.health.rounds(engine.clock.now()), is_explained));
    problems
}

/// What could not be committed of late, although a small commit can.
fn has_failed(engine: &Engine) -> Option<String> {
    let (ago, why) = engine.writer.progress().failed_within(FAILED)?;
    Some(format!("alerts could not be committed {} s ago: {why}", ago.as_secs()))
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

/// The owners of deadlines that do not come: one sentence for each cause. Where the ledger cannot be used, which is said
/// already, that is the cause of all.
fn late(rounds: BTreeMap<&'static str, Round>, is_explained: bool) -> Vec<String> {
    let bound = u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX);
    let late = rounds.into_iter().filter(|(stage, round)| round.late_millis > bound && !HOUSEKEEPING.contains(stage));
    let mut by_cause: BTreeMap<Option<String>, String> = BTreeMap::new();
    for (stage, round) in late {
        let cause = round.fault.filter(|_| !is_explained);
        let said = by_cause.entry(cause).or_default();
        let comma = if said.is_empty() { "" } else { ", " };
        let _ = write!(said, "{comma}`{stage}` is {} s late", round.late_millis / 1000);
    }
    let sentence = |(cause, stages): (Option<String>, String)| match cause {
        Some(fault) => format!("deadlines are missed: {stages}: {fault}"),
        None if is_explained => format!("deadlines are missed for the same cause: {stages}"),
        None => format!("deadlines are missed: {stages}"),
    };
    by_cause.into_iter().map(sentence).collect()
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
        let said = |secs| late(health.rounds(at(secs)), false);
        assert_eq!(said(35), Vec::<String>::new(), "at the bound");
        assert_eq!(said(36), ["deadlines are missed: `expire` is 31 s late"], "housekeeping has no deadline");
        health.report("expire", (at(36), at(36)), Some("no database".into()));
        assert_eq!(said(40), ["deadlines are missed: `expire` is 35 s late: no database"]);
        health.expect("silence", Duration::from_secs(5), at(0));
        health.report("silence", (at(36), at(36)), Some("no database".into()));
        assert_eq!(said(40), ["deadlines are missed: `expire` is 35 s late, `silence` is 35 s late: no database"]);
        assert_eq!(
            late(health.rounds(at(40)), true),
            ["deadlines are missed for the same cause: `expire` is 35 s late, `silence` is 35 s late"]
        );
        health.report("silence", (at(41), at(41)), None);
        health.report("expire", (at(41), at(41)), None);
        assert_eq!(said(42), Vec::<String>::new(), "it has come");
    }
}
