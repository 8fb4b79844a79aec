//! `riposte policy backtest`: tests a draft over the stored alerts, with progress.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use reqwest::Method;
use reqwest::header::ACCEPT;

use super::apply::{WRONG, documents, tell};
use super::args::Backtest;
use super::plan::Stored;
use crate::cli::output::{complain, say};
use crate::cli::reply::{self, Pending, Reply, Said, told};
use crate::cli::terminal::{ProgressLine, cell, plain, table};
use crate::views::backtest::{BacktestLine, BacktestProgress, BacktestReport, NewBacktest, Sample};

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
    let policy = entry.document.content.clone();
    let body = NewBacktest { policy, since, until, samples: Some(samples.into()) };
    let request = remote.request(Method::POST, "/v1/policies/backtest").await?;
    let pending = remote.start(request.header(ACCEPT, "application/x-ndjson").json(&body)).await?;
    let is_streamed = pending.response.status().is_success();
    let report: Said<BacktestReport> =
        if is_streamed { result(pending).await? } else { Reply::read(pending).await?.done()? };
    if as_json {
        say(&report.json.to_string());
    } else {
        show(&entry.read.name, &report.view);
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the progress lines and the result.
async fn result(pending: Pending) -> anyhow::Result<Said<BacktestReport>> {
    let Pending { mut response, operation } = pending;
    let (mut shown, mut rest) = (ProgressLine::default(), Vec::new());
    while let Some(bytes) = response.chunk().await.context("the manager's answer is incomplete")? {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line: BacktestLine<Said<BacktestReport>> = reply::line(&line, &operation)?;
            if let Some(report) = line.result {
                return Ok(report);
            }
            if let Some(problem) = line.error {
                bail!("the backtest ended early: {}", told(&problem));
            }
            if let Some(BacktestProgress { scanned, total }) = line.progress {
                shown.show(&format!("{scanned} of {total} alerts"));
            }
        }
    }
    bail!("the manager's answer ended without a result")
}

fn show(name: &str, report: &BacktestReport) {
    say(&format!("{name} over {} alerts: {} matched", report.alerts_scanned, report.matched));
    let counts = [
        ("responses", report.responses),
        ("of these waiting for people", report.awaiting_approval),
        ("different targets", report.targets),
        ("agents reached", report.agents),
        ("most in one minute", report.peak_per_minute),
    ];
    let counts = counts.into_iter().map(|(what, count)| vec![what.to_owned(), count.to_string()]);
    let spared = report.spared.iter().map(|(reason, count)| vec![format!("spared: {reason}"), count.to_string()]);
    table(&["what", "count"], &counts.chain(spared).collect::<Vec<_>>());
    if report.samples.is_empty() {
        return;
    }
    say("");
    let rows: Vec<Vec<String>> = report.samples.iter().map(row).collect();
    table(&["time", "rule", "outcome", "target", "agents", "reason", "alert"], &rows);
}

fn row(sample: &Sample) -> Vec<String> {
    let Sample { alert_id, time, rule_id, outcome, reason, target, agents } = sample;
    let (target, reason) = (cell(target.as_ref()), cell(reason.as_ref()));
    let rule = cell(Some(rule_id));
    let cells = [time.to_string(), rule, outcome.clone(), target, agents.to_string(), reason];
    cells.into_iter().chain([alert_id.to_string()]).map(|cell| plain(&cell)).collect()
}

#[cfg(test)]
mod tests {
    use crate::cli::policy::args::instant;
    use crate::clock::Clock;

    #[test]
    fn a_time_is_absolute_or_an_age() {
        assert_eq!(instant("2026-11-20T10:00:00Z").unwrap().to_string(), "2026-11-20T10:00:00.000Z");
        let then = instant("1h").unwrap();
        let ago = Clock::system().now().since(then);
        assert!((3600..3660).contains(&ago.as_secs()), "{ago:?}");
        assert!(instant("yesterday").is_err());
    }
}
