//! The result of a command that the agent does not try.

use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

/// The refusal of a command that came too late.
pub const EXPIRED: &str = "expired before it could be executed";

/// The result of a command that is not tried.
pub fn refusal(command_id: Uuid, message: impl Into<String>, now: Timestamp) -> CommandResult {
    CommandResult {
        command_id,
        outcome: Outcome::Refused,
        exit_code: None,
        output: String::new(),
        verified: None,
        message: message.into(),
        evidence: None,
        started_at: now,
        finished_at: now,
        observed: false,
    }
}
