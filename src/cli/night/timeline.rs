//! `riposte response timeline` and `confirm`: what happened to one response in the order of time, and a person's
//! confirmation of one that acted first.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use clap_complete::ArgValueCompleter;

use super::change::ChangeArgs;
use super::commands::agent_names;
use super::phrases::{Actors, aim, ends, state_of};
use super::resolve::{self, short};
use crate::cli::complete;
use crate::cli::output::say;
use crate::cli::reply::Said;
use crate::cli::shown::ShownArgs;
use crate::cli::terminal::plain;
use crate::clock::Clock;
use crate::views::columns::Millis;
use crate::views::responses::{ResponseView, Say};

/// Which response.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    #[command(flatten)]
    shown: ShownArgs,
    /// Its id, or a part of it.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::responses))]
    id: String,
}

/// Which response, and why.
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Its id, or a part of it.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::responses))]
    id: String,
}

/// `riposte response timeline`
///
/// # Errors
/// If the manager cannot be asked, or knows no such response.
pub async fn timeline(args: TimelineArgs) -> anyhow::Result<()> {
    let TimelineArgs { shown, id: word } = args;
    let id = resolve::response(&shown.remote, &word, "").await?;
    let said: Said<ResponseView> = shown.remote.get(&format!("/v1/responses/{id}")).await?;
    let names = agent_names(&shown.remote).await?;
    let who = said.view.answers.iter().map(|answer| answer.principal.as_str());
    let actors = Actors::of(&shown.remote, who.chain([said.view.response.response.requested_by.as_str()])).await;
    shown.print_one(&said, &id, |view| text(view, &names, &actors))
}

fn text(view: &ResponseView, names: &HashMap<String, String>, actors: &Actors) -> Vec<String> {
    let row = &view.response.response;
    let by = actors.requester(row.policy.as_deref(), &row.requested_by);
    let mut steps: Vec<(Millis, String)> =
        vec![(row.created_at, format!("decided by {by}: {} {}", row.action, aim(row)))];
    steps.extend(view.answers.iter().map(|answer| {
        let who = actors.name(&answer.principal);
        (answer.at, format!("{} by {who}: {}", answer.answer.as_str(), answer.reason))
    }));
    for command in &view.commands {
        let (agent, op) = (names.get(&command.agent_id).unwrap_or(&command.agent_id), command.op.as_str());
        let result = view.results.iter().find(|result| result.command_id == command.id);
        let why = result.map_or(&command.detail, |result| &result.message);
        let verified = if result.and_then(|result| result.verified) == Some(true) { ", verified" } else { "" };
        let end = format!(
            "{}{verified}{}",
            command.state.as_str(),
            if why.is_empty() { String::new() } else { format!(": {why}") }
        );
        let times = [
            (Some(command.created_at), "queued"),
            (command.delivered_at, "delivered"),
            (command.acknowledged_at, "received"),
            (command.finished_at, end.as_str()),
        ];
        steps.extend(times.into_iter().filter_map(|(at, word)| Some((at?, format!("{agent}: {op} {word}")))));
    }
    steps.extend(row.ended_at.map(|at| (at, state_of(row))));
    // Steps of one instant stay in the order of their kinds.
    steps.sort_by_key(|(at, _)| *at);
    let mut lines = vec![format!("response {}: {}", row.id, state_of(row))];
    lines.extend(steps.into_iter().map(|(at, what)| format!("  {at}  {what}")));
    lines
}

/// `riposte response confirm`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn confirm(args: ConfirmArgs) -> anyhow::Result<ExitCode> {
    let ConfirmArgs { change, id: word } = args;
    let id = resolve::response(&change.consent.remote, &word, "&state=active").await?;
    let view: ResponseView = change.consent.remote.get(&format!("/v1/responses/{id}")).await?;
    let row = &view.response.response;
    let Some(confirm_by) = row.confirm_by else {
        bail!("response {} does not wait for a confirmation: it is {}", short(&id), state_of(row));
    };
    let undone = ends(Some(confirm_by), Clock::system().now());
    let plan = format!("keeps {} {}, which is undone {undone} without a confirmation", row.action, aim(row));
    if let Some(code) = change.consent.stops(&[plan], "confirm this response?") {
        return Ok(code);
    }
    let body = Say { reason: change.reason.clone() };
    let view: ResponseView = change.consent.remote.post(&format!("/v1/responses/{id}/confirm"), &body).await?;
    say(&plain(&format!("response {id}: {}, confirmed", state_of(&view.response.response))));
    Ok(ExitCode::SUCCESS)
}
