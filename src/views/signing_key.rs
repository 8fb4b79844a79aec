//! `/v1/signing-key`: the key that signs commands, and its rotation.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::columns::Millis;

/// The key that signs commands.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SigningKeyView {
    /// Id of the key, as in a command's header.
    pub kid: String,
    /// Ed25519 public key in base64url.
    pub public_key: String,
    /// The recovery key, which can revoke it: Ed25519 public key in base64url.
    pub recovery_key: Option<String>,
    /// The rotation that is under way.
    pub rotation: Option<RotationView>,
}

/// A recovery key to set.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRecoveryKey {
    /// Ed25519 public key in base64url; its private half is kept elsewhere.
    #[schema(format = "ed25519-public-key")]
    pub public_key: String,
}

/// A revocation that waits for the signature of the recovery key.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreparedRevocation {
    /// The claims to sign, as a JWS of the `typ` `riposte-keys+jwt`.
    #[schema(value_type = Object)]
    pub claims: Value,
}

/// A revocation, signed by the recovery key.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedRevocation {
    /// The claims that were prepared, as a compact JWS.
    #[schema(max_length = 16384, format = "one-line")]
    pub statement: String,
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
