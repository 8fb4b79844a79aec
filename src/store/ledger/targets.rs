//! Targets: what is wanted or in force, one row per target over all its effects. A page skips along
//! an index from target to target, and then counts only the effects of those that it shows.
//!
//! The rule is [`crate::domain::outcome::of_effect`]; [`outcome`] states it in SQL, and a test
//! compares the two.

use std::collections::BTreeSet;

use riposte_protocol::target::Target;
use uuid::Uuid;

use super::outcomes::held;
use crate::domain::command::CommandState;
use crate::domain::outcome::EffectOutcome;
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::views::columns::{JsonText, Millis};
use crate::views::effects::EffectRow;

/// That an effect is wanted or in force, as the partial indexes say it.
macro_rules! stands {
    () => {
        "(effects.desired = 'in_force' OR effects.actual IN ('in_force', 'drifted'))"
    };
}

/// The outcome of an effect.
macro_rules! outcome {
    () => {
        concat!(
            "CASE WHEN effects.desired = 'absent' THEN CASE WHEN effects.failed_reverts > 0 THEN 'failing' ELSE 'reverting' END
            WHEN effects.actual = 'unknown' AND effects.last_apply = 'unverified' THEN 'unverified'
            WHEN effects.actual = 'drifted' AND ",
            held!(),
            " = 'failed' THEN 'drifted' ELSE ",
            held!(),
            " END"
        )
    };
}

/// That an effect is of a list: its agent is enrolled, and a filter of `$1` to `$5` (agent, action, policy,
/// outcome, kind) takes it.
macro_rules! is_asked {
    () => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = effects.agent_id AND agents.revoked_at IS NOT NULL)
            AND ($1 IS NULL OR effects.agent_id = $1) AND ($2 IS NULL OR effects.action = $2)
            AND ($3 IS NULL OR EXISTS (SELECT 1 FROM holds JOIN responses ON responses.id = holds.response_id
                WHERE holds.effect_id = effects.id AND holds.released_at IS NULL AND responses.policy = $3))
            AND ($4 IS NULL OR $4 = ",
            outcome!(),
            " OR ($4 = 'reverting' AND effects.desired = 'absent')) AND ($5 IS NULL OR effects.target_kind = $5)"
        )
    };
}

/// Which effect is the newest before a time, kind and value.
macro_rules! next_before {
    ($before:literal) => {
        concat!(
            stands!(),
            " AND (effects.wanted_at, effects.target_kind, effects.target_value) < ",
            $before,
            " AND ",
            is_asked!(),
            " ORDER BY effects.wanted_at DESC, effects.target_kind DESC, effects.target_value DESC LIMIT 1"
        )
    };
}

statements! {
    /// One step per target and instant, however many agents it is on. PostgreSQL has no LIMIT in a recursion.
    WALK = concat!("WITH RECURSIVE walk (id, nth) AS (
            SELECT (SELECT effects.id FROM effects WHERE ",
                next_before!("($6, $7, $8)"), "), CAST(1 AS BIGINT)
            UNION ALL
            SELECT (SELECT effects.id FROM effects WHERE ",
                next_before!("(seen.wanted_at, seen.target_kind, seen.target_value)"), "), walk.nth + 1
            FROM walk JOIN effects AS seen ON seen.id = walk.id WHERE walk.nth < $9)
        SELECT found.id, found.wanted_at, found.target_kind, found.target_value
        FROM walk JOIN effects AS found ON found.id = walk.id ORDER BY walk.nth");
    ONE = "SELECT id, wanted_at, target_kind, target_value FROM effects WHERE id = $1";
    KINDS = concat!("SELECT MAX(effects.id) AS id, MAX(effects.wanted_at) AS wanted_at, effects.target_kind, effects.target_value
        FROM effects WHERE ", stands!(), " AND effects.target_value = $6 AND ", is_asked!(),
        " GROUP BY effects.target_kind, effects.target_value ORDER BY effects.target_kind");
    /// By agent only for callers from whom agents are hidden: a target can be on thousands.
    COUNTED = concat!("SELECT target_kind, target_value, action, agent, outcome, COUNT(*) AS count, MAX(until) AS until,
            CAST(MAX(by_hand) AS BIGINT) AS by_hand, MAX(changed_at) AS changed_at, MAX(newest) AS newest
        FROM (SELECT effects.target_kind, effects.target_value, effects.action,
                CASE WHEN $6 = TRUE THEN effects.agent_id ELSE '' END AS agent, ", outcome!(), " AS outcome,
                CASE WHEN effects.desired = 'in_force' THEN effects.until END AS until,
                CASE WHEN effects.desired = 'in_force' AND effects.until IS NULL THEN 1 ELSE 0 END AS by_hand,
                effects.changed_at, CASE WHEN ", is_asked!(), " THEN effects.wanted_at END AS newest
            FROM (VALUES {2}) AS v JOIN effects ON effects.target_value = v.column2 AND effects.target_kind = v.column1
            WHERE ", stands!(), "
                AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = effects.agent_id AND agents.revoked_at IS NOT NULL)
            ) AS judged
        GROUP BY target_kind, target_value, action, agent, outcome");
    AGENTS = concat!("SELECT effects.target_kind, effects.target_value, COUNT(DISTINCT effects.agent_id) AS count
        FROM (VALUES {2}) AS v JOIN effects ON effects.target_value = v.column2 AND effects.target_kind = v.column1
        WHERE ", stands!(), "
            AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = effects.agent_id AND agents.revoked_at IS NOT NULL)
        GROUP BY effects.target_kind, effects.target_value");
    HOLDING = "SELECT target_kind, target_value, id, alert_id, policy, action, agents, until, requested_by, note, created_at, total
        FROM (SELECT responses.target_kind, responses.target_value, responses.id, responses.alert_id, responses.policy,
                responses.action, responses.agents, responses.until, responses.requested_by, responses.note,
                responses.created_at,
                ROW_NUMBER() OVER (PARTITION BY responses.target_kind, responses.target_value ORDER BY responses.id DESC) AS nth,
                COUNT(*) OVER (PARTITION BY responses.target_kind, responses.target_value) AS total
            FROM (VALUES {2}) AS v
            JOIN responses ON responses.target_value = v.column2 AND responses.target_kind = v.column1
            WHERE responses.state = 'active' AND responses.one_shot = FALSE) AS held
        WHERE nth <= $1 ORDER BY id DESC";
    EFFECTS = concat!("SELECT effects.id, effects.agent_id, effects.action, effects.target_kind, effects.target_value,
            effects.desired, effects.actual, effects.until, effects.failed_reverts, effects.next_revert_at,
            effects.created_at, effects.changed_at, effects.last_apply, effects.last_reason,
            CASE WHEN agents.revoked_at IS NULL THEN FALSE ELSE TRUE END AS agent_revoked, agents.name AS agent,
            (SELECT state FROM commands WHERE commands.effect_id = effects.id AND op = 'apply'
                AND state IN ('queued', 'delivered', 'acknowledged') ORDER BY seq DESC LIMIT 1) AS under_way
        FROM effects JOIN agents ON agents.id = effects.agent_id
        WHERE effects.target_value = $1 AND effects.target_kind = $2 AND ", stands!(), "
        ORDER BY agents.name, effects.id LIMIT $3");
    HOLDERS = "SELECT holds.effect_id, holds.response_id, holds.until
        FROM (VALUES {1}) AS v JOIN holds ON holds.effect_id = v.column1
        WHERE holds.released_at IS NULL ORDER BY holds.effect_id, holds.response_id";
}

/// Filter of a list of targets. It takes a target with an effect that it takes.
#[derive(Clone, Debug, Default)]
pub struct TargetFilter {
    /// Agent.
    pub agent: Option<Uuid>,
    /// Name of the action.
    pub action: Option<String>,
    /// Policy of a response that holds the effect.
    pub policy: Option<String>,
    /// What became of the effect.
    pub outcome: Option<EffectOutcome>,
    /// Kind of the target, as in the database.
    pub kind: Option<String>,
}

impl TargetFilter {
    fn binds(&self) -> Vec<Bind> {
        let Self { agent, action, policy, outcome, kind } = self.clone();
        binds![agent, action, policy, outcome.map(EffectOutcome::as_str), kind]
    }
}

/// A target, by the newest of its effects that a filter takes.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct NewestEffect {
    id: String,
    wanted_at: i64,
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
}

impl NewestEffect {
    /// The cursor behind it.
    pub fn cursor(&self) -> String {
        format!("{}.{}", self.wanted_at, self.id)
    }

    /// The targets, each once: a join with one that is named twice would count its effects twice.
    fn keys(of: &[Self]) -> Vec<Vec<Bind>> {
        let keys: BTreeSet<(&str, &str)> =
            of.iter().map(|target| (target.target_kind.as_str(), target.target_value.as_str())).collect();
        keys.into_iter().map(|(kind, value)| binds![kind, value]).collect()
    }
}

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    wanted_at: i64,
    effect: Uuid,
}

impl Before {
    /// Parses a [`NewestEffect::cursor`].
    pub fn parse(text: &str) -> Option<Self> {
        let (wanted_at, effect) = text.split_once('.')?;
        Some(Self { wanted_at: wanted_at.parse().ok()?, effect: effect.parse().ok()? })
    }
}

/// At most `limit` targets, newest first. One that was wanted at several instants is listed for each, so that a
/// caller skips it but for the newest ([`Counted::newest`]).
pub async fn walk(db: &Db, filter: &TargetFilter, before: Option<Before>, limit: i64) -> Result<Vec<NewestEffect>> {
    let (wanted_at, kind, value) = match before {
        None => (i64::MAX, String::new(), String::new()),
        Some(Before { wanted_at, effect }) => {
            let seen: Option<NewestEffect> = db.optional(ONE, binds![effect]).await?;
            // Without the effect, which retention removed, the page begins before its instant.
            let (kind, value) = seen.map(|seen| (seen.target_kind, seen.target_value)).unwrap_or_default();
            (wanted_at, kind, value)
        }
    };
    let binds = [filter.binds(), binds![wanted_at, kind, value, limit]].concat();
    db.all(WALK, binds).await
}

/// The targets of this value, of every kind.
pub async fn of_value(db: &Db, filter: &TargetFilter, value: &str) -> Result<Vec<NewestEffect>> {
    db.all(KINDS, [filter.binds(), binds![value]].concat()).await
}

/// Number of effects on a target with one action and outcome.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Counted {
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
    /// Name of the action.
    pub action: String,
    /// Id of the agent; empty unless they were counted by agent.
    pub agent: String,
    outcome: String,
    /// How many.
    pub count: i64,
    /// Latest end of those that are wanted.
    pub until: Option<Millis>,
    by_hand: i64,
    /// Last change.
    pub changed_at: Millis,
    newest: Option<i64>,
}

impl Counted {
    /// What became of them.
    ///
    /// # Errors
    /// If the statement and the domain disagree.
    pub fn outcome(&self) -> Result<EffectOutcome> {
        EffectOutcome::parse(&self.outcome).ok_or_else(|| StoreError::Corrupt("an outcome".into()))
    }

    /// Whether one of them is wanted until it is lifted by hand.
    pub fn is_by_hand(&self) -> bool {
        self.by_hand != 0
    }

    /// Whether one that the filter takes is newer than `target`, so that an earlier page has the target.
    pub fn is_newer(&self, target: &NewestEffect) -> bool {
        self.newest.is_some_and(|newest| newest > target.wanted_at)
    }
}

/// Counts the effects of targets.
pub async fn counted(db: &Db, filter: &TargetFilter, of: &[NewestEffect], by_agent: bool) -> Result<Vec<Counted>> {
    let first = [filter.binds(), binds![by_agent]].concat();
    db.each_row(COUNTED, NewestEffect::keys(of), first).await
}

/// Number of agents of a target.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AgentCount {
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
    /// How many.
    pub count: i64,
}

/// Counts the agents of targets.
pub async fn agents(db: &Db, of: &[NewestEffect]) -> Result<Vec<AgentCount>> {
    db.each_row(AGENTS, NewestEffect::keys(of), vec![]).await
}

/// An active response to a target.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct HoldingRow {
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
    /// Id of the response.
    pub id: String,
    /// Its alert.
    pub alert_id: Option<String>,
    /// Policy that decided.
    pub policy: Option<String>,
    /// Name of the action.
    pub action: String,
    /// Ids of its agents.
    pub agents: JsonText,
    /// Its end.
    pub until: Option<Millis>,
    /// Requester.
    pub requested_by: String,
    /// Reason of the requester.
    pub note: String,
    /// Decision time.
    pub created_at: Millis,
    /// Number of active responses to the target.
    pub total: i64,
}

/// The active responses to targets, newest first, at most `each` per target.
pub async fn holding(db: &Db, of: &[(&str, &str)], each: i64) -> Result<Vec<HoldingRow>> {
    let rows = of.iter().map(|(kind, value)| binds![*kind, *value]).collect();
    db.each_row(HOLDING, rows, binds![each]).await
}

/// An effect on a target, with its agent.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StandingEffect {
    /// The effect.
    #[sqlx(flatten)]
    pub effect: EffectRow,
    /// Name of the agent.
    pub agent: String,
    /// State of an apply in flight.
    pub under_way: Option<CommandState>,
}

/// The effects on a target that are wanted or in force, at most `limit`.
pub async fn effects(db: &Db, target: &Target, limit: i64) -> Result<Vec<StandingEffect>> {
    db.all(EFFECTS, binds![target.value(), target.kind(), limit]).await
}

/// A response that holds an effect.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EffectHolder {
    /// Id of the effect.
    pub effect_id: String,
    /// Id of the response.
    pub response_id: String,
    /// End of the hold.
    pub until: Option<Millis>,
}

/// The responses that hold these effects.
///
/// # Errors
/// If an id is none, or the store cannot be read.
pub async fn holders(db: &Db, effects: &[StandingEffect]) -> Result<Vec<EffectHolder>> {
    let rows = effects.iter().map(|row| Ok(binds![id(&row.effect.id)?])).collect::<Result<_>>()?;
    db.each_row(HOLDERS, rows, vec![]).await
}

#[cfg(test)]
mod tests;
