//! A document that the domain writes and checks itself: a policy or an action. A view carries it as
//! it was written. A client reads of it what it knows: a newer manager may know more.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A JSON object as text. Its fields can be flattened into a view, and keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentText(String);

impl DocumentText {
    /// The document of `value`.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(Self)
    }

    /// Reads the fields that `T` has.
    ///
    /// # Errors
    /// If one is missing, or is not what `T` expects.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }
}

impl Serialize for DocumentText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Fields(fields) = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (name, value) in &fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for DocumentText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::<String, Value>::deserialize(deserializer)?;
        Ok(Self(Value::Object(fields).to_string()))
    }
}

/// The fields of an object in the order in which they were written; [`Map`] sorts them.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Around {
        #[serde(flatten)]
        inner: DocumentText,
        version: i64,
    }

    #[test]
    fn a_flattened_document_keeps_its_order_and_every_field() {
        let text = r#"{"name":"a","match":[{"z":1,"b":2.50}],"when":"\"x\"","version":3}"#;
        let inner = DocumentText(r#"{"name":"a","match":[{"z":1,"b":2.50}],"when":"\"x\""}"#.to_owned());
        assert_eq!(serde_json::to_string(&Around { inner, version: 3 }).unwrap(), text);
        let read: Around = serde_json::from_str(text).unwrap();
        let fields: Map<String, Value> = read.inner.read().unwrap();
        assert_eq!(
            (read.version, fields.keys().map(String::as_str).collect::<Vec<_>>()),
            (3, vec!["match", "name", "when"])
        );
    }
}
