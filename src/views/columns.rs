//! Field types that are a column in both databases and a value in the API. A view can thus be read
//! straight from a row, without a second struct per table.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::action::hidden;

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

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Timestamp::from(*self).fmt(f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Timestamp::from(*self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Timestamp::deserialize(deserializer).map(Self::from)
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
    ///
    /// # Errors
    /// If it is not JSON of this type.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }

    /// Hides what these arguments of `action` hold in clear and views must not show.
    ///
    /// # Errors
    /// If this is no list of texts.
    pub fn hide_arguments(&mut self, action: &str) -> serde_json::Result<()> {
        let mut arguments: Vec<String> = self.read()?;
        if hidden::hide(action, &mut arguments) {
            *self = Self::of(&arguments)?;
        }
        Ok(())
    }

    /// Hides the same in the document of a policy.
    ///
    /// # Errors
    /// If this is not JSON.
    pub fn hide_in_policy(&mut self) -> serde_json::Result<()> {
        let mut document: Value = self.read()?;
        if hidden::hide_in_policy(&mut document) {
            *self = Self::of(&document)?;
        }
        Ok(())
    }

    /// The text of `value`.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `RawValue`: it cannot be read in a flattened struct.
        Value::deserialize(deserializer).map(|value| Self(value.to_string()))
    }
}
