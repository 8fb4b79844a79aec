//! A response: one decision and its reason. Effects and commands carry it out on agents. Every
//! decision is recorded, also a decision to do nothing.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actor::Actor;
use super::effect::{LastApply, LeftAs, Until};
use super::filing::Filing;
use super::policy::{OnSilence, Policy, Waves};

/// State of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseState {
    /// Waits for approval.
    AwaitingApproval,
    /// Holds its effects.
    Active,
    /// Expired or lifted.
    Ended,
    /// Rejected by a person.
    Rejected,
    /// No decision arrived in time.
    Lapsed,
    /// Only observed, as the policy says.
    Observed,
    /// Stopped before it acted; the reason is stored.
    Spared,
}

impl ResponseState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::AwaitingApproval, Self::Active, Self::Ended, Self::Rejected, Self::Lapsed, Self::Observed, Self::Spared];

    /// Name in the API and the database.
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

    /// Parses a state's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// One response's hold on one effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Hold {
    /// Id of the response.
    pub response_id: Uuid,
    /// Id of the effect.
    pub effect_id: Uuid,
}

/// Why a response ends, or its hold on an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its time is over.
    Elapsed,
    /// A person lifted it.
    Lifted,
    /// An operator released the effect on its host.
    Released,
    /// Its target or its agent has become protected.
    Protected,
    /// No person confirmed it in time.
    Unconfirmed,
    /// Too many commands of its waves failed.
    Stopped,
    /// It can come into force on no agent.
    Failed,
    /// Its one-shot commands have ended.
    Done,
    /// A person rejected it before it acted.
    Rejected,
    /// No decision arrived in time, so it never acted.
    Lapsed,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Elapsed,
        Self::Lifted,
        Self::Released,
        Self::Protected,
        Self::Unconfirmed,
        Self::Stopped,
        Self::Failed,
        Self::Done,
        Self::Rejected,
        Self::Lapsed,
    ];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elapsed => "elapsed",
            Self::Lifted => "lifted",
            Self::Released => "released",
            Self::Protected => "protected",
            Self::Unconfirmed => "unconfirmed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Lapsed => "lapsed",
        }
    }

    /// Parses a reason's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Whether a person ended it and waits.
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Lifted)
    }

    /// Whether it ends because its commands failed.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Stopped)
    }

    /// How it leaves an effect whose applies are all unfinished, and the reason for that.
    pub const fn leaves_unanswered(self) -> (LeftAs, &'static str) {
        match self {
            Self::Elapsed => (LeftAs::Never(LastApply::Expired), "it expired before the agent answered"),
            _ => (LeftAs::Withdrawn, ""),
        }
    }
}

/// The end of a response, or of its hold on an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseEnd {
    /// The reason.
    pub reason: EndReason,
    /// The reason as one sentence.
    pub detail: String,
    /// What ends it.
    pub by: Actor,
}

impl ResponseEnd {
    /// An end that the manager decides by itself.
    pub fn by_riposte(reason: EndReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), by: Actor::Riposte }
    }
}

/// A person's decision on a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Carry the response out.
    Approve,
    /// End the response without acting.
    Reject,
    /// Keep a response that acted first.
    Confirm,
}

impl Decision {
    /// All decisions.
    pub const ALL: [Self; 3] = [Self::Approve, Self::Reject, Self::Confirm];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Confirm => "confirm",
        }
    }

    /// Parses a decision's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decision| decision.as_str() == word)
    }
}

/// Why a response was stopped before it acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spared {
    /// The alert's agent is not enrolled, or none of the selected agents is.
    AgentUnknown,
    /// The alert's agent is ambiguous.
    AgentAmbiguous(String),
    /// The alert is older than allowed, or dated ahead.
    Stale(String),
    /// All selected agents report that they cannot run the action.
    ActionUnavailable(String),
    /// The alert has no value for the target.
    TargetMissing,
    /// The alert's value is not a valid target.
    TargetInvalid(String),
    /// The target is a process without a name.
    ProcessUnnamed,
    /// The target is protected.
    Protected(String),
    /// The policy responded to this target within the cooldown.
    Cooldown,
    /// The policy's breaker is open.
    Breaker(String),
    /// A limit of the policy would be exceeded.
    OverLimit(&'static str),
    /// An equal response is already waiting for approval.
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
            Self::AgentUnknown => "it selects no enrolled agent".into(),
            Self::AgentAmbiguous(why) | Self::Stale(why) => why.clone(),
            Self::ActionUnavailable(why) => format!("no agent can run the action: {why}"),
            Self::TargetMissing => "the alert has no such target".into(),
            Self::TargetInvalid(why) => format!("the alert's target {why}"),
            Self::ProcessUnnamed => "the alert has the number of a process and not its name, and a number alone may be \
                another process's by now: write name=NAME or path=PATH into the policy's arguments, or have the pipeline \
                send the name"
                .into(),
            Self::Breaker(why) => format!("the policy's breaker has stopped it: {why}"),
            Self::Cooldown => "the policy responded to this target within its cooldown".into(),
            Self::OverLimit(limit) => format!("the policy's limit of {limit} would be exceeded"),
            Self::Waiting => "an equal response is already waiting for approval".into(),
            Self::Protected(why) => format!("the target is {why}: no response may touch it"),
        }
    }
}

/// A pending approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Await {
    /// Number of required approvals.
    pub quorum: u32,
    /// Approval deadline.
    pub answer_by: Timestamp,
    /// What happens when no decision arrives in time.
    pub on_silence: OnSilence,
}

/// The verdict of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    #[default]
    Act,
    /// Wait for approval.
    Await(Await),
    /// Record it, with the verdict that it would have had.
    Observe(Option<&'static str>),
    /// Spare it, for this reason.
    Spare(Spared),
}

/// A decided response that is not committed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewResponse {
    /// UUIDv7.
    pub id: Uuid,
    /// The alert that caused it; `None` for a manual response.
    pub alert: Option<Uuid>,
    /// The policy that decided, with its version.
    pub policy: Option<(String, i64)>,
    /// Name of the action.
    pub action: String,
    /// Target; `None` if the alert has no valid one.
    pub target: Option<Target>,
    /// Arguments of the action.
    pub arguments: Vec<String>,
    /// Agents on which it acts.
    pub agents: Vec<Uuid>,
    /// End of the response.
    pub until: Until,
    /// What is done with it.
    pub verdict: Verdict,
    /// Requester: a policy or a principal.
    pub requested_by: Actor,
    /// Reason that a person entered; empty for a policy.
    pub note: String,
    /// W3C `traceparent` of the request, passed on to the results.
    pub trace: Option<String>,
    /// Duration, if limited; the end is computed again at approval.
    pub duration: Option<Duration>,
    /// Without a confirmation by then, the response is undone.
    pub confirm_by: Option<Timestamp>,
    /// The policy, if its guardrails need the ledger.
    pub guarded_by: Option<Arc<Policy>>,
    /// Value by which the policy's threshold counts the alert.
    pub counted: String,
    /// Whether its commands are one-shot: nothing is held afterwards.
    pub one_shot: bool,
    /// Whether a person requested or approved it, and waits.
    pub is_urgent: bool,
    /// Waves, if not all agents are reached at once.
    pub waves: Option<Waves>,
    /// Number of enrolled agents.
    pub fleet: usize,
    /// What a guardrail changed.
    pub remark: String,
    /// The principal who lets it act without a second person, if so.
    pub break_glass: Option<Actor>,
    /// How it is filed.
    pub filing: Filing,
    /// ATT&CK techniques of the alert.
    pub mitre: Vec<String>,
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
            requested_by: Actor::Riposte,
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
            break_glass: None,
            filing: Filing::default(),
            mitre: Vec::new(),
        }
    }
}

impl NewResponse {
    /// The initial state.
    pub const fn first_state(&self) -> ResponseState {
        match self.verdict {
            Verdict::Act => ResponseState::Active,
            Verdict::Await(_) => ResponseState::AwaitingApproval,
            Verdict::Observe(_) => ResponseState::Observed,
            Verdict::Spare(_) => ResponseState::Spared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored responses and API clients have these words: a changed one is another reason to them.
    #[test]
    fn the_words_of_ends_and_decisions_stay() {
        let ends = EndReason::ALL.map(EndReason::as_str).join(" ");
        assert_eq!(ends, "elapsed lifted released protected unconfirmed stopped failed done rejected lapsed");
        assert!(EndReason::ALL.into_iter().all(|reason| EndReason::parse(reason.as_str()) == Some(reason)));
        let decisions = Decision::ALL.map(Decision::as_str).join(" ");
        assert_eq!(decisions, "approve reject confirm");
        let lefts = EndReason::ALL.map(|reason| reason.leaves_unanswered().0.as_str());
        assert_eq!(lefts.iter().filter(|left| **left == "withdrawn").count(), EndReason::ALL.len() - 1);
        for left in lefts {
            assert_eq!(LeftAs::parse(left).map(LeftAs::as_str), Some(left));
        }
    }
}
