//! `riposte effect` and `riposte agent drift`: what is in force where.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::commands::agent_names;
use super::phrases::{ago, ends};
use super::resolve::{self, short};
use crate::cli::client::segment;
use crate::cli::complete;
use crate::cli::reply::Said;
use crate::cli::shown::{ListForm, WatchedArgs};
use crate::cli::terminal::cell;
use crate::clock::Clock;
use crate::domain::effect::{Actual, Desired};
use crate::views::effects::EffectRow;
use crate::views::page::Page;

/// Effects.
#[derive(Debug, Subcommand)]
pub enum EffectCommand {
    /// List effects, newest first.
    List(EffectList),
    /// List effects again every 2 seconds, until interrupted.
    Watch(EffectList),
}

/// Which effects.
#[derive(Debug, Args)]
pub struct EffectList {
    #[command(flatten)]
    watched: WatchedArgs,
    /// Only on this agent, by name or id.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::agents))]
    agent: Option<String>,
    /// Only on this target.
    #[arg(long, value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: Option<String>,
    /// Only with this wanted state.
    #[arg(long, value_parser = PossibleValuesParser::new([Desired::InForce, Desired::Absent].map(Desired::as_str)))]
    desired: Option<String>,
    /// Only with this reported state.
    #[arg(long, value_parser = PossibleValuesParser::new(Actual::ALL.map(Actual::as_str)))]
    actual: Option<String>,
    /// Only those whose last revert failed.
    #[arg(long)]
    failing: bool,
}

/// Where effects were lost.
#[derive(Debug, Args)]
pub struct DriftArgs {
    #[command(flatten)]
    watched: WatchedArgs,
    /// Only on this agent, by name or id.
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    agent: Option<String>,
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: EffectCommand) -> anyhow::Result<ExitCode> {
    let args = match command {
        EffectCommand::List(args) => args,
        EffectCommand::Watch(args) => EffectList { watched: args.watched.watching(), ..args },
    };
    args.watched.again(async || list(&args).await).await?;
    Ok(ExitCode::SUCCESS)
}

/// `riposte agent drift`
///
/// # Errors
/// As [`run`].
pub async fn drift(args: DriftArgs) -> anyhow::Result<ExitCode> {
    let DriftArgs { watched, agent } = args;
    let actual = Some(Actual::Drifted.as_str().to_owned());
    run(EffectCommand::List(EffectList { watched, agent, target: None, desired: None, actual, failing: false })).await
}

async fn list(args: &EffectList) -> anyhow::Result<()> {
    let EffectList { watched, agent, target, desired, actual, failing } = args;
    let remote = &watched.shown.remote;
    let agent = match agent {
        Some(word) => Some(resolve::agent(remote, word).await?),
        None => None,
    };
    let filter = [("agent_id", &agent), ("target", target), ("desired", desired), ("actual", actual)];
    let filter =
        filter.iter().filter_map(|(name, word)| word.as_ref().map(|word| format!("&{name}={}", segment(word))));
    let failing = if *failing { "&failing=true" } else { "" };
    let path = format!("/v1/effects?limit={}{}{failing}", watched.limit, filter.collect::<String>());
    let page: Page<Said<EffectRow>> = remote.get(&path).await?;
    let (names, now) = (agent_names(remote).await?, Clock::system().now());
    let form = ListForm {
        noun: ("effect", "effects"),
        head: &["id", "agent", "action", "target", "wanted", "is", "ends", "why"],
        more: &["failed reverts", "changed"],
        row: &|row: &EffectRow| {
            let until = if row.desired == Desired::Absent { "-".to_owned() } else { ends(row.until, now) };
            vec![
                short(&row.id).to_owned(),
                names.get(&row.agent_id).unwrap_or(&row.agent_id).clone(),
                row.action.clone(),
                format!("{} {}", row.target_kind, row.target_value).trim_end().to_owned(),
                row.desired.as_str().replace('_', " "),
                row.actual.as_str().replace('_', " "),
                until,
                cell(Some(&row.last_reason)),
                row.failed_reverts.to_string(),
                ago(row.changed_at, now),
            ]
        },
        name: &|row: &EffectRow| row.id.clone(),
    };
    watched.shown.print(&page.items, &form, &watched.more(page.next_cursor.is_some(), "effects"))
}
