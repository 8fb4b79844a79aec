//! A command after it was queued: sent, acknowledged, answered, or given up. Every change states
//! the expected states in its WHERE, so late or repeated messages change nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::failures;
use super::holds::{self, EndReason};
use super::story::{self, About};
use crate::domain::audit::AuditEntry;
use crate::domain::command::CommandState;
use crate::domain::effect::Actual;
use crate::domain::outcome::LastApply;
use crate::store::database::columns::id;
use crate::store::database::{Bind, Result, StoreError, binds, statements};

mod news;
use crate::domain::response::Hold;
pub(in crate::store) use news::short;
use news::{ResultNews, is_observed, text};

statements! {
    REVERT_FAILED = "UPDATE effects SET actual = 'drifted', actual_seq = $2, failed_reverts = failed_reverts + 1,
            next_revert_at = CASE WHEN desired = 'absent' THEN $3 ELSE NULL END, changed_at = $4
        WHERE id = $1 AND actual_seq <= $2";
    FAILED_REVERTS = "SELECT failed_reverts AS count FROM effects WHERE id = $1";
    OVERDUE = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands
        WHERE state IN ('queued', 'delivered') AND expires_at <= $1 AND (lease_until IS NULL OR lease_until <= $1)
        ORDER BY expires_at LIMIT $2";
    UNANSWERED = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands
        WHERE state = 'acknowledged' AND acknowledged_at <= $1 ORDER BY acknowledged_at LIMIT $2";
    CANCEL = "UPDATE commands SET state = 'cancelled', detail = $2, finished_at = $3
        WHERE id = $1 AND state = 'queued' AND op = 'apply'";
    OPEN_OF_AGENT = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands
        WHERE agent_id = $1 AND state IN ('queued', 'delivered') ORDER BY seq";
    SENT_ONE_SHOTS = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands
        WHERE agent_id = $1 AND state IN ('queued', 'delivered') AND state = 'delivered' AND one_shot = TRUE AND seq <= $2
        ORDER BY seq";
    EFFECT_OF = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands WHERE id = $1";
}

const DELIVERED: &str = "UPDATE commands SET state = 'delivered', lease_until = CAST(v.column2 AS BIGINT),
    deliveries = deliveries + CAST(v.column4 AS BIGINT), delivered_at = COALESCE(delivered_at, CAST(v.column3 AS BIGINT)) FROM (";
const DELIVERED_AFTER: &str = ") AS v WHERE commands.id = v.column1 AND state IN ('queued', 'delivered')";
const ACKNOWLEDGE: &str = "UPDATE commands SET state = 'acknowledged', acknowledged_at = CAST(v.column3 AS BIGINT),
    lease_until = NULL FROM (";
const ACKNOWLEDGE_AFTER: &str = ") AS v WHERE commands.id = v.column1 AND agent_id = v.column2
    AND state IN ('queued', 'delivered') RETURNING commands.id, agent_id, response_id, op, action, target_kind, target_value";
const FIND: &str = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands WHERE (id, agent_id) IN (";
const FIND_OPEN: &str = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands
    WHERE state IN ('queued', 'delivered') AND id IN (";
const GIVE_UP: &str =
    "UPDATE commands SET state = v.column3, detail = v.column4, finished_at = CAST(v.column5 AS BIGINT) FROM (";
const GIVE_UP_AFTER: &str = ") AS v WHERE commands.id = v.column1 AND state = v.column2";
const LOSE: &str = "UPDATE effects SET actual = v.column2, changed_at = CAST(v.column3 AS BIGINT),
    last_apply = v.column5, last_reason = v.column6 FROM (";
const LOSE_AFTER: &str = ") AS v WHERE effects.id = v.column1 AND actual_seq <= CAST(v.column4 AS BIGINT)";
const SET_STATES: &str = "UPDATE commands SET state = v.column3, finished_at = CAST(v.column4 AS BIGINT) FROM (";
const SET_STATES_AFTER: &str = ") AS v WHERE commands.id = v.column1 AND state = v.column2";
const INSERT_RESULTS: &str = "INSERT INTO results (command_id, outcome, exit_code, output, verified, message,
    started_at, finished_at, received_at, observed, evidence)";
/// Reached only for allowed replacements, such as a result after a withdrawn refusal.
const REPLACE_RESULTS: &str = " ON CONFLICT (command_id) DO UPDATE SET outcome = excluded.outcome, exit_code = excluded.exit_code,
    output = excluded.output, verified = excluded.verified, message = excluded.message, started_at = excluded.started_at,
    finished_at = excluded.finished_at, received_at = excluded.received_at, observed = excluded.observed,
    evidence = excluded.evidence";
/// A refused apply changes nothing: the earlier state stays, and `if_unknown` covers a first apply.
/// An apply that succeeded after its last hold ended must be reverted: `next_revert_at`.
const SET_ACTUALS: &str = "UPDATE effects SET actual = CASE WHEN v.column4 = 'if_unknown'
        AND (actual <> 'unknown' OR last_apply = 'unverified') THEN actual ELSE v.column3 END,
    last_apply = CASE WHEN v.column6 IS NULL OR (v.column4 = 'if_unknown'
        AND (actual = 'in_force' OR last_apply = 'unverified')) THEN last_apply ELSE v.column6 END,
    last_reason = CASE WHEN v.column6 IS NULL THEN last_reason ELSE v.column7 END,
    in_force_at = CASE WHEN v.column6 IN ('verified', 'unverified')
        THEN COALESCE(in_force_at, CAST(v.column5 AS BIGINT)) ELSE in_force_at END,
    actual_seq = CAST(v.column2 AS BIGINT), failed_reverts = 0, changed_at = CAST(v.column5 AS BIGINT),
    next_revert_at = CASE
        WHEN v.column4 = 'revert' THEN NULL
        WHEN desired = 'absent' AND v.column3 <> 'absent' AND next_revert_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM commands WHERE commands.effect_id = effects.id AND op = 'revert'
                AND state IN ('queued', 'delivered', 'acknowledged')) THEN CAST(v.column5 AS BIGINT)
        ELSE next_revert_at END FROM (";
const SET_ACTUALS_AFTER: &str = ") AS v WHERE effects.id = v.column1 AND actual_seq <= CAST(v.column2 AS BIGINT)";
/// Time limit for a result after the acknowledgement: the longest execution and a lost connection.
pub const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// First delay before a failed revert is retried; doubles up to [`RETRY_MAX`].
pub(super) const RETRY_MIN: Duration = Duration::from_secs(2);
/// Maximum delay between two reverts.
const RETRY_MAX: Duration = Duration::from_mins(5);

#[derive(Clone, sqlx::FromRow)]
struct CommandBrief {
    id: String,
    agent_id: String,
    seq: i64,
    effect_id: String,
    response_id: String,
    op: String,
    state: String,
    one_shot: bool,
    action: String,
    target_kind: String,
    target_value: String,
}

impl CommandBrief {
    /// Context for log lines.
    fn about(&self) -> About {
        about(&self.agent_id, &self.response_id, &self.action, (&self.target_kind, &self.target_value))
    }

    /// Whether it may have reached the agent.
    fn was_sent(&self) -> bool {
        self.state != CommandState::Queued.as_str()
    }

    /// Whether it is an apply with a lasting effect.
    fn leaves_something(&self) -> bool {
        Op::parse(&self.op) == Some(Op::Apply) && !self.one_shot
    }
}

#[derive(sqlx::FromRow)]
struct Acknowledged {
    id: String,
    agent_id: String,
    response_id: String,
    op: String,
    action: String,
    target_kind: String,
    target_value: String,
}

fn about(agent: &str, response: &str, action: &str, (kind, value): (&str, &str)) -> About {
    About {
        agent: agent.parse().ok(),
        response: Some(response.to_owned()),
        action: Some(action.to_owned()),
        target: story::target(kind, value),
        ..About::default()
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// Records deliveries with the end of their leases.
pub(in crate::store) async fn delivered(
    ledger: &mut LedgerTx,
    sent: Vec<(Uuid, Timestamp)>,
    now: Timestamp,
) -> Result<()> {
    // A command may be sent twice within one group.
    let mut times: BTreeMap<Uuid, (Timestamp, i64)> = BTreeMap::new();
    for (command, lease_until) in sent {
        let entry = times.entry(command).or_insert((lease_until, 0));
        *entry = (entry.0.max(lease_until), entry.1 + 1);
    }
    let rows =
        times.into_iter().map(|(command, (lease_until, count))| binds![command, lease_until, now, count]).collect();
    ledger.tx.execute_rows(DELIVERED, rows, DELIVERED_AFTER, vec![]).await?;
    Ok(())
}

/// Records acknowledgements. Commands of other agents, or no longer pending, are ignored.
pub(in crate::store) async fn acknowledge(
    ledger: &mut LedgerTx,
    acks: Vec<(Uuid, Uuid)>,
    now: Timestamp,
) -> Result<()> {
    let rows = acks.into_iter().map(|(agent, command)| binds![command, agent, now]).collect();
    let acknowledged: Vec<Acknowledged> = ledger.tx.each_row(ACKNOWLEDGE, rows, ACKNOWLEDGE_AFTER, vec![]).await?;
    for row in acknowledged {
        let about = about(&row.agent_id, &row.response_id, &row.action, (&row.target_kind, &row.target_value));
        let (actor, detail) = (format!("agent:{}", row.agent_id), row.op);
        record_about(ledger, actor, "acknowledged", row.id, detail, about, now);
    }
    Ok(())
}

/// Records results. Duplicates and commands of other agents change nothing. Returns the agents with
/// new commands.
pub(in crate::store) async fn settle(
    ledger: &mut LedgerTx,
    results: Vec<(Uuid, CommandResult)>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let results = last_words(results);
    let rows = results.iter().map(|(agent, result)| binds![result.command_id, *agent]).collect();
    let found: Vec<CommandBrief> = ledger.tx.each_row(FIND, rows, ")", vec![]).await?;
    let mut open: HashMap<(Uuid, Uuid), CommandBrief> = HashMap::with_capacity(found.len());
    for row in found {
        open.insert((id(&row.agent_id)?, id(&row.id)?), row);
    }
    let (mut states, mut rows) = (Vec::new(), Vec::new());
    let mut news: HashMap<String, ResultNews> = HashMap::new();
    let (mut failed, mut done) = (Vec::new(), Vec::new());
    for (agent, result) in results {
        let Some(command) = open.remove(&(agent, result.command_id)) else {
            tracing::debug!(%agent, command = %result.command_id, "ignored a result of a final or unknown command");
            continue;
        };
        let state = CommandState::parse(&command.state).ok_or_else(|| corrupt(&command))?;
        let next = CommandState::from(result.outcome);
        if !state.can_become(next) {
            continue;
        }
        states.push(binds![result.command_id, state.as_str(), next.as_str(), now]);
        let (actor, detail) = (format!("agent:{agent}"), result_detail(&result));
        record_about(ledger, actor, next.as_str(), command.id.clone(), detail, command.about(), now);
        mention_lifted(ledger, &command, &result, now);
        done.extend(hold_of(&command)?);
        match ResultNews::of(&command, &result)? {
            Some(item) => {
                let newest = news.entry(command.effect_id).or_insert_with(|| item.clone());
                if item.seq > newest.seq {
                    *newest = item;
                }
            }
            None => failed.push(command),
        }
        rows.push(result_row(result, now));
    }
    ledger.tx.execute_rows(SET_STATES, states, SET_STATES_AFTER, vec![]).await?;
    ledger.tx.execute_rows(INSERT_RESULTS, rows, REPLACE_RESULTS, vec![]).await?;
    let in_vain = news.iter().filter(|(_, news)| news.last_apply.is_some_and(|last| !last.is_in_force()));
    let in_vain = in_vain.map(|(effect, _)| id(effect)).collect::<Result<Vec<_>>>()?;
    let actuals = news.into_iter().map(|(effect, ResultNews { seq, actual, how, last_apply, reason })| {
        binds![effect, seq, actual.as_str(), how, now, last_apply.map(LastApply::as_str), reason]
    });
    ledger.tx.execute_rows(SET_ACTUALS, actuals.collect(), SET_ACTUALS_AFTER, vec![]).await?;
    for command in &failed {
        revert_failed(ledger, command, now).await?;
    }
    release_done(ledger, &done, now).await?;
    failures::end(ledger, in_vain, now).await
}

/// One result per command: the first of equal ones, or the last that replaces an earlier one.
fn last_words(results: Vec<(Uuid, CommandResult)>) -> Vec<(Uuid, CommandResult)> {
    let mut places = HashMap::with_capacity(results.len());
    let mut kept: Vec<(Uuid, CommandResult)> = Vec::with_capacity(results.len());
    for (agent, result) in results {
        let place = *places.entry((agent, result.command_id)).or_insert(kept.len());
        match kept.get_mut(place) {
            None => kept.push((agent, result)),
            Some((_, earlier)) if CommandState::from(earlier.outcome).can_become(result.outcome.into()) => {
                *earlier = result;
            }
            Some(_) => {}
        }
    }
    kept
}

/// The hold of a one-shot command, which ends with the command.
fn hold_of(command: &CommandBrief) -> Result<Option<Hold>> {
    if !command.one_shot {
        return Ok(None);
    }
    Ok(Some(Hold { response_id: id(&command.response_id)?, effect_id: id(&command.effect_id)? }))
}

async fn release_done(ledger: &mut LedgerTx, holds: &[Hold], now: Timestamp) -> Result<()> {
    if !holds.is_empty() {
        let why = EndReason { word: "done", detail: "its commands are done".into(), by: "riposte".into() };
        holds::release_holds(ledger, holds, &why, now).await?;
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
    format!("{verified}{exit}: {}", text(&result.message))
}

fn result_row(result: CommandResult, now: Timestamp) -> Vec<Bind> {
    let observed = is_observed(&result);
    let CommandResult {
        command_id,
        outcome,
        exit_code,
        output,
        verified,
        message,
        evidence,
        started_at,
        finished_at,
        ..
    } = result;
    let (exit_code, output, message) = (exit_code.map(i64::from), text(&output), text(&message));
    let evidence = evidence.map(|evidence| news::evidence(&evidence));
    let (outcome, now) = (outcome.as_str(), now);
    binds![command_id, outcome, exit_code, output, verified, message, started_at, finished_at, now, observed, evidence]
}

async fn revert_failed(ledger: &mut LedgerTx, command: &CommandBrief, now: Timestamp) -> Result<()> {
    let failed: Option<Count> = ledger.tx.optional(FAILED_REVERTS, binds![command.effect_id.as_str()]).await?;
    let failed = u32::try_from(failed.map_or(0, |row| row.count)).unwrap_or(0);
    let wait = RETRY_MIN.saturating_mul(1 << failed.min(10)).min(RETRY_MAX);
    let binds = binds![command.effect_id.as_str(), command.seq, now.plus(wait), now];
    ledger.tx.execute(REVERT_FAILED, binds).await?;
    let (effect, agent) = (&command.effect_id, &command.agent_id);
    tracing::error!(effect, agent, "effect {effect} on agent {agent} could not be lifted, retrying in {wait:?}");
    Ok(())
}

/// Expires commands that were not acknowledged in time, at most `limit`. Returns their number and
/// the agents with new commands.
pub(in crate::store) async fn expire(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<(usize, Vec<Uuid>)> {
    let overdue: Vec<CommandBrief> = ledger.tx.all(OVERDUE, binds![now, limit]).await?;
    let why = "no agent acknowledged it in time";
    let wake = give_up(ledger, &overdue, |_| (CommandState::Expired, why.into()), now).await?;
    Ok((overdue.len(), wake))
}

/// Times out commands that were acknowledged but got no result, at most `limit`. Returns their
/// number and the agents with new commands.
pub(in crate::store) async fn time_out(
    ledger: &mut LedgerTx,
    now: Timestamp,
    limit: i64,
) -> Result<(usize, Vec<Uuid>)> {
    let unanswered: Vec<CommandBrief> = ledger.tx.all(UNANSWERED, binds![now.minus(ANSWER_TIMEOUT), limit]).await?;
    let why = "the agent acknowledged it and sent no result";
    let wake = give_up(ledger, &unanswered, |_| (CommandState::TimedOut, why.into()), now).await?;
    for command in unanswered.iter().filter(|command| Op::parse(&command.op) == Some(Op::Revert)) {
        revert_failed(ledger, command, now).await?;
    }
    Ok((unanswered.len(), wake))
}

/// Ends all pending commands and effects of a revoked agent. Returns the number of commands and the
/// agents with new commands.
pub(in crate::store) async fn revoke(ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> Result<(usize, Vec<Uuid>)> {
    let open: Vec<CommandBrief> = ledger.tx.all(OPEN_OF_AGENT, binds![agent]).await?;
    let mut wake =
        give_up(ledger, &open, |command| (called_back(command), "the agent was revoked".into()), now).await?;
    wake.extend(failures::end_on(ledger, agent, now).await?);
    Ok((open.len(), wake))
}

/// After a host's rollback: one-shot commands up to number `last` may have run; do not repeat them.
pub(super) async fn forget_one_shots(ledger: &mut LedgerTx, agent: Uuid, last: i64, now: Timestamp) -> Result<()> {
    let sent: Vec<CommandBrief> = ledger.tx.all(SENT_ONE_SHOTS, binds![agent, last]).await?;
    let why = "it was sent before the host's rollback, and may have been done there";
    give_up(ledger, &sent, |command| (called_back(command), why.into()), now).await.map(drop)
}

/// Ends applies that must not be delivered, each with a reason, so that they do not block the
/// queue. Commands that are no longer pending are ignored. Returns the agents with new commands.
pub(in crate::store) async fn withdraw(
    ledger: &mut LedgerTx,
    commands: BTreeMap<Uuid, String>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let rows = commands.keys().map(|command| binds![*command]).collect();
    let open: Vec<CommandBrief> = ledger.tx.each_row(FIND_OPEN, rows, ")", vec![]).await?;
    let why = |command: &CommandBrief| id(&command.id).ok().and_then(|id| commands.get(&id)).cloned();
    let ended = give_up(ledger, &open, |command| (called_back(command), why(command).unwrap_or_default()), now).await?;
    let agents = open.iter().map(|command| id(&command.agent_id)).collect::<Result<Vec<_>>>()?;
    Ok([agents, ended].concat())
}

/// Final state of a withdrawn command: if sent, it may have arrived.
fn called_back(command: &CommandBrief) -> CommandState {
    if command.was_sent() { CommandState::Expired } else { CommandState::Cancelled }
}

/// Ends commands without a result, with the state and reason that `end` returns. The agent may have
/// received and executed them. Returns the agents with new commands.
async fn give_up(
    ledger: &mut LedgerTx,
    commands: &[CommandBrief],
    end: impl Fn(&CommandBrief) -> (CommandState, String),
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let (mut rows, mut lost, mut done) = (Vec::new(), BTreeMap::new(), Vec::new());
    for command in commands {
        let (state, why) = end(command);
        rows.push(binds![command.id.as_str(), command.state.as_str(), state.as_str(), why.as_str(), now]);
        record_about(ledger, "riposte".into(), state.as_str(), command.id.clone(), why.clone(), command.about(), now);
        done.extend(hold_of(command)?);
        if command.leaves_something() {
            let actual = if command.was_sent() { Actual::Drifted } else { Actual::Absent };
            let loss = Loss { seq: command.seq, actual, state, why };
            let newest = lost.entry(id(&command.effect_id)?).or_insert_with(|| loss.clone());
            if newest.seq < loss.seq {
                *newest = loss;
            }
        }
    }
    ledger.tx.execute_rows(GIVE_UP, rows, GIVE_UP_AFTER, vec![]).await?;
    release_done(ledger, &done, now).await?;
    lose(ledger, lost, now).await
}

/// An apply without success.
#[derive(Clone)]
struct Loss {
    seq: i64,
    actual: Actual,
    state: CommandState,
    why: String,
}

/// Handles failed applies, each the newest of its effect: the next response must send it again.
/// Responses that can no longer come into force end. Returns the agents with new commands.
async fn lose(ledger: &mut LedgerTx, lost: BTreeMap<Uuid, Loss>, now: Timestamp) -> Result<Vec<Uuid>> {
    let effects = lost.keys().copied().collect();
    let rows = lost.into_iter().map(|(effect, Loss { seq, actual, state, why })| {
        binds![effect, actual.as_str(), now, seq, state.as_str(), short(&why)]
    });
    ledger.tx.execute_rows(LOSE, rows.collect(), LOSE_AFTER, vec![]).await?;
    failures::end(ledger, effects, now).await
}

/// Cancels an apply that was not sent yet. Returns the agents with new commands.
///
/// # Errors
/// [`StoreError::Conflict`] if it was sent, is final, or is a revert, which cannot be cancelled.
pub async fn cancel(ledger: &mut LedgerTx, command: Uuid, by: &str, reason: &str, now: Timestamp) -> Result<Vec<Uuid>> {
    if ledger.tx.execute(CANCEL, binds![command, reason, now]).await? == 0 {
        return Err(StoreError::Conflict);
    }
    record(ledger, by.into(), "cancelled", command.to_string(), reason.into(), now);
    let cancelled: Option<CommandBrief> = ledger.tx.optional(EFFECT_OF, binds![command]).await?;
    let Some(cancelled) = cancelled else { return Ok(Vec::new()) };
    release_done(ledger, hold_of(&cancelled)?.as_slice(), now).await?;
    if !cancelled.leaves_something() {
        return Ok(Vec::new());
    }
    let (state, why) = (CommandState::Cancelled, reason.to_owned());
    let loss = Loss { seq: cancelled.seq, actual: Actual::Absent, state, why };
    lose(ledger, BTreeMap::from([(id(&cancelled.effect_id)?, loss)]), now).await
}

fn record(ledger: &mut LedgerTx, actor: String, verb: &'static str, command: String, detail: String, now: Timestamp) {
    record_about(ledger, actor, verb, command, detail, About::default(), now);
}

fn record_about(
    ledger: &mut LedgerTx,
    actor: String,
    verb: &'static str,
    command: String,
    detail: String,
    about: About,
    now: Timestamp,
) {
    ledger.record_about(AuditEntry { at: now, actor, verb, noun: "command", noun_id: command, detail }, about);
}

/// Logs a successful revert as the end of a block.
fn mention_lifted(ledger: &mut LedgerTx, command: &CommandBrief, result: &CommandResult, now: Timestamp) {
    let is_lifted = Op::parse(&command.op) == Some(Op::Revert)
        && result.outcome == Outcome::Succeeded
        && result.verified != Some(false);
    if is_lifted {
        let (actor, noun_id) = (format!("agent:{}", command.agent_id), command.effect_id.clone());
        let entry = AuditEntry { at: now, actor, verb: "lifted", noun: "effect", noun_id, detail: String::new() };
        ledger.mention(&entry, command.about());
    }
}

fn corrupt(command: &CommandBrief) -> StoreError {
    StoreError::Corrupt(format!("command {}", command.id))
}

#[cfg(test)]
mod tests;
