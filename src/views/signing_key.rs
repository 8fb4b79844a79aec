//! `/v1/signing-key`: the key that signs commands, and its rotation.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::columns::Millis;

/// The key that signs commands.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SigningKeyView {
    /// Id of the key, as in a command's header.
    pub kid: String,
    /// Ed25519 public key in base64url.
    pub public_key: String,
    /// The rotation that is under way.
    pub rotation: Option<RotationView>,
}

/// A rotation that is under way.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RotationView {
    /// Id of the key that signs after it.
    pub kid: String,
    /// Its Ed25519 public key in base64url.
    pub public_key: String,
    /// When it was started.
    pub started_at: Millis,
    /// Principal that started it.
    pub started_by: String,
    /// Number of agents that have confirmed the new key.
    pub confirmed: usize,
    /// Number of agents that have not.
    pub waiting_count: usize,
    /// Agents that have not, by name; the first 1,000.
    pub waiting: Vec<WaitingAgent>,
}

/// An agent that has not confirmed the new key.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingAgent {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The reason, for people.
    pub reason: String,
}

/// How to end a rotation.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishRotation {
    /// End it although agents have not confirmed. Those that learn keys still learn it when they
    /// connect; those of an old version have to be enrolled again.
    #[serde(default)]
    pub force: bool,
}

/// A rotation that has ended.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FinishedRotation {
    /// Id of the key that signs now.
    pub kid: String,
    /// Number of agents that have not confirmed it.
    pub left_behind_count: usize,
    /// Agents that have not, by name; the first 1,000.
    pub left_behind: Vec<WaitingAgent>,
}
