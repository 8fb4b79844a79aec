//! The writer's task: which jobs make a group, and its transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::group;
use super::job::{Group, Job, Kind};
use super::progress::CommitProgress;
use crate::clock::Clock;
use crate::store::database::{Db, StoreError};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::story::Story;

/// Wakes the connections of agents. Only a hint; the store is the truth.
pub type Wake = Arc<dyn Fn(&[Uuid]) + Send + Sync>;

/// Maximum number of alerts per transaction; beyond it the flush no longer dominates the cost.
const MAX_ALERTS: usize = 4000;
/// After this time, reports of agents share the next transaction: at the rate of alerts of a busy manager there is one.
const SHARES_AFTER: Duration = Duration::from_millis(4);
/// After this time, reports of agents get a transaction of their own.
const PATIENT_DELAY: Duration = Duration::from_millis(16);
/// Maximum number of delayed jobs.
const MAX_PATIENT: usize = 512;
/// Maximum number of jobs per transaction from each queue.
const MAX_JOBS: usize = 2048;

/// The receiving ends of the queues.
pub(super) struct Waiting {
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) intakes: mpsc::Receiver<Job>,
}

impl Waiting {
    /// The next job; `None` when no more can come.
    async fn recv(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            Some(job) = self.jobs.recv() => Some(job),
            Some(job) = self.intakes.recv() => Some(job),
            else => None,
        }
    }

    fn try_recv(&mut self) -> Option<Job> {
        self.jobs.try_recv().or_else(|_| self.intakes.try_recv()).ok()
    }

    fn is_closed(&self) -> bool {
        self.jobs.is_closed() && self.intakes.is_closed()
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.intakes.is_empty()
    }
}

/// Dependencies of the writer task.
pub(super) struct Surroundings {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) wake: Wake,
    pub(super) progress: Arc<CommitProgress>,
}

/// Commits group after group until `stop`, and then what still waits.
pub(super) async fn run(surroundings: Surroundings, mut waiting: Waiting, stop: CancellationToken) {
    let mut group = Vec::with_capacity(64);
    let (mut patient, mut patient_since) = (Vec::new(), None::<Instant>);
    loop {
        // Stop only when the queues are empty: every accepted job gets a reply.
        let first = tokio::select! {
            biased;
            job = waiting.recv() => job,
            () = until(patient_since.map(|since| since + PATIENT_DELAY)) => None,
            () = stop.cancelled() => match waiting.try_recv() {
                Some(job) => Some(job),
                None if patient.is_empty() => return,
                None => None,
            },
        };
        let mut alerts = 0;
        let mut put = |job: Job| {
            if job.can_wait() {
                patient_since.get_or_insert_with(Instant::now);
                patient.push(job);
            } else {
                alerts += job.alerts();
                group.push(job);
            }
            alerts < MAX_ALERTS
        };
        let has_room = first.is_none_or(&mut put);
        for job in (0..MAX_JOBS).map_while(|_| waiting.jobs.try_recv().ok()) {
            put(job);
        }
        let mut intakes = (0..MAX_JOBS).map_while(|_| waiting.intakes.try_recv().ok());
        while has_room && intakes.next().is_some_and(&mut put) {}
        let delay = if group.is_empty() { PATIENT_DELAY } else { SHARES_AFTER };
        let waited = patient_since.is_some_and(|since| since.elapsed() >= delay);
        // Once all senders are dropped, no further job can arrive.
        let is_last = stop.is_cancelled() || waiting.is_closed();
        // An agent's report is newer than its results that are still delayed.
        let has_report = group.iter().any(|job| job.is(Kind::Report));
        if waited || has_report || patient.len() >= MAX_PATIENT || is_last {
            group.append(&mut patient);
            patient_since = None;
        }
        if group.is_empty() {
            if is_last && waiting.is_empty() {
                return;
            }
            continue;
        }
        if !commit(&surroundings, std::mem::take(&mut group)).await {
            // Each that waited behind this one would wait as long for a connection in its turn. They are told why now: pipelines,
            // agents and deadlines all try again.
            patient.clear();
            patient_since = None;
            let most = waiting.jobs.max_capacity() + waiting.intakes.max_capacity();
            let _ = (0..most).map_while(|_| waiting.try_recv()).count();
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Does the jobs of a group in one transaction. Returns whether the database gave a connection for it.
async fn commit(Surroundings { db, clock, wake, progress }: &Surroundings, group: Vec<Job>) -> bool {
    let (mut replies, mut agents) = (Vec::with_capacity(group.len()), Vec::new());
    let is_probe = group.iter().all(|job| job.is(Kind::Probe));
    let outcome = async {
        let mut ledger = LedgerTx::begin_without_head(db).await?;
        let seen = Group { ledger: &mut ledger, now: clock.now(), wake: &mut agents, replies: &mut replies };
        group::work(seen, group).await?;
        Ok(ledger.commit_untold().await?.story)
    };
    let (mut story, outcome) = match outcome.await {
        Ok(story) => (Some(story), Ok(())),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(cause, "a group of changes was not committed: {error}");
            // A request in a group has made sure that nothing is there twice; it is not told of this, but tries again.
            (None, Err(Arc::new(if matches!(error, StoreError::Duplicate) { StoreError::Busy } else { error })))
        }
    };
    progress.note(outcome.as_ref().err(), is_probe);
    // Also if it failed: a commit whose answer was lost may have happened, and a nudge is only a hint.
    if !agents.is_empty() {
        // Before waking the agents, so that log lines keep their order.
        story.take().into_iter().for_each(Story::tell);
        agents.sort_unstable();
        agents.dedup();
        wake(&agents);
    }
    for reply in replies {
        reply(&outcome);
    }
    story.into_iter().for_each(Story::tell);
    !outcome.is_err_and(|error| error.is_without_connection())
}
