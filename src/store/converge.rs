//! Convergence (promise 10): what an agent says it holds, compared with what the ledger wants of it. What was lost is applied
//! again, what nobody wants is lifted, what people released on the host ends here too; what only drifted is noted, because
//! whether that is repaired is the agent's own business.
//!
//! An effect with a command under way is left alone: its result says more than a report that may be older.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use riposte_protocol::message::{self, HeldEffect};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::columns::id;
use super::db::{Result, binds, statements};
use super::identity;
use super::ledger::{self, EndReason};
use super::protected::Hold;
use crate::domain::audit::Entry;
use crate::domain::effect::{Actual, Desired};

statements! {
    STANDING = "SELECT id, desired, actual, until, failed_reverts FROM effects WHERE agent_id = $1
        AND (actual IN ('in_force', 'drifted') OR (actual = 'absent' AND desired = 'in_force' AND changed_at <= $2))
        AND NOT EXISTS (SELECT 1 FROM commands
            WHERE commands.effect_id = effects.id AND state IN ('queued', 'delivered', 'acknowledged'))";
}

const NAMED: &str = "SELECT id, desired, actual, until, failed_reverts FROM effects WHERE agent_id = $1
    AND NOT EXISTS (SELECT 1 FROM commands
        WHERE commands.effect_id = effects.id AND state IN ('queued', 'delivered', 'acknowledged'))
    AND id IN (";
const HOLDS: &str = "SELECT response_id, effect_id FROM holds WHERE released_at IS NULL AND effect_id IN (";
/// What is gone is no incident any more, whoever has lifted it.
const SET_ACTUAL: &str = "UPDATE effects SET actual = $2, changed_at = $3,
    failed_reverts = CASE WHEN $2 = 'absent' THEN 0 ELSE failed_reverts END,
    next_revert_at = CASE WHEN $2 = 'absent' THEN NULL ELSE next_revert_at END WHERE id = $1";
const LIFT_SOON: &str = "UPDATE effects SET next_revert_at = $2 WHERE id = $1 AND desired = 'absent'
    AND next_revert_at IS NULL";
const FAILING: &str = "UPDATE effects SET actual = 'drifted', failed_reverts = failed_reverts + 1, changed_at = $2
    WHERE id = $1 AND failed_reverts = 0";

/// An agent whose clock is ahead by no more than this has not ended an effect too soon. One that has is given the effect
/// again; while its clock is still wrong it refuses.
const SKEW: Duration = Duration::from_mins(1);

/// What could not be applied is tried once more when the agent connects so long afterwards: its disk may have been full, its
/// firewall not there yet.
const GIVEN_UP: Duration = Duration::from_mins(5);

/// What an agent says of its effects.
#[derive(Debug, Default)]
pub struct Said {
    /// Effects as they are there.
    pub effects: Vec<HeldEffect>,
    /// Effects whose time was up and of which nothing is left.
    pub ended: Vec<Uuid>,
    /// Whether `effects` is everything that it holds.
    pub is_whole: bool,
    /// The highest number in its journal; only on connect.
    pub cursor: Option<u64>,
    /// Whether it says who it is, so that it may be believed to know what it has forgotten.
    pub has_run: bool,
}

#[derive(sqlx::FromRow)]
struct Standing {
    id: String,
    desired: String,
    actual: String,
    until: Option<i64>,
    failed_reverts: i64,
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    response_id: String,
    effect_id: String,
}

/// Brings the ledger and the agent together; gives the agents that have something to fetch.
pub(super) async fn converge(ledger: &mut LedgerTx, agent: Uuid, said: Said, now: Timestamp) -> Result<Vec<Uuid>> {
    if let Some(cursor) = said.cursor {
        identity::meet(ledger, agent, cursor, now).await?;
        if said.has_run {
            identity::look_back(ledger, agent, cursor, now).await?;
        }
    }
    let named: HashSet<Uuid> = said.effects.iter().map(|held| held.effect).chain(said.ended.iter().copied()).collect();
    let rows = named.iter().map(|effect| binds![*effect]).collect();
    let rows: Vec<Standing> = ledger.tx.each_row(NAMED, rows, ")", binds![agent]).await?;
    let standing = by_id(rows)?;
    let (mut again, mut released) = (Vec::new(), Vec::new());
    for held in &said.effects {
        let Some(row) = standing.get(&held.effect) else { continue };
        if let Some(why) = &held.released {
            released.push((held.effect, why.clone()));
        } else if row.desired == Desired::Absent.as_str() {
            unwanted(ledger, agent, held, row, now).await?;
        } else if held.actual == Some(message::Actual::Absent) {
            note(ledger, agent, held.effect, row, Actual::Absent, "it is not in force there", now).await?;
        } else {
            let is_drifted = held.actual == Some(message::Actual::Drifted);
            let actual = if is_drifted { Actual::Drifted } else { Actual::InForce };
            // What was never looked at is not news.
            if held.actual.is_some() {
                note(ledger, agent, held.effect, row, actual, "the agent looked", now).await?;
            }
            if held.until.map(Timestamp::as_millis) != row.until && !is_drifted {
                again.push(held.effect);
            }
        }
    }
    for ended in said.ended {
        if let Some(row) = standing.get(&ended) {
            note(ledger, agent, ended, row, Actual::Absent, "its time was up", now).await?;
            let is_over = row.until.is_some_and(|until| until <= now.plus(SKEW).as_millis());
            if row.desired == Desired::InForce.as_str() && !is_over {
                again.push(ended);
            }
        }
    }
    if said.is_whole {
        let rows: Vec<Standing> = ledger.tx.all(STANDING, binds![agent, now.minus(GIVEN_UP)]).await?;
        for (effect, row) in by_id(rows)?.iter().filter(|(effect, _)| !named.contains(*effect)) {
            note(ledger, agent, *effect, row, Actual::Absent, "the agent does not hold it any more", now).await?;
            let is_over = row.until.is_some_and(|until| until <= now.as_millis());
            if row.desired == Desired::InForce.as_str() && !is_over {
                again.push(*effect);
            }
        }
    }
    let mut wake = ledger::apply_again(ledger, again, now).await?;
    for (effect, why) in released {
        wake.extend(release(ledger, agent, effect, why, now).await?);
    }
    Ok(wake)
}

fn by_id(rows: Vec<Standing>) -> Result<HashMap<Uuid, Standing>> {
    rows.into_iter().map(|row| Ok((id(&row.id)?, row))).collect()
}

/// Held although nobody wants it: lifted soon, and an incident if the agent says that it cannot.
async fn unwanted(ledger: &mut LedgerTx, agent: Uuid, held: &HeldEffect, row: &Standing, now: Timestamp) -> Result<()> {
    if held.actual == Some(message::Actual::Absent) {
        return note(ledger, agent, held.effect, row, Actual::Absent, "nothing of it is left", now).await;
    }
    ledger.tx.execute(LIFT_SOON, binds![held.effect, now]).await?;
    if let Some(why) = held.failing.as_ref().filter(|_| row.failed_reverts == 0) {
        ledger.tx.execute(FAILING, binds![held.effect, now]).await?;
        tracing::error!(%agent, effect = %held.effect, "an effect cannot be lifted: {}", why.escape_debug());
        record(ledger, agent, held.effect, "failing", why, now);
    }
    Ok(())
}

async fn note(
    ledger: &mut LedgerTx,
    agent: Uuid,
    effect: Uuid,
    row: &Standing,
    actual: Actual,
    why: &str,
    now: Timestamp,
) -> Result<()> {
    if row.actual != actual.as_str() {
        ledger.tx.execute(SET_ACTUAL, binds![effect, actual.as_str(), now]).await?;
        let verb = match actual {
            Actual::InForce => "repaired",
            Actual::Drifted => "drifted",
            Actual::Absent | Actual::Unknown => "lost",
        };
        record(ledger, agent, effect, verb, why, now);
    }
    Ok(())
}

/// Somebody released it on the host, on purpose: whoever holds it holds it no more.
async fn release(ledger: &mut LedgerTx, agent: Uuid, effect: Uuid, why: String, now: Timestamp) -> Result<Vec<Uuid>> {
    let rows: Vec<HoldRow> = ledger.tx.each_row(HOLDS, vec![binds![effect]], ")", vec![]).await?;
    let holds = rows.iter().map(|row| Ok(Hold { response_id: id(&row.response_id)?, effect_id: id(&row.effect_id)? }));
    let holds = holds.collect::<Result<Vec<_>>>()?;
    let detail = format!("released on the host: {}", why.replace('\0', "\u{fffd}"));
    let why = EndReason { word: "released", detail, by: format!("agent:{agent}") };
    ledger::release_holds(ledger, &holds, &why, now).await
}

fn record(ledger: &mut LedgerTx, agent: Uuid, effect: Uuid, verb: &'static str, why: &str, now: Timestamp) {
    let (actor, detail) = (format!("agent:{agent}"), why.replace('\0', "\u{fffd}"));
    ledger.record(Entry { at: now, actor, verb, noun: "effect", noun_id: effect.to_string(), detail });
}
