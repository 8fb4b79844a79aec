//! Results as they are stored: their texts are bounded and can be stored by both databases.

use riposte_protocol::message::{CommandResult, MAX_EVIDENCE_BYTES, MAX_OUTPUT_BYTES, Outcome};
use riposte_protocol::time::Timestamp;

use crate::domain::audit::AuditEvent;
use crate::domain::settlement::is_observed;
use crate::store::database::{Bind, Result, binds, statements};
use crate::store::ledger::audit::LedgerTx;

statements! {
    pub(super) INSERT_RESULTS = "INSERT INTO results (command_id, outcome, exit_code, output, verified, message,
    started_at, finished_at, received_at, observed, evidence)
        VALUES {11}
        ON CONFLICT (command_id) DO UPDATE SET outcome = excluded.outcome, exit_code = excluded.exit_code,
    output = excluded.output, verified = excluded.verified, message = excluded.message, started_at = excluded.started_at,
    finished_at = excluded.finished_at, received_at = excluded.received_at, observed = excluded.observed,
    evidence = excluded.evidence";
}

/// Stores results, each in place of an earlier one of its command.
pub(super) async fn insert(ledger: &mut LedgerTx, results: Vec<CommandResult>, now: Timestamp) -> Result<()> {
    let rows = results.into_iter().map(|result| row(result, now)).collect();
    ledger.tx.execute_rows(INSERT_RESULTS, rows, vec![]).await?;
    Ok(())
}

fn row(result: CommandResult, now: Timestamp) -> Vec<Bind> {
    let observed = is_observed(&result);
    let CommandResult {
        command_id,
        outcome,
        exit_code,
        output,
        verified,
        message,
        evidence,
        started_at,
        finished_at,
        ..
    } = result;
    let (exit_code, output, message) = (exit_code.map(i64::from), text(&output), text(&message));
    let (outcome, evidence) = (outcome.as_str(), evidence.map(|found| evidence_text(&found)));
    binds![command_id, outcome, exit_code, output, verified, message, started_at, finished_at, now, observed, evidence]
}

/// The audit event of a result.
pub(super) const fn event(outcome: Outcome) -> AuditEvent {
    match outcome {
        Outcome::Succeeded => AuditEvent::CommandSucceeded,
        Outcome::Failed => AuditEvent::CommandFailed,
        Outcome::TimedOut => AuditEvent::CommandTimedOut,
        Outcome::Refused => AuditEvent::CommandRefused,
    }
}

/// A result in one line, for the audit log.
pub(super) fn detail(result: &CommandResult) -> String {
    let verified = match result.verified {
        Some(true) => "verified",
        Some(false) => "not as it should be",
        None => "not verified",
    };
    let exit = result.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
    format!("{verified}{exit}: {}", text(&result.message))
}

/// Removes NUL, which PostgreSQL cannot store, and truncates: an agent of another version may have
/// other limits.
fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_OUTPUT_BYTES)].replace('\0', "\u{fffd}")
}

/// Evidence in stored form. Agents that follow the protocol never exceed the limit.
fn evidence_text(evidence: &serde_json::Value) -> String {
    let text = evidence.to_string();
    if text.len() <= MAX_EVIDENCE_BYTES {
        return text;
    }
    serde_json::json!({"left_out": format!("{} bytes; {MAX_EVIDENCE_BYTES} is the most", text.len())}).to_string()
}
