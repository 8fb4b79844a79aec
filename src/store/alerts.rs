//! Alerts: as they came, and the few columns that lists are filtered by. Everything else is read from the raw alert
//! when somebody looks.

use serde::Serialize;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::codec;
use super::columns::{Millis, id};
use super::db::{Bind, Db, Result, binds, statements};
use crate::domain::alert::Alert;
use riposte_protocol::time::Timestamp;

statements! {
    ONE = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts WHERE id = $1";
    PAGE = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts
        WHERE id < $1 AND ($2 IS NULL OR rule_id = $2) AND ($3 IS NULL OR rule_level >= $3)
            AND ($4 IS NULL OR agent_id = $4) AND ($5 IS NULL OR time >= $5) AND ($6 IS NULL OR time < $6)
        ORDER BY id DESC LIMIT $7";
    OWN_PAGE = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts
        WHERE pipeline_id = $8 AND id < $1 AND ($2 IS NULL OR rule_id = $2) AND ($3 IS NULL OR rule_level >= $3)
            AND ($4 IS NULL OR agent_id = $4) AND ($5 IS NULL OR time >= $5) AND ($6 IS NULL OR time < $6)
        ORDER BY id DESC LIMIT $7";
    UNNAMED = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts
        WHERE pipeline_id IS NULL ORDER BY id LIMIT $1";
    SCAN = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts
        WHERE id > $1 AND rule_level > 0 AND ($2 IS NULL OR time >= $2) AND ($3 IS NULL OR time < $3)
        ORDER BY id LIMIT $4";
    COUNT_BETWEEN = "SELECT COUNT(*) AS count FROM alerts
        WHERE ($1 IS NULL OR time >= $1) AND ($2 IS NULL OR time < $2)";
    COUNT = "SELECT COUNT(*) AS count FROM alerts";
    FORGET = "DELETE FROM alerts WHERE id IN (
            SELECT id FROM alerts WHERE id < $1 AND NOT EXISTS (
                SELECT 1 FROM responses
                WHERE responses.alert_id = alerts.id AND responses.state IN ('active', 'awaiting_approval'))
            ORDER BY id LIMIT $2)";
}

const INSERT: &str = "INSERT INTO alerts (id, dedupe, pipeline, pipeline_id, time, agent_id, rule_id, rule_level, raw)";
/// A repeated alert, also one repeated within the same statement, is left out.
const UNLESS_KNOWN: &str = " ON CONFLICT (dedupe) DO NOTHING";
const NAME: &str = "UPDATE alerts SET pipeline_id = v.column2 FROM (";
const NAME_AFTER: &str = ") AS v WHERE alerts.id = v.column1";
const WHICH: &str = "SELECT id FROM alerts WHERE id IN (";

/// An alert that has been read and not yet stored.
#[derive(Debug)]
pub struct NewAlert {
    /// The id it gets.
    pub id: Uuid,
    /// Its normalised fields.
    pub alert: Alert,
    /// The raw alert, encoded by [`codec::Encoder`].
    pub stored: Vec<u8>,
}

/// A stored alert.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AlertRow {
    /// Its id.
    pub id: String,
    /// Who sent it.
    pub pipeline: String,
    /// When it happened.
    pub time: Millis,
    /// The rule.
    pub rule_id: String,
    /// Its level.
    pub rule_level: i64,
    raw: Vec<u8>,
}

impl AlertRow {
    /// The alert as it came.
    pub fn raw(&self) -> Result<String> {
        codec::decode(&self.raw)
    }
}

#[derive(sqlx::FromRow)]
struct Inserted {
    id: String,
}

/// Stores `alerts` and gives the ids of those that are new.
pub(super) async fn insert(ledger: &mut LedgerTx, alerts: Vec<NewAlert>) -> Result<Vec<Uuid>> {
    let ids: Vec<Uuid> = alerts.iter().map(|alert| alert.id).collect();
    let rows: Vec<Vec<Bind>> = alerts
        .into_iter()
        .map(|NewAlert { id, alert, stored }| {
            let level = i64::from(alert.rule.level);
            let Alert { dedupe, pipeline, pipeline_id, time, agent, rule, .. } = alert;
            binds![id, dedupe.to_vec(), pipeline, pipeline_id, time, agent.id, rule.id, level, stored]
        })
        .collect();
    let inserted = ledger.tx.execute_rows(INSERT, rows, UNLESS_KNOWN, vec![]).await?;
    // Repetitions are rare: asking which ones they are costs less than having every insert say its id.
    if usize::try_from(inserted).is_ok_and(|inserted| inserted == ids.len()) {
        return Ok(ids);
    }
    let rows = ids.into_iter().map(|id| binds![id]).collect();
    let there: Vec<Inserted> = ledger.tx.each_row(WHICH, rows, ")", vec![]).await?;
    there.iter().map(|row| id(&row.id)).collect()
}

/// The alert of that id.
pub async fn find(db: &Db, alert: Uuid) -> Result<Option<AlertRow>> {
    db.optional(ONE, binds![alert]).await
}

/// The first `limit` alerts that an earlier version stored without their pipelines' ids.
pub async fn unnamed(db: &Db, limit: i64) -> Result<Vec<AlertRow>> {
    db.all(UNNAMED, binds![limit]).await
}

/// Notes the pipelines' ids of alerts.
pub async fn name(ledger: &mut LedgerTx, names: Vec<(String, String)>) -> Result<()> {
    let rows = names.into_iter().map(|(alert, own_id)| binds![alert, own_id]).collect();
    ledger.tx.execute_rows(NAME, rows, NAME_AFTER, vec![]).await?;
    Ok(())
}

/// Which alerts to list.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// With this id in its pipeline.
    pub source_id: Option<String>,
    /// Of this rule.
    pub rule_id: Option<String>,
    /// At least of this level.
    pub min_level: Option<i64>,
    /// From this agent, by the pipeline's id.
    pub agent_id: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// A page of alerts, newest first, older than `before`.
pub async fn list(db: &Db, filter: AlertFilter, before: Option<Uuid>, limit: i64) -> Result<Vec<AlertRow>> {
    let before = before.unwrap_or(Uuid::max());
    let AlertFilter { source_id, rule_id, min_level, agent_id, since, until } = filter;
    let binds = binds![before, rule_id, min_level, agent_id, since, until, limit];
    match source_id {
        Some(own_id) => db.all(OWN_PAGE, [binds, binds![own_id]].concat()).await,
        None => db.all(PAGE, binds).await,
    }
}

/// A page of alerts that can fire something, oldest first, after `after`.
pub async fn scan(
    db: &Db,
    after: Uuid,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: i64,
) -> Result<Vec<AlertRow>> {
    db.all(SCAN, binds![after, since, until, limit]).await
}

/// How many alerts happened within a time.
pub async fn count_between(db: &Db, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<u64> {
    let row = db.optional::<Count>(COUNT_BETWEEN, binds![since, until]).await?;
    Ok(row.and_then(|row| u64::try_from(row.count).ok()).unwrap_or(0))
}

/// How many alerts are stored.
#[derive(Clone, Copy, Debug, sqlx::FromRow, Serialize)]
pub struct Count {
    /// So many.
    pub count: i64,
}

/// How many alerts are stored.
pub async fn count(db: &Db) -> Result<i64> {
    Ok(db.optional::<Count>(COUNT, vec![]).await?.map_or(0, |row| row.count))
}

/// Forgets at most `limit` alerts received before `cutoff` that no live response refers to; gives how many.
pub(super) async fn forget(ledger: &mut LedgerTx, cutoff: Timestamp, limit: i64) -> Result<u64> {
    // A UUIDv7 begins with its time: everything older sorts below this one.
    let millis = u64::try_from(cutoff.as_millis()).unwrap_or(0);
    let bound = Uuid::from_u64_pair(millis << 16, 0);
    ledger.tx.execute(FORGET, binds![bound, limit]).await
}

#[cfg(test)]
mod tests {
    use super::super::db::{plan, reads_whole};
    use super::*;

    #[tokio::test]
    async fn an_alert_is_found_by_its_pipelines_id_without_reading_them_all() {
        for (statement, index) in [(OWN_PAGE, "alerts_pipeline_id (pipeline_id=?"), (UNNAMED, "alerts_unnamed")] {
            let plan = plan(statement).await;
            assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
        }
        assert_eq!(reads_whole(NAME, 2, NAME_AFTER, 0).await, Vec::<String>::new());
    }
}
