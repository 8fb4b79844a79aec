//! `riposte protect`: what no response may touch.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use riposte_protocol::time::Timestamp;

use super::change::ChangeArgs;
use super::phrases::{Actors, counted, ends, len};
use super::resolve::{self, kind_of, one_of, short};
use crate::cli::client::NO_BODY;
use crate::cli::output::say;
use crate::cli::reply::Said;
use crate::cli::shown::{ListForm, ShownArgs};
use crate::cli::terminal::plain;
use crate::clock::Clock;
use crate::domain::duration::Span;
use crate::views::protected::{CreateProtected, CreatedProtected, ProtectedRow};

/// Kinds of protected entries.
const KINDS: [&str; 6] = ["ip", "user", "file", "process", "host", "agent"];

/// What to protect, or another command.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ProtectArgs {
    #[command(subcommand)]
    command: Option<ProtectCommand>,
    #[command(flatten)]
    add: AddArgs,
}

/// Protected entries.
#[derive(Debug, Subcommand)]
enum ProtectCommand {
    /// List the protected entries.
    List(ShownArgs),
    /// Protect a target; as `riposte protect TARGET`.
    Add(AddArgs),
    /// Say which entries protect a target; exit code 0 if one does, 1 if none.
    Check(CheckArgs),
    /// Delete a protected entry, by its value, its id or a part of it.
    Remove(RemoveArgs),
}

/// What to protect.
#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Address, network, account or file; with `--kind agent` or `host`, an agent.
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Its kind, where the text does not say it.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// From this policy only; may be repeated.
    #[arg(short, long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// For how long, such as `30d`; by default until it is removed.
    #[arg(long = "for", value_name = "DURATION")]
    expires_in: Option<Span>,
}

/// Which target.
#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    shown: ShownArgs,
    /// Address, network, account or file.
    #[arg(value_name = "TARGET")]
    target: String,
}

/// Which entry.
#[derive(Debug, Args)]
struct RemoveArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Value or id of the entry.
    #[arg(value_name = "TARGET|ID")]
    entry: String,
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(args: ProtectArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(ProtectCommand::List(shown)) => {
            let entries: Vec<Said<ProtectedRow>> = shown.remote.items("/v1/protected").await?;
            print(&shown, &entries).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(ProtectCommand::Check(args)) => check(args).await,
        Some(ProtectCommand::Remove(args)) => remove(args).await,
        Some(ProtectCommand::Add(args)) => add(args).await,
        None => add(args.add).await,
    }
}

async fn print(shown: &ShownArgs, entries: &[Said<ProtectedRow>]) -> anyhow::Result<()> {
    let by = entries.iter().map(|said| said.view.created_by.as_str());
    let (actors, now) = (Actors::of(&shown.remote, by).await, Clock::system().now());
    let form = ListForm {
        noun: ("protected entry", "protected entries"),
        head: &["kind", "value", "from", "reason", "by", "ends"],
        more: &["id"],
        row: &|row: &ProtectedRow| cells(row, &actors, now),
        name: &|row: &ProtectedRow| row.value.clone(),
    };
    shown.print(entries, &form, &[])
}

fn cells(row: &ProtectedRow, actors: &Actors, now: Timestamp) -> Vec<String> {
    let policies: Vec<String> = row.policies.read().unwrap_or_default();
    let from = if policies.is_empty() { "every response".to_owned() } else { policies.join(", ") };
    let (reason, by, id) = (row.reason.clone(), actors.name(&row.created_by), short(&row.id).to_owned());
    let until = if row.expires_at.is_none() { "when removed".to_owned() } else { ends(row.expires_at, now) };
    vec![row.kind.clone(), row.value.clone(), from, reason, by, until, id]
}

async fn add(args: AddArgs) -> anyhow::Result<ExitCode> {
    let AddArgs { change, target, kind, policies, expires_in } = args;
    let target = target.context("name a target to protect; `riposte protect list` lists what is protected")?;
    let body = CreateProtected {
        kind: kind.unwrap_or_else(|| kind_of(&target).to_string()),
        value: target,
        policies,
        reason: change.reason.clone(),
        expires_in,
    };
    let plan: CreatedProtected = change.consent.remote.post("/v1/protected?dry_run=true", &body).await?;
    let until = expires_in.map_or_else(|| "until it is removed".to_owned(), |span| format!("for {span}"));
    let from = if body.policies.is_empty() { "every response".to_owned() } else { body.policies.join(", ") };
    let mut lines = vec![format!("protects {} {} from {from}, {until}", plan.kind, plan.value)];
    if !plan.lifts.is_empty() {
        lines.push(format!("  lifts {} on it", counted(len(&plan.lifts), "hold", "holds")));
    }
    lines.extend(plan.warnings.iter().map(|fault| format!("  warning: {}", fault.detail)));
    if let Some(code) = change.consent.stops(&lines, &format!("protect {}?", plan.value)) {
        return Ok(code);
    }
    let made: CreatedProtected = change.consent.remote.post("/v1/protected", &body).await?;
    say(&plain(&format!("{} {} is protected; `riposte protect remove {}` ends it", made.kind, made.value, made.value)));
    Ok(ExitCode::SUCCESS)
}

async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let said = resolve::target(&args.shown.remote, &args.target, None).await?;
    let entries: Vec<Said<ProtectedRow>> = said
        .view
        .protected
        .iter()
        .map(|row| Ok(Said { json: serde_json::to_value(row)?, view: row.clone() }))
        .collect::<anyhow::Result<_>>()?;
    print(&args.shown, &entries).await?;
    Ok(if entries.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn remove(args: RemoveArgs) -> anyhow::Result<ExitCode> {
    let RemoveArgs { change, entry } = args;
    let entries: Vec<ProtectedRow> = change.consent.remote.items("/v1/protected").await?;
    let named: Vec<String> = entries.iter().filter(|row| row.value == entry.trim()).map(|row| row.id.clone()).collect();
    let id = match named.as_slice() {
        [only] => only.clone(),
        [] => {
            let ids: Vec<String> = entries.iter().map(|row| row.id.clone()).collect();
            one_of(&ids, &entry, "protected entry", "riposte protect list")?
        }
        several => bail!(
            "{} protect {entry}: name one by its id; `riposte protect list -o wide` shows it",
            counted(len(several), "entry", "entries")
        ),
    };
    let row = entries.iter().find(|row| row.id == id);
    ensure!(row.is_some(), "no protected entry has the id {id}; `riposte protect list` lists them");
    let actors = Actors::of(&change.consent.remote, row.iter().map(|row| row.created_by.as_str())).await;
    let plan: Vec<String> = row
        .iter()
        .map(|row| {
            let by = actors.name(&row.created_by);
            format!("ends the protection of {} {}, created by {by}: {}", row.kind, row.value, row.reason)
        })
        .collect();
    if let Some(code) = change.consent.stops(&plan, "remove this entry?") {
        return Ok(code);
    }
    change.consent.remote.send(Method::DELETE, &format!("/v1/protected/{id}"), None, NO_BODY).await?.accepted()?;
    say("removed");
    Ok(ExitCode::SUCCESS)
}
