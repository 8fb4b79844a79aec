//! The work of one group commit: jobs of one kind together, many rows per statement.

use std::collections::HashSet;
use std::sync::Arc;

use riposte_protocol::message::{self, CommandResult};
use riposte_protocol::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{Accepted, IdempotentOutcome, IntakeJob, Job, Reply, SweepStep};
use crate::domain::response::Verdict;
use crate::store::configured::{agents, breakers};
use crate::store::database::columns::json;
use crate::store::database::probe;
use crate::store::database::{Result, StoreError};
use crate::store::ledger::approvals::ApprovalOutcome;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::{self, Once};
use crate::store::ledger::{alerts, approvals, converge, guard, holds, resync, settle, waves};

/// What to tell whom once the transaction is durable.
pub(super) enum PendingReply {
    /// With the memory permit of the alerts, which is released here.
    Accepted(Reply<IdempotentOutcome<Accepted>>, IdempotentOutcome<Accepted>, Option<OwnedSemaphorePermit>),
    Responded(Reply<IdempotentOutcome<Uuid>>, IdempotentOutcome<Uuid>),
    Done(Reply<()>),
    Decided(Reply<ApprovalOutcome>, ApprovalOutcome),
    Swept(Reply<usize>, usize),
}

impl PendingReply {
    pub(super) fn send(self, outcome: &std::result::Result<(), Arc<StoreError>>) {
        // The client may be gone; its change is made all the same.
        match self {
            Self::Accepted(reply, accepted, permit) => {
                drop(permit);
                drop(reply.send(outcome.clone().map(|()| accepted)));
            }
            Self::Responded(reply, response) => drop(reply.send(outcome.clone().map(|()| response))),
            Self::Decided(reply, said) => drop(reply.send(outcome.clone().map(|()| said))),
            Self::Done(reply) => drop(reply.send(outcome.clone())),
            Self::Swept(reply, count) => drop(reply.send(outcome.clone().map(|()| count))),
        }
    }
}

/// Does the jobs. Those of one kind are done together, many rows per statement; what agents say comes after what they
/// are told, results after acknowledgements, because that is the order in which one agent says it.
pub(super) async fn work(
    ledger: &mut LedgerTx,
    group: Vec<Job>,
    now: Timestamp,
    replies: &mut Vec<PendingReply>,
    wake: &mut Vec<Uuid>,
) -> Result<()> {
    let (mut intakes, mut sent, mut acks, mut results, mut rest) = (vec![], vec![], vec![], vec![], vec![]);
    for job in group {
        match job {
            Job::Intake { intake, reply } => intakes.push((intake, reply)),
            Job::Delivered { commands, lease_until } => sent.extend(commands.into_iter().map(|id| (id, lease_until))),
            Job::Acknowledge { agent, commands, reply } => {
                replies.push(PendingReply::Done(reply));
                acks.extend(commands.into_iter().map(|command| (agent, command)));
            }
            Job::Settle { agent, results: said, reply } => {
                replies.push(PendingReply::Done(reply));
                results.extend(said.into_iter().map(|result| (agent, result)));
            }
            other => rest.push(other),
        }
    }
    wake.extend(take_in(ledger, intakes, now, replies).await?);
    settle::delivered(ledger, sent, now).await?;
    settle::acknowledge(ledger, acks, now).await?;
    let carried_out = |(_, result): &&(Uuid, CommandResult)| result.outcome == message::Outcome::Succeeded;
    let accepting = results.iter().filter(carried_out).map(|(agent, _)| *agent).collect();
    resync::accept(ledger, accepting, now).await?;
    wake.extend(settle::settle(ledger, results, now).await?);
    for job in rest {
        match job {
            Job::Respond { response, once, reply } => {
                let outcome = match earlier::<Uuid>(ledger, once.as_ref()).await? {
                    Some(earlier) => earlier,
                    None => {
                        let id = response.id;
                        wake.extend(holds::record(ledger, vec![*response], now).await?);
                        keep(ledger, once.as_ref(), 201, &id, now).await?;
                        IdempotentOutcome::Done(id)
                    }
                };
                replies.push(PendingReply::Responded(reply, outcome));
            }
            Job::Release { responses, why, reply } => {
                replies.push(PendingReply::Done(reply));
                wake.extend(holds::release(ledger, &responses, &why, now).await?);
            }
            Job::Decide { response, principal, decision, reason, reply } => {
                let (outcome, agents) = approvals::decide(ledger, response, &principal, decision, &reason, now).await?;
                wake.extend(agents);
                replies.push(PendingReply::Decided(reply, outcome));
            }
            Job::ReleaseHolds { holds, why, reply } => {
                replies.push(PendingReply::Done(reply));
                wake.extend(holds::release_holds(ledger, &holds, &why, now).await?);
            }
            Job::Trip { policies, reply } => {
                let open = breakers::trip(ledger, &policies, now).await;
                replies.push(swept(reply, &open));
                open?;
            }
            Job::Converge { agent, news, reply } => {
                wake.extend(converge::converge(ledger, agent, news, now).await?);
                replies.push(PendingReply::Done(reply));
            }
            Job::Withdraw { commands } => wake.extend(settle::withdraw(ledger, commands, now).await?),
            Job::Seen { agents } => agents::seen(ledger, agents).await?,
            Job::Skewed { agents } => agents::skewed(ledger, agents).await?,
            Job::Sweep { step, limit, reply } => {
                let found = sweep(ledger, step, limit, now, wake).await;
                replies.push(swept(reply, &found));
                found?;
            }
            Job::Probe { reply } => {
                // Before the attempt, so that the caller learns the cause of a failure.
                replies.push(PendingReply::Done(reply));
                probe::write(ledger, now).await?;
            }
            Job::Intake { .. } | Job::Delivered { .. } | Job::Acknowledge { .. } | Job::Settle { .. } => {}
        }
    }
    Ok(())
}

/// A failed step replies too, so that its owner can report why (`/readyz?verbose`).
fn swept(reply: Reply<usize>, found: &Result<usize>) -> PendingReply {
    PendingReply::Swept(reply, *found.as_ref().unwrap_or(&0))
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
        SweepStep::Expire => {
            let (count, agents) = settle::expire(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::TimeOut => {
            let (count, agents) = settle::time_out(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::RetryReverts => {
            let agents = holds::retry_reverts(ledger, now, limit).await?;
            let count = agents.len();
            wake.extend(agents);
            count
        }
        SweepStep::Silence => {
            let (count, agents) = approvals::silence(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::Unconfirmed => {
            let (count, agents) = approvals::unconfirmed(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::Waves => {
            let (count, agents) = waves::send(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::ForgetSightings(cutoff) => rows(guard::forget(ledger, cutoff).await?),
        SweepStep::ForgetAlerts(cutoff) => rows(alerts::forget(ledger, cutoff, limit).await?),
        SweepStep::ForgetAnswers(cutoff) => rows(idempotency::forget(ledger, cutoff).await?),
        SweepStep::ForgetTokens(cutoff) => rows(agents::forget_tokens(ledger, cutoff).await?),
    })
}

/// Stores the alerts of all requests together, then the responses to new ones.
async fn take_in(
    ledger: &mut LedgerTx,
    intakes: Vec<(IntakeJob, Reply<IdempotentOutcome<Accepted>>)>,
    now: Timestamp,
    replies: &mut Vec<PendingReply>,
) -> Result<Vec<Uuid>> {
    let (mut rows, mut waiting) = (Vec::new(), Vec::with_capacity(intakes.len()));
    // A retry within the same group: the first request's outcome is not known yet.
    let (mut keys, mut repeated) = (HashSet::new(), Vec::new());
    for (intake, reply) in intakes {
        if let Some(once) = &intake.once
            && !keys.insert((once.principal.clone(), once.key.clone()))
        {
            repeated.push((once.clone(), reply));
            continue;
        }
        if let Some(earlier) = earlier::<Accepted>(ledger, intake.once.as_ref()).await? {
            replies.push(PendingReply::Accepted(reply, earlier, intake.permit));
            continue;
        }
        let (mut ids, mut decided) = (Vec::new(), Vec::new());
        for (alert, responses) in intake.alerts {
            if !responses.is_empty() {
                ledger.knows(alert.id, &alert.alert.pipeline_id);
            }
            ids.push(alert.id);
            decided.push(responses);
            rows.push(alert);
        }
        waiting.push((ids, decided, intake.once, reply, intake.permit));
    }
    let alerts::Inserted { new, conflicting } = alerts::insert(ledger, rows).await?;
    let (mut responses, mut wake) = (Vec::new(), Vec::new());
    let (mut memo, mut unwritten) = (guard::Memo::default(), HashSet::new());
    for (ids, decided, once, reply, permit) in waiting {
        let is_new: Vec<bool> = ids.iter().map(|id| new.contains(id)).collect();
        let conflicting = ids.iter().filter(|id| conflicting.contains(id)).count();
        let mut accepted = Accepted { new: is_new, conflicting, ..Accepted::default() };
        let fresh =
            decided.into_iter().zip(&accepted.new).filter(|(_, new)| **new).flat_map(|(responses, _)| responses);
        for response in fresh.collect::<Vec<_>>() {
            // Guardrails count rows of the ledger, so earlier responses of the same policy in this
            // group must be written first. Spared responses do not count: a storm above its limits
            // is written many rows at a time.
            if response.guarded_by.as_ref().is_some_and(|policy| unwritten.contains(&policy.name)) {
                wake.extend(holds::record(ledger, std::mem::take(&mut responses), now).await?);
                unwritten.clear();
            }
            let policy = response.guarded_by.clone();
            let Some(response) = guard::check(ledger, &mut memo, response, now).await? else { continue };
            if let Some(policy) = policy.filter(|_| !matches!(response.verdict, Verdict::Spare(_))) {
                unwritten.insert(policy.name.clone());
            }
            accepted.responses.push(response.id);
            *accepted.states.entry(response.first_state().to_owned()).or_insert(0) += 1;
            responses.push(response);
        }
        keep(ledger, once.as_ref(), 202, &accepted, now).await?;
        replies.push(PendingReply::Accepted(reply, IdempotentOutcome::Done(accepted), permit));
    }
    wake.extend(holds::record(ledger, responses, now).await?);
    for (once, reply) in repeated {
        let first = earlier(ledger, Some(&once)).await?;
        let first = first.ok_or_else(|| StoreError::Corrupt("no stored response".into()))?;
        replies.push(PendingReply::Accepted(reply, first, None));
    }
    Ok(wake)
}

/// The stored outcome of an idempotent request.
async fn earlier<T: DeserializeOwned>(
    ledger: &mut LedgerTx,
    once: Option<&Once>,
) -> Result<Option<IdempotentOutcome<T>>> {
    let Some(once) = once else { return Ok(None) };
    let Some(answered) = idempotency::find_in(ledger, once).await? else { return Ok(None) };
    if !answered.is_for(once) {
        return Ok(Some(IdempotentOutcome::KeyReused));
    }
    let corrupt = |error| StoreError::Corrupt(format!("a stored response: {error}"));
    serde_json::from_str(&answered.body).map(|kept| Some(IdempotentOutcome::Done(kept))).map_err(corrupt)
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
