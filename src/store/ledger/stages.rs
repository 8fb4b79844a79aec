//! Staged fan-out, sending: a response reaches many agents wave by wave over a time. It stops when
//! too many of the commands so far have failed.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::approvals;
use super::audit::LedgerTx;
use super::end::end;
use super::failures;
use super::holds;
use super::waves::drop_rest;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::policy::Percent;
use crate::domain::response::{EndReason, ResponseEnd};
use crate::store::database::columns::id;
use crate::store::database::{Result, binds, statements};
use crate::views::columns::JsonText;

statements! {
    DUE = "SELECT waves.response_id, waves.nth, waves.agents FROM waves WHERE due_at <= $1 ORDER BY due_at, nth LIMIT $2";
    TAKE = "DELETE FROM waves WHERE response_id = $1 AND nth = $2";
    LEFT = "SELECT COUNT(*) AS whole, COUNT(*) AS part FROM waves WHERE response_id = $1";
    OUTCOMES = "SELECT COUNT(*) AS whole, COUNT(CASE WHEN state <> 'succeeded' THEN 1 END) AS part FROM commands
        WHERE response_id = $1 AND op = 'apply' AND state IN ('succeeded', 'failed', 'timed_out', 'refused')";
    STOP = "UPDATE responses SET detail = $2 WHERE id = $1 AND state = 'active'";
}

#[derive(sqlx::FromRow)]
struct WaveRow {
    response_id: String,
    nth: i64,
    agents: JsonText,
}

#[derive(sqlx::FromRow)]
struct Ratio {
    whole: i64,
    part: i64,
}

/// Sends the waves that are due, at most `limit`. Returns their number and the agents with new
/// commands.
pub(in crate::store) async fn send(ledger: &mut LedgerTx, now: Timestamp, limit: i64) -> Result<(usize, Vec<Uuid>)> {
    let due: Vec<WaveRow> = ledger.tx.all(DUE, binds![now, limit]).await?;
    let (count, mut agents) = (due.len(), Vec::new());
    for wave in due {
        // The wave is gone if an earlier one of this pass stopped the response.
        if ledger.tx.execute(TAKE, binds![wave.response_id.as_str(), wave.nth]).await? == 0 {
            continue;
        }
        let response = id(&wave.response_id)?;
        let nth = wave.nth;
        let Some((mut again, stop_at)) = approvals::active(ledger, response).await? else { continue };
        if let Some(why) = too_many_failed(ledger, response, stop_at).await? {
            agents.extend(stop(ledger, response, &why, now).await?);
            continue;
        }
        // The sealed response says which agents it may reach; the wave, when.
        let wave: Vec<Uuid> = wave.agents.read()?;
        again.agents.retain(|agent| wave.contains(agent));
        agents.extend(holds::hold(ledger, &[again], now).await?);
        let detail = format!("wave {} goes out", nth + 1);
        let (event, noun_id) = (AuditEvent::ResponseContinued, response.to_string());
        ledger.record(AuditEntry { at: now, actor: Actor::Riposte, event, noun_id, detail });
    }
    Ok((count, agents))
}

async fn too_many_failed(ledger: &mut LedgerTx, response: Uuid, stop_at: Percent) -> Result<Option<String>> {
    let ratio: Option<Ratio> = ledger.tx.optional(OUTCOMES, binds![response]).await?;
    let (part, whole) = ratio.map_or((0, 0), |ratio| (ratio.part, ratio.whole));
    let reached = stop_at.is_reached(u64::try_from(part).unwrap_or(0), u64::try_from(whole).unwrap_or(0));
    Ok(reached.then(|| format!("{part} of {whole} commands so far have failed")))
}

async fn stop(ledger: &mut LedgerTx, response: Uuid, why: &str, now: Timestamp) -> Result<Vec<Uuid>> {
    let left = ledger.tx.optional::<Ratio>(LEFT, binds![response]).await?.map_or(0, |ratio| ratio.whole) + 1;
    drop_rest(ledger, &[response]).await?;
    let detail = format!("stopped before {left} pending waves: {why}");
    ledger.tx.execute(STOP, binds![response, detail.as_str()]).await?;
    tracing::error!(%response, "response {response} {detail}");
    let (event, noun_id) = (AuditEvent::ResponseStopped, response.to_string());
    ledger.record(AuditEntry { at: now, actor: Actor::Riposte, event, noun_id, detail: detail.clone() });
    // If no sent effect is still held or can come into force, there is nothing to wait for.
    let why = ResponseEnd::by_riposte(EndReason::Stopped, detail);
    end(ledger, &[response], &why, now).await?;
    failures::end_these(ledger, vec![response], Some(&why), now).await
}
