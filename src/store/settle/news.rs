//! What a result says about its effect, and which of its words are kept with it.

use riposte_protocol::command::Op;
use riposte_protocol::message::{CommandResult, MAX_EVIDENCE_BYTES, MAX_OUTPUT_BYTES, Outcome};

use super::{CommandBrief, corrupt};
use crate::domain::effect::Actual;
use crate::domain::outcome::LastApply;
use crate::store::db::Result;

/// The longest reason that is kept with an effect, in bytes; the result has all of it.
const MAX_REASON_BYTES: usize = 500;
/// How agents that do not say `observed` in a word of its own begin the message of what they only observed.
const OBSERVED: &str = "observe: would have run";

/// What a result says about its effect. Only the newest command's word counts: `actual_seq` guards against results
/// that arrive out of order.
#[derive(Clone)]
pub(super) struct News {
    pub(super) seq: i64,
    pub(super) actual: Actual,
    pub(super) how: &'static str,
    /// What an apply came to; `None` for a revert, and for what is complete in itself.
    pub(super) last_apply: Option<LastApply>,
    pub(super) reason: String,
}

impl News {
    /// `None` if a revert failed, which is more than news.
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
            // An action that nothing shows: its own word is all there is.
            (Op::Apply, Outcome::Succeeded, None) => applied(Actual::Unknown, LastApply::Unverified),
            (Op::Apply, Outcome::Failed, _) => applied(Actual::Absent, LastApply::Failed),
            (Op::Apply, Outcome::TimedOut, _) => applied(Actual::Absent, LastApply::TimedOut),
            (Op::Apply, Outcome::Refused, _) => news(Actual::Absent, "if_unknown", Some(LastApply::Refused)),
            (Op::Revert, Outcome::Succeeded, Some(true) | None) => news(Actual::Absent, "revert", None),
            (Op::Revert, _, _) => None,
        })
    }
}

/// Whether the agent only said what it would have done.
pub(super) fn is_observed(result: &CommandResult) -> bool {
    result.observed || result.message.starts_with(OBSERVED)
}

/// A reason, short enough to be kept with its effect.
pub(in crate::store) fn short(message: &str) -> String {
    text(&message[..message.floor_char_boundary(MAX_REASON_BYTES)])
}

/// A NUL cannot be stored as text by PostgreSQL, and an agent may be older or newer than our bound.
pub(super) fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_OUTPUT_BYTES)].replace('\0', "\u{fffd}")
}

/// Evidence as it is stored. An agent that keeps to the protocol sends no more than fits.
pub(super) fn evidence(evidence: &serde_json::Value) -> String {
    let text = evidence.to_string();
    if text.len() <= MAX_EVIDENCE_BYTES {
        return text;
    }
    serde_json::json!({"left_out": format!("{} bytes; {MAX_EVIDENCE_BYTES} is the most", text.len())}).to_string()
}
