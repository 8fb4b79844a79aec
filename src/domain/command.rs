//! The life of a command. The same states stand as a diagram in `docs/states.md`, as an enum here and as a CHECK in
//! the schema; a test compares the three.

use riposte_protocol::message::Outcome;
use serde::Serialize;

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Committed, not yet sent.
    Queued,
    /// Sent; owed until the agent acknowledges it.
    Delivered,
    /// In the agent's journal.
    Acknowledged,
    /// Done.
    Succeeded,
    /// Tried in vain.
    Failed,
    /// The agent stopped it because it took too long, or never told how it ended.
    TimedOut,
    /// Never acknowledged in time.
    Expired,
    /// Called back before it was sent.
    Cancelled,
    /// The agent would not do it.
    Refused,
}

impl CommandState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Delivered,
        Self::Acknowledged,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Expired,
        Self::Cancelled,
        Self::Refused,
    ];

    /// The word used in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }

    /// The state that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the command may go from this state to `next`. The agent's own word (a result) beats the manager's
    /// guess, so a command that was given up on can still turn out to have been done. So can one that was refused: an agent
    /// whose disk takes nothing says so at once, a crash then takes its memory of that, and the command may be on its way again.
    pub const fn can_become(self, next: Self) -> bool {
        use CommandState::{Acknowledged, Cancelled, Delivered, Expired, Failed, Queued, Refused, Succeeded, TimedOut};
        match self {
            Queued => !matches!(next, Queued),
            Delivered => !matches!(next, Queued | Delivered | Cancelled),
            Acknowledged => matches!(next, Succeeded | Failed | TimedOut | Refused),
            TimedOut | Expired | Cancelled => matches!(next, Succeeded | Failed | Refused),
            Refused => matches!(next, Succeeded | Failed | TimedOut),
            Succeeded | Failed => false,
        }
    }
}

impl From<Outcome> for CommandState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Refused => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_never_goes_back() {
        for state in CommandState::ALL {
            assert!(!state.can_become(CommandState::Queued), "{state:?}");
            assert!(!state.can_become(state), "{state:?}");
            assert_eq!(CommandState::parse(state.as_str()), Some(state));
        }
        for end in [CommandState::Succeeded, CommandState::Failed] {
            assert!(CommandState::ALL.iter().all(|next| !end.can_become(*next)), "{end:?}");
        }
        assert!(!CommandState::Delivered.can_become(CommandState::Cancelled), "it may be running already");
    }
}
