//! `riposte alert`: finds alerts by their pipelines' ids, and shows their responses.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Remote, segment};
use super::policy::explain;
use super::terminal::plain;
use super::{response, say};

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
            let explanation = remote.get(&format!("/v1/alerts/{}/explain", segment(&id))).await?;
            explain::print(&explanation, json);
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
    let page = remote.page(&path).await?;
    let alerts = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    for alert in alerts {
        say(&if json { alert.to_string() } else { plain(&line(alert)) });
    }
    if alerts.is_empty() && !json {
        say("no alert");
    }
    Ok(())
}

async fn show(args: One) -> anyhow::Result<()> {
    let One { remote, id, json } = args;
    let mut alert = remote.get(&format!("/v1/alerts/{}", segment(&id))).await?;
    let own = text(&alert, "id");
    let responses = remote.page(&format!("/v1/responses?limit=500&alert_id={own}")).await?["items"].take();
    if json {
        alert["responses"] = responses;
        say(&alert.to_string());
        return Ok(());
    }
    say(&plain(&line(&alert)));
    for decided in responses.as_array().map(Vec::as_slice).unwrap_or_default() {
        for line in response::below_alert(decided) {
            say(&plain(&line));
        }
    }
    if responses.as_array().is_none_or(Vec::is_empty) {
        say("  no response; see `riposte alert explain`");
    }
    // The raw alert, without terminal control sequences.
    for line in serde_json::to_string_pretty(&alert["raw"])?.lines() {
        say(&plain(line));
    }
    Ok(())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or("-").to_owned()
}

fn line(alert: &Value) -> String {
    let rule = &alert["rule"];
    let agent = alert["agent"]["name"].as_str().or_else(|| alert["agent"]["id"].as_str()).unwrap_or("-");
    format!(
        "{}  {}  {}  {}  rule {} level {}  {agent}  {}",
        text(alert, "id"),
        text(alert, "pipeline_id"),
        text(alert, "time"),
        text(alert, "pipeline"),
        text(rule, "id"),
        rule["level"],
        text(rule, "description")
    )
}
