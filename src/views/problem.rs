//! The body of every error: a problem document (RFC 9457).

use serde::{Deserialize, Serialize};

use crate::domain::fault::Fault;

/// The body of every error.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Stable problem type: `urn:riposte:problem:WORD`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short description of the problem type.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Description of this occurrence.
    pub detail: String,
    /// Faults of the input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}
