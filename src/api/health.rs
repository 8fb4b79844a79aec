//! `/livez`, `/readyz`, `/metrics`: endpoints for operators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::front::error::{ApiError, ApiResult};
use super::front::extract::Query;
use super::state::AppState;
use crate::domain::presence::Presence;
use crate::engine::readiness;
use crate::store::configured::agents;
use crate::store::configured::agents::Troubles;
use crate::store::configured::breakers::{self, OpenBreakers};
use crate::store::ledger::{commands, effects, outcomes};
use crate::views::health::Readiness;

/// Time without contact after which an agent is silent: ten heartbeats of 30 seconds.
const SILENT: Duration = Duration::from_mins(5);

/// The operations of this resource.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(metrics))
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
    let readiness = Readiness {
        ready: problems.is_empty(),
        problems,
        warnings: state.tls.iter().filter_map(|tls| tls.fault()).collect(),
        stages: rounds.map(|(stage, round)| (stage.to_owned(), round)).collect(),
        writer_load: engine.writer.load(),
        frozen: engine.frozen.load(Ordering::SeqCst),
        agents_streaming: engine.metrics.agents_streaming.get(),
        agents_rejecting,
    };
    Ok((status, axum::Json(readiness)).into_response())
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(State(state): State<AppState>) -> ApiResult<Response> {
    use std::fmt::Write as _;
    let mut text = String::new();
    encode(&mut text, &state.registry).map_err(|error| ApiError::internal(&error))?;
    // Gauges that only the ledger knows are queried per scrape. `# EOF` must stay the last line.
    text.truncate(text.trim_end_matches("# EOF\n").len());
    let ignore = |_: std::fmt::Error| ();
    text.push_str(
        "# HELP riposte_effects Effects that are wanted, in force or drifted, by wanted state (desired) and reported state (actual).\n# TYPE riposte_effects gauge\n",
    );
    let mut failing = 0;
    for count in effects::counts(&state.engine.db).await? {
        failing += count.failing;
        let (desired, actual, count) = (count.desired.as_str(), count.actual.as_str(), count.count);
        writeln!(text, "riposte_effects{{desired=\"{desired}\",actual=\"{actual}\"}} {count}").unwrap_or_else(ignore);
    }
    text.push_str(
        "# HELP riposte_effects_failing Effects whose last revert failed.\n# TYPE riposte_effects_failing gauge\n",
    );
    writeln!(text, "riposte_effects_failing {failing}").unwrap_or_else(ignore);
    text.push_str(
        "# HELP riposte_commands_owed Pending commands, not acknowledged yet.\n# TYPE riposte_commands_owed gauge\n",
    );
    for count in commands::counts(&state.engine.db).await? {
        writeln!(text, "riposte_commands_owed{{state=\"{}\"}} {}", count.state.as_str(), count.count)
            .unwrap_or_else(ignore);
    }
    let now = state.engine.clock.now();
    let Troubles { in_incident, silent, rejecting, clock_skewed } =
        agents::troubles(&state.engine.db, now.minus(SILENT), now).await?;
    text.push_str(
        "# HELP riposte_agents_rejecting Agents that rejected this manager's commands within the last hour.\n# TYPE riposte_agents_rejecting gauge\n",
    );
    writeln!(text, "riposte_agents_rejecting {rejecting}").unwrap_or_else(ignore);
    text.push_str(
        "# HELP riposte_agents_silent Agents without contact for five minutes.\n# TYPE riposte_agents_silent gauge\n",
    );
    writeln!(text, "riposte_agents_silent {silent}").unwrap_or_else(ignore);
    text.push_str(
        "# HELP riposte_agents_incident Agents whose identity two hosts share.\n# TYPE riposte_agents_incident gauge\n",
    );
    writeln!(text, "riposte_agents_incident {in_incident}").unwrap_or_else(ignore);
    text.push_str(
        "# HELP riposte_agents_clock_skewed Agents whose clock skew exceeds one minute.\n# TYPE riposte_agents_clock_skewed gauge\n",
    );
    writeln!(text, "riposte_agents_clock_skewed {clock_skewed}").unwrap_or_else(ignore);
    now_standing(&state, &mut text).await?;
    text.push_str("# EOF\n");
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Policies with their own row in the metrics; the others share one.
const POLICIES: usize = 100;

/// Gauges of active responses, agents and open breakers.
async fn now_standing(state: &AppState, text: &mut String) -> ApiResult<()> {
    use std::fmt::Write as _;
    let ignore = |_: std::fmt::Error| ();
    let standing = outcomes::standing(&state.engine.db).await?;
    let mut by_policy: BTreeMap<&str, i64> = BTreeMap::new();
    for ((policy, _), count) in &standing {
        *by_policy.entry(policy).or_insert(0) += count;
    }
    let mut largest: Vec<(&str, i64)> = by_policy.into_iter().collect();
    largest.sort_by_key(|(policy, count)| (std::cmp::Reverse(*count), *policy));
    let named: BTreeSet<&str> = largest.iter().take(POLICIES).map(|(policy, _)| *policy).collect();
    let mut rows: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for ((policy, outcome), count) in &standing {
        // A policy's name contains no brackets, so these words cannot clash.
        let policy = match policy.as_str() {
            "" => "(by hand)",
            policy if named.contains(policy) => policy,
            _ => "(others)",
        };
        *rows.entry((policy, outcome.as_str())).or_insert(0) += count;
    }
    text.push_str(
        "# HELP riposte_responses_standing Active responses by outcome.\n# TYPE riposte_responses_standing gauge\n",
    );
    for ((policy, outcome), count) in rows {
        writeln!(text, "riposte_responses_standing{{policy=\"{policy}\",outcome=\"{outcome}\"}} {count}")
            .unwrap_or_else(ignore);
    }
    let (fleet, now) = (state.engine.fleet.load(), state.engine.clock.now());
    text.push_str("# HELP riposte_agents Enrolled agents by presence.\n# TYPE riposte_agents gauge\n");
    let mut present: BTreeMap<Presence, usize> = Presence::ALL.into_iter().map(|presence| (presence, 0)).collect();
    for agent in fleet.iter() {
        *present.entry(state.engine.hub.presence(agent.id, now)).or_insert(0) += 1;
    }
    for (presence, count) in present {
        writeln!(text, "riposte_agents{{presence=\"{}\"}} {count}", presence.as_str()).unwrap_or_else(ignore);
    }
    let OpenBreakers { policies, agents } = breakers::open(&state.engine.db).await?;
    text.push_str(
        "# HELP riposte_breakers_open Open breakers: global, and on one agent.\n# TYPE riposte_breakers_open gauge\n",
    );
    writeln!(text, "riposte_breakers_open{{scope=\"policy\"}} {policies}").unwrap_or_else(ignore);
    writeln!(text, "riposte_breakers_open{{scope=\"agent\"}} {agents}").unwrap_or_else(ignore);
    Ok(())
}
