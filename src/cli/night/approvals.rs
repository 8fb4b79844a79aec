//! `riposte waiting`, `approve` and `reject`: what waits for people, and their decisions.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use clap_complete::ArgValueCompleter;
use riposte_protocol::time::Timestamp;

use super::change::ChangeArgs;
use super::phrases::{Actors, aim, counted, ends, len, state_of};
use super::resolve::{one_of, short};
use crate::cli::client::Remote;
use crate::cli::complete;
use crate::cli::output::say;
use crate::cli::reply::Said;
use crate::cli::shown::{ListForm, WatchedArgs};
use crate::cli::terminal::plain;
use crate::clock::Clock;
use crate::views::page::Page;
use crate::views::responses::{ApproveResponse, JudgedResponse, ResponseRow, ResponseView, Say};

/// What waits.
#[derive(Debug, Args)]
pub struct WaitingArgs {
    #[command(flatten)]
    watched: WatchedArgs,
}

/// Which responses, and why.
#[derive(Debug, Args)]
pub struct DecideArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Responses, by id or a part of it; without one, the only one that waits.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::waiting))]
    ids: Vec<String>,
}

/// A person's decision on what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalChoice {
    /// It acts.
    Approve,
    /// It never acts.
    Reject,
}

async fn waiting_now(remote: &Remote, limit: u16) -> anyhow::Result<Page<Said<JudgedResponse>>> {
    remote.get(&format!("/v1/responses?state=awaiting_approval&limit={limit}")).await
}

/// `riposte waiting`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn waiting(args: WaitingArgs) -> anyhow::Result<ExitCode> {
    let watched = &args.watched;
    watched
        .again(async || {
            let remote = &watched.shown.remote;
            let page = waiting_now(remote, watched.limit).await?;
            let requesters = page.items.iter().map(|said| said.view.response.requested_by.as_str());
            let (actors, now) = (Actors::of(remote, requesters).await, Clock::system().now());
            let form = ListForm {
                noun: ("response waits", "responses wait"),
                head: &["id", "what", "on", "why", "by", "lapses"],
                more: &["needs"],
                row: &|view: &JudgedResponse| cells(&view.response, &actors, now),
                name: &|view: &JudgedResponse| view.response.id.clone(),
            };
            watched.shown.print(&page.items, &form, &watched.more(page.next_cursor.is_some(), "responses"))
        })
        .await?;
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &ResponseRow, actors: &Actors, now: Timestamp) -> Vec<String> {
    let agents: Vec<String> = row.agents.read().unwrap_or_default();
    let why = if row.note.is_empty() { &row.detail } else { &row.note };
    vec![
        short(&row.id).to_owned(),
        format!("{} {}", row.action, aim(row)),
        counted(len(&agents), "agent", "agents"),
        why.clone(),
        actors.requester(row.policy.as_deref(), &row.requested_by),
        ends(row.answer_by, now),
        counted(row.quorum.unwrap_or(1), "approval", "approvals"),
    ]
}

/// `riposte approve` and `riposte reject`
///
/// # Errors
/// If the manager cannot be asked, refuses, or an id is none that waits.
pub async fn decide(args: DecideArgs, choice: ApprovalChoice) -> anyhow::Result<ExitCode> {
    let DecideArgs { change, ids } = args;
    let page = waiting_now(&change.consent.remote, 500).await?;
    let all: Vec<String> = page.items.iter().map(|said| said.view.response.id.clone()).collect();
    let chosen = match (ids.as_slice(), all.as_slice()) {
        ([], []) => bail!("nothing waits for approval"),
        ([], [only]) => vec![only.clone()],
        ([], all) => {
            bail!("{} wait: name one; `riposte waiting` lists them", counted(len(all), "response", "responses"))
        }
        (ids, all) => {
            let one = |word: &String| one_of(all, word, "waiting response", "riposte waiting");
            ids.iter().map(one).collect::<anyhow::Result<_>>()?
        }
    };
    let rows = page.items.iter().map(|said| &said.view.response);
    let (actors, now) = (
        Actors::of(&change.consent.remote, rows.clone().map(|row| row.requested_by.as_str())).await,
        Clock::system().now(),
    );
    let word = if choice == ApprovalChoice::Approve { "approve" } else { "reject" };
    let plan: Vec<String> = rows
        .filter(|row| chosen.contains(&row.id))
        .map(|row| {
            let [id, what, on, why, by, lapses, needs] =
                <[String; 7]>::try_from(cells(row, &actors, now)).unwrap_or_default();
            format!("{word} {id}: {what} on {on}, by {by}: {why} ({needs} needed, lapses {lapses})")
        })
        .collect();
    if let Some(code) =
        change.consent.stops(&plan, &format!("{word} {}?", counted(len(&chosen), "response", "responses")))
    {
        return Ok(code);
    }
    for id in chosen {
        let (path, reason) = (format!("/v1/responses/{id}/{word}"), change.reason.clone());
        let view: ResponseView = match choice {
            ApprovalChoice::Approve => {
                change.consent.remote.post(&path, &ApproveResponse { reason, break_glass: false }).await?
            }
            ApprovalChoice::Reject => change.consent.remote.post(&path, &Say { reason }).await?,
        };
        let row = &view.response.response;
        say(&plain(&format!("response {id}: {}; `riposte response show {id}` shows each agent", state_of(row))));
    }
    Ok(ExitCode::SUCCESS)
}
