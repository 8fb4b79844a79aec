//! `riposte policy …`: policies in files and on a manager. The arguments are defined here; each
//! subcommand has its own file or part of one. Files are checked by the manager's own code, so a
//! file that passes is not refused there.

mod apply;
mod backtest;
pub(crate) mod explain;
mod files;
mod import;
mod plan;
mod protected;
mod stored;
mod text;
mod trial;
mod yaml;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use riposte_protocol::time::Timestamp;

use super::client::Remote;
use crate::config::Config;
use crate::domain::duration::Span;
use crate::domain::formats::ObservableMappings;
use crate::domain::policy::{Mode, is_name};

/// Subcommands of `riposte policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Make a manager's policies, custom actions and protected entries match files: shows the
    /// difference, asks, applies.
    Apply(Apply),
    /// Show what `apply` would change; exit code 0 without changes, 1 with, 2 on errors.
    Diff(Diff),
    /// List the policies.
    List(ListArgs),
    /// Print a policy as YAML.
    Show(Show),
    /// List the versions of a policy, with principal and time.
    History(History),
    /// Restore an earlier version of a policy.
    Rollback(RollbackArgs),
    /// Delete a policy; its responses stay in force, its versions are kept.
    Delete(Delete),
    /// Close the breaker of a stopped policy.
    Reset(Reset),
    /// Count a policy's responses by state and reason.
    Counts(Counts),
    /// Explain for an alert which policies match, and why the others do not.
    Explain(Explain),
    /// Run the policies' own tests, without a manager; exit code 1 if one fails.
    Test(Test),
    /// Test a policy over the manager's stored alerts; changes nothing.
    Backtest(Backtest),
    /// Convert the active responses of Wazuh's ossec.conf into policies: shows the difference,
    /// asks, applies; exit code 1 if something cannot be converted.
    Import(ImportArgs),
}

/// The files to read.
#[derive(Debug, Args)]
pub struct Files {
    /// File, or folder with *.yaml, *.yml and *.json below it; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    paths: Vec<PathBuf>,
}

/// Site-specific settings.
#[derive(Debug, Args)]
pub struct Site {
    /// Configuration file of the manager, if policies' tests need its `[observables]`.
    #[arg(long, env = "RIPOSTE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Site {
    fn mappings(&self) -> anyhow::Result<ObservableMappings> {
        let Some(path) = &self.config else { return Ok(ObservableMappings::default()) };
        let config = Config::read(path)?;
        let fault = |faults: Vec<crate::domain::fault::Fault>| {
            let told = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail));
            anyhow::anyhow!("observables: {}", told.collect::<Vec<_>>().join("; "))
        };
        ObservableMappings::read(&config.observables).map_err(fault).with_context(|| path.display().to_string())
    }
}

/// Flags of `riposte policy apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    site: Site,
    #[command(flatten)]
    consent: Consent,
    /// Also delete policies that are in no file.
    #[arg(long)]
    prune: bool,
    /// Also delete protected entries that are in no file; their targets can then be blocked.
    #[arg(long)]
    prune_protected: bool,
}

/// Confirmation of changes.
#[derive(Clone, Copy, Debug, Args)]
pub struct Consent {
    /// Show the difference and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

/// Flags of `riposte policy diff`.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    site: Site,
}

/// Flags of `riposte policy list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    remote: Remote,
    /// Print JSON, one policy per line.
    #[arg(long)]
    json: bool,
}

/// Flags of `riposte policy show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name)]
    name: String,
    /// Print JSON, with version, times and warnings.
    #[arg(long)]
    json: bool,
}

/// Flags of `riposte policy history`.
#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name)]
    name: String,
    /// Print JSON, one version per line, with its document.
    #[arg(long)]
    json: bool,
}

/// Flags of `riposte policy rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name)]
    name: String,
    /// Version to restore.
    #[arg(long, value_name = "VERSION")]
    to: i64,
}

/// Flags of `riposte policy delete`.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name)]
    name: String,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

/// Flags of `riposte policy reset`.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name)]
    name: String,
    /// Only on this agent, by id or name; default: everywhere.
    #[arg(long)]
    agent: Option<String>,
    /// Reason; recorded in the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Flags of `riposte policy counts`.
#[derive(Debug, Args)]
pub struct Counts {
    #[command(flatten)]
    remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name)]
    name: String,
    /// Length of the range, which ends now.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span)]
    within: Span,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Flags of `riposte policy explain`.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    remote: Remote,
    /// Alert id: Riposte's, or the pipeline's, such as 1795169472.12345.
    #[arg(value_name = "ALERT_ID")]
    alert: String,
    /// Only this policy.
    #[arg(long, value_name = "NAME", value_parser = name)]
    policy: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Flags of `riposte policy test`.
#[derive(Debug, Args)]
pub struct Test {
    #[command(flatten)]
    remote: Remote,
    /// File, or folder with *.yaml, *.yml and *.json below it. With a key, policies may also use
    /// the manager's actions.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    site: Site,
}

/// Flags of `riposte policy backtest`.
#[derive(Debug, Args)]
pub struct Backtest {
    #[command(flatten)]
    remote: Remote,
    /// File with one policy.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Earliest event time: a time such as 2026-11-20T10:00:00Z, or an age such as 7d.
    #[arg(long, value_name = "TIME", value_parser = backtest::instant)]
    since: Option<Timestamp>,
    /// Latest event time, exclusive.
    #[arg(long, value_name = "TIME", value_parser = backtest::instant)]
    until: Option<Timestamp>,
    /// Number of examples.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    samples: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Flags of `riposte policy import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    remote: Remote,
    /// Wazuh's configuration files; several are joined, because Wazuh reads several roots.
    #[arg(value_name = "OSSEC_CONF", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    consent: Consent,
    /// Write YAML files to this folder and change nothing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Mode of every imported policy: observe only records, approve waits for approval.
    #[arg(long, value_enum)]
    mode: Option<ImportMode>,
    /// The Wazuh manager that the files are of, as agents' label `wazuh_manager` says it; needed where there are several.
    #[arg(long, value_name = "NAME")]
    wazuh_manager: Option<String>,
    /// Print what the files come to as JSON and change nothing.
    #[arg(long)]
    json: bool,
}

/// Mode of imported policies.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ImportMode {
    /// Respond.
    Enforce,
    /// Wait for approval.
    Approve,
    /// Only record.
    Observe,
}

impl ImportMode {
    const fn mode(self) -> Mode {
        match self {
            Self::Enforce => Mode::Enforce,
            Self::Approve => Mode::Approve,
            Self::Observe => Mode::Observe,
        }
    }
}

/// Parses the name of a policy.
fn name(text: &str) -> Result<String, &'static str> {
    if is_name(text) { Ok(text.to_owned()) } else { Err("a name is 1 to 64 characters of a-z, 0-9 and '-'") }
}

/// Parses a duration.
fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error: crate::domain::duration::InvalidSpan| error.to_string())
}

/// Runs a subcommand.
///
/// # Errors
/// If the manager cannot be reached, or refuses.
pub async fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Apply(args) => apply::apply(args).await,
        PolicyCommand::Diff(args) => apply::diff(args).await,
        PolicyCommand::List(args) => stored::list(args).await,
        PolicyCommand::Show(args) => stored::show(args).await,
        PolicyCommand::History(args) => stored::history(args).await,
        PolicyCommand::Rollback(args) => stored::rollback(args).await,
        PolicyCommand::Delete(args) => stored::delete(args).await,
        PolicyCommand::Reset(args) => stored::reset(args).await,
        PolicyCommand::Counts(args) => stored::counts(args).await,
        PolicyCommand::Explain(args) => explain::run(args).await,
        PolicyCommand::Test(args) => trial::run(args).await,
        PolicyCommand::Backtest(args) => backtest::run(args).await,
        PolicyCommand::Import(args) => import::run(args).await,
    }
}
