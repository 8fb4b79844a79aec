//! What columns hold as text: JSON, and ids. Times and JSON that the API shows too are in
//! `views/columns.rs`.

use riposte_protocol::target::TargetKind;
use serde::Serialize;
use uuid::Uuid;

use super::{Result, StoreError};
use crate::views::words::UnknownWord;

/// The JSON text of `value`.
pub(in crate::store) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("cannot be serialised as JSON: {error}")))
}

/// Parses a UUID.
pub fn id(text: &str) -> Result<Uuid> {
    text.parse().map_err(|_| StoreError::Corrupt("an id column holds no UUID".into()))
}

/// Parses the kind of a target in `table`.
pub(in crate::store) fn target_kind(table: &'static str, word: &str) -> Result<TargetKind> {
    let unknown = || UnknownWord { table, column: "target_kind", word: word.to_owned() };
    TargetKind::parse(word).ok_or_else(|| unknown().into())
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(format!("a JSON column: {error}"))
    }
}
