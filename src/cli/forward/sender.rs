//! Sends batches to the manager until it has them. Nothing is given up: while the manager is away or has no room the forwarder
//! waits, and the alerts wait in their files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::files::time_of;
use super::metrics::ForwardMetrics;
use crate::cli::client::Remote;
use crate::cli::reply;
use crate::cli::terminal::plain;
use crate::cli::unreachable;
use crate::views::alerts::{Intake, Rejected};
use crate::views::problem::Problem;

/// Maximum silence of the manager.
const SILENCE: Duration = Duration::from_mins(1);
/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Interval between two lines that say the same.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// Rejected alerts of one batch that are logged one by one.
const MAX_SAID: usize = 5;

/// The forwarder was stopped before the manager had the batch.
#[derive(Debug)]
pub(super) struct Interrupted;

/// Sends batches.
pub(super) struct Sender {
    remote: Remote,
    client: Client,
    url: String,
    /// Read again when the manager refuses it, so that a key can be replaced while the forwarder runs.
    key: Mutex<Option<String>>,
    metrics: Arc<ForwardMetrics>,
    stop: CancellationToken,
}

/// What the manager said to a batch.
enum Outcome {
    Taken(Intake),
    /// Every alert is faulty.
    Rejected(Problem),
    TooLarge,
    /// Not now; after this time, if the manager named one.
    Later(String, Option<Duration>),
}

impl Sender {
    pub(super) fn new(remote: Remote, metrics: Arc<ForwardMetrics>, stop: CancellationToken) -> anyhow::Result<Self> {
        let (client, manager) = remote.connection(SILENCE)?;
        let url = format!("{manager}/v1/alerts");
        Ok(Self { remote, client, url, key: Mutex::default(), metrics, stop })
    }

    /// Sends `batch` until the manager has all of it that it takes.
    pub(super) async fn deliver(&self, batch: Batch) -> Result<Batch, Interrupted> {
        if batch.is_empty() {
            return Ok(batch);
        }
        let (mut wait, mut said) = (FIRST_WAIT, None::<(String, Instant)>);
        loop {
            let answer = tokio::select! {
                answer = self.send(&batch) => answer,
                () = self.stop.cancelled() => return Err(Interrupted),
            };
            let (why, after) = match answer {
                Outcome::Taken(intake) => {
                    self.taken(&batch, &intake);
                    self.metrics.is_stuck.set(0);
                    return Ok(batch);
                }
                Outcome::Rejected(problem) => {
                    self.rejected(&batch, &of_problem(problem), batch.lines());
                    self.metrics.is_stuck.set(0);
                    return Ok(batch);
                }
                Outcome::TooLarge => {
                    let Some((first, second)) = batch.halves() else {
                        self.metrics.too_large.inc();
                        tracing::error!(
                            "{}: the alert is larger than the manager takes; it is left out",
                            place(&batch, 0)
                        );
                        return Ok(batch);
                    };
                    Box::pin(self.deliver(first)).await?;
                    Box::pin(self.deliver(second)).await?;
                    return Ok(batch);
                }
                Outcome::Later(why, after) => (why, after),
            };
            self.metrics.retries.inc();
            self.metrics.is_stuck.set(1);
            if said.as_ref().is_none_or(|(before, at)| *before != why || at.elapsed() > SAY_EVERY) {
                tracing::warn!("{why}; the alerts wait in their files");
                said = Some((why, Instant::now()));
            }
            let wait_now = after.unwrap_or(wait).clamp(FIRST_WAIT, LONGEST_WAIT);
            wait = (wait * 2).min(LONGEST_WAIT);
            tokio::select! {
                () = tokio::time::sleep(wait_now) => {}
                () = self.stop.cancelled() => return Err(Interrupted),
            }
        }
    }

    async fn send(&self, batch: &Batch) -> Outcome {
        let mut known = self.key.lock().await;
        if known.is_none() {
            match self.remote.bearer().await {
                Ok(key) => *known = Some(key),
                Err(error) => return Outcome::Later(format!("{error:#}"), None),
            }
        }
        let key = known.clone().unwrap_or_default();
        drop(known);
        let request = self.client.post(&self.url).bearer_auth(key).header(CONTENT_TYPE, "application/x-ndjson");
        match request.body(batch.body.clone()).send().await {
            Ok(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    *self.key.lock().await = None;
                }
                self.read(response).await
            }
            Err(error) => Outcome::Later(unreachable::words(&self.url, &error, SILENCE), None),
        }
    }

    async fn read(&self, response: Response) -> Outcome {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(Duration::from_secs);
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return Outcome::Later(unreachable::words(&self.url, &error, SILENCE), None),
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let problem = reply::problem(&json);
        match (status, problem) {
            (StatusCode::ACCEPTED, _) => match serde_json::from_value(json) {
                Ok(intake) => Outcome::Taken(intake),
                Err(error) => Outcome::Later(format!("{} is no manager: its answer {error}", self.url), None),
            },
            // A proxy may answer with these too, and has not looked at the alerts.
            (StatusCode::UNPROCESSABLE_ENTITY, Some(problem)) => Outcome::Rejected(problem),
            (StatusCode::PAYLOAD_TOO_LARGE, _) => Outcome::TooLarge,
            (_, problem) => {
                let detail = problem.map_or_else(|| "no manager of Riposte".to_owned(), |problem| problem.detail);
                Outcome::Later(format!("{} answers {status}: {}", self.url, plain(&detail)), after)
            }
        }
    }

    fn taken(&self, batch: &Batch, intake: &Intake) {
        self.metrics.count("accepted", intake.accepted);
        self.metrics.count("duplicate", intake.duplicates);
        let is_rejected = |index: usize| intake.rejected.iter().any(|rejected| rejected.index == index);
        let newest = (0..batch.lines()).rev().find(|index| !is_rejected(*index));
        if let Some(time) = newest.and_then(|index| time_of(batch.line(index))) {
            self.metrics.last_alert.set(time.as_secs());
        }
        self.rejected(batch, &intake.rejected, intake.rejected.len());
    }

    fn rejected(&self, batch: &Batch, rejected: &[Rejected], count: usize) {
        self.metrics.count("rejected", count);
        for Rejected { index, errors } in rejected.iter().take(MAX_SAID) {
            let why =
                errors.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect::<Vec<_>>().join("; ");
            tracing::error!("{}: the manager rejects the alert: {}", place(batch, *index), plain(&why));
        }
        if count > MAX_SAID.min(rejected.len()) {
            tracing::error!("the manager rejects {count} of {} alerts", batch.lines());
        }
    }
}

/// Where a line of a batch stands.
fn place(batch: &Batch, index: usize) -> String {
    let path = batch.end.as_ref().map(|end| end.path.display().to_string()).unwrap_or_default();
    match batch.offset(index) {
        Some(offset) => format!("{path} at byte {offset}"),
        None => path,
    }
}

/// The faulty alerts that a problem names by `/index/…`.
fn of_problem(problem: Problem) -> Vec<Rejected> {
    let mut rejected: Vec<Rejected> = Vec::new();
    for mut fault in problem.errors {
        let rest = fault.pointer.trim_start_matches('/').to_owned();
        let (index, pointer) = rest.split_once('/').unwrap_or((&rest, ""));
        let Ok(index) = index.parse() else { continue };
        fault.pointer = format!("/{pointer}");
        match rejected.last_mut().filter(|last| last.index == index) {
            Some(last) => last.errors.push(fault),
            None => rejected.push(Rejected { index, errors: vec![fault] }),
        }
    }
    rejected
}
