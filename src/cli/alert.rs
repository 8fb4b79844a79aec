//! `riposte alert`: finds alerts by their pipelines' ids, and shows their responses.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::client::{Remote, segment};
use super::output::say;
use super::policy::explain;
use super::reply::Said;
use super::response;
use super::terminal::plain;
use crate::views::alerts::AlertView;
use crate::views::page::Page;
use crate::views::responses::JudgedResponse;

/// Alerts.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// List alerts, newest first.
    List(List),
    /// Show an alert with its raw text and its responses.
    Show(One),
    /// Explain why each policy matches or does not.
    Explain(One),
}

/// Filter of `riposte alert list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
    /// Id in the pipeline.
    #[arg(long, value_name = "ID")]
    source_id: Option<String>,
    /// Rule id.
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// Minimum rule level.
    #[arg(long, value_name = "LEVEL")]
    min_level: Option<i64>,
    /// Maximum number of alerts.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Print JSON, one alert per line.
    #[arg(long)]
    json: bool,
}

/// An alert.
#[derive(Debug, Args)]
pub struct One {
    #[command(flatten)]
    remote: Remote,
    /// Alert id: Riposte's, or the pipeline's, such as 1795169472.12345.
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand.
///
/// # Errors
/// If the manager cannot be reached, or does not have the alert.
pub async fn run(command: AlertCommand) -> anyhow::Result<ExitCode> {
    match command {
        AlertCommand::List(args) => list(args).await?,
        AlertCommand::Show(args) => show(args).await?,
        AlertCommand::Explain(One { remote, id, json }) => {
            explain::print(&explain::ask(&remote, &id).await?, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> anyhow::Result<()> {
    let List { remote, source_id, rule, min_level, limit, json } = args;
    let mut path = format!("/v1/alerts?limit={limit}");
    for (key, value) in
        [("source_id", source_id), ("rule_id", rule), ("min_level", min_level.map(|level| level.to_string()))]
    {
        if let Some(value) = value {
            path.extend(["&", key, "=", &segment(&value)]);
        }
    }
    let page: Page<Said<AlertView>> = remote.get(&path).await?;
    for alert in &page.items {
        say(&if json { alert.json.to_string() } else { plain(&line(&alert.view)) });
    }
    if page.items.is_empty() && !json {
        say("no alert");
    }
    Ok(())
}

/// An alert with its responses, as `--json` prints it.
#[derive(Serialize)]
struct WithResponses {
    #[serde(flatten)]
    alert: Value,
    responses: Vec<Said<JudgedResponse>>,
}

async fn show(args: One) -> anyhow::Result<()> {
    let One { remote, id, json } = args;
    let Said { json: alert, view }: Said<AlertView> = remote.get(&format!("/v1/alerts/{}", segment(&id))).await?;
    let path = format!("/v1/responses?limit=500&alert_id={}", view.id);
    let Page { items: responses, .. } = remote.get::<Page<Said<JudgedResponse>>>(&path).await?;
    if json {
        say(&serde_json::to_value(WithResponses { alert, responses })?.to_string());
        return Ok(());
    }
    say(&plain(&line(&view)));
    for decided in &responses {
        for line in response::below_alert(&decided.view) {
            say(&plain(&line));
        }
    }
    if responses.is_empty() {
        say("  no response; see `riposte alert explain`");
    }
    // The raw alert, without terminal control sequences.
    let raw: Option<Value> = view.raw.map(|raw| serde_json::from_str(raw.get())).transpose()?;
    for line in serde_json::to_string_pretty(&raw)?.lines() {
        say(&plain(line));
    }
    Ok(())
}

fn line(alert: &AlertView) -> String {
    let AlertView { id, pipeline, pipeline_id, time, rule, agent, .. } = alert;
    let agent = agent.name.as_deref().or(agent.id.as_deref()).unwrap_or("-");
    format!(
        "{id}  {pipeline_id}  {time}  {pipeline}  rule {} level {}  {agent}  {}",
        rule.id, rule.level, rule.description
    )
}
