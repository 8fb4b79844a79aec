//! The shapes in which alerts come, and how each becomes an [`Alert`]: Wazuh 4.x ([`wazuh`]), the findings of Wazuh 5
//! and a generic one. A field is read without trust (`field.rs`), whatever the shape; [`Sources`] are fields of a site's own.

mod echo;
mod field;
mod finding;
mod generic;
mod sources;
pub mod wazuh;

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::alert::Alert;
use super::fault::Fault;
use field::syntax_fault;
pub use sources::Sources;

/// The largest single alert, in bytes. Wazuh's own buffers end at 64 KiB; the rest is room for other pipelines.
pub const MAX_ALERT_BYTES: usize = 1024 * 1024;
/// How deeply an alert may be nested: what the strictest common JSON readers (`serde_json`'s default) still follow.
pub const MAX_DEPTH: usize = 127;

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow, default)]
    pipeline: Option<&'a RawValue>,
    #[serde(borrow, default)]
    wazuh: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "wazuh.rule.id")]
    flat_rule_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    rule: Option<&'a RawValue>,
}

/// One level of an object, unread below.
type Level<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// What stands at `path` below `raw`.
fn descend<'a>(raw: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    let Some((key, rest)) = path.split_first() else { return Some(raw) };
    let mut level: Level = serde_json::from_str(raw.get()).ok()?;
    descend(level.remove(*key)?, rest)
}

/// Reads one alert in any known shape.
///
/// # Errors
/// Every fault, with a pointer to its field.
pub fn parse(raw: &str, sources: &Sources) -> Result<Alert, Vec<Fault>> {
    if raw.len() > MAX_ALERT_BYTES {
        return Err(vec![Fault::at("", format!("the alert is larger than {MAX_ALERT_BYTES} bytes"))]);
    }
    if depth_exceeds(raw, MAX_DEPTH) {
        return Err(vec![Fault::at("", format!("the alert is nested deeper than {MAX_DEPTH} levels"))]);
    }
    if !raw.trim_ascii_start().starts_with('{') {
        return Err(vec![Fault::at("", "an alert is a JSON object")]);
    }
    let shape: Shape = serde_json::from_str(raw).map_err(|error| vec![syntax_fault(&error)])?;
    let mut alert = if shape.pipeline.is_some() {
        generic::parse(raw)
    } else if shape.rule.is_none() && (shape.wazuh.is_some() || shape.flat_rule_id.is_some()) {
        finding::parse(raw)
    } else {
        wazuh::parse(raw)
    }?;
    sources.apply(raw, &mut alert.observables);
    Ok(alert)
}

/// Whether brackets are nested deeper than `limit`, strings left aside. A reader without recursion (ours) does not
/// mind, but whoever reads the stored alert later would.
fn depth_exceeds(raw: &str, limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in raw.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// 128 bits of SHA-256 over the parts that make an alert the same again, each with its length, so that no
/// shifting of characters between parts makes two different alerts equal.
pub fn dedupe(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_dedupe_key_cannot_run_into_each_other() {
        assert_ne!(dedupe(&["ab", "c"]), dedupe(&["a", "bc"]));
        assert_eq!(dedupe(&["ab", "c"]), dedupe(&["ab", "c"]));
    }
}
