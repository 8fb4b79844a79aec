//! Queries for effects: what is in force where, why and until when. `store/ledger/holds.rs` writes
//! them.

use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::effect::{Actual, Desired};
use crate::store::database::{Db, Result, binds, statements};
use crate::views::columns::Millis;
use crate::views::effects::{EffectRow, HolderRow};

statements! {
    HELD_BY = "SELECT COUNT(*) AS count FROM effects WHERE agent_id = $1
        AND (desired = 'in_force' OR actual IN ('in_force', 'drifted'))";
    ONE = "SELECT id, agent_id, action, target_kind, target_value, desired, actual, until, failed_reverts,
            next_revert_at, created_at, changed_at, last_apply, last_reason,
            CASE WHEN agent_id IN (SELECT agents.id FROM agents WHERE revoked_at IS NOT NULL) THEN TRUE ELSE FALSE END
                AS agent_revoked
        FROM effects WHERE id = $1";
    PAGE = "SELECT id, agent_id, action, target_kind, target_value, desired, actual, until, failed_reverts,
            next_revert_at, created_at, changed_at, last_apply, last_reason,
            CASE WHEN agent_id IN (SELECT agents.id FROM agents WHERE revoked_at IS NOT NULL) THEN TRUE ELSE FALSE END
                AS agent_revoked
        FROM effects
        WHERE id < $1 AND ($2 IS NULL OR agent_id = $2) AND ($3 IS NULL OR desired = $3)
            AND ($4 IS NULL OR actual = $4) AND ($5 IS NULL OR target_value = $5)
            AND (failed_reverts > 0 OR NOT $6)
        ORDER BY id DESC LIMIT $7";
    OF_RESPONSE = "SELECT effects.id, effects.agent_id, effects.action, effects.target_kind, effects.target_value,
            effects.desired, effects.actual, effects.until, effects.failed_reverts, effects.next_revert_at,
            effects.created_at, effects.changed_at, effects.last_apply, effects.last_reason,
            CASE WHEN effects.agent_id IN (SELECT agents.id FROM agents WHERE revoked_at IS NOT NULL) THEN TRUE ELSE FALSE END
                AS agent_revoked
        FROM holds JOIN effects ON effects.id = holds.effect_id
        WHERE holds.response_id = $1 ORDER BY effects.agent_id LIMIT $2";
    HOLDERS = "SELECT response_id, until FROM holds WHERE effect_id = $1 AND released_at IS NULL ORDER BY response_id";
    HELD_ON = "SELECT effects.id, effects.agent_id, effects.until
        FROM (VALUES {1}) AS v JOIN effects ON effects.agent_id = v.column1
        WHERE effects.action = $1 AND effects.target_kind = $2 AND effects.target_value = $3 AND effects.desired = 'in_force'";
    NEXT_RETRY = "SELECT MIN(next_revert_at) AS at FROM effects WHERE next_revert_at IS NOT NULL";
    COUNTS = "SELECT desired, actual, COUNT(*) AS count, CAST(SUM(CASE WHEN failed_reverts > 0 THEN 1 ELSE 0 END) AS BIGINT) AS failing
        FROM effects WHERE (desired = 'in_force' OR actual IN ('in_force', 'drifted'))
            AND agent_id NOT IN (SELECT agents.id FROM agents WHERE revoked_at IS NOT NULL)
        GROUP BY desired, actual";
}

/// The effect of that id.
pub async fn find(db: &Db, effect: Uuid) -> Result<Option<EffectRow>> {
    db.optional(ONE, binds![effect]).await
}

#[derive(sqlx::FromRow)]
struct Held {
    count: i64,
}

/// How many effects are wanted or in force on an agent.
pub async fn held_by(db: &Db, agent: Uuid) -> Result<i64> {
    Ok(db.optional::<Held>(HELD_BY, binds![agent]).await?.map_or(0, |row| row.count))
}

/// Filter of an effect list.
#[derive(Clone, Debug, Default)]
pub struct EffectFilter {
    /// Agent.
    pub agent: Option<Uuid>,
    /// Wanted state.
    pub desired: Option<Desired>,
    /// Last reported state.
    pub actual: Option<Actual>,
    /// Target in canonical form.
    pub target: Option<String>,
    /// Only effects whose last revert failed.
    pub failing: bool,
}

/// A page of effects, newest first, older than `before`.
pub async fn list(db: &Db, filter: EffectFilter, before: Option<Uuid>, limit: i64) -> Result<Vec<EffectRow>> {
    let EffectFilter { agent, desired, actual, target, failing } = filter;
    db.all(PAGE, binds![before.unwrap_or(Uuid::max()), agent, desired, actual, target, failing, limit]).await
}

/// The current and former effects of a response, at most `limit`.
pub async fn of_response(db: &Db, response: Uuid, limit: i64) -> Result<Vec<EffectRow>> {
    db.all(OF_RESPONSE, binds![response, limit]).await
}

/// The responses that currently hold an effect.
pub async fn holders(db: &Db, effect: Uuid) -> Result<Vec<HolderRow>> {
    db.all(HOLDERS, binds![effect]).await
}

/// An effect that is held on an agent.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct HeldEffect {
    /// Id of the effect.
    pub id: String,
    /// Id of the agent.
    pub agent_id: String,
    /// End of the longest hold.
    pub until: Option<Millis>,
}

/// Where among these agents the effect of `action` on `target` is held.
pub async fn held_on(db: &Db, agents: &[Uuid], action: &str, target: &Target) -> Result<Vec<HeldEffect>> {
    let rows = agents.iter().map(|agent| binds![*agent]).collect();
    db.each_row(HELD_ON, rows, binds![action, target.kind(), target.value()]).await
}

#[derive(sqlx::FromRow)]
struct Instant {
    at: Option<i64>,
}

/// Time of the next revert retry.
pub async fn next_retry(db: &Db) -> Result<Option<Timestamp>> {
    let row: Option<Instant> = db.optional(NEXT_RETRY, vec![]).await?;
    Ok(row.and_then(|row| row.at).map(Timestamp::from_millis))
}

/// Number of effects with one wanted and one reported state.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EffectCount {
    /// Wanted state.
    pub desired: Desired,
    /// Last reported state.
    pub actual: Actual,
    /// Number of effects.
    pub count: i64,
    /// Number of them whose last revert failed.
    pub failing: i64,
}

/// How many effects are wanted, in force or drifted, of each kind; for the metrics. Those that are over become only ever more.
/// Those of revoked agents are left out: nothing is known of them any more.
pub async fn counts(db: &Db) -> Result<Vec<EffectCount>> {
    db.all(COUNTS, vec![]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn counting_effects_does_not_read_finished_ones() {
        let plan = plan(COUNTS).await;
        // Each of these indexes holds only what is wanted or in force.
        let standing = ["effects_standing", "effects_newest", "effects_target"];
        let scans = standing.map(|index| format!("SCAN effects USING INDEX {index}"));
        assert!(plan.iter().any(|step| scans.contains(step)), "{plan:?}");
    }
}
