//! Alerts that were too old when they came, until the audit log has them: after a long outage of a
//! pipeline they are stored and spared, and one entry says how many there were and of what time.
//! Otherwise the outage would look like silence. They are counted in the transaction that stores
//! them, so that a crash in the middle of a catch-up loses none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::policy::MaxAge;
use crate::store::database::duties::{self, Fence};
use crate::store::database::{Db, Result, binds, statements};
use crate::views::columns::Millis;

statements! {
    PIPELINES = "SELECT pipeline FROM late_alerts";
    ADD = "INSERT INTO late_alerts (pipeline, count, first_time, last_time, seen_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (pipeline) DO UPDATE SET count = late_alerts.count + excluded.count,
            first_time = CASE WHEN excluded.first_time < late_alerts.first_time
                THEN excluded.first_time ELSE late_alerts.first_time END,
            last_time = CASE WHEN excluded.last_time > late_alerts.last_time
                THEN excluded.last_time ELSE late_alerts.last_time END,
            seen_at = excluded.seen_at";
    DUE = "SELECT pipeline, count, first_time, last_time FROM late_alerts
        WHERE seen_at <= $1 OR seen_at > $2 ORDER BY pipeline";
    TAKE = "DELETE FROM late_alerts WHERE pipeline = $3 AND (seen_at <= $1 OR seen_at > $2)
        RETURNING pipeline, count, first_time, last_time";
}

/// Maximum number of pipelines: what an alert says of its own is not trusted.
const MOST: usize = 64;
/// Stands for the pipeline where there are too many.
const OTHERS: &str = "others";

/// Late alerts of a pipeline.
#[derive(sqlx::FromRow)]
struct LateRun {
    pipeline: String,
    count: i64,
    first_time: Millis,
    last_time: Millis,
}

#[derive(sqlx::FromRow)]
struct Known {
    pipeline: String,
}

/// Counts late alerts, each by its pipeline and its event time. It must be the last change of a
/// transaction without the head: the row of a pipeline is locked until the commit.
pub(in crate::store) async fn add(ledger: &mut LedgerTx, late: Vec<(String, Timestamp)>, now: Timestamp) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    let known = ledger.tx.all::<Known>(PIPELINES, vec![]).await?.into_iter();
    let mut known: BTreeSet<String> = known.map(|row| row.pipeline).collect();
    // In the order of their names in all managers: two that add to the same two rows would wait for each other.
    let mut runs: BTreeMap<String, (i64, Timestamp, Timestamp)> = BTreeMap::new();
    for (pipeline, time) in late {
        let is_known = known.contains(&pipeline) || known.len() < MOST;
        let pipeline = if is_known { pipeline } else { OTHERS.to_owned() };
        known.insert(pipeline.clone());
        let (count, first, last) = runs.entry(pipeline).or_insert((0, time, time));
        *count += 1;
        (*first, *last) = ((*first).min(time), (*last).max(time));
    }
    for (pipeline, (count, first, last)) in runs {
        ledger.tx.execute(ADD, binds![pipeline, count, first, last, now]).await?;
    }
    Ok(())
}

/// Records the late alerts of pipelines that sent none for `quiet`, and no longer counts them.
///
/// # Errors
/// [`StoreError::LeaseLost`](crate::store::StoreError::LeaseLost) if another manager has the duty
/// now.
pub async fn record_due(
    db: &Db,
    quiet: Duration,
    max_age: MaxAge,
    fence: Option<&Fence>,
    now: Timestamp,
) -> Result<()> {
    // The clock was set back since a row was written that is far ahead.
    let (cutoff, ahead) = (now.minus(quiet), now.plus(quiet));
    let due = db.all::<LateRun>(DUE, binds![cutoff, ahead]).await?;
    if due.is_empty() {
        return Ok(());
    }
    let mut ledger = LedgerTx::begin(db).await?;
    duties::check(&mut ledger.tx, fence).await?;
    let mut told = Vec::new();
    // One by one, in the order in which they are added to: otherwise each could wait for the other.
    for LateRun { pipeline, .. } in due {
        let taken = ledger.tx.optional::<LateRun>(TAKE, binds![cutoff, ahead, pipeline]).await?;
        let Some(LateRun { pipeline, count, first_time, last_time }) = taken else { continue };
        let what = if count == 1 { "1 alert".to_owned() } else { format!("{count} alerts") };
        let (first, last) = (Timestamp::from(first_time), Timestamp::from(last_time));
        let detail = format!(
            "{what} from {first} to {last} came later than max_age ({max_age}) and were spared, unless a policy has a max_age of its own"
        );
        told.push((pipeline.clone(), count, detail.clone()));
        let (actor, event) = (Actor::Riposte, AuditEvent::PipelineLate);
        ledger.record(AuditEntry { at: now, actor, event, noun_id: pipeline, detail });
    }
    ledger.commit().await?;
    for (pipeline, count, detail) in told {
        tracing::warn!(pipeline, count, "{detail}");
    }
    Ok(())
}
