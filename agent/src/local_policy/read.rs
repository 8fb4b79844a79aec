//! Reads `agent.toml`, strictly. An unknown key, an impossible value, or a file that others can
//! write is an error that says what to do: a rule that is ignored silently protects nothing.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use riposte_protocol::message::MAX_OUTPUT_BYTES;
use riposte_protocol::words::nearest;
use serde::Deserialize;

use super::{Allowed, Drift, Limits, LocalPolicy, Protected};
use crate::conventions;
use crate::platform::guarded::{self, PathError};

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// With a shorter interval, verifying would be most of the agent's work.
const SHORTEST_VERIFY: Duration = Duration::from_secs(10);
/// Longest step, in seconds. The manager abandons a command after ten minutes without news; one
/// step that times out and its clean-up take less. Several such steps may take longer: a later
/// result still counts.
pub(crate) const LONGEST_STEP_SECONDS: u64 = 240;
/// Every key of the file.
pub(crate) const KEYS: &[&str] = &[
    "allowed_actions",
    "denied_actions",
    "protected",
    "observe",
    "max_output_bytes",
    "timeout_seconds",
    "script_timeout_seconds",
    "drift",
    "verify_every",
    "quarantine_max_file_bytes",
    "quarantine_min_free_bytes",
    "scripts_dir",
    "responses_log",
];
/// Every key of its table `protected`.
pub(crate) const PROTECTED_KEYS: &[&str] = &["addresses", "users", "files", "processes", "exempt"];

/// Why the local policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the local policy {path}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another account could have written it.
    #[error("the local policy {path} is not used: {reason}")]
    Untrusted {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A key or a value is not valid.
    #[error("the local policy {path}: {reason}")]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The content of the file.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    allowed_actions: Option<Vec<toml::Value>>,
    denied_actions: Vec<String>,
    protected: RawProtected,
    observe: bool,
    max_output_bytes: usize,
    timeout_seconds: u64,
    script_timeout_seconds: Option<u64>,
    drift: Drift,
    verify_every: String,
    quarantine_max_file_bytes: u64,
    quarantine_min_free_bytes: u64,
    scripts_dir: PathBuf,
    responses_log: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawProtected {
    addresses: Vec<String>,
    users: Vec<String>,
    files: Vec<PathBuf>,
    processes: Vec<String>,
    exempt: Vec<PathBuf>,
}

impl Default for Raw {
    fn default() -> Self {
        let policy = LocalPolicy::default();
        Self {
            allowed_actions: None,
            denied_actions: policy.denied_actions,
            protected: RawProtected::default(),
            observe: policy.observe,
            max_output_bytes: policy.max_output_bytes,
            timeout_seconds: policy.timeout.as_secs(),
            script_timeout_seconds: None,
            drift: policy.drift,
            verify_every: format!("{}s", policy.verify_every.as_secs()),
            quarantine_max_file_bytes: policy.quarantine.max_file_bytes,
            quarantine_min_free_bytes: policy.quarantine.min_free_bytes,
            scripts_dir: policy.scripts_dir,
            responses_log: policy.responses_log.map_or_else(String::new, |path| path.display().to_string()),
        }
    }
}

impl LocalPolicy {
    /// Reads `chosen`, or else `agent.toml` in the state directory, which need not exist. `actions`
    /// are the names of built-in actions.
    ///
    /// # Errors
    /// When the file cannot be read or trusted, or a key or value is not valid.
    pub fn load(chosen: Option<&Path>, state_dir: &Path, actions: &[&str]) -> Result<Self, PolicyError> {
        let Some((path, text)) = text(chosen, state_dir)? else { return Ok(Self::default()) };
        let policy = parse(&text, actions).map_err(|reason| PolicyError::Invalid { path: path.clone(), reason })?;
        Ok(Self { path: Some(path), ..policy })
    }
}

/// The file and its text, if there is one.
pub(super) fn text(chosen: Option<&Path>, state_dir: &Path) -> Result<Option<(PathBuf, String)>, PolicyError> {
    let usual = state_dir.join("agent.toml");
    let path = chosen.unwrap_or(&usual);
    let file_error = |source| PolicyError::File { path: path.into(), source };
    let bytes = match guarded::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() && chosen.is_none() => return Ok(None),
        Err(PathError::System { source, .. }) => return Err(file_error(source)),
        Err(PathError::Refused { path: part, reason }) => {
            let reason = if part == path { reason } else { format!("{}: {reason}", part.display()) };
            return Err(PolicyError::Untrusted { path: path.into(), reason });
        }
    };
    let text = String::from_utf8(bytes).map_err(|error| file_error(io::Error::other(error)))?;
    Ok(Some((path.into(), text)))
}

fn parse(text: &str, actions: &[&str]) -> Result<LocalPolicy, String> {
    rules(text.parse().map_err(|error: toml::de::Error| plain(&error))?, actions)
}

/// The rules of a table, or its first fault.
pub(super) fn rules(table: toml::Table, actions: &[&str]) -> Result<LocalPolicy, String> {
    known(table.keys(), KEYS, "")?;
    if let Some(protected) = table.get("protected").and_then(toml::Value::as_table) {
        known(protected.keys(), PROTECTED_KEYS, "protected.")?;
    }
    let raw: Raw = table.try_into().map_err(|error| plain(&error))?;
    let allowed = raw.allowed_actions.map(|entries| entries.iter().map(|entry| allowed(entry, actions)).collect());
    let allowed_actions: Option<Vec<Allowed>> = allowed.transpose()?;
    let named = allowed_actions.iter().flatten().filter_map(|entry| match entry {
        Allowed::Named(name) => Some(name),
        Allowed::Custom { .. } | Allowed::Program(_) => None,
    });
    for name in named.chain(&raw.denied_actions) {
        // Only the manager knows the names of custom actions, so an unknown name is allowed. A name
        // close to a built-in one is refused as a typing mistake. Short names (pf, npf, ipfw) are
        // close to each other without a mistake.
        if !actions.contains(&name.as_str())
            && name.len() > 5
            && let Some(meant) = nearest(name, actions.iter().copied())
        {
            return Err(format!("there is no action {name}; did you mean {meant}?"));
        }
    }
    if raw.max_output_bytes > MAX_OUTPUT_BYTES {
        return Err(format!("max_output_bytes must be at most {MAX_OUTPUT_BYTES}"));
    }
    if !(1..=LONGEST_STEP_SECONDS).contains(&raw.timeout_seconds) {
        return Err(format!("timeout_seconds must be from 1 to {LONGEST_STEP_SECONDS}"));
    }
    // A shorter limit of a step also shortens the default limit of programs.
    let usual = conventions::DEFAULT_TIMEOUT.as_secs().min(raw.timeout_seconds);
    let script_timeout_seconds = raw.script_timeout_seconds.unwrap_or(usual);
    if !(1..=raw.timeout_seconds).contains(&script_timeout_seconds) {
        return Err(format!(
            "script_timeout_seconds must be from 1 to timeout_seconds, which is {}",
            raw.timeout_seconds
        ));
    }
    let verify_every = duration(&raw.verify_every).filter(|period| *period >= SHORTEST_VERIFY).ok_or_else(|| {
        format!(
            "verify_every must be a time such as \"90s\", \"5m\" or \"1h\", 10 s at least, not {:?}",
            raw.verify_every
        )
    })?;
    let addresses = raw.protected.addresses.iter().map(|text| network(text)).collect::<Result<_, _>>()?;
    for path in raw.protected.files.iter().chain(&raw.protected.exempt).chain([&raw.scripts_dir]) {
        if !path.is_absolute() {
            return Err(format!("{} is not an absolute path", path.display()));
        }
    }
    let responses_log = (!raw.responses_log.is_empty()).then(|| PathBuf::from(raw.responses_log));
    if responses_log.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err("responses_log is not an absolute path".into());
    }
    Ok(LocalPolicy {
        path: None,
        allowed_actions,
        denied_actions: raw.denied_actions,
        protected: Protected {
            addresses,
            users: raw.protected.users,
            files: raw.protected.files,
            processes: raw.protected.processes,
            exempt: raw.protected.exempt,
        },
        observe: raw.observe,
        max_output_bytes: raw.max_output_bytes,
        timeout: Duration::from_secs(raw.timeout_seconds),
        script_timeout: Duration::from_secs(script_timeout_seconds),
        drift: raw.drift,
        verify_every,
        quarantine: Limits {
            max_file_bytes: raw.quarantine_max_file_bytes,
            min_free_bytes: raw.quarantine_min_free_bytes,
        },
        scripts_dir: raw.scripts_dir,
        responses_log,
    })
}

/// `"NAME"`, `"script:PROGRAM"` or `{ action = "NAME", executable = "PROGRAM" }`.
fn allowed(entry: &toml::Value, actions: &[&str]) -> Result<Allowed, String> {
    const FORM: &str = "an entry of allowed_actions is \"ACTION\" or { action = \"NAME\", executable = \"PROGRAM\" }";
    match entry {
        toml::Value::String(name) => Ok(match name.strip_prefix(conventions::PREFIX) {
            Some(program) => Allowed::Program(program.into()),
            None => Allowed::Named(name.clone()),
        }),
        toml::Value::Table(table) => {
            known(table.keys(), &["action", "executable"], "allowed_actions.")?;
            let text = |key: &str| table.get(key).and_then(toml::Value::as_str).map(str::to_owned);
            let (Some(action), Some(executable)) = (text("action"), text("executable")) else {
                return Err(FORM.into());
            };
            if actions.contains(&action.as_str()) {
                return Err(format!(
                    "{action} is an action of the agent's own and runs no program: write \"{action}\""
                ));
            }
            Ok(Allowed::Custom { action, executable })
        }
        _ => Err(FORM.into()),
    }
}

/// The library's message without the quoted lines around it.
fn plain(error: &toml::de::Error) -> String {
    error.message().to_owned()
}

fn known<'a>(keys: impl Iterator<Item = &'a String>, known: &[&str], prefix: &str) -> Result<(), String> {
    for key in keys {
        if !known.contains(&key.as_str()) {
            let meant = nearest(key, known.iter().copied())
                .map(|meant| format!("; did you mean {prefix}{meant}?"))
                .unwrap_or_default();
            return Err(format!("there is no key {prefix}{key}{meant}"));
        }
    }
    Ok(())
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    let network = address.or_else(|_| text.parse::<IpNet>().map(|network| network.trunc()));
    network.map_err(|_| format!("{text:?} in protected.addresses is neither an address nor a network"))
}

/// `90s`, `5m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_secs)
}
