//! The folders of this system.

use std::path::{Path, PathBuf};

/// Where the agent keeps its identity and its journal.
pub const STATE_DIR: &str = r"C:\ProgramData\Riposte";
/// Where Wazuh is installed.
pub const WAZUH_HOME: &str = r"C:\Program Files (x86)\ossec-agent";
/// Wazuh's log of responses.
pub const RESPONSES_LOG: &str = r"C:\Program Files (x86)\ossec-agent\active-response\active-responses.log";
/// Wazuh's file with the identity of its agent, below its home.
pub const CLIENT_KEYS: &str = "client.keys";
/// The folder that programs start in.
pub const ROOT: &str = r"C:\";

/// The folder of custom programs where none is chosen.
pub fn scripts_dir() -> PathBuf {
    Path::new(WAZUH_HOME).join(r"active-response\bin")
}

/// Files of this system that are protected by default, beside those that every system has.
pub const PROTECTED: &[&str] = &[r"C:\ProgramData\Riposte", r"C:\Program Files\Riposte", r"C:\ProgramData\ssh"];

/// Whether `path` is `folder`, or in it. Letters are compared in any case, and the prefix that a
/// resolved path has does not count.
pub fn is_below(path: &Path, folder: &Path) -> bool {
    let plain = |path: &Path| {
        let text = path.to_string_lossy().replace('/', r"\").to_lowercase();
        text.strip_prefix(r"\\?\").map(str::to_owned).unwrap_or(text)
    };
    let (path, folder) = (plain(path), plain(folder));
    path.strip_prefix(folder.trim_end_matches('\\')).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
}
