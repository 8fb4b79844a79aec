//! Outcomes of responses per agent: the facts for a page of responses in a fixed number of
//! statements, and counts for the metrics. They are computed from results and releases when read
//! (`docs/decisions/0018-outcomes-are-computed-when-they-are-read.md`).
//!
//! The rule is in `domain/outcome.rs`; [`judged`] states it in SQL for counting, and a test
//! compares the two.

use std::collections::{BTreeMap, HashMap};

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::command::CommandState;
use crate::domain::effect::{Actual, Desired, LastApply, LeftAs};
use crate::domain::outcome::{
    AgentOutcome, HoldFacts, OutcomeCounts, Released, ResponseOutcome, of_one_shot, of_response, one_shot_words,
};
use crate::domain::response::ResponseState;
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::views::columns::{JsonText, Millis};
use crate::views::responses::ResponseRow;

/// [`crate::domain::outcome::of_agent`] of a response that holds an effect of an enrolled agent, in SQL.
macro_rules! held {
    () => {
        "CASE
            WHEN effects.actual = 'in_force' THEN 'in_force'
            WHEN effects.actual = 'unknown' AND effects.last_apply = 'unverified' THEN 'in_force'
            WHEN EXISTS (SELECT 1 FROM commands WHERE commands.effect_id = effects.id AND op = 'apply'
                AND state IN ('queued', 'delivered', 'acknowledged')) THEN 'pending'
            WHEN effects.actual = 'unknown' AND effects.last_apply IS NULL THEN 'pending'
            ELSE 'failed' END"
    };
}
pub(super) use held;

/// [`crate::domain::outcome::of_agent`], in SQL.
macro_rules! judged {
    () => {
        concat!(
            "CASE
        WHEN holds.released_at IS NULL AND agents.revoked_at IS NOT NULL THEN 'failed'
        WHEN holds.released_at IS NULL THEN ",
            held!(),
            "
        WHEN COALESCE(holds.left_as, 'in_force') NOT IN ('in_force', 'withdrawn') THEN 'failed'
        WHEN effects.desired = 'in_force' OR effects.actual = 'absent' THEN 'lifted'
        WHEN holds.left_as IS NULL OR effects.wanted_at > holds.released_at THEN 'lifted'
        WHEN agents.revoked_at IS NOT NULL THEN 'failed'
        WHEN holds.left_as = 'in_force' THEN 'in_force'
        ELSE 'pending' END"
        )
    };
}

statements! {
    STANDING = concat!("SELECT policy, one_shot, in_force, pending, failed, lifted, COUNT(*) AS count FROM (
            SELECT id, policy, one_shot,
                CAST(MAX(CASE WHEN outcome = 'in_force' THEN 1 ELSE 0 END) AS BIGINT) AS in_force,
                CAST(MAX(CASE WHEN outcome = 'pending' OR waits = 1 THEN 1 ELSE 0 END) AS BIGINT) AS pending,
                CAST(MAX(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END) AS BIGINT) AS failed,
                CAST(MAX(CASE WHEN outcome = 'lifted' THEN 1 ELSE 0 END) AS BIGINT) AS lifted
            FROM (SELECT responses.id, COALESCE(responses.policy, '') AS policy, responses.one_shot,
                    CASE WHEN EXISTS (SELECT 1 FROM waves WHERE waves.response_id = responses.id)
                        THEN 1 ELSE 0 END AS waits,
                    CASE WHEN holds.effect_id IS NULL THEN 'pending' ELSE ", judged!(), " END AS outcome
                FROM responses LEFT JOIN holds ON holds.response_id = responses.id
                LEFT JOIN effects ON effects.id = holds.effect_id LEFT JOIN agents ON agents.id = effects.agent_id
                WHERE responses.state = 'active') AS pairs
            GROUP BY id, policy, one_shot) AS standing
        GROUP BY policy, one_shot, in_force, pending, failed, lifted");
    COUNTS = concat!(
"SELECT response_id, outcome, unverified, COUNT(*) AS count FROM (SELECT holds.response_id, ",
    judged!(),
    " AS outcome, CASE WHEN holds.released_at IS NULL AND effects.actual = 'unknown' THEN TRUE ELSE FALSE END AS unverified
   
        FROM (VALUES {1}) AS v
        JOIN holds ON holds.response_id = v.column1 JOIN effects ON effects.id = holds.effect_id
    JOIN agents ON agents.id = effects.agent_id) AS judged GROUP BY response_id, outcome, unverified");
    /// Only agents with something to report.
    TOLD = concat!(
"SELECT told.response_id, told.agent_id, told.name, told.desired, told.actual, told.last_apply, told.last_reason,
        told.until, told.failed_reverts, told.is_revoked, told.last_seen_at, told.left_at, told.left_as, told.left_reason,
        told.wanted_at, told.under_way, told.holder, holding.policy AS holder_policy
    FROM (SELECT judged.*, ROW_NUMBER() OVER (PARTITION BY response_id ORDER BY agent_id) AS nth
        FROM (SELECT holds.response_id, effects.agent_id, agents.name, effects.desired, effects.actual,
            effects.last_apply, effects.last_reason, effects.until, effects.failed_reverts,
            CASE WHEN agents.revoked_at IS NULL THEN FALSE ELSE TRUE END AS is_revoked,
            COALESCE(agents.last_seen_at, agents.enrolled_at) AS last_seen_at, holds.released_at AS left_at,
            holds.left_as, holds.left_reason, effects.wanted_at,
            (SELECT state FROM commands WHERE commands.effect_id = effects.id AND op = 'apply'
                AND state IN ('queued', 'delivered', 'acknowledged') ORDER BY seq DESC LIMIT 1) AS under_way,
            CASE WHEN holds.released_at IS NOT NULL AND effects.desired = 'in_force' THEN (
                SELECT others.response_id FROM holds AS others
                WHERE others.effect_id = effects.id AND others.released_at IS NULL
                ORDER BY COALESCE(others.until, 9223372036854775807) DESC, others.response_id LIMIT 1) END AS holder, ",
    judged!(),
    " AS outcome
        FROM (VALUES {1}) AS v
        JOIN holds ON holds.response_id = v.column1 JOIN effects ON effects.id = holds.effect_id
        JOIN agents ON agents.id = effects.agent_id) AS judged
        WHERE NOT (outcome = 'in_force' AND left_at IS NULL AND actual = 'in_force')
            AND NOT (outcome = 'lifted' AND holder IS NULL)) AS told
    LEFT JOIN responses AS holding ON holding.id = told.holder
    WHERE told.nth <= $1 ORDER BY told.response_id, told.agent_id");
    ONE_SHOTS = "SELECT commands.response_id, commands.state,
        CASE WHEN results.observed = TRUE THEN TRUE ELSE FALSE END AS observed, COUNT(*) AS count
        FROM (VALUES {1}) AS v JOIN commands ON commands.response_id = v.column1 AND commands.one_shot = TRUE
    LEFT JOIN results ON results.command_id = commands.id
    GROUP BY commands.response_id, commands.state, CASE WHEN results.observed = TRUE THEN TRUE ELSE FALSE END";
    ONE_SHOTS_TOLD = "SELECT response_id, agent_id, name, state, observed, reason, last_seen_at
    FROM (SELECT commands.response_id, commands.agent_id, agents.name, commands.state,
            CASE WHEN results.observed = TRUE THEN TRUE ELSE FALSE END AS observed,
            COALESCE(results.message, commands.detail) AS reason,
            COALESCE(agents.last_seen_at, agents.enrolled_at) AS last_seen_at,
            ROW_NUMBER() OVER (PARTITION BY commands.response_id ORDER BY commands.agent_id) AS nth
        FROM (VALUES {1}) AS v
        JOIN commands ON commands.response_id = v.column1 AND commands.one_shot = TRUE
        JOIN agents ON agents.id = commands.agent_id
        LEFT JOIN results ON results.command_id = commands.id) AS told
    WHERE nth <= $1 ORDER BY response_id, agent_id";
    WAVES = "SELECT waves.response_id, waves.agents, waves.due_at
        FROM (VALUES {1}) AS v
        JOIN waves ON waves.response_id = v.column1 ORDER BY waves.response_id, waves.due_at, waves.nth";
}

/// Outcome of one response.
#[derive(Debug, Default)]
pub struct Became {
    /// Number of agents per outcome.
    pub counts: OutcomeCounts,
    /// Agents where it is in force but cannot be verified.
    pub unverified: i64,
    /// Agents with something to report.
    pub agents: Vec<AgentFacts>,
}

/// Facts about a response on one agent.
#[derive(Debug)]
pub struct AgentFacts {
    /// Id of the agent.
    pub agent_id: String,
    /// Name of the agent; absent where only the id is known.
    pub name: Option<String>,
    /// Last stored contact.
    pub last_seen_at: Option<Timestamp>,
    /// What the response does there.
    pub known: Known,
}

/// What a response does on one agent.
#[derive(Debug)]
pub enum Known {
    /// It holds or held an effect.
    Hold {
        /// Input of the outcome rule.
        facts: HoldFacts,
        /// Last message of the agent or the manager.
        reason: String,
        /// End of the effect.
        until: Option<Timestamp>,
        /// Consecutive failed reverts.
        failed_reverts: i64,
        /// Another response that still holds the effect, and its policy.
        holder: Option<(String, Option<String>)>,
    },
    /// It is a one-shot action.
    OneShot {
        /// State of its command.
        state: CommandState,
        /// Whether the agent only observed.
        is_observed: bool,
        /// Last message of the agent or the manager.
        reason: String,
    },
    /// Its wave is pending.
    Waits {
        /// When the wave is due.
        due_at: Timestamp,
    },
}

#[derive(sqlx::FromRow)]
struct CountRow {
    response_id: String,
    outcome: String,
    unverified: bool,
    count: i64,
}

#[derive(sqlx::FromRow)]
struct ToldRow {
    response_id: String,
    agent_id: String,
    name: String,
    desired: Desired,
    actual: Actual,
    last_apply: Option<LastApply>,
    last_reason: String,
    until: Option<Millis>,
    failed_reverts: i64,
    is_revoked: bool,
    last_seen_at: Millis,
    left_at: Option<Millis>,
    left_as: Option<LeftAs>,
    left_reason: Option<String>,
    wanted_at: Millis,
    under_way: Option<CommandState>,
    holder: Option<String>,
    holder_policy: Option<String>,
}

#[derive(sqlx::FromRow)]
struct OneShotCountRow {
    response_id: String,
    state: CommandState,
    observed: bool,
    count: i64,
}

#[derive(sqlx::FromRow)]
struct OneShotRow {
    response_id: String,
    agent_id: String,
    name: String,
    state: CommandState,
    observed: bool,
    reason: String,
    last_seen_at: Millis,
}

#[derive(sqlx::FromRow)]
struct WaveRow {
    response_id: String,
    agents: JsonText,
    due_at: Millis,
}

impl TryFrom<ToldRow> for AgentFacts {
    type Error = StoreError;

    fn try_from(row: ToldRow) -> Result<Self> {
        let ToldRow { desired, actual, last_apply, under_way, .. } = row;
        let released = row.left_at.map(|at| Released {
            // Holds released before it was stored count as in force.
            left_as: row.left_as.unwrap_or(LeftAs::InForce),
            is_same: row.left_as.is_some() && row.wanted_at <= at,
        });
        let reason = if released.is_some() { row.left_reason.unwrap_or_default() } else { row.last_reason };
        let facts = HoldFacts { desired, actual, last_apply, under_way, is_revoked: row.is_revoked, released };
        let known = Known::Hold {
            facts,
            reason,
            until: row.until.map(Timestamp::from),
            failed_reverts: row.failed_reverts,
            holder: row.holder.map(|holder| (holder, row.holder_policy)),
        };
        Ok(Self { agent_id: row.agent_id, name: Some(row.name), last_seen_at: Some(row.last_seen_at.into()), known })
    }
}

/// The outcome of each of these responses that acted, by id, with at most `shown` agents each.
///
/// # Errors
/// If the store cannot be read.
pub async fn of(db: &Db, responses: &[ResponseRow], shown: i64) -> Result<HashMap<String, Became>> {
    let acted = |row: &&ResponseRow| matches!(row.state, ResponseState::Active | ResponseState::Ended);
    let (one_shots, holding): (Vec<&ResponseRow>, Vec<&ResponseRow>) =
        responses.iter().filter(acted).partition(|row| row.one_shot);
    let mut became: HashMap<String, Became> =
        responses.iter().filter(acted).map(|row| (row.id.clone(), Became::default())).collect();
    let ids = |rows: &[&ResponseRow]| -> Vec<Vec<Bind>> { rows.iter().map(|row| binds![row.id.as_str()]).collect() };
    for row in db.each_row::<CountRow>(COUNTS, ids(&holding), vec![]).await? {
        let outcome = AgentOutcome::parse(&row.outcome).ok_or_else(|| StoreError::Corrupt("an outcome".into()))?;
        let became = became.entry(row.response_id).or_default();
        became.counts.add(outcome, row.count);
        if row.unverified && outcome == AgentOutcome::InForce {
            became.unverified += row.count;
        }
    }
    for row in db.each_row::<ToldRow>(TOLD, ids(&holding), binds![shown]).await? {
        let response = row.response_id.clone();
        became.entry(response).or_default().agents.push(row.try_into()?);
    }
    for row in db.each_row::<OneShotCountRow>(ONE_SHOTS, ids(&one_shots), vec![]).await? {
        let outcome = of_one_shot(row.state, row.observed);
        became.entry(row.response_id).or_default().counts.add(outcome, row.count);
    }
    for row in db.each_row::<OneShotRow>(ONE_SHOTS_TOLD, ids(&one_shots), binds![shown]).await? {
        let known = Known::OneShot { state: row.state, is_observed: row.observed, reason: row.reason };
        let (agent_id, name, last_seen_at) = (row.agent_id, Some(row.name), Some(row.last_seen_at.into()));
        became.entry(row.response_id).or_default().agents.push(AgentFacts { agent_id, name, last_seen_at, known });
    }
    unreached(db, responses, &mut became, shown).await?;
    Ok(became)
}

/// What the first agent of each of these responses, whose commands are complete in themselves, made of it: by response.
pub(super) async fn first_one_shots(ledger: &mut LedgerTx, responses: &[&str]) -> Result<Vec<(String, String)>> {
    let rows = responses.iter().map(|response| binds![*response]).collect();
    let first: Vec<OneShotRow> = ledger.tx.each_row(ONE_SHOTS_TOLD, rows, binds![1_i64]).await?;
    let worded = first.into_iter().map(|row| {
        let words = one_shot_words(row.state, row.observed, false, &row.reason);
        Ok((row.response_id, words))
    });
    worded.collect()
}

/// Agents that a response has not reached: their wave is pending, or was dropped.
async fn unreached(db: &Db, responses: &[ResponseRow], became: &mut HashMap<String, Became>, shown: i64) -> Result<()> {
    let mut waiting = Vec::new();
    for row in responses {
        let Some(became) = became.get_mut(&row.id) else { continue };
        let agents = row.agents.read::<Vec<Uuid>>()?.len();
        let missing = i64::try_from(agents).unwrap_or(i64::MAX) - became.counts.total();
        if missing <= 0 {
            continue;
        }
        let is_active = row.state == ResponseState::Active;
        became.counts.add(if is_active { AgentOutcome::Pending } else { AgentOutcome::Failed }, missing);
        if is_active {
            waiting.push(binds![row.id.as_str()]);
        }
    }
    let shown = usize::try_from(shown).unwrap_or(usize::MAX);
    for row in db.each_row::<WaveRow>(WAVES, waiting, vec![]).await? {
        let Some(became) = became.get_mut(&row.response_id) else { continue };
        for agent in row.agents.read::<Vec<Uuid>>()? {
            if became.agents.len() < shown {
                let known = Known::Waits { due_at: row.due_at.into() };
                let (agent_id, name, last_seen_at) = (agent.to_string(), None, None);
                became.agents.push(AgentFacts { agent_id, name, last_seen_at, known });
            }
        }
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct StandingRow {
    policy: String,
    one_shot: bool,
    in_force: i64,
    pending: i64,
    failed: i64,
    lifted: i64,
    count: i64,
}

/// Number of active responses per policy and outcome, for the metrics. Manual responses are under
/// the empty policy.
///
/// # Errors
/// If the store cannot be read.
pub async fn standing(db: &Db) -> Result<BTreeMap<(String, ResponseOutcome), i64>> {
    let mut counts = BTreeMap::new();
    for row in db.all::<StandingRow>(STANDING, vec![]).await? {
        let StandingRow { policy, one_shot, in_force, pending, failed, lifted, count } = row;
        let some = OutcomeCounts { in_force, pending, failed, lifted };
        if let Some(outcome) = of_response(ResponseState::Active, one_shot, some) {
            *counts.entry((policy, outcome)).or_insert(0) += count;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests;
