//! The states of a command, and their transitions. They match the diagram in `docs/states.md` and a
//! CHECK in the schema; a test compares the three.

use riposte_protocol::message::Outcome;
use serde::{Deserialize, Serialize};

/// State of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Committed, not sent yet.
    Queued,
    /// Sent, not acknowledged yet.
    Delivered,
    /// In the agent's journal.
    Acknowledged,
    /// Executed successfully.
    Succeeded,
    /// Executed without success.
    Failed,
    /// Stopped by the agent's time limit, or no result arrived in time.
    TimedOut,
    /// Not acknowledged in time.
    Expired,
    /// Cancelled before it was sent.
    Cancelled,
    /// Refused by the agent.
    Refused,
}

impl CommandState {
    /// All states.
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

    /// Name in the API and the database.
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

    /// Parses a state's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the transition to `next` is allowed. An agent's result beats the manager's
    /// assumption, so a command that was given up may still succeed. So may a refused one: an agent
    /// with a full disk refuses at once, and may lose that memory in a crash before the command is
    /// sent again.
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
