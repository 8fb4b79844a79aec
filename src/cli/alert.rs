//! `riposte alert`: finds alerts by their pipelines' ids, and shows their responses.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;

use super::client::{NO_BODY, Remote, segment};
use super::output::{complain, say};
use super::policy::explain;
use super::reply::{Reply, Said};
use super::response;
use super::terminal::{cell, plain, plain_lines, table};
use crate::domain::fault::Fault;
use crate::views::alerts::{AlertView, Intake, Rejected, RejectedAlert};
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
    /// Send the alerts in files: one, a list, or one a line.
    Send(SendAlerts),
    /// List alerts that were not taken in, with the reasons; or show one.
    Rejected(RejectedArgs),
    /// Send rejected alerts again, such as after a mapping was mended.
    Resend(Resend),
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

/// Arguments of `riposte alert send`.
#[derive(Debug, Args)]
pub struct SendAlerts {
    #[command(flatten)]
    remote: Remote,
    /// Files with alerts.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print what the manager answers to each file, as JSON.
    #[arg(long)]
    json: bool,
}

/// Filter of `riposte alert rejected`.
#[derive(Debug, Args)]
pub struct RejectedArgs {
    #[command(flatten)]
    remote: Remote,
    /// Show this one, with its text.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Pipeline of the sender's key.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Print JSON, one alert per line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `riposte alert resend`.
#[derive(Debug, Args)]
pub struct Resend {
    #[command(flatten)]
    remote: Remote,
    /// Ids of rejected alerts.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them, or all of a pipeline.
    #[arg(long)]
    all: bool,
    /// With --all: only those of this pipeline.
    #[arg(long, value_name = "NAME", requires = "all")]
    pipeline: Option<String>,
}

/// Runs a subcommand.
///
/// # Errors
/// If the manager cannot be reached, or does not have the alert.
pub async fn run(command: AlertCommand) -> anyhow::Result<ExitCode> {
    match command {
        AlertCommand::List(args) => list(args).await?,
        AlertCommand::Show(args) => show(args).await?,
        AlertCommand::Send(args) => return send(args).await,
        AlertCommand::Rejected(args) => rejected(args).await?,
        AlertCommand::Resend(args) => return resend(args).await,
        AlertCommand::Explain(One { remote, id, json }) => {
            explain::print(&explain::ask(&remote, &id).await?, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn send(args: SendAlerts) -> anyhow::Result<ExitCode> {
    let mut is_whole = true;
    for path in &args.files {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
        let media_type = if is_json { "application/json" } else { "application/x-ndjson" };
        let request = args.remote.request(Method::POST, "/v1/alerts").await?.header(CONTENT_TYPE, media_type);
        let reply = Reply::read(args.remote.start(request.body(bytes)).await?).await?;
        let Said { json, view }: Said<Intake> = reply.done().with_context(|| path.display().to_string())?;
        is_whole &= view.rejected.is_empty();
        if args.json {
            say(&json.to_string());
            continue;
        }
        let Intake { accepted, duplicates, rejected, responses, .. } = view;
        let (rejects, made) = (rejected.len(), responses.len());
        let place = path.display();
        say(&plain(&format!(
            "{place}: {accepted} accepted, {duplicates} known already, {rejects} rejected, {made} responses"
        )));
        for Rejected { index, errors } in rejected {
            let why = errors.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect::<Vec<_>>();
            complain(&plain(&format!("riposte: {place}: alert {}: {}", index + 1, why.join("; "))));
        }
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rejected_path(pipeline: Option<&str>) -> String {
    pipeline.map_or_else(|| "/v1/rejected".to_owned(), |name| format!("/v1/rejected?pipeline={}", segment(name)))
}

/// The reasons of a rejected alert, in a line.
fn reasons(row: &RejectedAlert) -> String {
    let faults: Vec<Fault> = row.errors.read().unwrap_or_default();
    faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect::<Vec<_>>().join("; ")
}

async fn rejected(args: RejectedArgs) -> anyhow::Result<()> {
    if let Some(id) = &args.id {
        let Said { json, view }: Said<RejectedAlert> =
            args.remote.get(&format!("/v1/rejected/{}", segment(id))).await?;
        if args.json {
            say(&json.to_string());
            return Ok(());
        }
        say(&plain(&format!("{} from {}, received {} times, last {}", view.id, view.sender, view.count, view.last_at)));
        for fault in view.errors.read::<Vec<Fault>>().unwrap_or_default() {
            say(&plain(&format!("  {} {}", fault.pointer, fault.detail)));
        }
        say(&plain_lines(&view.raw.unwrap_or_else(|| format!("its {} bytes were too many to be kept", view.size))));
        return Ok(());
    }
    let rows: Vec<Said<RejectedAlert>> = args.remote.items(&rejected_path(args.pipeline.as_deref())).await?;
    if args.json {
        for row in &rows {
            say(&row.json.to_string());
        }
        return Ok(());
    }
    let cells = |Said { view, .. }: &Said<RejectedAlert>| {
        vec![
            view.id.clone(),
            cell(view.pipeline.as_ref()),
            view.last_at.to_string(),
            view.count.to_string(),
            reasons(view),
        ]
    };
    table(&["id", "pipeline", "last", "times", "reasons"], &rows.iter().map(cells).collect::<Vec<_>>());
    Ok(())
}

async fn resend(args: Resend) -> anyhow::Result<ExitCode> {
    let ids = if args.all {
        let rows: Vec<RejectedAlert> = args.remote.items(&rejected_path(args.pipeline.as_deref())).await?;
        rows.into_iter().filter(|row| row.is_kept).map(|row| row.id).collect()
    } else {
        args.ids
    };
    let (mut taken, mut again) = (0_usize, 0_usize);
    for id in &ids {
        let reply =
            args.remote.send(Method::POST, &format!("/v1/rejected/{}/resend", segment(id)), None, NO_BODY).await?;
        if reply.status.as_u16() == 422 {
            again += 1;
            complain(&plain(&format!("riposte: {id}: {}", reply.refused().unwrap_or_default())));
        } else {
            let _: Intake = reply.done()?;
            taken += 1;
        }
    }
    say(&format!("{taken} taken in, {again} rejected again"));
    Ok(if again == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
