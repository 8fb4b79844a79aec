//! The host's own rules (`agent.toml`), which no manager can override: what the agent may do here,
//! what it must never touch, and how it behaves. Read once, at start: a change takes a restart.
//!
//! An account that can write this file commands the agent. So the file is refused if other accounts
//! can write it.

mod by_default;
mod check;
mod limits;
mod read;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use riposte_protocol::account::Account;
use riposte_protocol::message::MAX_OUTPUT_BYTES;
use riposte_protocol::target::{Target, TargetKind};

use crate::platform::places;

pub use check::{PolicyCheck, PolicyFault};
pub use limits::Limits;
pub use read::PolicyError;
#[cfg(test)]
pub(crate) use {
    by_default::paths,
    read::{KEYS, LONGEST_STEP_SECONDS, PROTECTED_KEYS},
};

/// What the agent does about drift: an effect that it holds is not in force any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// Brings it into force again, and reports it to the manager.
    #[default]
    Repair,
    /// Only reports it to the manager.
    Report,
}

/// Targets that must not be touched here, beside those that are always protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Networks; one address is a network of one.
    pub addresses: Vec<IpNet>,
    /// Accounts, in any case.
    pub users: Vec<String>,
    /// Files, and folders with everything in them.
    pub files: Vec<PathBuf>,
    /// Processes, by the name of their program.
    pub processes: Vec<String>,
    /// Files, and folders with everything in them, that are exempt from the default protection.
    pub exempt: Vec<PathBuf>,
}

/// What may be applied here. The manager chooses the program of a custom action. So an action's
/// name alone allows only the program of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A built-in action; or a custom action, with the program of the same name.
    Named(String),
    /// A custom action, with this program.
    Custom {
        /// The action's name.
        action: String,
        /// The name of a file in the folder of custom programs.
        executable: String,
    },
    /// This program, under any name of an action.
    Program(String),
}

impl Allowed {
    fn allows(&self, action: &str, executable: Option<&str>) -> bool {
        match (self, executable) {
            (Self::Named(name), None) => name == action,
            (Self::Named(name), Some(program)) => name == action && name == program,
            (Self::Custom { action: name, executable }, Some(program)) => name == action && executable == program,
            (Self::Program(name), Some(program)) => name == program,
            (Self::Custom { .. } | Self::Program(_), None) => false,
        }
    }

    /// Whether this allows a program under any name.
    fn allows_program(&self, program: &str) -> bool {
        match self {
            Self::Named(name) | Self::Program(name) | Self::Custom { executable: name, .. } => name == program,
        }
    }
}

/// The host's own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPolicy {
    /// The file it was read from; `None` for the default policy.
    pub path: Option<PathBuf>,
    /// The only actions that may be applied; `None` allows all.
    pub allowed_actions: Option<Vec<Allowed>>,
    /// Actions that must not be applied, even if allowed.
    pub denied_actions: Vec<String>,
    /// Targets that must not be touched.
    pub protected: Protected,
    /// Brings nothing into force, and reports what would have been done.
    pub observe: bool,
    /// How much of the output of programs is reported, in bytes: at most [`MAX_OUTPUT_BYTES`].
    pub max_output_bytes: usize,
    /// Time limit of one step of an action (apply, verify, revert).
    pub timeout: Duration,
    /// Time limit of a custom program; never longer than [`LocalPolicy::timeout`].
    pub script_timeout: Duration,
    /// What is done about drift.
    pub drift: Drift,
    /// Interval between two looks at held effects.
    pub verify_every: Duration,
    /// Limits of quarantine.
    pub quarantine: Limits,
    /// Folder of the programs of custom actions.
    pub scripts_dir: PathBuf,
    /// Path of the log in Wazuh's format; `None` writes none.
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
            // The slowest built-in step waits a minute for a service to start.
            timeout: Duration::from_mins(2),
            script_timeout: crate::conventions::DEFAULT_TIMEOUT,
            drift: Drift::Repair,
            verify_every: Duration::from_mins(5),
            quarantine: Limits::DEFAULT,
            scripts_dir: places::scripts_dir(),
            responses_log: Some(places::RESPONSES_LOG.into()),
        }
    }
}

impl LocalPolicy {
    /// Why this action must not be applied here; `None` if it may be. `executable` is the program
    /// of a custom action. Lifting is always allowed.
    pub fn forbids(&self, action: &str, executable: Option<&str>) -> Option<String> {
        if let Some(reason) = executable.and_then(|program| self.denies_program(program)) {
            return Some(reason);
        }
        // Both names come from the manager.
        let (name, program) = (action.escape_debug(), executable.unwrap_or_default().escape_debug());
        let reason = format!("the local policy of this host does not allow {name}");
        if self.denied_actions.iter().any(|name| name == action) {
            return Some(reason);
        }
        let allowed = self.allowed_actions.as_deref()?;
        if allowed.iter().any(|entry| entry.allows(action, executable)) {
            return None;
        }
        let is_meant = |entry: &&Allowed| match entry {
            Allowed::Named(name) | Allowed::Custom { action: name, .. } => name == action,
            Allowed::Program(_) => false,
        };
        if executable.is_none() || !allowed.iter().any(|entry| is_meant(&entry)) {
            return Some(reason);
        }
        let mend = format!("{{ action = \"{name}\", executable = \"{program}\" }} in allowed_actions");
        Some(format!("{reason} with the program {program}; to allow that, write {mend}"))
    }

    /// Why this custom program must not be run here, under any name of an action; `None` if it may
    /// be.
    pub fn forbids_program(&self, program: &str) -> Option<String> {
        let allowed = self.allowed_actions.as_deref();
        let is_left_out = allowed.is_some_and(|allowed| !allowed.iter().any(|entry| entry.allows_program(program)));
        let reason = || format!("the local policy of this host allows no custom action with the program {program}");
        self.denies_program(program).or_else(|| is_left_out.then(reason))
    }

    /// A denied action `script:NAME` is a program.
    fn denies_program(&self, program: &str) -> Option<String> {
        let name = format!("{}{program}", crate::conventions::PREFIX);
        self.denied_actions.contains(&name).then(|| format!("the local policy of this host does not allow {name}"))
    }

    /// Why this target must not be touched here; `None` if it may be.
    pub fn protects(&self, target: &Target) -> Option<String> {
        let entry = match target.kind() {
            TargetKind::Ip => {
                let network = target.network()?;
                let touches = |entry: &&IpNet| entry.contains(&network) || network.contains(*entry);
                self.protected.addresses.iter().find(touches).map(IpNet::to_string)
            }
            TargetKind::User => {
                let wanted = Account::of(target.value());
                self.protected.users.iter().find(|name| Account::of(name).may_be(&wanted)).cloned()
            }
            TargetKind::File => {
                let mut entries = self.protected.files.iter();
                entries
                    .find(|entry| crate::self_protection::is_within(target.value(), entry))
                    .map(|f| f.display().to_string())
            }
            TargetKind::Process => {
                let number = target.value();
                let names = crate::platform::processes::names(number);
                let is_named =
                    |entry: &&String| names.iter().any(|name| crate::platform::processes::is_same_name(name, entry));
                let named = self.protected.processes.iter().find(is_named).cloned();
                // A process can change its own name: only its program is certain.
                let is_unsure =
                    || !self.protected.processes.is_empty() && crate::platform::processes::hides_program(number);
                named.or_else(|| is_unsure().then(|| format!("process {number}, whose program the agent may not see,")))
            }
            TargetKind::Host | TargetKind::None => None,
        };
        entry.map(|entry| format!("{entry} is protected by the local policy of this host"))
    }
}
