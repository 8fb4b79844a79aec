//! `/v1/policies/backtest`: what a draft would have done over the stored alerts. With
//! `Accept: application/x-ndjson` the response streams progress lines. It always ends in one result
//! or one error (promise 13).

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::front::auth::{Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Json;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::engine::backtest::{Draft, backtest};
use crate::views::backtest::{BacktestLine, BacktestProgress, BacktestReport, NewBacktest};

/// Default and maximum number of samples.
const SAMPLES: (usize, usize) = (20, 1000);
/// Progress lines buffered for a slow client; excess lines are dropped.
const LINES: usize = 64;
/// `Retry-After` while another backtest runs.
const RETRY_AFTER_SECS: u64 = 5;
/// Media type of JSON lines.
const NDJSON: &str = "application/x-ndjson";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(run))
}

/// Tests a draft policy over the stored alerts
///
/// With `Accept: application/x-ndjson` the response is lines of `{"progress":{"scanned","total"}}`,
/// then one `{"result":…}` or `{"error":…}`. Only one backtest runs at a time; others get 503.
#[utoipa::path(post, operation_id = "backtest", path = "/v1/policies/backtest", tag = "policies",
    request_body = NewBacktest,
    responses((status = 200, content((BacktestReport = "application/json"), (String = "application/x-ndjson")))))]
pub async fn run(
    caller: Caller<Read>,
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Json<NewBacktest>,
) -> ApiResult<Response> {
    caller.unlimited("a backtest reads the alerts of all agents")?;
    let NewBacktest { policy, since, until, samples } = body.value;
    let policy =
        Arc::new(state.engine.check_policy(&policy).map_err(|refusal| ApiError::from(refusal).below("/policy"))?);
    let samples = samples.unwrap_or(SAMPLES.0).min(SAMPLES.1);
    let permit = Arc::clone(&state.engine.backtests).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("another backtest is running", RETRY_AFTER_SECS))?;
    let draft = Draft { policy, since, until, samples };
    let wants_lines =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains(NDJSON));
    if wants_lines {
        return Ok(lines(&state, draft, permit));
    }
    let report = backtest(&state.engine, draft, |_, _| ()).await?;
    Ok(axum::Json(report).into_response())
}

fn lines(state: &AppState, draft: Draft, permit: OwnedSemaphorePermit) -> Response {
    let (sender, receiver) = mpsc::channel::<BacktestLine>(LINES);
    let engine = Arc::clone(&state.engine);
    state.engine.tasks.spawn_short(async move {
        let progress = |scanned: u64, total: u64| {
            let progress = Some(BacktestProgress { scanned, total });
            let _ = sender.try_send(BacktestLine { progress, ..BacktestLine::default() });
        };
        let outcome = tokio::select! {
            outcome = backtest(&engine, draft, progress) => outcome,
            // The client has disconnected.
            () = sender.closed() => return,
        };
        // A client that reads the last line slowly must not hold the permit.
        drop(permit);
        let last = match outcome {
            Ok(report) => BacktestLine { result: Some(report), ..BacktestLine::default() },
            Err(error) => BacktestLine { error: Some(ApiError::from(error).problem()), ..BacktestLine::default() },
        };
        let _ = sender.send(last).await;
    });
    let lines = stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((serde_json::to_value(line).map(|line| Bytes::from(format!("{line}\n"))), receiver))
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}
