//! The command line: its commands, and the exit codes. 0 is success, 1 is failure, 2 is an invalid
//! command line.

mod arguments;
mod config;
mod enroll;
mod release;
mod rotate_key;
mod run;
mod runtime;
mod show;
#[cfg(unix)]
#[path = "system/unix.rs"]
mod system;
#[cfg(windows)]
#[path = "system/windows.rs"]
mod system;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::arguments::{
    EnrollArguments, PolicyFile, ReleaseArguments, RotateKeyArguments, RunArguments, StateDir, WazuhArguments,
};
use self::config::ConfigOrder;
use self::runtime::on_runtime;
use self::system::SystemOrder;
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
    /// Replace the key by which this agent proves its identity; a running agent takes the new one over
    RotateKey(RotateKeyArguments),
    /// Check the configuration before a start
    #[command(subcommand)]
    Config(ConfigOrder),
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
    #[command(flatten)]
    System(SystemOrder),
}

/// The clap definition of the command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command of the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // A service has no terminal, and starts its log where it can be found.
    if !matches!(&cli.order, Order::System(_)) {
        telemetry::start(cli.log_format);
    }
    let done = match cli.order {
        Order::Enroll(arguments) => on_runtime(enroll::enroll(arguments)),
        Order::Run(arguments) => on_runtime(run::run(arguments)),
        Order::Release(arguments) => on_runtime(release::release(arguments)),
        Order::RotateKey(arguments) => on_runtime(rotate_key::rotate_key(arguments)),
        Order::Config(order) => config::run(order, &Cli::command()),
        Order::Status { state, json } => show::status(&state.path, json),
        Order::Actions { state, wazuh, policy, json } => show::actions(&state, &wazuh, &policy, json),
        Order::System(order) => system::run(order),
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
