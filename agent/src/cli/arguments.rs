//! The arguments that several commands share, and those of each command.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::actions::{self, Host};
use crate::local_policy::{LocalPolicy, PolicyError};
use crate::platform::places;
use crate::responses_log::ResponsesLog;
use crate::runner::Runner;
use crate::session::Transport;

#[derive(Debug, Args)]
pub(super) struct StateDir {
    /// Where the agent keeps its identity and its journal
    #[arg(long = "state-dir", env = "RIPOSTE_STATE_DIR", default_value = places::STATE_DIR, value_name = "DIR")]
    pub(super) path: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct PolicyFile {
    /// The local policy; default: DIR/agent.toml, which need not exist
    #[arg(long = "policy", env = "RIPOSTE_POLICY", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

impl PolicyFile {
    pub(super) fn load(&self, state: &StateDir) -> Result<LocalPolicy, PolicyError> {
        let names: Vec<&str> = actions::ALL.iter().map(|action| action.name()).collect();
        LocalPolicy::load(self.file.as_deref(), &state.path, &names)
    }
}

#[derive(Debug, Args)]
pub(super) struct WazuhArguments {
    /// Where Wazuh is installed, or a folder with the programs of custom actions in
    /// `active-response/bin`. Default: `/var/ossec`, and the programs are where the local policy
    /// says
    #[arg(long = "wazuh-home", env = "RIPOSTE_WAZUH_HOME", value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// Write what was done as Wazuh's `active-responses.log`; default: where the local policy says
    #[arg(long, env = "RIPOSTE_RESPONSES_LOG", value_name = "FILE")]
    pub(super) responses_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct EnrollArguments {
    /// The manager's URL, http or https
    #[arg(long, env = "RIPOSTE_MANAGER", value_name = "URL")]
    pub(super) manager: String,
    /// The enrolment token; other accounts can read a command line, so prefer the variable or the
    /// file
    #[arg(
        long,
        env = "RIPOSTE_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file",
        required_unless_present = "token_file"
    )]
    pub(super) token: Option<String>,
    /// A file that holds the enrolment token; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// A file with the certificate authority of the manager in PEM; stored, and trusted instead of
    /// the system's
    #[arg(long, env = "RIPOSTE_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// A file with the agent's own certificate and its private key in PEM, for a manager that asks
    /// agents for one; stored
    #[arg(long, env = "RIPOSTE_CLIENT_CERT", value_name = "FILE")]
    pub(super) client_cert: Option<PathBuf>,
    /// The agent's name; default: the host's
    #[arg(long, env = "RIPOSTE_NAME")]
    pub(super) name: Option<String>,
    /// This host was enrolled before and has been reinstalled: the manager revokes its earlier
    /// agent, and applies its effects here again
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) plain: PlainHttp,
    #[command(flatten)]
    pub(super) state: StateDir,
    #[command(flatten)]
    pub(super) wazuh: WazuhArguments,
    #[command(flatten)]
    pub(super) policy: PolicyFile,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) state: StateDir,
    #[command(flatten)]
    pub(super) wazuh: WazuhArguments,
    /// Bring nothing into force; only report what would have been done
    #[arg(long, env = "RIPOSTE_OBSERVE", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(super) observe: bool,
    #[command(flatten)]
    pub(super) policy: PolicyFile,
    /// How to talk to the manager
    #[arg(long, env = "RIPOSTE_TRANSPORT", value_enum, default_value_t = Transport::Auto)]
    pub(super) transport: Transport,
    #[command(flatten)]
    pub(super) plain: PlainHttp,
}

#[derive(Debug, Args)]
pub(super) struct PlainHttp {
    /// Allow plain HTTP to a manager on another host. An attacker on the network can read
    /// everything, the enrolment token too, and can pose as the manager at enrolment
    #[arg(
        long,
        env = "RIPOSTE_INSECURE_HTTP",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub(super) insecure_http: bool,
}

#[derive(Debug, Args)]
pub(super) struct RotateKeyArguments {
    #[command(flatten)]
    pub(super) state: StateDir,
    #[command(flatten)]
    pub(super) plain: PlainHttp,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArguments {
    #[command(flatten)]
    pub(super) state: StateDir,
    #[command(flatten)]
    pub(super) wazuh: WazuhArguments,
    #[command(flatten)]
    pub(super) policy: PolicyFile,
    /// Lift nothing; record that this effect, which the agent does not hold, was lifted by hand.
    /// The next revert of it is answered from the journal
    #[arg(long, value_name = "EFFECT")]
    pub(super) lifted: Vec<uuid::Uuid>,
    /// The reason, for the manager's record
    #[arg(long, default_value = "released by hand on this host", value_name = "TEXT")]
    pub(super) reason: String,
}

/// This host as the command line and the local policy describe it; the command line takes
/// precedence.
pub(super) fn host(state: &StateDir, wazuh: &WazuhArguments, policy: &LocalPolicy) -> Host {
    let mut host = Host::new(Runner::new(), &state.path);
    host.script_timeout = policy.script_timeout;
    host.quarantine = policy.quarantine;
    match &wazuh.home {
        Some(home) => host.wazuh_home.clone_from(home),
        None => host.scripts_dir = Some(policy.scripts_dir.clone()),
    }
    let log = wazuh.responses_log.as_deref().or_else(|| {
        let log = policy.responses_log.as_deref()?;
        // The default log is written only where Wazuh is installed to read it.
        let is_default = LocalPolicy::default().responses_log.as_deref() == Some(log);
        let has_folder = log.parent().is_some_and(Path::is_dir);
        (!is_default || has_folder).then_some(log)
    });
    host.responses_log = log.map(ResponsesLog::at);
    host
}
