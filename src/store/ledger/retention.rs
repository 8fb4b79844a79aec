//! What is removed by age: responses that are over with all that belongs to them, and the beginning of
//! the audit log. Each batch is one transaction with a bounded number of rows and an audit entry of its
//! own, and asks once more whether what it removes is over and under no legal hold.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::openc2;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::configured::legal_holds::{first_id, is_held};
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, binds, statements};

/// Whether the row of `responses` that a statement looks at is not over: it is open, or one of its
/// effects is in force, being undone or unconfirmed, or one of its commands is not settled.
///
/// An effect that was never confirmed counts only if its agent may have applied it.
macro_rules! is_needed {
    () => {
        "(responses.state IN ('active', 'awaiting_approval')
            OR EXISTS (SELECT 1 FROM holds WHERE holds.response_id = responses.id AND holds.released_at IS NULL)
            OR EXISTS (SELECT 1 FROM commands WHERE commands.response_id = responses.id
                AND commands.state IN ('queued', 'delivered', 'acknowledged'))
            OR EXISTS (SELECT 1 FROM holds JOIN effects ON effects.id = holds.effect_id
                WHERE holds.response_id = responses.id AND (effects.desired = 'in_force'
                    OR effects.actual IN ('in_force', 'drifted') OR effects.next_revert_at IS NOT NULL
                    OR (effects.actual = 'unknown' AND effects.last_apply IN ('verified', 'unverified', 'timed_out', 'expired'))
                    OR EXISTS (SELECT 1 FROM commands WHERE commands.effect_id = effects.id
                        AND commands.state IN ('queued', 'delivered', 'acknowledged')))))"
    };
}
pub(in crate::store) use is_needed;

statements! {
    OVER = concat!("SELECT id, created_at FROM responses
        WHERE id > $1 AND id < $2 AND COALESCE(ended_at, created_at) < $3
            AND NOT ", is_needed!(), " AND NOT ", is_held!(), "
        ORDER BY id LIMIT $4");
    STILL_OVER = concat!("SELECT id, created_at FROM responses
        WHERE NOT ", is_needed!(), " AND NOT ", is_held!(), " AND id IN (VALUES {1})");
    COMMANDS = "SELECT id, effect_id FROM commands WHERE response_id = $1 LIMIT $2";
    EFFECTS = "SELECT effect_id AS id FROM holds WHERE response_id = $1 LIMIT $2";
    DROP_RESULTS = "DELETE FROM results WHERE command_id IN (VALUES {1})";
    DROP_COMMANDS = "DELETE FROM commands WHERE id IN (VALUES {1})";
    DROP_HOLDS = "DELETE FROM holds WHERE response_id = $1 AND effect_id IN (VALUES {1})";
    DROP_ANSWERS = "DELETE FROM answers WHERE response_id IN (VALUES {1})";
    DROP_WAVES = "DELETE FROM waves WHERE response_id IN (VALUES {1})";
    DROP_RESPONSES = "DELETE FROM responses WHERE id IN (VALUES {1})";
    DROP_EFFECTS = "DELETE FROM effects WHERE desired = 'absent' AND actual NOT IN ('in_force', 'drifted')
            AND next_revert_at IS NULL
            AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.effect_id = effects.id)
            AND NOT EXISTS (SELECT 1 FROM commands WHERE commands.effect_id = effects.id)
            AND id IN (VALUES {1})";
    FIRST_ENTRY = "SELECT seq FROM audit ORDER BY seq LIMIT 1";
    DROP_ENTRIES = "DELETE FROM audit WHERE seq <= $1";
    DROP_CHECKPOINTS = "DELETE FROM audit_checkpoints WHERE seq <= $1 AND seq < $2";
    FIRST_HELD = concat!("SELECT audit.seq FROM audit WHERE audit.seq > $1 AND audit.seq <= $2 AND (
            EXISTS (SELECT 1 FROM legal_holds
                WHERE (legal_holds.kind = 'time' AND audit.at >= legal_holds.since AND audit.at < legal_holds.until)
                    OR (legal_holds.kind IN ('response', 'policy', 'agent') AND legal_holds.kind = audit.noun
                        AND legal_holds.value = audit.noun_id)
                    OR (audit.noun = 'legal_hold' AND audit.noun_id = legal_holds.id)
                    OR (legal_holds.kind IN ('policy', 'agent') AND audit.actor = legal_holds.kind || ':' || legal_holds.value))
            OR (audit.noun = 'response' AND EXISTS (SELECT 1 FROM responses WHERE responses.id = audit.noun_id AND ", is_held!(), "))
            OR (audit.noun = 'command' AND EXISTS (SELECT 1 FROM commands JOIN responses ON responses.id = commands.response_id
                WHERE commands.id = audit.noun_id AND ", is_held!(), "))
            OR (audit.noun = 'effect' AND EXISTS (SELECT 1 FROM holds JOIN responses ON responses.id = holds.response_id
                WHERE holds.effect_id = audit.noun_id AND ", is_held!(), ")))
        ORDER BY audit.seq LIMIT 1");
}

#[derive(Debug, sqlx::FromRow)]
struct OldResponse {
    id: String,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct OldCommand {
    id: String,
    effect_id: String,
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

#[derive(sqlx::FromRow)]
struct Seq {
    seq: i64,
}

/// At most `limit` responses after `after` that ended before `cutoff`, are over and under no legal hold.
pub async fn over(db: &Db, after: Uuid, cutoff: Timestamp, limit: i64) -> Result<Vec<Uuid>> {
    let rows: Vec<OldResponse> = db.all(OVER, binds![after, first_id(cutoff), cutoff, limit]).await?;
    rows.iter().map(|row| id(&row.id)).collect()
}

/// What one batch has removed.
#[derive(Debug, Default)]
struct Removed {
    responses: Vec<OldResponse>,
    commands: u64,
    results: u64,
    decisions: u64,
    effects: u64,
}

/// Removes those of `responses` that are still over, until about `limit` rows are gone. Returns whether
/// there is more to do. What belongs to a response goes before it, so that nothing is left behind if the
/// manager is killed between two batches.
pub(in crate::store) async fn forget_responses(
    ledger: &mut LedgerTx,
    responses: &[Uuid],
    limit: i64,
    now: Timestamp,
) -> Result<bool> {
    let rows = responses.iter().map(|response| binds![*response]).collect();
    let mut over: Vec<OldResponse> = ledger.tx.each_row(STILL_OVER, rows, vec![]).await?;
    over.sort_by(|one, other| one.id.cmp(&other.id));
    let (mut removed, mut left, mut has_more) = (Removed::default(), limit, false);
    for response in over {
        if left <= 0 {
            has_more = true;
            break;
        }
        let rows = forget_parts(ledger, &response.id, left, &mut removed).await?;
        left -= rows;
        if left <= 0 {
            // Its other parts are for the next batch.
            has_more = true;
            break;
        }
        left -= 1;
        removed.responses.push(response);
    }
    let whole: Vec<Vec<Bind>> = removed.responses.iter().map(|response| binds![response.id.as_str()]).collect();
    removed.decisions += ledger.tx.execute_rows(DROP_ANSWERS, whole.clone(), vec![]).await?;
    ledger.tx.execute_rows(DROP_WAVES, whole.clone(), vec![]).await?;
    ledger.tx.execute_rows(openc2::DROP, whole.clone(), vec![]).await?;
    ledger.tx.execute_rows(DROP_RESPONSES, whole, vec![]).await?;
    record_responses(ledger, &removed, now);
    Ok(has_more)
}

/// Removes at most about `limit` commands, results and effects of one response. Returns how many rows
/// there were; fewer than `limit` means that none is left.
async fn forget_parts(ledger: &mut LedgerTx, response: &str, limit: i64, removed: &mut Removed) -> Result<i64> {
    let commands: Vec<OldCommand> = ledger.tx.all(COMMANDS, binds![response, limit]).await?;
    let ids: Vec<Vec<Bind>> = commands.iter().map(|command| binds![command.id.as_str()]).collect();
    let mut count = i64::try_from(commands.len()).unwrap_or(i64::MAX);
    removed.results += ledger.tx.execute_rows(DROP_RESULTS, ids.clone(), vec![]).await?;
    removed.commands += ledger.tx.execute_rows(DROP_COMMANDS, ids, vec![]).await?;
    let mut effects: Vec<String> = commands.into_iter().map(|command| command.effect_id).collect();
    if count < limit {
        let held: Vec<Id> = ledger.tx.all(EFFECTS, binds![response, limit - count]).await?;
        let ids: Vec<Vec<Bind>> = held.iter().map(|effect| binds![effect.id.as_str()]).collect();
        ledger.tx.execute_rows(DROP_HOLDS, ids, binds![response]).await?;
        count += i64::try_from(held.len()).unwrap_or(i64::MAX);
        effects.extend(held.into_iter().map(|effect| effect.id));
    }
    effects.sort();
    effects.dedup();
    let effects = effects.into_iter().map(|effect| binds![effect]).collect();
    removed.effects += ledger.tx.execute_rows(DROP_EFFECTS, effects, vec![]).await?;
    Ok(count)
}

fn record_responses(ledger: &mut LedgerTx, removed: &Removed, now: Timestamp) {
    let Removed { responses, commands, results, decisions, effects } = removed;
    if responses.is_empty() && *commands == 0 && *effects == 0 {
        return;
    }
    let made = |response: &OldResponse| Timestamp::from_millis(response.created_at);
    let range = match (responses.first(), responses.last()) {
        (Some(first), Some(last)) => format!(
            "{} responses, made from {} to {} ({} to {})",
            responses.len(),
            made(first),
            made(last),
            first.id,
            last.id
        ),
        _ => "parts of a response, which goes next".to_owned(),
    };
    let detail =
        format!("{range}, with {commands} commands, {results} results, {decisions} decisions and {effects} effects");
    let noun_id = "responses".to_owned();
    let (actor, event) = (Actor::Riposte, AuditEvent::RetentionRemoved);
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}

/// The first entry after `after`, up to `last`, that a legal hold covers.
pub async fn first_held(db: &Db, after: i64, last: i64) -> Result<Option<i64>> {
    Ok(db.optional::<Seq>(FIRST_HELD, binds![after, last]).await?.map(|row| row.seq))
}

/// The number of the first entry that the audit log still has.
pub async fn first_entry(db: &Db) -> Result<Option<i64>> {
    Ok(db.optional::<Seq>(FIRST_ENTRY, vec![]).await?.map(|row| row.seq))
}

/// Removes at most `limit` entries of the audit log up to `last`, the signed beginning, with the
/// checkpoints of before. It stops at the first entry under a legal hold that came since the beginning
/// was signed. Returns how many entries it removed.
pub(in crate::store) async fn forget_entries(
    ledger: &mut LedgerTx,
    last: i64,
    limit: i64,
    now: Timestamp,
) -> Result<i64> {
    let first = ledger.tx.optional::<Seq>(FIRST_ENTRY, vec![]).await?.map_or(i64::MAX, |row| row.seq);
    let mut end = last.min(first.saturating_add(limit - 1));
    if first <= end {
        let held = ledger.tx.optional::<Seq>(FIRST_HELD, binds![first - 1, end]).await?;
        end = held.map_or(end, |held| held.seq - 1);
    }
    if first > end {
        return Ok(0);
    }
    let count = ledger.tx.execute(DROP_ENTRIES, binds![end]).await?;
    ledger.tx.execute(DROP_CHECKPOINTS, binds![end, last]).await?;
    let detail =
        format!("{count} entries of the audit log, {first} to {end}; it begins after {last}, as its checkpoints say");
    let (actor, event, noun_id) = (Actor::Riposte, AuditEvent::RetentionRemoved, "audit".to_owned());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
    Ok(end - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::{plan, reads_whole};

    /// What a statement looks at is a range of ids or numbers.
    #[tokio::test]
    async fn nothing_is_found_by_reading_a_whole_table() {
        for (name, statement) in STATEMENTS {
            let scans = reads_whole(statement).await;
            assert!(*name == "FIRST_ENTRY" || scans.is_empty(), "{name}: {scans:?}");
        }
        for (statement, range) in [
            (OVER, "responses USING INDEX sqlite_autoindex_responses_1 (id>? AND id<?)"),
            (FIRST_HELD, "audit USING INDEX sqlite_autoindex_audit_1 (seq>? AND seq<?)"),
        ] {
            let plan = plan(statement).await;
            assert!(plan.iter().any(|step| step.contains(range)), "{plan:?}");
        }
    }
}
