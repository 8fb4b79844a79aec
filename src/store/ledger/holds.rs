//! The ledger's rules in the database: responses hold effects, holds end, and commands follow. All
//! of it runs inside a [`LedgerTx`], so alert, responses, effects, commands and audit entries are
//! committed together or not at all (promise 1).
//!
//! The rules themselves are pure (`domain/effect.rs`). This file reads what they need and writes
//! what they return, many rows per statement.

use std::collections::HashMap;

use riposte_protocol::command::Op;
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::failures;
use super::queue::{EffectKey, NewCommand, Queued, queue};
use super::story::{self, About};
use super::waves;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::{Actual, Desired, Release, Standing, Until, let_go, take_hold};
use crate::domain::id::new_id;
use crate::domain::response::{Await, EndReason, Hold, NewResponse, ResponseEnd, Verdict};
use crate::store::database::columns::{id, json};
use crate::store::database::{Bind, Result, StoreError, binds, statements};

mod again;
mod end;
use again::follow_up;
pub(in crate::store) use again::{apply_again, retry_reverts};
pub(in crate::store) use end::end;

statements! {
    REVERTS_DUE = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, actual, until FROM effects
        WHERE next_revert_at <= $1 AND desired = 'absent' ORDER BY next_revert_at LIMIT $2";
}

/// A join: SQLite evaluates `(a, b) IN (VALUES …)` for every combination of both columns. For 50
/// agents and 200 targets that is 10,000 lookups for 200 effects.
const FIND_EFFECTS: &str = "SELECT effects.id, agent_id, action, target_kind, target_value, arguments, desired, actual,
    until FROM (";
const FIND_EFFECTS_AFTER: &str = ") AS v JOIN effects ON agent_id = v.column1 AND action = v.column2
    AND target_kind = v.column3 AND target_value = v.column4";
const EFFECTS_BY_ID: &str = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, actual, until
    FROM effects WHERE id IN (";
const HOLDS_OF: &str = "SELECT response_id, effect_id FROM holds WHERE released_at IS NULL AND response_id IN (";
/// Current holders before former ones: at delivery a command is judged by its response's policy.
/// One lookup at the end of the index each.
const LAST_HOLDERS: &str = "SELECT v.column1 AS effect_id, COALESCE(
        (SELECT MAX(response_id) FROM holds WHERE effect_id = v.column1 AND released_at IS NULL),
        (SELECT MAX(response_id) FROM holds WHERE effect_id = v.column1)) AS response_id FROM (";
const LAST_HOLDERS_AFTER: &str = ") AS v WHERE EXISTS (SELECT 1 FROM holds WHERE effect_id = v.column1)";
/// The effect's state is kept with the hold, because later responses to the same target change the
/// effect.
const RELEASE: &str = "UPDATE holds SET released_at = CAST(v.column3 AS BIGINT),
    left_as = (SELECT CASE WHEN effects.in_force_at IS NOT NULL OR effects.last_apply IN ('verified', 'unverified')
            THEN 'in_force' ELSE COALESCE(effects.last_apply, v.column4) END
        FROM effects WHERE effects.id = holds.effect_id),
    left_reason = (SELECT COALESCE(NULLIF(effects.last_reason, ''), v.column5)
        FROM effects WHERE effects.id = holds.effect_id) FROM (";
const RELEASE_AFTER: &str = ") AS v WHERE released_at IS NULL AND response_id = v.column1 AND effect_id = v.column2
    RETURNING response_id, effect_id";
const HOLDS_LEFT: &str = "SELECT effect_id, until FROM holds WHERE released_at IS NULL AND effect_id IN (";
const CALL_BACK: &str = "UPDATE commands SET state = 'cancelled', detail = $1, finished_at = $2
    WHERE state = 'queued' AND one_shot = TRUE AND response_id IN (";
const CALL_BACK_AFTER: &str = ") RETURNING id";
const INSERT_RESPONSES: &str = "INSERT INTO responses (id, alert_id, policy, policy_version, action, target_kind,
    target_value, arguments, agents, until, state, reason, detail, requested_by, note, trace, created_at, quorum,
    answer_by, on_silence, duration_millis, confirm_by, waves, one_shot)";
const UPSERT_EFFECTS: &str = "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments,
    desired, actual, until, actual_seq, created_at, changed_at, wanted_at)";
const UPSERT_EFFECTS_AFTER: &str = " ON CONFLICT (id) DO UPDATE SET arguments = excluded.arguments,
    desired = excluded.desired, actual = excluded.actual, until = excluded.until, changed_at = excluded.changed_at,
    next_revert_at = NULL, failed_reverts = 0,
    last_apply = CASE WHEN excluded.desired = 'in_force' AND (effects.desired = 'absent'
        OR excluded.actual <> effects.actual) THEN NULL ELSE effects.last_apply END,
    last_reason = CASE WHEN excluded.desired = 'in_force' AND (effects.desired = 'absent'
        OR excluded.actual <> effects.actual) THEN '' ELSE effects.last_reason END,
    in_force_at = CASE WHEN excluded.desired = 'in_force' AND effects.desired = 'absent' THEN NULL
        ELSE effects.in_force_at END,
    wanted_at = CASE WHEN excluded.desired = 'in_force' AND effects.desired = 'absent' THEN excluded.wanted_at
        ELSE effects.wanted_at END";
const INSERT_HOLDS: &str = "INSERT INTO holds (response_id, effect_id, until)";
#[derive(sqlx::FromRow)]
struct EffectKeyRow {
    id: String,
    agent_id: String,
    action: String,
    target_kind: String,
    target_value: String,
    arguments: String,
    desired: String,
    actual: String,
    until: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    effect_id: String,
    until: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

/// A response and an effect that it holds, or held last.
#[derive(sqlx::FromRow)]
struct PairRow {
    effect_id: String,
    response_id: String,
}

/// An effect while a transaction works on it.
struct Effect {
    id: Uuid,
    key: EffectKey,
    arguments: String,
    standing: Standing,
    is_new: bool,
    touched: bool,
}

impl TryFrom<EffectKeyRow> for Effect {
    type Error = StoreError;

    fn try_from(row: EffectKeyRow) -> Result<Self> {
        let corrupt = || StoreError::Corrupt(format!("effect {}", row.id));
        let kind = riposte_protocol::target::TargetKind::parse(&row.target_kind).ok_or_else(corrupt)?;
        let desired = if row.desired == Desired::InForce.as_str() { Desired::InForce } else { Desired::Absent };
        let actual = Actual::ALL.into_iter().find(|actual| actual.as_str() == row.actual).ok_or_else(corrupt)?;
        let until = row.until.map(Timestamp::from_millis).into();
        Ok(Self {
            id: id(&row.id)?,
            key: (id(&row.agent_id)?, row.action, kind.as_str(), row.target_value),
            arguments: row.arguments,
            standing: Standing { desired, actual, until },
            is_new: false,
            touched: false,
        })
    }
}

/// Commits decisions: all responses, and for those that act also effects, holds and commands.
/// Returns the agents with new commands.
pub(in crate::store) async fn record(
    ledger: &mut LedgerTx,
    responses: Vec<NewResponse>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    if responses.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::with_capacity(responses.len());
    for response in &responses {
        rows.push(response_row(ledger, response, now)?);
    }
    ledger.tx.execute_rows(INSERT_RESPONSES, rows, "", vec![]).await?;
    hold(ledger, &responses, now).await
}

/// Lets the acting ones of `responses`, already in the ledger, hold their effects. Returns the
/// agents with new commands.
pub(in crate::store) async fn hold(
    ledger: &mut LedgerTx,
    responses: &[NewResponse],
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let mut effects = find_effects(ledger, responses).await?;
    let (mut holds, mut commands) = (Vec::new(), Vec::new());
    for response in responses {
        let (Verdict::Act, Some(target)) = (&response.verdict, &response.target) else { continue };
        let arguments = json(&response.arguments)?;
        let agents = waves::first(ledger, response, now).await?;
        for agent in agents {
            let key = key(*agent, &response.action, target);
            let effect = effects.entry(key.clone()).or_insert_with(|| {
                let standing = Standing { desired: Desired::Absent, actual: Actual::Unknown, until: response.until };
                let (key, arguments) = (key.clone(), arguments.clone());
                Effect { id: new_id(now), key, arguments, standing, is_new: true, touched: true }
            });
            if response.one_shot {
                // A one-shot action leaves nothing in force: hold it until the command is done.
                holds.push(binds![response.id, effect.id, None::<i64>]);
                let (is_new, is_urgent) = (effect.is_new, response.is_urgent);
                let (effect, arguments, until) = (effect.id, arguments.clone(), Until::Never);
                let (response, op, one_shot) = (response.id, Op::Apply, true);
                commands.push(NewCommand { effect, key, response, op, arguments, until, one_shot, is_urgent, is_new });
                continue;
            }
            let standing = (!effect.is_new || effect.standing.desired == Desired::InForce).then_some(effect.standing);
            holds.push(binds![response.id, effect.id, response.until.instant()]);
            if let Some(until) = take_hold(standing, response.until) {
                // An extended block is still in force; every other effect is not yet.
                let extended = effect.standing.desired == Desired::InForce && effect.standing.actual == Actual::InForce;
                let actual = if extended { Actual::InForce } else { Actual::Unknown };
                effect.standing = Standing { desired: Desired::InForce, actual, until };
                effect.touched = true;
                effect.arguments.clone_from(&arguments);
                let (is_new, is_urgent) = (effect.is_new, response.is_urgent);
                let (effect, arguments) = (effect.id, arguments.clone());
                let (response, op, one_shot) = (response.id, Op::Apply, false);
                commands.push(NewCommand { effect, key, response, op, arguments, until, one_shot, is_urgent, is_new });
            }
        }
    }
    write_effects(ledger, effects.into_values(), now).await?;
    ledger.tx.execute_rows(INSERT_HOLDS, holds, "", vec![]).await?;
    let Queued { mut agents, unsent, unreached } = queue(ledger, commands, now).await?;
    agents.extend(failures::end(ledger, unreached, now).await?);
    if !unsent.is_empty() {
        let detail = "its agents were revoked before a command was sent";
        let why = ResponseEnd::by_riposte(EndReason::Done, detail);
        release_holds(ledger, &unsent, &why, now).await?;
    }
    Ok(agents)
}

fn key(agent: Uuid, action: &str, target: &Target) -> EffectKey {
    (agent, action.to_owned(), target.kind().as_str(), target.value().to_owned())
}

async fn find_effects(ledger: &mut LedgerTx, responses: &[NewResponse]) -> Result<HashMap<EffectKey, Effect>> {
    let mut keys: Vec<EffectKey> = Vec::new();
    for response in responses.iter().filter(|response| response.verdict == Verdict::Act) {
        if let Some(target) = &response.target {
            keys.extend(response.agents.iter().map(|agent| key(*agent, &response.action, target)));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let rows: Vec<Vec<Bind>> =
        keys.into_iter().map(|(agent, action, kind, value)| binds![agent, action, kind, value]).collect();
    let found: Vec<EffectKeyRow> = ledger.tx.each_row(FIND_EFFECTS, rows, FIND_EFFECTS_AFTER, vec![]).await?;
    found.into_iter().map(|row| Effect::try_from(row).map(|effect| (effect.key.clone(), effect))).collect()
}

fn response_row(ledger: &mut LedgerTx, response: &NewResponse, now: Timestamp) -> Result<Vec<Bind>> {
    let state = response.first_state();
    let (reason, detail) = match &response.verdict {
        Verdict::Act | Verdict::Await(_) => (None, response.remark.clone()),
        Verdict::Observe(None) => (None, "the policy only observes".to_owned()),
        Verdict::Observe(Some(why)) => (Some("over_limit"), (*why).to_owned()),
        Verdict::Spare(spared) => (Some(spared.reason()), spared.detail()),
    };
    record_response(ledger, response, &detail, now);
    let waits = match &response.verdict {
        Verdict::Await(Await { quorum, answer_by, on_silence }) => {
            let on_silence = on_silence.as_str();
            binds![i64::from(*quorum), *answer_by, on_silence]
        }
        _ => binds![None::<i64>, None::<i64>, None::<String>],
    };
    let (policy, version) = response.policy.clone().unzip();
    let (kind, value) = response.target.as_ref().map(|t| (t.kind().as_str(), t.value().to_owned())).unzip();
    let NewResponse { id, alert, action, arguments, agents, until, requested_by, note, trace, .. } = response;
    let (action, arguments, agents, until) = (action.as_str(), json(arguments)?, json(agents)?, until.instant());
    let duration = response.duration.map(|duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
    let head =
        binds![*id, *alert, policy, version, action, kind, value, arguments, agents, until, state, reason, detail];
    let tail = binds![requested_by, note.as_str(), trace.clone(), now];
    let waves = response.waves.as_ref().map(json).transpose()?;
    Ok([head, tail, waits, binds![duration, response.confirm_by, waves, response.one_shot]].concat())
}

fn record_response(ledger: &mut LedgerTx, response: &NewResponse, detail: &str, now: Timestamp) {
    let aim = response.target.as_ref().map_or_else(|| "nothing".to_owned(), Target::to_string);
    let mut why = format!("{} on {} agents at {aim}", response.action, response.agents.len());
    let alert = response.alert.map_or_else(String::new, |alert| format!(", alert {alert}"));
    why.push_str(&alert);
    for text in [&response.note, detail] {
        if !text.is_empty() {
            why.push_str(": ");
            why.push_str(text);
        }
    }
    let about = About {
        alert: response.alert,
        policy: response.policy.as_ref().map(|(name, _)| name.clone()),
        agent: <[Uuid; 1]>::try_from(response.agents.as_slice()).ok().map(|[agent]| agent),
        action: Some(response.action.clone()),
        target: response.target.as_ref().and_then(|target| story::target(target.kind().as_str(), target.value())),
        ..About::default()
    };
    let entry = AuditEntry {
        at: now,
        actor: response.requested_by.clone(),
        event: match response.verdict {
            Verdict::Act => AuditEvent::ResponseCreated,
            Verdict::Await(_) => AuditEvent::ResponseSubmitted,
            Verdict::Observe(_) => AuditEvent::ResponseObserved,
            Verdict::Spare(_) => AuditEvent::ResponseSpared,
        },
        noun_id: response.id.to_string(),
        detail: why,
    };
    ledger.record_about(entry, about);
}

async fn write_effects(ledger: &mut LedgerTx, effects: impl Iterator<Item = Effect>, now: Timestamp) -> Result<()> {
    let rows = effects
        .filter(|effect| effect.touched)
        .map(|Effect { id, key: (agent, action, kind, value), arguments, standing, .. }| {
            let Standing { desired, actual, until } = standing;
            let (desired, actual, until) = (desired.as_str(), actual.as_str(), until.instant());
            binds![id, agent, action, kind, value, arguments, desired, actual, until, 0_i64, now, now, now]
        })
        .collect();
    ledger.tx.execute_rows(UPSERT_EFFECTS, rows, UPSERT_EFFECTS_AFTER, vec![]).await?;
    Ok(())
}

/// Ends active responses and all their holds; other ids are ignored. Returns the agents with new
/// commands.
pub(in crate::store) async fn release(
    ledger: &mut LedgerTx,
    responses: &[Uuid],
    why: &ResponseEnd,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    waves::drop_rest(ledger, responses).await?;
    let rows: Vec<_> = responses.iter().map(|response| binds![*response]).collect();
    let first = binds![why.detail.as_str(), now];
    let called_back: Vec<Id> = ledger.tx.each_row(CALL_BACK, rows.clone(), CALL_BACK_AFTER, first).await?;
    for Id { id: noun_id } in called_back {
        let (actor, event, detail) = (why.by.clone(), AuditEvent::CommandCancelled, why.detail.clone());
        ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
    }
    let held: Vec<PairRow> = ledger.tx.each_row(HOLDS_OF, rows, ")", vec![]).await?;
    let holds = held.iter().map(|row| Ok(Hold { response_id: id(&row.response_id)?, effect_id: id(&row.effect_id)? }));
    let holds: Vec<Hold> = holds.collect::<Result<_>>()?;
    let agents = release_holds(ledger, &holds, why, now).await?;
    // Includes responses without holds: an agent may have released them, or waves are pending.
    end(ledger, responses, why, now).await?;
    Ok(agents)
}

/// Ends single holds. An effect without holds is lifted, and a response without holds ends. Returns
/// the agents with new commands.
pub(in crate::store) async fn release_holds(
    ledger: &mut LedgerTx,
    holds: &[Hold],
    why: &ResponseEnd,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let (left_as, left_reason) = why.reason.leaves_unanswered();
    let row = |hold: &Hold| binds![hold.response_id, hold.effect_id, now, left_as.as_str(), left_reason];
    let rows = holds.iter().map(row).collect();
    let released: Vec<PairRow> = ledger.tx.each_row(RELEASE, rows, RELEASE_AFTER, vec![]).await?;
    let holders = released.iter().map(|row| id(&row.response_id)).collect::<Result<Vec<_>>>()?;
    end(ledger, &holders, why, now).await?;
    let rows = unique(released.iter().map(|row| row.effect_id.as_str()));
    let found: Vec<EffectKeyRow> = ledger.tx.each_row(EFFECTS_BY_ID, rows.clone(), ")", vec![]).await?;
    let mut effects: HashMap<Uuid, Effect> = HashMap::new();
    for row in found {
        let effect = Effect::try_from(row)?;
        effects.insert(effect.id, effect);
    }
    let left: Vec<HoldRow> = ledger.tx.each_row(HOLDS_LEFT, rows, ")", vec![]).await?;
    let mut longest: HashMap<Uuid, Until> = HashMap::new();
    for row in left {
        let until = Until::from(row.until.map(Timestamp::from_millis));
        let entry = longest.entry(id(&row.effect_id)?).or_insert(until);
        *entry = (*entry).max(until);
    }
    let mut commands = Vec::new();
    let mut effects: Vec<Effect> = effects.into_values().collect();
    effects.sort_by_key(|effect| effect.id);
    for effect in &mut effects {
        // A one-shot command leaves nothing to lift.
        if effect.standing.desired == Desired::Absent {
            continue;
        }
        let op = match let_go(effect.standing.until, longest.get(&effect.id).copied()) {
            // Remaining holders may rely on a command of the ended response, whose target is now
            // protected. That command is not delivered.
            Release::Nothing if why.reason == EndReason::Protected && effect.standing.actual != Actual::InForce => {
                Op::Apply
            }
            Release::Nothing => continue,
            Release::Shorten(until) => {
                effect.standing.until = until;
                Op::Apply
            }
            Release::Lift => {
                effect.standing.desired = Desired::Absent;
                Op::Revert
            }
        };
        effect.touched = true;
        // An effect that never came into force needs no revert, which could only fail.
        if !why.reason.is_failure() || op == Op::Apply || effect.standing.actual != Actual::Absent {
            commands.push((op, effect.id));
        }
    }
    let commands = follow_up(ledger, &effects, commands, why.reason.is_urgent()).await?;
    write_effects(ledger, effects.into_iter(), now).await?;
    Ok(queue(ledger, commands, now).await?.agents)
}

fn unique<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<Vec<Bind>> {
    let ids: std::collections::BTreeSet<&str> = ids.collect();
    ids.into_iter().map(|id| binds![id]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::reads_whole;

    #[tokio::test]
    async fn no_statement_of_many_rows_reads_a_whole_table() {
        let one = [HOLDS_OF, EFFECTS_BY_ID, HOLDS_LEFT].map(|before| (before, 1, ")"));
        let others =
            [(FIND_EFFECTS, 4, FIND_EFFECTS_AFTER), (LAST_HOLDERS, 1, LAST_HOLDERS_AFTER), (RELEASE, 5, RELEASE_AFTER)];
        for (before, columns, after) in one.into_iter().chain(others) {
            assert_eq!(reads_whole(before, columns, after, 0).await, Vec::<String>::new(), "{before}");
        }
        assert_eq!(reads_whole(CALL_BACK, 1, CALL_BACK_AFTER, 2).await, Vec::<String>::new());
    }
}
