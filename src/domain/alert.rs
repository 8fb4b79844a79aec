//! One alert: the normalised fields that policies read, and the raw bytes as the pipeline sent them. Two shapes are
//! recognised: Wazuh 4.x (`domain/wazuh.rs`) and a generic one (`domain/generic.rs`). Everything in here was written by an
//! attacker or can have been: a text that is kept is bounded and free of NUL, and an observable becomes a target
//! only through `Target::parse`.

use riposte_protocol::target::{Target, TargetError, TargetKind};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::field::syntax_fault;
use super::{generic, wazuh};

/// The largest single alert, in bytes. Wazuh's own buffers end at 64 KiB; the rest is room for other pipelines.
pub const MAX_ALERT_BYTES: usize = 1024 * 1024;
/// How deeply an alert may be nested: what the strictest common JSON readers (`serde_json`'s default) still follow.
pub const MAX_DEPTH: usize = 127;

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
    if shape.pipeline.is_some() { generic::parse(raw) } else { wazuh::parse(raw) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_dedupe_key_cannot_run_into_each_other() {
        assert_ne!(dedupe(&["ab", "c"]), dedupe(&["a", "bc"]));
        assert_eq!(dedupe(&["ab", "c"]), dedupe(&["ab", "c"]));
    }
}
