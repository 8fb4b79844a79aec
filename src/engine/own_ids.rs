//! Alerts that an earlier version stored can be found by their pipelines' ids too: these are read from the alerts in small steps,
//! beside everything else, until all are there.

use super::Engine;
use crate::domain::shapes;
use crate::store::alerts;
use crate::store::audit::LedgerTx;
use crate::store::db::Result;

/// Alerts in one step: a few milliseconds of work.
const STEP: i64 = 500;

/// Does one step; gives whether none is left.
///
/// # Errors
/// If the ledger cannot be read or written; then the step is done again.
pub(super) async fn step(engine: &Engine) -> Result<bool> {
    let rows = alerts::unnamed(&engine.db, STEP).await?;
    if rows.is_empty() {
        return Ok(true);
    }
    let own_id = |row: &alerts::AlertRow| {
        let alert = row.text().ok().and_then(|text| shapes::parse(&text, &engine.sources).ok());
        // Empty: it was looked at, and is not looked at again.
        (row.id.clone(), alert.map_or_else(String::new, |alert| alert.pipeline_id))
    };
    let names = rows.iter().map(own_id).collect();
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    alerts::name(&mut ledger, names).await?;
    ledger.commit().await?;
    Ok(false)
}
