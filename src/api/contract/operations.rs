//! The operations of the contract, and how to change them.

use serde_json::{Map, Value};

/// The operations of the contract.
pub(super) fn operations(contract: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let paths = contract.get_mut("paths").and_then(Value::as_object_mut);
    let items = paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut);
    items.flat_map(Map::values_mut).filter_map(Value::as_object_mut)
}

/// The operation's id.
pub(super) fn id(operation: &Map<String, Value>) -> &str {
    operation.get("operationId").and_then(Value::as_str).unwrap_or_default()
}

/// Merges `more` into `value`, object by object; `more` wins.
pub(super) fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, more) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more.clone(),
    }
}
