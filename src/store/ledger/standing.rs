//! Effects as a transaction works on them: read, changed and written back, with the commands that
//! follow from the change. Effects that were lost are applied again, and failed reverts repeated.

use std::collections::HashMap;

use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::queue::{EffectKey, NewCommand, queue};
use crate::domain::effect::{Actual, Desired, Standing};
use crate::store::database::columns::{id, target_kind};
use crate::store::database::{Bind, Result, StoreError, binds, statements};
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::EFFECTS;
use crate::store::seals::value::WithSeal;

statements! {
    REVERTS_DUE = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, actual, until FROM effects
        WHERE next_revert_at <= $1 AND desired = 'absent' ORDER BY next_revert_at LIMIT $2";
    EFFECTS_BY_ID = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, actual, until, seal
    FROM effects WHERE id IN (VALUES {1})";
    /// Current holders before former ones: at delivery a command is judged by its response's policy.
    /// One lookup at the end of the index each.
    LAST_HOLDERS = "SELECT v.column1 AS effect_id, COALESCE(
        (SELECT MAX(response_id) FROM holds WHERE effect_id = v.column1 AND released_at IS NULL),
        (SELECT MAX(response_id) FROM holds WHERE effect_id = v.column1)) AS response_id
        FROM (VALUES {1}) AS v WHERE EXISTS (SELECT 1 FROM holds WHERE effect_id = v.column1)";
    UPSERT_EFFECTS = "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments,
    desired, actual, until, actual_seq, created_at, changed_at, wanted_at, seal)
        VALUES {14} ON CONFLICT (id) DO UPDATE SET arguments = excluded.arguments, seal = excluded.seal,
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
    REVERT_QUEUED = "UPDATE effects SET next_revert_at = NULL WHERE id IN (VALUES {1})";
}

#[derive(sqlx::FromRow)]
pub(super) struct EffectKeyRow {
    id: String,
    agent_id: String,
    action: String,
    target_kind: String,
    target_value: String,
    arguments: String,
    desired: Desired,
    actual: Actual,
    until: Option<i64>,
}

/// A response and an effect that it holds, or held last.
#[derive(sqlx::FromRow)]
pub(super) struct PairRow {
    pub(super) effect_id: String,
    pub(super) response_id: String,
}

/// An effect while a transaction works on it.
pub(super) struct Effect {
    pub(super) id: Uuid,
    pub(super) key: EffectKey,
    pub(super) arguments: String,
    pub(super) standing: Standing,
    pub(super) is_new: bool,
    pub(super) touched: bool,
    /// Whether this manager wrote it as it is; else it is lifted, and never applied again.
    pub(super) is_sound: bool,
}

impl TryFrom<EffectKeyRow> for Effect {
    type Error = StoreError;

    fn try_from(row: EffectKeyRow) -> Result<Self> {
        let kind = target_kind("effects", &row.target_kind)?;
        let EffectKeyRow { desired, actual, .. } = row;
        let until = row.until.map(Timestamp::from_millis).into();
        Ok(Self {
            id: id(&row.id)?,
            key: (id(&row.agent_id)?, row.action, kind, row.target_value),
            arguments: row.arguments,
            standing: Standing { desired, actual, until },
            is_new: false,
            touched: false,
            is_sound: true,
        })
    }
}

/// Reads the effects whose ids are in `rows`.
pub(super) async fn load(ledger: &mut LedgerTx, rows: Vec<Vec<Bind>>) -> Result<Vec<Effect>> {
    let look = ledger.seals().look(Purpose::Look);
    let found: Vec<WithSeal<EffectKeyRow>> = ledger.tx.each_row(EFFECTS_BY_ID, rows, vec![]).await?;
    let effect = |row| {
        let (row, is_sound) = ledger.seals().looked_at(&EFFECTS, row, look);
        Ok(Effect { is_sound, ..Effect::try_from(row)? })
    };
    found.into_iter().map(effect).collect()
}

/// Writes the effects that were touched.
pub(super) async fn write_effects(
    ledger: &mut LedgerTx,
    effects: impl Iterator<Item = Effect>,
    now: Timestamp,
) -> Result<()> {
    let rows = effects
        .filter(|effect| effect.touched)
        .map(|Effect { id, key: (agent, action, kind, value), arguments, standing, is_sound, .. }| {
            let Standing { desired, actual, until } = standing;
            let until = until.instant();
            let head = binds![id, agent, action, kind, value, arguments, desired];
            let tail = binds![actual, until, 0_i64, now, now, now];
            // One that another program wrote stays known as such.
            let sealed = || ledger.seal_of(&EFFECTS, &head.iter().chain(&tail[1..2]).collect::<Vec<_>>());
            let seal = if is_sound { sealed() } else { Bind::from(Vec::new()) };
            [head, tail, vec![seal]].concat()
        })
        .collect();
    ledger.tx.execute_rows(UPSERT_EFFECTS, rows, vec![]).await?;
    Ok(())
}

/// Queues another apply for wanted effects that are missing or have another end.
pub(in crate::store) async fn apply_again(
    ledger: &mut LedgerTx,
    effects: Vec<Uuid>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let effects = load(ledger, effects.into_iter().map(|effect| binds![effect]).collect()).await?;
    let wanted = effects.iter().filter(|effect| effect.standing.desired == Desired::InForce);
    let ops = wanted.map(|effect| (Op::Apply, effect.id)).collect();
    let commands = follow_up(ledger, &effects, ops, false).await?;
    Ok(queue(ledger, commands, now).await?.agents)
}

/// Queues another revert for effects whose last one failed, at most `limit`. Returns the agents
/// with new commands.
pub(in crate::store) async fn retry_reverts(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<Vec<Uuid>> {
    let rows: Vec<EffectKeyRow> = ledger.tx.all(REVERTS_DUE, binds![now, limit]).await?;
    let effects: Vec<Effect> = rows.into_iter().map(Effect::try_from).collect::<Result<_>>()?;
    let ops = effects.iter().map(|effect| (Op::Revert, effect.id)).collect();
    let commands = follow_up(ledger, &effects, ops, false).await?;
    let rows = effects.iter().map(|effect| binds![effect.id]).collect();
    ledger.tx.execute_rows(REVERT_QUEUED, rows, vec![]).await?;
    Ok(queue(ledger, commands, now).await?.agents)
}

/// Commands without a new response; each belongs to the last response that held the effect.
pub(super) async fn follow_up(
    ledger: &mut LedgerTx,
    effects: &[Effect],
    ops: Vec<(Op, Uuid)>,
    is_urgent: bool,
) -> Result<Vec<NewCommand>> {
    let rows = ops.iter().map(|(_, effect)| binds![*effect]).collect();
    let holders: Vec<PairRow> = ledger.tx.each_row(LAST_HOLDERS, rows, vec![]).await?;
    let mut last = HashMap::with_capacity(holders.len());
    for holder in &holders {
        last.insert(id(&holder.effect_id)?, id(&holder.response_id)?);
    }
    let by_id: HashMap<Uuid, &Effect> = effects.iter().map(|effect| (effect.id, effect)).collect();
    let commands = ops.into_iter().filter_map(|(op, id)| {
        let effect = by_id.get(&id).filter(|effect| effect.is_sound || op == Op::Revert)?;
        let (key, arguments, until) = (effect.key.clone(), effect.arguments.clone(), effect.standing.until);
        let response = last.get(&id).copied().unwrap_or(Uuid::nil());
        let (one_shot, is_new) = (false, false);
        Some(NewCommand { effect: id, key, response, op, arguments, until, one_shot, is_urgent, is_new })
    });
    Ok(commands.collect())
}
