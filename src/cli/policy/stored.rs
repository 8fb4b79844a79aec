//! Reads and changes policies on a manager: list, show, history, counts, rollback, reset, delete.

use std::process::ExitCode;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};

use super::args::{Counts, Delete, History, ListArgs, ModeArgs, NamedPolicy, Reset, RollbackArgs, Show};
use super::yaml;
use crate::cli::client::{NO_BODY, Remote};
use crate::cli::output::{complain, say};
use crate::cli::reply::{Reply, Said};
use crate::cli::shown::{Format, ListForm};
use crate::cli::terminal::{can_ask, cell, is_confirmed, needs_yes, plain, table};
use crate::views::policies::{
    FailedConditions, PolicyCounts, PolicySummary, PolicyVersionRow, PolicyView, ResetBreaker, Rollback,
};

/// What was said, and the cells of its row.
type SaidRow = Said<Vec<String>>;

/// The items with their rows.
///
/// # Errors
/// If a row cannot be read.
fn rows<T>(items: Vec<Said<T>>, row: impl Fn(&T) -> anyhow::Result<Vec<String>>) -> anyhow::Result<Vec<SaidRow>> {
    items.into_iter().map(|Said { json, view }| Ok(Said { json, view: row(&view)? })).collect()
}

/// `riposte policy list`
pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let shown = &args.listing.shown;
    let form = ListForm {
        noun: ("policy", "policies"),
        head: &["name", "mode", "version", "action", "on", "for", "breaker"],
        more: &[],
        row: &Vec::clone,
        name: &|row: &Vec<String>| row[0].clone(),
    };
    let look = async || shown.print(&rows(shown.remote.items("/v1/policies").await?, row)?, &form, &[]);
    args.listing.again(look).await?;
    Ok(ExitCode::SUCCESS)
}

fn row(view: &PolicyView) -> anyhow::Result<Vec<String>> {
    let PolicySummary { name, mode, respond, breaker } = view.policy.read()?;
    let on_agents: Vec<String> = view.stopped_agents.iter().map(|breaker| cell(Some(&breaker.reason))).collect();
    let breaker = match (&view.stopped, breaker) {
        (Some(stopped), _) => format!("OPEN: {}", cell(Some(&stopped.reason))),
        _ if !on_agents.is_empty() => format!("OPEN {}", on_agents.join("; ")),
        (None, Some(_)) => "closed".to_owned(),
        (None, None) => "none".to_owned(),
    };
    let on = match respond.on {
        Value::String(word) => word,
        chosen => chosen.to_string(),
    };
    let for_how_long = respond.duration.unwrap_or_else(|| "until lifted".to_owned());
    Ok(vec![name, mode, view.version.to_string(), respond.action, on, for_how_long, breaker])
}

/// `riposte policy show`
pub(super) async fn show(args: Show) -> anyhow::Result<ExitCode> {
    let Show { shown, name } = args;
    let said: Said<PolicyView> = shown.remote.get(&format!("/v1/policies/{name}")).await?;
    let text = yaml::write(&said.view.policy.read()?)?;
    match shown.format() {
        // The text of a file, as `policy apply` reads it.
        Format::Yaml => say(text.trim_end()),
        _ => shown.print_one(&said, &name, |_| text.trim_end().lines().map(str::to_owned).collect())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy history`
pub(super) async fn history(args: History) -> anyhow::Result<ExitCode> {
    let History { listing, name } = args;
    let (shown, path) = (&listing.shown, format!("/v1/policies/{name}/versions"));
    let row = |version: &PolicyVersionRow| {
        let PolicyVersionRow { version, document, changed_at, changed_by } = version;
        let what = match document {
            Some(document) => document.read::<PolicySummary>()?.mode,
            None => "deleted".to_owned(),
        };
        Ok(vec![version.to_string(), changed_at.to_string(), changed_by.clone(), what])
    };
    let form = ListForm {
        noun: ("version", "versions"),
        head: &["version", "when", "who", "mode"],
        more: &[],
        row: &Vec::clone,
        name: &|row: &Vec<String>| row[0].clone(),
    };
    let look = async || shown.print(&rows(shown.remote.items(&path).await?, row)?, &form, &[]);
    listing.again(look).await?;
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy counts`
pub(super) async fn counts(args: Counts) -> anyhow::Result<ExitCode> {
    let Counts { policy: NamedPolicy { remote, name }, within, json } = args;
    let said: Said<PolicyCounts> = remote.get(&format!("/v1/policies/{name}/counts?within={within}")).await?;
    if json {
        say(&said.json.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let PolicyCounts { since, responses, ended, spared, observed, conditions_failed, targets, .. } = said.view;
    say(&format!("{name} since {since}: {targets} different targets"));
    let parts = [("responses", responses), ("ended", ended), ("spared", spared), ("observed", observed)];
    let rows = parts.into_iter().flat_map(|(what, counts)| {
        counts.into_iter().map(move |(word, count)| vec![what.to_owned(), word, count.to_string()])
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        say("no responses");
    } else {
        table(&["what", "which", "count"], &rows);
    }
    if let Some(FailedConditions { missing_field, fault, last, .. }) = conditions_failed {
        say(&format!(
            "its conditions failed {missing_field} times for a missing field and {fault} times for another fault since \
             the manager started; the last one: {}",
            plain(&cell(Some(last)))
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The current version of a policy.
async fn version(remote: &Remote, name: &str) -> anyhow::Result<i64> {
    Ok(remote.get::<PolicyView>(&format!("/v1/policies/{name}")).await?.version)
}

/// The response of a change; a version conflict has its own message.
fn unless_lost(name: &str, answer: Reply) -> anyhow::Result<Reply> {
    if answer.status == StatusCode::PRECONDITION_FAILED {
        anyhow::bail!("{name} has changed in the meantime; nothing was done. See `riposte policy history`");
    }
    Ok(answer)
}

/// `riposte policy rollback`
pub(super) async fn rollback(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    let RollbackArgs { policy: NamedPolicy { remote, name }, to } = args;
    let current = version(&remote, &name).await?;
    let path = format!("/v1/policies/{name}/rollback");
    let answer = remote.send(Method::POST, &path, Some(current), Some(&Rollback { version: to })).await?;
    let view: PolicyView = unless_lost(&name, answer)?.done()?;
    say(&format!("{name} is as it was at version {to}; that is version {} now", view.version));
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy mode`
pub(super) async fn mode(args: ModeArgs) -> anyhow::Result<ExitCode> {
    let ModeArgs { policy: NamedPolicy { remote, name }, mode } = args;
    let path = format!("/v1/policies/{name}");
    let current: PolicyView = remote.get(&path).await?;
    let mut document: Map<String, Value> = current.policy.read()?;
    let mode = mode.mode().as_str();
    let before = document.insert("mode".to_owned(), mode.into());
    // A policy without the word enforces.
    if before.as_ref().map_or("enforce", |before| before.as_str().unwrap_or_default()) == mode {
        say(&format!("{name} is in the mode {mode} already"));
        return Ok(ExitCode::SUCCESS);
    }
    let answer = remote.send(Method::PUT, &path, Some(current.version), Some(&document)).await?;
    let view: PolicyView = unless_lost(&name, answer)?.done()?;
    for warning in &view.warnings {
        complain(&plain(&format!("riposte: {} {}", warning.pointer, warning.detail)));
    }
    say(&format!("{name} is in the mode {mode} now; that is version {}", view.version));
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy reset`
pub(super) async fn reset(args: Reset) -> anyhow::Result<ExitCode> {
    let Reset { policy: NamedPolicy { remote, name }, agent, reason } = args;
    let place = agent.as_ref().map_or_else(String::new, |agent| format!(" on agent {agent}"));
    let body = ResetBreaker { reason, agent };
    remote.send(Method::POST, &format!("/v1/policies/{name}/reset"), None, Some(&body)).await?.accepted()?;
    say(&format!("the breaker of {name}{place} is closed; its counts start at zero again"));
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy delete`
pub(super) async fn delete(args: Delete) -> anyhow::Result<ExitCode> {
    let Delete { policy: NamedPolicy { remote, name }, yes } = args;
    if !yes && !can_ask() {
        return Ok(needs_yes("policy delete"));
    }
    let current = version(&remote, &name).await?;
    if !yes && !is_confirmed(&format!("Delete policy {name}, version {current}?")) {
        complain("riposte: nothing was deleted");
        return Ok(ExitCode::FAILURE);
    }
    let answer = remote.send(Method::DELETE, &format!("/v1/policies/{name}"), Some(current), NO_BODY).await?;
    unless_lost(&name, answer)?.accepted()?;
    say(&format!("{name} is deleted; its responses stay in force until they end"));
    Ok(ExitCode::SUCCESS)
}
