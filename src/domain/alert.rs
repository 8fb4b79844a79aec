//! An alert: the normalised fields that policies read, parsed by `domain/formats/`. All content may
//! be controlled by an attacker. Texts are bounded and free of NUL, and an observable becomes a
//! target only through `Target::parse`.

use riposte_protocol::target::{Target, TargetError, TargetKind};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The rule that fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rule {
    /// Rule id in canonical form: digits without leading zeros, or another word.
    pub id: String,
    /// Severity, 0 to 16. As in Wazuh, level 0 never gets a response.
    pub level: u8,
    /// Groups, including compliance tags (`pci_dss_11.4`).
    pub groups: Vec<String>,
    /// Description of the rule, truncated to 512 bytes.
    pub description: String,
    /// ATT&CK techniques, such as `T1110.001`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitre: Vec<String>,
}

/// Most techniques of a rule that go on into its responses.
const MAX_TECHNIQUES: usize = 16;

impl Rule {
    /// Its ATT&CK techniques, without other texts that an alert has there.
    pub fn techniques(&self) -> Vec<String> {
        let is_digits =
            |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_technique = |text: &str| {
            text.strip_prefix('T').is_some_and(|number| match number.split_once('.') {
                Some((number, sub)) => is_digits(number, 4) && is_digits(sub, 3),
                None => is_digits(number, 4),
            })
        };
        self.mitre.iter().filter(|text| is_technique(text)).take(MAX_TECHNIQUES).cloned().collect()
    }
}

/// The agent that the alert names, in the pipeline's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertAgent {
    /// Agent id in the pipeline; for Wazuh at least three digits (`"007"`).
    pub id: Option<String>,
    /// Agent name in the pipeline.
    pub name: Option<String>,
    /// The Wazuh manager that reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// Cluster of that manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// An observable of the alert, with its field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Observable {
    /// Canonical address, if it is one; otherwise the raw text. Untrusted until `Target::parse`
    /// accepts it.
    pub value: String,
    /// Dotted path of its field in the raw alert.
    pub field: String,
}

/// Observables of an alert, named as in a policy's `target`.
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
    /// `file.path`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<Observable>,
    /// `process.id`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<Observable>,
    /// Name or program path of the process in `process.id`. It confirms the target, and is not one
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_name: Option<Observable>,
}

/// The observable that a response targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum TargetField {
    /// Source address of the traffic.
    #[serde(rename = "source.ip")]
    SourceIp,
    /// Destination address of the traffic.
    #[serde(rename = "destination.ip")]
    DestinationIp,
    /// Account that acted.
    #[serde(rename = "source.user")]
    SourceUser,
    /// Account that was acted on or logged in to.
    #[serde(rename = "destination.user")]
    DestinationUser,
    /// File that was found, changed or run.
    #[serde(rename = "file.path")]
    FilePath,
    /// Process that acted.
    #[serde(rename = "process.id")]
    ProcessId,
    /// Host of the agent; every alert has it.
    #[serde(rename = "host")]
    Host,
}

impl TargetField {
    /// Names in policies.
    pub const NAMES: [&str; 7] =
        ["source.ip", "destination.ip", "source.user", "destination.user", "file.path", "process.id", "host"];

    /// Its name in policies.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The kind of target that this observable yields.
    pub const fn kind(self) -> TargetKind {
        match self {
            Self::SourceIp | Self::DestinationIp => TargetKind::Ip,
            Self::SourceUser | Self::DestinationUser => TargetKind::User,
            Self::FilePath => TargetKind::File,
            Self::ProcessId => TargetKind::Process,
            Self::Host => TargetKind::Host,
        }
    }
}

impl Observables {
    /// The observable in `field`.
    pub fn field(&self, field: TargetField) -> Option<&Observable> {
        match field {
            TargetField::SourceIp => self.source_ip.as_ref(),
            TargetField::DestinationIp => self.destination_ip.as_ref(),
            TargetField::SourceUser => self.source_user.as_ref(),
            TargetField::DestinationUser => self.destination_user.as_ref(),
            TargetField::FilePath => self.file_path.as_ref(),
            TargetField::ProcessId => self.process_id.as_ref(),
            TargetField::Host => None,
        }
    }

    /// Sets the observable in `field`.
    pub fn set(&mut self, field: TargetField, observable: Option<Observable>) {
        let place = match field {
            TargetField::SourceIp => &mut self.source_ip,
            TargetField::DestinationIp => &mut self.destination_ip,
            TargetField::SourceUser => &mut self.source_user,
            TargetField::DestinationUser => &mut self.destination_user,
            TargetField::FilePath => &mut self.file_path,
            TargetField::ProcessId => &mut self.process_id,
            TargetField::Host => return,
        };
        *place = observable;
    }

    /// The target in `field`; `None` if it is empty. The action decides which `user` targets it
    /// accepts.
    ///
    /// # Errors
    /// If the text is not a valid target.
    pub fn target(&self, field: TargetField) -> Option<Result<Target, TargetError>> {
        if field == TargetField::Host {
            return Some(Ok(Target::host()));
        }
        let value = &self.field(field)?.value;
        Some(match field.kind() {
            // The field was not valid text, so the file is unknown.
            TargetKind::File if value.contains('\u{fffd}') => Err(TargetError::File),
            TargetKind::User => Target::account(value),
            kind => Target::parse(kind, value),
        })
    }
}

impl Alert {
    /// Sets the time of receipt, which is also the event time of an alert without one.
    #[must_use]
    pub fn received(mut self, received: Timestamp) -> Self {
        self.received = received;
        if !self.is_timed {
            self.time = received;
        }
        self
    }

    /// Age at receipt, in whole seconds; negative if dated ahead.
    pub fn age_secs(&self) -> i64 {
        self.received.as_millis().saturating_sub(self.time.as_millis()) / 1000
    }
}

/// A normalised alert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alert {
    /// Pipeline that sent it: `wazuh`, or the name in a generic alert.
    pub pipeline: String,
    /// Id in the pipeline.
    pub pipeline_id: String,
    /// Deduplication fingerprint.
    pub dedupe: [u8; 16],
    /// Whether the pipeline's id names a recurring finding instead of this occurrence.
    pub id_recurs: bool,
    /// Event time by the pipeline's clock, or else the time of receipt.
    pub time: Timestamp,
    /// Whether the alert contains an event time.
    pub is_timed: bool,
    /// Time of receipt.
    pub received: Timestamp,
    /// Whether it reports an active response; responding to it would never end.
    pub is_own_echo: bool,
    /// The rule that fired.
    pub rule: Rule,
    /// The agent that the alert names.
    pub agent: AlertAgent,
    /// Its observables.
    pub observables: Observables,
}
