//! The group commit: whoever has something for the ledger hands it to one writer, which takes all that is waiting,
//! writes it in one transaction and tells each when it is durable. One disk flush then serves them all, and on
//! SQLite nobody waits for a lock.
//!
//! Every queue here is bounded; a full one is [`StoreError::Busy`], never silence.

use std::sync::Arc;

use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::alerts::{self, NewAlert};
use super::audit::LedgerTx;
use super::columns::json;
use super::db::{Db, Result, StoreError};
use super::idempotency::{self, Once};
use super::ledger::{self, EndReason};
use super::protected::Hold;
use super::{agents, settle};
use crate::clock::Clock;
use crate::domain::response::NewResponse;

/// Jobs that may wait; each is at most one request's alerts.
const QUEUE: usize = 4096;
/// Alerts in one transaction: past this the flush is no longer what costs.
const MAX_ALERTS: usize = 4000;
/// Jobs in one transaction.
const MAX_JOBS: usize = 2048;

/// Alerts of one request, decided.
#[derive(Debug)]
pub struct Intake {
    /// The alerts, each with the responses it got.
    pub alerts: Vec<(NewAlert, Vec<NewResponse>)>,
    /// Set if the request may be repeated.
    pub once: Option<Once>,
}

/// What became of an [`Intake`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which alerts are new, by position in the request.
    pub new: Vec<bool>,
    /// The responses of the new ones.
    pub responses: Vec<Uuid>,
}

/// What became of a request with an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was carried out, now or the first time it was made.
    Done(T),
    /// The key was used before, for something else.
    KeyReused,
}

type Reply<T> = oneshot::Sender<std::result::Result<T, Arc<StoreError>>>;

enum Job {
    Intake { intake: Intake, reply: Reply<Outcome<Accepted>> },
    Respond { response: Box<NewResponse>, once: Option<Once>, reply: Reply<Outcome<Uuid>> },
    Release { responses: Vec<Uuid>, why: EndReason, reply: Reply<()> },
    ReleaseHolds { holds: Vec<Hold>, why: EndReason, reply: Reply<()> },
    Delivered { commands: Vec<Uuid>, lease_until: Timestamp },
    Acknowledge { agent: Uuid, commands: Vec<Uuid>, reply: Reply<()> },
    Settle { agent: Uuid, results: Vec<CommandResult>, reply: Reply<()> },
    Seen { agents: Vec<(Uuid, Timestamp)> },
    Sweep { step: SweepStep, limit: i64, reply: Reply<usize> },
}

/// One of the sweep's duties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// Commands that were not acknowledged in time.
    Expire,
    /// Commands that were acknowledged and never answered.
    TimeOut,
    /// Reverts that failed and are to be tried again.
    RetryReverts,
    /// Alerts received before an instant.
    ForgetAlerts(Timestamp),
    /// Kept answers given before an instant.
    ForgetAnswers(Timestamp),
    /// Enrolment tokens that expired before an instant.
    ForgetTokens(Timestamp),
}

/// The door to the writer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

/// A hint that agents have something to fetch; the store is the truth.
pub type Wake = Arc<dyn Fn(&[Uuid]) + Send + Sync>;

impl Writer {
    /// A writer and the task that does its work until `stop`; then it finishes what is waiting.
    pub fn start(db: Db, clock: Clock, wake: Wake, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        (Self { jobs }, run(db, clock, wake, waiting, stop))
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(job(reply)).map_err(|_| StoreError::Busy)?;
        let answer = answer.await.map_err(|_| StoreError::Busy)?;
        answer.map_err(|error| match Arc::try_unwrap(error) {
            Ok(error) => error,
            // Shared with the others of its group: the cause was logged once, where it happened.
            Err(_) => StoreError::Busy,
        })
    }

    /// Commits alerts with their responses; returns when they are durable.
    pub async fn intake(&self, intake: Intake) -> Result<Outcome<Accepted>> {
        self.ask(|reply| Job::Intake { intake, reply }).await
    }

    /// Commits a response made by hand and gives its id, or that of the response an earlier request with the same key
    /// made.
    pub async fn respond(&self, response: NewResponse, once: Option<Once>) -> Result<Outcome<Uuid>> {
        self.ask(|reply| Job::Respond { response: Box::new(response), once, reply }).await
    }

    /// Ends responses.
    pub async fn release(&self, responses: Vec<Uuid>, why: EndReason) -> Result<()> {
        self.ask(|reply| Job::Release { responses, why, reply }).await
    }

    /// Lets go of single holds.
    pub async fn release_holds(&self, holds: Vec<Hold>, why: EndReason) -> Result<()> {
        self.ask(|reply| Job::ReleaseHolds { holds, why, reply }).await
    }

    /// Notes that commands were sent. If the note is lost they are sent again, which the agent can take.
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

    /// Notes when agents were heard of; may be lost.
    pub fn seen(&self, agents: Vec<(Uuid, Timestamp)>) {
        let _ = self.jobs.try_send(Job::Seen { agents });
    }

    /// Does one of the sweep's duties on at most `limit` rows; gives how many it found.
    pub async fn sweep(&self, step: SweepStep, limit: i64) -> Result<usize> {
        self.ask(|reply| Job::Sweep { step, limit, reply }).await
    }

    /// How full the queue is, from 0 to 1.
    pub fn load(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let full = 1.0 - self.jobs.capacity() as f64 / QUEUE as f64;
        full
    }
}

async fn run(db: Db, clock: Clock, wake: Wake, mut waiting: mpsc::Receiver<Job>, stop: CancellationToken) {
    let mut group = Vec::with_capacity(64);
    loop {
        // Stop only when nothing is waiting any more: what was taken in gets its answer.
        let first = tokio::select! {
            biased;
            job = waiting.recv() => job,
            () = stop.cancelled() => waiting.try_recv().ok(),
        };
        let Some(first) = first else { return };
        let mut alerts = weight(&first);
        group.push(first);
        while group.len() < MAX_JOBS && alerts < MAX_ALERTS {
            let Ok(job) = waiting.try_recv() else { break };
            alerts += weight(&job);
            group.push(job);
        }
        commit(&db, &clock, &wake, std::mem::take(&mut group)).await;
    }
}

fn weight(job: &Job) -> usize {
    if let Job::Intake { intake, .. } = job { intake.alerts.len() } else { 0 }
}

/// What to tell whom once the transaction is durable.
enum Answer {
    Accepted(Reply<Outcome<Accepted>>, Outcome<Accepted>),
    Responded(Reply<Outcome<Uuid>>, Outcome<Uuid>),
    Done(Reply<()>),
    Swept(Reply<usize>, usize),
}

impl Answer {
    fn send(self, outcome: &std::result::Result<(), Arc<StoreError>>) {
        // Whoever asked may be gone; what was asked for is done all the same.
        match self {
            Self::Accepted(reply, accepted) => drop(reply.send(outcome.clone().map(|()| accepted))),
            Self::Responded(reply, response) => drop(reply.send(outcome.clone().map(|()| response))),
            Self::Done(reply) => drop(reply.send(outcome.clone())),
            Self::Swept(reply, count) => drop(reply.send(outcome.clone().map(|()| count))),
        }
    }
}

async fn commit(db: &Db, clock: &Clock, wake: &Wake, group: Vec<Job>) {
    let (mut answers, mut agents) = (Vec::with_capacity(group.len()), Vec::new());
    let outcome = async {
        let mut ledger = LedgerTx::begin(db).await?;
        let work = work(&mut ledger, group, clock.now(), &mut answers, &mut agents).await;
        work?;
        ledger.commit().await
    };
    let outcome = outcome.await.map_err(|error: StoreError| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(cause, "a group of changes was not committed: {error}");
        Arc::new(error)
    });
    if outcome.is_ok() && !agents.is_empty() {
        agents.sort_unstable();
        agents.dedup();
        wake(&agents);
    }
    for answer in answers {
        answer.send(&outcome);
    }
}

/// Does the jobs. Those of one kind are done together, many rows per statement; what agents say comes after what they
/// are told, results after acknowledgements, because that is the order in which one agent says it.
async fn work(
    ledger: &mut LedgerTx,
    group: Vec<Job>,
    now: Timestamp,
    answers: &mut Vec<Answer>,
    wake: &mut Vec<Uuid>,
) -> Result<()> {
    let (mut intakes, mut sent, mut acks, mut results, mut rest) = (vec![], vec![], vec![], vec![], vec![]);
    for job in group {
        match job {
            Job::Intake { intake, reply } => intakes.push((intake, reply)),
            Job::Delivered { commands, lease_until } => sent.extend(commands.into_iter().map(|id| (id, lease_until))),
            Job::Acknowledge { agent, commands, reply } => {
                answers.push(Answer::Done(reply));
                acks.extend(commands.into_iter().map(|command| (agent, command)));
            }
            Job::Settle { agent, results: said, reply } => {
                answers.push(Answer::Done(reply));
                results.extend(said.into_iter().map(|result| (agent, result)));
            }
            other => rest.push(other),
        }
    }
    wake.extend(take_in(ledger, intakes, now, answers).await?);
    settle::delivered(ledger, sent, now).await?;
    settle::acknowledge(ledger, acks, now).await?;
    settle::settle(ledger, results, now).await?;
    for job in rest {
        match job {
            Job::Respond { response, once, reply } => {
                let outcome = match earlier::<Uuid>(ledger, once.as_ref()).await? {
                    Some(earlier) => earlier,
                    None => {
                        let id = response.id;
                        wake.extend(ledger::record(ledger, vec![*response], now).await?);
                        keep(ledger, once.as_ref(), 201, &id, now).await?;
                        Outcome::Done(id)
                    }
                };
                answers.push(Answer::Responded(reply, outcome));
            }
            Job::Release { responses, why, reply } => {
                answers.push(Answer::Done(reply));
                wake.extend(ledger::release(ledger, &responses, &why, now).await?);
            }
            Job::ReleaseHolds { holds, why, reply } => {
                answers.push(Answer::Done(reply));
                wake.extend(ledger::release_holds(ledger, &holds, &why, now).await?);
            }
            Job::Seen { agents } => agents::seen(ledger, agents).await?,
            Job::Sweep { step, limit, reply } => {
                let count = sweep(ledger, step, limit, now, wake).await?;
                answers.push(Answer::Swept(reply, count));
            }
            Job::Intake { .. } | Job::Delivered { .. } | Job::Acknowledge { .. } | Job::Settle { .. } => {}
        }
    }
    Ok(())
}

async fn sweep(
    ledger: &mut LedgerTx,
    step: SweepStep,
    limit: i64,
    now: Timestamp,
    wake: &mut Vec<Uuid>,
) -> Result<usize> {
    let rows = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    Ok(match step {
        SweepStep::Expire => settle::expire(ledger, now, limit).await?,
        SweepStep::TimeOut => settle::time_out(ledger, now, limit).await?,
        SweepStep::RetryReverts => {
            let agents = ledger::retry_reverts(ledger, now, limit).await?;
            let count = agents.len();
            wake.extend(agents);
            count
        }
        SweepStep::ForgetAlerts(cutoff) => rows(alerts::forget(ledger, cutoff, limit).await?),
        SweepStep::ForgetAnswers(cutoff) => rows(idempotency::forget(ledger, cutoff).await?),
        SweepStep::ForgetTokens(cutoff) => rows(agents::forget_tokens(ledger, cutoff).await?),
    })
}

/// Stores the alerts of all requests together, then the responses of those that are new.
async fn take_in(
    ledger: &mut LedgerTx,
    intakes: Vec<(Intake, Reply<Outcome<Accepted>>)>,
    now: Timestamp,
    answers: &mut Vec<Answer>,
) -> Result<Vec<Uuid>> {
    let (mut rows, mut waiting) = (Vec::new(), Vec::with_capacity(intakes.len()));
    for (intake, reply) in intakes {
        if let Some(earlier) = earlier::<Accepted>(ledger, intake.once.as_ref()).await? {
            answers.push(Answer::Accepted(reply, earlier));
            continue;
        }
        let (mut ids, mut decided) = (Vec::new(), Vec::new());
        for (alert, responses) in intake.alerts {
            ids.push(alert.id);
            decided.push(responses);
            rows.push(alert);
        }
        waiting.push((ids, decided, intake.once, reply));
    }
    let new: std::collections::HashSet<Uuid> = alerts::insert(ledger, rows).await?.into_iter().collect();
    let mut responses = Vec::new();
    for (ids, decided, once, reply) in waiting {
        let is_new: Vec<bool> = ids.iter().map(|id| new.contains(id)).collect();
        let kept: Vec<NewResponse> =
            decided.into_iter().zip(&is_new).filter(|(_, new)| **new).flat_map(|(responses, _)| responses).collect();
        let accepted = Accepted { new: is_new, responses: kept.iter().map(|response| response.id).collect() };
        responses.extend(kept);
        keep(ledger, once.as_ref(), 202, &accepted, now).await?;
        answers.push(Answer::Accepted(reply, Outcome::Done(accepted)));
    }
    ledger::record(ledger, responses, now).await
}

/// What the same request came to when it was first made.
async fn earlier<T: DeserializeOwned>(ledger: &mut LedgerTx, once: Option<&Once>) -> Result<Option<Outcome<T>>> {
    let Some(once) = once else { return Ok(None) };
    let Some(answered) = idempotency::find_in(ledger, once).await? else { return Ok(None) };
    if !answered.is_for(once) {
        return Ok(Some(Outcome::KeyReused));
    }
    let corrupt = |error| StoreError::Corrupt(format!("a kept answer: {error}"));
    serde_json::from_str(&answered.body).map(|kept| Some(Outcome::Done(kept))).map_err(corrupt)
}

async fn keep<T: Serialize>(
    ledger: &mut LedgerTx,
    once: Option<&Once>,
    status: u16,
    kept: &T,
    now: Timestamp,
) -> Result<()> {
    match once {
        Some(once) => idempotency::keep(ledger, once, status, &json(kept)?, now).await.map(|_| ()),
        None => Ok(()),
    }
}
