//! The effects of commands that have ended: reads their states, lets `domain/settlement.rs` judge,
//! and writes what changed.

use std::collections::HashMap;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::actor::Actor;
use crate::domain::effect::{Actual, Desired, LastApply};
use crate::domain::event::EventType;
use crate::domain::settlement::{CommandEnd, EffectFinding, EffectState, retry_delay};
use crate::store::database::columns::id;
use crate::store::database::{Result, binds, statements};
use crate::store::ledger::alerts::received;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::contained::Containment;
use crate::store::ledger::events::LooseEvent;
use crate::store::ledger::story::About;

statements! {
    pub(super) STATES = "SELECT id, desired, actual, actual_seq, last_apply, last_reason, in_force_at,
        failed_reverts, next_revert_at, CASE WHEN EXISTS (
            SELECT 1 FROM commands WHERE commands.effect_id = effects.id AND op = 'revert'
                AND state IN ('queued', 'delivered', 'acknowledged')) THEN TRUE ELSE FALSE END AS is_revert_under_way
    FROM effects WHERE id IN (VALUES {1})";
    pub(super) SET_STATES = "UPDATE effects SET actual = v.column2, actual_seq = CAST(v.column3 AS BIGINT),
    last_apply = v.column4, last_reason = v.column5, in_force_at = CAST(v.column6 AS BIGINT),
    failed_reverts = CAST(v.column7 AS BIGINT), next_revert_at = CAST(v.column8 AS BIGINT),
    changed_at = CAST(v.column9 AS BIGINT)
        FROM (VALUES {9}) AS v WHERE effects.id = v.column1 AND actual_seq <= CAST(v.column3 AS BIGINT)";
    /// Since when responses are wanted: an alert's id says when the alert was received.
    CAUSES = "SELECT id, policy, action, alert_id, created_at FROM responses WHERE id IN (VALUES {1})";
}

#[derive(sqlx::FromRow)]
struct CausedRow {
    id: String,
    policy: Option<String>,
    action: String,
    alert_id: Option<String>,
    created_at: i64,
}

/// The end of a command, and where the command belongs.
pub(super) struct EffectNews {
    pub(super) effect: Uuid,
    pub(super) agent: Uuid,
    pub(super) response: Uuid,
    pub(super) end: CommandEnd,
}

#[derive(sqlx::FromRow)]
struct StateRow {
    id: String,
    desired: Desired,
    actual: Actual,
    actual_seq: i64,
    last_apply: Option<LastApply>,
    last_reason: String,
    in_force_at: Option<i64>,
    failed_reverts: i64,
    next_revert_at: Option<i64>,
    is_revert_under_way: bool,
}

struct Known {
    state: EffectState,
    is_revert_under_way: bool,
    is_changed: bool,
}

/// Settles the ends of commands, whose own states are written already. One-shot commands and
/// effects unknown to this ledger have no row. Returns the effects that are not in force because of
/// this news.
pub(super) async fn settle(ledger: &mut LedgerTx, mut news: Vec<EffectNews>, now: Timestamp) -> Result<Vec<Uuid>> {
    news.sort_by_key(|news| (news.effect, news.end.seq));
    let mut rows: Vec<Uuid> = news.iter().map(|news| news.effect).collect();
    rows.dedup();
    let rows = rows.into_iter().map(|effect| binds![effect]).collect();
    let found: Vec<StateRow> = ledger.tx.each_row(STATES, rows, vec![]).await?;
    let mut effects: HashMap<Uuid, Known> = HashMap::with_capacity(found.len());
    for row in found {
        effects.insert(id(&row.id)?, row.into());
    }
    let mut contained = Vec::new();
    for EffectNews { effect, agent, response, end } in &news {
        let known = effects.get_mut(effect);
        if end.finding == EffectFinding::RevertFailed {
            let wait = retry_delay(known.as_ref().map_or(0, |known| known.state.failed_reverts));
            let (effect, agent) = (effect.to_string(), agent.to_string());
            tracing::error!(
                effect,
                agent,
                "effect {effect} on agent {agent} could not be lifted, retrying in {wait:?}"
            );
        }
        let is_first = known.as_ref().is_none_or(|known| known.state.failed_reverts == 0);
        if end.finding == EffectFinding::RevertFailed && is_first {
            tell_failing(ledger, *effect, *agent, &end.reason, now);
        }
        if let Some(known) = known {
            let was_in_force = known.state.in_force_at.is_some();
            known.is_changed |= known.state.settle(end, known.is_revert_under_way, now);
            let is_verified = matches!(end.finding, EffectFinding::Applied(_, LastApply::Verified));
            if is_verified && !was_in_force && known.state.in_force_at.is_some() {
                contained.push(*response);
            }
        }
    }
    let changed = effects.into_iter().filter(|(_, known)| known.is_changed);
    let rows = changed.map(|(effect, Known { state, .. })| {
        let head =
            binds![effect, state.actual, state.actual_seq, state.last_apply, state.last_reason, state.in_force_at];
        [head, binds![state.failed_reverts, state.next_revert_at, now]].concat()
    });
    ledger.tx.execute_rows(SET_STATES, rows.collect(), vec![]).await?;
    count_contained(ledger, contained, now).await?;
    Ok(news.into_iter().filter(|news| news.end.finding.is_in_vain()).map(|news| news.effect).collect())
}

/// Counts how long it took, for the responses of effects that came into force.
async fn count_contained(ledger: &mut LedgerTx, responses: Vec<Uuid>, now: Timestamp) -> Result<()> {
    let mut times: HashMap<Uuid, usize> = HashMap::new();
    for response in responses {
        *times.entry(response).or_default() += 1;
    }
    let rows = times.keys().map(|response| binds![*response]).collect();
    for row in ledger.tx.each_row::<CausedRow>(CAUSES, rows, vec![]).await? {
        let CausedRow { id: response, policy, action, alert_id, created_at } = row;
        let since = match &alert_id {
            Some(alert) => received(&id(alert)?),
            None => Timestamp::from_millis(created_at),
        };
        let contained = Containment { policy, action, since, at: now };
        for _ in 0..times.get(&id(&response)?).copied().unwrap_or(0) {
            ledger.count_contained(contained.clone());
        }
    }
    Ok(())
}

/// Tells followers that an effect cannot be lifted.
fn tell_failing(ledger: &mut LedgerTx, effect: Uuid, agent: Uuid, reason: &str, now: Timestamp) {
    let (kind, noun, noun_id) = (EventType::EffectFailing, "effect", effect.to_string());
    let (actor, detail) = (Actor::Agent(agent).to_string(), reason.to_owned());
    ledger.tell(&LooseEvent { kind, noun, noun_id, actor, detail }, &About::default(), now);
}

impl From<StateRow> for Known {
    fn from(row: StateRow) -> Self {
        let state = EffectState {
            desired: row.desired,
            actual: row.actual,
            actual_seq: row.actual_seq,
            last_apply: row.last_apply,
            last_reason: row.last_reason,
            in_force_at: row.in_force_at.map(Timestamp::from_millis),
            failed_reverts: row.failed_reverts,
            next_revert_at: row.next_revert_at.map(Timestamp::from_millis),
        };
        Self { state, is_revert_under_way: row.is_revert_under_way, is_changed: false }
    }
}
