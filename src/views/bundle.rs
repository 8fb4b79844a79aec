//! `/v1/responses/{id}/bundle`: one incident as a file that can be verified without the manager.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::alerts::AlertView;
use super::audit::{AuditRow, CheckpointKey};
use super::responses::ResponseView;
use crate::domain::checkpoint::ChainHash;

/// The format of a bundle.
pub const FORMAT: &str = "riposte-incident/1";

/// An incident: one response with all that belongs to it, sealed by the manager.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IncidentBundle {
    /// `riposte-incident/1`.
    pub format: String,
    /// JSON as text, so that its bytes stay as they were signed: the response with its decisions,
    /// commands, results and effects; the alert; the audit log's entries about them; proofs that these
    /// are under signed checkpoints; the checkpoints and public keys.
    pub contents: String,
    /// The manager's signature under the contents: a compact JWS.
    pub seal: String,
}

/// The contents of a bundle.
#[derive(Debug, Serialize, Deserialize)]
pub struct IncidentContents {
    /// When it was made.
    pub made_at: Timestamp,
    /// Who had it made.
    pub made_by: String,
    /// Version of the manager.
    pub version: String,
    /// The response with its effects, commands, results and decisions.
    pub response: ResponseView,
    /// The alert that caused it, with its raw form; absent for a response by hand, or if it is no
    /// longer kept.
    pub alert: Option<AlertView>,
    /// The audit log's entries about the response, its commands and effects, oldest first.
    pub audit: Vec<AuditRow>,
    /// For each entry that a checkpoint covers, the proof that it does.
    pub proofs: Vec<EntryProof>,
    /// Those checkpoints, compact JWS.
    pub checkpoints: Vec<String>,
    /// The manager's public keys.
    pub keys: Vec<CheckpointKey>,
}

/// The proof that a checkpoint covers an entry of the audit log.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntryProof {
    /// The entry.
    pub seq: i64,
    /// The last entry of the checkpoint that covers it.
    pub checkpoint: i64,
    /// The hashes from the entry to the root in the checkpoint (RFC 9162, section 2.1.3).
    pub path: Vec<ChainHash>,
}
