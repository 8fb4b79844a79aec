//! Reads and changes policies on a manager: list, show, history, counts, rollback, reset, delete.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Counts, Delete, History, ListArgs, Reset, RollbackArgs, Show, yaml};
use crate::cli::client::{Remote, Reply};
use crate::cli::say;
use crate::cli::terminal::{can_ask, is_confirmed, needs_yes, plain, table};

/// A field as a table cell.
pub(in crate::cli) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints one item per line.
fn lines(items: &[Value]) {
    for item in items {
        say(&item.to_string());
    }
}

/// The agents with an open breaker of the policy, and the reasons.
fn on_agents(view: &Value) -> String {
    let stopped = view["stopped_agents"].as_array().map(Vec::as_slice).unwrap_or_default();
    stopped.iter().map(|breaker| cell(&breaker["reason"])).collect::<Vec<_>>().join("; ")
}

/// `riposte policy list`
pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let policies = args.remote.items("/v1/policies").await?;
    if args.json {
        lines(&policies);
        return Ok(ExitCode::SUCCESS);
    }
    let row = |view: &Value| {
        let respond = &view["respond"];
        let for_how_long = respond["for"].as_str().unwrap_or("until lifted").to_owned();
        let breaker = match (&view["stopped"], &view["breaker"]) {
            (Value::Object(stopped), _) => format!("OPEN: {}", stopped.get("reason").map(cell).unwrap_or_default()),
            _ if !on_agents(view).is_empty() => format!("OPEN {}", on_agents(view)),
            (_, Value::Object(_)) => "closed".to_owned(),
            _ => "none".to_owned(),
        };
        let fields = [&view["name"], &view["mode"], &view["version"], &respond["action"], &respond["on"]];
        fields.into_iter().map(cell).chain([for_how_long, breaker]).collect()
    };
    let rows: Vec<Vec<String>> = policies.iter().map(row).collect();
    table(&["name", "mode", "version", "action", "on", "for", "breaker"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy show`
pub(super) async fn show(args: Show) -> anyhow::Result<ExitCode> {
    let view = args.remote.get(&format!("/v1/policies/{}", args.name)).await?;
    if args.json {
        say(&view.to_string());
    } else {
        say(yaml::write(&yaml::policy(&view))?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy history`
pub(super) async fn history(args: History) -> anyhow::Result<ExitCode> {
    let versions = args.remote.items(&format!("/v1/policies/{}/versions", args.name)).await?;
    if args.json {
        lines(&versions);
        return Ok(ExitCode::SUCCESS);
    }
    let row = |version: &Value| {
        let what = match version["document"].as_object() {
            Some(document) => document.get("mode").map(cell).unwrap_or_default(),
            None => "deleted".to_owned(),
        };
        vec![cell(&version["version"]), cell(&version["changed_at"]), cell(&version["changed_by"]), what]
    };
    let rows: Vec<Vec<String>> = versions.iter().map(row).collect();
    table(&["version", "when", "who", "mode"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy counts`
pub(super) async fn counts(args: Counts) -> anyhow::Result<ExitCode> {
    let Counts { remote, name, within, json } = args;
    let counts = remote.get(&format!("/v1/policies/{name}/counts?within={within}")).await?;
    if json {
        say(&counts.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{name} since {}: {} different targets", plain(&cell(&counts["since"])), cell(&counts["targets"])));
    let mut rows = Vec::new();
    for what in ["responses", "ended", "spared", "observed"] {
        let found = counts[what].as_object().into_iter().flatten();
        rows.extend(found.map(|(word, count)| vec![what.to_owned(), word.clone(), cell(count)]));
    }
    if rows.is_empty() {
        say("no responses");
    } else {
        table(&["what", "which", "count"], &rows);
    }
    if let Some(failed) = counts["conditions_failed"].as_object() {
        let count = |kind: &str| failed.get(kind).map_or_else(String::new, cell);
        let last = failed.get("last").map_or_else(String::new, cell);
        say(&format!(
            "its conditions failed {} times for a missing field and {} times for another fault since \
             the manager started; the last one: {}",
            count("missing_field"),
            count("fault"),
            plain(&last)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The current version of a policy.
async fn version(remote: &Remote, name: &str) -> anyhow::Result<i64> {
    let view = remote.get(&format!("/v1/policies/{name}")).await?;
    view["version"].as_i64().context("the manager returned a policy without a version")
}

/// The response body of a change; a version conflict has its own message.
fn unless_lost(name: &str, answer: Reply) -> anyhow::Result<Value> {
    if answer.status == StatusCode::PRECONDITION_FAILED {
        anyhow::bail!("{name} has changed in the meantime; nothing was done. See `riposte policy history`");
    }
    answer.done()
}

/// `riposte policy rollback`
pub(super) async fn rollback(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    let RollbackArgs { remote, name, to } = args;
    let current = version(&remote, &name).await?;
    let path = format!("/v1/policies/{name}/rollback");
    let answer = remote.send(Method::POST, &path, Some(current), Some(json!({"version": to}))).await?;
    let view = unless_lost(&name, answer)?;
    say(&format!("{name} is as it was at version {to}; that is version {} now", view["version"]));
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy reset`
pub(super) async fn reset(args: Reset) -> anyhow::Result<ExitCode> {
    let Reset { remote, name, agent, reason } = args;
    let mut body = json!({"reason": reason});
    let mut place = String::new();
    if let Some(agent) = agent {
        place = format!(" on agent {agent}");
        body["agent"] = json!(agent);
    }
    remote.post(&format!("/v1/policies/{name}/reset"), body).await?;
    say(&format!("the breaker of {name}{place} is closed; its counts start at zero again"));
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy delete`
pub(super) async fn delete(args: Delete) -> anyhow::Result<ExitCode> {
    let Delete { remote, name, yes } = args;
    if !yes && !can_ask() {
        return Ok(needs_yes("policy delete"));
    }
    let current = version(&remote, &name).await?;
    if !yes && !is_confirmed(&format!("Delete policy {name}, version {current}?")) {
        crate::cli::complain("riposte: nothing was deleted");
        return Ok(ExitCode::FAILURE);
    }
    let answer = remote.send(Method::DELETE, &format!("/v1/policies/{name}"), Some(current), None).await?;
    unless_lost(&name, answer)?;
    say(&format!("{name} is deleted; its responses stay in force until they end"));
    Ok(ExitCode::SUCCESS)
}
