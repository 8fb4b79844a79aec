//! What columns hold as text: JSON, and ids. Times and JSON that the API shows too are in
//! `views/columns.rs`.

use serde::Serialize;
use uuid::Uuid;

use super::{Result, StoreError};

/// The JSON text of `value`.
pub(in crate::store) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("cannot be serialised as JSON: {error}")))
}

/// Parses a UUID.
pub fn id(text: &str) -> Result<Uuid> {
    text.parse().map_err(|_| StoreError::Corrupt("an id column holds no UUID".into()))
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(format!("a JSON column: {error}"))
    }
}
