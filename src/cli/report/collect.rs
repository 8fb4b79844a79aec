//! Reads what a report is made of over the public API: the responses of the month with their results and decisions, and
//! who has access now.

use std::time::Duration;

use futures_util::future::try_join_all;
use reqwest::{Method, StatusCode};
use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;

use super::month::Month;
use crate::cli::client::{NO_BODY, Remote};
use crate::cli::night::phrases::Actors;
use crate::cli::terminal::ProgressLine;
use crate::domain::response::{Decision, ResponseState};
use crate::views::auth::WhoAmI;
use crate::views::keys::KeyView;
use crate::views::page::Page;
use crate::views::responses::{DecisionRow, JudgedResponse, ResponseRow, ResponseView};
use crate::views::users::UserRow;

/// Responses that are read at once.
const AT_ONCE: usize = 8;
/// Most commands that a manager tells of one response.
const TOLD: usize = 500;

/// One response of the month.
#[derive(Debug)]
pub struct OfMonth {
    /// The response.
    pub row: ResponseRow,
    /// Whether it acted.
    pub acted: bool,
    /// From its decision, or its last approval, to its first verified effect; none if no agent verified one.
    pub contained: Option<Duration>,
    /// Decisions of people.
    pub decisions: Vec<DecisionRow>,
}

/// Who has access, now.
#[derive(Debug)]
pub struct Access {
    /// The people.
    pub people: Vec<UserRow>,
    /// The API keys.
    pub keys: Vec<KeyView>,
}

/// What a report is made of.
#[derive(Debug)]
pub struct Collected {
    /// The month.
    pub month: Month,
    /// When it was read.
    pub now: Timestamp,
    /// Who reads it.
    pub who: WhoAmI,
    /// The responses that were decided in the month, newest first.
    pub responses: Vec<OfMonth>,
    /// Who has access; none if the caller may not see it.
    pub access: Option<Access>,
    /// Names of keys.
    pub actors: Actors,
    /// What could not be known.
    pub unknown: Vec<String>,
}

/// Reads a month.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn month(remote: &Remote, month: Month, now: Timestamp) -> anyhow::Result<Collected> {
    let who: WhoAmI = remote.get("/v1/whoami").await?;
    let mut unknown = Vec::new();
    if now < month.until() {
        unknown.push(format!("The month is not over: the figures end at {now}."));
    }
    if !who.scopes.is_empty() {
        unknown.push("The caller has a limited scope: only responses on agents that it sees are counted.".to_owned());
    }
    let (listed, is_whole) = listed(remote, month).await?;
    if !is_whole {
        unknown.push(
            "No older response is stored: whether retention removed some of the first ones of the month is not known."
                .to_owned(),
        );
    }
    let mut progress = ProgressLine::default();
    let (all, mut responses) = (listed.len(), Vec::new());
    let mut rest = listed.into_iter();
    loop {
        let some: Vec<JudgedResponse> = rest.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            break;
        }
        responses.extend(try_join_all(some.into_iter().map(|judged| detailed(remote, judged))).await?);
        progress.show(&format!("{} of {all} responses", responses.len()));
    }
    let cut = responses.iter().filter(|(_, is_cut)| *is_cut).count();
    if cut > 0 {
        unknown
            .push(format!("Of {cut} responses only the newest {TOLD} commands are told: their times may be too long."));
    }
    let responses: Vec<OfMonth> = responses.into_iter().map(|(response, _)| response).collect();
    let access = access(remote).await?;
    if access.is_none() {
        unknown.push(
            "The caller may not list people and keys: the access review needs the right to administer.".to_owned(),
        );
    }
    let names = responses.iter().flat_map(|response| response.decisions.iter().map(|decision| &decision.principal));
    let glass = responses.iter().filter_map(|response| response.row.break_glass.as_ref());
    let actors = Actors::of(remote, names.chain(glass).map(String::as_str)).await;
    Ok(Collected { month, now, who, responses, access, actors, unknown })
}

/// The responses of the month, and whether an older one is stored, so that none of the month is missing.
async fn listed(remote: &Remote, month: Month) -> anyhow::Result<(Vec<JudgedResponse>, bool)> {
    let (since, until) = (month.since(), month.until());
    let first = "/v1/responses?limit=500";
    let (mut found, mut next) = (Vec::new(), first.to_owned());
    loop {
        let page: Page<JudgedResponse> = remote.get(&next).await?;
        for judged in page.items {
            let at = Timestamp::from(judged.response.created_at);
            if at < since {
                return Ok((found, true));
            }
            if at < until {
                found.push(judged);
            }
        }
        match page.next_cursor {
            Some(cursor) => next = format!("{first}&cursor={cursor}"),
            None => return Ok((found, false)),
        }
    }
}

/// A response with what its list does not say, and whether its commands were cut.
async fn detailed(remote: &Remote, judged: JudgedResponse) -> anyhow::Result<(OfMonth, bool)> {
    let acted = judged.outcome.outcome.is_some();
    let row = judged.response;
    let is_told_whole = matches!(row.state, ResponseState::Observed | ResponseState::Spared);
    if is_told_whole && !acted {
        return Ok((OfMonth { row, acted, contained: None, decisions: Vec::new() }, false));
    }
    let view: ResponseView = remote.get(&format!("/v1/responses/{}", row.id)).await?;
    let is_cut = view.commands.len() >= TOLD;
    let contained = contained(&view);
    Ok((OfMonth { row, acted, contained, decisions: view.answers }, is_cut))
}

/// The time to the first effect that an agent verified, by the manager's clock.
fn contained(view: &ResponseView) -> Option<Duration> {
    let approved = view.answers.iter().filter(|answer| answer.answer == Decision::Approve).map(|answer| answer.at);
    let decided = approved.chain([view.response.response.created_at]).max()?;
    let is_apply = |id: &str| view.commands.iter().any(|command| command.id == id && command.op == Op::Apply);
    let verified = view.results.iter().filter(|result| result.verified == Some(true) && !result.observed);
    let first = verified.filter(|result| is_apply(&result.command_id)).map(|result| result.received_at).min()?;
    Some(Timestamp::from(first).since(decided.into()))
}

async fn access(remote: &Remote) -> anyhow::Result<Option<Access>> {
    let reply = remote.send(Method::GET, "/v1/users?limit=1", None, NO_BODY).await?;
    if reply.status == StatusCode::FORBIDDEN {
        return Ok(None);
    }
    reply.accepted()?;
    let (people, keys) = (remote.items("/v1/users").await?, remote.items("/v1/api-keys").await?);
    Ok(Some(Access { people, keys }))
}
