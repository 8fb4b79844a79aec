//! Outcomes of a response: on each agent, and in total (promise 14). These are the rules;
//! `store/ledger/outcomes.rs` supplies the facts. Its SQL counts outcomes and is compared with
//! [`of_agent`] by a test.
//!
//! An effect is never called in force unless the agent has reported it.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::CommandState;
use super::effect::{Actual, Desired, LastApply, LeftAs};
use super::presence::Presence;
use super::response::ResponseState;

/// Maximum length of a reason that is kept with an effect or a response, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// Truncates a reason to what is kept with an effect or a response. NUL, which PostgreSQL cannot
/// store, is replaced.
pub fn short_reason(message: &str) -> String {
    message[..message.floor_char_boundary(MAX_REASON_BYTES)].replace('\0', "\u{fffd}")
}

/// Outcome of a response on all its agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseOutcome {
    /// In force on no agent yet, but it may still come into force.
    Pending,
    /// In force on every agent.
    InForce,
    /// In force on some of its agents; for a one-shot action, done on some.
    Partly,
    /// In force on no agent, and it will not be.
    Failed,
    /// No longer in force, or lifted before it was; for a one-shot action, done.
    Lifted,
}

impl ResponseOutcome {
    /// All outcomes.
    pub const ALL: [Self; 5] = [Self::Pending, Self::InForce, Self::Partly, Self::Failed, Self::Lifted];

    /// Name in the API and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InForce => "in_force",
            Self::Partly => "partly",
            Self::Failed => "failed",
            Self::Lifted => "lifted",
        }
    }

    /// Parses an outcome's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// Outcome of a response on one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentOutcome {
    /// Not in force yet; a command is in flight.
    Pending,
    /// In force.
    InForce,
    /// Not in force, and no command is in flight.
    Failed,
    /// Over, or no longer held by this response.
    Lifted,
}

impl AgentOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Pending, Self::InForce, Self::Failed, Self::Lifted];

    /// Name in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InForce => "in_force",
            Self::Failed => "failed",
            Self::Lifted => "lifted",
        }
    }

    /// Parses an outcome's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// A released hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// State of the effect at the release.
    pub left_as: LeftAs,
    /// Whether the effect is unchanged since, and was not wanted again.
    pub is_same: bool,
}

/// Facts about a response on one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldFacts {
    /// Wanted state of the effect, from all its holds.
    pub desired: Desired,
    /// Last reported state.
    pub actual: Actual,
    /// Outcome of the newest finished apply.
    pub last_apply: Option<LastApply>,
    /// State of an apply in flight.
    pub under_way: Option<CommandState>,
    /// Whether the agent was revoked.
    pub is_revoked: bool,
    /// Set once the response no longer holds the effect.
    pub released: Option<Released>,
}

impl HoldFacts {
    /// Whether it is in force, but cannot be verified.
    pub fn is_unverified(&self) -> bool {
        of_agent(self) == AgentOutcome::InForce && self.actual != Actual::InForce
    }
}

/// The outcome of a response on one agent.
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

/// What became of one effect, whichever responses hold it. Effects that are neither wanted nor in force have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectOutcome {
    /// In force, and verified.
    InForce,
    /// In force, but it cannot be verified.
    Unverified,
    /// Not in force yet; a command is in flight.
    Pending,
    /// Not in force, and no command is in flight.
    Failed,
    /// It was in force, was lost, and no command is in flight.
    Drifted,
    /// No longer wanted, and still there.
    Reverting,
    /// As `Reverting`, and the last revert failed.
    Failing,
}

impl EffectOutcome {
    /// All outcomes.
    pub const ALL: [Self; 7] =
        [Self::InForce, Self::Unverified, Self::Pending, Self::Failed, Self::Drifted, Self::Reverting, Self::Failing];

    /// Name in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Unverified => "unverified",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Drifted => "drifted",
            Self::Reverting => "reverting",
            Self::Failing => "failing",
        }
    }

    /// Parses an outcome's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// The outcome of an effect that is wanted or in force on an agent that was not revoked.
pub fn of_effect(facts: &HoldFacts, failed_reverts: i64) -> EffectOutcome {
    if facts.desired == Desired::Absent {
        return if failed_reverts > 0 { EffectOutcome::Failing } else { EffectOutcome::Reverting };
    }
    match of_agent(&HoldFacts { released: None, ..*facts }) {
        AgentOutcome::InForce if facts.is_unverified() => EffectOutcome::Unverified,
        AgentOutcome::InForce => EffectOutcome::InForce,
        AgentOutcome::Pending => EffectOutcome::Pending,
        AgentOutcome::Failed if facts.actual == Actual::Drifted => EffectOutcome::Drifted,
        AgentOutcome::Failed | AgentOutcome::Lifted => EffectOutcome::Failed,
    }
}

/// The outcome of a one-shot command.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutcomeCounts {
    /// In force.
    pub in_force: i64,
    /// Pending.
    pub pending: i64,
    /// Not in force, and no command is in flight.
    pub failed: i64,
    /// Over.
    pub lifted: i64,
}

impl OutcomeCounts {
    /// Adds `count` agents.
    pub const fn add(&mut self, outcome: AgentOutcome, count: i64) {
        match outcome {
            AgentOutcome::InForce => self.in_force += count,
            AgentOutcome::Pending => self.pending += count,
            AgentOutcome::Failed => self.failed += count,
            AgentOutcome::Lifted => self.lifted += count,
        }
    }

    /// Total number of agents.
    pub const fn total(&self) -> i64 {
        self.in_force + self.pending + self.failed + self.lifted
    }
}

/// The outcome of a response; `None` if it never was to act.
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

/// Context for the reason on one agent.
#[derive(Clone, Debug, Default)]
pub struct Telling<'a> {
    /// Last message of the agent or the manager.
    pub reason: &'a str,
    /// Presence of the agent.
    pub presence: Option<Presence>,
    /// Last contact, or else the enrolment.
    pub away_since: Option<Timestamp>,
    /// Why nothing new is delivered, if nothing is.
    pub held_back: Option<&'static str>,
    /// Consecutive failed reverts.
    pub failed_reverts: i64,
    /// End of the effect.
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

/// The reason on one agent: why it is not in force, why it still is, or that it cannot be verified.
/// `None` if there is nothing to report.
pub fn words(facts: &HoldFacts, telling: &Telling<'_>) -> Option<String> {
    let outcome = of_agent(facts);
    let revoked = || match telling.until {
        Some(until) if telling.is_over => {
            format!("revoked: what was in force there ended by the agent's own clock at {until}")
        }
        Some(until) => format!("revoked: what is in force there ends by the agent's own clock at {until}"),
        None => "revoked: the state on that agent is unknown".to_owned(),
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
                Some("unverified: reported by the program, and cannot be verified".into())
            }
            (AgentOutcome::InForce | AgentOutcome::Lifted, _) => None,
            (AgentOutcome::Pending, Some(CommandState::Queued)) => Some(match telling.held_back {
                Some(why) => format!("queued: {why}"),
                None => telling.waits("queued", "not sent yet"),
            }),
            (AgentOutcome::Pending, Some(CommandState::Delivered)) => {
                Some(telling.waits("sent", "not acknowledged yet"))
            }
            (AgentOutcome::Pending, Some(_)) => Some(telling.waits("acknowledged", "not answered yet")),
            (AgentOutcome::Pending, None) => Some("unknown: no report from the agent yet".into()),
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
