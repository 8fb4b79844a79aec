//! The folders of this system.

use std::path::Path;

/// Where the agent keeps its identity and its journal.
pub const STATE_DIR: &str = "/var/lib/riposte-agent";
/// Where Wazuh is installed.
pub const WAZUH_HOME: &str = "/var/ossec";
/// Wazuh's log of responses.
pub const RESPONSES_LOG: &str = "/var/ossec/logs/active-responses.log";
/// Wazuh's file with the identity of its agent, below its home.
pub const CLIENT_KEYS: &str = "etc/client.keys";
/// The folder that programs start in.
pub const ROOT: &str = "/";

/// The folder of custom programs where none is chosen.
pub fn scripts_dir() -> std::path::PathBuf {
    Path::new(WAZUH_HOME).join(crate::conventions::FOLDER)
}

/// Files of this system that are protected by default, beside those that every system has.
pub const PROTECTED: &[&str] = &[];

/// Whether `path` is `folder`, or in it.
pub fn is_below(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder)
}
