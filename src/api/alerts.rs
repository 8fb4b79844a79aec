//! `/v1/alerts`: handing alerts in, and looking at them.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::AppState;
use super::auth::{Caller, Ingest, Read};
use super::error::{ApiError, ApiResult};
use super::extract::{Path, Payload, Query, fingerprint, idempotency_key, is_json, traceparent};
use super::page::{Page, cursor_id, limit, page};
use crate::domain::alert::{Alert, AlertAgent, Observables, Rule};
use crate::domain::batch;
use crate::domain::decode::{decode, legible};
use crate::domain::fault::Fault;
use crate::domain::shapes;
use crate::domain::shapes::Sources;
use crate::domain::shapes::wazuh::{canonical_agent_id, canonical_rule_id};
use crate::engine::intake::Receipt;
use crate::store::alerts::{self, AlertFilter, AlertRow};
use crate::store::columns;
use crate::store::idempotency::Once;
use crate::store::story::escape;
use crate::store::writer::Outcome;
use riposte_protocol::time::Timestamp;

/// An alert that was not taken in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Rejected {
    /// Its position in the request: in the array, or among the lines that are not empty.
    pub index: usize,
    /// What is wrong with it.
    pub errors: Vec<Fault>,
}

/// What became of the alerts of one request. Everything it names is durable.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Intake {
    /// How many are new.
    pub accepted: usize,
    /// How many had been handed in before; they change nothing.
    pub duplicates: usize,
    /// How many of these differ from the stored alert of the same id: what they say has no answer.
    pub conflicting: usize,
    /// Which were not taken in.
    pub rejected: Vec<Rejected>,
    /// The responses that the new ones got, spared and observed ones too.
    pub responses: Vec<Uuid>,
}

/// Hands alerts in
///
/// One JSON object, a JSON array, or NDJSON (`application/x-ndjson`), plain, gzip or zstd. Answered when alerts, responses
/// and commands are durable. A faulty alert in a batch is rejected alone; a request in which every alert is faulty is 422.
#[utoipa::path(post, path = "/v1/alerts", tag = "alerts", request_body(content = Object, content_type = "application/json"),
    responses((status = 202, description = "Committed", body = Intake)))]
pub async fn create(
    caller: Caller<Ingest>,
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<(StatusCode, axum::Json<Intake>)> {
    let headers = request.headers().clone();
    let payload = Payload::read(request, state.limits.max_body_bytes, &state.rooms.alerts).await?;
    let once = idempotency_key(&headers)?.map(|key| Once {
        principal: caller.principal.name.clone(),
        key,
        fingerprint: fingerprint("POST /v1/alerts\n", &payload.bytes),
    });
    let (raws, is_batch) = split(&payload.bytes, &payload.media_type)?;
    if raws.len() > state.limits.max_batch {
        let most = state.limits.max_batch;
        return Err(ApiError::too_large(format!("a request may hold at most {most} alerts")));
    }
    let outcome = state
        .engine
        .accept(raws, caller.principal.pipeline.as_deref(), once, traceparent(&headers), payload.place)
        .await?;
    match outcome {
        Outcome::KeyReused => Err(ApiError::key_reused()),
        Outcome::Done(receipt) => Ok((StatusCode::ACCEPTED, axum::Json(answer(receipt, is_batch)?))),
    }
}

/// The bytes of single alerts, and whether they came as a batch.
fn split<'a>(bytes: &'a [u8], media_type: &str) -> ApiResult<(Vec<&'a [u8]>, bool)> {
    // A byte order mark is no JSON, but editors on Windows write one.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    match media_type {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            let lines = batch::lines(bytes);
            if lines.is_empty() {
                return Err(ApiError::malformed("the body holds no alert"));
            }
            Ok((lines, true))
        }
        "" => split_json(bytes),
        json if is_json(json) => split_json(bytes),
        _ => Err(ApiError::unsupported("Content-Type must be application/json or application/x-ndjson")),
    }
}

fn split_json(bytes: &[u8]) -> ApiResult<(Vec<&[u8]>, bool)> {
    let body = bytes.trim_ascii();
    let not_json = |error: serde_json::Error| ApiError::malformed(format!("the body is not JSON: {error}"));
    if body.starts_with(b"[") {
        // What is no array may have a fault that a reader of JSON can name.
        let fault = || serde_json::from_str::<IgnoredAny>(&legible(body)).err().map(not_json);
        let array = batch::elements(body);
        return match array {
            Some(alerts) => Ok((alerts, true)),
            None => Err(fault().unwrap_or_else(|| ApiError::malformed("the body is not a JSON array"))),
        };
    }
    let _: IgnoredAny = serde_json::from_str(&legible(body)).map_err(not_json)?;
    Ok((vec![body], false))
}

fn answer(receipt: Receipt, is_batch: bool) -> ApiResult<Intake> {
    let Receipt { accepted, duplicates, conflicting, rejected, responses } = receipt;
    if accepted + duplicates == 0 && !rejected.is_empty() {
        let faults = rejected.into_iter().flat_map(|(index, faults)| {
            let place = if is_batch { format!("/{index}") } else { String::new() };
            faults.into_iter().map(move |fault| Fault::at(format!("{place}{}", fault.pointer), fault.detail))
        });
        // A hundred faults say as much as ten thousand.
        return Err(ApiError::invalid(faults.take(100).collect()));
    }
    let rejected = rejected.into_iter().map(|(index, errors)| Rejected { index, errors }).collect();
    Ok(Intake { accepted, duplicates, conflicting, rejected, responses })
}

/// A stored alert.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AlertView {
    /// Its id; its time is when it was received.
    pub id: String,
    /// Who sent it.
    pub pipeline: String,
    /// The pipeline's id of it.
    pub pipeline_id: String,
    /// When it happened.
    pub time: Timestamp,
    /// The rule that fired.
    pub rule: Rule,
    /// Where it comes from.
    pub agent: AlertAgent,
    /// What it saw.
    pub observables: Observables,
    /// The alert as it came, but for bytes that are no text (U+FFFD) and numbers out of range (texts); only when one alert is asked
    /// for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub raw: Option<Box<RawValue>>,
}

/// When the alert of that id was received.
fn received(id: &str) -> ApiResult<Timestamp> {
    Ok(alerts::received(&columns::id(id)?))
}

fn view(row: AlertRow, sources: &Sources, with_raw: bool) -> ApiResult<AlertView> {
    let raw = row.raw()?;
    let alert = shapes::parse(&decode(raw.as_bytes()), sources)
        .map_err(|faults| ApiError::internal(&format!("alert {}: {faults:?}", row.id)))?;
    let alert = alert.received(received(&row.id)?);
    let raw =
        if with_raw { Some(RawValue::from_string(raw).map_err(|error| ApiError::internal(&error))?) } else { None };
    let Alert { pipeline, pipeline_id, time, rule, agent, observables, .. } = alert;
    Ok(AlertView { id: row.id, pipeline, pipeline_id, time, rule, agent, observables, raw })
}

/// Which alerts to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAlerts {
    limit: Option<i64>,
    cursor: Option<String>,
    /// With this id in its pipeline, such as Wazuh's `1795169472.12345`.
    source_id: Option<String>,
    /// Of this rule.
    rule_id: Option<String>,
    /// At least of this level.
    min_level: Option<i64>,
    /// From this agent, by the pipeline's id.
    agent_id: Option<String>,
    /// Not before this time.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>)]
    until: Option<Timestamp>,
}

/// Lists alerts, newest first
#[utoipa::path(get, path = "/v1/alerts", tag = "alerts", params(ListAlerts), responses((status = 200, body = Page<AlertView>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListAlerts>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, before) = (limit(query.limit)?, cursor_id(query.cursor.as_deref())?);
    let filter = AlertFilter {
        source_id: query.source_id,
        rule_id: query.rule_id.map(|id| canonical_rule_id(&id)),
        min_level: query.min_level,
        agent_id: query.agent_id.map(|id| canonical_agent_id(&id).unwrap_or(id)),
        since: query.since,
        until: query.until,
    };
    let rows = alerts::list(&state.engine.db, filter, before, limit + 1).await?;
    let views =
        rows.into_iter().map(|row| view(row, &state.engine.sources, false)).collect::<ApiResult<Vec<AlertView>>>()?;
    Ok(page(views, limit, &uri, |alert| alert.id.clone()))
}

/// The most alerts that an answer names when several have the id that was asked for.
const NAMED: i64 = 20;

/// The alert that `word` names: by Riposte's id, or by the pipeline's own.
///
/// # Errors
/// 404 if there is none; 409 if several pipelines or nodes gave that id, naming them.
pub async fn named(state: &AppState, word: &str) -> ApiResult<AlertRow> {
    let db = &state.engine.db;
    if let Ok(id) = word.parse::<Uuid>()
        && let Some(row) = alerts::find(db, id).await?
    {
        return Ok(row);
    }
    let filter = AlertFilter { source_id: Some(word.to_owned()), ..AlertFilter::default() };
    let mut rows = alerts::list(db, filter, None, NAMED).await?;
    match (rows.pop(), rows.is_empty()) {
        (None, _) => Err(ApiError::not_found("there is no such alert, neither by Riposte's id nor by its pipeline's")),
        (Some(row), true) => Ok(row),
        (Some(last), false) => {
            rows.push(last);
            let faults = rows.iter().map(|row| Fault::at("/id", whose(row))).collect();
            Err(ApiError::ambiguous(
                format!("{} alerts have this id: ask for one by Riposte's own id", rows.len()),
                faults,
            ))
        }
    }
}

/// Which one of several alerts with one id it is.
fn whose(row: &AlertRow) -> String {
    let raw: serde_json::Value = row.text().ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let text = |pointer: &str| raw.pointer(pointer).and_then(serde_json::Value::as_str).map(escape);
    let of = |what: &str, name: Option<String>| name.map_or_else(String::new, |name| format!(", {what} {name}"));
    let (manager, node) = (of("manager", text("/manager/name")), of("node", text("/cluster/node")));
    format!("is {} of {}{manager}{node}, {}", row.id, escape(&row.pipeline), Timestamp::from(row.time))
}

/// Gives one alert, as it came too
///
/// `id` is Riposte's, or the pipeline's own (Wazuh's `1795169472.12345`); 409 names the alerts if several have that one.
#[utoipa::path(get, path = "/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)), responses((status = 200, body = AlertView)))]
pub async fn find(
    _: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> ApiResult<axum::Json<AlertView>> {
    let row = named(&state, &id).await?;
    Ok(axum::Json(view(row, &state.engine.sources, true)?))
}
