//! Checks of an agent's identity by its command numbers and runs. They detect a ledger older than
//! the agent's journal, a host restored to an earlier state, and two hosts with one identity.

use std::collections::BTreeSet;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::settle;
use super::story::escape;
use crate::domain::actor::Actor;
use crate::domain::agent::reason_words;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::command::CommandState;
use crate::store::database::columns::id;
use crate::store::database::{Result, binds, statements};
use crate::store::seals::sets::COMMANDS;

statements! {
    SET_INCIDENT = "UPDATE agents SET incident = $2 WHERE id = $1 AND incident IS NULL";
    LAST_REJECTED = "SELECT rejected_at FROM agents WHERE id = $1";
    REJECT = "UPDATE agents SET rejected_orders = rejected_orders + $2, rejected_reason = $3, rejected_at = $4
        WHERE id = $1 AND (rejected_at IS NULL OR rejected_at <= $5)";
    NUMBER = "SELECT last_seq FROM agents WHERE id = $1";
    SET_NUMBER = "UPDATE agents SET last_seq = $2 WHERE id = $1 AND last_seq < $2";
    UNSENT = "SELECT id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments, until, created_at,
            expires_at, seal
        FROM commands WHERE agent_id = $1 AND state = 'queued' AND deliveries = 0 AND seq <= $2 ORDER BY seq";
    RENUMBER = "UPDATE commands SET seq = $2 WHERE id = $1";
    RENUMBERED = "SELECT id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments, until, created_at,
            expires_at, seal
        FROM commands WHERE id = $1";
    RESEAL = "UPDATE commands SET seal = $2 WHERE id = $1";
    OVERTAKE = "UPDATE commands SET state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE 'expired' END, detail = $3,
            finished_at = $4
        WHERE agent_id = $1 AND state IN ('queued', 'delivered') AND one_shot = FALSE AND EXISTS (
            SELECT 1 FROM commands AS newer WHERE newer.effect_id = commands.effect_id AND newer.seq > commands.seq
                AND newer.seq > $2 AND (newer.acknowledged_at IS NOT NULL OR newer.state IN ('succeeded', 'failed')))
        RETURNING id, state";
    TAKEN_IN = "SELECT seq AS last_seq FROM commands WHERE agent_id = $1
            AND (acknowledged_at IS NOT NULL OR state IN ('succeeded', 'failed'))
        ORDER BY seq DESC LIMIT 1";
    /// Of few agents of a group, if of any.
    ACCEPT = "UPDATE agents SET rejected_at = NULL, rejected_reason = NULL, rejected_orders = 0
    WHERE rejected_at IS NOT NULL AND id IN (VALUES {1}) RETURNING id";
}

#[derive(sqlx::FromRow)]
struct Number {
    last_seq: i64,
}

#[derive(sqlx::FromRow)]
struct CommandId {
    id: String,
}

#[derive(sqlx::FromRow)]
struct Overtaken {
    id: String,
    state: CommandState,
}

/// Largest plausible lead of an agent's numbers over the ledger; beyond it the number is invalid,
/// not a sign of a restored ledger.
const MAX_AHEAD: i64 = 1 << 32;

/// Advances the sequence to `cursor`, the highest number in the agent's journal. A ledger restored
/// from a backup is behind it, and the agent would take new commands with old numbers for
/// repetitions. Commands that were never sent are renumbered too.
pub(super) async fn advance_sequence(ledger: &mut LedgerTx, agent: Uuid, cursor: u64, now: Timestamp) -> Result<()> {
    let Some(number) = ledger.tx.optional::<Number>(NUMBER, binds![agent]).await? else { return Ok(()) };
    let cursor = i64::try_from(cursor).unwrap_or(i64::MAX);
    let ahead = cursor.saturating_sub(number.last_seq);
    if ahead > MAX_AHEAD {
        tracing::warn!(%agent, cursor, "agent {agent} reports a command number that is too high to be valid");
    } else if ahead > 0 {
        // One that another program changed keeps its number, and is never sent.
        let unsent: Vec<CommandId> = ledger.sealed(&COMMANDS, UNSENT, binds![agent, cursor]).await?;
        let mut next = cursor;
        for command in &unsent {
            next += 1;
            ledger.tx.execute(RENUMBER, binds![command.id.as_str(), next]).await?;
            ledger.seal_again(&COMMANDS, RENUMBERED, RESEAL, command.id.as_str()).await?;
        }
        ledger.tx.execute(SET_NUMBER, binds![agent, next]).await?;
        let detail = format!("the agent has seen number {cursor}, the ledger only {}", number.last_seq);
        tracing::warn!(%agent, "this ledger is older than agent {agent}'s journal: {detail}");
        record(ledger, AuditEvent::AgentAdvanced, agent, detail, now);
    }
    Ok(())
}

/// Records a rollback: the agent lost commands that it had acknowledged, because its host was
/// restored. It also lost which commands were superseded, so those end here. One-shot commands sent
/// to the earlier state end too.
pub(super) async fn detect_rollback(ledger: &mut LedgerTx, agent: Uuid, cursor: u64, now: Timestamp) -> Result<()> {
    let known = ledger.tx.optional::<Number>(TAKEN_IN, binds![agent]).await?.map_or(0, |row| row.last_seq);
    let cursor = i64::try_from(cursor).unwrap_or(i64::MAX);
    if cursor < known {
        let detail = format!("the agent had acknowledged number {known} and now reports {cursor}");
        tracing::warn!(%agent, "agent {agent} was restored from an earlier state: {detail}");
        record(ledger, AuditEvent::AgentRestored, agent, detail, now);
        let detail = "the agent had a newer command of the same effect, and has lost it";
        let overtaken: Vec<Overtaken> = ledger.tx.all(OVERTAKE, binds![agent, cursor, detail, now]).await?;
        for Overtaken { id, state } in overtaken {
            let is_cancelled = state == CommandState::Cancelled;
            let event = if is_cancelled { AuditEvent::CommandCancelled } else { AuditEvent::CommandExpired };
            let (actor, detail) = (Actor::Riposte, detail.to_owned());
            ledger.record(AuditEntry { at: now, actor, event, noun_id: id, detail });
        }
        settle::forget_one_shots(ledger, agent, known, now).await?;
    }
    Ok(())
}

/// Records a clone: two hosts use one identity. Returns whether this is new.
pub async fn flag_clone(ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> Result<bool> {
    let detail = "two hosts use this identity: revoke the agent and enrol each host anew";
    let is_news = ledger.tx.execute(SET_INCIDENT, binds![agent, detail]).await? > 0;
    if is_news {
        tracing::error!(%agent, "agent {agent}: {detail}");
        record(ledger, AuditEvent::AgentCloned, agent, detail.to_owned(), now);
    }
    Ok(is_news)
}

/// Commands of this manager that an agent rejected.
#[derive(Clone, Debug)]
pub struct RejectedCount {
    /// Number of rejected commands.
    pub count: i64,
    /// The most frequent reason, as one word.
    pub reason: &'static str,
    /// Key id that signed the last of them, as the command states it.
    pub kid: Option<String>,
}

/// After this time without a rejection, the agent counts as healthy again.
pub const REJECTS_FOR: Duration = Duration::from_hours(1);
/// Minimum interval between counted reports; a correct agent reports at most every ten seconds.
const TOLD_EVERY: Duration = Duration::from_secs(5);

#[derive(sqlx::FromRow)]
struct LastRejected {
    rejected_at: Option<i64>,
}

/// Records that an agent rejects this manager's commands: an incident until an hour passes without
/// one ([`REJECTS_FOR`]). Log and audit log say it once.
pub(in crate::store) async fn reject(
    ledger: &mut LedgerTx,
    agent: Uuid,
    rejected: &RejectedCount,
    now: Timestamp,
) -> Result<()> {
    let RejectedCount { count, reason, kid } = rejected;
    let last: Option<LastRejected> = ledger.tx.optional(LAST_REJECTED, binds![agent]).await?;
    let last = last.and_then(|row| row.rejected_at).map(Timestamp::from_millis);
    let noted = ledger.tx.execute(REJECT, binds![agent, *count, *reason, now, now.minus(TOLD_EVERY)]).await? > 0;
    if noted && last.is_none_or(|at| at <= now.minus(REJECTS_FOR)) {
        let key = kid.as_ref().map_or_else(String::new, |kid| format!(" (key {})", escape(kid)));
        let detail = format!("{count} orders{key}: {}", reason_words(reason));
        let name = ledger.name_of(agent);
        tracing::error!(%agent, reason, "agent {name} rejects this manager's commands, so none is carried out there: {detail}");
        record(ledger, AuditEvent::AgentOrdersRejected, agent, detail, now);
    }
    Ok(())
}

/// Notes that these agents have carried out orders, so none of them rejects this manager's orders any
/// more. Orders that expire on a slow network look like those of a wrong clock, until the next one
/// arrives in time.
pub(in crate::store) async fn accept(ledger: &mut LedgerTx, agents: BTreeSet<Uuid>, now: Timestamp) -> Result<()> {
    if agents.is_empty() {
        return Ok(());
    }
    let rows = agents.into_iter().map(|agent| binds![agent]).collect();
    let accepting: Vec<AgentId> = ledger.tx.each_row(ACCEPT, rows, vec![]).await?;
    for AgentId { id: agent } in accepting {
        let agent = id(&agent)?;
        tracing::info!(%agent, "agent {} carries out this manager's commands again", ledger.name_of(agent));
        record(ledger, AuditEvent::AgentOrdersAccepted, agent, String::new(), now);
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct AgentId {
    id: String,
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, agent: Uuid, detail: String, now: Timestamp) {
    let (actor, noun_id) = (Actor::Riposte, agent.to_string());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
