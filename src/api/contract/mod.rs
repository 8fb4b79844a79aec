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

use std::io::Read as _;
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use serde_json::Value;

/// The file `openapi.yaml`, compressed.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.yaml.gz"));

/// The file `openapi.yaml`. That it is what the program does is tested; so a program that serves has no code that makes it.
///
/// # Errors
/// If the program file is damaged.
pub fn contract_file() -> std::io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(PACKED).read_to_string(&mut text)?;
    Ok(text)
}

/// The same as JSON, made at the first request.
pub(super) fn contract_json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| {
        let read = contract_file().ok().and_then(|text| yaml_serde::from_str::<Value>(&text).ok());
        read.map_or_else(|| "null".to_owned(), |contract| contract.to_string())
    })
}

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
