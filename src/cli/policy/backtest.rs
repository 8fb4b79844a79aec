//! `riposte policy backtest`: tests a draft over the stored alerts, with progress.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use reqwest::Method;
use reqwest::header::ACCEPT;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::Backtest;
use super::apply::{WRONG, documents, tell};
use super::plan::Stored;
use super::stored::cell;
use crate::cli::client::{self, Reply, told};
use crate::cli::terminal::{ProgressLine, plain, table};
use crate::cli::{complain, say};
use crate::clock::Clock;
use crate::domain::duration::Span;

/// Parses a time, or an age such as `7d`.
///
/// # Errors
/// If it is neither.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    let ago = || text.parse::<Span>().ok().map(|span| Clock::system().now().minus(span.duration()));
    let wrong = "is neither a time such as 2026-11-20T10:00:00Z nor how long ago, such as 7d";
    text.parse().ok().or_else(ago).ok_or_else(|| wrong.to_owned())
}

/// Runs the command.
pub(super) async fn run(args: Backtest) -> anyhow::Result<ExitCode> {
    let Backtest { remote, file, since, until, samples, json: as_json } = args;
    let Some(documents) = documents(std::slice::from_ref(&file)) else { return Ok(ExitCode::from(WRONG)) };
    let known = Stored::ask(&remote).await?.known();
    let held = match documents.check_only(&known) {
        Ok(held) => held,
        Err(faults) => {
            tell(&faults);
            return Ok(ExitCode::from(WRONG));
        }
    };
    let [entry] = held.policies.as_slice() else {
        complain(&format!("riposte: a backtest is of one policy; {} has {}", file.display(), held.policies.len()));
        return Ok(ExitCode::from(WRONG));
    };
    let mut body = json!({"policy": entry.document.content, "samples": samples});
    for (key, time) in [("since", since), ("until", until)] {
        if let Some(time) = time {
            body[key] = time.to_string().into();
        }
    }
    let request = remote.request(Method::POST, "/v1/policies/backtest")?;
    let answer = remote.start(request.header(ACCEPT, "application/x-ndjson").json(&body)).await?;
    let result =
        if answer.status().is_success() { result(answer).await? } else { Reply::read(answer).await?.done()? };
    if as_json {
        say(&result.to_string());
    } else {
        show(&entry.read.name, &result);
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the progress lines and the result.
async fn result(mut answer: reqwest::Response) -> anyhow::Result<Value> {
    let (mut progress, mut rest) = (ProgressLine::default(), Vec::new());
    while let Some(bytes) = answer.chunk().await.context("the manager's answer is incomplete")? {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let mut line = client::json(&line)?;
            if line["result"].is_object() {
                return Ok(line["result"].take());
            }
            if line["error"].is_object() {
                bail!("the backtest ended early: {}", told(&line["error"]));
            }
            let (scanned, total) = (cell(&line["progress"]["scanned"]), cell(&line["progress"]["total"]));
            progress.show(&format!("{scanned} of {total} alerts"));
        }
    }
    bail!("the manager's answer ended without a result")
}

fn show(name: &str, result: &Value) {
    let count = |key: &str| cell(&result[key]);
    say(&format!("{name} over {} alerts: {} matched", count("alerts_scanned"), count("matched")));
    let mut rows = vec![
        vec!["responses".to_owned(), count("responses")],
        vec!["of these waiting for people".to_owned(), count("awaiting_approval")],
        vec!["different targets".to_owned(), count("targets")],
        vec!["agents reached".to_owned(), count("agents")],
        vec!["most in one minute".to_owned(), count("peak_per_minute")],
    ];
    let spared = result["spared"].as_object().into_iter().flatten();
    rows.extend(spared.map(|(reason, count)| vec![format!("spared: {reason}"), cell(count)]));
    table(&["what", "count"], &rows);
    let samples = result["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    if samples.is_empty() {
        return;
    }
    say("");
    let row = |sample: &Value| {
        let fields = ["time", "rule_id", "outcome", "target", "agents", "reason", "alert_id"];
        fields.iter().map(|key| plain(&cell(&sample[*key]))).collect()
    };
    let rows: Vec<Vec<String>> = samples.iter().map(row).collect();
    table(&["time", "rule", "outcome", "target", "agents", "reason", "alert"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_or_an_age() {
        assert_eq!(instant("2026-11-20T10:00:00Z").unwrap().to_string(), "2026-11-20T10:00:00.000Z");
        let then = instant("1h").unwrap();
        let ago = Clock::system().now().since(then);
        assert!((3600..3660).contains(&ago.as_secs()), "{ago:?}");
        assert!(instant("yesterday").is_err());
    }
}
