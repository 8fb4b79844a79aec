//! The group commit: callers send jobs to one writer, which writes all waiting jobs in one
//! transaction and replies to each when it is durable. One disk flush serves the whole group, and
//! on SQLite no caller waits for a lock.
//!
//! Every queue here is bounded; a full one returns [`StoreError::Busy`].

mod group;
mod progress;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::policy::Policy;
use crate::domain::response::Hold;
use crate::domain::response::NewResponse;
use crate::store::database::{Db, Result, StoreError};
use crate::store::ledger::alerts::NewAlert;
use crate::store::ledger::approvals::{ApprovalOutcome, Decision};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::converge::AgentNews;
use crate::store::ledger::holds::EndReason;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::story::Story;

pub use progress::CommitProgress;

/// Capacity of the job queue, without new alerts.
const QUEUE: usize = 4096;
/// Capacity of the queue of requests with new alerts.
const INTAKES: usize = 1024;
/// How long jobs of agents and people wait for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum number of alerts per transaction; beyond it the flush no longer dominates the cost.
const MAX_ALERTS: usize = 4000;
/// How long reports of agents may be delayed to share a transaction.
const PATIENT_DELAY: Duration = Duration::from_millis(8);
/// Maximum number of delayed jobs.
const MAX_PATIENT: usize = 512;
/// Maximum number of jobs per transaction from each queue.
const MAX_JOBS: usize = 2048;

/// Alerts of one request, decided.
#[derive(Debug)]
pub struct IntakeJob {
    /// Alerts with the responses to them.
    pub alerts: Vec<(NewAlert, Vec<NewResponse>)>,
    /// Memory permit, held until the alerts are committed, even if the request is cancelled.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Set if the request is idempotent.
    pub once: Option<Once>,
}

/// Outcome of an [`IntakeJob`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Whether each alert is new, by position in the request.
    pub new: Vec<bool>,
    /// Number of duplicates that differ from the stored alert.
    #[serde(default)]
    pub conflicting: usize,
    /// Responses to the new alerts.
    pub responses: Vec<Uuid>,
    /// Number of these responses per initial state.
    #[serde(skip)]
    pub states: BTreeMap<String, u64>,
}

/// Outcome of a request with an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotentOutcome<T> {
    /// Carried out, now or by the first request.
    Done(T),
    /// The key was used for another request.
    KeyReused,
}

type Reply<T> = oneshot::Sender<std::result::Result<T, Arc<StoreError>>>;

enum Job {
    Intake { intake: IntakeJob, reply: Reply<IdempotentOutcome<Accepted>> },
    Respond { response: Box<NewResponse>, once: Option<Once>, reply: Reply<IdempotentOutcome<Uuid>> },
    Release { responses: Vec<Uuid>, why: EndReason, reply: Reply<()> },
    Decide { response: Uuid, principal: String, decision: Decision, reason: String, reply: Reply<ApprovalOutcome> },
    ReleaseHolds { holds: Vec<Hold>, why: EndReason, reply: Reply<()> },
    Delivered { commands: Vec<Uuid>, lease_until: Timestamp },
    Acknowledge { agent: Uuid, commands: Vec<Uuid>, reply: Reply<()> },
    Settle { agent: Uuid, results: Vec<CommandResult>, reply: Reply<()> },
    Converge { agent: Uuid, news: AgentNews, reply: Reply<()> },
    Withdraw { commands: BTreeMap<Uuid, String> },
    Seen { agents: Vec<(Uuid, Timestamp)> },
    Skewed { agents: Vec<(Uuid, i64)> },
    Trip { policies: Vec<Arc<Policy>>, reply: Reply<usize> },
    Sweep { step: SweepStep, limit: i64, reply: Reply<usize> },
    Probe { reply: Reply<()> },
}

/// A step of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// Expire commands that were not acknowledged in time.
    Expire,
    /// Time out commands that were acknowledged but got no result.
    TimeOut,
    /// Retry failed reverts.
    RetryReverts,
    /// End responses whose approval deadline has passed.
    Silence,
    /// Undo responses that were not confirmed in time.
    Unconfirmed,
    /// Send the waves that are due.
    Waves,
    /// Delete sightings older than an instant.
    ForgetSightings(Timestamp),
    /// Delete alerts received before an instant.
    ForgetAlerts(Timestamp),
    /// Delete idempotent responses stored before an instant.
    ForgetAnswers(Timestamp),
    /// Delete enrolment tokens that expired before an instant.
    ForgetTokens(Timestamp),
}

impl Job {
    /// Whether the job may be delayed. Reports of agents are not urgent, and urgent jobs commit
    /// faster in a smaller group.
    const fn can_wait(&self) -> bool {
        matches!(
            self,
            Self::Delivered { .. }
                | Self::Acknowledge { .. }
                | Self::Settle { .. }
                | Self::Seen { .. }
                | Self::Skewed { .. }
        )
    }
}

/// Handle of the writer; cheap to clone. New alerts have a queue of their own, and each transaction
/// takes the other queue first: an alert storm does not delay results, reverts or requests of
/// people.
#[derive(Clone, Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    intakes: mpsc::Sender<Job>,
    progress: Arc<CommitProgress>,
}

/// Wakes the connections of agents. Only a hint; the store is the truth.
pub type Wake = Arc<dyn Fn(&[Uuid]) + Send + Sync>;

impl Writer {
    /// Returns a writer and the task that runs it until `stop`; the task then finishes the waiting
    /// jobs.
    pub fn start(db: Db, clock: Clock, wake: Wake, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, waiting_jobs) = mpsc::channel(QUEUE);
        let (intakes, waiting_intakes) = mpsc::channel(INTAKES);
        let waiting = Waiting { jobs: waiting_jobs, intakes: waiting_intakes };
        let progress = Arc::<CommitProgress>::default();
        let sees = Arc::clone(&progress);
        (Self { jobs, intakes, progress }, run(Surroundings { db, clock, wake, progress: sees }, waiting, stop))
    }

    /// Waits for a place in the queue instead of failing: ten thousand agents may answer at once,
    /// and retry what is refused. Their jobs must not cause refusals of requests or deadlines.
    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T> {
        let permit = tokio::time::timeout(PATIENCE, self.jobs.reserve()).await;
        let permit = permit.ok().and_then(std::result::Result::ok).ok_or(StoreError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let asked = std::time::Instant::now();
        permit.send(job(reply));
        self.answered(answer, asked).await
    }

    /// What a job came to that was handed over at `asked`. One that was given up with its group hears why.
    async fn answered<T>(
        &self,
        answer: oneshot::Receiver<std::result::Result<T, Arc<StoreError>>>,
        asked: std::time::Instant,
    ) -> Result<T> {
        match answer.await {
            // An error that is shared with the others of the group was logged once, where it happened.
            Ok(answer) => answer.map_err(StoreError::shared),
            Err(_) if self.jobs.is_closed() => Err(StoreError::Busy),
            Err(_) => Err(self.progress.fault_since(asked).await),
        }
    }

    /// Commits alerts with their responses; returns when they are durable.
    pub async fn intake(&self, intake: IntakeJob) -> Result<IdempotentOutcome<Accepted>> {
        let (reply, answer) = oneshot::channel();
        let asked = std::time::Instant::now();
        self.intakes.try_send(Job::Intake { intake, reply }).map_err(|_| StoreError::Busy)?;
        self.answered(answer, asked).await
    }

    /// Commits a manual response. Returns its id, or that of an earlier request with the same key.
    pub async fn respond(&self, response: NewResponse, once: Option<Once>) -> Result<IdempotentOutcome<Uuid>> {
        self.ask(|reply| Job::Respond { response: Box::new(response), once, reply }).await
    }

    /// Ends responses.
    pub async fn release(&self, responses: Vec<Uuid>, why: EndReason) -> Result<()> {
        self.ask(|reply| Job::Release { responses, why, reply }).await
    }

    /// Records a person's decision on a response.
    pub async fn decide(
        &self,
        response: Uuid,
        principal: String,
        decision: Decision,
        reason: String,
    ) -> Result<ApprovalOutcome> {
        self.ask(|reply| Job::Decide { response, principal, decision, reason, reply }).await
    }

    /// Ends single holds.
    pub async fn release_holds(&self, holds: Vec<Hold>, why: EndReason) -> Result<()> {
        self.ask(|reply| Job::ReleaseHolds { holds, why, reply }).await
    }

    /// Records deliveries. May be lost: the commands are then sent again, which agents tolerate.
    pub fn delivered(&self, commands: Vec<Uuid>, lease_until: Timestamp) {
        let _ = self.jobs.try_send(Job::Delivered { commands, lease_until });
    }

    /// Commits an agent's acknowledgement.
    pub async fn acknowledge(&self, agent: Uuid, commands: Vec<Uuid>) -> Result<()> {
        self.ask(|reply| Job::Acknowledge { agent, commands, reply }).await
    }

    /// Commits an agent's results; only then may they be acknowledged (promise 9).
    pub async fn settle(&self, agent: Uuid, results: Vec<CommandResult>) -> Result<()> {
        self.ask(|reply| Job::Settle { agent, results, reply }).await
    }

    /// Settles the differences between the ledger and an agent's report.
    pub async fn converge(&self, agent: Uuid, news: AgentNews) -> Result<()> {
        self.ask(|reply| Job::Converge { agent, news, reply }).await
    }

    /// Ends applies that must no longer be delivered, each for a reason. May be lost: the next
    /// delivery finds them again.
    pub fn withdraw(&self, commands: BTreeMap<Uuid, String>) {
        let _ = self.jobs.try_send(Job::Withdraw { commands });
    }

    /// Records the last contact of agents; may be lost.
    pub fn seen(&self, agents: Vec<(Uuid, Timestamp)>) {
        let _ = self.jobs.try_send(Job::Seen { agents });
    }

    /// Records the clock skew of agents, in seconds; may be lost, and is reported again on connect.
    pub fn skewed(&self, agents: Vec<(Uuid, i64)>) {
        let _ = self.jobs.try_send(Job::Skewed { agents });
    }

    /// Runs one step of the sweep on at most `limit` rows; returns the number of rows found.
    pub async fn sweep(&self, step: SweepStep, limit: i64) -> Result<usize> {
        self.ask(|reply| Job::Sweep { step, limit, reply }).await
    }

    /// Opens the breakers of policies whose ratio is reached; returns the number of open breakers.
    pub async fn trip(&self, policies: Vec<Arc<Policy>>) -> Result<usize> {
        self.ask(|reply| Job::Trip { policies, reply }).await
    }

    /// Commits a durable test write.
    pub async fn probe(&self) -> Result<()> {
        self.ask(|reply| Job::Probe { reply }).await
    }

    /// Recent success and failure of commits.
    pub fn progress(&self) -> &CommitProgress {
        &self.progress
    }

    /// Fill level of the fuller queue, from 0 to 1.
    pub fn load(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let full = |queue: &mpsc::Sender<Job>| 1.0 - queue.capacity() as f64 / queue.max_capacity() as f64;
        full(&self.jobs).max(full(&self.intakes))
    }
}

/// The receiving ends of the queues.
struct Waiting {
    jobs: mpsc::Receiver<Job>,
    intakes: mpsc::Receiver<Job>,
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
struct Surroundings {
    db: Db,
    clock: Clock,
    wake: Wake,
    progress: Arc<CommitProgress>,
}

async fn run(surroundings: Surroundings, mut waiting: Waiting, stop: CancellationToken) {
    let mut group = Vec::with_capacity(64);
    let (mut patient, mut patient_until) = (Vec::new(), None);
    loop {
        // Stop only when the queues are empty: every accepted job gets a reply.
        let first = tokio::select! {
            biased;
            job = waiting.recv() => job,
            () = until(patient_until) => None,
            () = stop.cancelled() => match waiting.try_recv() {
                Some(job) => Some(job),
                None if patient.is_empty() => return,
                None => None,
            },
        };
        let mut alerts = 0;
        let mut put = |job: Job| {
            if job.can_wait() {
                patient_until.get_or_insert_with(|| Instant::now() + PATIENT_DELAY);
                patient.push(job);
            } else {
                alerts += weight(&job);
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
        let waited = patient_until.is_some_and(|until| Instant::now() >= until);
        // Once all senders are dropped, no further job can arrive.
        let is_last = stop.is_cancelled() || waiting.is_closed();
        // An agent's report is newer than its results that are still delayed.
        let has_report = group.iter().any(|job| matches!(job, Job::Converge { .. }));
        if waited || has_report || patient.len() >= MAX_PATIENT || is_last {
            group.append(&mut patient);
            patient_until = None;
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
            patient_until = None;
            let _ = (0..QUEUE + INTAKES).map_while(|_| waiting.try_recv()).count();
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn weight(job: &Job) -> usize {
    if let Job::Intake { intake, .. } = job { intake.alerts.len() } else { 0 }
}

/// Does the jobs of a group in one transaction. Returns whether the database gave a connection for it.
async fn commit(Surroundings { db, clock, wake, progress }: &Surroundings, group: Vec<Job>) -> bool {
    let (mut replies, mut agents) = (Vec::with_capacity(group.len()), Vec::new());
    let is_probe = group.iter().all(|job| matches!(job, Job::Probe { .. }));
    let outcome = async {
        let mut ledger = LedgerTx::begin(db).await?;
        let work = group::work(&mut ledger, group, clock.now(), &mut replies, &mut agents).await;
        work?;
        ledger.commit_untold().await
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
        reply.send(&outcome);
    }
    story.into_iter().for_each(Story::tell);
    !outcome.is_err_and(|error| error.is_without_connection())
}
