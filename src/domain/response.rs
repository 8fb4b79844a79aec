//! A response: one decision, and why. What becomes of it on each agent are effects and commands; this is the record
//! that an alert got its answer, also when the answer was to do nothing.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::effect::Until;
use super::policy::{OnSilence, Policy, Waves};

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
    /// No decision arrived in time.
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
    /// What the alert says of its agent fits no single one.
    AgentAmbiguous(String),
    /// The alert is older than the policy allows, or dated ahead.
    Stale(String),
    /// Every agent asked for says that it cannot run the action.
    ActionUnavailable(String),
    /// The alert has nothing where the policy looks for its target.
    TargetMissing,
    /// What it has there is not a target.
    TargetInvalid(String),
    /// The target is a process, and nothing says what it is called.
    ProcessUnnamed,
    /// The target is protected.
    Protected(String),
    /// The policy has responded to this target a moment ago.
    Cooldown,
    /// The policy's breaker has stopped it.
    Breaker(String),
    /// One of the policy's limits would be exceeded.
    OverLimit(&'static str),
    /// The same response is waiting for people already.
    Waiting,
}

impl Spared {
    /// The stable word for it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::AgentUnknown => "agent_unknown",
            Self::AgentAmbiguous(_) => "agent_ambiguous",
            Self::Stale(_) => "stale",
            Self::ActionUnavailable(_) => "action_unavailable",
            Self::TargetMissing => "target_missing",
            Self::TargetInvalid(_) => "target_invalid",
            Self::ProcessUnnamed => "process_unnamed",
            Self::Protected(_) => "protected",
            Self::Cooldown => "cooldown",
            Self::Breaker(_) => "breaker",
            Self::OverLimit(_) => "over_limit",
            Self::Waiting => "waiting_already",
        }
    }

    /// One sentence for people.
    pub fn detail(&self) -> String {
        match self {
            Self::AgentUnknown => "no enrolled agent is meant by it".into(),
            Self::AgentAmbiguous(why) | Self::Stale(why) => why.clone(),
            Self::ActionUnavailable(why) => format!("no agent can run the action: {why}"),
            Self::TargetMissing => "the alert has no such target".into(),
            Self::TargetInvalid(why) => format!("the alert's target {why}"),
            Self::ProcessUnnamed => "the alert gives the number of a process and not its name, and a number alone may be \
                another process's by now: write name=NAME or path=PATH into the policy's arguments, or have the pipeline \
                send the name"
                .into(),
            Self::Breaker(why) => format!("the policy's breaker has stopped it: {why}"),
            Self::Cooldown => "the policy has responded to this target a moment ago".into(),
            Self::OverLimit(limit) => format!("the policy's limit of {limit} would be exceeded"),
            Self::Waiting => "the same response is waiting for approval already".into(),
            Self::Protected(why) => format!("the target is {why}: no response may touch it"),
        }
    }
}

/// What a response waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Await {
    /// So many people have to approve.
    pub quorum: u32,
    /// Until then.
    pub answer_by: Timestamp,
    /// What happens when they do not answer.
    pub on_silence: OnSilence,
}

/// What a decision came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    #[default]
    Act,
    /// Ask people first.
    Await(Await),
    /// Record it, with what would have become of it instead of being carried out.
    Observe(Option<&'static str>),
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
    /// How long it lasts, if for a time: needed again once it is approved.
    pub duration: Option<Duration>,
    /// Without a confirmation by then, the response is undone.
    pub confirm_by: Option<Timestamp>,
    /// The policy, if it has guardrails that only the ledger can judge.
    pub guarded_by: Option<Arc<Policy>>,
    /// What the policy's threshold counts this alert by.
    pub counted: String,
    /// Whether each command is complete in itself: nothing is held when it is done.
    pub one_shot: bool,
    /// Whether a person asked for it, or has just approved it, and waits.
    pub is_urgent: bool,
    /// How it goes out, if not to all agents at once.
    pub waves: Option<Waves>,
    /// How many agents are enrolled.
    pub fleet: usize,
    /// What a guardrail changed about it.
    pub remark: String,
}

impl Default for NewResponse {
    fn default() -> Self {
        Self {
            id: Uuid::nil(),
            alert: None,
            policy: None,
            action: String::new(),
            target: None,
            arguments: Vec::new(),
            agents: Vec::new(),
            until: Until::Never,
            verdict: Verdict::Act,
            requested_by: String::new(),
            note: String::new(),
            trace: None,
            duration: None,
            confirm_by: None,
            guarded_by: None,
            counted: String::new(),
            one_shot: false,
            is_urgent: false,
            waves: None,
            fleet: 0,
            remark: String::new(),
        }
    }
}

impl NewResponse {
    /// The state it begins in.
    pub const fn first_state(&self) -> &'static str {
        match self.verdict {
            Verdict::Act => "active",
            Verdict::Await(_) => "awaiting_approval",
            Verdict::Observe(_) => "observed",
            Verdict::Spare(_) => "spared",
        }
    }
}
