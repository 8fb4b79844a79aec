//! Effects: what is in force where, why and until when. How they are written is in `store/ledger.rs`.

use riposte_protocol::time::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::columns::Millis;
use super::db::{Db, Result, binds, statements};

statements! {
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
    NEXT_RETRY = "SELECT MIN(next_revert_at) AS at FROM effects WHERE next_revert_at IS NOT NULL";
    COUNTS = "SELECT desired, actual, COUNT(*) AS count, CAST(SUM(CASE WHEN failed_reverts > 0 THEN 1 ELSE 0 END) AS BIGINT) AS failing
        FROM effects WHERE (desired = 'in_force' OR actual IN ('in_force', 'drifted'))
            AND agent_id NOT IN (SELECT agents.id FROM agents WHERE revoked_at IS NOT NULL)
        GROUP BY desired, actual";
}

/// One effect.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, utoipa::ToSchema)]
pub struct EffectRow {
    /// Its id.
    pub id: String,
    /// The agent it is on.
    pub agent_id: String,
    /// The action that brings it about.
    pub action: String,
    /// The kind of its target.
    pub target_kind: String,
    /// Its target, in canonical form.
    pub target_value: String,
    /// What is wanted: `in_force` or `absent`.
    pub desired: String,
    /// What the agent last said: `unknown`, `in_force`, `absent` or `drifted`.
    pub actual: String,
    /// When its longest hold ends; absent means when lifted by hand.
    pub until: Option<Millis>,
    /// How many attempts to lift it have failed in a row; more than none is an incident.
    pub failed_reverts: i64,
    /// When lifting it is tried again.
    pub next_revert_at: Option<Millis>,
    /// When it first came into being.
    pub created_at: Millis,
    /// When it last changed.
    pub changed_at: Millis,
    /// What its newest apply came to: `verified`, `unverified` (nothing shows it), `observed`, `failed`, `refused`,
    /// `timed_out`, `expired` or `cancelled`; absent while none is over.
    pub last_apply: Option<String>,
    /// The same in the words of the agent or the manager.
    pub last_reason: String,
    /// Whether its agent was revoked: `actual` is what that agent said last, and nothing is known of it any more.
    pub agent_revoked: bool,
}

/// The effect of that id.
pub async fn find(db: &Db, effect: Uuid) -> Result<Option<EffectRow>> {
    db.optional(ONE, binds![effect]).await
}

/// Which effects to list.
#[derive(Clone, Debug, Default)]
pub struct EffectFilter {
    /// On this agent.
    pub agent: Option<Uuid>,
    /// Of which this is wanted.
    pub desired: Option<String>,
    /// Of which the agent said this.
    pub actual: Option<String>,
    /// On this target, in canonical form.
    pub target: Option<String>,
    /// Only those that cannot be lifted.
    pub failing: bool,
}

/// A page of effects, newest first, older than `before`.
pub async fn list(db: &Db, filter: EffectFilter, before: Option<Uuid>, limit: i64) -> Result<Vec<EffectRow>> {
    let EffectFilter { agent, desired, actual, target, failing } = filter;
    db.all(PAGE, binds![before.unwrap_or(Uuid::max()), agent, desired, actual, target, failing, limit]).await
}

/// The effects that a response holds or held, at most `limit`.
pub async fn of_response(db: &Db, response: Uuid, limit: i64) -> Result<Vec<EffectRow>> {
    db.all(OF_RESPONSE, binds![response, limit]).await
}

/// A response that holds an effect.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, utoipa::ToSchema)]
pub struct HolderRow {
    /// The response.
    pub response_id: String,
    /// Until when it holds.
    pub until: Option<Millis>,
}

/// The responses that hold an effect now.
pub async fn holders(db: &Db, effect: Uuid) -> Result<Vec<HolderRow>> {
    db.all(HOLDERS, binds![effect]).await
}

#[derive(sqlx::FromRow)]
struct Instant {
    at: Option<i64>,
}

/// When the next failed revert is to be tried again.
pub async fn next_retry(db: &Db) -> Result<Option<Timestamp>> {
    let row: Option<Instant> = db.optional(NEXT_RETRY, vec![]).await?;
    Ok(row.and_then(|row| row.at).map(Timestamp::from_millis))
}

/// How many effects are wanted so, said to be so.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EffectCount {
    /// What is wanted.
    pub desired: String,
    /// What the agents say.
    pub actual: String,
    /// How many.
    pub count: i64,
    /// How many of them cannot be lifted.
    pub failing: i64,
}

/// How many effects are wanted, in force or drifted, of each kind; for the metrics. Those that are over become only ever more.
/// Those of revoked agents are left out: nothing is known of them any more.
pub async fn counts(db: &Db) -> Result<Vec<EffectCount>> {
    db.all(COUNTS, vec![]).await
}

#[cfg(test)]
mod tests {
    use super::super::db::plan;
    use super::*;

    #[tokio::test]
    async fn whoever_counts_what_stands_does_not_read_what_is_over() {
        let plan = plan(COUNTS).await;
        assert!(plan.iter().any(|step| step == "SCAN effects USING INDEX effects_standing"), "{plan:?}");
    }
}
