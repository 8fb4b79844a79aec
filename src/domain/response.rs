//! A response: one decision, and why. What becomes of it on each agent are effects and commands; this is the record
//! that an alert got its answer, also when the answer was to do nothing.

use riposte_protocol::target::Target;
use serde::Serialize;
use uuid::Uuid;

use super::effect::Until;

/// Where a response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseState {
    /// Waits for people.
    AwaitingApproval,
    /// Holds its effects.
    Active,
    /// Over: its time has come, or it was lifted.
    Ended,
    /// People said no.
    Rejected,
    /// Nobody said anything in time.
    Lapsed,
    /// The policy only observes.
    Observed,
    /// Something stopped it; the reason is stored.
    Spared,
}

impl ResponseState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::AwaitingApproval, Self::Active, Self::Ended, Self::Rejected, Self::Lapsed, Self::Observed, Self::Spared];

    /// The word used in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Active => "active",
            Self::Ended => "ended",
            Self::Rejected => "rejected",
            Self::Lapsed => "lapsed",
            Self::Observed => "observed",
            Self::Spared => "spared",
        }
    }

    /// The state that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Why a response was stopped before it did anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spared {
    /// The alert's agent is not enrolled, or none of the agents asked for is.
    AgentUnknown,
    /// Every agent asked for says that it cannot run the action.
    ActionUnavailable(String),
    /// The alert has nothing where the policy looks for its target.
    TargetMissing,
    /// What it has there is not a target.
    TargetInvalid(String),
    /// The target is protected.
    Protected(String),
}

impl Spared {
    /// The stable word for it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::AgentUnknown => "agent_unknown",
            Self::ActionUnavailable(_) => "action_unavailable",
            Self::TargetMissing => "target_missing",
            Self::TargetInvalid(_) => "target_invalid",
            Self::Protected(_) => "protected",
        }
    }

    /// One sentence for people.
    pub fn detail(&self) -> String {
        match self {
            Self::AgentUnknown => "no enrolled agent is meant by it".into(),
            Self::ActionUnavailable(why) => format!("no agent can run the action: {why}"),
            Self::TargetMissing => "the alert has no such target".into(),
            Self::TargetInvalid(why) => format!("the alert's target {why}"),
            Self::Protected(why) => format!("the target is {why}: no response may touch it"),
        }
    }
}

/// What a decision came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    Act,
    /// Record it.
    Observe,
    /// Leave it, because of this.
    Spare(Spared),
}

/// A response that has been decided and not yet committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewResponse {
    /// Its id.
    pub id: Uuid,
    /// The alert behind it, unless a person asked for it.
    pub alert: Option<Uuid>,
    /// The policy that decided, with its version.
    pub policy: Option<(String, i64)>,
    /// The action's name.
    pub action: String,
    /// What it is aimed at; absent if there was nothing that could be a target.
    pub target: Option<Target>,
    /// Parameters of the action.
    pub arguments: Vec<String>,
    /// The agents it is carried out on.
    pub agents: Vec<Uuid>,
    /// When it ends.
    pub until: Until,
    /// What is done with it.
    pub verdict: Verdict,
    /// Who asked for it: `policy:NAME` or a principal.
    pub requested_by: String,
    /// The reason a person gave; empty for a policy's.
    pub note: String,
    /// The request's trace, carried through to the results.
    pub trace: Option<String>,
}
