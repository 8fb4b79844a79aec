//! Guardrails, evaluated inside the transaction that commits a decision: thresholds, cooldowns,
//! rate and radius limits, escalation, approval. Every writer of the ledger holds the audit head,
//! so counts cannot change before the decision is written. The limits thus hold under concurrency
//! and across nodes.

use std::collections::HashMap;
use std::sync::Arc;

use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use crate::domain::effect::Until;
use crate::domain::guardrails::{self, LimitCounts, Ruling};
use crate::domain::policy::{Approval, Breaker, Limits, Mode, Policy, Rate, Threshold};
use crate::domain::response::{Await, NewResponse, Spared, Verdict};
use crate::store::configured::breakers::{self, Stopped};
use crate::store::database::{Bind, Result, StoreError, binds, statements};

statements! {
    SIGHT = "INSERT INTO sightings (policy, counted, alert_id, at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (policy, counted, alert_id) DO NOTHING";
    SIGHTED = "SELECT COUNT(*) AS count FROM sightings WHERE policy = $1 AND counted = $2 AND at > $3";
    UNSIGHT = "DELETE FROM sightings WHERE policy = $1 AND counted = $2";
    FORGET = "DELETE FROM sightings WHERE at < $1";
    LAST_ON_TARGET = "SELECT COUNT(*) AS count FROM responses WHERE policy = $1 AND target_value = $2 AND target_kind = $3
            AND created_at > $4 AND state IN ('active', 'ended', 'awaiting_approval', 'observed')";
    RESPONSES_SINCE = "SELECT COUNT(*) AS count FROM responses WHERE policy = $1 AND created_at > $2
            AND (state IN ('active', 'ended') OR (state = 'observed' AND reason IS NULL AND $3 = 'observe'))";
    TARGETS_SINCE = "SELECT COUNT(DISTINCT target_value) AS count FROM responses WHERE policy = $1 AND created_at > $2
            AND (state IN ('active', 'ended') OR (state = 'observed' AND reason IS NULL AND $3 = 'observe'))
            AND target_value <> $4";
    WAITING = "SELECT COUNT(*) AS count FROM responses WHERE policy = $1 AND target_value = $2 AND target_kind = $3
            AND state IN ('active', 'awaiting_approval') AND state = 'awaiting_approval'";
    OFFENCES = "SELECT count, last_at FROM offences WHERE policy = $1 AND target_kind = $2 AND target_value = $3";
    OFFEND = "INSERT INTO offences (policy, target_kind, target_value, count, last_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (policy, target_kind, target_value) DO UPDATE SET count = excluded.count, last_at = excluded.last_at";
    HELD_BY_POLICY = "SELECT COUNT(*) AS count FROM responses WHERE policy = $1 AND target_kind = $2 AND target_value = $3
            AND state IN ('active', 'awaiting_approval') AND state = 'active'";
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

#[derive(sqlx::FromRow)]
struct Offence {
    count: i64,
    last_at: i64,
}

/// Cached facts about policies within one transaction. They cannot change before it ends: results
/// and decisions of people are written after a group's alerts, and a reached rate stays reached at
/// the same instant.
#[derive(Debug, Default)]
pub(in crate::store) struct Memo {
    stopped: HashMap<String, Stopped>,
    full: HashMap<String, &'static str>,
}

impl Memo {
    async fn stopped(
        &mut self,
        ledger: &mut LedgerTx,
        policy: &str,
        breaker: &Breaker,
        now: Timestamp,
    ) -> Result<&Stopped> {
        if !self.stopped.contains_key(policy) {
            let found = breakers::look(ledger, policy, breaker, now).await?;
            self.stopped.insert(policy.to_owned(), found);
        }
        self.stopped.get(policy).ok_or(StoreError::NotFound)
    }

    async fn over(
        &mut self,
        ledger: &mut LedgerTx,
        policy: &Policy,
        limits: &Limits,
        response: &NewResponse,
        now: Timestamp,
    ) -> Result<Option<Spared>> {
        if let Some(limit) = self.full.get(&policy.name) {
            return Ok(Some(Spared::OverLimit(limit)));
        }
        let over = over(ledger, policy, limits, response, now).await?;
        if let Some(Spared::OverLimit(limit @ "responses")) = over {
            self.full.insert(policy.name.clone(), limit);
        }
        Ok(over)
    }
}

/// Applies a policy's guardrails to its response. Returns `None` below the policy's threshold: the
/// alert is counted, but no response follows. `counted` is the observable that the threshold counts
/// by.
pub(in crate::store) async fn check(
    ledger: &mut LedgerTx,
    memo: &mut Memo,
    mut response: NewResponse,
    now: Timestamp,
) -> Result<Option<NewResponse>> {
    let Some(policy) = response.guarded_by.take() else { return Ok(Some(response)) };
    if matches!(response.verdict, Verdict::Spare(_)) {
        return Ok(Some(response));
    }
    if let Some(breaker) = &policy.guardrails.breaker {
        let stopped = memo.stopped(ledger, &policy.name, breaker, now).await?;
        let mut agents = response.agents.clone();
        let left_out = stopped.take_out(&mut agents);
        if let Some(why) = stopped.everywhere.clone().or_else(|| left_out.clone().filter(|_| agents.is_empty())) {
            response.verdict = Verdict::Spare(Spared::Breaker(why));
            return Ok(Some(response));
        }
        if let Some(why) = left_out {
            response.agents = agents;
            response.remark = format!("does not act on agents with an open breaker: {why}");
        }
    }
    if let Some(threshold) = &policy.guardrails.threshold
        && !reaches(ledger, &policy, threshold, &response, now).await?
    {
        return Ok(None);
    }
    let over = match &policy.guardrails.limits {
        Some(limits) => memo.over(ledger, &policy, limits, &response, now).await?,
        None => None,
    };
    let observes = matches!(response.verdict, Verdict::Observe(_));
    match guardrails::rule(&policy, over, observes) {
        Ruling::Act => {}
        Ruling::Observe(why) => response.verdict = Verdict::Observe(Some(why)),
        Ruling::Spare(spared) => response.verdict = Verdict::Spare(spared),
        Ruling::Ask => wait(ledger, &policy, &mut response, now).await?,
    }
    if response.verdict == Verdict::Act {
        escalate(ledger, &policy, &mut response, now).await?;
        let confirm = policy.guardrails.approval.as_ref().and_then(|approval| approval.undo_unless_confirmed);
        response.confirm_by = confirm.map(|span| now.plus(span.duration()));
    }
    Ok(Some(response))
}

async fn count(ledger: &mut LedgerTx, sql: &'static str, binds: Vec<Bind>) -> Result<u64> {
    let count = ledger.tx.optional::<Count>(sql, binds).await?.map_or(0, |row| row.count);
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Counts the alert. Returns whether the threshold is reached, and resets the count if so.
async fn reaches(
    ledger: &mut LedgerTx,
    policy: &Policy,
    threshold: &Threshold,
    response: &NewResponse,
    now: Timestamp,
) -> Result<bool> {
    let (name, counted) = (policy.name.as_str(), response.counted.as_str());
    ledger.tx.execute(SIGHT, binds![name, counted, response.alert, now]).await?;
    let since = now.minus(threshold.within.duration());
    let reached = threshold.is_reached(count(ledger, SIGHTED, binds![name, counted, since]).await?);
    if reached {
        ledger.tx.execute(UNSIGHT, binds![name, counted]).await?;
    }
    Ok(reached)
}

/// The limit that this response would exceed.
async fn over(
    ledger: &mut LedgerTx,
    policy: &Policy,
    limits: &Limits,
    response: &NewResponse,
    now: Timestamp,
) -> Result<Option<Spared>> {
    let name = policy.name.as_str();
    let (kind, value) = target(response.target.as_ref());
    let mut counts = LimitCounts { agents: response.agents.len(), fleet: response.fleet, ..LimitCounts::default() };
    if let Some(cooldown) = limits.cooldown {
        let since = now.minus(cooldown.duration());
        counts.on_target = count(ledger, LAST_ON_TARGET, binds![name, value.as_str(), kind, since]).await?;
    }
    // Counted in the order in which limits are judged: a storm costs one statement an alert.
    if let Some(over) = limits.exceeded(&counts) {
        return Ok(Some(over));
    }
    if let Some(Rate { within, .. }) = limits.responses {
        let since = now.minus(within.duration());
        counts.responses = count(ledger, RESPONSES_SINCE, binds![name, since, policy.mode.as_str()]).await?;
    }
    if let Some(over) = limits.exceeded(&counts) {
        return Ok(Some(over));
    }
    if let Some(Rate { within, .. }) = limits.targets {
        let since = now.minus(within.duration());
        let binds = binds![name, since, policy.mode.as_str(), value];
        counts.other_targets = count(ledger, TARGETS_SINCE, binds).await?;
    }
    Ok(limits.exceeded(&counts))
}

fn target(target: Option<&Target>) -> (&'static str, String) {
    target.map_or(("none", String::new()), |target| (target.kind().as_str(), target.value().to_owned()))
}

/// Holds the response for approval, unless an equal one is waiting: a storm asks once.
async fn wait(ledger: &mut LedgerTx, policy: &Policy, response: &mut NewResponse, now: Timestamp) -> Result<()> {
    let (kind, value) = target(response.target.as_ref());
    if count(ledger, WAITING, binds![policy.name.as_str(), value, kind]).await? > 0 {
        response.verdict = Verdict::Spare(Spared::Waiting);
        return Ok(());
    }
    let Approval { quorum, within, on_silence, .. } = policy.guardrails.approval.clone().unwrap_or_default();
    let answer_by = now.plus(within.duration());
    response.verdict = Verdict::Await(Await { quorum, answer_by, on_silence });
    Ok(())
}

/// Extends the duration for a repeated target. While a block of the policy is in force, further
/// alerts count as the same offence.
async fn escalate(ledger: &mut LedgerTx, policy: &Policy, response: &mut NewResponse, now: Timestamp) -> Result<()> {
    let (Some(escalation), Some(first)) = (&policy.respond.escalate, policy.respond.duration) else { return Ok(()) };
    let (kind, value) = target(response.target.as_ref());
    let key = || binds![policy.name.as_str(), kind, value.as_str()];
    let stands = count(ledger, HELD_BY_POLICY, key()).await? > 0;
    let known: Option<Offence> = ledger.tx.optional(OFFENCES, key()).await?;
    let known = known.map(|offence| (offence.count, Timestamp::from_millis(offence.last_at)));
    let (lasts, offences) = guardrails::escalate(escalation, first.duration(), known, stands, now);
    response.until = Until::At(now.plus(lasts));
    ledger.tx.execute(OFFEND, [key(), binds![offences, now]].concat()).await?;
    Ok(())
}

/// Deletes sightings older than `cutoff`, beyond the window of every threshold.
pub(in crate::store) async fn forget(ledger: &mut LedgerTx, cutoff: Timestamp) -> Result<u64> {
    ledger.tx.execute(FORGET, binds![cutoff]).await
}

/// Returns the policy if its responses need guardrails.
pub fn guards(policy: &Arc<Policy>) -> Option<Arc<Policy>> {
    let guardrails = &policy.guardrails;
    let needed = guardrails.threshold.is_some()
        || guardrails.limits.is_some()
        || guardrails.breaker.is_some()
        || guardrails.approval.is_some()
        || policy.mode == Mode::Approve
        || policy.respond.escalate.is_some();
    needed.then(|| Arc::clone(policy))
}
