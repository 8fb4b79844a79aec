//! What became of a response: on each of its agents, and as a whole (promise 14). These are the
//! rules; the facts that they judge by come from `store/outcomes.rs`, whose SQL does the counting
//! and is compared with [`of_agent`] by a test.
//!
//! Nothing here calls an effect in force that the agent has not said to be in force.

use riposte_protocol::time::Timestamp;
use serde::Serialize;

use super::command::CommandState;
use super::effect::{Actual, Desired};
use super::presence::Presence;
use super::response::ResponseState;

/// What became of a response, all its agents together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseOutcome {
    /// It is in force on no agent yet, and can still come into force.
    Pending,
    /// It is in force on every agent.
    InForce,
    /// It is in force on some of its agents only; one that is complete in itself was done on some
    /// only.
    Partly,
    /// It is in force on no agent and will not be.
    Failed,
    /// It was in force and is not any more, or was lifted before; one that is complete in itself
    /// was done.
    Lifted,
}

impl ResponseOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Pending, Self::InForce, Self::Partly, Self::Failed, Self::Lifted];

    /// The word used in the API and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InForce => "in_force",
            Self::Partly => "partly",
            Self::Failed => "failed",
            Self::Lifted => "lifted",
        }
    }

    /// The outcome that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// What became of a response on one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentOutcome {
    /// Nothing is in force there yet; a command is under way.
    Pending,
    /// It is in force there.
    InForce,
    /// It is not in force there, and no command is under way.
    Failed,
    /// It is over there, or does not hold it in force any more.
    Lifted,
}

impl AgentOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Pending, Self::InForce, Self::Failed, Self::Lifted];

    /// The word used in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InForce => "in_force",
            Self::Failed => "failed",
            Self::Lifted => "lifted",
        }
    }

    /// The outcome that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// What an apply came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LastApply {
    /// Done, looked at and found in force.
    Verified,
    /// Done by the word of what was run; nothing shows it.
    Unverified,
    /// Not done: the agent only observes.
    Observed,
    /// Tried in vain, or not found in force afterwards.
    Failed,
    /// The agent would not do it.
    Refused,
    /// Stopped, or never answered.
    TimedOut,
    /// Never acknowledged in time.
    Expired,
    /// Called back before it was sent.
    Cancelled,
}

impl LastApply {
    /// Everything that an apply can come to.
    pub const ALL: [Self; 8] = [
        Self::Verified,
        Self::Unverified,
        Self::Observed,
        Self::Failed,
        Self::Refused,
        Self::TimedOut,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word used in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Observed => "observed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// What `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }

    /// Whether something came into force by it.
    pub const fn is_in_force(self) -> bool {
        matches!(self, Self::Verified | Self::Unverified)
    }

    /// It, and why, in words.
    pub fn behind(self, reason: &str) -> String {
        if reason.is_empty() { self.words().to_owned() } else { format!("{}: {reason}", self.words()) }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Verified | Self::Unverified => "lost",
            Self::Observed => "observed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Expired => "expired",
            Self::Cancelled => "called back",
        }
    }
}

/// How an effect stood when a response let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAs {
    /// It had been in force.
    InForce,
    /// No apply was over yet.
    Withdrawn,
    /// It never came into force: this is why.
    Never(LastApply),
}

impl LeftAs {
    /// What `word` names; what was let go of before this was kept was in force, as far as is known.
    pub fn parse(word: Option<&str>) -> Option<Self> {
        match word {
            None | Some("in_force") => Some(Self::InForce),
            Some("withdrawn") => Some(Self::Withdrawn),
            Some(word) => LastApply::parse(word).map(Self::Never),
        }
    }
}

/// A hold that was let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// How the effect stood then.
    pub left_as: LeftAs,
    /// Whether the effect is still that which was let go of, not one that was wanted again later.
    pub is_same: bool,
}

/// What the ledger knows of one response on one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldFacts {
    /// What is wanted of the effect, by whichever response.
    pub desired: Desired,
    /// What the agent last said of it.
    pub actual: Actual,
    /// What its newest apply that is over came to.
    pub last_apply: Option<LastApply>,
    /// The state of an apply that is under way.
    pub under_way: Option<CommandState>,
    /// Whether the agent was revoked.
    pub is_revoked: bool,
    /// Set once the response holds the effect no more.
    pub released: Option<Released>,
}

impl HoldFacts {
    /// Whether it is in force by the word of what was run alone.
    pub fn is_unverified(&self) -> bool {
        of_agent(self) == AgentOutcome::InForce && self.actual != Actual::InForce
    }
}

/// What became of a response on one agent.
pub fn of_agent(facts: &HoldFacts) -> AgentOutcome {
    let HoldFacts { desired, actual, last_apply, under_way, is_revoked, released } = *facts;
    let Some(Released { left_as, is_same }) = released else {
        return match (actual, last_apply) {
            _ if is_revoked => AgentOutcome::Failed,
            (Actual::InForce, _) | (Actual::Unknown, Some(LastApply::Unverified)) => AgentOutcome::InForce,
            _ if under_way.is_some() => AgentOutcome::Pending,
            (Actual::Unknown, None) => AgentOutcome::Pending,
            _ => AgentOutcome::Failed,
        };
    };
    let is_standing = is_same && desired == Desired::Absent && actual != Actual::Absent;
    match left_as {
        LeftAs::Never(_) => AgentOutcome::Failed,
        _ if is_standing && is_revoked => AgentOutcome::Failed,
        LeftAs::InForce if is_standing => AgentOutcome::InForce,
        LeftAs::Withdrawn if is_standing => AgentOutcome::Pending,
        LeftAs::InForce | LeftAs::Withdrawn => AgentOutcome::Lifted,
    }
}

/// What became of a command that is complete in itself.
pub const fn of_one_shot(state: CommandState, is_observed: bool) -> AgentOutcome {
    match state {
        CommandState::Queued | CommandState::Delivered | CommandState::Acknowledged => AgentOutcome::Pending,
        CommandState::Succeeded if !is_observed => AgentOutcome::Lifted,
        _ => AgentOutcome::Failed,
    }
}

/// The reason of one agent in words, for a command that is complete in itself.
pub fn one_shot_words(state: CommandState, is_observed: bool, is_away: bool, reason: &str) -> String {
    let word = match state {
        CommandState::Succeeded if is_observed => "observed",
        CommandState::Succeeded => "done",
        CommandState::Queued if is_away => "queued: the agent is away",
        other => other.as_str(),
    };
    if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") }
}

/// On how many agents a response came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OutcomeCounts {
    /// In force.
    pub in_force: i64,
    /// Under way.
    pub pending: i64,
    /// Not in force, and nothing under way.
    pub failed: i64,
    /// Over.
    pub lifted: i64,
}

impl OutcomeCounts {
    /// Counts `count` more agents.
    pub const fn add(&mut self, outcome: AgentOutcome, count: i64) {
        match outcome {
            AgentOutcome::InForce => self.in_force += count,
            AgentOutcome::Pending => self.pending += count,
            AgentOutcome::Failed => self.failed += count,
            AgentOutcome::Lifted => self.lifted += count,
        }
    }

    /// How many agents are counted.
    pub const fn total(&self) -> i64 {
        self.in_force + self.pending + self.failed + self.lifted
    }
}

/// What became of a response; `None` where it was never to act.
pub fn of_response(state: ResponseState, is_one_shot: bool, counts: OutcomeCounts) -> Option<ResponseOutcome> {
    if !matches!(state, ResponseState::Active | ResponseState::Ended) {
        return None;
    }
    let OutcomeCounts { in_force, pending, failed, lifted } = counts;
    Some(if in_force > 0 {
        if in_force == counts.total() { ResponseOutcome::InForce } else { ResponseOutcome::Partly }
    } else if pending > 0 {
        ResponseOutcome::Pending
    } else if lifted > 0 {
        if is_one_shot && failed > 0 { ResponseOutcome::Partly } else { ResponseOutcome::Lifted }
    } else {
        ResponseOutcome::Failed
    })
}

/// What else is told of a response on one agent.
#[derive(Clone, Debug, Default)]
pub struct Telling<'a> {
    /// What the agent or the manager said last.
    pub reason: &'a str,
    /// Where the agent is.
    pub presence: Option<Presence>,
    /// When it was last heard of, or enrolled.
    pub away_since: Option<Timestamp>,
    /// Whether nothing new is delivered.
    pub is_frozen: bool,
    /// How many attempts to lift it have failed in a row.
    pub failed_reverts: i64,
    /// When it ends.
    pub until: Option<Timestamp>,
    /// Whether that is over.
    pub is_over: bool,
    /// Another response that holds it still.
    pub holder: Option<String>,
}

impl Telling<'_> {
    fn behind(&self, word: &str) -> String {
        if self.reason.is_empty() { word.to_owned() } else { format!("{word}: {}", self.reason) }
    }

    fn waits(&self, word: &str, else_: &str) -> String {
        match (self.presence, self.away_since) {
            (Some(Presence::Away), Some(since)) => format!("{word}: the agent is away since {since}"),
            (Some(Presence::Away), None) => format!("{word}: the agent is away"),
            _ => format!("{word}: {else_}"),
        }
    }
}

/// The reason of one agent in words: why it is not in force there, why it still is, or that nothing
/// shows it. `None` where there is nothing to say.
pub fn words(facts: &HoldFacts, telling: &Telling<'_>) -> Option<String> {
    let outcome = of_agent(facts);
    let revoked = || match telling.until {
        Some(until) if telling.is_over => {
            format!("revoked: what was in force there ended by the agent's own clock at {until}")
        }
        Some(until) => format!("revoked: what is in force there ends by the agent's own clock at {until}"),
        None => "revoked: nothing is known of that agent any more".to_owned(),
    };
    if facts.is_revoked
        && outcome == AgentOutcome::Failed
        && !matches!(facts.released, Some(Released { left_as: LeftAs::Never(_), .. }))
    {
        return Some(revoked());
    }
    let Some(Released { left_as, .. }) = facts.released else {
        return match (outcome, facts.under_way) {
            (AgentOutcome::InForce, _) if facts.is_unverified() => {
                Some("unverified: by the word of what was run; nothing shows it".into())
            }
            (AgentOutcome::InForce | AgentOutcome::Lifted, _) => None,
            (AgentOutcome::Pending, Some(CommandState::Queued)) if telling.is_frozen => {
                Some("queued: nothing new is delivered during the freeze".into())
            }
            (AgentOutcome::Pending, Some(CommandState::Queued)) => Some(telling.waits("queued", "not sent yet")),
            (AgentOutcome::Pending, Some(CommandState::Delivered)) => {
                Some(telling.waits("sent", "not acknowledged yet"))
            }
            (AgentOutcome::Pending, Some(_)) => Some(telling.waits("acknowledged", "not answered yet")),
            (AgentOutcome::Pending, None) => Some("unknown: the agent has not said anything yet".into()),
            (AgentOutcome::Failed, _) => Some(match (facts.actual, facts.last_apply) {
                (Actual::Drifted, Some(LastApply::Verified | LastApply::Unverified)) => telling.behind("drifted"),
                (_, Some(last)) => last.behind(telling.reason),
                (_, None) => telling.behind("not in force"),
            }),
        };
    };
    match (outcome, left_as) {
        (AgentOutcome::InForce | AgentOutcome::Pending, _) if telling.failed_reverts > 0 => {
            Some(format!("cannot be lifted: {} attempts in a row have failed", telling.failed_reverts))
        }
        (AgentOutcome::InForce | AgentOutcome::Pending, _) => {
            Some(telling.waits("being lifted", "the revert is on its way"))
        }
        (AgentOutcome::Failed, LeftAs::Never(last)) => Some(last.behind(telling.reason)),
        (AgentOutcome::Failed, _) => Some(revoked()),
        (AgentOutcome::Lifted, _) => telling.holder.as_ref().map(|by| format!("lifted here; still held by {by}")),
    }
}

#[cfg(test)]
mod tests;
