//! What Wazuh itself would have loaded from the files: the middle of an import, between their text and Riposte's documents.
//! It is kept apart so that it can be held against Wazuh, word for word.

use serde::Serialize;

use super::allowlist::Allowlist;
use super::report::{Level, Place};

/// An error of Wazuh's, by its number and in its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WazuhError {
    /// Wazuh's number; absent for a limit that is Riposte's.
    pub code: Option<u16>,
    /// The words.
    pub text: String,
}

impl WazuhError {
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code: Some(code), text: text.into() }
    }
}

/// Whether Wazuh would have loaded the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// It would.
    #[default]
    Ok,
    /// It would have refused it as a whole.
    Error,
}

/// Something that Wazuh says without refusing the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Wazuh's number.
    pub code: u16,
    /// How serious Wazuh takes it.
    pub severity: Level,
    /// Wazuh's words.
    pub text: String,
}

/// A command, as Wazuh loads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Its name; blanks and case count.
    pub name: String,
    /// The program, in the agents' folder for them.
    pub executable: String,
    /// Whether a response that uses it may have a timeout.
    pub timeout_allowed: bool,
    /// Its arguments, as one text.
    pub extra_args: Option<String>,
    /// What it expects, which Wazuh has not looked at since 4.2.
    #[serde(skip)]
    pub expect: Option<String>,
    /// The first value of it that holds bytes which are no text.
    #[serde(skip)]
    pub(super) illegible: Option<Illegible>,
    /// Where it stands.
    #[serde(skip)]
    pub place: Place,
}

/// A value that cannot be carried over, because some bytes of it are no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Illegible {
    pub option: String,
    pub place: Place,
}

impl Illegible {
    /// What a report says of it.
    pub(super) fn told(&self) -> String {
        let Self { option, .. } = self;
        format!(
            "the value of {option} holds bytes that are no UTF-8, so the block is not carried over: write the file as UTF-8"
        )
    }
}

/// A word in `location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// On the agent that the alert comes from.
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

/// An active response, as Wazuh loads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveResponse {
    /// The name that Wazuh gives it: that of the command and the timeout.
    pub name: String,
    /// The command's name.
    pub command: String,
    /// Every word that the expression finds in `location`.
    pub location: Vec<Location>,
    /// The agent, as it is written.
    pub agent_id: Option<String>,
    /// The least level; 0 counts as none.
    pub level: Option<u8>,
    /// An expression on the text of the rule's groups.
    pub rules_group: Option<String>,
    /// Rules, as far as the list is read.
    pub rules_id: Vec<u32>,
    /// For how long; 0: for good.
    pub timeout_seconds: i32,
    /// Whether it is undone at some time.
    pub stateful: bool,
    /// Where the list of rules has something that Wazuh never reads.
    #[serde(skip)]
    pub unread_rules: bool,
    /// Which of the commands it uses.
    #[serde(skip)]
    pub uses: usize,
    /// The first value of it that holds bytes which are no text.
    #[serde(skip)]
    pub(super) illegible: Option<Illegible>,
    /// Where it stands.
    #[serde(skip)]
    pub place: Place,
}

/// What Wazuh would have loaded. If it would have refused the configuration, there is nothing but the errors and what the
/// executing daemon reads on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Whether it would.
    pub load: Load,
    /// The error at which it would have stopped.
    pub errors: Vec<WazuhError>,
    /// What else it would have said.
    pub messages: Vec<Message>,
    /// The commands, duplicates included.
    pub commands: Vec<Command>,
    /// The active responses, in the order of the files.
    pub policies: Vec<ActiveResponse>,
    /// How many blocks it would have left out.
    pub blocks_dropped: usize,
    /// The allowlist.
    pub allowlist: Allowlist,
    /// Minutes for those who come back, as the executing daemon reads them.
    pub repeated_offenders_minutes: Vec<i32>,
    /// Whether the executing daemon would be off.
    pub execd_disabled: bool,
    /// Where the repeated offenders stand.
    #[serde(skip)]
    pub(super) offenders_at: Option<Place>,
}
