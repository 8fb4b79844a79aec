//! `/livez`, `/readyz`, `/metrics`: endpoints for operators.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::front::error::{ApiError, ApiResult};
use super::front::extract::Query;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::engine::readiness;
use crate::exposition::expose;
use crate::store::configured::agents;
use crate::views::health::Readiness;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(live)).with(operations!(ready)).with(operations!(metrics))
}

/// Whether the process is alive
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, description = "It is", body = String, content_type = "text/plain")))]
pub async fn live() -> &'static str {
    "ok\n"
}

/// Query of `/readyz`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HowReady {
    /// Return the health of every stage, as JSON.
    #[param(value_type = Option<bool>)]
    verbose: Option<String>,
}

/// Whether the manager is ready
///
/// The response is 503 while the manager stops, alerts cannot be committed (full disk, lost
/// database), or deadlines are missed. It names the problem within 2 seconds. `?verbose` returns
/// the health of every stage as JSON.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), params(HowReady),
    responses((status = 200, description = "It can", content((String = "text/plain"), (Readiness = "application/json"))),
        (status = 503, description = "It cannot", body = Readiness)))]
pub async fn ready(State(state): State<AppState>, Query(how): Query<HowReady>) -> ApiResult<Response> {
    let engine = &state.engine;
    if engine.tasks.stopping().is_cancelled() {
        return Err(ApiError::unavailable("the manager is stopping", 5));
    }
    let problems = readiness::problems(engine).await.to_vec();
    if how.verbose.is_none_or(|word| word == "false") {
        return match problems.as_slice() {
            [] => Ok("ok\n".into_response()),
            problems => Err(ApiError::unavailable(problems.join("; "), 1)),
        };
    }
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Skipped if the ledger may not answer: this response is due in any case.
    let agents_rejecting = if problems.is_empty() {
        let now = engine.clock.now();
        agents::troubles(&engine.db, now, now).await.ok().map(|troubles| troubles.rejecting)
    } else {
        None
    };
    let rounds = engine.health.rounds(engine.clock.now()).into_iter();
    let breaches = engine.db.seals().breaches().into_iter().map(|breach| breach.describe());
    let warnings = state.tls.iter().filter_map(|tls| tls.fault()).chain(engine.health.warnings()).chain(breaches);
    let readiness = Readiness {
        ready: problems.is_empty(),
        problems,
        warnings: warnings.collect(),
        stages: rounds.map(|(stage, round)| (stage.to_owned(), round)).collect(),
        writer_load: engine.writer.load(),
        frozen: engine.frozen.load(Ordering::SeqCst),
        agents_streaming: engine.metrics.agents_streaming.get(),
        agents_rejecting,
    };
    Ok((status, axum::Json(readiness)).into_response())
}

/// Metrics in Prometheus' text format
///
/// `OpenMetrics` text if `Accept` names it, as Prometheus does.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, content((String = "text/plain"), (String = "application/openmetrics-text")))))]
pub async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> ApiResult<Response> {
    state.ledger_gauges.refresh(&state.engine).await?;
    expose(&state.registry, &headers).map_err(|error| ApiError::internal(&error))
}
