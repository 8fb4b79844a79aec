//! How much one principal ordered and approved: the limit of a scope, counted in the transaction that
//! adds to it.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::store::database::{Result, binds, statements};

/// The window of the limit.
const WINDOW: Duration = Duration::from_hours(1);

statements! {
    ORDERED = "SELECT COUNT(*) AS count, MIN(created_at) AS oldest FROM responses
        WHERE requested_by = $1 AND policy IS NULL AND created_at > $2 AND state <> 'spared'";
    APPROVED = "SELECT COUNT(*) AS count, MIN(at) AS oldest FROM answers
        WHERE principal = $1 AND at > $2 AND answer = 'approve'";
}

#[derive(sqlx::FromRow)]
struct Recent {
    count: i64,
    oldest: Option<i64>,
}

/// If `principal` has ordered and approved `most` responses within the last hour: when the oldest of
/// them is an hour old.
pub(in crate::store) async fn full_until(
    ledger: &mut LedgerTx,
    principal: &Actor,
    most: Option<u32>,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let Some(most) = most else { return Ok(None) };
    let since = now.minus(WINDOW);
    let ordered: Option<Recent> = ledger.tx.optional(ORDERED, binds![principal, since]).await?;
    let approved: Option<Recent> = ledger.tx.optional(APPROVED, binds![principal, since]).await?;
    let both = [ordered, approved];
    let count: i64 = both.iter().flatten().map(|recent| recent.count).sum();
    let oldest = both.iter().flatten().filter_map(|recent| recent.oldest).min();
    let until = oldest.map_or(now, |oldest| Timestamp::from_millis(oldest).plus(WINDOW));
    Ok((count >= i64::from(most)).then_some(until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn what_one_principal_did_is_found_by_an_index() {
        for (statement, index) in [(ORDERED, "responses_by_hand"), (APPROVED, "answers_principal")] {
            let plan = plan(statement).await;
            assert!(plan.iter().all(|step| step.contains(index)), "{plan:?}");
        }
    }
}
