//! One alert: the normalised fields that policies read, and the raw bytes as the pipeline sent them. Two shapes are
//! recognised: Wazuh 4.x (`domain/wazuh.rs`) and the generic one below. Everything in here was written by an
//! attacker or can have been: a text that is kept is bounded and free of NUL, and an observable becomes a target
//! only through `Target::parse`.

use std::borrow::Cow;

use riposte_protocol::target::{Target, TargetError, TargetKind};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::wazuh;

/// The largest single alert, in bytes. Wazuh's own buffers end at 64 KiB; the rest is room for other pipelines.
pub const MAX_ALERT_BYTES: usize = 1024 * 1024;
/// How deeply an alert may be nested: what the strictest common JSON readers (`serde_json`'s default) still follow.
pub const MAX_DEPTH: usize = 127;
/// The longest description that is kept beside the raw alert, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 512;
/// The longest name, group or id that is kept, in bytes.
const MAX_WORD_BYTES: usize = 256;
/// The most groups that one alert may carry.
const MAX_GROUPS: usize = 1024;

/// The rule that fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rule {
    /// The rule's id as canonical text: digits without leading zeros, or any other word.
    pub id: String,
    /// Severity, 0 to 16. Level 0 never gets a response, as in Wazuh.
    pub level: u8,
    /// Group words, compliance tags (`pci_dss_11.4`) included.
    pub groups: Vec<String>,
    /// What the rule says, cut to 512 bytes.
    pub description: String,
}

/// Where the alert comes from, in the pipeline's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertAgent {
    /// The pipeline's id of the agent; for Wazuh at least three digits (`"007"`).
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// A thing that the alert saw: its text as it came, and the field it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Observable {
    /// The text as it came; hostile until `Target::parse` has read it.
    pub value: String,
    /// The field of the raw alert that held it, dotted.
    pub field: String,
}

/// What an alert saw, by the names that a policy's `target` uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Observables {
    /// `source.ip`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<Observable>,
    /// `destination.ip`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_ip: Option<Observable>,
    /// `source.user`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_user: Option<Observable>,
    /// `destination.user`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_user: Option<Observable>,
}

/// Which observable of an alert a response is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum TargetField {
    /// The address that the traffic came from.
    #[serde(rename = "source.ip")]
    SourceIp,
    /// The address that it went to.
    #[serde(rename = "destination.ip")]
    DestinationIp,
    /// The account that acted.
    #[serde(rename = "source.user")]
    SourceUser,
    /// The account that was acted on or logged in to.
    #[serde(rename = "destination.user")]
    DestinationUser,
}

impl TargetField {
    /// The kind of target that this observable makes.
    pub const fn kind(self) -> TargetKind {
        match self {
            Self::SourceIp | Self::DestinationIp => TargetKind::Ip,
            Self::SourceUser | Self::DestinationUser => TargetKind::User,
        }
    }
}

impl Observables {
    /// The observable that `field` names.
    pub fn field(&self, field: TargetField) -> Option<&Observable> {
        match field {
            TargetField::SourceIp => self.source_ip.as_ref(),
            TargetField::DestinationIp => self.destination_ip.as_ref(),
            TargetField::SourceUser => self.source_user.as_ref(),
            TargetField::DestinationUser => self.destination_user.as_ref(),
        }
    }

    /// The target that `field` makes; `None` if the alert has nothing there.
    ///
    /// # Errors
    /// If there is a text that is not a target.
    pub fn target(&self, field: TargetField) -> Option<Result<Target, TargetError>> {
        self.field(field).map(|observable| Target::parse(field.kind(), &observable.value))
    }
}

/// One alert, normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Which pipeline sent it: `wazuh`, or what a generic alert says.
    pub pipeline: String,
    /// The pipeline's id of this alert.
    pub pipeline_id: String,
    /// Fingerprint of what makes it the same alert again.
    pub dedupe: [u8; 16],
    /// When it happened, by the pipeline's clock.
    pub time: Timestamp,
    /// The rule that fired.
    pub rule: Rule,
    /// Where it comes from.
    pub agent: AlertAgent,
    /// What it saw.
    pub observables: Observables,
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow, default)]
    pipeline: Option<&'a RawValue>,
}

/// Reads one alert in any known shape.
///
/// # Errors
/// Every fault, with a pointer to its field.
pub fn parse(raw: &str) -> Result<Alert, Vec<Fault>> {
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
    if shape.pipeline.is_some() { generic(raw) } else { wazuh::parse(raw) }
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

/// A fault for a text that is not JSON, or not of the expected shape.
pub(super) fn syntax_fault(error: &serde_json::Error) -> Fault {
    Fault::at("", format!("the JSON cannot be read: {error}"))
}

/// The generic shape, for any pipeline: nested objects with the names that policies use.
#[derive(Deserialize)]
struct Generic<'a> {
    #[serde(borrow)]
    pipeline: Field<'a>,
    #[serde(borrow, default)]
    id: Option<Field<'a>>,
    #[serde(borrow, default)]
    time: Option<Field<'a>>,
    #[serde(borrow, default)]
    rule: Option<wazuh::RawRule<'a>>,
    #[serde(borrow, default)]
    agent: Option<GenericAgent<'a>>,
    #[serde(borrow, default)]
    source: Option<Endpoint<'a>>,
    #[serde(borrow, default)]
    destination: Option<Endpoint<'a>>,
}

#[derive(Deserialize)]
struct GenericAgent<'a> {
    #[serde(borrow, default)]
    id: Option<Field<'a>>,
    #[serde(borrow, default)]
    name: Option<Field<'a>>,
}

#[derive(Deserialize, Default)]
struct Endpoint<'a> {
    #[serde(borrow, default)]
    ip: Option<Field<'a>>,
    #[serde(borrow, default)]
    user: Option<Field<'a>>,
}

fn generic(raw: &str) -> Result<Alert, Vec<Fault>> {
    let shape: Generic = serde_json::from_str(raw).map_err(|error| vec![syntax_fault(&error)])?;
    let mut faults = Faults::default();
    let pipeline = faults.required_word("/pipeline", Some(&shape.pipeline));
    let pipeline_id = faults.required_word("/id", shape.id.as_ref());
    if pipeline == wazuh::PIPELINE {
        // Else a generic alert could claim the id of a Wazuh alert that has not arrived yet, and silence it.
        faults.add("/pipeline", "`wazuh` is reserved for Wazuh's own alerts");
    }
    let time = faults.time("/time", shape.time.as_ref());
    let rule = wazuh::rule(shape.rule, &mut faults);
    let agent = shape.agent.map_or_else(AlertAgent::default, |agent| AlertAgent {
        id: faults.optional_word("/agent/id", agent.id.as_ref()),
        name: faults.optional_word("/agent/name", agent.name.as_ref()),
    });
    let (source, destination) = (shape.source.unwrap_or_default(), shape.destination.unwrap_or_default());
    let observables = Observables {
        source_ip: observable("source.ip", source.ip.as_ref()),
        destination_ip: observable("destination.ip", destination.ip.as_ref()),
        source_user: observable("source.user", source.user.as_ref()),
        destination_user: observable("destination.user", destination.user.as_ref()),
    };
    faults.into_result(Alert {
        dedupe: dedupe(&[&pipeline, &pipeline_id]),
        pipeline,
        pipeline_id,
        time,
        rule,
        agent,
        observables,
    })
}

/// 128 bits of SHA-256 over the parts that make an alert the same again, each with its length, so that no
/// shifting of characters between parts makes two different alerts equal.
pub(super) fn dedupe(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

/// A field whose type is not taken for granted: text or number where people write both, anything else a fault.
#[derive(Deserialize, Clone, Copy)]
#[serde(transparent)]
pub(super) struct Field<'a>(#[serde(borrow)] pub(super) &'a RawValue);

impl<'a> Field<'a> {
    /// The text, if it is a string.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        let raw = self.0.get();
        // Without escapes the text stands there as it is: the common case, without a copy.
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            Some(_) => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
            None => None,
        }
    }

    /// The text of a string, or the digits of a whole number.
    pub(super) fn word(self) -> Option<Cow<'a, str>> {
        let raw = self.0.get();
        let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
        if digits { Some(Cow::Borrowed(raw)) } else { self.text() }
    }

    pub(super) fn is_null(self) -> bool {
        self.0.get() == "null"
    }
}

/// The observable in `field`; anything but a text is left out (an array of addresses is not one target).
/// A text that no target could be is kept short: it is shown to people, never acted on.
pub(super) fn observable(name: &str, field: Option<&Field>) -> Option<Observable> {
    let text = field?.text()?;
    (!text.is_empty() && text != "-").then(|| Observable { value: cut(&text, MAX_WORD_BYTES + 1), field: name.into() })
}

/// Collects faults while an alert is read, so that a client learns of all of them at once.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(Fault::at(pointer, detail));
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// A short text without NUL, or a whole number as text.
    pub(super) fn required_word(&mut self, pointer: &str, field: Option<&Field>) -> String {
        match field {
            None => {
                self.add(pointer, "is missing");
                String::new()
            }
            Some(_) => self.optional_word(pointer, field).unwrap_or_else(|| {
                self.add(pointer, "must not be empty");
                String::new()
            }),
        }
    }

    pub(super) fn optional_word(&mut self, pointer: &str, field: Option<&Field>) -> Option<String> {
        let field = field.filter(|field| !field.is_null())?;
        match field.word() {
            None => self.add(pointer, "must be a text"),
            Some(word) if word.len() > MAX_WORD_BYTES => {
                self.add(pointer, format!("is longer than {MAX_WORD_BYTES} bytes"));
            }
            Some(word) if word.contains('\0') => self.add(pointer, "contains a NUL character"),
            Some(word) if word.is_empty() => return None,
            Some(word) => return Some(word.into_owned()),
        }
        // The fault is recorded; a placeholder keeps "must not be empty" from being added to it.
        Some(String::from("?"))
    }

    /// A name for people: cut where it is long, kept without NUL.
    pub(super) fn name(field: Option<&Field>, max_bytes: usize) -> Option<String> {
        let text = field?.text()?;
        let text = if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text };
        (!text.is_empty()).then(|| cut(&text, max_bytes))
    }

    pub(super) fn description(field: Option<&Field>) -> String {
        Self::name(field, MAX_DESCRIPTION_BYTES).unwrap_or_default()
    }

    pub(super) fn groups(&mut self, pointer: &str, field: Option<&Field>, into: &mut Vec<String>, prefix: &str) {
        let Some(field) = field.filter(|field| !field.is_null()) else { return };
        let Ok(words) = serde_json::from_str::<Vec<Cow<'_, str>>>(field.0.get()) else {
            return self.add(pointer, "must be an array of texts");
        };
        if into.len() + words.len() > MAX_GROUPS {
            return self.add(pointer, format!("has more than {MAX_GROUPS} entries"));
        }
        for (index, word) in words.iter().enumerate() {
            if word.len() > MAX_WORD_BYTES || word.contains('\0') {
                self.add(
                    &format!("{pointer}/{index}"),
                    format!("is longer than {MAX_WORD_BYTES} bytes or contains NUL"),
                );
            } else {
                into.push(format!("{prefix}{word}"));
            }
        }
    }

    pub(super) fn time(&mut self, pointer: &str, field: Option<&Field>) -> Timestamp {
        let Some(field) = field else {
            self.add(pointer, "is missing");
            return Timestamp::default();
        };
        field.text().and_then(|text| parse_time(&text)).unwrap_or_else(|| {
            self.add(pointer, "is not a time such as 2026-11-20T10:11:12.345+0000");
            Timestamp::default()
        })
    }
}

/// RFC 3339, or Wazuh's variant of it (the offset without a colon). Instants beyond the year 9999 or before 0000
/// become the nearest that can be written: a clock gone wild must not cost the alert its answer.
fn parse_time(text: &str) -> Option<Timestamp> {
    // jiff would also take a bare date or a comma: the bytes are checked first.
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20 && bytes.len() <= 40 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T';
    if !shape || !text.is_ascii() {
        return None;
    }
    let instant = text.strip_suffix('Z').map_or_else(
        || {
            let sign = text.rfind(['+', '-']).filter(|position| *position > 10)?;
            let (local, offset) = text.split_at(sign);
            let digits: String = offset[1..].chars().filter(|c| *c != ':').collect();
            let hours: i64 = digits.get(..2)?.parse().ok()?;
            let minutes: i64 = digits.get(2..4)?.parse().ok()?;
            if digits.len() != 4 || hours > 23 || minutes > 59 {
                return None;
            }
            let shift = (hours * 60 + minutes) * 60_000 * if offset.starts_with('-') { -1 } else { 1 };
            Some((local, shift))
        },
        |local| Some((local, 0)),
    );
    let (local, shift) = instant?;
    let civil: jiff::civil::DateTime = local.parse().ok()?;
    let midnight = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let since = civil.duration_since(midnight).as_millis();
    Some(Timestamp::from_millis(i64::try_from(since).ok()?.saturating_sub(shift)))
}

/// The first `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generic_alert_is_normalised() {
        let alert = parse(
            r#"{"pipeline":"suricata","id":"a1","time":"2026-11-20T10:11:12.345Z","rule":{"id":2001219,"level":9,"groups":["scan"],
               "description":"ET SCAN"},"agent":{"name":"web-01"},"source":{"ip":"203.0.113.7"},"destination":{"user":"alice"},"extra":1}"#,
        )
        .unwrap();
        assert_eq!(
            (alert.pipeline.as_str(), alert.pipeline_id.as_str(), alert.rule.id.as_str()),
            ("suricata", "a1", "2001219")
        );
        assert_eq!(alert.agent, AlertAgent { id: None, name: Some("web-01".into()) });
        assert_eq!(alert.observables.target(TargetField::SourceIp).unwrap().unwrap().value(), "203.0.113.7");
        assert_eq!(alert.observables.target(TargetField::DestinationUser).unwrap().unwrap().value(), "alice");
        assert_eq!(alert.observables.target(TargetField::SourceUser), None);
    }

    #[test]
    fn every_fault_of_an_alert_is_named_at_once() {
        let faults = parse(r#"{"pipeline":"x","id":"","time":"yesterday","rule":{"id":[],"level":17}}"#).unwrap_err();
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/id", "/time", "/rule/id", "/rule/level"]);
    }

    #[test]
    fn a_generic_alert_cannot_pose_as_wazuh() {
        let faults =
            parse(r#"{"pipeline":"wazuh","id":"1","time":"2026-11-20T10:11:12Z","rule":{"id":"1","level":1}}"#);
        assert_eq!(faults.unwrap_err()[0].pointer, "/pipeline");
    }

    #[test]
    fn times_of_every_pipeline_are_read() {
        let at = |text| parse_time(text).map(Timestamp::as_millis);
        let base = 1_795_169_472_345;
        for text in [
            "2026-11-20T10:11:12.345+0000",
            "2026-11-20T10:11:12.345Z",
            "2026-11-20T10:11:12.345678+00:00",
            "2026-11-20T00:41:12.345-0930",
        ] {
            assert_eq!(at(text), Some(base), "{text}");
        }
        assert!(at("9999-12-31T23:59:59.999+0000").is_some() && at("0001-01-01T00:00:00.000+0000").is_some());
        for text in [
            "",
            "yesterday",
            "1795169472",
            "2026 Nov 20 10:11:12",
            "2026-02-30T10:11:12.345+0000",
            "2026-11-20T25:61:61.345+0000",
            "2026-11-20T10:11:12.345+9999",
            "٢٠٢٦-11-20T10:11:12.345+0000",
            "2026-11-20T10:11:12.345",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn parts_of_the_dedupe_key_cannot_run_into_each_other() {
        assert_ne!(dedupe(&["ab", "c"]), dedupe(&["a", "bc"]));
        assert_eq!(dedupe(&["ab", "c"]), dedupe(&["ab", "c"]));
    }
}
