//! The command line: nouns, then verbs; `--json` for programs, tables for people. Exit code 0 on
//! success, 1 on failure, 2 for wrong usage.

pub mod agent;
pub mod alert;
pub mod audit;
pub mod backup;
mod backup_keys;
pub mod bundle;
pub mod client;
pub mod compare;
pub mod complete;
pub mod config;
pub mod context;
pub mod contexts;
pub mod demo;
mod event_messages;
pub mod event_selection;
pub mod events;
pub mod feed;
pub mod forward;
pub mod hold;
pub mod key;
pub mod keyfiles;
pub mod listing;
pub mod manual;
mod mappings;
pub mod night;
pub mod node;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "no_otlp.rs"]
mod otlp;
mod output;
mod passphrase;
pub mod pipeline;
pub mod policy;
pub mod reply;
pub mod report;
pub mod response;
mod sealed;
pub mod secret;
pub mod serve;
pub mod session;
pub mod setup;
pub mod shown;
mod sign_on;
pub mod signing;
mod signing_file;
mod signing_key;
mod sso;
pub mod terminal;
mod tls;
pub mod top;
pub mod transfer;
pub mod unreachable;
mod upgrade_backup;
pub mod user;
pub mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use client::Remote;
use night::approvals::ApprovalChoice;
use output::{complain, say};
use serve::ServeArgs;

use crate::store::StoreError;

/// Alerts in, commands out, every block lifted again.
#[derive(Debug, Parser)]
#[command(name = "riposte", version, about, infer_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the manager.
    Serve(Box<ServeArgs>),
    /// Run a manager and an agent with sample alerts, and watch.
    Demo(demo::DemoArgs),
    /// Forward Wazuh's alerts from `alerts.json` to a manager, without loss.
    Forward(Box<forward::ForwardArgs>),
    /// Check whether a manager is ready; exit code 0 if it is, 1 if not.
    Status(Remote),
    /// List what is blocked: where, why, by whom and until when.
    #[command(visible_alias = "ls")]
    Blocked(Box<night::targets::BlockedArgs>),
    /// Block an address, an account or a file now.
    #[command(visible_alias = "ban")]
    Block(Box<night::block::BlockArgs>),
    /// Lift everything on a target, or of a policy.
    #[command(visible_alias = "unban")]
    Unblock(Box<night::unblock::UnblockArgs>),
    /// List what waits for approval.
    Waiting(night::approvals::WaitingArgs),
    /// Approve what waits.
    Approve(night::approvals::DecideArgs),
    /// Reject what waits.
    Reject(night::approvals::DecideArgs),
    /// Stop the delivery of everything but reverts.
    #[command(subcommand)]
    Freeze(night::freeze::FreezeCommand),
    /// Protect a target from responses, and list what is protected.
    #[command(visible_alias = "allowlist")]
    Protect(Box<night::protect::ProtectArgs>),
    /// Show everything known of an address, account or file.
    #[command(subcommand)]
    Target(night::targets::TargetCommand),
    /// List effects: what is in force on which agent.
    #[command(subcommand)]
    Effect(night::effects::EffectCommand),
    /// List commands to agents, show and cancel them.
    #[command(subcommand, name = "command")]
    Orders(night::commands::CommandCommand),
    /// Find and explain alerts.
    #[command(subcommand)]
    Alert(alert::AlertCommand),
    /// List responses, and show what became of them on each agent.
    #[command(subcommand)]
    Response(response::ResponseCommand),
    /// Print what happened, or follow what happens.
    Events(Box<events::EventsArgs>),
    /// Manage agents and their enrolment.
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Manage policies, in files and on a manager.
    #[command(subcommand)]
    Policy(Box<policy::PolicyCommand>),
    /// See how alerts of other pipelines are read.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Set up what other programs need.
    #[command(subcommand)]
    Setup(setup::SetupCommand),
    /// Watch rates, what waits, undo that fails and agents that are away, on one screen.
    Top(top::TopArgs),
    /// Make a report of a month for auditors: blocks, time to contain, undo, approvals, spared, access.
    Report(report::ReportArgs),
    /// Compare what Wazuh's active response did with what Riposte did or observed.
    Compare(compare::CompareArgs),
    /// Log in as a person, and store the session in a context.
    Login(session::LoginArgs),
    /// End the session at the manager, and forget it here.
    Logout(Remote),
    /// Show who this manager takes the caller for, and the rights.
    Whoami(shown::ShownArgs),
    /// Manage people, and one's own password and one-time codes.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Lists of addresses in force that firewalls and bouncers fetch.
    #[command(subcommand)]
    Feed(feed::FeedCommand),
    /// Secrets that policies refer to.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Webhooks: who is sent the events.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Place and release legal holds: what no retention removes.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// The managers on one ledger.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Manage API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Manage the contexts of this account: managers, and sessions there.
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Verify the audit log, also offline and against checkpoints that were kept elsewhere.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Rotate the signing key, and encrypt it at rest.
    #[command(subcommand)]
    SigningKey(signing_key::SigningKeyCommand),
    /// Back up a manager on SQLite while it runs.
    Backup {
        #[command(flatten)]
        store: backup::StoreArgs,
        #[command(flatten)]
        keys: backup_keys::BackupKeyArgs,
        /// New folder for the backup; must not exist.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Create a data directory from a backup.
    Restore {
        /// Folder created by `backup`.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// New data directory.
        #[arg(long, env = "RIPOSTE_DATA_DIR")]
        data_dir: PathBuf,
        /// File of the passphrase that encrypts the keys of the backup.
        #[arg(long, env = "RIPOSTE_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Write a whole ledger into one file, to move it to another database.
    Export(transfer::export::LedgerExportArgs),
    /// Load a file of `export` into an empty database, and verify it.
    Import(transfer::import::LedgerImportArgs),
    /// Check a store for consistency; exit code 1 on findings. Changes nothing.
    Doctor {
        #[command(flatten)]
        store: backup::StoreArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration before a start.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make certificates.
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// Print the HTTP contract (OpenAPI 3.1, YAML).
    Openapi,
    /// Print shell completions.
    Completions {
        /// Name of the shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages.
    Man {
        /// Target folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// The clap definition of the command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command in the process arguments.
pub fn run() -> ExitCode {
    match complete::answered(command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
    let outcome = match Cli::parse().command {
        Command::Serve(args) => block_on(serve::run(*args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Forward(args) => block_on(forward::run(*args)),
        Command::Status(remote) => block_on(client::status(remote)),
        Command::Blocked(args) => block_on(night::targets::blocked(*args)),
        Command::Block(args) => block_on(night::block::run(*args)),
        Command::Unblock(args) => block_on(night::unblock::run(*args)),
        Command::Waiting(args) => block_on(night::approvals::waiting(args)),
        Command::Approve(args) => block_on(night::approvals::decide(args, ApprovalChoice::Approve)),
        Command::Reject(args) => block_on(night::approvals::decide(args, ApprovalChoice::Reject)),
        Command::Freeze(command) => block_on(night::freeze::run(command)),
        Command::Protect(args) => block_on(night::protect::run(*args)),
        Command::Target(command) => block_on(night::targets::run(command)),
        Command::Effect(command) => block_on(night::effects::run(command)),
        Command::Orders(command) => block_on(night::commands::run(command)),
        Command::Alert(command) => block_on(alert::run(command)),
        Command::Response(command) => block_on(response::run(command)),
        Command::Events(args) => block_on(events::run(*args)),
        Command::Agent(command) => block_on(agent::run(command)),
        Command::Policy(command) => block_on(policy::run(*command)),
        Command::Pipeline(command) => pipeline::run(command),
        Command::Setup(command) => block_on(setup::run(command)),
        Command::Top(args) => block_on(top::run(args)),
        Command::Report(args) => block_on(report::run(args)),
        Command::Compare(args) => block_on(compare::run(args)),
        Command::Login(args) => block_on(session::login(args)),
        Command::Logout(remote) => block_on(session::logout(remote)),
        Command::Whoami(args) => block_on(session::whoami(args)),
        Command::User(command) => block_on(user::run(command)),
        Command::Feed(command) => block_on(feed::run(command)),
        Command::Secret(command) => block_on(secret::run(command)),
        Command::Webhook(command) => block_on(webhook::run(command)),
        Command::Hold(command) => block_on(hold::run(command)),
        Command::Node(command) => block_on(node::run(command)),
        Command::Key(command) => block_on(key::run(command)),
        Command::Context(command) => block_on(context::run(command)),
        Command::Audit(command) => block_on(audit::run(command)),
        Command::SigningKey(command) => block_on(signing_key::run(command)),
        Command::Backup { store, keys, to } => block_on(backup::backup(store, keys, to)),
        Command::Restore { from, data_dir, passphrase_file } => {
            block_on(backup::restore(from, data_dir, passphrase_file))
        }
        Command::Export(args) => block_on(transfer::export::run(args)),
        Command::Import(args) => block_on(transfer::import::run(args)),
        Command::Doctor { store, json } => block_on(backup::doctor(store, json)),
        Command::Config(command) => config::run(command),
        Command::Tls(command) => tls::run(command),
        Command::Openapi => crate::api::contract_file().map_err(Into::into).map(|text| {
            say(text.trim_end());
            ExitCode::SUCCESS
        }),
        Command::Completions { shell } => complete::script(shell).map(|script| {
            say(script.trim());
            ExitCode::SUCCESS
        }),
        Command::Man { folder } => manual::pages(command(), &folder),
    };
    outcome.unwrap_or_else(|error| {
        complain(&terminal::plain_lines(&format!("riposte: {}", sentence(&error))));
        ExitCode::FAILURE
    })
}

/// An error with its causes. What the store says is in its own words for an operator.
fn sentence(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            parts.push(error.in_words());
            break;
        }
        parts.push(cause.to_string());
    }
    parts.join(": ")
}

fn block_on<F: Future<Output = anyhow::Result<ExitCode>>>(work: F) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
