//! The formats of alerts and their conversion to an [`Alert`]: Wazuh 4.x ([`wazuh`]), findings of
//! Wazuh 5, and a generic one. `document.rs` finds fields, and `field.rs` reads them without trust.
//! `observe.rs` selects the observables; [`ObservableMappings`] are site-specific fields.

mod dedupe;
mod document;
mod echo;
mod field;
mod finding;
mod generic;
mod mapped;
mod mapping;
mod observable_mappings;
mod observe;
pub mod wazuh;

use std::borrow::Cow;

use super::alert::{Alert, Observables};
use super::decode::{decode, legible};
use super::fault::Fault;
pub use dedupe::dedupe;
use document::Document;
pub use mapping::{AlertMappings, PipelineMapping};
use observable_mappings::ObservableMappings;

/// Maximum size of an alert, in bytes. Wazuh's own buffers end at 64 KiB; the rest is for other
/// pipelines.
pub const MAX_ALERT_BYTES: usize = 1024 * 1024;
/// Maximum nesting of an alert: the limit of the strictest common JSON parsers, such as
/// `serde_json`'s default.
pub const MAX_DEPTH: usize = 127;

/// The fault for an alert of unknown format.
const UNKNOWN: &str = "is not a known format: an alert of Wazuh 4 has `rule` with `id` and `level`, a finding of Wazuh 5 has \
                       `wazuh.rule`, any other pipeline's has `pipeline`, `id` and `rule`, or a mapping; see docs/pipelines.md";

/// Decodes and parses an alert as received. `pipeline` is that of the sender's key.
///
/// # Errors
/// All faults, each with a pointer to its field.
pub fn read<'a>(
    bytes: &'a [u8],
    mappings: &AlertMappings,
    pipeline: Option<&str>,
) -> Result<(Cow<'a, str>, Alert), Vec<Fault>> {
    if bytes.len() > MAX_ALERT_BYTES {
        return Err(vec![Fault::at("", format!("the alert is larger than {MAX_ALERT_BYTES} bytes"))]);
    }
    let text = decode(bytes);
    // What was around the alert is stored and shown with it.
    if text.len() != bytes.len() && depth_exceeds(&legible(bytes), MAX_DEPTH) {
        return Err(too_deep());
    }
    let alert = parse(&text, mappings, pipeline)?;
    Ok((text, alert))
}

fn too_deep() -> Vec<Fault> {
    vec![Fault::at("", format!("the alert is nested deeper than {MAX_DEPTH} levels"))]
}

/// Reads one alert in any known format; `text` is what [`decode`] made of it. `pipeline` is that of the sender's key, or
/// the one that a stored alert was read as. Its mapping reads the alert, unless it is one of the generic format.
///
/// # Errors
/// All faults, each with a pointer to its field.
pub fn parse(text: &str, mappings: &AlertMappings, pipeline: Option<&str>) -> Result<Alert, Vec<Fault>> {
    if depth_exceeds(text, MAX_DEPTH) {
        return Err(too_deep());
    }
    if !text.trim_ascii_start().starts_with('{') {
        return Err(vec![Fault::at("", "an alert is a JSON object")]);
    }
    let document = Document::read(text).map_err(|fault| vec![fault])?;
    let is_there = |name: &str| document.top(name).is_some_and(|text| text != "null");
    let is_object = |name: &str| document.top(name).is_some_and(|text| text.starts_with('{'));
    let observables = mappings.observables();
    let has_rule = is_object("rule") || document.has_dotted("rule");
    if is_there("pipeline") && has_rule {
        return generic::read(&document, observables);
    }
    if let Some((name, mapping)) = pipeline.and_then(|name| Some((name, mappings.named(name)?))) {
        return mapped::read(&document, name, mapping);
    }
    if is_there("pipeline") {
        return generic::read(&document, observables);
    }
    let is_wazuh = has_rule && document.at("rule.level").is_some();
    // What Wazuh writes is never looked at as another pipeline's: a log could bring the fields for that.
    if !is_wazuh
        && !is_object("wazuh")
        && let Some((name, mapping)) = mappings.recognised(&document)
    {
        return mapped::read(&document, name, mapping);
    }
    if has_rule {
        wazuh::read(&document, observables)
    } else if !is_there("rule") && (is_object("wazuh") || document.has_dotted("wazuh")) {
        finding::read(&document, observables)
    } else if !is_there("rule") && is_object("agent") && is_there("timestamp") {
        // A Wazuh alert without its main fields: Wazuh's parser names what is missing.
        wazuh::read(&document, observables)
    } else {
        Err(vec![Fault::at("", UNKNOWN)])
    }
}

/// The alerts of an object in which a pipeline sends several; `None` if `text` is one alert. `pipeline` is that of the
/// sender's key.
pub fn split<'a>(text: &'a str, mappings: &AlertMappings, pipeline: Option<&str>) -> Option<Vec<&'a str>> {
    let document = std::cell::OnceCell::new();
    let items = |mapping: &PipelineMapping| {
        let path = mapping.spec().each.as_deref()?;
        // Nearly all alerts have no such field, which is seen without reading them.
        let first = path.split('.').next().filter(|key| text.contains(key))?;
        let document = document.get_or_init(|| Document::read(text).ok()).as_ref()?;
        document.top(first)?;
        Some(document.at(path)?.items()?.into_iter().map(|(_, item)| item.0.get()).collect::<Vec<_>>())
    };
    if let Some(mapping) = pipeline.and_then(|name| mappings.named(name)) {
        return items(mapping);
    }
    mappings.all().find_map(|(_, mapping)| {
        let items = items(mapping)?;
        let first = Document::read(items.first()?).ok()?;
        mapping.recognises(&first).then_some(items)
    })
}

/// Reads the observables of a part of a Wazuh alert, as people and playbooks write one: `data` is enough.
///
/// # Errors
/// If it is no object, or nested too deep.
pub fn wazuh_observables(text: &str, mappings: &AlertMappings) -> Result<Observables, Vec<Fault>> {
    if depth_exceeds(text, MAX_DEPTH) {
        return Err(too_deep());
    }
    let document = Document::read(text).map_err(|fault| vec![fault])?;
    Ok(wazuh::observables_of(&document, mappings.observables()))
}

/// Whether brackets are nested deeper than `limit`, outside strings. This parser does not recurse,
/// but other readers of the stored alert may.
fn depth_exceeds(raw: &str, limit: usize) -> bool {
    // Nearly all alerts have fewer brackets than that, which is counted much faster.
    if raw.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= limit {
        return false;
    }
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
