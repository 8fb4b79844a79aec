//! The command line: its commands, and the exit codes. 0 is success, 1 is failure, 2 is an invalid
//! command line.

mod enroll;
mod release;
mod run;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::actions::{self, Host};
use crate::local_policy::{LocalPolicy, PolicyError};
use crate::responses_log::ResponsesLog;
use crate::runner::Runner;
use crate::session::Transport;
use crate::telemetry::{self, LogFormat};

#[derive(Debug, Parser)]
#[command(name = "riposte-agent", version, about = "Executes signed commands, proves what it did, undoes it on time")]
struct Cli {
    /// Format of log lines
    #[arg(long, global = true, env = "RIPOSTE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Make this host an agent of a manager
    Enroll(EnrollArguments),
    /// Connect to the manager and execute its commands
    Run(RunArguments),
    /// Lift everything that this agent holds, before its end; the agent must not be running
    Release(ReleaseArguments),
    /// Show what this agent holds, from its journal
    Status {
        #[command(flatten)]
        state: StateDir,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show what this agent can do on this host, and why not the rest
    Actions {
        #[command(flatten)]
        state: StateDir,
        #[command(flatten)]
        wazuh: WazuhArguments,
        #[command(flatten)]
        policy: PolicyFile,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct StateDir {
    /// Where the agent keeps its identity and its journal
    #[arg(long = "state-dir", env = "RIPOSTE_STATE_DIR", default_value = "/var/lib/riposte-agent", value_name = "DIR")]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct PolicyFile {
    /// The local policy; default: DIR/agent.toml, which need not exist
    #[arg(long = "policy", env = "RIPOSTE_POLICY", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl PolicyFile {
    fn load(&self, state: &StateDir) -> Result<LocalPolicy, PolicyError> {
        let names: Vec<&str> = actions::ALL.iter().map(|action| action.name()).collect();
        LocalPolicy::load(self.file.as_deref(), &state.path, &names)
    }
}

#[derive(Debug, Args)]
struct WazuhArguments {
    /// Where Wazuh is installed, or a folder with the programs of custom actions in
    /// `active-response/bin`. Default: `/var/ossec`, and the programs are where the local policy
    /// says
    #[arg(long = "wazuh-home", env = "RIPOSTE_WAZUH_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Write what was done as Wazuh's `active-responses.log`; default: where the local policy says
    #[arg(long, env = "RIPOSTE_RESPONSES_LOG", value_name = "FILE")]
    responses_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct EnrollArguments {
    /// The manager's URL, http or https
    #[arg(long, env = "RIPOSTE_MANAGER", value_name = "URL")]
    manager: String,
    /// The enrolment token; other accounts can read a command line, so prefer the variable or the
    /// file
    #[arg(
        long,
        env = "RIPOSTE_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file",
        required_unless_present = "token_file"
    )]
    token: Option<String>,
    /// A file that holds the enrolment token; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A file with the certificate authority of the manager in PEM; stored, and trusted instead of
    /// the system's
    #[arg(long, env = "RIPOSTE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The agent's name; default: the host's
    #[arg(long, env = "RIPOSTE_NAME")]
    name: Option<String>,
    /// This host was enrolled before and has been reinstalled: the manager revokes its earlier
    /// agent, and applies its effects here again
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    plain: PlainHttp,
    #[command(flatten)]
    state: StateDir,
    #[command(flatten)]
    wazuh: WazuhArguments,
    #[command(flatten)]
    policy: PolicyFile,
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    state: StateDir,
    #[command(flatten)]
    wazuh: WazuhArguments,
    /// Bring nothing into force; only report what would have been done
    #[arg(long, env = "RIPOSTE_OBSERVE", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    observe: bool,
    #[command(flatten)]
    policy: PolicyFile,
    /// How to talk to the manager
    #[arg(long, env = "RIPOSTE_TRANSPORT", value_enum, default_value_t = Transport::Auto)]
    transport: Transport,
    #[command(flatten)]
    plain: PlainHttp,
}

#[derive(Debug, Args)]
struct PlainHttp {
    /// Allow plain HTTP to a manager on another host. An attacker on the network can read
    /// everything, the enrolment token too, and can pose as the manager at enrolment
    #[arg(
        long,
        env = "RIPOSTE_INSECURE_HTTP",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    insecure_http: bool,
}

#[derive(Debug, Args)]
struct ReleaseArguments {
    #[command(flatten)]
    state: StateDir,
    #[command(flatten)]
    wazuh: WazuhArguments,
    #[command(flatten)]
    policy: PolicyFile,
    /// Lift nothing; record that this effect, which the agent does not hold, was lifted by hand.
    /// The next revert of it is answered from the journal
    #[arg(long, value_name = "EFFECT")]
    lifted: Vec<uuid::Uuid>,
    /// The reason, for the manager's record
    #[arg(long, default_value = "released by hand on this host", value_name = "TEXT")]
    reason: String,
}

/// Runs the command of the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.log_format);
    let done = match cli.order {
        Order::Enroll(arguments) => on_runtime(enroll::enroll(arguments)),
        Order::Run(arguments) => on_runtime(run::run(arguments)),
        Order::Release(arguments) => on_runtime(release::release(arguments)),
        Order::Status { state, json } => show::status(&state.path, json),
        Order::Actions { state, wazuh, policy, json } => show::actions(&state, &wazuh, &policy, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For the operator at the terminal, whatever the log's filter is.
            eprintln!("riposte-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// This host as the command line and the local policy describe it; the command line takes
/// precedence.
fn host(state: &StateDir, wazuh: &WazuhArguments, policy: &LocalPolicy) -> Host {
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

/// One thread is enough: the agent almost always waits, and an idle thread costs memory.
fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
