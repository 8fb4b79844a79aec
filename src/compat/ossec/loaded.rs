//! What Wazuh would load from the files: the intermediate form of an import, between text and
//! documents. It is separate so that tests can compare it with Wazuh.

use serde::Serialize;

use super::allowlist::Allowlist;
use super::report::Place;
use super::wazuh_error::WazuhError;
use crate::views::import::Level;

/// Whether Wazuh would load the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Loaded.
    #[default]
    Ok,
    /// Refused as a whole.
    Error,
}

/// A message of Wazuh that does not refuse the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Wazuh's message number.
    pub code: u16,
    /// Wazuh's severity.
    pub severity: Level,
    /// Wazuh's text.
    pub text: String,
}

/// A command as Wazuh loads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Name; spaces and case matter.
    pub name: String,
    /// Program in the agents' active response folder.
    pub executable: String,
    /// Whether responses that use it may have a timeout.
    pub timeout_allowed: bool,
    /// Arguments as one text.
    pub extra_args: Option<String>,
    /// What it expects; ignored by Wazuh since 4.2.
    #[serde(skip)]
    pub expect: Option<String>,
    /// Its first value with undecodable bytes.
    #[serde(skip)]
    pub(super) illegible: Option<Illegible>,
    /// Position of the command.
    #[serde(skip)]
    pub place: Place,
}

/// A value that cannot be converted, because some bytes are not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Illegible {
    pub option: String,
    pub place: Place,
}

impl Illegible {
    /// Its text in the report.
    pub(super) fn told(&self) -> String {
        let Self { option, .. } = self;
        format!(
            "the value of {option} contains bytes that are not UTF-8, so the block is not converted: save the file as UTF-8"
        )
    }
}

/// A word in `location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// On the alert's agent.
    Local,
    /// On the manager.
    Server,
    /// On one named agent.
    DefinedAgent,
    /// On every connected agent.
    All,
}

impl Location {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Server => "server",
            Self::DefinedAgent => "defined-agent",
            Self::All => "all",
        }
    }
}

/// An active response as Wazuh loads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveResponse {
    /// Wazuh's name of it: the command and the timeout.
    pub name: String,
    /// Name of the command.
    pub command: String,
    /// All words found in `location`.
    pub location: Vec<Location>,
    /// The agent as written.
    pub agent_id: Option<String>,
    /// Minimum level; 0 counts as none.
    pub level: Option<u8>,
    /// Pattern for the rule's groups.
    pub rules_group: Option<String>,
    /// Rule ids, as far as Wazuh parses the list.
    pub rules_id: Vec<u32>,
    /// Timeout in seconds; 0: without end.
    pub timeout_seconds: i32,
    /// Whether it is undone after a timeout.
    pub stateful: bool,
    /// Whether the list of rules contains text that Wazuh ignores.
    #[serde(skip)]
    pub unread_rules: bool,
    /// Index of its command.
    #[serde(skip)]
    pub uses: usize,
    /// Its first value with undecodable bytes.
    #[serde(skip)]
    pub(super) illegible: Option<Illegible>,
    /// Position of the block.
    #[serde(skip)]
    pub place: Place,
}

/// What Wazuh would load. For a refused configuration: only the errors, and what the execution
/// daemon reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Whether Wazuh would load it.
    pub load: Load,
    /// The error at which Wazuh would stop.
    pub errors: Vec<WazuhError>,
    /// Further messages of Wazuh.
    pub messages: Vec<Message>,
    /// Commands, including duplicates.
    pub commands: Vec<Command>,
    /// Active responses, in the order of the files.
    pub policies: Vec<ActiveResponse>,
    /// Number of blocks that Wazuh would ignore.
    pub blocks_dropped: usize,
    /// The allowlist.
    pub allowlist: Allowlist,
    /// Minutes for repeated offenders, as the execution daemon parses them.
    pub repeated_offenders_minutes: Vec<i32>,
    /// Whether active response is disabled.
    pub execd_disabled: bool,
    /// Position of the repeated offenders.
    #[serde(skip)]
    pub(super) offenders_at: Option<Place>,
}
