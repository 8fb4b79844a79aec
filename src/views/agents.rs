//! `/v1/agents` and `/v1/enrollment-tokens`: agents, and what lets them enrol. The messages of
//! enrolment itself are in the protocol.

use riposte_protocol::message::{Capability, Platform};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::columns::{JsonText, Millis};
use super::field_errors;
use crate::domain::duration::Span;
use crate::domain::presence::Presence;

/// One agent.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentRow {
    /// UUIDv7, assigned at enrolment.
    pub id: String,
    /// Host name or another name, unique among agents that are not revoked.
    pub name: String,
    /// Ed25519 public key in base64url.
    pub public_key: String,
    /// JSON object of label names and values.
    pub labels: JsonText,
    /// Operating system, version and architecture.
    #[schema(value_type = Platform)]
    pub platform: JsonText,
    /// Version of the agent program.
    pub version: String,
    /// Capabilities that the agent reported.
    #[schema(value_type = Vec<Capability>)]
    pub capabilities: JsonText,
    /// Enrolment time.
    pub enrolled_at: Millis,
    /// Revocation time, if revoked.
    pub revoked_at: Option<Millis>,
    /// Last contact. The stored value is written in batches and may lag.
    pub last_seen_at: Option<Millis>,
    /// Identity incident, if any. To resolve it, revoke the agent and enrol each host anew.
    pub incident: Option<String>,
    /// Number of this manager's commands that the agent rejected.
    pub rejected_orders: i64,
    /// Reason of the last rejection: `unknown_key`, `signature`, `audience`, `expired` and others.
    pub rejected_reason: Option<String>,
    /// Time of the last reported rejection.
    pub rejected_at: Option<Millis>,
    /// Clock skew in seconds at the agent's last report: positive if the host is ahead, negative if
    /// behind. 0 within the tolerance of one minute. Absent if the agent does not report it, as
    /// older versions.
    pub clock_skew_seconds: Option<i64>,
    /// When the present key became the agent's: its enrolment, or the last rotation of its key.
    pub key_since: Option<Millis>,
    /// When a user ordered a rotation of its key; absent once the agent has done it.
    pub key_ordered_at: Option<Millis>,
    /// The key that the present one replaced.
    #[serde(skip)]
    pub previous_key: Option<String>,
}

/// An enrolment token, without its secret.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenRow {
    /// UUIDv7.
    pub id: String,
    /// Labels set on agents that enrol with it.
    pub labels: JsonText,
    /// Maximum number of enrolments.
    pub uses: i64,
    /// Remaining enrolments.
    pub uses_left: i64,
    /// Expiry time.
    pub expires_at: Millis,
    /// Creation time.
    pub created_at: Millis,
    /// Principal that created it.
    pub created_by: String,
}

/// An agent, and whether it is here.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentView {
    /// The agent.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub agent: AgentRow,
    /// Whether it has a stream to this node.
    pub streaming: bool,
    /// `streaming`, `polling` or `away`, as seen from this node.
    pub presence: Presence,
    /// Last contact of an absent agent, or else its enrolment; null while it is present.
    pub away_since: Option<Millis>,
    /// Reason of a rejected command within the last hour; such an agent carries out no commands.
    pub rejecting: Option<String>,
    /// What it says about its identity in Wazuh, while that is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wazuh_claim: Option<WazuhClaim>,
}

/// What an agent says about its identity in Wazuh.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhClaim {
    /// Id in Wazuh.
    pub id: String,
    /// Name in Wazuh.
    pub name: String,
    /// Why it waits for a person; absent while no list of a Wazuh manager is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// The agents of a Wazuh manager.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WazuhAgentList {
    /// Name of the Wazuh manager, as its alerts say it.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    pub manager: String,
    /// All of its agents.
    pub agents: Vec<WazuhListed>,
}

/// An agent in such a list.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WazuhListed {
    /// Its id, such as `005`.
    #[schema(pattern = "^[0-9]{1,10}$")]
    pub id: String,
    /// Its name.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    pub name: String,
}

/// What became of a list.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TakenList {
    /// Agents in it.
    pub agents: usize,
    /// Agents of Riposte that are known by it now.
    pub believed: usize,
}

/// A change of an agent.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAgent {
    /// Labels to set. A null value removes the label; other labels stay.
    #[schema(value_type = Object, example = json!({"env": "prod", "wazuh_id": "005"}))]
    pub labels: Map<String, Value>,
}

/// An enrolment token to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Labels set on agents that enrol with it.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"env": "prod"}))]
    pub labels: Map<String, Value>,
    /// Maximum number of enrolments; default 1.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100_000, default = 1)]
    pub uses: i64,
    /// Validity; default `1h`.
    #[serde(default = "an_hour")]
    #[schema(value_type = String, format = "duration-text", default = "1h", example = "1h")]
    pub expires_in: Span,
}

fn one() -> i64 {
    1
}

#[expect(clippy::expect_used, reason = "a constant text, covered by every test that leaves it out")]
fn an_hour() -> Span {
    "1h".parse().expect("a span")
}

/// A new enrolment token; its secret is shown once.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedToken {
    /// UUIDv7.
    pub id: Uuid,
    /// The secret, and after dots what agents know this manager by: the SHA-256 of its signing key
    /// and, with a certificate of a private authority, that of the authority. Absent in the
    /// response to a retry, because only a hash of the secret is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Expiry time.
    pub expires_at: Timestamp,
}
