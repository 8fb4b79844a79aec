//! The contract as the program carries it: the file `openapi.yaml`, compressed.

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
