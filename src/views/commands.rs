//! `/v1/commands`: what agents are told to do, and what they answer.

use riposte_protocol::command::Op;
use riposte_protocol::message::Outcome;
use serde::{Deserialize, Serialize};

use super::columns::{JsonText, Millis};
use super::field_errors;
use super::words::StoredWord;
use crate::domain::command::CommandState;

/// One command.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommandRow {
    /// UUIDv7.
    pub id: String,
    /// Id of the receiving agent.
    pub agent_id: String,
    /// Sequence number, increasing per agent.
    pub seq: i64,
    /// Id of the effect.
    pub effect_id: String,
    /// Id of the response that requested it.
    pub response_id: String,
    /// `apply` or `revert`.
    #[sqlx(try_from = "StoredWord<Op>")]
    #[schema(value_type = String)]
    pub op: Op,
    /// Name of the action.
    pub action: String,
    /// Kind of the target.
    pub target_kind: String,
    /// Target in canonical form.
    pub target_value: String,
    /// Arguments of the action.
    #[schema(value_type = Vec<String>)]
    pub arguments: JsonText,
    /// End of the effect; absent if it is lifted by hand.
    pub until: Option<Millis>,
    /// State, such as `queued` or `acknowledged`.
    #[schema(value_type = String)]
    pub state: CommandState,
    /// Why it was cancelled, expired or timed out.
    pub detail: String,
    /// Commit time.
    pub created_at: Millis,
    /// When it expires unless acknowledged; absent: never.
    pub expires_at: Option<Millis>,
    /// Number of deliveries.
    pub deliveries: i64,
    /// Time of the first delivery.
    pub delivered_at: Option<Millis>,
    /// When the agent acknowledged it.
    pub acknowledged_at: Option<Millis>,
    /// When it reached a final state.
    pub finished_at: Option<Millis>,
}

/// An agent's result of one command.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResultRow {
    /// Id of the command.
    pub command_id: String,
    /// `succeeded`, `failed`, `timed_out` or `refused`.
    #[sqlx(try_from = "StoredWord<Outcome>")]
    #[schema(value_type = String)]
    pub outcome: Outcome,
    /// Exit code of the program, if one ran.
    pub exit_code: Option<i64>,
    /// Output of the program, truncated.
    pub output: String,
    /// Whether the agent verified the effect after execution; absent if it cannot be verified.
    pub verified: Option<bool>,
    /// One sentence for an operator.
    pub message: String,
    /// What the agent found before it acted, if reported: the process, the file, or the host's
    /// connections.
    #[schema(value_type = Option<Object>)]
    pub evidence: Option<JsonText>,
    /// Start of execution, by the agent's clock.
    pub started_at: Millis,
    /// End of execution, by the agent's clock.
    pub finished_at: Millis,
    /// When the manager committed the result.
    pub received_at: Millis,
    /// Whether the agent only observed and executed nothing.
    pub observed: bool,
}

/// A command with its result.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommandView {
    /// The command.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub command: CommandRow,
    /// The agent's result, if it has sent one.
    pub result: Option<ResultRow>,
}

/// A cancellation of a command.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Reason; recorded in the audit log.
    #[schema(format = "reason")]
    pub reason: String,
}
