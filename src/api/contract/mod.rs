//! The contract in `openapi.yaml` and `/openapi.json`. It is generated from the handlers'
//! annotations. This module adds the common parts: error responses ([`errors`]), request schemas
//! ([`documents`]), and bounds of fields ([`bounds`]). It must match the handlers;
//! `tests/it/conformance.rs` compares both over HTTP.

mod alerts;
mod bounds;
mod documents;
mod errors;
mod operations;
mod yaml;

use serde_json::Value;

/// The contract, made from the annotations: what `openapi.yaml` must be.
pub fn contract() -> Value {
    let mut contract = serde_json::to_value(super::routes::generated()).unwrap_or_default();
    documents::separate(&mut contract);
    alerts::describe(&mut contract, crate::config::Config::default().limits.max_batch);
    bounds::set(&mut contract);
    documents::close_on(&mut contract);
    errors::list(&mut contract);
    contract
}

/// The same as YAML that parsers of versions 1.1 and 1.2 read alike.
pub fn contract_yaml() -> String {
    yaml::write(&contract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_belongs_to_an_existing_field() {
        let mut contract = serde_json::to_value(crate::api::routes::generated()).unwrap();
        documents::separate(&mut contract);
        assert_eq!(bounds::set(&mut contract), Vec::<String>::new());
    }
}
