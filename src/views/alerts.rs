//! `/v1/alerts`: what an intake came to, and stored alerts.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::config::MappingSpec;
use crate::domain::alert::{AlertAgent, Observables, Rule};
use crate::domain::fault::Fault;
use crate::views::columns::{JsonText, Millis};

/// A rejected alert.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rejected {
    /// Index in the array, or among the non-empty lines.
    pub index: usize,
    /// The faults of the alert.
    pub errors: Vec<Fault>,
}

/// Outcome of one request. Everything listed is durable.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Intake {
    /// Number of new alerts.
    pub accepted: usize,
    /// Number of duplicates, which change nothing.
    pub duplicates: usize,
    /// Number of duplicates that differ from the stored alert of the same id; their content is
    /// ignored.
    pub conflicting: usize,
    /// Rejected alerts.
    pub rejected: Vec<Rejected>,
    /// Responses to the new alerts, including spared and observed ones.
    pub responses: Vec<Uuid>,
}

/// An alert that was not taken in.
#[derive(Clone, Debug, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct RejectedAlert {
    /// UUIDv7; begins with the time when it was first received.
    pub id: String,
    /// The sender, as in the audit log.
    pub sender: String,
    /// The pipeline of the sender's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// When it was last received.
    pub last_at: Millis,
    /// How often it was received.
    pub count: i64,
    /// Its faults.
    #[schema(value_type = Vec<Fault>)]
    pub errors: JsonText,
    /// Bytes, as they came.
    pub size: i64,
    /// Whether the bytes are kept, so that it can be sent again.
    pub is_kept: bool,
    /// The bytes, as text. Only in the response for a single one.
    #[sqlx(default)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// A mapping of foreign alerts.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PipelineView {
    /// Name of the pipeline.
    pub name: String,
    /// `ready` if it comes with Riposte, `configuration` if it is the site's.
    pub source: String,
    /// What is which field of the alert.
    #[schema(value_type = Object)]
    pub mapping: MappingSpec,
}

/// A stored alert.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertView {
    /// UUIDv7; begins with the time of receipt.
    pub id: String,
    /// Pipeline that sent the alert.
    pub pipeline: String,
    /// The alert's id in the pipeline.
    pub pipeline_id: String,
    /// Event time.
    pub time: Timestamp,
    /// The rule that fired.
    pub rule: Rule,
    /// The agent that the alert names.
    pub agent: AlertAgent,
    /// Observables of the alert.
    pub observables: Observables,
    /// The raw alert, with U+FFFD for invalid text and strings for numbers out of range. Only in
    /// the response for a single alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub raw: Option<Box<RawValue>>,
}
