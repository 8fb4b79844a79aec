//! `riposte hold`: legal holds.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use riposte_protocol::time::Timestamp;

use super::client::{NO_BODY, Remote, segment};
use super::listing::Listing;
use super::output::say;
use super::reply::Said;
use super::shown::ListForm;
use super::terminal::plain;
use crate::views::legal_holds::{CreateLegalHold, LegalHoldRow};

/// Legal holds.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// List legal holds, oldest first.
    List(Listing),
    /// Place a legal hold.
    Add(Box<AddHold>),
    /// Release a legal hold.
    Release {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Name or id.
        name: String,
    },
}

/// Arguments of `riposte hold add`.
#[derive(Debug, Args)]
pub struct AddHold {
    #[command(flatten)]
    remote: Remote,
    /// Name, such as the number of the case.
    name: String,
    /// Reason.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    covers: CoverArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the hold covers.
#[derive(Debug, Args)]
#[command(next_help_heading = "What it covers, one of")]
#[group(required = true, multiple = true)]
struct CoverArgs {
    /// One response.
    #[arg(long, value_name = "ID", conflicts_with_all = ["policy", "agent", "target", "since", "until"])]
    response: Option<String>,
    /// The responses of a policy.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["agent", "target", "since", "until"])]
    policy: Option<String>,
    /// The responses on an agent, by its id or name.
    #[arg(long, value_name = "AGENT", conflicts_with_all = ["target", "since", "until"])]
    agent: Option<String>,
    /// The responses to a target.
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["since", "until"])]
    target: Option<String>,
    /// Everything from this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Everything before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

impl CoverArgs {
    /// The kind and the value of what is covered.
    fn selection(&self) -> (&'static str, Option<String>) {
        let Self { response, policy, agent, target, .. } = self;
        let named = [("response", response), ("policy", policy), ("agent", agent), ("target", target)];
        let named = named.into_iter().find_map(|(kind, value)| value.clone().map(|value| (kind, Some(value))));
        named.unwrap_or(("time", None))
    }
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: HoldCommand) -> anyhow::Result<ExitCode> {
    match command {
        HoldCommand::List(listing) => listing.print("/v1/holds", &FORM).await?,
        HoldCommand::Add(args) => add(*args).await?,
        HoldCommand::Release { remote, name } => {
            let holds: Vec<Said<LegalHoldRow>> = remote.items("/v1/holds").await?;
            let mut views = holds.into_iter().map(|said| said.view);
            let found = views.find(|hold| hold.name == name || hold.id == name);
            let id = found.with_context(|| format!("there is no legal hold called {name:?}"))?.id;
            remote.send(Method::DELETE, &format!("/v1/holds/{}", segment(&id)), None, NO_BODY).await?.accepted()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: AddHold) -> anyhow::Result<()> {
    let AddHold { remote, name, reason, covers, json } = args;
    let (kind, value) = covers.selection();
    let CoverArgs { since, until, .. } = covers;
    let asked = CreateLegalHold { name, reason, kind: kind.to_owned(), value, since, until };
    let made: Said<LegalHoldRow> = remote.post("/v1/holds", &asked).await?;
    if json {
        say(&made.json.to_string());
    } else {
        let LegalHoldRow { name, kind, .. } = &made.view;
        say(&plain(&format!("{name}: no retention removes the {kind} {}", what(&made.view))));
    }
    Ok(())
}

/// How legal holds are listed.
const FORM: ListForm<'_, LegalHoldRow> = ListForm {
    noun: ("legal hold", "legal holds"),
    head: &["name", "covers", "which", "reason", "since", "by"],
    more: &[],
    row: &row,
    name: &|hold: &LegalHoldRow| hold.name.clone(),
};

fn row(hold: &LegalHoldRow) -> Vec<String> {
    let LegalHoldRow { name, kind, reason, created_at, created_by, .. } = hold;
    let columns = [name.clone(), kind.clone(), what(hold), reason.clone(), created_at.to_string(), created_by.clone()];
    columns.map(|text| plain(&text)).into()
}

/// The value, or the range of times.
fn what(hold: &LegalHoldRow) -> String {
    let bound = |at: Option<crate::views::columns::Millis>| at.map_or_else(|| "…".to_owned(), |at| at.to_string());
    if hold.kind == "time" { format!("{} to {}", bound(hold.since), bound(hold.until)) } else { hold.value.clone() }
}
