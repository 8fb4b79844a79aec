//! Circuit breakers: policies that stopped themselves, globally or on one agent. A breaker opens in
//! the transaction that decides the next response, or in the sweep before it. Only a person closes
//! it.

use std::collections::HashMap;
use std::sync::Arc;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::breaker::{Failures, WholeFailures, agents_over, whole_over};
use crate::domain::policy::{Breaker, Policy};
use crate::store::database::columns::id;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::views::policies::{AgentBreakerRow, BreakerRow};

statements! {
    STANDS = "SELECT is_open, reason, changed_at FROM breakers WHERE policy = $1";
    OPEN = "SELECT policy, is_open, reason, changed_at, changed_by FROM breakers WHERE is_open = TRUE";
    OF_POLICY = "SELECT policy, is_open, reason, changed_at, changed_by FROM breakers WHERE policy = $1";
    SET = "INSERT INTO breakers (policy, is_open, reason, changed_at, changed_by) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (policy) DO UPDATE SET is_open = excluded.is_open, reason = excluded.reason,
            changed_at = excluded.changed_at, changed_by = excluded.changed_by";
    AGENTS_OF_POLICY = "SELECT agent_breakers.policy, agent_id, agents.name AS agent, reason, changed_at, changed_by
        FROM agent_breakers JOIN agents ON agents.id = agent_id
        WHERE agent_breakers.policy = $1 AND is_open = TRUE AND revoked_at IS NULL ORDER BY agent_id LIMIT $2";
    AGENTS_OPEN = "SELECT agent_breakers.policy, agent_id, agents.name AS agent, reason, changed_at, changed_by
        FROM agent_breakers JOIN agents ON agents.id = agent_id
        WHERE is_open = TRUE AND revoked_at IS NULL ORDER BY policy, agent_id LIMIT $1";
    SET_AGENT = "INSERT INTO agent_breakers (policy, agent_id, is_open, reason, changed_at, changed_by)
        VALUES ($1, $2, TRUE, $3, $4, 'riposte')
        ON CONFLICT (policy, agent_id) DO UPDATE SET is_open = TRUE, reason = excluded.reason,
            changed_at = excluded.changed_at, changed_by = excluded.changed_by";
    RESET_AGENTS = "UPDATE agent_breakers SET is_open = FALSE, reason = $2, changed_at = $3, changed_by = $4
        WHERE policy = $1 AND is_open = TRUE AND ($5 IS NULL OR agent_id = $5)";
    FAILED_BY_AGENT = "SELECT commands.agent_id, agents.name, COUNT(*) AS whole,
            COUNT(CASE WHEN commands.state <> 'succeeded' THEN 1 END) AS part
        FROM responses JOIN commands ON commands.response_id = responses.id
        JOIN agents ON agents.id = commands.agent_id
        LEFT JOIN agent_breakers ON agent_breakers.policy = responses.policy
            AND agent_breakers.agent_id = commands.agent_id AND agent_breakers.is_open = FALSE
        WHERE responses.policy = $1 AND responses.created_at > $2 AND commands.op = 'apply'
            AND commands.state IN ('succeeded', 'failed', 'timed_out', 'refused')
            AND (agent_breakers.changed_at IS NULL OR responses.created_at > agent_breakers.changed_at)
        GROUP BY commands.agent_id, agents.name ORDER BY commands.agent_id";
    UNDONE_SINCE = "SELECT COUNT(*) AS whole,
            COUNT(CASE WHEN state = 'rejected' OR reason IN ('lifted', 'unconfirmed') THEN 1 END) AS part
        FROM responses WHERE policy = $1 AND created_at > $2 AND state IN ('active', 'ended', 'rejected')";
    OPEN_COUNTS = "SELECT (SELECT COUNT(*) FROM breakers WHERE is_open = TRUE) AS policies,
            (SELECT COUNT(*) FROM agent_breakers JOIN agents ON agents.id = agent_id
                WHERE is_open = TRUE AND revoked_at IS NULL) AS agents";
}

/// Maximum number of agents listed with a policy, or with all policies of a list.
const SHOWN: i64 = 500;
/// Maximum number of agents named in the reason of a spared response.
const NAMED: usize = 3;

#[derive(sqlx::FromRow)]
struct BreakerState {
    is_open: bool,
    reason: String,
    changed_at: i64,
}

#[derive(sqlx::FromRow)]
struct Ratio {
    whole: i64,
    part: i64,
}

#[derive(sqlx::FromRow)]
struct FailuresRow {
    agent_id: String,
    name: String,
    whole: i64,
    part: i64,
}

/// Where a policy's breaker is open, and why.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Stopped {
    /// Reason, if open globally.
    pub(in crate::store) everywhere: Option<String>,
    /// Reason per agent.
    pub(in crate::store) on: HashMap<Uuid, String>,
}

impl Stopped {
    /// Removes agents with an open breaker from `agents`. Returns the reason if any were removed.
    pub(in crate::store) fn take_out(&self, agents: &mut Vec<Uuid>) -> Option<String> {
        let mut why: Vec<&str> = agents.iter().filter_map(|agent| self.on.get(agent)).map(String::as_str).collect();
        if why.is_empty() {
            return None;
        }
        agents.retain(|agent| !self.on.contains_key(agent));
        let more = why.len().saturating_sub(NAMED);
        why.truncate(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Some(format!("{}{more}", why.join("; ")))
    }
}

/// Reads where the policy's breaker is open. It opens here, at the first response after a ratio is
/// reached.
pub(in crate::store) async fn look(
    ledger: &mut LedgerTx,
    name: &str,
    breaker: &Breaker,
    now: Timestamp,
) -> Result<Stopped> {
    let stands: Option<BreakerState> = ledger.tx.optional(STANDS, binds![name]).await?;
    if let Some(open) = stands.as_ref().filter(|stands| stands.is_open) {
        return Ok(Stopped { everywhere: Some(open.reason.clone()), on: HashMap::new() });
    }
    let reset = stands.map_or(Timestamp::from_millis(0), |closed| Timestamp::from_millis(closed.changed_at));
    let since = now.minus(breaker.within.duration()).max(reset);
    let mut stopped = Stopped::default();
    for row in ledger.tx.all::<AgentBreakerRow>(AGENTS_OF_POLICY, binds![name, i64::MAX]).await? {
        stopped.on.insert(id(&row.agent_id)?, row.reason);
    }
    if let Some(share) = breaker.failed {
        let rows: Vec<FailuresRow> = ledger.tx.all(FAILED_BY_AGENT, binds![name, since]).await?;
        let all = rows.into_iter().map(Failures::try_from).collect::<Result<Vec<_>>>()?;
        if let Some(WholeFailures { failed, whole, agents }) = whole_over(share, breaker.at_least, &all) {
            let reason = format!("{failed} of {whole} commands failed within {}, on {agents} agents", breaker.within);
            return stop(ledger, name, reason, now).await;
        }
        for Failures { agent, name: agent_name, failed, whole } in agents_over(share, breaker.at_least, &all) {
            if !stopped.on.contains_key(agent) {
                let ratio = format!("{failed} of {whole} commands failed within {}", breaker.within);
                let reason = format!("on agent {agent_name}: {ratio}");
                ledger.tx.execute(SET_AGENT, binds![name, *agent, reason.as_str(), now]).await?;
                tracing::error!(policy = name, %agent, "policy {name} stops itself {reason}");
                record(ledger, AuditEvent::PolicyStopped, name, &Actor::Riposte, &reason, now);
                stopped.on.insert(*agent, reason);
            }
        }
    }
    if let Some(share) = breaker.undone
        && let Some(Ratio { whole, part }) = ledger.tx.optional::<Ratio>(UNDONE_SINCE, binds![name, since]).await?
    {
        let (part, whole) = (unsigned(part), unsigned(whole));
        if whole >= u64::from(breaker.at_least) && share.is_reached(part, whole) {
            let reason = format!("{part} of {whole} responses were undone by people within {}", breaker.within);
            return stop(ledger, name, reason, now).await;
        }
    }
    Ok(stopped)
}

async fn stop(ledger: &mut LedgerTx, name: &str, reason: String, now: Timestamp) -> Result<Stopped> {
    ledger.tx.execute(SET, binds![name, true, reason.as_str(), now, &Actor::Riposte]).await?;
    tracing::error!(policy = name, "policy {name} stops itself: {reason}");
    record(ledger, AuditEvent::PolicyStopped, name, &Actor::Riposte, &reason, now);
    Ok(Stopped { everywhere: Some(reason), on: HashMap::new() })
}

impl TryFrom<FailuresRow> for Failures {
    type Error = StoreError;

    fn try_from(row: FailuresRow) -> Result<Self> {
        let FailuresRow { agent_id, name, whole, part } = row;
        Ok(Self { agent: id(&agent_id)?, name, failed: unsigned(part), whole: unsigned(whole) })
    }
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Opens the breakers of policies whose ratio is reached, so that operators learn of it before the
/// next alert. Returns the number of open breakers.
pub(in crate::store) async fn trip(ledger: &mut LedgerTx, policies: &[Arc<Policy>], now: Timestamp) -> Result<usize> {
    let mut open = 0;
    for policy in policies {
        if let Some(breaker) = &policy.guardrails.breaker {
            let stopped = look(ledger, &policy.name, breaker, now).await?;
            open += usize::from(stopped.everywhere.is_some() || !stopped.on.is_empty());
        }
    }
    Ok(open)
}

/// The global breaker of a policy, if it ever opened.
///
/// # Errors
/// If the store cannot be read.
pub async fn of_policy(db: &Db, policy: &str) -> Result<Option<BreakerRow>> {
    db.optional(OF_POLICY, binds![policy]).await
}

/// The open breakers of a policy on single agents, at most 500.
///
/// # Errors
/// If the store cannot be read.
pub async fn agents_of_policy(db: &Db, policy: &str) -> Result<Vec<AgentBreakerRow>> {
    db.all(AGENTS_OF_POLICY, binds![policy, SHOWN]).await
}

/// Every open global breaker.
///
/// # Errors
/// If the store cannot be read.
pub async fn open_policies(db: &Db) -> Result<Vec<BreakerRow>> {
    db.all(OPEN, vec![]).await
}

/// The open breakers of all policies on single agents, at most 500.
///
/// # Errors
/// If the store cannot be read.
pub async fn open_agents(db: &Db) -> Result<Vec<AgentBreakerRow>> {
    db.all(AGENTS_OPEN, binds![SHOWN]).await
}

/// Numbers of open breakers.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct OpenBreakers {
    /// Global breakers.
    pub policies: i64,
    /// Breakers on one agent.
    pub agents: i64,
}

/// Counts open breakers, for the metrics.
///
/// # Errors
/// If the store cannot be read.
pub async fn open(db: &Db) -> Result<OpenBreakers> {
    db.optional(OPEN_COUNTS, vec![]).await?.ok_or(StoreError::NotFound)
}

/// Closes a breaker, globally or on one agent, and resets its counts.
///
/// # Errors
/// [`StoreError::Conflict`] if it is not open there.
pub async fn reset(
    ledger: &mut LedgerTx,
    policy: &str,
    agent: Option<(Uuid, &str)>,
    by: &Actor,
    reason: &str,
    now: Timestamp,
) -> Result<()> {
    let agent_id = agent.map(|(agent, _)| agent);
    let closed = ledger.tx.execute(RESET_AGENTS, binds![policy, reason, now, by, agent_id]).await?;
    let stands: Option<BreakerState> = ledger.tx.optional(STANDS, binds![policy]).await?;
    let is_open = agent.is_none() && stands.is_some_and(|stands| stands.is_open);
    if closed == 0 && !is_open {
        return Err(StoreError::Conflict);
    }
    let detail = match agent {
        // Also if only agents were stopped: their earlier failures no longer count globally either.
        None => {
            ledger.tx.execute(SET, binds![policy, false, reason, now, by]).await?;
            reason.to_owned()
        }
        Some((_, name)) => format!("on agent {name}: {reason}"),
    };
    record(ledger, AuditEvent::PolicyReset, policy, by, &detail, now);
    Ok(())
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, policy: &str, by: &Actor, reason: &str, now: Timestamp) {
    let (noun_id, detail) = (policy.to_owned(), reason.to_owned());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
}
