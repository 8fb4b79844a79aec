//! Stored alerts: the raw text, and the few columns that lists filter by. Every other field is
//! parsed from the raw alert when it is read.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::retention::is_needed;
use crate::domain::alert::{Alert, Rule};
use crate::domain::decode::{decode, legible};
use crate::domain::formats::{self, AlertMappings};
use crate::domain::pipeline::DedupeKey;
use crate::store::configured::legal_holds::{first_id, is_held};
use crate::store::database::codec;
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::views::columns::Millis;
use riposte_protocol::time::Timestamp;

/// That nothing needs the row of `alerts` that a statement looks at, in SQL: no response that is not over
/// refers to it, and no legal hold covers it or such a response.
macro_rules! is_free {
    () => {
        concat!(
            " AND NOT EXISTS (SELECT 1 FROM responses WHERE responses.alert_id = alerts.id AND (
                ",
            is_needed!(),
            " OR ",
            is_held!(),
            ")) AND NOT EXISTS (SELECT 1 FROM legal_holds WHERE legal_holds.kind = 'time'
                AND ((alerts.time >= legal_holds.since AND alerts.time < legal_holds.until)
                    OR (alerts.id >= legal_holds.first_id AND alerts.id < legal_holds.last_id)))"
        )
    };
}

statements! {
    ONE = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts WHERE id = $1";
    NAMED = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts WHERE id IN (VALUES {1})";
    UNNAMED = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts
        WHERE pipeline_id IS NULL ORDER BY id LIMIT $1";
    SCAN = "SELECT id, pipeline, time, rule_id, rule_level, raw FROM alerts
        WHERE id > $1 AND rule_level > 0 AND ($2 IS NULL OR time >= $2) AND ($3 IS NULL OR time < $3)
        ORDER BY id LIMIT $4";
    COUNT_BETWEEN = "SELECT COUNT(*) AS count FROM alerts
        WHERE ($1 IS NULL OR time >= $1) AND ($2 IS NULL OR time < $2)";
    COUNT = "SELECT COUNT(*) AS count FROM alerts";
    OLD = concat!("SELECT id FROM alerts WHERE id > $1 AND id < $2", is_free!(), " ORDER BY id LIMIT $3");
    FORGET = concat!("DELETE FROM alerts WHERE TRUE", is_free!(), " AND id IN (VALUES {1})");
    /// Skips alerts that are already stored, or repeated within the statement.
    INSERT = "INSERT INTO alerts (id, dedupe, pipeline, pipeline_id, time, agent_id, rule_id, rule_level, raw, is_astray)
        VALUES {10} ON CONFLICT (dedupe) DO NOTHING";
    NAME = "UPDATE alerts SET pipeline_id = v.column2 FROM (VALUES {2}) AS v WHERE alerts.id = v.column1";
    KNOWN = "SELECT id, dedupe, time, raw FROM alerts WHERE dedupe IN (VALUES {1})";
    WHICH = "SELECT id FROM alerts WHERE id IN (VALUES {1})";
    TAKE_BACK = "DELETE FROM alerts WHERE id IN (VALUES {1})";
}

/// How far the time of an alert may be from its receipt before it is astray. The migration that adds `is_astray` has it too.
pub(super) const ASTRAY_AFTER: Duration = Duration::from_secs(5);

/// A parsed alert to store.
#[derive(Debug)]
pub struct NewAlert {
    /// UUIDv7.
    pub id: Uuid,
    /// Normalised fields.
    pub alert: Alert,
    /// Deduplication key.
    pub key: DedupeKey,
    /// The raw alert, encoded by [`codec::Encoder`].
    pub stored: Vec<u8>,
    /// Whether it is too old for every policy without a `max_age` of its own: it is counted as such.
    pub is_late: bool,
}

/// A stored alert.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AlertRow {
    /// UUIDv7; begins with the time of receipt.
    pub id: String,
    /// Pipeline that sent the alert.
    pub pipeline: String,
    /// Event time.
    pub time: Millis,
    /// Rule id.
    pub rule_id: String,
    /// Rule level.
    pub rule_level: i64,
    raw: Vec<u8>,
}

impl AlertRow {
    /// The raw alert for display, as far as it is text.
    ///
    /// # Errors
    /// If the ledger is damaged.
    pub fn raw(&self) -> Result<String> {
        Ok(legible(&codec::decode(&self.raw)?).into_owned())
    }

    /// The alert's text as policies and programs see it.
    ///
    /// # Errors
    /// If the ledger is damaged.
    pub fn text(&self) -> Result<String> {
        Ok(decode(&codec::decode(&self.raw)?).into_owned())
    }

    /// The alert, read anew from its `text`. One that this version or the present mappings refuse is known by its columns.
    pub fn alert(&self, text: &str, mappings: &AlertMappings) -> Alert {
        formats::parse(text, mappings, Some(&self.pipeline)).unwrap_or_else(|_| Alert {
            pipeline: self.pipeline.clone(),
            time: self.time.into(),
            rule: Rule {
                id: self.rule_id.clone(),
                level: u8::try_from(self.rule_level).unwrap_or_default(),
                ..Rule::default()
            },
            ..Alert::default()
        })
    }
}

#[derive(sqlx::FromRow)]
struct Stored {
    id: String,
}

#[derive(sqlx::FromRow)]
struct Known {
    id: String,
    dedupe: Vec<u8>,
    time: i64,
    raw: Vec<u8>,
}

/// Result of [`insert`].
#[derive(Debug, Default)]
pub(in crate::store) struct Inserted {
    /// Alerts stored now for the first time.
    pub(in crate::store) new: HashSet<Uuid>,
    /// Alerts skipped as duplicates although the stored alert of the same key differs.
    pub(in crate::store) conflicting: HashSet<Uuid>,
}

/// Stores those of `alerts` that are new, by current and former deduplication keys.
pub(in crate::store) async fn insert(ledger: &mut LedgerTx, alerts: Vec<NewAlert>) -> Result<Inserted> {
    let mut outcome = Inserted::default();
    let mut alerts = leave_out_former(ledger, alerts, &mut outcome).await?;
    if ledger.is_shared() {
        // In one order in all managers: two that store the same two alerts would wait for each other.
        alerts.sort_by_key(|alert| alert.key.key);
    }
    let mut kept = Vec::with_capacity(alerts.len());
    let rows: Vec<Vec<Bind>> = alerts
        .into_iter()
        .map(|NewAlert { id, alert, key, stored, .. }| {
            let level = i64::from(alert.rule.level);
            kept.push((id, key.key, stored.clone()));
            let is_astray = is_astray(&id, alert.time);
            let Alert { pipeline, pipeline_id, time, agent, rule, .. } = alert;
            binds![id, key.key.to_vec(), pipeline, pipeline_id, time, agent.id, rule.id, level, stored, is_astray]
        })
        .collect();
    let inserted = ledger.tx.execute_rows(INSERT, rows, vec![]).await?;
    // Duplicates are rare: looking them up afterwards is cheaper than returning an id for every
    // insert.
    if usize::try_from(inserted).is_ok_and(|inserted| inserted == kept.len()) {
        outcome.new = kept.iter().map(|(id, ..)| *id).collect();
        return Ok(outcome);
    }
    let rows = kept.iter().map(|(id, ..)| binds![*id]).collect();
    let there: Vec<Stored> = ledger.tx.each_row(WHICH, rows, vec![]).await?;
    outcome.new = there.iter().map(|row| id(&row.id)).collect::<Result<_>>()?;
    kept.retain(|(id, ..)| !outcome.new.contains(id));
    let known = known(ledger, kept.iter().map(|(_, key, _)| *key)).await?;
    let differs =
        |key: &[u8; 16], stored: &[u8]| known.get(key).is_some_and(|known| !codec::is_same_alert(&known.raw, stored));
    let conflicting = kept.iter().filter(|(_, key, stored)| differs(key, stored)).map(|(id, ..)| *id);
    outcome.conflicting.extend(conflicting);
    Ok(outcome)
}

/// Takes back alerts that this transaction has stored.
pub(in crate::store) async fn take_back(ledger: &mut LedgerTx, alerts: &HashSet<Uuid>) -> Result<()> {
    let rows = alerts.iter().map(|id| binds![*id]).collect();
    ledger.tx.execute_rows(TAKE_BACK, rows, vec![]).await.map(drop)
}

/// Drops alerts that were stored when their pipeline used another key format.
async fn leave_out_former(
    ledger: &mut LedgerTx,
    alerts: Vec<NewAlert>,
    outcome: &mut Inserted,
) -> Result<Vec<NewAlert>> {
    let former: Vec<[u8; 16]> = alerts.iter().flat_map(|alert| &alert.key.former).map(|former| former.key).collect();
    if former.is_empty() {
        return Ok(alerts);
    }
    let known = known(ledger, former.into_iter()).await?;
    let mut unknown: Vec<NewAlert> = Vec::with_capacity(alerts.len());
    // One alert may have two keys.
    let mut beside: HashMap<[u8; 16], usize> = HashMap::new();
    for alert in alerts {
        let mut same = None;
        for former in &alert.key.former {
            if let Some(row) = known.get(&former.key)
                && former.is_same(received(&id(&row.id)?), Timestamp::from_millis(row.time))
            {
                same = Some(&row.raw);
            } else if let Some(other) = beside.get(&former.key).map(|at| &unknown[*at])
                && former.is_same(received(&other.id), other.alert.time)
            {
                same = Some(&other.stored);
            }
        }
        match same {
            Some(raw) if !codec::is_same_alert(raw, &alert.stored) => drop(outcome.conflicting.insert(alert.id)),
            Some(_) => {}
            None => {
                beside.insert(alert.key.key, unknown.len());
                unknown.push(alert);
            }
        }
    }
    Ok(unknown)
}

/// The stored alerts with these keys.
async fn known(ledger: &mut LedgerTx, keys: impl Iterator<Item = [u8; 16]>) -> Result<HashMap<[u8; 16], Known>> {
    let rows = keys.map(|key| binds![key.to_vec()]).collect();
    let rows: Vec<Known> = ledger.tx.each_row(KNOWN, rows, vec![]).await?;
    let keyed = |row: Known| {
        let key = row.dedupe.as_slice().try_into().map_err(|_| StoreError::Corrupt("an alert's key".into()))?;
        Ok((key, row))
    };
    rows.into_iter().map(keyed).collect()
}

/// Whether an alert's own time is far from that of its receipt.
pub(super) fn is_astray(alert: &Uuid, time: Timestamp) -> bool {
    let apart = time.as_millis().abs_diff(received(alert).as_millis());
    u128::from(apart) > ASTRAY_AFTER.as_millis()
}

/// Time of receipt, read from the UUIDv7.
pub fn received(alert: &Uuid) -> Timestamp {
    let millis = u64::try_from(alert.as_u128() >> 80).unwrap_or(0);
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// The alerts of these ids that are stored.
pub async fn named(db: &Db, alerts: impl IntoIterator<Item = Uuid>) -> Result<Vec<AlertRow>> {
    db.each_row(NAMED, alerts.into_iter().map(|alert| binds![alert]).collect(), vec![]).await
}

/// The alert of that id.
pub async fn find(db: &Db, alert: Uuid) -> Result<Option<AlertRow>> {
    db.optional(ONE, binds![alert]).await
}

/// The first `limit` alerts that an earlier version stored without their pipeline's id.
pub async fn unnamed(db: &Db, limit: i64) -> Result<Vec<AlertRow>> {
    db.all(UNNAMED, binds![limit]).await
}

/// Sets the pipeline's ids of alerts.
pub async fn name(ledger: &mut LedgerTx, names: Vec<(String, String)>) -> Result<()> {
    let rows = names.into_iter().map(|(alert, own_id)| binds![alert, own_id]).collect();
    ledger.tx.execute_rows(NAME, rows, vec![]).await?;
    Ok(())
}

/// A page of alerts that a policy can match, oldest first, after `after`.
pub async fn scan(
    db: &Db,
    after: Uuid,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: i64,
) -> Result<Vec<AlertRow>> {
    db.all(SCAN, binds![after, since, until, limit]).await
}

/// Number of alerts with an event time in the range.
pub async fn count_between(db: &Db, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<u64> {
    let row = db.optional::<Count>(COUNT_BETWEEN, binds![since, until]).await?;
    Ok(row.and_then(|row| u64::try_from(row.count).ok()).unwrap_or(0))
}

/// Result row of a count.
#[derive(Clone, Copy, Debug, sqlx::FromRow, Serialize)]
pub struct Count {
    /// Number of alerts.
    pub count: i64,
}

/// Number of stored alerts.
pub async fn count(db: &Db) -> Result<i64> {
    Ok(db.optional::<Count>(COUNT, vec![]).await?.map_or(0, |row| row.count))
}

/// At most `limit` alerts after `after` that were received before `cutoff` and that nothing needs.
pub async fn forgettable(db: &Db, after: Uuid, cutoff: Timestamp, limit: i64) -> Result<Vec<Uuid>> {
    let rows: Vec<Stored> = db.all(OLD, binds![after, first_id(cutoff), limit]).await?;
    rows.iter().map(|row| id(&row.id)).collect()
}

/// Deletes those of these alerts that nothing needs.
pub(in crate::store) async fn forget(ledger: &mut LedgerTx, alerts: &[Uuid]) -> Result<u64> {
    let rows = alerts.iter().map(|alert| binds![*alert]).collect();
    ledger.tx.execute_rows(FORGET, rows, vec![]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn alerts_without_their_pipelines_id_are_found_without_reading_them_all() {
        let plan = plan(UNNAMED).await;
        assert!(plan.iter().any(|step| step.contains("alerts_unnamed")), "{plan:?}");
    }
}
