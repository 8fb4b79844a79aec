//! Decisions of people on responses: approve, reject, confirm. Each principal decides once per
//! kind. Decisions are counted in the transaction that acts on them, so a quorum is reached exactly
//! once.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::by_hand;
use super::holds;
use super::release::release;
use super::responses;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::Until;
use crate::domain::policy::{OnSilence, Percent};
use crate::domain::response::{Decision, EndReason, NewResponse, ResponseEnd, ResponseState, Verdict};
use crate::store::database::columns::{id, target_kind};
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::{ANSWERS, POLICY_VERSIONS, RESPONSES};
use crate::store::seals::value::WithSeal;
use crate::views::columns::JsonText;
use crate::views::responses::DecisionRow;
use riposte_protocol::target::Target;

statements! {
    SILENCE = "SELECT on_silence, duration_millis FROM responses WHERE id = $1";
    WAITING = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            on_silence, duration_millis, waves, one_shot, answer_by, seal
        FROM responses WHERE id = $1 AND state = 'awaiting_approval'";
    ACTIVE = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            on_silence, duration_millis, waves, one_shot, answer_by, seal
        FROM responses WHERE id = $1 AND state = 'active'";
    DECIDE = "INSERT INTO answers (response_id, principal, answer, reason, at, seal) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (response_id, principal, answer) DO NOTHING";
    AUTHOR = "SELECT name, version, document, changed_by, seal FROM policy_versions WHERE name = $1 AND version = $2";
    /// Keys of services could approve before there were users; such approvals count no more.
    APPROVALS = "SELECT response_id, principal, answer, seal FROM answers WHERE response_id = $1 AND answer = 'approve'
        AND principal LIKE 'user:%'";
    CLOSE = "UPDATE responses SET state = $2, reason = $3, detail = $4 WHERE id = $1 AND state = 'awaiting_approval'";
    ACTIVATE = "UPDATE responses SET state = 'active', until = $2, detail = $3
        WHERE id = $1 AND state = 'awaiting_approval'";
    BREAK_GLASS = "UPDATE responses SET break_glass = $2 WHERE id = $1 AND state = 'awaiting_approval'";
    CONFIRM = "UPDATE responses SET confirm_by = NULL WHERE id = $1 AND state = 'active' AND confirm_by IS NOT NULL";
    SILENT = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            on_silence, duration_millis, waves, one_shot, answer_by, seal
        FROM responses WHERE state = 'awaiting_approval' AND answer_by <= $1 ORDER BY answer_by LIMIT $2";
    UNCONFIRMED = "SELECT id FROM responses WHERE state = 'active' AND confirm_by <= $1 ORDER BY confirm_by LIMIT $2";
    OF_RESPONSE = "SELECT principal, answer, reason, at FROM answers WHERE response_id = $1 ORDER BY at, principal";
}

/// The decisions on a response.
pub async fn of_response(db: &Db, response: Uuid) -> Result<Vec<DecisionRow>> {
    db.all(OF_RESPONSE, binds![response]).await
}

#[derive(sqlx::FromRow)]
struct Waiting {
    id: String,
    policy: Option<String>,
    policy_version: Option<i64>,
    action: String,
    target_kind: Option<String>,
    target_value: Option<String>,
    arguments: JsonText,
    agents: JsonText,
    until: Option<i64>,
    requested_by: Actor,
    quorum: Option<i64>,
    on_silence: Option<OnSilence>,
    duration_millis: Option<i64>,
    waves: Option<JsonText>,
    one_shot: bool,
}

/// What follows a decision on a response, or none in time.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub struct Consequences {
    /// What happens if no person decides in time.
    pub on_silence: Option<OnSilence>,
    /// For how long it acts once it is approved, in milliseconds; `None`: until it is lifted.
    pub duration_millis: Option<i64>,
}

/// What follows a decision on this response.
pub async fn consequences(db: &Db, response: Uuid) -> Result<Consequences> {
    Ok(db.optional(SILENCE, binds![response]).await?.unwrap_or_default())
}

impl Waiting {
    /// Rebuilds the response as it was decided, ending at `until`.
    fn as_decided(&self, until: Until) -> Result<NewResponse> {
        let corrupt = || StoreError::Corrupt(format!("response {}", self.id));
        let kind = target_kind("responses", self.target_kind.as_deref().ok_or_else(corrupt)?)?;
        let target = Target::named(kind, self.target_value.as_deref().unwrap_or_default()).map_err(|_| corrupt())?;
        Ok(NewResponse {
            id: id(&self.id)?,
            policy: self.policy.clone().map(|name| (name, 0)),
            action: self.action.clone(),
            target: Some(target),
            arguments: self.arguments.read()?,
            agents: self.agents.read()?,
            until,
            verdict: Verdict::Act,
            requested_by: self.requested_by.clone(),
            one_shot: self.one_shot,
            is_urgent: self.policy.is_none(),
            waves: self.waves.as_ref().map(JsonText::read).transpose()?,
            ..NewResponse::default()
        })
    }
}

/// An active staged response as it was decided, with all its agents, and the ratio of failures that
/// stops it.
pub(in crate::store) async fn active(ledger: &mut LedgerTx, response: Uuid) -> Result<Option<(NewResponse, Percent)>> {
    let Some(row) = ledger.sealed::<Waiting>(&RESPONSES, ACTIVE, binds![response]).await?.pop() else {
        return Ok(None);
    };
    let mut decided = row.as_decided(Until::from(row.until.map(Timestamp::from_millis)))?;
    Ok(decided.waves.take().map(|waves| (decided, waves.stop_at)))
}

#[derive(sqlx::FromRow)]
struct Author {
    changed_by: String,
}

#[derive(sqlx::FromRow)]
struct Approval {
    #[expect(dead_code, reason = "approvals are counted")]
    principal: String,
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

/// Outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalOutcome {
    /// Recorded; more approvals are needed, or no further step follows.
    Counted,
    /// The quorum is reached: the response is carried out.
    Carried,
    /// The response does not wait for such a decision.
    NotWaiting,
    /// The principal requested the response, or has already decided.
    NotYours,
    /// The principal wrote the version of the policy that made the response.
    OwnPolicy,
    /// The principal's scope allows no more responses before this time.
    Full(Timestamp),
}

/// What a person decides on a response.
#[derive(Clone, Debug)]
pub struct ApprovalDecision {
    /// The decision.
    pub decision: Decision,
    /// Whether it acts without the further people whose approval it needs.
    pub break_glass: bool,
    /// The most responses that the principal may order or approve within an hour.
    pub per_hour: Option<u32>,
    /// Why.
    pub reason: String,
}

/// Records a person's decision. Returns its outcome and the agents with new commands.
pub(in crate::store) async fn decide(
    ledger: &mut LedgerTx,
    response: Uuid,
    principal: &Actor,
    said: &ApprovalDecision,
    now: Timestamp,
) -> Result<(ApprovalOutcome, Vec<Uuid>)> {
    let ApprovalDecision { decision, break_glass, per_hour, ref reason } = *said;
    if decision == Decision::Confirm {
        if ledger.tx.execute(CONFIRM, binds![response]).await? == 0 {
            return Ok((ApprovalOutcome::NotWaiting, Vec::new()));
        }
        write(ledger, response, principal, decision, reason, now).await?;
        record(ledger, principal, AuditEvent::ResponseConfirmed, response, reason, now);
        return Ok((ApprovalOutcome::Counted, Vec::new()));
    }
    let waiting: Option<Waiting> = ledger.sealed(&RESPONSES, WAITING, binds![response]).await?.pop();
    let Some(waiting) = waiting else { return Ok((ApprovalOutcome::NotWaiting, Vec::new())) };
    if decision == Decision::Approve
        && let Some(until) = by_hand::full_until(ledger, principal, per_hour, now).await?
    {
        return Ok((ApprovalOutcome::Full(until), Vec::new()));
    }
    if decision == Decision::Approve && break_glass {
        write(ledger, response, principal, decision, reason, now).await?;
        ledger.tx.execute(BREAK_GLASS, binds![response, principal]).await?;
        holds::break_glass(ledger, principal, response, reason, now);
        return Ok((ApprovalOutcome::Carried, carry_out(ledger, waiting, "by break-glass", true, now).await?));
    }
    if waiting.requested_by == *principal.plain() {
        return Ok((ApprovalOutcome::NotYours, Vec::new()));
    }
    if decision == Decision::Approve && is_author(ledger, &waiting, principal).await? {
        return Ok((ApprovalOutcome::OwnPolicy, Vec::new()));
    }
    if write(ledger, response, principal, decision, reason, now).await? == 0 {
        return Ok((ApprovalOutcome::NotYours, Vec::new()));
    }
    if decision == Decision::Reject {
        close(ledger, response, true, principal, reason, now).await?;
        return Ok((ApprovalOutcome::Counted, Vec::new()));
    }
    record(ledger, principal, AuditEvent::ResponseApproved, response, reason, now);
    let approvals = ledger.sealed::<Approval>(&ANSWERS, APPROVALS, binds![response]).await?.len();
    if i64::try_from(approvals).unwrap_or(i64::MAX) < waiting.quorum.unwrap_or(1) {
        return Ok((ApprovalOutcome::Counted, Vec::new()));
    }
    Ok((ApprovalOutcome::Carried, carry_out(ledger, waiting, "approved", true, now).await?))
}

/// Writes a decision. Returns 0 if the principal has decided so before.
async fn write(
    ledger: &mut LedgerTx,
    response: Uuid,
    principal: &Actor,
    decision: Decision,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    let mut binds = binds![response, principal, decision];
    let seal = ledger.seal_of(&ANSWERS, &binds.iter().collect::<Vec<_>>());
    binds.extend(binds![reason, now]);
    binds.push(seal);
    ledger.tx.execute(DECIDE, binds).await
}

/// Whether `principal` wrote the version of the policy that made the response. A second pair of eyes
/// is needed for what one person set up, however that person comes in.
async fn is_author(ledger: &mut LedgerTx, waiting: &Waiting, principal: &Actor) -> Result<bool> {
    let (Some(policy), Some(version)) = (&waiting.policy, waiting.policy_version) else { return Ok(false) };
    let look = ledger.seals().look(Purpose::Look);
    let author: Option<WithSeal<Author>> = ledger.tx.optional(AUTHOR, binds![policy.as_str(), version]).await?;
    let Some(author) = author else { return Ok(false) };
    // Of a version that another program changed it is not known who wrote it.
    let (author, is_known) = ledger.seals().looked_at(&POLICY_VERSIONS, author, look);
    Ok(!is_known || author.changed_by == principal.to_string())
}

/// Ends a response that waited for approval: rejected, or without a decision in time.
async fn close(
    ledger: &mut LedgerTx,
    response: Uuid,
    is_rejected: bool,
    by: &Actor,
    detail: &str,
    now: Timestamp,
) -> Result<()> {
    let (state, reason, event) = if is_rejected {
        (ResponseState::Rejected, EndReason::Rejected, AuditEvent::ResponseRejected)
    } else {
        (ResponseState::Lapsed, EndReason::Lapsed, AuditEvent::ResponseLapsed)
    };
    ledger.tx.execute(CLOSE, binds![response, state, reason, detail]).await?;
    record(ledger, by, event, response, detail, now);
    Ok(())
}

/// Carries out an approved response; its duration starts now.
async fn carry_out(
    ledger: &mut LedgerTx,
    waiting: Waiting,
    why: &str,
    is_urgent: bool,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let response = id(&waiting.id)?;
    let until = match waiting.duration_millis.and_then(|millis| u64::try_from(millis).ok()) {
        Some(millis) => Until::At(now.plus(std::time::Duration::from_millis(millis))),
        None => Until::from(waiting.until.map(Timestamp::from_millis)),
    };
    ledger.tx.execute(ACTIVATE, binds![response, until.instant(), why]).await?;
    responses::seal(ledger, response).await?;
    record(ledger, &Actor::Riposte, AuditEvent::ResponseActivated, response, why, now);
    let mut approved = waiting.as_decided(until)?;
    approved.is_urgent |= is_urgent;
    holds::hold(ledger, &[approved], now).await
}

/// Ends responses whose approval deadline has passed, at most `limit`, each as its policy says.
/// Returns their number and the agents with new commands.
pub(in crate::store) async fn silence(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<(usize, Vec<Uuid>)> {
    let look = ledger.seals().look(Purpose::Look);
    let silent: Vec<WithSeal<Waiting>> = ledger.tx.all(SILENT, binds![now, limit]).await?;
    let (count, mut agents) = (silent.len(), Vec::new());
    for waiting in silent {
        let (waiting, is_sound) = ledger.seals().looked_at(&RESPONSES, waiting, look);
        if waiting.on_silence == Some(OnSilence::Enforce) && is_sound {
            agents.extend(carry_out(ledger, waiting, "no decision arrived in time", false, now).await?);
        } else {
            let response = id(&waiting.id)?;
            close(ledger, response, false, &Actor::Riposte, "no decision arrived in time", now).await?;
        }
    }
    Ok((count, agents))
}

/// Undoes responses that were not confirmed in time, at most `limit`. Returns their number and the
/// agents with new commands.
pub(in crate::store) async fn unconfirmed(
    ledger: &mut LedgerTx,
    now: Timestamp,
    limit: i64,
) -> Result<(usize, Vec<Uuid>)> {
    let rows: Vec<Id> = ledger.tx.all(UNCONFIRMED, binds![now, limit]).await?;
    let responses = rows.iter().map(|row| id(&row.id)).collect::<Result<Vec<_>>>()?;
    let why = ResponseEnd::by_riposte(EndReason::Unconfirmed, "it was not confirmed in time");
    let agents = release(ledger, &responses, &why, now).await?;
    Ok((responses.len(), agents))
}

fn record(ledger: &mut LedgerTx, by: &Actor, event: AuditEvent, response: Uuid, detail: &str, now: Timestamp) {
    let (noun_id, detail) = (response.to_string(), detail.to_owned());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn overdue_approvals_are_found_by_an_index_on_their_deadline() {
        for (statement, index) in
            [(SILENT, "responses_answer (answer_by"), (UNCONFIRMED, "responses_confirm (confirm_by")]
        {
            let plan = plan(statement).await;
            assert!(plan.iter().all(|step| step.contains(index)), "{plan:?}");
        }
    }
}
