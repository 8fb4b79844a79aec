//! Repeated commands: applies of lost effects, and reverts that failed.

use std::collections::HashMap;

use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::{EFFECTS_BY_ID, Effect, EffectKeyRow, LAST_HOLDERS, LAST_HOLDERS_AFTER, PairRow, REVERTS_DUE};
use crate::domain::effect::Desired;
use crate::store::database::columns::id;
use crate::store::database::{Result, binds};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::queue::{NewCommand, queue};

/// Queues another apply for wanted effects that are missing or have another end.
pub(in crate::store) async fn apply_again(
    ledger: &mut LedgerTx,
    effects: Vec<Uuid>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let rows = effects.iter().map(|effect| binds![*effect]).collect();
    let found: Vec<EffectKeyRow> = ledger.tx.each_row(EFFECTS_BY_ID, rows, ")", vec![]).await?;
    let effects: Vec<Effect> = found.into_iter().map(Effect::try_from).collect::<Result<_>>()?;
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
    const PENDING: &str = "UPDATE effects SET next_revert_at = NULL WHERE id IN (";
    let rows = effects.iter().map(|effect| binds![effect.id]).collect();
    ledger.tx.execute_rows(PENDING, rows, ")", vec![]).await?;
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
    let holders: Vec<PairRow> = ledger.tx.each_row(LAST_HOLDERS, rows, LAST_HOLDERS_AFTER, vec![]).await?;
    let mut last = HashMap::with_capacity(holders.len());
    for holder in &holders {
        last.insert(id(&holder.effect_id)?, id(&holder.response_id)?);
    }
    let by_id: HashMap<Uuid, &Effect> = effects.iter().map(|effect| (effect.id, effect)).collect();
    let commands = ops.into_iter().filter_map(|(op, id)| {
        let effect = by_id.get(&id)?;
        let (key, arguments, until) = (effect.key.clone(), effect.arguments.clone(), effect.standing.until);
        let response = last.get(&id).copied().unwrap_or(Uuid::nil());
        let (one_shot, is_new) = (false, false);
        Some(NewCommand { effect: id, key, response, op, arguments, until, one_shot, is_urgent, is_new })
    });
    Ok(commands.collect())
}
