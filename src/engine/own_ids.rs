//! Backfills the pipelines' ids of alerts stored by an earlier version, in small steps in the
//! background, so that they can be found by these ids.

use super::Engine;
use crate::domain::formats;
use crate::store::database::Result;
use crate::store::ledger::alerts;
use crate::store::ledger::audit::LedgerTx;

/// Alerts per step: a few milliseconds of work.
const STEP: i64 = 500;

/// Runs one step; returns whether none is left.
///
/// # Errors
/// If the ledger cannot be read or written; the step is then repeated.
pub(super) async fn step(engine: &Engine) -> Result<bool> {
    let rows = alerts::unnamed(&engine.db, STEP).await?;
    if rows.is_empty() {
        return Ok(true);
    }
    let own_id = |row: &alerts::AlertRow| {
        let alert = row.text().ok().and_then(|text| formats::parse(&text, &engine.mappings, Some(&row.pipeline)).ok());
        // An empty id marks the row as done.
        (row.id.clone(), alert.map_or_else(String::new, |alert| alert.pipeline_id))
    };
    let names = rows.iter().map(own_id).collect();
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    alerts::name(&mut ledger, names).await?;
    ledger.commit().await?;
    Ok(false)
}
