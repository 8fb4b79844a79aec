//! What becomes of a command after it was queued: sent, acknowledged, answered, or given up. Every change names the
//! states it expects in its WHERE, so that a late or repeated message changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, MAX_OUTPUT_BYTES, Outcome};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::columns::id;
use super::db::{Bind, Result, StoreError, binds, statements};
use crate::domain::audit::Entry;
use crate::domain::command::CommandState;
use crate::domain::effect::Actual;

statements! {
    SET_STATE = "UPDATE commands SET state = $3, finished_at = $4 WHERE id = $1 AND state = $2";
    INSERT_RESULT = "INSERT INTO results (command_id, outcome, exit_code, output, verified, message, started_at,
            finished_at, received_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (command_id) DO NOTHING";
    SET_ACTUAL = "UPDATE effects SET actual = $3, actual_seq = $2, failed_reverts = 0, changed_at = $4
        WHERE id = $1 AND actual_seq <= $2";
    REVERT_DONE = "UPDATE effects SET actual = $3, actual_seq = $2, failed_reverts = 0, next_revert_at = NULL, changed_at = $4
        WHERE id = $1 AND actual_seq <= $2";
    REVERT_FAILED = "UPDATE effects SET actual = $3, actual_seq = $2, failed_reverts = failed_reverts + 1,
            next_revert_at = CASE WHEN desired = 'absent' THEN $4 ELSE NULL END, changed_at = $5
        WHERE id = $1 AND actual_seq <= $2";
    LIFT_STRAY = "UPDATE effects SET next_revert_at = $2
        WHERE id = $1 AND desired = 'absent' AND actual <> 'absent' AND next_revert_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM commands WHERE effect_id = $1 AND op = 'revert' AND seq > $3
                AND state IN ('queued', 'delivered', 'acknowledged'))";
    FAILED_REVERTS = "SELECT failed_reverts AS count FROM effects WHERE id = $1";
    OVERDUE = "SELECT id, agent_id, seq, effect_id, op, state FROM commands
        WHERE state IN ('queued', 'delivered') AND expires_at <= $1 AND (lease_until IS NULL OR lease_until <= $1)
        ORDER BY expires_at LIMIT $2";
    UNANSWERED = "SELECT id, agent_id, seq, effect_id, op, state FROM commands
        WHERE state = 'acknowledged' AND acknowledged_at <= $1 ORDER BY acknowledged_at LIMIT $2";
    CANCEL = "UPDATE commands SET state = 'cancelled', detail = $2, finished_at = $3
        WHERE id = $1 AND state = 'queued' AND op = 'apply' RETURNING effect_id AS id";
    GIVE_UP = "UPDATE commands SET state = $3, detail = $4, finished_at = $5 WHERE id = $1 AND state = $2";
    UNKNOWN_ACTUAL = "UPDATE effects SET actual = 'unknown', changed_at = $2 WHERE id = $1";
}

const DELIVERED: &str = "UPDATE commands SET state = 'delivered', lease_until = $1, deliveries = deliveries + 1,
    delivered_at = COALESCE(delivered_at, $2)
    WHERE state IN ('queued', 'delivered') AND id IN (";
const ACKNOWLEDGE: &str = "UPDATE commands SET state = 'acknowledged', acknowledged_at = $2, lease_until = NULL
    WHERE agent_id = $1 AND state IN ('queued', 'delivered') AND id IN (";
const FIND: &str = "SELECT id, agent_id, seq, effect_id, op, state FROM commands WHERE agent_id = $1 AND id IN (";

/// How long an agent may take to answer what it has acknowledged: the longest execution and a lost connection.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// The first wait before a failed revert is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest wait between two reverts.
const RETRY_MAX: Duration = Duration::from_secs(300);

#[derive(sqlx::FromRow)]
struct CommandBrief {
    id: String,
    agent_id: String,
    seq: i64,
    effect_id: String,
    op: String,
    state: String,
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// Commands were handed to an agent's connection.
pub(super) async fn delivered(
    ledger: &mut LedgerTx,
    commands: &[Uuid],
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    let rows = commands.iter().map(|command| binds![*command]).collect();
    ledger.tx.execute_rows(DELIVERED, rows, ")", &binds![lease_until, now]).await
}

/// An agent has commands in its journal. Ids that are not its own, or not owed any more, are passed over.
pub(super) async fn acknowledge(ledger: &mut LedgerTx, agent: Uuid, commands: &[Uuid], now: Timestamp) -> Result<()> {
    let rows = commands.iter().map(|command| binds![*command]).collect();
    let first = binds![agent, now];
    let acknowledged: Vec<Id> = ledger.tx.each_row(ACKNOWLEDGE, rows, ") RETURNING id", &first).await?;
    for row in acknowledged {
        record(ledger, format!("agent:{agent}"), "acknowledged", row.id, String::new(), now);
    }
    Ok(())
}

/// An agent says how commands ended. Repetitions and ids that are not its own change nothing.
pub(super) async fn settle(
    ledger: &mut LedgerTx,
    agent: Uuid,
    results: Vec<CommandResult>,
    now: Timestamp,
) -> Result<()> {
    let rows: Vec<Vec<Bind>> = results.iter().map(|result| binds![result.command_id]).collect();
    let found: Vec<CommandBrief> = ledger.tx.each_row(FIND, rows, ")", &binds![agent]).await?;
    let found: HashMap<Uuid, CommandBrief> =
        found.into_iter().map(|row| id(&row.id).map(|id| (id, row))).collect::<Result<_>>()?;
    for result in results {
        let Some(command) = found.get(&result.command_id) else {
            tracing::warn!(%agent, command = %result.command_id, "agent {agent} answered a command that is not its own");
            continue;
        };
        let state = CommandState::parse(&command.state).ok_or_else(|| corrupt(command))?;
        let next = CommandState::from(result.outcome);
        if !state.can_become(next) {
            continue;
        }
        let finished = now;
        let changed =
            ledger.tx.execute(SET_STATE, binds![result.command_id, state.as_str(), next.as_str(), finished]).await?;
        if changed == 0 {
            continue;
        }
        move_effect(ledger, command, &result, now).await?;
        let detail = result_detail(&result);
        record(ledger, format!("agent:{agent}"), next.as_str(), command.id.clone(), detail, now);
        insert_result(ledger, result, now).await?;
    }
    Ok(())
}

fn result_detail(result: &CommandResult) -> String {
    let verified = match result.verified {
        Some(true) => "verified",
        Some(false) => "not as it should be",
        None => "not verified",
    };
    let exit = result.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
    format!("{verified}{exit}: {}", result.message)
}

async fn insert_result(ledger: &mut LedgerTx, result: CommandResult, now: Timestamp) -> Result<()> {
    let CommandResult { command_id, outcome, exit_code, output, verified, message, started_at, finished_at } = result;
    // A NUL cannot be stored as text by PostgreSQL, and an agent may be older or newer than our bound.
    let text = |text: String| text[..text.floor_char_boundary(MAX_OUTPUT_BYTES)].replace('\0', "\u{fffd}");
    let (exit_code, output, message) = (exit_code.map(i64::from), text(output), text(message));
    let head = binds![command_id, outcome.as_str(), exit_code, output, verified, message];
    let binds = [head, binds![started_at, finished_at, now]].concat();
    ledger.tx.execute(INSERT_RESULT, binds).await?;
    Ok(())
}

/// What a result says about the effect. Only the newest command's word counts: `actual_seq` guards against results
/// that arrive out of order.
async fn move_effect(
    ledger: &mut LedgerTx,
    command: &CommandBrief,
    result: &CommandResult,
    now: Timestamp,
) -> Result<()> {
    let (effect, seq) = (command.effect_id.as_str(), command.seq);
    let actual = |actual: Actual| binds![effect, seq, actual.as_str(), now];
    match (Op::parse(&command.op).ok_or_else(|| corrupt(command))?, result.outcome) {
        (Op::Apply, Outcome::Succeeded) => {
            // Nobody looked (an observing agent, an action that cannot be looked at): nothing is claimed.
            let found = match result.verified {
                Some(true) => Actual::InForce,
                Some(false) => Actual::Drifted,
                None => Actual::Unknown,
            };
            ledger.tx.execute(SET_ACTUAL, actual(found)).await?;
        }
        (Op::Apply, Outcome::Failed | Outcome::TimedOut) => {
            let found = if result.verified == Some(true) { Actual::InForce } else { Actual::Absent };
            ledger.tx.execute(SET_ACTUAL, actual(found)).await?;
        }
        // Nothing was done, so what was in force before still is; a first apply leaves nothing.
        (Op::Apply, Outcome::Refused) => {
            const REFUSED: &str =
                "UPDATE effects SET actual = 'absent', changed_at = $2 WHERE id = $1 AND actual = 'unknown'";
            ledger.tx.execute(REFUSED, binds![effect, now]).await?;
        }
        (Op::Revert, Outcome::Succeeded) if result.verified != Some(false) => {
            ledger.tx.execute(REVERT_DONE, actual(Actual::Absent)).await?;
        }
        (Op::Revert, _) => revert_failed(ledger, command, now).await?,
    }
    // An apply that came into force after everybody had let go of it must be lifted again.
    ledger.tx.execute(LIFT_STRAY, binds![effect, now, seq]).await?;
    Ok(())
}

async fn revert_failed(ledger: &mut LedgerTx, command: &CommandBrief, now: Timestamp) -> Result<()> {
    let failed: Option<Count> = ledger.tx.optional(FAILED_REVERTS, binds![command.effect_id.as_str()]).await?;
    let failed = u32::try_from(failed.map_or(0, |row| row.count)).unwrap_or(0);
    let wait = RETRY_MIN.saturating_mul(1 << failed.min(10)).min(RETRY_MAX);
    let binds = binds![command.effect_id.as_str(), command.seq, Actual::Drifted.as_str(), now.plus(wait), now];
    ledger.tx.execute(REVERT_FAILED, binds).await?;
    let (effect, agent) = (&command.effect_id, &command.agent_id);
    tracing::error!(effect, agent, "effect {effect} on agent {agent} could not be lifted, trying again in {wait:?}");
    Ok(())
}

/// Gives up commands that were not acknowledged in time, at most `limit`; gives how many.
pub(super) async fn expire(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<usize> {
    let overdue: Vec<CommandBrief> = ledger.tx.all(OVERDUE, binds![now, limit]).await?;
    for command in &overdue {
        let detail = "no agent acknowledged it in time";
        give_up(ledger, command, CommandState::Expired, detail, now).await?;
    }
    Ok(overdue.len())
}

/// Gives up commands that were acknowledged and never answered, at most `limit`; gives how many.
pub(super) async fn time_out(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<usize> {
    let unanswered: Vec<CommandBrief> = ledger.tx.all(UNANSWERED, binds![now.minus(ANSWER_TIMEOUT), limit]).await?;
    for command in &unanswered {
        let detail = "the agent acknowledged it and never said how it ended";
        give_up(ledger, command, CommandState::TimedOut, detail, now).await?;
        if Op::parse(&command.op) == Some(Op::Revert) {
            revert_failed(ledger, command, now).await?;
        } else {
            ledger.tx.execute(UNKNOWN_ACTUAL, binds![command.effect_id.as_str(), now]).await?;
        }
    }
    Ok(unanswered.len())
}

async fn give_up(
    ledger: &mut LedgerTx,
    command: &CommandBrief,
    state: CommandState,
    detail: &str,
    now: Timestamp,
) -> Result<()> {
    let binds = binds![command.id.as_str(), command.state.as_str(), state.as_str(), detail, now];
    ledger.tx.execute(GIVE_UP, binds).await?;
    record(ledger, "riposte".into(), state.as_str(), command.id.clone(), detail.into(), now);
    Ok(())
}

/// Calls back an apply that was not sent yet.
///
/// # Errors
/// [`StoreError::Conflict`] if it was sent, is over, or is a revert (which is owed whatever anybody says).
pub async fn cancel(ledger: &mut LedgerTx, command: Uuid, by: &str, reason: &str, now: Timestamp) -> Result<()> {
    let cancelled: Option<Id> = ledger.tx.optional(CANCEL, binds![command, reason, now]).await?;
    if cancelled.is_none() {
        return Err(StoreError::Conflict);
    }
    record(ledger, by.into(), "cancelled", command.to_string(), reason.into(), now);
    Ok(())
}

fn record(ledger: &mut LedgerTx, actor: String, verb: &'static str, command: String, detail: String, now: Timestamp) {
    ledger.record(Entry { at: now, actor, verb, noun: "command", noun_id: command, detail });
}

fn corrupt(command: &CommandBrief) -> StoreError {
    StoreError::Corrupt(format!("command {}", command.id))
}
