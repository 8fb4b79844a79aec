//! Reads `agent.toml`, strictly: an unknown key, a value that cannot be meant, or a file that others can write is an
//! error with a sentence that says what to do. A rule that is silently not read protects nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use riposte_protocol::message::MAX_OUTPUT_BYTES;
use riposte_protocol::words::nearest;
use serde::Deserialize;

use super::{Drift, LocalPolicy, Protected};
use crate::scripts;

/// No such file is larger, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// Below this, looking would be most of what the agent does.
const SHORTEST_VERIFY: Duration = Duration::from_secs(10);
/// The manager gives up what it has heard nothing of for ten minutes; until then one step that takes too long and the
/// cleaning up after it are both over. More than one is not bounded: a result that comes later still counts.
const LONGEST_STEP_SECONDS: u64 = 240;
const KEYS: &[&str] = &[
    "allowed_actions",
    "denied_actions",
    "protected",
    "observe",
    "max_output_bytes",
    "timeout_seconds",
    "script_timeout_seconds",
    "drift",
    "verify_every",
    "scripts_dir",
    "responses_log",
];
const PROTECTED_KEYS: &[&str] = &["addresses", "users", "files", "processes"];

/// Why the local policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the local policy {path}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error("the local policy {path} is not used: {reason}")]
    Untrusted {
        /// Where.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// It says something that cannot be meant.
    #[error("the local policy {path}: {reason}")]
    Invalid {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The file, as it is written.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    allowed_actions: Option<Vec<String>>,
    denied_actions: Vec<String>,
    protected: RawProtected,
    observe: bool,
    max_output_bytes: usize,
    timeout_seconds: u64,
    script_timeout_seconds: Option<u64>,
    drift: Drift,
    verify_every: String,
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
            scripts_dir: policy.scripts_dir,
            responses_log: policy.responses_log.map_or_else(String::new, |path| path.display().to_string()),
        }
    }
}

impl LocalPolicy {
    /// Reads `chosen`, or `agent.toml` in the state directory, which need not be there. `actions` are the names that
    /// exist.
    ///
    /// # Errors
    /// When the file cannot be read or trusted, or says something that cannot be meant.
    pub fn load(chosen: Option<&Path>, state_dir: &Path, actions: &[&str]) -> Result<Self, PolicyError> {
        let usual = state_dir.join("agent.toml");
        let path = chosen.unwrap_or(&usual);
        let file_error = |source| PolicyError::File { path: path.into(), source };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && chosen.is_none() => return Ok(Self::default()),
            Err(error) => return Err(file_error(error)),
        };
        // Of the file that is open, not of the path: it could be another one a moment later.
        let metadata = file.metadata().map_err(file_error)?;
        if let Some(reason) = distrust(&metadata, nix::unistd::geteuid().as_raw()) {
            return Err(PolicyError::Untrusted { path: path.into(), reason });
        }
        let mut text = String::new();
        file.by_ref().take(MAX_BYTES).read_to_string(&mut text).map_err(file_error)?;
        let policy = parse(&text, actions).map_err(|reason| PolicyError::Invalid { path: path.into(), reason })?;
        Ok(Self { path: Some(path.into()), ..policy })
    }
}

fn distrust(metadata: &std::fs::Metadata, own_uid: u32) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    if !metadata.is_file() {
        Some("it is not a file".into())
    } else if metadata.uid() != 0 && metadata.uid() != own_uid {
        Some(
            "it belongs to another user; it must belong to root or to the user that runs the agent (chown root)".into(),
        )
    } else if metadata.mode() & 0o022 != 0 {
        Some("others than its owner can write it (chmod go-w)".into())
    } else {
        None
    }
}

fn parse(text: &str, actions: &[&str]) -> Result<LocalPolicy, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| plain(&error))?;
    known(table.keys(), KEYS, "")?;
    if let Some(protected) = table.get("protected").and_then(toml::Value::as_table) {
        known(protected.keys(), PROTECTED_KEYS, "protected.")?;
    }
    let raw: Raw = toml::from_str(text).map_err(|error| plain(&error))?;
    for name in raw.allowed_actions.iter().flatten().chain(&raw.denied_actions) {
        // Custom actions have names that only the manager knows; a slip in the name of one of ours is worth a refusal.
        // Short names are near each other without a slip: pf, npf, ipfw.
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
    // Whoever shortens every step has shortened the programs' too.
    let usual = scripts::DEFAULT_TIMEOUT.as_secs().min(raw.timeout_seconds);
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
    for path in raw.protected.files.iter().chain([&raw.scripts_dir]) {
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
        allowed_actions: raw.allowed_actions,
        denied_actions: raw.denied_actions,
        protected: Protected {
            addresses,
            users: raw.protected.users,
            files: raw.protected.files,
            processes: raw.protected.processes,
        },
        observe: raw.observe,
        max_output_bytes: raw.max_output_bytes,
        timeout: Duration::from_secs(raw.timeout_seconds),
        script_timeout: Duration::from_secs(script_timeout_seconds),
        drift: raw.drift,
        verify_every,
        scripts_dir: raw.scripts_dir,
        responses_log,
    })
}

/// The library's message without the drawing around it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use riposte_protocol::target::{Target, TargetKind};

    const ACTIONS: &[&str] = &["firewall-drop", "log-only"];

    #[test]
    fn an_empty_file_says_what_no_file_says() {
        assert_eq!(parse("", ACTIONS), Ok(LocalPolicy::default()));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            allowed_actions = ["firewall-drop", "my-script"]
            denied_actions = ["log-only"]
            observe = true
            max_output_bytes = 100
            timeout_seconds = 7
            script_timeout_seconds = 5
            drift = "report"
            verify_every = "2m"
            scripts_dir = "/opt/scripts"
            responses_log = ""
            [protected]
            addresses = ["10.0.0.0/8", "::ffff:192.0.2.1"]
            users = ["backup"]
            files = ["/etc"]
            processes = ["sshd"]
        "#;
        let policy = parse(text, ACTIONS).unwrap();
        let expected = LocalPolicy {
            path: None,
            allowed_actions: Some(vec!["firewall-drop".into(), "my-script".into()]),
            denied_actions: vec!["log-only".into()],
            protected: Protected {
                addresses: vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()],
                users: vec!["backup".into()],
                files: vec!["/etc".into()],
                processes: vec!["sshd".into()],
            },
            observe: true,
            max_output_bytes: 100,
            timeout: Duration::from_secs(7),
            script_timeout: Duration::from_secs(5),
            drift: Drift::Report,
            verify_every: Duration::from_mins(2),
            scripts_dir: "/opt/scripts".into(),
            responses_log: None,
        };
        assert_eq!(policy, expected);
        // A key that is in the list and that nobody reads would not be noticed by the list alone.
        let named = KEYS.iter().chain(PROTECTED_KEYS).filter(|key| text.contains(**key)).count();
        assert_eq!(named, KEYS.len() + PROTECTED_KEYS.len());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_key_that_was_probably_meant() {
        for (text, reason) in [
            ("observ = true", "there is no key observ; did you mean observe?"),
            ("allow = []", "there is no key allow"),
            ("[protected]\nuser = []", "there is no key protected.user; did you mean protected.users?"),
            ("denied_actions = [\"firewal-drop\"]", "there is no action firewal-drop; did you mean firewall-drop?"),
            ("verify_every = \"1s\"", "verify_every must be"),
            ("verify_every = \"5 minutes\"", "verify_every must be"),
            ("timeout_seconds = 0", "timeout_seconds must be from 1 to 240"),
            ("timeout_seconds = 241", "timeout_seconds must be from 1 to 240"),
            ("script_timeout_seconds = 0", "script_timeout_seconds must be from 1 to timeout_seconds, which is 120"),
            ("script_timeout_seconds = 121", "from 1 to timeout_seconds, which is 120"),
            ("timeout_seconds = 9\nscript_timeout_seconds = 10", "from 1 to timeout_seconds, which is 9"),
            ("max_output_bytes = 999999", "max_output_bytes must be at most 16384"),
            ("drift = \"ignore\"", "unknown variant `ignore`"),
            ("scripts_dir = \"bin\"", "bin is not an absolute path"),
            ("[protected]\naddresses = [\"10.0.0\"]", "\"10.0.0\" in protected.addresses is neither"),
            ("observe = ", "expected"),
        ] {
            let error = parse(text, ACTIONS).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_custom_program_may_run_a_minute_or_as_long_as_is_said_up_to_a_whole_step() {
        for (text, secs) in [
            ("", 60),
            ("script_timeout_seconds = 120", 120),
            ("timeout_seconds = 240\nscript_timeout_seconds = 240", 240),
            ("timeout_seconds = 30", 30),
            ("script_timeout_seconds = 1", 1),
        ] {
            assert_eq!(parse(text, ACTIONS).unwrap().script_timeout, Duration::from_secs(secs), "{text}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        assert_eq!(LocalPolicy::load(None, directory.path(), ACTIONS).unwrap(), LocalPolicy::default());
        assert!(matches!(LocalPolicy::load(Some(&path), directory.path(), ACTIONS), Err(PolicyError::File { .. })));
        std::fs::write(&path, "observe = true").unwrap();
        for (mode, is_used) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false), (0o666, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match LocalPolicy::load(None, directory.path(), ACTIONS) {
                Ok(policy) => assert!(is_used && policy.observe && policy.path.is_some(), "{mode:o}"),
                Err(error) => assert!(!is_used && error.to_string().contains("chmod go-w"), "{mode:o}: {error}"),
            }
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let own = std::os::unix::fs::MetadataExt::uid(&metadata);
        assert_eq!(distrust(&metadata, own), None);
        if own != 0 {
            assert!(distrust(&metadata, own + 1).unwrap().contains("another user"));
        }
    }

    #[test]
    fn a_process_whose_program_cannot_be_seen_may_be_a_protected_one() {
        // No test that ends what an account runs may have this number: they run at the same time.
        let others = ["--reuid", "41900", "--clear-groups", "sleep", "1000"];
        let mut process = std::process::Command::new("setpriv").args(others).spawn().unwrap();
        let target = Target::parse(TargetKind::Process, &process.id().to_string()).unwrap();
        let protects = |policy: &str| {
            let (policy, target) = (parse(policy, ACTIONS).unwrap(), target.clone());
            crate::platform::without(rustix::thread::CapabilitySet::SYS_PTRACE, move || policy.protects(&target))
        };
        let while_unsure = protects("[protected]\nprocesses = [\"postgres\"]");
        let without_entries = protects("");
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(while_unsure.unwrap().contains("may not see"));
        assert_eq!(without_entries, None);
    }

    #[test]
    fn the_policy_says_no_where_it_should_and_nowhere_else() {
        let policy = parse(
            "allowed_actions = [\"firewall-drop\"]\n[protected]\naddresses = [\"10.1.0.0/16\"]\nusers = [\"backup\"]\nfiles = [\"/srv/data\"]",
            ACTIONS,
        )
        .unwrap();
        assert_eq!(policy.forbids("firewall-drop"), None);
        assert!(policy.forbids("log-only").unwrap().contains("does not allow log-only"));
        let target = |kind, text: &str| {
            if text.contains('/') && kind == TargetKind::Ip {
                Target::parse_network(text)
            } else {
                Target::parse(kind, text)
            }
        };
        for (kind, text, is_protected) in [
            (TargetKind::Ip, "10.1.2.3", true),
            (TargetKind::Ip, "10.1.2.0/24", true),
            (TargetKind::Ip, "10.0.0.0/8", true),
            (TargetKind::Ip, "10.2.0.0/16", false),
            (TargetKind::Ip, "2001:db8::1", false),
            (TargetKind::User, "Backup", true),
            (TargetKind::User, "backup2", false),
            (TargetKind::File, "/srv/data/a/b", true),
            (TargetKind::File, "/srv/data2", false),
        ] {
            let target = target(kind, text).unwrap();
            assert_eq!(policy.protects(&target).is_some(), is_protected, "{target}");
        }
    }
}
