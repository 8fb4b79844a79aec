//! `/v1/responses`: what was decided, and what became of it on each agent.

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::columns::{JsonText, Millis};
use super::commands::{CommandRow, ResultRow};
use super::effects::EffectRow;
use super::field_errors;
use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::outcome::{AgentOutcome, OutcomeCounts, ResponseOutcome};
use crate::domain::policy::On;
use crate::domain::response::{Decision, ResponseState};

/// One response.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResponseRow {
    /// UUIDv7.
    pub id: String,
    /// Id of the alert; absent for a manual response.
    pub alert_id: Option<String>,
    /// Policy that decided; absent for a manual response.
    pub policy: Option<String>,
    /// Version of that policy.
    pub policy_version: Option<i64>,
    /// Name of the action.
    pub action: String,
    /// Kind of the target; absent if the alert had no target.
    pub target_kind: Option<String>,
    /// Target in canonical form.
    pub target_value: Option<String>,
    /// Arguments of the action.
    #[schema(value_type = Vec<String>)]
    pub arguments: JsonText,
    /// Ids of the agents it acts on, or would have acted on.
    #[schema(value_type = Vec<Uuid>)]
    pub agents: JsonText,
    /// End of the response; absent if lifted by hand.
    pub until: Option<Millis>,
    /// State, such as `active` or `ended`.
    #[schema(value_type = String)]
    pub state: ResponseState,
    /// Why it was spared or ended, as one word.
    pub reason: Option<String>,
    /// The reason as one sentence.
    pub detail: String,
    /// Requester: `policy:NAME` or `key:ID`.
    pub requested_by: String,
    /// Reason that the requester entered.
    pub note: String,
    /// W3C `traceparent` of the request that caused it.
    pub trace: Option<String>,
    /// Decision time.
    pub created_at: Millis,
    /// End time.
    pub ended_at: Option<Millis>,
    /// Number of required approvals.
    pub quorum: Option<i64>,
    /// Approval deadline.
    pub answer_by: Option<Millis>,
    /// Without a confirmation by then, the response is undone.
    pub confirm_by: Option<Millis>,
    /// Whether its commands are one-shot: they leave nothing in force.
    pub one_shot: bool,
    /// The principal who let it act without the people whose approval it needs; absent: none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
    /// Case that it belongs to, in a system elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "case")]
    pub case_ref: Option<String>,
    /// How far it may be passed on, by the Traffic Light Protocol; absent: as its policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlp: Option<String>,
    /// ATT&CK techniques that its alert names; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["T1110.001"]))]
    pub mitre: Option<JsonText>,
}

/// A response's outcome on one agent, and its reason.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentOutcomeView {
    /// Id of the agent.
    pub agent_id: String,
    /// Name of the agent.
    pub agent: String,
    /// Outcome on this agent.
    pub outcome: AgentOutcome,
    /// Why it is not in force, why it still is, or that it cannot be verified.
    pub reason: String,
}

/// Outcome of a response.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutcomeView {
    /// `pending`, `in_force`, `partly`, `failed` or `lifted`. Null for a response that did not act:
    /// it waits for approval, or was observed, spared, rejected or lapsed.
    pub outcome: Option<ResponseOutcome>,
    /// Number of agents per outcome; null as above.
    pub agents_by_outcome: Option<OutcomeCounts>,
    /// Number of agents where it is in force but cannot be verified.
    pub agents_unverified: i64,
    /// Agents with something to report, those without the effect first. At most 10 in a list, 500
    /// for a single response.
    pub agent_outcomes: Vec<AgentOutcomeView>,
}

/// A response with its outcome.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JudgedResponse {
    /// The response.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub response: ResponseRow,
    /// Its outcome.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub outcome: OutcomeView,
    /// D3FEND techniques that its action is; absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["D3-NTF"]))]
    pub d3fend: Vec<String>,
}

/// A recorded decision.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AnswerRow)]
pub struct DecisionRow {
    /// Principal that decided.
    pub principal: String,
    /// `approve`, `reject` or `confirm`.
    #[schema(value_type = String)]
    pub answer: Decision,
    /// Reason that the principal entered.
    pub reason: String,
    /// Time of the decision.
    pub at: Millis,
}

/// A response with its effects, commands, results and decisions.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResponseView {
    /// The response and its outcome.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub response: JudgedResponse,
    /// Its current and former effects, at most 500.
    pub effects: Vec<EffectRow>,
    /// Its commands, newest first, at most 500.
    pub commands: Vec<CommandRow>,
    /// Results of its commands.
    pub results: Vec<ResultRow>,
    /// Decisions of people on it.
    pub answers: Vec<DecisionRow>,
}

/// A manual response to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewManualResponse {
    /// Name of the action.
    #[schema(format = "action-name")]
    pub action: String,
    /// Target: `{"kind":"ip","value":"203.0.113.7"}`, or the value alone if the action accepts one
    /// kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Target>)]
    pub target: Option<ManualTarget>,
    /// Agents, by id or name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// The agents as a policy names them, beside `agents`: `all`, `server`, `{"agents": […]}` or a
    /// selector such as `{"labels": {"env": "prod"}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<On>)]
    pub on: Option<Value>,
    /// Duration; absent: until lifted by hand.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "duration-text", example = "10m")]
    pub duration: Option<Span>,
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
    /// Arguments of the action.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Act at once where a second person would have to approve. Needs the right `approve`; it is
    /// audited and announced.
    #[serde(default)]
    pub break_glass: bool,
    /// Only return what it would do.
    #[serde(default)]
    pub dry_run: bool,
    /// Case that it belongs to, in a system elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, format = "one-line", example = "SOC-17")]
    pub case: Option<String>,
    /// How far it may be passed on, by the Traffic Light Protocol: `clear`, `green`, `amber`, `amber+strict` or `red`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(clear|green|amber|amber[+]strict|red)$", example = "amber")]
    pub tlp: Option<String>,
}

/// How a response is to be filed.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileResponse {
    /// Case that it belongs to, in a system elsewhere; absent or empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, format = "one-line", example = "SOC-17")]
    pub case: Option<String>,
    /// How far it may be passed on, by the Traffic Light Protocol: `clear`, `green`, `amber`, `amber+strict` or `red`. Absent: as
    /// its policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(clear|green|amber|amber[+]strict|red)$", example = "amber")]
    pub tlp: Option<String>,
}

/// What a manual response would do.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ManualPreview {
    /// `active`, `awaiting_approval` or `spared`.
    #[schema(value_type = String)]
    pub state: ResponseState,
    /// Why it would wait or be spared; empty if it would act.
    pub detail: String,
    /// Target in canonical form.
    pub target: Option<String>,
    /// The agents on which it would act.
    pub agents: Vec<PreviewAgent>,
    /// Number of required approvals; absent: none.
    pub quorum: Option<u32>,
    /// The selected agents that cannot carry it out, and why.
    #[serde(default)]
    pub unable: Vec<UnableAgent>,
    /// The selected agents that a protected entry covers, and its reason.
    #[serde(default)]
    pub protected: Vec<UnableAgent>,
    /// The agents on which the effect is held already.
    #[serde(default)]
    pub already_held: Vec<AlreadyHeld>,
    /// Number of enrolled agents that the caller sees.
    #[serde(default)]
    pub enrolled: usize,
    /// Share of them on which it would act, from 0 to 1.
    #[serde(default)]
    pub share: f64,
}

/// An agent on which a manual response would not act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UnableAgent {
    /// Id of the agent.
    pub id: Uuid,
    /// Name of the agent.
    pub name: String,
    /// Why it would not act there.
    pub reason: String,
}

/// An agent on which the effect of a manual response is held already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlreadyHeld {
    /// Id of the agent.
    pub id: Uuid,
    /// Name of the agent.
    pub name: String,
    /// Id of the effect.
    pub effect_id: String,
    /// End of the longest hold; absent if lifted by hand.
    pub until: Option<Millis>,
}

/// An agent on which a manual response would act.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewAgent {
    /// Id of the agent.
    pub id: Uuid,
    /// Name of the agent.
    pub name: String,
}

/// The body of an approval.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveResponse {
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
    /// Act at once, without the further people whose approval it needs, and also on one's own request
    /// or policy; it is audited and announced.
    #[serde(default)]
    pub break_glass: bool,
}

/// What a person decides on the page of a link.
#[derive(Debug, Default, utoipa::ToSchema)]
pub struct ApprovalForm {
    /// `approve` or `reject`.
    pub choice: String,
    /// Reason.
    #[schema(format = "reason")]
    pub reason: String,
}

/// A target as a person writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ManualTarget {
    /// The value alone, of the one kind that the action accepts.
    Value(String),
    /// With its kind.
    Full {
        /// Kind of the target.
        kind: TargetKind,
        /// The target in any notation; empty for a kind without one.
        #[serde(default)]
        value: String,
    },
}

/// A request to lift a response.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
}

/// The body of a rejection or confirmation.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
}

/// Filter of the responses to lift. All given conditions must match; at least one is required.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LiftMany {
    /// Policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, format = "lines")]
    pub policy: Option<String>,
    /// Because of this alert: Riposte's id, or the pipeline's own (Wazuh's `1795169472.12345`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, format = "lines")]
    pub alert_id: Option<String>,
    /// Because of an alert of this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, format = "lines")]
    pub rule_id: Option<String>,
    /// Target; an address in any notation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, format = "lines")]
    pub target: Option<String>,
    /// Kind of the target: an account and a file can have the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_kind: Option<TargetKind>,
    /// Earliest decision time, inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Latest decision time, exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// These responses, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 500)]
    pub responses: Vec<Uuid>,
    /// Lift all active responses; `count` must say how many they are.
    #[serde(default)]
    pub everything: bool,
    /// The number of responses that is expected, of a dry run. Required with `everything`: if another
    /// number would be lifted, none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Only return what would be lifted.
    #[serde(default)]
    pub dry_run: bool,
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
}

/// Result of a lift request.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lifted {
    /// Number of lifted responses.
    pub count: usize,
    /// Ids of the lifted responses.
    pub responses: Vec<Uuid>,
    /// What the lift does on the agents. Only in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<LiftPlan>,
    /// Names in the filter that do not exist, if it matched no response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Fault>,
}

/// What a lift would do on the agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiftPlan {
    /// Number of effects that end.
    pub effects: i64,
    /// Number of agents on which they end.
    pub agents: i64,
    /// Number of effects that stay, because other responses hold them.
    pub stays: i64,
    /// Number of agents on which they stay.
    pub stays_agents: i64,
    /// The effects that stay, at most 50.
    pub staying: Vec<StayingEffect>,
}

/// An effect that stays after a lift, because another response holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct StayingEffect {
    /// Id of the effect.
    pub effect_id: String,
    /// Id of the agent.
    pub agent_id: String,
    /// Name of the agent.
    pub agent: String,
    /// Name of the action.
    pub action: String,
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
    /// The response that holds it longest.
    pub response_id: String,
    /// Policy of that response; absent for a manual one.
    pub policy: Option<String>,
    /// Requester of that response: `policy:NAME`, `user:NAME` or `key:ID`.
    pub requested_by: String,
    /// End of its hold; absent if lifted by hand.
    pub until: Option<Millis>,
}
