//! `/livez`, `/readyz`, `/metrics`: for whoever keeps the manager running.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;

use super::AppState;
use super::error::{ApiError, ApiResult};
use crate::store::{commands, effects, policies};

/// Whether the process is alive
#[utoipa::path(get, path = "/livez", tag = "health", security(()), responses((status = 200, description = "It is")))]
pub async fn live() -> &'static str {
    "ok\n"
}

/// Whether it can do its work
///
/// 503 while it stops, or while the database does not answer.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses((status = 200, description = "It can")))]
pub async fn ready(State(state): State<AppState>) -> ApiResult<&'static str> {
    if state.engine.tasks.stopping().is_cancelled() {
        return Err(ApiError::unavailable("the manager is stopping", 5));
    }
    policies::find(&state.engine.db, "").await?;
    Ok("ok\n")
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, content_type = "text/plain")))]
pub async fn metrics(State(state): State<AppState>) -> ApiResult<Response> {
    use std::fmt::Write as _;
    let mut text = String::new();
    encode(&mut text, &state.registry).map_err(|error| ApiError::internal(&error))?;
    // What only the ledger knows is asked when somebody looks; `# EOF` has to stay the last line.
    text.truncate(text.trim_end_matches("# EOF\n").len());
    let ignore = |_: std::fmt::Error| ();
    text.push_str(
        "# HELP riposte_effects Effects by what is wanted and what the agents say.\n# TYPE riposte_effects gauge\n",
    );
    let mut failing = 0;
    for count in effects::counts(&state.engine.db).await? {
        failing += count.failing;
        let (desired, actual, count) = (count.desired, count.actual, count.count);
        writeln!(text, "riposte_effects{{desired=\"{desired}\",actual=\"{actual}\"}} {count}").unwrap_or_else(ignore);
    }
    text.push_str(
        "# HELP riposte_effects_failing Effects that could not be lifted.\n# TYPE riposte_effects_failing gauge\n",
    );
    writeln!(text, "riposte_effects_failing {failing}").unwrap_or_else(ignore);
    text.push_str("# HELP riposte_commands_owed Commands that no agent has acknowledged yet.\n# TYPE riposte_commands_owed gauge\n");
    for count in commands::counts(&state.engine.db).await? {
        writeln!(text, "riposte_commands_owed{{state=\"{}\"}} {}", count.state, count.count).unwrap_or_else(ignore);
    }
    text.push_str("# EOF\n");
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, content_type)], text).into_response())
}
