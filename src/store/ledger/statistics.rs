//! Counts over time. Ids begin with the time, so a range of time is a range of a primary key.

use riposte_protocol::time::Timestamp;

use crate::domain::id::bound_at;
use crate::domain::response::ResponseState;
use crate::store::database::{Db, Result, binds, statements};
use crate::views::statistics::ActionFailures;

statements! {
    ALERTS = "SELECT COUNT(*) AS count FROM alerts WHERE id >= $1 AND id < $2";
    RESPONSES = "SELECT state, COUNT(*) AS count FROM responses WHERE id >= $1 AND id < $2 GROUP BY state ORDER BY state";
    FAILURES = "SELECT action, state, COUNT(*) AS count FROM commands
        WHERE id >= $1 AND id < $2 AND state IN ('failed', 'timed_out', 'refused', 'expired')
        GROUP BY action, state ORDER BY action, state";
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// Number of stored alerts that were received from `since` to `until`.
pub async fn alerts(db: &Db, since: Timestamp, until: Timestamp) -> Result<i64> {
    let row = db.optional::<Count>(ALERTS, binds![bound_at(since), bound_at(until)]).await?;
    Ok(row.map_or(0, |row| row.count))
}

/// Number of responses in a state.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DecidedCount {
    /// Their state now.
    pub state: ResponseState,
    /// How many.
    pub count: i64,
}

/// Number of responses that were decided from `since` to `until`, by their state now.
pub async fn responses(db: &Db, since: Timestamp, until: Timestamp) -> Result<Vec<DecidedCount>> {
    db.all(RESPONSES, binds![bound_at(since), bound_at(until)]).await
}

/// Commands that were queued from `since` to `until` and did not succeed.
pub async fn failures(db: &Db, since: Timestamp, until: Timestamp) -> Result<Vec<ActionFailures>> {
    db.all(FAILURES, binds![bound_at(since), bound_at(until)]).await
}
