//! `riposte command`: what agents are told to do, and what they answer.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::change::ChangeArgs;
use super::phrases::ago;
use super::resolve::{self, one_of, short};
use crate::cli::client::{Remote, segment};
use crate::cli::complete;
use crate::cli::output::say;
use crate::cli::reply::Said;
use crate::cli::shown::{ListForm, ShownArgs, WatchedArgs};
use crate::cli::terminal::{cell, plain};
use crate::clock::Clock;
use crate::domain::command::CommandState;
use crate::views::agents::AgentView;
use crate::views::commands::{Cancel, CommandRow, CommandView};
use crate::views::page::Page;

/// States of commands that came to nothing.
const FAILED: [CommandState; 4] =
    [CommandState::Failed, CommandState::TimedOut, CommandState::Expired, CommandState::Refused];

/// Commands to agents.
#[derive(Debug, Subcommand)]
pub enum CommandCommand {
    /// List commands, newest first.
    List(CommandList),
    /// Show one command with its result.
    Show(OneCommand),
    /// Cancel an apply that is still queued.
    Cancel(CancelCommand),
}

/// Which commands.
#[derive(Debug, Args)]
pub struct CommandList {
    #[command(flatten)]
    watched: WatchedArgs,
    /// Only those that failed, timed out, expired or were refused.
    #[arg(short, long, conflicts_with = "state")]
    failed: bool,
    /// Only in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(CommandState::ALL.map(CommandState::as_str)))]
    state: Option<String>,
    /// Only to this agent, by name or id.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::agents))]
    agent: Option<String>,
}

/// Which command.
#[derive(Debug, Args)]
pub struct OneCommand {
    #[command(flatten)]
    shown: ShownArgs,
    /// Its id, or a part of it.
    #[arg(value_name = "ID")]
    id: String,
}

/// Which command, and why.
#[derive(Debug, Args)]
pub struct CancelCommand {
    #[command(flatten)]
    change: ChangeArgs,
    /// Its id, or a part of it.
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: CommandCommand) -> anyhow::Result<ExitCode> {
    match command {
        CommandCommand::List(args) => args.watched.again(async || list(&args).await).await?,
        CommandCommand::Show(args) => show(args).await?,
        CommandCommand::Cancel(args) => return cancel(args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of agents by id, also of those that were revoked.
pub async fn agent_names(remote: &Remote) -> anyhow::Result<HashMap<String, String>> {
    let agents: Vec<AgentView> = remote.items("/v1/agents?revoked=true").await?;
    Ok(agents.into_iter().map(|view| (view.agent.id, view.agent.name)).collect())
}

async fn list(args: &CommandList) -> anyhow::Result<()> {
    let CommandList { watched, failed, state, agent } = args;
    let remote = &watched.shown.remote;
    let of = match agent {
        Some(word) => format!("&agent_id={}", resolve::agent(remote, word).await?),
        None => String::new(),
    };
    let states: Vec<Option<&str>> = match (failed, state) {
        (true, _) => FAILED.iter().map(|state| Some(state.as_str())).collect(),
        (false, state) => vec![state.as_deref()],
    };
    let (mut items, mut is_more) = (Vec::new(), false);
    for state in states {
        let state = state.map_or_else(String::new, |word| format!("&state={word}"));
        let path = format!("/v1/commands?limit={}{of}{state}", watched.limit);
        let page: Page<Said<CommandRow>> = remote.get(&path).await?;
        is_more |= page.next_cursor.is_some();
        items.extend(page.items);
    }
    items.sort_by(|one, other| other.view.id.cmp(&one.view.id));
    is_more |= items.len() > usize::from(watched.limit);
    items.truncate(usize::from(watched.limit));
    let (names, now) = (agent_names(remote).await?, Clock::system().now());
    let form = ListForm {
        noun: ("command", "commands"),
        head: &["id", "when", "agent", "what", "state", "why"],
        more: &["response", "deliveries"],
        row: &|row: &CommandRow| {
            vec![
                short(&row.id).to_owned(),
                ago(row.created_at, now),
                names.get(&row.agent_id).unwrap_or(&row.agent_id).clone(),
                what(row),
                row.state.as_str().replace('_', " "),
                cell(Some(&row.detail)),
                short(&row.response_id).to_owned(),
                row.deliveries.to_string(),
            ]
        },
        name: &|row: &CommandRow| row.id.clone(),
    };
    watched.shown.print(&items, &form, &watched.more(is_more, "commands"))
}

fn what(row: &CommandRow) -> String {
    format!("{} {} {}", row.op.as_str(), row.action, row.target_value).trim_end().to_owned()
}

/// The id of a command by a part of it, among the newest.
async fn id(remote: &Remote, word: &str) -> anyhow::Result<String> {
    if word.parse::<uuid::Uuid>().is_ok() {
        return Ok(word.to_owned());
    }
    let newest: Page<CommandRow> = remote.get("/v1/commands?limit=500").await?;
    let ids: Vec<String> = newest.items.into_iter().map(|row| row.id).collect();
    one_of(&ids, word, "command", "riposte command list")
}

async fn show(args: OneCommand) -> anyhow::Result<()> {
    let OneCommand { shown, id: word } = args;
    let id = id(&shown.remote, &word).await?;
    let said: Said<CommandView> = shown.remote.get(&format!("/v1/commands/{}", segment(&id))).await?;
    let names = agent_names(&shown.remote).await?;
    shown.print_one(&said, &id, |view| {
        let CommandView { command, result } = view;
        let agent = names.get(&command.agent_id).unwrap_or(&command.agent_id);
        let mut lines = vec![
            format!("command {}", command.id),
            format!("  what       {}", what(command)),
            format!("  agent      {agent}"),
            format!("  state      {}{}", command.state.as_str(), colon(&command.detail)),
            format!("  response   {}", command.response_id),
            format!("  queued     {}", command.created_at),
        ];
        let times = [
            ("delivered", command.delivered_at),
            ("received", command.acknowledged_at),
            ("finished", command.finished_at),
        ];
        lines.extend(times.iter().filter_map(|(word, at)| at.map(|at| format!("  {word:10} {at}"))));
        if let Some(result) = result {
            let code = result.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
            lines.push(format!("  result     {}{code}{}", result.outcome.as_str(), colon(&result.message)));
            lines.extend(result.output.lines().map(|line| format!("    | {line}")));
        }
        lines
    })
}

fn colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

async fn cancel(args: CancelCommand) -> anyhow::Result<ExitCode> {
    let CancelCommand { change, id: word } = args;
    let id = id(&change.consent.remote, &word).await?;
    let view: CommandView = change.consent.remote.get(&format!("/v1/commands/{}", segment(&id))).await?;
    let names = agent_names(&change.consent.remote).await?;
    let agent = names.get(&view.command.agent_id).unwrap_or(&view.command.agent_id);
    let plan = format!("cancels {} on {agent}, which is {}", what(&view.command), view.command.state.as_str());
    if let Some(code) = change.consent.stops(&[plan], "cancel this command?") {
        return Ok(code);
    }
    let body = Cancel { reason: change.reason.clone() };
    let view: CommandView = change.consent.remote.post(&format!("/v1/commands/{}/cancel", segment(&id)), &body).await?;
    say(&plain(&format!("command {id}: {}", view.command.state.as_str())));
    Ok(ExitCode::SUCCESS)
}
