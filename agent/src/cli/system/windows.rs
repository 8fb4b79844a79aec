//! Commands of Windows: the agent as a service.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};

use super::arguments::{PolicyFile, RunArguments, StateDir, WazuhArguments};
use super::runtime::on_runtime;
use super::{run, show};
use crate::journal::{self, JournalState};
use crate::platform::{service, service_log};
use crate::telemetry::chain;

/// Commands of Windows.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SystemOrder {
    /// Install this program as a service, which starts with the host, and start it
    Install(InstallArguments),
    /// Stop and remove the service; the state directory stays
    Uninstall(UninstallArguments),
    /// Start the installed service
    Start(IfInstalled),
    /// Stop the service; what is in force stays in force, and nothing is lifted until it is started again
    Stop(IfInstalled),
    /// Run as the service; only for the manager of services
    #[command(hide = true)]
    Service(RunArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InstallArguments {
    #[command(flatten)]
    state: StateDir,
    #[command(flatten)]
    policy: PolicyFile,
    #[command(flatten)]
    wazuh: WazuhArguments,
    /// Bring nothing into force; only report what would have been done
    #[arg(long)]
    observe: bool,
    /// Do not start it
    #[arg(long)]
    no_start: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UninstallArguments {
    #[command(flatten)]
    state: StateDir,
    /// Leave what is in force in force: nothing will lift it
    #[arg(long)]
    leave_effects: bool,
    #[command(flatten)]
    service: IfInstalled,
}

#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct IfInstalled {
    /// Do nothing where the service is not installed
    #[arg(long)]
    if_installed: bool,
}

impl IfInstalled {
    /// Whether there is nothing to do.
    fn is_done(self) -> anyhow::Result<bool> {
        Ok(self.if_installed && !service::is_installed().map_err(|error| anyhow!(error))?)
    }
}

/// Runs one.
pub(in crate::cli) fn run(order: SystemOrder) -> anyhow::Result<()> {
    match order {
        SystemOrder::Install(arguments) => install(&arguments),
        SystemOrder::Uninstall(arguments) => uninstall(&arguments),
        SystemOrder::Start(service) if service.is_done()? => Ok(()),
        SystemOrder::Start(_) => service::start().map_err(|error| anyhow!("the service cannot be started: {error}")),
        SystemOrder::Stop(service) if service.is_done()? => Ok(()),
        SystemOrder::Stop(_) => service::stop().map_err(|error| anyhow!("the service cannot be stopped: {error}")),
        SystemOrder::Service(arguments) => serve(arguments),
    }
}

fn install(arguments: &InstallArguments) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("the path of this program cannot be seen")?;
    let InstallArguments { state, policy, wazuh, observe, no_start } = arguments;
    // Every setting is in the arguments: the environment of an administrator is not that of a service.
    // A service starts in another folder than this command.
    let whole = |path: &Path| std::path::absolute(path).with_context(|| format!("{} is no path", path.display()));
    let mut launch: Vec<OsString> = vec!["service".into(), "--state-dir".into(), whole(&state.path)?.into()];
    let given = [("--policy", &policy.file), ("--wazuh-home", &wazuh.home), ("--responses-log", &wazuh.responses_log)];
    for (name, value) in given {
        if let Some(value) = value {
            launch.extend([name.into(), whole(value)?.into()]);
        }
    }
    launch.extend(observe.then(|| "--observe".into()));
    let lacking =
        service::install(&program, launch).map_err(|error| anyhow!("the service cannot be installed: {error}"))?;
    let mut out = std::io::stdout();
    for what in lacking {
        writeln!(std::io::stderr(), "warning: {what}")?;
    }
    writeln!(out, "The service {} is installed; it starts with the host.", service::NAME)?;
    if *no_start {
        return Ok(());
    }
    service::start().map_err(|error| anyhow!("the service is installed and cannot be started: {error}"))?;
    writeln!(out, "It is started. Its log: {}", service_log::file_of(&state.path).display())?;
    Ok(())
}

fn uninstall(arguments: &UninstallArguments) -> anyhow::Result<()> {
    if arguments.service.is_done()? {
        return Ok(());
    }
    let contents = journal::read(&show::journal_path(&arguments.state.path))?;
    let held = JournalState::of(contents.records).held().count();
    if held > 0 && !arguments.leave_effects {
        bail!(
            "{held} effects are in force, and without the service nothing lifts them: stop it, run `riposte-agent \
             release`, and then uninstall; or use --leave-effects"
        );
    }
    service::uninstall().map_err(|error| anyhow!("the service cannot be removed: {error}"))?;
    writeln!(std::io::stdout(), "The service {} is removed; {} stays.", service::NAME, arguments.state.path.display())?;
    Ok(())
}

fn serve(arguments: RunArguments) -> anyhow::Result<()> {
    let work = move || {
        // Here, where the manager of services is told how it ends. An agent without a log still lifts what is due.
        let _without_a_log = service_log::start(&arguments.state.path);
        execute(arguments)
    };
    service::run(work).map_err(|error| anyhow!(error))
}

fn execute(arguments: RunArguments) -> ExitCode {
    match on_runtime(run::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the agent ends: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
