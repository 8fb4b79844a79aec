//! The contract in `openapi.yaml` and `/openapi.json`. It is generated from the handlers'
//! annotations. This module adds the common parts: error responses ([`errors`]), request schemas
//! ([`documents`]), and bounds of fields ([`bounds`]). It must match the handlers;
//! `tests/it/conformance.rs` compares both over HTTP.

mod alerts;
mod bounds;
mod documents;
mod errors;
mod yaml;

use serde_json::{Map, Value};

/// The contract as JSON.
pub fn contract() -> Value {
    let mut contract = serde_json::to_value(super::generated()).unwrap_or_default();
    documents::separate(&mut contract);
    alerts::describe(&mut contract, crate::config::Config::default().max_batch);
    bounds::set(&mut contract);
    errors::list(&mut contract);
    contract
}

/// The contract as YAML that parsers of versions 1.1 and 1.2 read alike.
pub fn contract_yaml() -> String {
    yaml::write(&contract())
}

/// The operations of the contract.
fn operations(contract: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let paths = contract.get_mut("paths").and_then(Value::as_object_mut);
    let items = paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut);
    items.flat_map(Map::values_mut).filter_map(Value::as_object_mut)
}

/// The operation's id.
fn id(operation: &Map<String, Value>) -> &str {
    operation.get("operationId").and_then(Value::as_str).unwrap_or_default()
}

/// Merges `more` into `value`, object by object; `more` wins.
fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, more) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_belongs_to_an_existing_field() {
        let mut contract = serde_json::to_value(crate::api::generated()).unwrap();
        documents::separate(&mut contract);
        assert_eq!(bounds::set(&mut contract), Vec::<String>::new());
    }
}
