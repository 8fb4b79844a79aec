//! `riposte freeze`: stops the delivery of everything but reverts, or lets it go on.

use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;

use super::change::ChangeArgs;
use super::phrases::{Actors, counted};
use crate::cli::client::Remote;
use crate::cli::output::say;
use crate::cli::reply::Said;
use crate::cli::shown::ShownArgs;
use crate::cli::terminal::plain_lines;
use crate::views::freeze::{Freeze, SetFreeze};

/// The freeze.
#[derive(Debug, Subcommand)]
pub enum FreezeCommand {
    /// Deliver nothing but reverts.
    On(ChangeArgs),
    /// Deliver again, also what waits.
    Off(ChangeArgs),
    /// Show whether deliveries are frozen, and what waits.
    Status(ShownArgs),
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: FreezeCommand) -> anyhow::Result<ExitCode> {
    match command {
        FreezeCommand::On(change) => set(change, true).await,
        FreezeCommand::Off(change) => set(change, false).await,
        FreezeCommand::Status(shown) => {
            let said: Said<Freeze> = shown.remote.get("/v1/freeze").await?;
            let actors = actors(&shown.remote, &said.view).await;
            shown.print_one(&said, if said.view.frozen { "frozen" } else { "running" }, |freeze| {
                words(freeze, &actors)
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn actors(remote: &Remote, freeze: &Freeze) -> Actors {
    Actors::of(remote, freeze.last_change.iter().map(|change| change.changed_by.as_str())).await
}

fn words(freeze: &Freeze, actors: &Actors) -> Vec<String> {
    let wait = format!(
        "{} because of it",
        match freeze.held_back {
            1 => "1 command waits".to_owned(),
            count => format!("{count} commands wait"),
        }
    );
    let mut lines = vec![if freeze.frozen {
        format!("frozen: nothing but reverts is delivered; {wait}")
    } else {
        "not frozen: commands are delivered".to_owned()
    }];
    if let Some(last) = &freeze.last_change {
        let (at, by, reason) = (last.changed_at, actors.name(&last.changed_by), &last.reason);
        lines.push(format!("  last changed {at} by {by}: {reason}"));
    }
    lines
}

async fn set(change: ChangeArgs, frozen: bool) -> anyhow::Result<ExitCode> {
    let now: Freeze = change.consent.remote.get("/v1/freeze").await?;
    let (plan, question) = if frozen {
        ("freezes: no agent gets anything but reverts; alerts are still decided".to_owned(), "freeze all deliveries?")
    } else {
        let waits = counted(now.held_back, "command that waits", "commands that wait");
        (format!("thaws: delivers {waits}, without those that have expired"), "deliver again?")
    };
    let plan = if now.frozen == frozen { format!("it is so already; {plan}") } else { plan };
    if let Some(code) = change.consent.stops(&[plan], question) {
        return Ok(code);
    }
    let body = SetFreeze { frozen, reason: change.reason.clone() };
    let set: Freeze = change.consent.remote.send(Method::PUT, "/v1/freeze", None, Some(&body)).await?.done()?;
    let actors = actors(&change.consent.remote, &set).await;
    say(&plain_lines(&words(&set, &actors).join("\n")));
    Ok(ExitCode::SUCCESS)
}
