//! The arguments of `riposte policy …`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap_complete::ArgValueCompleter;
use riposte_protocol::time::Timestamp;

use crate::cli::client::Remote;
use crate::cli::complete;
use crate::cli::listing::Listing;
use crate::cli::mappings;
use crate::cli::shown::ShownArgs;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::duration::Span;
use crate::domain::formats::AlertMappings;
use crate::domain::policy::{Mode, is_name};

/// The files to read.
#[derive(Debug, Args)]
pub(super) struct Files {
    /// File, or folder with *.yaml, *.yml and *.json below it; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    pub(super) paths: Vec<PathBuf>,
}

/// Site-specific settings.
#[derive(Debug, Args)]
pub(in crate::cli) struct Site {
    /// Configuration file of the manager, for its `[observables]` and `[pipelines]`.
    #[arg(long, env = "RIPOSTE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Site {
    pub(in crate::cli) fn mappings(&self) -> anyhow::Result<AlertMappings> {
        let Some(path) = &self.config else { return Ok(AlertMappings::default()) };
        mappings::of(&Config::read(path)?).with_context(|| path.display().to_string())
    }
}

/// Flags of `riposte policy apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub(super) remote: Remote,
    #[command(flatten)]
    pub(super) files: Files,
    #[command(flatten)]
    pub(super) site: Site,
    #[command(flatten)]
    pub(super) consent: Consent,
    /// Also delete policies that are in no file.
    #[arg(long)]
    pub(super) prune: bool,
    /// Also delete protected entries that are in no file; their targets can then be blocked.
    #[arg(long)]
    pub(super) prune_protected: bool,
}

/// Confirmation of changes.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Consent {
    /// Show the difference and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Flags of `riposte policy diff`.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    pub(super) remote: Remote,
    #[command(flatten)]
    pub(super) files: Files,
    #[command(flatten)]
    pub(super) site: Site,
}

/// Flags of `riposte policy list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub(super) listing: Listing,
}

/// A policy of a manager.
#[derive(Debug, Args)]
pub(super) struct NamedPolicy {
    #[command(flatten)]
    pub(super) remote: Remote,
    /// Name of the policy.
    #[arg(value_parser = name, add = ArgValueCompleter::new(complete::policies))]
    pub(super) name: String,
}

/// Flags of `riposte policy show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Which manager, and the form; JSON has version, times and warnings too.
    #[command(flatten)]
    pub(super) shown: ShownArgs,
    /// Name of the policy.
    #[arg(value_parser = name, add = ArgValueCompleter::new(complete::policies))]
    pub(super) name: String,
}

/// Flags of `riposte policy history`.
#[derive(Debug, Args)]
pub struct History {
    /// Which manager, and the form; JSON has the document of each version too.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// Name of the policy.
    #[arg(value_parser = name, add = ArgValueCompleter::new(complete::policies))]
    pub(super) name: String,
}

/// Flags of `riposte policy rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub(super) policy: NamedPolicy,
    /// Version to restore.
    #[arg(long, value_name = "VERSION")]
    pub(super) to: i64,
}

/// Flags of `riposte policy mode`.
#[derive(Debug, Args)]
pub struct ModeArgs {
    #[command(flatten)]
    pub(super) policy: NamedPolicy,
    /// The mode.
    #[arg(value_enum)]
    pub(super) mode: ModeFlag,
}

/// Flags of `riposte policy delete`.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    pub(super) policy: NamedPolicy,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Flags of `riposte policy reset`.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    pub(super) policy: NamedPolicy,
    /// Only on this agent, by id or name; default: everywhere.
    #[arg(long)]
    pub(super) agent: Option<String>,
    /// Reason; recorded in the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
}

/// Flags of `riposte policy counts`.
#[derive(Debug, Args)]
pub struct Counts {
    #[command(flatten)]
    pub(super) policy: NamedPolicy,
    /// Length of the range, which ends now.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span)]
    pub(super) within: Span,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `riposte policy explain`.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub(super) remote: Remote,
    /// Alert id: Riposte's, or the pipeline's, such as 1795169472.12345.
    #[arg(value_name = "ALERT_ID")]
    pub(super) alert: String,
    /// Only this policy.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(super) policy: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `riposte policy test`.
#[derive(Debug, Args)]
pub struct Test {
    #[command(flatten)]
    pub(super) remote: Remote,
    /// File, or folder with *.yaml, *.yml and *.json below it. With a key, policies may also use
    /// the manager's actions.
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) site: Site,
}

/// Flags of `riposte policy backtest`.
#[derive(Debug, Args)]
pub struct Backtest {
    #[command(flatten)]
    pub(super) remote: Remote,
    /// File with one policy.
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Earliest event time: a time such as 2026-11-20T10:00:00Z, or an age such as 7d.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) since: Option<Timestamp>,
    /// Latest event time, exclusive.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) until: Option<Timestamp>,
    /// Number of examples.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub(super) samples: u16,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `riposte policy import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    pub(super) remote: Remote,
    /// Wazuh's configuration files; several are joined, because Wazuh reads several roots.
    #[arg(value_name = "OSSEC_CONF", required = true)]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) consent: Consent,
    /// Write YAML files to this folder and change nothing.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Mode of every imported policy: observe only records, approve waits for approval.
    #[arg(long, value_enum)]
    pub(super) mode: Option<ModeFlag>,
    /// The Wazuh manager that the files are of, as agents' label `wazuh_manager` says it; needed where there are several.
    #[arg(long, value_name = "NAME")]
    pub(super) wazuh_manager: Option<String>,
    /// Print what the files come to as JSON and change nothing.
    #[arg(long)]
    pub(super) json: bool,
}

impl ImportArgs {
    /// One file, to policies that only observe.
    pub(super) fn to_observe(remote: Remote, file: PathBuf, dry_run: bool) -> Self {
        let (consent, mode) = (Consent { dry_run, yes: true }, Some(ModeFlag::Observe));
        Self { remote, files: vec![file], consent, out: None, mode, wazuh_manager: None, json: false }
    }
}

/// Mode of policies that a command makes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum ModeFlag {
    /// Respond.
    Enforce,
    /// Wait for approval.
    Approve,
    /// Only record.
    Observe,
}

impl ModeFlag {
    pub(super) const fn mode(self) -> Mode {
        match self {
            Self::Enforce => Mode::Enforce,
            Self::Approve => Mode::Approve,
            Self::Observe => Mode::Observe,
        }
    }
}

/// Flags of `riposte policy library list`.
#[derive(Debug, Args)]
pub struct LibraryList {
    /// List the frequent rules without a safe response instead, each with the reason.
    #[arg(long)]
    pub(super) without: bool,
    /// Print JSON, one entry per line.
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `riposte policy library show`.
#[derive(Debug, Args)]
pub struct LibraryShow {
    /// Name of the policy in the library.
    pub(super) name: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `riposte policy library add`.
#[derive(Debug, Args)]
pub struct LibraryAdd {
    #[command(flatten)]
    pub(super) remote: Remote,
    /// Names of policies in the library.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(super) names: Vec<String>,
    /// Every policy of the library.
    #[arg(long, conflicts_with = "names")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
    /// Mode of the policies; by default a new one observes, and one that is there keeps its mode.
    #[arg(long, value_enum)]
    pub(super) mode: Option<ModeFlag>,
    /// Also replace policies that are on the manager and differ from the library by more than the mode.
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Write YAML files to this folder and change nothing.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["overwrite", "dry_run", "yes"])]
    pub(super) to: Option<PathBuf>,
}

/// Parses the name of a policy.
fn name(text: &str) -> Result<String, &'static str> {
    if is_name(text) { Ok(text.to_owned()) } else { Err("a name is 1 to 64 characters of a-z, 0-9 and '-'") }
}

/// Parses a duration.
fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error: crate::domain::duration::InvalidSpan| error.to_string())
}

/// Parses a time, or an age such as `7d`.
///
/// # Errors
/// If it is neither.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    let ago = || text.parse::<Span>().ok().map(|span| Clock::system().now().minus(span.duration()));
    let wrong = "is neither a time such as 2026-11-20T10:00:00Z nor how long ago, such as 7d";
    text.parse().ok().or_else(ago).ok_or_else(|| wrong.to_owned())
}
