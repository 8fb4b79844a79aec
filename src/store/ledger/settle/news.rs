//! What a result says about its effect, and which parts of it are stored.

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, MAX_EVIDENCE_BYTES, MAX_OUTPUT_BYTES, Outcome};

use super::{CommandBrief, corrupt};
use crate::domain::effect::Actual;
use crate::domain::outcome::LastApply;
use crate::store::database::Result;

/// Maximum length of an effect's stored reason, in bytes; the result stores the full text.
const MAX_REASON_BYTES: usize = 500;
/// Message prefix of an observed command from agents without the `observed` field.
const OBSERVED: &str = "observe: would have run";

/// What a result says about its effect. Only the newest command counts: `actual_seq` guards against
/// results that arrive out of order.
#[derive(Clone)]
pub(super) struct ResultNews {
    pub(super) seq: i64,
    pub(super) actual: Actual,
    pub(super) how: &'static str,
    /// Outcome of an apply; `None` for a revert or a one-shot command.
    pub(super) last_apply: Option<LastApply>,
    pub(super) reason: String,
}

impl ResultNews {
    /// Returns `None` for a failed revert, which the caller handles.
    pub(super) fn of(command: &CommandBrief, result: &CommandResult) -> Result<Option<Self>> {
        let news = |actual, how, last_apply: Option<LastApply>| {
            let reason = if last_apply.is_some() { short(&result.message) } else { String::new() };
            Some(Self { seq: command.seq, actual, how, last_apply, reason })
        };
        let applied = |actual, last_apply| news(actual, "apply", Some(last_apply));
        Ok(match (Op::parse(&command.op).ok_or_else(|| corrupt(command))?, result.outcome, result.verified) {
            (Op::Apply, _, _) if command.one_shot => news(Actual::Absent, "apply", None),
            (Op::Apply, Outcome::Succeeded, _) if is_observed(result) => applied(Actual::Unknown, LastApply::Observed),
            (Op::Apply, Outcome::Succeeded | Outcome::Failed | Outcome::TimedOut, Some(true)) => {
                applied(Actual::InForce, LastApply::Verified)
            }
            (Op::Apply, Outcome::Succeeded, Some(false)) => applied(Actual::Drifted, LastApply::Failed),
            // The action cannot be verified; the agent's result is all the evidence.
            (Op::Apply, Outcome::Succeeded, None) => applied(Actual::Unknown, LastApply::Unverified),
            (Op::Apply, Outcome::Failed, _) => applied(Actual::Absent, LastApply::Failed),
            (Op::Apply, Outcome::TimedOut, _) => applied(Actual::Absent, LastApply::TimedOut),
            (Op::Apply, Outcome::Refused, _) => news(Actual::Absent, "if_unknown", Some(LastApply::Refused)),
            (Op::Revert, Outcome::Succeeded, Some(true) | None) => news(Actual::Absent, "revert", None),
            (Op::Revert, _, _) => None,
        })
    }
}

/// Whether the agent only observed.
pub(super) fn is_observed(result: &CommandResult) -> bool {
    result.observed || result.message.starts_with(OBSERVED)
}

/// A reason, short enough to be kept with its effect.
pub(in crate::store) fn short(message: &str) -> String {
    text(&message[..message.floor_char_boundary(MAX_REASON_BYTES)])
}

/// Removes NUL, which PostgreSQL cannot store, and truncates: an agent of another version may have
/// other limits.
pub(super) fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_OUTPUT_BYTES)].replace('\0', "\u{fffd}")
}

/// Evidence in stored form. Agents that follow the protocol never exceed the limit.
pub(super) fn evidence(evidence: &serde_json::Value) -> String {
    let text = evidence.to_string();
    if text.len() <= MAX_EVIDENCE_BYTES {
        return text;
    }
    serde_json::json!({"left_out": format!("{} bytes; {MAX_EVIDENCE_BYTES} is the most", text.len())}).to_string()
}
