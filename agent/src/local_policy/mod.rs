//! The host's own rules (`agent.toml`), which no manager can override: what the agent may do here, what it must never
//! touch, and how it behaves. Read once, at start: a change takes a restart.
//!
//! Whoever can write this file commands the agent, so a file that others can write is refused.

mod read;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use riposte_protocol::message::MAX_OUTPUT_BYTES;
use riposte_protocol::target::{Target, TargetKind};

pub use read::PolicyError;

/// What the agent does about an effect that it holds and that is not in force any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// Brings it into force again, and tells the manager.
    #[default]
    Repair,
    /// Only tells the manager.
    Report,
}

/// What must not be touched here, besides what never may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Networks; one address is a network of one.
    pub addresses: Vec<IpNet>,
    /// Accounts, whatever the case of their letters.
    pub users: Vec<String>,
    /// Files, and folders with everything in them.
    pub files: Vec<PathBuf>,
    /// Processes, by the name of their program.
    pub processes: Vec<String>,
}

/// The host's own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPolicy {
    /// Where it was read from, if it was.
    pub path: Option<PathBuf>,
    /// The only actions that may be applied; `None` allows all.
    pub allowed_actions: Option<Vec<String>>,
    /// Actions that must not be applied, even if allowed.
    pub denied_actions: Vec<String>,
    /// What must not be touched.
    pub protected: Protected,
    /// Brings nothing into force and says what it would have done.
    pub observe: bool,
    /// How much of what programs print is told, in bytes: at most [`MAX_OUTPUT_BYTES`].
    pub max_output_bytes: usize,
    /// How long one step of an action (apply, look, revert) may take.
    pub timeout: Duration,
    /// How long a custom program may run; never longer than a step may take.
    pub script_timeout: Duration,
    /// What is done about drift.
    pub drift: Drift,
    /// How often held effects are looked at.
    pub verify_every: Duration,
    /// Where the programs of custom actions are.
    pub scripts_dir: PathBuf,
    /// Where the log in Wazuh's format is written; `None` writes none.
    pub responses_log: Option<PathBuf>,
}

impl Default for LocalPolicy {
    fn default() -> Self {
        Self {
            path: None,
            allowed_actions: None,
            denied_actions: Vec::new(),
            protected: Protected::default(),
            observe: false,
            max_output_bytes: MAX_OUTPUT_BYTES,
            // The slowest thing that an action does by design is to wait a minute for a service to come up.
            timeout: Duration::from_mins(2),
            script_timeout: crate::scripts::DEFAULT_TIMEOUT,
            drift: Drift::Repair,
            verify_every: Duration::from_mins(5),
            scripts_dir: "/var/ossec/active-response/bin".into(),
            responses_log: Some("/var/ossec/logs/active-responses.log".into()),
        }
    }
}

impl LocalPolicy {
    /// Why this action must not be applied here, if so. Lifting is always allowed.
    pub fn forbids(&self, action: &str) -> Option<String> {
        let is_named = |list: &[String]| list.iter().any(|name| name == action);
        let is_denied = is_named(&self.denied_actions);
        let is_left_out = self.allowed_actions.as_deref().is_some_and(|allowed| !is_named(allowed));
        (is_denied || is_left_out).then(|| format!("the local policy of this host does not allow {action}"))
    }

    /// Why this custom program must not be run here, under whatever name of an action, if so: a denied action
    /// `script:NAME`.
    pub fn forbids_program(&self, program: &str) -> Option<String> {
        let name = format!("{}{program}", crate::scripts::PREFIX);
        self.denied_actions.contains(&name).then(|| format!("the local policy of this host does not allow {name}"))
    }

    /// Why no custom action at all may be applied here, if so: only actions of the agent's own are allowed.
    pub fn forbids_custom(&self, is_own: impl Fn(&str) -> bool) -> Option<String> {
        let allowed = self.allowed_actions.as_deref()?;
        let reason = "the local policy of this host allows no custom action";
        allowed.iter().all(|name| is_own(name)).then(|| reason.into())
    }

    /// Why this target must not be touched here, if so.
    pub fn protects(&self, target: &Target) -> Option<String> {
        let entry = match target.kind() {
            TargetKind::Ip => {
                let network = target.network()?;
                let touches = |entry: &&IpNet| entry.contains(&network) || network.contains(*entry);
                self.protected.addresses.iter().find(touches).map(IpNet::to_string)
            }
            TargetKind::User => {
                self.protected.users.iter().find(|name| name.eq_ignore_ascii_case(target.value())).cloned()
            }
            TargetKind::File => {
                let mut entries = self.protected.files.iter();
                entries
                    .find(|entry| crate::surroundings::is_within(target.value(), entry))
                    .map(|f| f.display().to_string())
            }
            TargetKind::Process => {
                let number = target.value();
                let names = crate::platform::process_names(number);
                let named = self.protected.processes.iter().find(|entry| names.contains(entry)).cloned();
                // A process may call itself anything: only its program is sure.
                let is_unsure = || !self.protected.processes.is_empty() && crate::platform::hides_its_program(number);
                named.or_else(|| is_unsure().then(|| format!("process {number}, whose program the agent may not see,")))
            }
            TargetKind::Host | TargetKind::None => None,
        };
        entry.map(|entry| format!("{entry} is protected by the local policy of this host"))
    }
}
