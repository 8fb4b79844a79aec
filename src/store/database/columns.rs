//! Column types that both databases can read and the API can serialise. A row can thus be a
//! response body, without a second struct per table.

use riposte_protocol::time::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Result, StoreError};

/// A time: milliseconds in the database, RFC 3339 in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type, utoipa::ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = String, format = DateTime)]
pub struct Millis(i64);

impl From<Timestamp> for Millis {
    fn from(at: Timestamp) -> Self {
        Self(at.as_millis())
    }
}

impl From<Millis> for Timestamp {
    fn from(millis: Millis) -> Self {
        Self::from_millis(millis.0)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Timestamp::from(*self).serialize(serializer)
    }
}

/// JSON: text in the database, a JSON value in the API.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::Type, utoipa::ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = Object)]
pub struct JsonText(String);

#[cfg(test)]
impl From<&str> for JsonText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonText {
    /// Parses the text.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| StoreError::Corrupt(format!("a JSON column: {error}")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// The JSON text of `value`.
pub(in crate::store) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("cannot be serialised as JSON: {error}")))
}

/// Parses a UUID.
pub fn id(text: &str) -> Result<Uuid> {
    text.parse().map_err(|_| StoreError::Corrupt("an id column holds no UUID".into()))
}
