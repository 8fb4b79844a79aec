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
use super::listing::Listing;
use super::output::{complain, say};
use super::policy::explain;
use super::reply::{Reply, Said};
use super::response;
use super::shown::{ListForm, ShownArgs, WatchedArgs};
use super::terminal::{cell, plain};
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
    Show(ShowAlert),
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
    watched: WatchedArgs,
    /// Id in the pipeline.
    #[arg(long, value_name = "ID")]
    source_id: Option<String>,
    /// Rule id.
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// Minimum rule level.
    #[arg(long, value_name = "LEVEL")]
    min_level: Option<i64>,
}

/// An alert to show.
#[derive(Debug, Args)]
pub struct ShowAlert {
    #[command(flatten)]
    shown: ShownArgs,
    /// Alert id: Riposte's, or the pipeline's, such as 1795169472.12345.
    #[arg(value_name = "ID")]
    id: String,
}

/// An alert to explain.
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
    listing: Listing,
    /// Show this one, with its text.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Pipeline of the sender's key.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
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
        AlertCommand::List(args) => args.watched.again(async || list(&args).await).await?,
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
    let RejectedArgs { listing, id, pipeline } = args;
    let Some(id) = id else { return listing.print(&rejected_path(pipeline.as_deref()), &REJECTED).await };
    let said: Said<RejectedAlert> = listing.shown.remote.get(&format!("/v1/rejected/{}", segment(&id))).await?;
    let faults: Vec<Fault> = said.view.errors.read()?;
    listing.shown.print_one(&said, &id, |view| {
        let mut lines =
            vec![format!("{} from {}, received {} times, last {}", view.id, view.sender, view.count, view.last_at)];
        lines.extend(faults.iter().map(|fault| format!("  {} {}", fault.pointer, fault.detail)));
        match &view.raw {
            Some(raw) => lines.extend(raw.lines().map(str::to_owned)),
            None => lines.push(format!("its {} bytes were too many to be kept", view.size)),
        }
        lines
    })
}

/// How rejected alerts are listed.
const REJECTED: ListForm<'_, RejectedAlert> = ListForm {
    noun: ("rejected alert", "rejected alerts"),
    head: &["id", "pipeline", "last", "times", "reasons"],
    more: &["sender", "bytes"],
    row: &|view| {
        vec![
            view.id.clone(),
            cell(view.pipeline.as_ref()),
            view.last_at.to_string(),
            view.count.to_string(),
            reasons(view),
            view.sender.clone(),
            view.size.to_string(),
        ]
    },
    name: &|view| view.id.clone(),
};

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

async fn list(args: &List) -> anyhow::Result<()> {
    let List { watched, source_id, rule, min_level } = args;
    let mut path = format!("/v1/alerts?limit={}", watched.limit);
    let min_level = min_level.map(|level| level.to_string());
    for (key, value) in [("source_id", source_id), ("rule_id", rule), ("min_level", &min_level)] {
        if let Some(value) = value {
            path.extend(["&", key, "=", &segment(value)]);
        }
    }
    let page: Page<Said<AlertView>> = watched.shown.remote.get(&path).await?;
    let form = ListForm {
        noun: ("alert", "alerts"),
        head: &["id", "time", "rule", "level", "agent", "description"],
        more: &["pipeline", "id there"],
        row: &|AlertView { id, pipeline, pipeline_id, time, rule, agent, .. }: &AlertView| {
            vec![
                id.clone(),
                time.to_string(),
                rule.id.clone(),
                rule.level.to_string(),
                cell(agent.name.as_ref().or(agent.id.as_ref())),
                cell(Some(&rule.description)),
                pipeline.clone(),
                pipeline_id.clone(),
            ]
        },
        name: &|alert: &AlertView| alert.id.clone(),
    };
    watched.shown.print(&page.items, &form, &watched.more(page.next_cursor.is_some(), "alerts"))
}

/// An alert with its responses, as `-o json` prints it.
#[derive(Serialize)]
struct WithResponses {
    #[serde(flatten)]
    alert: Value,
    responses: Vec<Said<JudgedResponse>>,
}

async fn show(args: ShowAlert) -> anyhow::Result<()> {
    let ShowAlert { shown, id } = args;
    let Said { json: alert, view }: Said<AlertView> = shown.remote.get(&format!("/v1/alerts/{}", segment(&id))).await?;
    let path = format!("/v1/responses?limit=500&alert_id={}", view.id);
    let Page { items: responses, .. } = shown.remote.get::<Page<Said<JudgedResponse>>>(&path).await?;
    let mut lines = vec![line(&view)];
    lines.extend(responses.iter().flat_map(|decided| response::below_alert(&decided.view)));
    if responses.is_empty() {
        lines.push("  no response; see `riposte alert explain`".to_owned());
    }
    let raw: Option<Value> = view.raw.as_ref().map(|raw| serde_json::from_str(raw.get())).transpose()?;
    lines.extend(serde_json::to_string_pretty(&raw)?.lines().map(str::to_owned));
    let name = view.id.clone();
    let json = serde_json::to_value(WithResponses { alert, responses })?;
    shown.print_one(&Said { json, view }, &name, |_| lines)
}

fn line(alert: &AlertView) -> String {
    let AlertView { id, pipeline, pipeline_id, time, rule, agent, .. } = alert;
    let agent = agent.name.as_deref().or(agent.id.as_deref()).unwrap_or("-");
    format!(
        "{id}  {pipeline_id}  {time}  {pipeline}  rule {} level {}  {agent}  {}",
        rule.id, rule.level, rule.description
    )
}
