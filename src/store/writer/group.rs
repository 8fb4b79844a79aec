//! The work of one group commit: jobs of one kind together, many rows per statement.

use std::collections::HashSet;
use std::sync::Arc;

use riposte_protocol::message::{self, CommandResult};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::idempotent::{IdempotentOutcome, earlier, keep};
use super::job::{Accepted, Group, IntakeJob, Job, JobReply, PendingReply, pending, refuse};
use crate::domain::response::Verdict;
use crate::store::configured::agents;
use crate::store::database::{Result, StoreError, presence};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::{alerts, guard, holds, late_alerts, rejected, resync, settle};

/// Does the jobs. Those of one kind are done together, many rows per statement; what agents say
/// comes after what they are told, results after acknowledgements, because that is the order in
/// which one agent says it.
pub(super) async fn work(mut group: Group<'_>, jobs: Vec<Job>) -> Result<()> {
    let (mut intakes, mut sent, mut acks, mut settled) = (vec![], vec![], vec![], vec![]);
    let (mut rejected, mut seen, mut skewed, mut tasks) = (vec![], vec![], vec![], vec![]);
    let needs_head = jobs.iter().any(Job::needs_head);
    for job in jobs {
        match job {
            Job::Intake(intake, reply) => intakes.push((intake, reply)),
            Job::Rejected(alerts, reply) => {
                group.replies.push(pending(reply, ()));
                rejected.extend(alerts);
            }
            Job::Delivered(commands, lease_until) => sent.extend(commands.into_iter().map(|id| (id, lease_until))),
            Job::Acknowledge(agent, commands, reply) => {
                group.replies.push(pending(reply, ()));
                acks.extend(commands.into_iter().map(|command| (agent, command)));
            }
            Job::Settle(agent, number, said, reply) => settled.push((agent, number, said, reply)),
            Job::Seen(agents) => seen.push(agents),
            Job::Skewed(agents) => skewed.push(agents),
            Job::Task(task) => tasks.push(task),
        }
    }
    take_in(&mut group, intakes, needs_head).await?;
    rejected::keep(group.ledger, rejected, group.now).await?;
    if !needs_head {
        return Ok(());
    }
    let Group { ledger, now, wake, replies } = group;
    settle::delivered(ledger, sent, now).await?;
    settle::acknowledge(ledger, acks, now).await?;
    let results = by_newest(ledger, settled, replies).await?;
    let carried_out = |(_, result): &&(Uuid, CommandResult)| result.outcome == message::Outcome::Succeeded;
    let accepting = results.iter().filter(carried_out).map(|(agent, _)| *agent).collect();
    resync::accept(ledger, accepting, now).await?;
    wake.extend(settle::settle(ledger, results, now).await?);
    for agents in seen {
        agents::seen(ledger, agents).await?;
    }
    for agents in skewed {
        agents::skewed(ledger, agents).await?;
    }
    for task in tasks {
        (task.work)(Group { ledger: &mut *ledger, now, wake: &mut *wake, replies: &mut *replies }).await?;
    }
    Ok(())
}

/// The results of one agent, with the number of its stream.
type Settled = (Uuid, Option<i64>, Vec<CommandResult>, JobReply<()>);

/// The results that came by the newest connections of their agents. Others are refused: they come again.
async fn by_newest(
    ledger: &mut LedgerTx,
    settled: Vec<Settled>,
    replies: &mut Vec<PendingReply>,
) -> Result<Vec<(Uuid, CommandResult)>> {
    let numbered = settled.iter().filter_map(|(agent, number, ..)| number.map(|_| *agent));
    let newest = presence::newest(&mut ledger.tx, numbered).await?;
    let mut results = Vec::new();
    for (agent, number, said, reply) in settled {
        if number.zip(newest.get(&agent)).is_some_and(|(number, newest)| number < *newest) {
            refuse(reply, StoreError::OlderConnection);
            continue;
        }
        replies.push(pending(reply, ()));
        results.extend(said.into_iter().map(|result| (agent, result)));
    }
    Ok(results)
}

/// Returns the reply to accepted alerts, which releases their memory permit.
fn accepted(
    reply: JobReply<IdempotentOutcome<Accepted>>,
    outcome: IdempotentOutcome<Accepted>,
    permit: Option<Arc<OwnedSemaphorePermit>>,
) -> PendingReply {
    let reply = pending(reply, outcome);
    Box::new(move |committed| {
        drop(permit);
        reply(committed);
    })
}

/// Stores the alerts of all requests together, then the responses to new ones. Alerts are stored before the head is locked:
/// the managers that share a database do so at the same time, and what is a duplicate is known by a unique key.
async fn take_in(
    Group { ledger, now, wake, replies }: &mut Group<'_>,
    intakes: Vec<(IntakeJob, JobReply<IdempotentOutcome<Accepted>>)>,
    needs_head: bool,
) -> Result<()> {
    let now = *now;
    let (mut rows, mut waiting) = (Vec::new(), Vec::with_capacity(intakes.len()));
    let mut late = Vec::new();
    let oldest = intakes.iter().map(|(intake, _)| intake.epoch).min();
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
            replies.push(accepted(reply, earlier, intake.permit));
            continue;
        }
        let (mut ids, mut decided) = (Vec::new(), Vec::new());
        for (alert, responses) in intake.alerts {
            if !responses.is_empty() {
                ledger.knows(alert.id, &alert.alert.pipeline_id);
            }
            if alert.is_late {
                late.push((alert.id, alert.alert.pipeline.clone(), alert.alert.time));
            }
            ids.push(alert.id);
            decided.push(responses);
            rows.push(alert);
        }
        waiting.push((ids, decided, intake.once, reply, intake.permit));
    }
    let alerts::Inserted { new, conflicting } = alerts::insert(ledger, rows).await?;
    if needs_head {
        ledger.lock_head().await?;
    }
    let deciding = ledger.deciding_epoch().await?;
    if oldest.is_some_and(|oldest| oldest < deciding) {
        // All of them: one may be the duplicate of another. It is rare, and they are decided again at once.
        alerts::take_back(ledger, &new).await?;
        let replies =
            waiting.into_iter().map(|(.., reply, _)| reply).chain(repeated.into_iter().map(|(_, reply)| reply));
        for reply in replies {
            refuse(reply, StoreError::Outdated(deciding));
        }
        return Ok(());
    }
    let mut responses = Vec::new();
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
            *accepted.states.entry(response.first_state().as_str().to_owned()).or_insert(0) += 1;
            responses.push(response);
        }
        keep(ledger, once.as_ref(), 202, &accepted, now).await?;
        replies.push(self::accepted(reply, IdempotentOutcome::Done(accepted), permit));
    }
    wake.extend(holds::record(ledger, responses, now).await?);
    for (once, reply) in repeated {
        let first = earlier(ledger, Some(&once)).await?;
        let first = first.ok_or_else(|| StoreError::Corrupt("no stored response".into()))?;
        replies.push(accepted(reply, first, None));
    }
    late.retain(|(id, ..)| new.contains(id));
    late_alerts::add(ledger, late.into_iter().map(|(_, pipeline, time)| (pipeline, time)).collect(), now).await
}
