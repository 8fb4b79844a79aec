//! Releases: responses end, and with them their holds. An effect without holds is lifted.

use std::collections::HashMap;

use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::end::end;
use super::queue::queue;
use super::standing::{PairRow, follow_up, load, write_effects};
use super::waves;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::{Actual, Desired, Release, Until, let_go};
use crate::domain::response::{EndReason, Hold, ResponseEnd};
use crate::store::database::columns::id;
use crate::store::database::{Bind, Result, binds, statements};

statements! {
    HOLDS_OF = "SELECT response_id, effect_id FROM holds
        WHERE released_at IS NULL AND response_id IN (VALUES {1})";
    /// The effect's state is kept with the hold, because later responses to the same target change the
    /// effect.
    RELEASE = "UPDATE holds SET released_at = CAST(v.column3 AS BIGINT),
    left_as = (SELECT CASE WHEN effects.in_force_at IS NOT NULL OR effects.last_apply IN ('verified', 'unverified')
            THEN 'in_force' ELSE COALESCE(effects.last_apply, v.column4) END
        FROM effects WHERE effects.id = holds.effect_id),
    left_reason = (SELECT COALESCE(NULLIF(effects.last_reason, ''), v.column5)
        FROM effects WHERE effects.id = holds.effect_id)
        FROM (VALUES {5}) AS v WHERE released_at IS NULL AND response_id = v.column1 AND effect_id = v.column2
    RETURNING response_id, effect_id";
    HOLDS_LEFT = "SELECT effect_id, until FROM holds WHERE released_at IS NULL AND effect_id IN (VALUES {1})";
    CALL_BACK = "UPDATE commands SET state = 'cancelled', detail = $1, finished_at = $2
    WHERE state = 'queued' AND one_shot = TRUE AND response_id IN (VALUES {1}) RETURNING id";
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
    let called_back: Vec<Id> = ledger.tx.each_row(CALL_BACK, rows.clone(), first).await?;
    for Id { id: noun_id } in called_back {
        let (actor, event, detail) = (why.by.clone(), AuditEvent::CommandCancelled, why.detail.clone());
        ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
    }
    let held: Vec<PairRow> = ledger.tx.each_row(HOLDS_OF, rows, vec![]).await?;
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
    let rows = holds.iter().map(|hold| binds![hold.response_id, hold.effect_id, now, left_as, left_reason]).collect();
    let released: Vec<PairRow> = ledger.tx.each_row(RELEASE, rows, vec![]).await?;
    let holders = released.iter().map(|row| id(&row.response_id)).collect::<Result<Vec<_>>>()?;
    end(ledger, &holders, why, now).await?;
    let rows = unique(released.iter().map(|row| row.effect_id.as_str()));
    let mut effects = load(ledger, rows.clone()).await?;
    let left: Vec<HoldRow> = ledger.tx.each_row(HOLDS_LEFT, rows, vec![]).await?;
    let mut longest: HashMap<Uuid, Until> = HashMap::new();
    for row in left {
        let until = Until::from(row.until.map(Timestamp::from_millis));
        let entry = longest.entry(id(&row.effect_id)?).or_insert(until);
        *entry = (*entry).max(until);
    }
    let mut commands = Vec::new();
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
