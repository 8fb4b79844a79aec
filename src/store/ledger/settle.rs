//! A command after it was queued: sent, acknowledged, answered, or given up. Every change states
//! the expected states in its WHERE, so late or repeated messages change nothing.

use std::collections::{BTreeMap, HashMap};

use riposte_protocol::command::Op;
use riposte_protocol::message::CommandResult;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::events::LooseEvent;
use super::failures;
use super::release::release_holds;
use super::story::{self, About};
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::command::CommandState;
use crate::domain::effect::Actual;
use crate::domain::event::EventType;
use crate::domain::outcome::short_reason;
use crate::domain::response::{EndReason, Hold, ResponseEnd};
use crate::domain::settlement::{ANSWER_TIMEOUT, CommandEnd, EffectFinding, GivenUp, last_results};
use crate::store::database::columns::id;
use crate::store::database::{Result, StoreError, binds, statements};
use crate::views::words::StoredWord;

pub(in crate::store) mod effects;
pub(in crate::store) mod results;
use effects::EffectNews;

statements! {
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
    DELIVERED = "UPDATE commands SET state = 'delivered', lease_until = CAST(v.column2 AS BIGINT),
    deliveries = deliveries + CAST(v.column4 AS BIGINT), delivered_at = COALESCE(delivered_at, CAST(v.column3 AS BIGINT))
        FROM (VALUES {4}) AS v
       
        WHERE commands.id = v.column1 AND state IN ('queued', 'delivered')";
    ACKNOWLEDGE = "UPDATE commands SET state = 'acknowledged', acknowledged_at = CAST(v.column3 AS BIGINT),
    lease_until = NULL FROM (VALUES {3}) AS v WHERE commands.id = v.column1 AND agent_id = v.column2
    AND state IN ('queued', 'delivered') RETURNING commands.id, agent_id, response_id, op, action, target_kind, target_value";
    FIND = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands WHERE (id, agent_id) IN (VALUES {2})";
    FIND_OPEN = "SELECT id, agent_id, seq, effect_id, response_id, op, state, one_shot,
            action, target_kind, target_value FROM commands
    WHERE state IN ('queued', 'delivered') AND id IN (VALUES {1})";
    GIVE_UP = "UPDATE commands SET state = v.column3, detail = v.column4, finished_at = CAST(v.column5 AS BIGINT)
        FROM (VALUES {5}) AS v
       
        WHERE commands.id = v.column1 AND state = v.column2";
    SET_STATES = "UPDATE commands SET state = v.column3, finished_at = CAST(v.column4 AS BIGINT)
        FROM (VALUES {4}) AS v WHERE commands.id = v.column1 AND state = v.column2";
}

#[derive(Clone, sqlx::FromRow)]
struct CommandBrief {
    id: String,
    agent_id: String,
    seq: i64,
    effect_id: String,
    response_id: String,
    #[sqlx(try_from = "StoredWord<Op>")]
    op: Op,
    state: CommandState,
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

    /// What its end says about its effect.
    fn news(&self, finding: EffectFinding, reason: &str) -> Result<EffectNews> {
        let end = CommandEnd { seq: self.seq, finding, reason: short_reason(reason) };
        let response = id(&self.response_id)?;
        Ok(EffectNews { effect: id(&self.effect_id)?, agent: id(&self.agent_id)?, response, end })
    }
}

#[derive(sqlx::FromRow)]
struct Acknowledged {
    id: String,
    agent_id: String,
    response_id: String,
    #[sqlx(try_from = "StoredWord<Op>")]
    op: Op,
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
    ledger.tx.execute_rows(DELIVERED, rows, vec![]).await?;
    Ok(())
}

/// Records acknowledgements. Commands of other agents, or no longer pending, are ignored.
pub(in crate::store) async fn acknowledge(
    ledger: &mut LedgerTx,
    acks: Vec<(Uuid, Uuid)>,
    now: Timestamp,
) -> Result<()> {
    let rows = acks.into_iter().map(|(agent, command)| binds![command, agent, now]).collect();
    let acknowledged: Vec<Acknowledged> = ledger.tx.each_row(ACKNOWLEDGE, rows, vec![]).await?;
    for row in acknowledged {
        let about = about(&row.agent_id, &row.response_id, &row.action, (&row.target_kind, &row.target_value));
        let (actor, detail) = (Actor::Agent(id(&row.agent_id)?), row.op.as_str().to_owned());
        record_about(ledger, actor, AuditEvent::CommandAcknowledged, row.id, detail, about, now);
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
    let results = last_results(results);
    let rows = results.iter().map(|(agent, result)| binds![result.command_id, *agent]).collect();
    let found: Vec<CommandBrief> = ledger.tx.each_row(FIND, rows, vec![]).await?;
    let mut open: HashMap<(Uuid, Uuid), CommandBrief> = HashMap::with_capacity(found.len());
    for row in found {
        open.insert((id(&row.agent_id)?, id(&row.id)?), row);
    }
    let (mut states, mut kept, mut news, mut done) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (agent, result) in results {
        let Some(command) = open.remove(&(agent, result.command_id)) else {
            tracing::debug!(%agent, command = %result.command_id, "ignored a result of a final or unknown command");
            continue;
        };
        let state = command.state;
        let next = CommandState::from(result.outcome);
        if !state.can_become(next) {
            continue;
        }
        states.push(binds![result.command_id, state, next, now]);
        let (event, detail) = (results::event(result.outcome), results::detail(&result));
        record_about(ledger, Actor::Agent(agent), event, command.id.clone(), detail, command.about(), now);
        let finding = EffectFinding::of_result(command.op, command.one_shot, &result);
        match finding {
            EffectFinding::Lifted => mention_lifted(ledger, agent, &command, now),
            EffectFinding::Applied(_, last_apply) if last_apply.is_in_force() => {
                tell_applied(ledger, EventType::EffectActive, agent, &command, &result.message, now);
            }
            // The command succeeded, so only this says that its effect is not in force.
            EffectFinding::Applied(Actual::Drifted, _) => {
                tell_applied(ledger, EventType::EffectDrifted, agent, &command, &result.message, now);
            }
            _ => {}
        }
        done.extend(hold_of(&command)?);
        news.push(command.news(finding, &result.message)?);
        kept.push(result);
    }
    ledger.tx.execute_rows(SET_STATES, states, vec![]).await?;
    results::insert(ledger, kept, now).await?;
    let in_vain = effects::settle(ledger, news, now).await?;
    release_done(ledger, &done, now).await?;
    failures::end(ledger, in_vain, now).await
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
        let why = ResponseEnd::by_riposte(EndReason::Done, "its commands are done");
        release_holds(ledger, holds, &why, now).await?;
    }
    Ok(())
}

/// Expires commands that were not acknowledged in time, at most `limit`. Returns their number and
/// the agents with new commands.
pub(in crate::store) async fn expire(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<(usize, Vec<Uuid>)> {
    let overdue: Vec<CommandBrief> = ledger.tx.all(OVERDUE, binds![now, limit]).await?;
    let why = "no agent acknowledged it in time";
    let wake = give_up(ledger, &overdue, |_| Ok((GivenUp::Expired, why.into())), now).await?;
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
    let wake = give_up(ledger, &unanswered, |_| Ok((GivenUp::TimedOut, why.into())), now).await?;
    Ok((unanswered.len(), wake))
}

/// Ends all pending commands and effects of a revoked agent. Returns the number of commands and the
/// agents with new commands.
pub(in crate::store) async fn revoke(ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> Result<(usize, Vec<Uuid>)> {
    let open: Vec<CommandBrief> = ledger.tx.all(OPEN_OF_AGENT, binds![agent]).await?;
    let why = "the agent was revoked";
    let mut wake = give_up(ledger, &open, |command| Ok((GivenUp::withdrawn(command.state), why.into())), now).await?;
    wake.extend(failures::end_on(ledger, agent, now).await?);
    Ok((open.len(), wake))
}

/// After a host's rollback: one-shot commands up to number `last` may have run; do not repeat them.
pub(super) async fn forget_one_shots(ledger: &mut LedgerTx, agent: Uuid, last: i64, now: Timestamp) -> Result<()> {
    let sent: Vec<CommandBrief> = ledger.tx.all(SENT_ONE_SHOTS, binds![agent, last]).await?;
    let why = "it was sent before the host's rollback, and may have been done there";
    give_up(ledger, &sent, |command| Ok((GivenUp::withdrawn(command.state), why.into())), now).await.map(drop)
}

/// Ends applies that must not be delivered, each with a reason, so that they do not block the
/// queue. Commands that are no longer pending are ignored. Returns the agents with new commands.
pub(in crate::store) async fn withdraw(
    ledger: &mut LedgerTx,
    commands: BTreeMap<Uuid, String>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let rows = commands.keys().map(|command| binds![*command]).collect();
    let open: Vec<CommandBrief> = ledger.tx.each_row(FIND_OPEN, rows, vec![]).await?;
    let end = |command: &CommandBrief| {
        let why = commands.get(&id(&command.id)?).cloned().unwrap_or_default();
        Ok((GivenUp::withdrawn(command.state), why))
    };
    let ended = give_up(ledger, &open, end, now).await?;
    let agents = open.iter().map(|command| id(&command.agent_id)).collect::<Result<Vec<_>>>()?;
    Ok([agents, ended].concat())
}

/// Gives up commands, in the way and for the reason that `end` returns. The agent may have
/// received and executed them. Returns the agents with new commands.
async fn give_up(
    ledger: &mut LedgerTx,
    commands: &[CommandBrief],
    end: impl Fn(&CommandBrief) -> Result<(GivenUp, String)>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let (mut rows, mut news, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for command in commands {
        let (given_up, why) = end(command)?;
        let state = given_up.state();
        rows.push(binds![command.id.as_str(), command.state, state, why.as_str(), now]);
        let event = match given_up {
            GivenUp::Expired => AuditEvent::CommandExpired,
            GivenUp::TimedOut => AuditEvent::CommandTimedOut,
            GivenUp::Cancelled => AuditEvent::CommandCancelled,
        };
        record_about(ledger, Actor::Riposte, event, command.id.clone(), why.clone(), command.about(), now);
        done.extend(hold_of(command)?);
        if let Some(finding) = EffectFinding::of_silence(command.op, command.one_shot, command.state, given_up) {
            news.push(command.news(finding, &why)?);
        }
    }
    ledger.tx.execute_rows(GIVE_UP, rows, vec![]).await?;
    release_done(ledger, &done, now).await?;
    let in_vain = effects::settle(ledger, news, now).await?;
    failures::end(ledger, in_vain, now).await
}

/// Cancels an apply that was not sent yet. Returns the agents with new commands.
///
/// # Errors
/// [`StoreError::Conflict`] if it was sent, is final, or is a revert, which cannot be cancelled.
pub async fn cancel(
    ledger: &mut LedgerTx,
    command: Uuid,
    by: &Actor,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    if ledger.tx.execute(CANCEL, binds![command, reason, now]).await? == 0 {
        return Err(StoreError::Conflict);
    }
    let (event, about) = (AuditEvent::CommandCancelled, About::default());
    record_about(ledger, by.clone(), event, command.to_string(), reason.into(), about, now);
    let cancelled: Option<CommandBrief> = ledger.tx.optional(EFFECT_OF, binds![command]).await?;
    let Some(cancelled) = cancelled else { return Ok(Vec::new()) };
    release_done(ledger, hold_of(&cancelled)?.as_slice(), now).await?;
    let (op, from) = (cancelled.op, CommandState::Queued);
    let finding = EffectFinding::of_silence(op, cancelled.one_shot, from, GivenUp::Cancelled);
    let news = finding.map(|finding| cancelled.news(finding, reason)).transpose()?;
    let in_vain = effects::settle(ledger, news.into_iter().collect(), now).await?;
    failures::end(ledger, in_vain, now).await
}

fn record_about(
    ledger: &mut LedgerTx,
    actor: Actor,
    event: AuditEvent,
    command: String,
    detail: String,
    about: About,
    now: Timestamp,
) {
    ledger.record_about(AuditEntry { at: now, actor, event, noun_id: command, detail }, about);
}

/// Tells followers what an apply did.
fn tell_applied(
    ledger: &mut LedgerTx,
    kind: EventType,
    agent: Uuid,
    command: &CommandBrief,
    detail: &str,
    now: Timestamp,
) {
    let (noun_id, actor) = (command.effect_id.clone(), Actor::Agent(agent).to_string());
    let told = LooseEvent { kind, noun: "effect", noun_id, actor, detail: detail.to_owned() };
    ledger.tell(&told, &command.about(), now);
}

/// Logs a successful revert as the end of a block.
fn mention_lifted(ledger: &mut LedgerTx, agent: Uuid, command: &CommandBrief, now: Timestamp) {
    let (event, noun_id, detail) = (AuditEvent::EffectLifted, command.effect_id.clone(), String::new());
    ledger.mention(&AuditEntry { at: now, actor: Actor::Agent(agent), event, noun_id, detail }, command.about());
}
