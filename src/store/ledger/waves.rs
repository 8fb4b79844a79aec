//! Staged fan-out, waiting: the waves of a response that are still to be sent. `stages.rs` sends
//! them.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::policy::Waves;
use crate::domain::response::NewResponse;
use crate::store::database::columns::json;
use crate::store::database::{Result, binds, statements};

statements! {
    INSERT = "INSERT INTO waves (response_id, nth, agents, due_at) VALUES {4}";
    DROP = "DELETE FROM waves WHERE response_id IN (VALUES {1})";
}

/// Returns the first wave of a response and stores the later ones.
pub(in crate::store) async fn first<'a>(
    ledger: &mut LedgerTx,
    response: &'a NewResponse,
    now: Timestamp,
) -> Result<&'a [Uuid]> {
    let agents = response.agents.as_slice();
    let Some(Waves { count, over, .. }) = &response.waves else { return Ok(agents) };
    let size = agents.len().div_ceil(*count as usize).max(1);
    let mut waves = agents.chunks(size);
    let first = waves.next().unwrap_or_default();
    let step = over.duration() / *count;
    let mut rows = Vec::new();
    for (nth, wave) in (1_u32..).zip(waves) {
        rows.push(binds![response.id, i64::from(nth), json(&wave)?, now.plus(step * nth)]);
    }
    ledger.tx.execute_rows(INSERT, rows, vec![]).await?;
    Ok(first)
}

/// Drops the pending waves of these responses.
pub(super) async fn drop_rest(ledger: &mut LedgerTx, responses: &[Uuid]) -> Result<()> {
    let rows = responses.iter().map(|response| binds![*response]).collect();
    ledger.tx.execute_rows(DROP, rows, vec![]).await?;
    Ok(())
}
