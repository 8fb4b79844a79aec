//! Presence of an agent: streaming, polling or away.

use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How long an agent counts as present after a poll: the pause between polls, the spread of
/// reconnects, and a slow network.
pub const POLL_GRACE: Duration = Duration::from_mins(1);

/// Presence of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It has a stream to this manager.
    Streaming,
    /// It polls.
    Polling,
    /// Neither.
    Away,
}

impl Presence {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Streaming, Self::Polling, Self::Away];

    /// Name in the API and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Polling => "polling",
            Self::Away => "away",
        }
    }

    /// The presence at `now`, from the stream, the number of open polls, and the end of the last
    /// poll.
    pub fn of(is_streaming: bool, polls: u32, polled_at: Option<Timestamp>, now: Timestamp) -> Self {
        if is_streaming {
            Self::Streaming
        } else if polls > 0 || polled_at.is_some_and(|at| at.plus(POLL_GRACE) > now) {
            Self::Polling
        } else {
            Self::Away
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_polls_is_present() {
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let table = [
            (true, 0, None, Presence::Streaming),
            (true, 1, Some(at(99)), Presence::Streaming),
            (false, 1, None, Presence::Polling),
            (false, 0, Some(at(41)), Presence::Polling),
            (false, 0, Some(at(40)), Presence::Away),
            (false, 0, None, Presence::Away),
        ];
        for (streams, polls, polled_at, presence) in table {
            assert_eq!(Presence::of(streams, polls, polled_at, at(100)), presence, "{streams} {polls} {polled_at:?}");
        }
    }
}
