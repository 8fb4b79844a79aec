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
use super::release::release_holds;
use super::standing::{Effect, EffectKeyRow, write_effects};
use super::story::{self, About};
use super::waves;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::{Actual, Desired, Standing, Until, take_hold};
use crate::domain::id::new_id;
use crate::domain::response::{Await, EndReason, NewResponse, ResponseEnd, Verdict};
use crate::domain::tlp::Tlp;
use crate::store::database::columns::json;
use crate::store::database::{Bind, Result, binds, statements};
use crate::store::seals::sets::RESPONSES;

statements! {
    /// A join: SQLite evaluates `(a, b) IN (VALUES …)` for every combination of both columns. For 50
    /// agents and 200 targets that is 10,000 lookups for 200 effects.
    FIND_EFFECTS = "SELECT effects.id, agent_id, action, target_kind, target_value, arguments, desired, actual,
    until FROM (VALUES {4}) AS v JOIN effects ON agent_id = v.column1 AND action = v.column2
    AND target_kind = v.column3 AND target_value = v.column4";
    INSERT_RESPONSES = "INSERT INTO responses (id, alert_id, policy, policy_version, action, target_kind,
    target_value, arguments, agents, until, state, reason, detail, requested_by, note, trace, created_at, quorum,
    answer_by, on_silence, duration_millis, confirm_by, waves, one_shot, break_glass, case_ref, tlp, mitre, seal) VALUES {29}";
    INSERT_HOLDS = "INSERT INTO holds (response_id, effect_id, until) VALUES {3}";
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
    ledger.tx.execute_rows(INSERT_RESPONSES, rows, vec![]).await?;
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
                Effect { id: new_id(now), key, arguments, standing, is_new: true, touched: true, is_sound: true }
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
    ledger.tx.execute_rows(INSERT_HOLDS, holds, vec![]).await?;
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
    (agent, action.to_owned(), target.kind(), target.value().to_owned())
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
    let found: Vec<EffectKeyRow> = ledger.tx.each_row(FIND_EFFECTS, rows, vec![]).await?;
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
            binds![i64::from(*quorum), *answer_by, *on_silence]
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
    let last = binds![duration, response.confirm_by, waves, response.one_shot];
    // In the order of the sealed columns: `alert_id` is none of them, and neither are `state` and what follows it.
    let sealed =
        head[..1].iter().chain(&head[2..10]).chain(&tail[..1]).chain(&waits).chain(&last[..1]).chain(&last[2..]);
    let seal = ledger.seal_of(&RESPONSES, &sealed.collect::<Vec<_>>());
    let break_glass = response.break_glass.as_ref().map(ToString::to_string);
    let mitre = (!response.mitre.is_empty()).then(|| json(&response.mitre)).transpose()?;
    let filed = binds![break_glass, response.filing.case.clone(), response.filing.tlp.map(Tlp::as_str), mitre];
    Ok([head, tail, waits, last, filed, vec![seal]].concat())
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
    if let Some(by) = &response.break_glass {
        break_glass(ledger, by, response.id, &response.note, now);
    }
}

/// Records that a response acts without the people whose approval it needs.
pub(super) fn break_glass(ledger: &mut LedgerTx, by: &Actor, response: Uuid, reason: &str, now: Timestamp) {
    let (event, noun_id, detail) = (AuditEvent::ResponseBreakGlass, response.to_string(), reason.to_owned());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
}
