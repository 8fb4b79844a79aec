//! The host as actions see it: its operating system, how programs are started, and the folders of
//! the agent and of Wazuh. It is always passed as an argument, so that a test can choose another
//! system, root or runner.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::Os;
use super::at_work::AtWork;
use super::probe::cache::ProbeCache;
use crate::conventions;
use crate::local_policy::Limits;
use crate::platform::places;
use crate::platform::ruleset::Ruleset;
use crate::responses_log::{Note, ResponsesLog};
use crate::runner::Runner;
use crate::scripts::KeyBook;

/// The host, and the agent's folders on it.
#[derive(Debug)]
pub struct Host {
    /// Its operating system.
    pub os: Os,
    /// Starts programs.
    pub runner: Runner,
    /// Folder of `/etc` and `/proc`: `/`, except in tests.
    pub root: PathBuf,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// Where Wazuh is installed, or a folder with the same layout.
    pub wazuh_home: PathBuf,
    /// Folder of the programs of custom actions. Default: `active-response/bin` below Wazuh's home.
    pub scripts_dir: Option<PathBuf>,
    /// Time limit of the program of a custom action.
    pub script_timeout: Duration,
    /// Limits of quarantine.
    pub quarantine: Limits,
    /// The manager's URLs, which must always stay reachable.
    pub managers: Vec<String>,
    /// The log in Wazuh's format; `None` writes none.
    pub responses_log: Option<ResponsesLog>,
    /// The effects that threads are working on.
    pub at_work: AtWork,
    /// The keys that custom programs hold.
    pub keys: KeyBook,
    /// Cached results of tests of the programs that actions need.
    pub probes: ProbeCache,
}

impl Host {
    /// This host, with an agent whose state is in `state_dir`.
    pub fn new(runner: Runner, state_dir: &Path) -> Self {
        Self {
            os: Os::current(),
            runner,
            root: places::ROOT.into(),
            state_dir: state_dir.to_owned(),
            wazuh_home: places::WAZUH_HOME.into(),
            scripts_dir: None,
            script_timeout: conventions::DEFAULT_TIMEOUT,
            quarantine: Limits::DEFAULT,
            managers: Vec::new(),
            responses_log: None,
            at_work: AtWork::default(),
            probes: ProbeCache::default(),
            keys: KeyBook::at(&state_dir.join("script-keys.json")),
        }
    }

    /// What nftables holds, where this host's programs would change it.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn ruleset(&self) -> io::Result<Ruleset> {
        self.runner.in_its_network(Ruleset::open)
    }

    /// Path of the file that programs call `path`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Folder of the programs of custom actions.
    pub fn scripts_dir(&self) -> PathBuf {
        self.scripts_dir.clone().unwrap_or_else(|| self.wazuh_home.join(conventions::FOLDER))
    }

    /// Writes into the log of responses, if there is one. A failed write never stops a response.
    pub fn note(&self, note: &Note<'_>, now: Timestamp) {
        if let Some(log) = &self.responses_log
            && let Err(error) = log.write(note, now)
        {
            tracing::warn!(path = %log.path().display(), %error, "the log of responses cannot be written");
        }
    }

    /// Whether a process of that name is running, as `ps -o comm` shows it.
    pub fn is_running(&self, name: &str) -> bool {
        let processes = std::fs::read_dir(self.path("/proc")).into_iter().flatten().flatten();
        processes
            .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
            .any(|entry| std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name))
    }

    /// Checks that all of these programs are installed.
    ///
    /// # Errors
    /// The first missing one, for people.
    pub fn has_programs(&self, names: &[&str]) -> Result<(), String> {
        names.iter().try_for_each(|name| {
            let missing = || Runner::distrusted(name).unwrap_or_else(|| format!("{name} is not installed"));
            self.runner.is_installed(name).then_some(()).ok_or_else(missing)
        })
    }
}
