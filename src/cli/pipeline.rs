//! `riposte pipeline`: the mappings of foreign alerts, and what an alert becomes by them. Both work without a manager.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::say;
use super::policy::args::Site;
use super::terminal::{cell, plain, table};
use crate::domain::alert::{Alert, TargetField};
use crate::domain::batch;
use crate::domain::decode::decode;
use crate::domain::fault::Fault;
use crate::domain::formats;

/// Pipelines.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// List the mappings: those that come with Riposte, and those of the configuration.
    List(ListPipelines),
    /// Show what the alerts in a file become. Exit code 1 if one is rejected.
    Test(TestPipeline),
}

/// Arguments of `riposte pipeline list`.
#[derive(Debug, Args)]
pub struct ListPipelines {
    #[command(flatten)]
    site: Site,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `riposte pipeline test`.
#[derive(Debug, Args)]
pub struct TestPipeline {
    #[command(flatten)]
    site: Site,
    /// Pipeline that the sender's key names; without it the alerts must be recognised.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// File with one alert, a list, or one alert a line.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON, one alert per line.
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand.
///
/// # Errors
/// If the configuration or the file cannot be read.
pub fn run(command: PipelineCommand) -> anyhow::Result<ExitCode> {
    match command {
        PipelineCommand::List(args) => list(&args),
        PipelineCommand::Test(args) => test(&args),
    }
}

fn list(args: &ListPipelines) -> anyhow::Result<ExitCode> {
    let mappings = args.site.mappings()?;
    let mut rows = Vec::new();
    for (name, mapping) in mappings.all() {
        let spec = mapping.spec();
        if args.json {
            say(&json!({"name": name, "source": mappings.source(name), "mapping": spec}).to_string());
            continue;
        }
        let id = spec.id.first().cloned().unwrap_or_default();
        let recurs = if spec.ids_recur == Some(true) { format!("{id} and the time") } else { id };
        rows.push(vec![
            name.to_owned(),
            mappings.source(name).to_owned(),
            recurs,
            spec.rule_id.first().cloned().unwrap_or_default(),
        ]);
    }
    if !args.json {
        table(&["PIPELINE", "SOURCE", "UNIQUE BY", "RULE"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn test(args: &TestPipeline) -> anyhow::Result<ExitCode> {
    let mappings = args.site.mappings()?;
    let pipeline = args.pipeline.as_deref();
    let place = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {place}"))?;
    let object = decode(&bytes);
    let items = formats::split(&object, &mappings, pipeline);
    let raws = items.map_or_else(|| alerts_in(&bytes), |items| items.into_iter().map(str::as_bytes).collect());
    anyhow::ensure!(!raws.is_empty(), "{place} contains no alert");
    let mut is_ok = true;
    for (index, raw) in raws.iter().enumerate() {
        let read = formats::read(raw, &mappings, pipeline);
        is_ok &= read.is_ok();
        let outcome = read.as_ref().map(|(_, alert)| alert);
        if args.json { say(&in_json(index, outcome).to_string()) } else { print(index, outcome) }
    }
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One alert, the elements of a list, or the lines.
fn alerts_in(bytes: &[u8]) -> Vec<&[u8]> {
    let body = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes).trim_ascii();
    if body.starts_with(b"[") {
        return batch::elements(body).unwrap_or_else(|| vec![body]);
    }
    if serde_json::from_str::<serde::de::IgnoredAny>(&decode(body)).is_ok() {
        return vec![body];
    }
    batch::lines(body)
}

fn in_json(index: usize, outcome: Result<&Alert, &Vec<Fault>>) -> Value {
    match outcome {
        Ok(alert) => json!({
            "index": index, "pipeline": alert.pipeline, "pipeline_id": alert.pipeline_id,
            "time": alert.is_timed.then_some(alert.time), "rule": alert.rule, "agent": alert.agent,
            "observables": alert.observables,
        }),
        Err(errors) => json!({"index": index, "errors": errors}),
    }
}

fn print(index: usize, outcome: Result<&Alert, &Vec<Fault>>) {
    let alert = match outcome {
        Ok(alert) => alert,
        Err(errors) => {
            say(&format!("alert {}: rejected", index + 1));
            for fault in errors {
                say(&plain(&format!(
                    "  {} {}",
                    if fault.pointer.is_empty() { "/" } else { &fault.pointer },
                    fault.detail
                )));
            }
            return;
        }
    };
    let level = match alert.rule.level {
        0 => "0 (gets no response)".to_owned(),
        level => level.to_string(),
    };
    say(&plain(&format!("alert {}: pipeline {}, id {}", index + 1, alert.pipeline, alert.pipeline_id)));
    let time = alert.is_timed.then_some(alert.time);
    let mut lines = vec![
        ("time", time.map_or_else(|| "none: the time of receipt counts".to_owned(), |time| time.to_string())),
        ("rule", alert.rule.id.clone()),
        ("level", level),
        ("groups", alert.rule.groups.join(", ")),
        ("description", alert.rule.description.clone()),
        ("techniques", alert.rule.mitre.join(", ")),
        ("agent", cell(alert.agent.name.as_ref().or(alert.agent.id.as_ref()))),
    ];
    for field in TargetField::NAMES {
        let Some(found) = serde_json::from_value(field.into()).ok().and_then(|field| alert.observables.field(field))
        else {
            continue;
        };
        lines.push((field, format!("{} ({})", found.value, found.field)));
    }
    for (name, text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
        say(&plain(&format!("  {name:<16} {text}")));
    }
}
