//! The messages on the wire: JSON with `snake_case` names. Readers ignore unknown fields, so that
//! either side may be newer. Snapshot tests pin the forms.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::ManagerKey;
use crate::target::Target;
use crate::time::Timestamp;

/// Largest frame that either side accepts, in bytes.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Longest `output` of a result, in bytes. The agent cuts it; the manager refuses more.
pub const MAX_OUTPUT_BYTES: usize = 16 * 1024;
/// Limit of the evidence of a result, in bytes of its JSON. The agent keeps to it; the manager
/// stores no more.
pub const MAX_EVIDENCE_BYTES: usize = 8 * 1024;
/// Room for effects in a `hello` or a poll, in bytes of their JSON; the rest of the frame is for
/// other fields. An agent that holds more sends as many as fit, so a list near this size may be
/// incomplete.
pub const MAX_EFFECTS_BYTES: usize = MAX_FRAME_BYTES - 64 * 1024;
/// Limit of commands, acknowledgements or results in one message.
pub const MAX_ITEMS: usize = 256;

/// The platform of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Platform {
    /// `linux`, `windows`, `macos`, `freebsd` …
    pub os: String,
    /// `x86_64`, `aarch64` …
    pub arch: String,
    /// The operating system's own name of its version.
    pub version: String,
}

/// How the reason of a capability begins whose agent only observes: it is available and nothing comes of it.
pub const ONLY_OBSERVED: &str = "only observed here";

/// Whether this agent can run one action, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Capability {
    /// The action's name.
    pub action: String,
    /// Whether it can be run now.
    pub available: bool,
    /// Why not, for people; of an agent that only observes it begins with `only observed here`.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/agents/enroll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollRequest {
    /// The enrolment token.
    pub token: String,
    /// The agent's name; usually the host's.
    pub name: String,
    /// The raw 32-byte Ed25519 public key in base64url.
    pub public_key: String,
    /// The platform of the agent's host.
    #[serde(default)]
    pub platform: Platform,
    /// The agent's version.
    #[serde(default)]
    pub version: String,
    /// The actions it can run.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Whether this host was enrolled before and has been reinstalled: then its earlier agent is
    /// revoked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Which agent of Wazuh the host is, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wazuh: Option<WazuhIdentity>,
}

/// An agent of Wazuh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WazuhIdentity {
    /// Its id, such as `005`.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// The answer to an enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollResponse {
    /// The agent's id, assigned by the manager.
    pub agent_id: Uuid,
    /// The keys to pin: only orders that one of them signed are executed.
    pub manager_keys: Vec<ManagerKey>,
    /// URL of the stream.
    pub stream_url: String,
    /// URL to poll.
    pub poll_url: String,
    /// Number of the last statement about the manager's keys, which `manager_keys` follow from
    /// ([`crate::key_statement::KeyStatement`]); 0 before the first.
    #[serde(default, skip_serializing_if = "is_none")]
    pub key_number: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own signature")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// An effect that the agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldEffect {
    /// The effect's id.
    pub effect: Uuid,
    /// The action that brought it into force.
    pub action: String,
    /// The target it is applied to.
    pub target: Target,
    /// When it ends by itself; `null` if only a revert ends it.
    pub until: Option<Timestamp>,
    /// State at the agent's last look; absent if it has not looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Actual>,
    /// How often drift was found since it was last applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drifts: u32,
    /// Error of the last attempt to lift it: an incident. The agent retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Why it was lifted locally before its end. Such an effect is not held any more (`actual` is
    /// `absent`). It was lifted on purpose, so it is no drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// State of an effect at the agent's look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Actual {
    /// In force, as it should be.
    InForce,
    /// Held, but not in force: another program or a person has undone it, and it was not repaired.
    Drifted,
    /// Not in force, and not to be. It was released (`released` says why), or its apply was
    /// interrupted by a restart of the agent, was not in force afterwards, and has failed.
    Absent,
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, and verified if it can be.
    Succeeded,
    /// Tried, without success.
    Failed,
    /// Tried, and stopped at the time limit.
    TimedOut,
    /// Not tried: the agent's own rules forbid it, or it came too late.
    Refused,
}

impl Outcome {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
        }
    }

    /// Parses the word of an outcome.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Refused]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }
}

/// The result of one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandResult {
    /// The command's id.
    pub command_id: Uuid,
    /// How it ended.
    pub outcome: Outcome,
    /// Exit code of the program; `null` if none was run.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Output of the program, cut to [`MAX_OUTPUT_BYTES`].
    #[serde(default)]
    pub output: String,
    /// Whether a look afterwards found the effect as it should be; `null` if it cannot be looked
    /// at.
    #[serde(default)]
    pub verified: Option<bool>,
    /// One sentence for an administrator.
    #[serde(default)]
    pub message: String,
    /// State before the execution: the process that it killed, the file that it moved, the
    /// connections of an isolated host. An object with a `kind`, at most [`MAX_EVIDENCE_BYTES`];
    /// hostile texts in it are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub evidence: Option<Box<serde_json::Value>>,
    /// When the execution began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether nothing was executed, because the agent has `observe`: `message` says what would
    /// have been.
    #[serde(default, skip_serializing_if = "is_false")]
    pub observed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own signature")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Orders that the agent refused because they were not valid, since its last report. An agent that
/// refuses its manager's orders protects nothing, so its manager has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedOrders {
    /// The reason: `unknown_key`, `signature`, `audience`, `issuer`, `kind`, `malformed`, `expired`,
    /// `future` or `replayed`. A reader accepts any other word as one more reason.
    pub reason: String,
    /// Number of orders.
    pub count: u32,
    /// Id of the key that signed the last one, as in its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
}

/// Limit of reasons in one message.
pub const MAX_REASONS: usize = 16;

/// What the agent sends over a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// The first message of a stream.
    Hello {
        /// The highest command number that is in the agent's journal.
        cursor: u64,
        /// The actions it can run.
        #[serde(default)]
        capabilities: Vec<Capability>,
        /// The effects it holds, as many as fit into [`MAX_EFFECTS_BYTES`]. Absent: no report.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effects: Option<Vec<HeldEffect>>,
        /// A random id that the process made when it started. It tells two hosts with one identity
        /// apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<Uuid>,
        /// Number of the last statement about the manager's keys that is durable here; 0 before the
        /// first. Absent from agents that learn no keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<u64>,
    },
    /// The statement about the manager's keys that is durable here.
    Keys {
        /// Its number.
        number: u64,
    },
    /// These commands are in the agent's journal.
    Ack {
        /// The commands' ids.
        command_ids: Vec<Uuid>,
    },
    /// These commands are done.
    Result {
        /// Their results.
        results: Vec<CommandResult>,
    },
    /// Changes of effects since `hello` that no command caused: found drifted, repaired, failing to
    /// be lifted, ended by the clock, released. At most [`MAX_ITEMS`] of each; more come in further
    /// messages.
    Effects {
        /// Effects in their current state.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        effects: Vec<HeldEffect>,
        /// Ids of effects that have ended and of which nothing is left.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<Uuid>,
    },
    /// Orders that were not valid.
    Rejected {
        /// Counts by reason; at most [`MAX_REASONS`].
        orders: Vec<RejectedOrders>,
    },
    /// The host's clock, right or wrong: after `hello`, and when it has been set since.
    Clock {
        /// The reading of the host's clock.
        host: Timestamp,
    },
    /// The agent is alive.
    Heartbeat,
    /// A message of a newer agent; ignored.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// Settings of the agent's connection, chosen by the manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settings {
    /// Seconds between heartbeats of an idle stream.
    pub heartbeat_seconds: u32,
    /// Seconds to wait between two polls that brought nothing.
    pub poll_interval_seconds: u32,
    /// Reconnects are spread at random over this many seconds.
    pub reconnect_spread_seconds: u32,
    /// The agent's public key, if the agent is to replace it now ([`crate::key_change`]). Another key
    /// than its present one means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_key: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { heartbeat_seconds: 30, poll_interval_seconds: 1, reconnect_spread_seconds: 5, rotate_key: None }
    }
}

/// What the manager sends over a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// Signed commands, in the order of their numbers.
    Commands {
        /// Compact JWS each.
        commands: Vec<String>,
    },
    /// These results are committed; the agent may forget them.
    ResultAck {
        /// The commands' ids.
        command_ids: Vec<Uuid>,
    },
    /// Statements about the manager's keys, in the order of their numbers.
    Keys {
        /// Compact JWS each ([`crate::key_statement::KeyStatement`]).
        statements: Vec<String>,
    },
    /// New settings.
    Settings {
        /// The settings.
        #[serde(flatten)]
        settings: Settings,
    },
    /// The manager is about to close this stream.
    Bye {
        /// Seconds to wait before reconnecting; the agent adds its own random spread.
        retry_after: u32,
    },
    /// A message of a newer manager; ignored.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// `POST /v1/agent/poll`: the same messages, in one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PollRequest {
    /// As in `hello`.
    pub cursor: u64,
    /// As in `ack`.
    #[serde(default)]
    pub acks: Vec<Uuid>,
    /// As in `result`.
    #[serde(default)]
    pub results: Vec<CommandResult>,
    /// As in `rejected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedOrders>,
    /// As in `hello`; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Vec<HeldEffect>>,
    /// As in `hello`; absent if unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// As in `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Uuid>,
    /// As in `clock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Timestamp>,
    /// As in `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// How long to wait for a command, in seconds.
    #[serde(default)]
    pub wait_seconds: u32,
    /// Limit of commands in the answer.
    #[serde(default = "default_max")]
    pub max: usize,
}

fn default_max() -> usize {
    64
}

/// The answer to a poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PollResponse {
    /// Signed commands, in the order of their numbers.
    pub commands: Vec<String>,
    /// Ids of commands whose results are committed.
    pub result_acks: Vec<Uuid>,
    /// Settings of the agent's connection.
    pub settings: Settings,
    /// As `statements` in `keys`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_statements: Vec<String>,
}

#[cfg(test)]
mod tests;
