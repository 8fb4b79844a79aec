//! The group commit: callers send jobs to one writer, which writes all waiting jobs in one
//! transaction and replies to each when it is durable. One disk flush serves the whole group, and
//! on SQLite no caller waits for a lock.
//!
//! Every queue here is bounded; a full one returns [`StoreError::Busy`].

mod group;
mod idempotent;
mod job;
mod progress;
mod run;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::job::{Job, JobReply, Kind, Task};
use self::run::{Surroundings, Waiting};
use crate::clock::Clock;
use crate::domain::actor::Actor;
use crate::domain::feed_list::ListChange;
use crate::domain::policy::Policy;
use crate::domain::response::{Hold, NewResponse, ResponseEnd};
use crate::store::configured::keys::KeyUse;
use crate::store::configured::{breakers, keys};
use crate::store::database::duties::{self, Fence};
use crate::store::database::{Db, Result, StoreError, probe};
use crate::store::ledger::approvals::{self, ApprovalDecision, ApprovalOutcome};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::by_hand;
use crate::store::ledger::converge::{self, AgentNews};
use crate::store::ledger::events::LooseEvent;
use crate::store::ledger::feeds::{self, ConsumerRow};
use crate::store::ledger::holds;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::rejected::NewRejected;
use crate::store::ledger::release::{release, release_holds};
use crate::store::ledger::story::About;
use crate::store::ledger::{alerts, retention, settle};

pub use idempotent::IdempotentOutcome;
pub use job::{Accepted, IntakeJob};
pub use progress::CommitProgress;
pub use run::Wake;
pub use sweep::SweepStep;

/// Capacity of the job queue, without new alerts.
const QUEUE: usize = 4096;
/// Capacity of the queue of requests with new alerts.
const INTAKES: usize = 1024;
/// How long jobs of agents and people wait for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handle of the writer; cheap to clone. New alerts have a queue of their own, and each transaction
/// takes the other queue first: an alert storm does not delay results, reverts or requests of
/// people.
#[derive(Clone, Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    intakes: mpsc::Sender<Job>,
    progress: Arc<CommitProgress>,
}

impl Writer {
    /// Returns a writer and the task that runs it until `stop`; the task then finishes the waiting
    /// jobs.
    pub fn start(db: Db, clock: Clock, wake: Wake, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, waiting_jobs) = mpsc::channel(QUEUE);
        let (intakes, waiting_intakes) = mpsc::channel(INTAKES);
        let waiting = Waiting { jobs: waiting_jobs, intakes: waiting_intakes };
        let progress = Arc::<CommitProgress>::default();
        let sees = Arc::clone(&progress);
        (Self { jobs, intakes, progress }, run::run(Surroundings { db, clock, wake, progress: sees }, waiting, stop))
    }

    /// Waits for a place in the queue instead of failing: ten thousand agents may answer at once,
    /// and retry what is refused. Their jobs must not cause refusals of requests or deadlines.
    async fn ask<T>(&self, job: impl FnOnce(JobReply<T>) -> Job) -> Result<T> {
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
        self.intakes.try_send(Job::Intake(intake, reply)).map_err(|_| StoreError::Busy)?;
        self.answered(answer, asked).await
    }

    /// Commits alerts that were not taken in, with those that are.
    pub async fn keep_rejected(&self, rejected: Vec<NewRejected>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let asked = std::time::Instant::now();
        self.intakes.try_send(Job::Rejected(rejected, reply)).map_err(|_| StoreError::Busy)?;
        self.answered(answer, asked).await
    }

    /// Commits a manual response, if its principal has ordered and approved fewer than `per_hour`. Returns its id, or
    /// that of an earlier request with the same key; an error of the inner result is the time of the next one.
    pub async fn respond(
        &self,
        response: NewResponse,
        per_hour: Option<u32>,
        once: Option<Once>,
    ) -> Result<std::result::Result<IdempotentOutcome<Uuid>, Timestamp>> {
        self.run(Kind::Ordinary, move |ledger, now, wake| {
            Box::pin(async move {
                if let Some(earlier) = idempotent::earlier(ledger, once.as_ref()).await? {
                    return Ok(Ok(earlier));
                }
                if let Some(until) = by_hand::full_until(ledger, &response.requested_by, per_hour, now).await? {
                    return Ok(Err(until));
                }
                let id = response.id;
                wake.extend(holds::record(ledger, vec![response], now).await?);
                idempotent::keep(ledger, once.as_ref(), 201, &id, now).await?;
                Ok(Ok(IdempotentOutcome::Done(id)))
            })
        })
        .await
    }

    /// Ends responses.
    pub async fn release(&self, responses: Vec<Uuid>, why: ResponseEnd) -> Result<()> {
        self.run(Kind::Ordinary, move |ledger, now, wake| {
            Box::pin(async move {
                wake.extend(release(ledger, &responses, &why, now).await?);
                Ok(())
            })
        })
        .await
    }

    /// Ends responses whose time is over, as the owner of the duty by this fence.
    pub async fn end(&self, responses: Vec<Uuid>, why: ResponseEnd, fence: Option<Fence>) -> Result<()> {
        self.run(Kind::Ordinary, move |ledger, now, wake| {
            Box::pin(async move {
                duties::check(&mut ledger.tx, fence.as_ref()).await?;
                wake.extend(release(ledger, &responses, &why, now).await?);
                Ok(())
            })
        })
        .await
    }

    /// Records a person's decision on a response.
    pub async fn decide(&self, response: Uuid, principal: Actor, said: ApprovalDecision) -> Result<ApprovalOutcome> {
        self.run(Kind::Ordinary, move |ledger, now, wake| {
            Box::pin(async move {
                let decided = approvals::decide(ledger, response, &principal, &said, now).await;
                let (outcome, agents) = decided?;
                wake.extend(agents);
                Ok(outcome)
            })
        })
        .await
    }

    /// Ends single holds.
    pub async fn release_holds(&self, holds: Vec<Hold>, why: ResponseEnd) -> Result<()> {
        self.run(Kind::Ordinary, move |ledger, now, wake| {
            Box::pin(async move {
                wake.extend(release_holds(ledger, &holds, &why, now).await?);
                Ok(())
            })
        })
        .await
    }

    /// Records deliveries. May be lost: the commands are then sent again, which agents tolerate.
    pub fn delivered(&self, commands: Vec<Uuid>, lease_until: Timestamp) {
        self.hint(Job::Delivered(commands, lease_until));
    }

    /// Commits an agent's acknowledgement.
    pub async fn acknowledge(&self, agent: Uuid, commands: Vec<Uuid>) -> Result<()> {
        self.ask(|reply| Job::Acknowledge(agent, commands, reply)).await
    }

    /// Commits an agent's results; only then may they be acknowledged (promise 9). Those of a stream have its `number`.
    ///
    /// # Errors
    /// [`StoreError::OlderConnection`] if the agent has a newer one.
    pub async fn settle(&self, agent: Uuid, number: Option<i64>, results: Vec<CommandResult>) -> Result<()> {
        self.ask(|reply| Job::Settle(agent, number, results, reply)).await
    }

    /// Settles the differences between the ledger and an agent's report.
    pub async fn converge(&self, agent: Uuid, news: AgentNews) -> Result<()> {
        self.run(Kind::Report, move |ledger, now, wake| {
            Box::pin(async move {
                wake.extend(converge::converge(ledger, agent, news, now).await?);
                Ok(())
            })
        })
        .await
    }

    /// Ends applies that must no longer be delivered, each for a reason. May be lost: the next
    /// delivery finds them again.
    pub fn withdraw(&self, commands: BTreeMap<Uuid, String>) {
        self.hint(Job::Task(Task::unheard(move |ledger, now, wake| {
            Box::pin(async move {
                wake.extend(settle::withdraw(ledger, commands, now).await?);
                Ok(())
            })
        })));
    }

    /// Records the last contact of agents; may be lost.
    pub fn seen(&self, agents: Vec<(Uuid, Timestamp)>) {
        self.hint(Job::Seen(agents));
    }

    /// Records the clock skew of agents, in seconds; may be lost, and is reported again on connect.
    pub fn skewed(&self, agents: Vec<(Uuid, i64)>) {
        self.hint(Job::Skewed(agents));
    }

    /// Runs one step of the sweep on at most `limit` rows, as the owner of its duty by this fence; returns the number of rows
    /// found.
    pub async fn sweep(&self, step: SweepStep, limit: i64, fence: Option<Fence>) -> Result<usize> {
        self.run(Kind::Ordinary, move |ledger, now, wake| {
            Box::pin(async move {
                duties::check(&mut ledger.tx, fence.as_ref()).await?;
                sweep::sweep(ledger, step, limit, now, wake).await
            })
        })
        .await
    }

    /// Deletes those of these alerts that nothing needs.
    pub async fn forget_alerts(&self, alerts: Vec<Uuid>) -> Result<u64> {
        self.run(Kind::Ordinary, move |ledger, _, _| Box::pin(async move { alerts::forget(ledger, &alerts).await }))
            .await
    }

    /// Removes responses that are over, until about `limit` rows are gone. Returns whether there is more to do.
    pub async fn forget_responses(&self, responses: Vec<Uuid>, limit: i64) -> Result<bool> {
        self.run(Kind::Ordinary, move |ledger, now, _| {
            Box::pin(async move { retention::forget_responses(ledger, &responses, limit, now).await })
        })
        .await
    }

    /// Removes at most `limit` entries of the audit log up to `last`. Returns how many.
    pub async fn forget_entries(&self, last: i64, limit: i64) -> Result<i64> {
        self.run(Kind::Ordinary, move |ledger, now, _| Box::pin(retention::forget_entries(ledger, last, limit, now)))
            .await
    }

    /// Adds events that are no entries of the audit log.
    pub async fn tell(&self, told: Vec<LooseEvent>) -> Result<()> {
        self.run(Kind::Ordinary, move |ledger, now, _| {
            Box::pin(async move {
                for event in &told {
                    ledger.tell(event, &About::default(), now);
                }
                Ok(())
            })
        })
        .await
    }

    /// Opens the breakers of policies whose ratio is reached; returns the number of open breakers.
    pub async fn trip(&self, policies: Vec<Arc<Policy>>) -> Result<usize> {
        self.run(Kind::Ordinary, move |ledger, now, _| {
            Box::pin(async move { breakers::trip(ledger, &policies, now).await })
        })
        .await
    }

    /// Records the last uses of API keys; returns their number.
    pub async fn keys_used(&self, uses: Vec<KeyUse>) -> Result<usize> {
        self.run(Kind::Ordinary, move |ledger, _, _| Box::pin(keys::used(ledger, uses))).await
    }

    /// Changes the list of a feed, which must be at revision `from`; returns whether it was.
    pub async fn change_feed(&self, feed: String, from: i64, change: ListChange, event: i64) -> Result<bool> {
        self.run(Kind::Ordinary, move |ledger, _, _| {
            Box::pin(async move { feeds::change(ledger, &feed, from, &change, event).await })
        })
        .await
    }

    /// Records which lists consumers were given; returns their number.
    pub async fn feeds_fetched(&self, fetches: Vec<ConsumerRow>) -> Result<usize> {
        self.run(Kind::Ordinary, move |ledger, _, _| Box::pin(feeds::fetched(ledger, fetches))).await
    }

    /// Keeps what a consumer of a feed says of itself.
    pub async fn keep_feed_metrics(&self, feed: String, consumer: String, address: String, text: String) -> Result<()> {
        self.run(Kind::Ordinary, move |ledger, now, _| {
            Box::pin(async move { feeds::keep_metrics(ledger, &feed, &consumer, &address, &text, now).await })
        })
        .await
    }

    /// Commits a durable test write.
    pub async fn probe(&self) -> Result<()> {
        self.run(Kind::Probe, |ledger, now, _| Box::pin(probe::write(ledger, now))).await
    }

    /// Hands over a job that may be lost.
    fn hint(&self, job: Job) {
        let _ = self.jobs.try_send(job);
    }

    /// Does `work` in the next group; returns what it returned once that is durable.
    async fn run<T, F>(&self, kind: Kind, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut LedgerTx, Timestamp, &'a mut Vec<Uuid>) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        self.ask(|reply| Job::Task(Task::new(kind, reply, work))).await
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
