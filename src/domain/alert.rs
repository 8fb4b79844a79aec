//! One alert: the normalised fields that policies read. They come from the raw alert by way of `domain/shapes/`.
//! Everything in here was written by an attacker or can have been: a text that is kept is bounded and free of NUL, and
//! an observable becomes a target only through `Target::parse`.

use riposte_protocol::target::{Target, TargetError, TargetKind};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// ATT&CK techniques, such as `T1110.001`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitre: Vec<String>,
}

/// Where the alert comes from, in the pipeline's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertAgent {
    /// The pipeline's id of the agent; for Wazuh at least three digits (`"007"`).
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The Wazuh manager that speaks of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// That manager's cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A thing that the alert saw, and the field it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Observable {
    /// An address in canonical form, if it is one; else the text as it came. Hostile until `Target::parse` has read it.
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
    /// `file.path`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<Observable>,
    /// `process.id`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<Observable>,
    /// What the process of `process.id` is called: its name, or its program's path. No target: it confirms one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_name: Option<Observable>,
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
    /// The file that was found, changed or run.
    #[serde(rename = "file.path")]
    FilePath,
    /// The process that acted.
    #[serde(rename = "process.id")]
    ProcessId,
    /// The agent's host itself; every alert has it.
    #[serde(rename = "host")]
    Host,
}

impl TargetField {
    /// The names that a policy uses.
    pub const NAMES: [&str; 7] =
        ["source.ip", "destination.ip", "source.user", "destination.user", "file.path", "process.id", "host"];

    /// The kind of target that this observable makes.
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
    /// The observable that `field` names.
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

    /// Puts an observable in its place.
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

    /// The target that `field` makes; `None` if the alert has nothing there. Whether a `user` is one that an action takes is for
    /// the action to say.
    ///
    /// # Errors
    /// If there is a text that is not a target.
    pub fn target(&self, field: TargetField) -> Option<Result<Target, TargetError>> {
        if field == TargetField::Host {
            return Some(Ok(Target::host()));
        }
        let value = &self.field(field)?.value;
        Some(match field.kind() {
            // Something stood there that is no text: which file was meant cannot be told.
            TargetKind::File if value.contains('\u{fffd}') => Err(TargetError::File),
            TargetKind::User => Target::account(value),
            kind => Target::parse(kind, value),
        })
    }
}

impl Alert {
    /// The same, received at `received`: an alert without a time of its own happened then.
    #[must_use]
    pub fn received(mut self, received: Timestamp) -> Self {
        self.received = received;
        if !self.is_timed {
            self.time = received;
        }
        self
    }

    /// How old it was when it was received, in whole seconds; below 0 if it is dated ahead.
    pub fn age_secs(&self) -> i64 {
        self.received.as_millis().saturating_sub(self.time.as_millis()) / 1000
    }
}

/// One alert, normalised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alert {
    /// Which pipeline sent it: `wazuh`, or what a generic alert says.
    pub pipeline: String,
    /// The pipeline's id of this alert.
    pub pipeline_id: String,
    /// Fingerprint of what makes it the same alert again.
    pub dedupe: [u8; 16],
    /// Whether the pipeline's id names a finding, which may occur again, and not this occurrence.
    pub id_recurs: bool,
    /// When it happened, by the pipeline's clock; for an alert without a time when it was received.
    pub time: Timestamp,
    /// Whether the alert says when it happened.
    pub is_timed: bool,
    /// When it was received.
    pub received: Timestamp,
    /// Whether it reports an active response: answering one with another never ends.
    pub is_own_echo: bool,
    /// The rule that fired.
    pub rule: Rule,
    /// Where it comes from.
    pub agent: AlertAgent,
    /// What it saw.
    pub observables: Observables,
}
