//! What the writer is asked to do. Kinds that arrive by the thousand are variants, so that a group
//! does them together; everything else is a [`Task`], written where it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::idempotent::IdempotentOutcome;
use crate::domain::response::NewResponse;
use crate::store::database::{Result, StoreError};
use crate::store::ledger::alerts::NewAlert;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::rejected::NewRejected;

/// Alerts of one request, decided.
#[derive(Debug)]
pub struct IntakeJob {
    /// Alerts with the responses to them.
    pub alerts: Vec<(NewAlert, Vec<NewResponse>)>,
    /// The last change of the configuration that they were decided by.
    pub epoch: i64,
    /// Memory permit, held until the alerts are committed, even if the request is cancelled.
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
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

/// Outcome of the commit of a group, shared by its jobs.
pub(super) type Committed = std::result::Result<(), Arc<StoreError>>;

/// Where the outcome of a job is awaited.
pub(super) type JobReply<T> = oneshot::Sender<std::result::Result<T, Arc<StoreError>>>;

/// A reply that waits for the commit. The client may be gone; its change is made all the same.
pub(super) type PendingReply = Box<dyn FnOnce(&Committed) + Send>;

/// Refuses a job at once.
pub(super) fn refuse<T>(reply: JobReply<T>, why: StoreError) {
    // The client may be gone.
    let _ = reply.send(Err(Arc::new(why)));
}

/// Returns a reply that says `value` once it is durable.
pub(super) fn pending<T: Send + 'static>(reply: JobReply<T>, value: T) -> PendingReply {
    Box::new(move |committed| drop(reply.send(committed.clone().map(|()| value))))
}

/// The transaction of a group, as its jobs see it.
pub(super) struct Group<'a> {
    /// The transaction.
    pub(super) ledger: &'a mut LedgerTx,
    /// Time of the group.
    pub(super) now: Timestamp,
    /// Agents to wake after the commit.
    pub(super) wake: &'a mut Vec<Uuid>,
    /// Replies to send after the commit.
    pub(super) replies: &'a mut Vec<PendingReply>,
}

/// The work of a [`Task`].
type Work = Box<dyn for<'a> FnOnce(Group<'a>) -> BoxFuture<'a, Result<()>> + Send>;

/// Which place a task has in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ordinary one.
    Ordinary,
    /// A report of an agent, which is newer than its results that are still delayed.
    Report,
    /// A test write, whose failure says nothing about larger changes.
    Probe,
}

/// A job of its own, with its work and its reply.
pub(super) struct Task {
    /// Its place in the group.
    pub(super) kind: Kind,
    /// What it does.
    pub(super) work: Work,
}

impl Task {
    /// Returns a task that does `work` and replies with what it returns. If the work fails, the
    /// reply is the error of the group.
    pub(super) fn new<T, F>(kind: Kind, reply: JobReply<T>, work: F) -> Self
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut LedgerTx, Timestamp, &'a mut Vec<Uuid>) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let work: Work = Box::new(move |group| {
            Box::pin(async move {
                match work(group.ledger, group.now, group.wake).await {
                    Ok(value) => group.replies.push(pending(reply, value)),
                    Err(error) => {
                        group.replies.push(Box::new(move |committed| {
                            if let Err(error) = committed {
                                drop(reply.send(Err(Arc::clone(error))));
                            }
                        }));
                        return Err(error);
                    }
                }
                Ok(())
            })
        });
        Self { kind, work }
    }

    /// Returns a task to whose outcome no caller listens.
    pub(super) fn unheard<F>(work: F) -> Self
    where
        F: for<'a> FnOnce(&'a mut LedgerTx, Timestamp, &'a mut Vec<Uuid>) -> BoxFuture<'a, Result<()>> + Send + 'static,
    {
        Self { kind: Kind::Ordinary, work: Box::new(move |group| work(group.ledger, group.now, group.wake)) }
    }
}

/// A job of the writer.
pub(super) enum Job {
    /// Alerts of a request.
    Intake(IntakeJob, JobReply<IdempotentOutcome<Accepted>>),
    /// Alerts that were not taken in.
    Rejected(Vec<NewRejected>, JobReply<()>),
    /// Commands that were sent, until when they are leased.
    Delivered(Vec<Uuid>, Timestamp),
    /// Commands that an agent has acknowledged.
    Acknowledge(Uuid, Vec<Uuid>, JobReply<()>),
    /// Results of an agent, with the number of its stream where managers share a database.
    Settle(Uuid, Option<i64>, Vec<CommandResult>, JobReply<()>),
    /// Last contacts of agents.
    Seen(Vec<(Uuid, Timestamp)>),
    /// Clock skews of agents, in seconds.
    Skewed(Vec<(Uuid, i64)>),
    /// Everything else.
    Task(Task),
}

impl Job {
    /// Whether the job may be delayed. Reports of agents are not urgent, and urgent jobs commit
    /// faster in a smaller group.
    pub(super) const fn can_wait(&self) -> bool {
        !matches!(self, Self::Intake(..) | Self::Rejected(..) | Self::Task(_))
    }

    /// Whether it is a task of this kind.
    pub(super) fn is(&self, kind: Kind) -> bool {
        matches!(self, Self::Task(task) if task.kind == kind)
    }

    /// Whether its work needs the head of the audit chain: all but storing alerts that cause nothing, and those that were rejected.
    pub(super) fn needs_head(&self) -> bool {
        match self {
            Self::Intake(intake, _) => intake.alerts.iter().any(|(_, responses)| !responses.is_empty()),
            Self::Rejected(..) => false,
            _ => true,
        }
    }

    /// Number of alerts in it.
    pub(super) fn alerts(&self) -> usize {
        match self {
            Self::Intake(intake, _) => intake.alerts.len(),
            Self::Rejected(alerts, _) => alerts.len(),
            _ => 0,
        }
    }
}
