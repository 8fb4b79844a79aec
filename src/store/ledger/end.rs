//! The end of responses: those that hold nothing any more and have no wave to come. Each is judged as
//! `failed` or `lifted`, counted and told of, and says why nothing came of it.

use std::collections::{BTreeMap, BTreeSet};

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::outcome::{ResponseOutcome, short_reason};
use crate::domain::response::{EndReason, ResponseEnd};
use crate::store::database::{Result, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::outcomes;
use crate::store::ledger::responses::ended_in_vain;
use crate::store::ledger::story::{self, About};

statements! {
    /// Commands that are complete in themselves and none of which was done are a failure, not `done`.
    END_RESPONSES = concat!(
"UPDATE responses SET state = 'ended', ended_at = $1, detail = $3,
        reason = CASE WHEN CAST($2 AS TEXT) = 'done' AND NOT EXISTS (
            SELECT 1 FROM commands LEFT JOIN results ON results.command_id = commands.id
            WHERE commands.response_id = responses.id AND commands.state = 'succeeded'
                AND (results.observed IS NULL OR results.observed = FALSE)) THEN 'failed' ELSE CAST($2 AS TEXT) END
    WHERE state = 'active' AND id IN (VALUES {1}) AND NOT EXISTS (
    SELECT 1 FROM holds WHERE holds.response_id = responses.id AND released_at IS NULL) AND NOT EXISTS (
    SELECT 1 FROM waves WHERE waves.response_id = responses.id)
    RETURNING id, reason, alert_id, policy, action, target_kind, target_value, ",
    ended_in_vain!(),
    " AS in_vain");
    SAY_WHY = "UPDATE responses SET detail = v.column2 FROM (VALUES {2}) AS v WHERE responses.id = v.column1";
}

/// A response that has ended.
#[derive(sqlx::FromRow)]
struct Ended {
    id: String,
    reason: EndReason,
    alert_id: Option<String>,
    policy: Option<String>,
    action: String,
    target_kind: Option<String>,
    target_value: Option<String>,
    in_vain: bool,
}

/// Ends those of these active responses that hold nothing any more and have no wave to come.
pub(in crate::store) async fn end(
    ledger: &mut LedgerTx,
    responses: &[Uuid],
    why: &ResponseEnd,
    now: Timestamp,
) -> Result<()> {
    let responses: BTreeSet<Uuid> = responses.iter().copied().collect();
    let rows = responses.into_iter().map(|response| binds![response]).collect();
    let first = binds![now, why.reason, why.detail.as_str()];
    let ended: Vec<Ended> = ledger.tx.each_row(END_RESPONSES, rows, first).await?;
    let mut reasons = say_why(ledger, &ended, why).await?;
    for row in ended {
        let detail = reasons.remove(&row.id).unwrap_or_else(|| why.detail.clone());
        let detail = format!("{}: {detail}", row.reason.as_str());
        let outcome = if row.in_vain { ResponseOutcome::Failed } else { ResponseOutcome::Lifted };
        let about = About {
            alert: row.alert_id.and_then(|id| id.parse().ok()),
            policy: row.policy,
            action: Some(row.action),
            target: row.target_kind.zip(row.target_value).and_then(|(kind, value)| story::target(&kind, &value)),
            outcome: Some(outcome),
            ..About::default()
        };
        let (actor, event, noun_id) = (why.by.clone(), AuditEvent::ResponseEnded, row.id);
        ledger.record_about(AuditEntry { at: now, actor, event, noun_id, detail }, about);
        ledger.count_ended(outcome);
    }
    Ok(())
}

/// "Done" says nothing of commands none of which was done: the first agent's reason does. Costs nothing where one was.
async fn say_why(ledger: &mut LedgerTx, ended: &[Ended], why: &ResponseEnd) -> Result<BTreeMap<String, String>> {
    let failed: Vec<&str> = ended
        .iter()
        .filter(|row| why.reason == EndReason::Done && row.reason == EndReason::Failed)
        .map(|row| row.id.as_str())
        .collect();
    if failed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut reasons = BTreeMap::new();
    for (response, reason) in outcomes::first_one_shots(ledger, &failed).await? {
        reasons.insert(response, short_reason(&format!("it was done on no agent: {reason}")));
    }
    let rows = reasons.iter().map(|(response, reason)| binds![response.as_str(), reason.as_str()]).collect();
    ledger.tx.execute_rows(SAY_WHY, rows, vec![]).await?;
    Ok(reasons)
}
