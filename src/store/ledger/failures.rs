//! Ends responses as `failed` once they can no longer come into force: every command is final
//! without success, or the agents were revoked. Called where this can become true: at a result, an
//! expiry or a revocation. Costs nothing while applies succeed.
//!
//! Effects that were in force before are not ended here; they are applied again when the agent
//! connects.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::release::release;
use crate::domain::effect::LastApply;
use crate::domain::response::{EndReason, ResponseEnd};
use crate::store::database::columns::id;
use crate::store::database::{Result, binds, statements};

statements! {
    /// The responses that hold given effects, each once.
    HOLDERS = "SELECT DISTINCT response_id AS id FROM holds WHERE released_at IS NULL
        AND effect_id IN (VALUES {1})";
    HOLDERS_ON = "SELECT DISTINCT holds.response_id AS id
    FROM (VALUES {1}) AS v JOIN effects ON effects.agent_id = v.column1
        AND (effects.desired = 'in_force' OR effects.actual IN ('in_force', 'drifted'))
    JOIN holds ON holds.effect_id = effects.id AND holds.released_at IS NULL";
    /// The first hold that may still come into force, or a pending wave, keeps the response active.
    HOPELESS = "SELECT responses.id, (
        SELECT CASE WHEN agents.revoked_at IS NULL THEN FALSE ELSE TRUE END
        FROM holds JOIN effects ON effects.id = holds.effect_id JOIN agents ON agents.id = effects.agent_id
        WHERE holds.response_id = responses.id AND holds.released_at IS NULL ORDER BY effects.id LIMIT 1) AS is_revoked, (
        SELECT effects.last_apply FROM holds JOIN effects ON effects.id = holds.effect_id
        WHERE holds.response_id = responses.id AND holds.released_at IS NULL ORDER BY effects.id LIMIT 1) AS last_apply, (
        SELECT effects.last_reason FROM holds JOIN effects ON effects.id = holds.effect_id
        WHERE holds.response_id = responses.id AND holds.released_at IS NULL ORDER BY effects.id LIMIT 1) AS reason
    FROM responses WHERE state = 'active' AND one_shot = FALSE AND id IN (VALUES {1}) AND EXISTS (
        SELECT 1 FROM holds WHERE holds.response_id = responses.id AND released_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM waves WHERE waves.response_id = responses.id)
    AND NOT EXISTS (
        SELECT 1 FROM holds JOIN effects ON effects.id = holds.effect_id JOIN agents ON agents.id = effects.agent_id
        WHERE holds.response_id = responses.id AND holds.released_at IS NULL AND agents.revoked_at IS NULL
            AND (effects.in_force_at IS NOT NULL OR effects.last_apply IS NULL
                OR effects.last_apply IN ('verified', 'unverified', 'observed')
                OR EXISTS (SELECT 1 FROM commands WHERE commands.effect_id = effects.id AND op = 'apply'
                    AND state IN ('queued', 'delivered', 'acknowledged'))))";
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

#[derive(sqlx::FromRow)]
struct HopelessRow {
    id: String,
    is_revoked: Option<bool>,
    last_apply: Option<LastApply>,
    reason: Option<String>,
}

/// Ends responses holding `effects` that can no longer come into force. Returns the agents with new
/// commands.
pub(in crate::store) async fn end(ledger: &mut LedgerTx, effects: Vec<Uuid>, now: Timestamp) -> Result<Vec<Uuid>> {
    let rows = effects.into_iter().map(|effect| binds![effect]).collect();
    let holders: Vec<Id> = ledger.tx.each_row(HOLDERS, rows, vec![]).await?;
    let holders = holders.iter().map(|row| id(&row.id)).collect::<Result<_>>()?;
    end_these(ledger, holders, None, now).await
}

/// The same for effects on one agent.
pub(super) async fn end_on(ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> Result<Vec<Uuid>> {
    let holders: Vec<Id> = ledger.tx.each_row(HOLDERS_ON, vec![binds![agent]], vec![]).await?;
    let holders = holders.iter().map(|row| id(&row.id)).collect::<Result<_>>()?;
    end_these(ledger, holders, None, now).await
}

/// The same for these responses, with `why` as the reason if set.
pub(super) async fn end_these(
    ledger: &mut LedgerTx,
    mut responses: Vec<Uuid>,
    why: Option<&ResponseEnd>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    responses.sort_unstable();
    responses.dedup();
    let rows = responses.into_iter().map(|response| binds![response]).collect();
    let hopeless: Vec<HopelessRow> = ledger.tx.each_row(HOPELESS, rows, vec![]).await?;
    // Responses with the same reason end in one statement.
    let mut by_reason: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
    for row in hopeless {
        by_reason.entry(sentence(&row)).or_default().push(id(&row.id)?);
    }
    let mut wake = Vec::new();
    for (detail, responses) in by_reason {
        let failed = ResponseEnd::by_riposte(EndReason::Failed, detail);
        wake.extend(release(ledger, &responses, why.unwrap_or(&failed), now).await?);
    }
    Ok(wake)
}

/// The reason, from the first agent; the response lists those of the others.
fn sentence(row: &HopelessRow) -> String {
    let reason = row.reason.as_deref().unwrap_or_default();
    match row.last_apply {
        _ if row.is_revoked == Some(true) => "its agents were revoked".to_owned(),
        Some(last) => format!("it came into force on no agent: {}", last.behind(reason)),
        None => "it can come into force on no agent".to_owned(),
    }
}
