//! Convergence (promise 10): compares the effects that an agent reports with those that the ledger
//! wants. Lost effects are applied again, unwanted ones are lifted, and a release on the host ends
//! the effect here too. Drift is only recorded: the agent decides whether to repair it.
//!
//! An effect with a command in flight is skipped: the command's result is newer than the report.
//!
//! After a manager restart every agent reports at once, and nearly all reports match. So a report
//! is first compared outside the write transaction ([`compare`]). Only differences are settled in
//! one ([`converge`]), which reads them again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use riposte_protocol::message::{self, HeldEffect};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::release::release_holds;
use super::resync;
use super::standing;
use super::strangers;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::{Actual, Desired};
use crate::domain::response::{EndReason, Hold, ResponseEnd};
use crate::domain::settlement::RETRY_MIN;
use crate::store::database::columns::id;
use crate::store::database::{Db, Result, binds, statements};

statements! {
    STANDING = "SELECT id, agent_id, desired, actual, until, failed_reverts, changed_at FROM effects
        WHERE agent_id = $1 AND (desired = 'in_force' OR actual IN ('in_force', 'drifted'))";
    /// Compares the agent outside the SQL condition: SQLite would otherwise use the agent's index and
    /// read all its old effects.
    NAMED = "SELECT id, agent_id, desired, actual, until, failed_reverts, changed_at FROM effects
    WHERE NOT EXISTS (SELECT 1 FROM commands
        WHERE commands.effect_id = effects.id AND state IN ('queued', 'delivered', 'acknowledged'))
    AND id IN (VALUES {1})";
    HOLDS = "SELECT response_id, effect_id FROM holds WHERE released_at IS NULL
        AND effect_id IN (VALUES {1})";
    /// An effect that is gone ends its incident, whatever lifted it.
    SET_ACTUAL = "UPDATE effects SET actual = $2, changed_at = $3,
    failed_reverts = CASE WHEN $2 = 'absent' THEN 0 ELSE failed_reverts END,
    next_revert_at = CASE WHEN $2 = 'absent' THEN NULL ELSE next_revert_at END,
    in_force_at = CASE WHEN $2 = 'in_force' THEN COALESCE(in_force_at, $3) ELSE in_force_at END,
    last_reason = CASE WHEN $2 = 'in_force' THEN last_reason ELSE CAST($4 AS TEXT) END WHERE id = $1";
    LIFT_SOON = "UPDATE effects SET next_revert_at = $2 WHERE id = $1 AND desired = 'absent'
    AND next_revert_at IS NULL";
    FAILING = "UPDATE effects SET actual = 'drifted', failed_reverts = failed_reverts + 1, changed_at = $2
    WHERE id = $1 AND failed_reverts = 0";
}

/// Tolerated clock skew. An agent whose clock is further ahead ended the effect too soon. It gets
/// the effect again, and refuses it until its clock is right.
const SKEW: Duration = Duration::from_mins(1);

/// A failed apply is retried once when the agent reconnects after this time: its disk may have been
/// full, or its firewall not ready.
const GIVEN_UP: Duration = Duration::from_mins(5);

/// What an agent reports when it connects.
#[derive(Debug)]
pub struct Hello {
    /// Highest command number in its journal.
    pub cursor: u64,
    /// Whether it sends a run id, so that a lower cursor proves a rollback.
    pub has_run: bool,
    /// Whether this is the first report of this run of the agent.
    pub is_first: bool,
    /// Reported effects.
    pub effects: Vec<HeldEffect>,
    /// Whether `effects` is complete.
    pub is_whole: bool,
}

/// Possible differences between an agent's effects and the ledger.
#[derive(Debug, Default)]
pub struct AgentNews {
    /// The agent's run and cursor, on connect.
    pub met: Option<Met>,
    /// Reported effects.
    pub effects: Vec<HeldEffect>,
    /// Expired effects that are gone from the host.
    pub ended: Vec<Uuid>,
    /// Effects that should be in force and are not.
    pub missing: Vec<Uuid>,
    /// Commands that the agent rejected.
    pub rejected: Option<resync::RejectedCount>,
}

/// The agent's run and cursor; as in [`Hello`].
#[derive(Clone, Copy, Debug)]
pub struct Met {
    cursor: u64,
    has_run: bool,
    is_first: bool,
}

/// An effect's state in the ledger.
#[derive(sqlx::FromRow)]
struct Standing {
    id: String,
    agent_id: String,
    desired: Desired,
    actual: Actual,
    until: Option<i64>,
    failed_reverts: i64,
    changed_at: i64,
}

impl Standing {
    fn is_wanted(&self) -> bool {
        self.desired == Desired::InForce
    }

    /// Whether it has expired at `at`.
    fn is_over(&self, at: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= at.as_millis())
    }

    /// Whether its absence on the agent is a difference.
    fn can_be_missing(&self, now: Timestamp) -> bool {
        matches!(self.actual, Actual::InForce | Actual::Drifted)
            || self.actual == Actual::Absent && self.is_wanted() && self.changed_at <= now.minus(GIVEN_UP).as_millis()
    }

    /// How the report differs from the ledger; `None` if they agree.
    fn differs(&self, held: &HeldEffect, now: Timestamp) -> Option<Difference> {
        let is_absent = held.actual == Some(message::Actual::Absent);
        let is_drifted = held.actual == Some(message::Actual::Drifted);
        let news = |actual: Actual, why| (self.actual != actual).then_some((actual, why));
        let is_other_end = held.until.map(Timestamp::as_millis) != self.until;
        let is_lost = is_absent && self.can_be_missing(now) && !self.is_over(now);
        let is_failing = held.failing.is_some();
        let is_again = self.is_wanted() && !is_failing && (is_lost || is_other_end && !is_absent && !is_drifted);
        let seen = match (self.is_wanted(), held.actual) {
            (false, Some(message::Actual::Absent)) => news(Actual::Absent, "it is gone from the host"),
            (true, Some(message::Actual::Absent)) => news(Actual::Absent, "it is not in force there"),
            (true, Some(message::Actual::Drifted)) => news(Actual::Drifted, "the agent looked, and it is not in force"),
            (true, Some(message::Actual::InForce)) => news(Actual::InForce, "the agent looked"),
            // An unverified effect is no evidence of a difference.
            (_, None) | (false, _) => None,
        };
        if let Some(why) = &held.released {
            Some(Difference::Released(why.clone()))
        } else if !self.is_wanted() && !is_absent {
            Some(Difference::Unwanted)
        } else if is_failing && self.failed_reverts == 0 {
            Some(Difference::Failing)
        } else {
            (seen.is_some() || is_again).then_some(Difference::Other { seen, is_again })
        }
    }
}

/// How a reported effect differs from the ledger.
enum Difference {
    /// The effect was released on the host, for the given reason.
    Released(String),
    /// The agent holds the effect, but no response wants it.
    Unwanted,
    /// A failed apply left something that cannot be lifted. The agent keeps trying; until then no
    /// command is sent.
    Failing,
    /// State or end differs from the ledger.
    Other { seen: Option<(Actual, &'static str)>, is_again: bool },
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    response_id: String,
    effect_id: String,
}

/// Returns the part of the report that may differ from the ledger. Matching effects need no work,
/// even with a command in flight. Differences are checked again when they are settled.
pub async fn compare(db: &Db, agent: Uuid, hello: Hello, now: Timestamp) -> Result<AgentNews> {
    let Hello { cursor, has_run, is_first, mut effects, is_whole } = hello;
    let standing = by_id(db.all(STANDING, binds![agent]).await?, agent)?;
    let named: HashSet<Uuid> = effects.iter().map(|held| held.effect).collect();
    let lost = standing.iter().filter(|(effect, row)| is_whole && !named.contains(*effect) && row.can_be_missing(now));
    let missing = lost.map(|(effect, _)| *effect).collect();
    // An effect that the ledger does not list as active may be unwanted, or just created.
    effects.retain(|held| standing.get(&held.effect).is_none_or(|row| row.differs(held, now).is_some()));
    Ok(AgentNews { met: Some(Met { cursor, has_run, is_first }), effects, ended: Vec::new(), missing, rejected: None })
}

/// Settles the differences between an agent's report and the ledger. Returns the agents with new
/// commands.
pub(in crate::store) async fn converge(
    ledger: &mut LedgerTx,
    agent: Uuid,
    news: AgentNews,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let AgentNews { met, effects, ended, missing, rejected } = news;
    if let Some(rejected) = rejected {
        resync::reject(ledger, agent, &rejected, now).await?;
    }
    if let Some(Met { cursor, has_run, .. }) = met {
        resync::advance_sequence(ledger, agent, cursor, now).await?;
        if has_run {
            resync::detect_rollback(ledger, agent, cursor, now).await?;
        }
    }
    let named: HashSet<Uuid> =
        effects.iter().map(|held| held.effect).chain([ended.clone(), missing.clone()].concat()).collect();
    let rows = named.iter().map(|effect| binds![*effect]).collect();
    let standing = by_id(ledger.tx.each_row(NAMED, rows, vec![]).await?, agent)?;
    let mut wake = Vec::new();
    if met.is_some_and(|met| met.is_first) {
        let unknown = effects.iter().filter(|held| !standing.contains_key(&held.effect));
        wake.extend(strangers::meet(ledger, agent, unknown, now).await?);
    }
    let (mut again, mut released) = (Vec::new(), Vec::new());
    for held in &effects {
        let Some(row) = standing.get(&held.effect) else { continue };
        match row.differs(held, now) {
            None => {}
            Some(Difference::Released(why)) => released.push((held.effect, why)),
            Some(Difference::Unwanted) => unwanted(ledger, agent, held, row, now).await?,
            Some(Difference::Failing) => failing(ledger, agent, held, row, now).await?,
            Some(Difference::Other { seen, is_again }) => {
                if let Some((actual, why)) = seen {
                    note(ledger, agent, held.effect, row, actual, why, now).await?;
                }
                again.extend(is_again.then_some(held.effect));
            }
        }
    }
    for effect in ended {
        let Some(row) = standing.get(&effect) else { continue };
        note(ledger, agent, effect, row, Actual::Absent, "it has expired", now).await?;
        // The remains of a failed apply are gone; that does not make an immediate retry succeed.
        let has_failed = row.actual == Actual::Absent || row.failed_reverts > 0;
        if row.is_wanted() && !has_failed && !row.is_over(now.plus(SKEW)) {
            again.push(effect);
        }
    }
    for effect in missing {
        let Some(row) = standing.get(&effect).filter(|row| row.can_be_missing(now)) else { continue };
        note(ledger, agent, effect, row, Actual::Absent, "the agent no longer holds it", now).await?;
        if row.is_wanted() && !row.is_over(now) {
            again.push(effect);
        }
    }
    wake.extend(standing::apply_again(ledger, again, now).await?);
    for (effect, why) in released {
        wake.extend(release(ledger, agent, effect, why, now).await?);
    }
    Ok(wake)
}

/// The rows that belong to this agent.
fn by_id(rows: Vec<Standing>, agent: Uuid) -> Result<HashMap<Uuid, Standing>> {
    let mut standing = HashMap::with_capacity(rows.len());
    for row in rows {
        if id(&row.agent_id)? == agent {
            standing.insert(id(&row.id)?, row);
        }
    }
    Ok(standing)
}

/// Handles an effect that no response wants: it is lifted soon, or becomes an incident if the agent
/// reports that it cannot lift it.
async fn unwanted(ledger: &mut LedgerTx, agent: Uuid, held: &HeldEffect, row: &Standing, now: Timestamp) -> Result<()> {
    // The agent has just failed to lift it, so wait before the next revert.
    let at = if held.failing.is_some() { now.plus(RETRY_MIN) } else { now };
    ledger.tx.execute(LIFT_SOON, binds![held.effect, at]).await?;
    failing(ledger, agent, held, row, now).await
}

/// Records an incident, once: the agent reports that it cannot lift the effect.
async fn failing(ledger: &mut LedgerTx, agent: Uuid, held: &HeldEffect, row: &Standing, now: Timestamp) -> Result<()> {
    if let Some(why) = held.failing.as_ref().filter(|_| row.failed_reverts == 0) {
        ledger.tx.execute(FAILING, binds![held.effect, now]).await?;
        tracing::error!(%agent, effect = %held.effect, "an effect cannot be lifted: {}", why.escape_debug());
        record(ledger, agent, held.effect, AuditEvent::EffectFailing, why, now);
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
    if row.actual != actual {
        ledger.tx.execute(SET_ACTUAL, binds![effect, actual, now, why]).await?;
        let event = match actual {
            Actual::InForce => AuditEvent::EffectRepaired,
            Actual::Drifted => AuditEvent::EffectDrifted,
            Actual::Absent | Actual::Unknown => AuditEvent::EffectLost,
        };
        record(ledger, agent, effect, event, why, now);
    }
    Ok(())
}

/// An operator released the effect on the host: all its holds end.
async fn release(ledger: &mut LedgerTx, agent: Uuid, effect: Uuid, why: String, now: Timestamp) -> Result<Vec<Uuid>> {
    let rows: Vec<HoldRow> = ledger.tx.each_row(HOLDS, vec![binds![effect]], vec![]).await?;
    let holds = rows.iter().map(|row| Ok(Hold { response_id: id(&row.response_id)?, effect_id: id(&row.effect_id)? }));
    let holds = holds.collect::<Result<Vec<_>>>()?;
    let detail = format!("released on the host: {}", why.replace('\0', "\u{fffd}"));
    let why = ResponseEnd { reason: EndReason::Released, detail, by: Actor::Agent(agent) };
    release_holds(ledger, &holds, &why, now).await
}

fn record(ledger: &mut LedgerTx, agent: Uuid, effect: Uuid, event: AuditEvent, why: &str, now: Timestamp) {
    let (actor, detail) = (Actor::Agent(agent), why.replace('\0', "\u{fffd}"));
    ledger.record(AuditEntry { at: now, actor, event, noun_id: effect.to_string(), detail });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn connecting_does_not_read_an_agents_old_effects() {
        let standing = plan(STANDING).await;
        assert!(standing.iter().all(|step| step.contains("effects_standing (agent_id=?)")), "{standing:?}");
        let plan = plan(NAMED).await;
        for index in ["sqlite_autoindex_effects_1 (id=?)", "commands_open (effect_id=?)"] {
            assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
        }
    }
}
