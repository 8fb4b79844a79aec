//! `riposte policy …`: policies in files and on a manager. `args.rs` has the arguments; each
//! subcommand has its own file or part of one. Files are checked by the manager's own code, so a
//! file that passes is not refused there.

mod apply;
pub(super) mod args;
mod backtest;
pub(crate) mod explain;
mod files;
mod import;
mod library;
mod new_files;
pub(super) mod plan;
mod protected;
mod stored;
mod text;
mod trial;
mod yaml;

use std::process::ExitCode;

use clap::Subcommand;

use std::path::PathBuf;

use super::client::Remote;
use args::{
    Apply, Backtest, Counts, Delete, Diff, Explain, History, ImportArgs, ListArgs, ModeArgs, Reset, RollbackArgs, Show,
    Test,
};

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
    /// Set the mode of a policy: enforce, approve or observe.
    Mode(ModeArgs),
    /// Ready-made policies for frequent rules of Wazuh, in mode observe.
    #[command(subcommand)]
    Library(library::LibraryCommand),
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
        PolicyCommand::Mode(args) => stored::mode(args).await,
        PolicyCommand::Library(command) => library::run(command).await,
    }
}

/// Imports the active responses of a Wazuh manager as policies that only observe, without a question. A configuration without
/// any is none of the caller's concern.
///
/// # Errors
/// If the file cannot be read, or the manager refuses.
pub(super) async fn import_to_observe(remote: Remote, file: PathBuf, dry_run: bool) -> anyhow::Result<ExitCode> {
    import::run(ImportArgs::to_observe(remote, file, dry_run)).await
}
