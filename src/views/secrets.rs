//! `/v1/secrets`: values that policies refer to and that are never shown.

use serde::{Deserialize, Serialize};

use super::columns::{JsonText, Millis};

/// A secret, without its value.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretRow {
    /// Name; an argument refers to it as `secret:NAME`.
    pub name: String,
    /// The actions that may receive it.
    #[schema(value_type = Vec<String>)]
    pub actions: JsonText,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Principal that made the last change.
    pub changed_by: String,
}

/// A secret in a list.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretView {
    /// The secret.
    #[serde(flatten, deserialize_with = "super::field_errors::read")]
    pub secret: SecretRow,
    /// The policies whose arguments refer to it.
    pub used_by: Vec<String>,
}

/// The value of a secret. It has no `Debug`, so that no log line can hold it.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// The value: one line of at most 4096 characters.
    #[schema(min_length = 1, max_length = 4096, format = "one-line")]
    pub value: String,
    /// The actions that may receive it, by name.
    #[schema(min_items = 1, max_items = 64)]
    pub actions: Vec<String>,
}
