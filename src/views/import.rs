//! `/v1/policies/import`: what a Wazuh configuration comes to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of an import. Nothing is stored yet: actions must be stored first, then policies,
/// then protected entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Import {
    /// Policy documents, valid with the built-in actions and `actions`.
    #[schema(value_type = Vec<Object>)]
    pub policies: Vec<Value>,
    /// Documents of custom actions.
    #[schema(value_type = Vec<Object>)]
    pub actions: Vec<Value>,
    /// Protected entries, as for `POST /v1/protected`.
    #[schema(value_type = Vec<Object>)]
    pub protected: Vec<Value>,
    /// Notes in the order of the files.
    pub report: Vec<Note>,
}

/// Severity of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The file, or a block of it, was not converted.
    Error,
    /// Something was omitted or behaves differently.
    Warning,
    /// Information without a loss.
    Info,
}

impl Level {
    /// Name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// A note of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Note {
    /// Severity.
    pub level: Level,
    /// File name, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1; absent if it concerns everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in characters, from 1; for XML errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Text of the note.
    pub message: String,
}
