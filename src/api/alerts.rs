//! `/v1/alerts`: ingesting and reading alerts.

use std::borrow::Cow;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::front::auth::{Caller, Ingest, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Path, Payload, Query, fingerprint, idempotency_key, is_json, traceparent};
use super::front::page::{cursor_id, limit};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::alert::Alert;
use crate::domain::batch;
use crate::domain::decode::{decode, legible};
use crate::domain::fault::Fault;
use crate::domain::formats;
use crate::domain::formats::AlertMappings;
use crate::domain::formats::wazuh::{canonical_agent_id, canonical_rule_id};
use crate::engine::intake::Receipt;
use crate::store::database::columns;
use crate::store::ledger::alert_lists::{self, AlertFilter};
use crate::store::ledger::alerts::{self, AlertRow};
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::story::escape;
use crate::store::writer::IdempotentOutcome;
use crate::views::alerts::{AlertView, Intake, Rejected};
use crate::views::page::Page;
use riposte_protocol::time::Timestamp;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(create, list)).with(operations!(find))
}

/// Ingests alerts
///
/// Accepts one JSON object, a JSON array, or NDJSON (`application/x-ndjson`), plain, gzip or zstd.
/// Senders that know no bearer tokens may send a key of the role `ingest` as the password of Basic
/// authentication, or in the address (`/v1/ingest/{secret}`).
/// The response is sent once alerts, responses and commands are durable. A batch rejects only its
/// faulty alerts; if every alert is faulty, the response is 422.
#[utoipa::path(post, path = "/v1/alerts", tag = "alerts", params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 202, description = "Committed", body = Intake)))]
pub async fn create(
    caller: Caller<Ingest>,
    State(state): State<AppState>,
    request: Request,
) -> ApiResult<(StatusCode, axum::Json<Intake>)> {
    ingest(&caller, &state, request).await
}

/// Takes in the alerts of `sender`, by whichever route.
///
/// # Errors
/// As [`create`].
pub(super) async fn ingest(
    sender: &Caller<Ingest>,
    state: &AppState,
    request: Request,
) -> ApiResult<(StatusCode, axum::Json<Intake>)> {
    let headers = request.headers().clone();
    let payload = Payload::read(request, state.limits.max_body_bytes, &state.memory.alerts).await?;
    let key = idempotency_key(&headers)?;
    take_in(sender, state, &headers, key, payload).await
}

/// Takes in the alerts of a body, once for each idempotency key.
///
/// # Errors
/// As [`create`].
pub(super) async fn take_in(
    sender: &Caller<Ingest>,
    state: &AppState,
    headers: &HeaderMap,
    key: Option<String>,
    payload: Payload,
) -> ApiResult<(StatusCode, axum::Json<Intake>)> {
    let once = key.map(|key| Once {
        principal: sender.principal.actor.clone(),
        key,
        fingerprint: fingerprint("POST /v1/alerts\n", &payload.bytes),
    });
    let (raws, is_batch) = split(&payload.bytes, &payload.media_type)?;
    // Some pipelines send several alerts in one object.
    let object = match raws.as_slice() {
        [object] if !is_batch => decode(object),
        _ => Cow::default(),
    };
    let items = formats::split(&object, &state.engine.mappings, sender.principal.pipeline.as_deref());
    let (raws, is_batch) =
        items.map_or((raws, is_batch), |items| (items.into_iter().map(str::as_bytes).collect(), true));
    if raws.len() > state.limits.max_batch {
        let most = state.limits.max_batch;
        return Err(ApiError::too_large(format!("a request may contain at most {most} alerts")));
    }
    let trace = traceparent(headers);
    let outcome = state.engine.accept(raws, &sender.principal, once, trace, payload.permit).await?;
    match outcome {
        IdempotentOutcome::KeyReused => Err(ApiError::key_reused()),
        IdempotentOutcome::Done(receipt) => Ok((StatusCode::ACCEPTED, axum::Json(answer(receipt, is_batch)?))),
    }
}

/// Splits a body into single alerts, and returns whether it is a batch.
fn split<'a>(bytes: &'a [u8], media_type: &str) -> ApiResult<(Vec<&'a [u8]>, bool)> {
    // A byte order mark is not JSON, but editors on Windows write one.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    match media_type {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            let lines = batch::lines(bytes);
            if lines.is_empty() {
                return Err(ApiError::malformed("the body contains no alert"));
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
        // If the body is not an array, report the JSON fault if there is one.
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

pub(super) fn answer(receipt: Receipt, is_batch: bool) -> ApiResult<Intake> {
    let Receipt { accepted, duplicates, conflicting, rejected, responses } = receipt;
    if accepted + duplicates == 0 && !rejected.is_empty() {
        let faults = rejected.into_iter().flat_map(|(index, faults)| {
            let place = if is_batch { format!("/{index}") } else { String::new() };
            faults.into_iter().map(move |fault| Fault::at(format!("{place}{}", fault.pointer), fault.detail))
        });
        // The first hundred faults are enough.
        return Err(ApiError::invalid(faults.take(100).collect()));
    }
    let rejected = rejected.into_iter().map(|(index, errors)| Rejected { index, errors }).collect();
    Ok(Intake { accepted, duplicates, conflicting, rejected, responses })
}

/// Time of receipt of the alert.
fn received(id: &str) -> ApiResult<Timestamp> {
    Ok(alerts::received(&columns::id(id)?))
}

fn view(row: AlertRow, mappings: &AlertMappings, with_raw: bool) -> ApiResult<AlertView> {
    let raw = row.raw()?;
    let alert = row.alert(&decode(raw.as_bytes()), mappings).received(received(&row.id)?);
    let raw =
        if with_raw { Some(RawValue::from_string(raw).map_err(|error| ApiError::internal(&error))?) } else { None };
    let Alert { pipeline, pipeline_id, time, rule, agent, observables, .. } = alert;
    Ok(AlertView { id: row.id, pipeline, pipeline_id, time, rule, agent, observables, raw })
}

/// Filter of an alert list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAlerts {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Id in the pipeline, such as Wazuh's `1795169472.12345`.
    source_id: Option<String>,
    /// Rule id.
    rule_id: Option<String>,
    /// Minimum rule level.
    min_level: Option<i64>,
    /// Agent id in the pipeline.
    agent_id: Option<String>,
    /// Earliest event time, inclusive.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Latest event time, exclusive.
    #[param(value_type = Option<String>)]
    until: Option<Timestamp>,
}

/// Lists alerts, newest first
#[utoipa::path(get, path = "/v1/alerts", tag = "alerts", params(ListAlerts),
    responses((status = 200, body = Page<AlertView>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListAlerts>,
    uri: Uri,
) -> ApiResult<Response> {
    let visible = Visible::to(&caller, &state.engine);
    let mut page = visible.filling(limit(query.limit)?, query.cursor);
    let filter = AlertFilter {
        source_id: query.source_id,
        rule_id: query.rule_id.map(|id| canonical_rule_id(&id)),
        min_level: query.min_level,
        agent_id: query.agent_id.map(|id| canonical_agent_id(&id).unwrap_or(id)),
        since: query.since,
        until: query.until,
    };
    while let Some((cursor, count)) = page.wants() {
        let before = cursor_id(cursor.as_deref())?;
        let rows = alert_lists::list(&state.engine.db, filter.clone(), before, count).await?;
        let shown = |row| {
            let alert = view(row, &state.engine.mappings, false)?;
            Ok((alert.id.clone(), visible.alert(&alert.agent).then_some(alert)))
        };
        page.add(rows.into_iter().map(shown).collect::<ApiResult<_>>()?);
    }
    Ok(page.page(&uri))
}

/// Maximum number of alerts listed in a 409 for an ambiguous id.
const NAMED: i64 = 20;

/// Finds an alert by Riposte's id or the pipeline's id.
///
/// # Errors
/// 404 if it does not exist; 409 with the candidates if several pipelines or nodes use the id.
pub async fn named(state: &AppState, visible: &Visible<'_>, word: &str) -> ApiResult<AlertRow> {
    let db = &state.engine.db;
    if let Ok(id) = word.parse::<Uuid>()
        && let Some(row) = alerts::find(db, id).await?
        && is_visible(state, visible, &row)?
    {
        return Ok(row);
    }
    let filter = AlertFilter { source_id: Some(word.to_owned()), ..AlertFilter::default() };
    let mut rows = Vec::new();
    for row in alert_lists::list(db, filter, None, NAMED).await? {
        if is_visible(state, visible, &row)? {
            rows.push(row);
        }
    }
    match (rows.pop(), rows.is_empty()) {
        (None, _) => Err(ApiError::not_found("no alert has this id, neither Riposte's nor the pipeline's")),
        (Some(row), true) => Ok(row),
        (Some(last), false) => {
            rows.push(last);
            let faults = rows.iter().map(|row| Fault::at("/id", whose(row))).collect();
            Err(ApiError::ambiguous(format!("{} alerts have this id: use Riposte's id", rows.len()), faults))
        }
    }
}

fn is_visible(state: &AppState, visible: &Visible<'_>, row: &AlertRow) -> ApiResult<bool> {
    if !visible.hides_agents() {
        return Ok(true);
    }
    let alert = row.alert(&decode(row.raw()?.as_bytes()), &state.engine.mappings);
    Ok(visible.alert(&alert.agent))
}

/// Describes one of several alerts with the same id.
fn whose(row: &AlertRow) -> String {
    let raw: serde_json::Value = row.text().ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let text = |pointer: &str| raw.pointer(pointer).and_then(serde_json::Value::as_str).map(escape);
    let of = |what: &str, name: Option<String>| name.map_or_else(String::new, |name| format!(", {what} {name}"));
    let (manager, node) = (of("manager", text("/manager/name")), of("node", text("/cluster/node")));
    format!("is {} of {}{manager}{node}, {}", row.id, escape(&row.pipeline), Timestamp::from(row.time))
}

/// The alert with its raw text, if it is still kept.
///
/// # Errors
/// 403 if it is hidden.
pub(super) async fn kept(state: &AppState, visible: &Visible<'_>, id: Uuid) -> ApiResult<Option<AlertView>> {
    let Some(row) = alerts::find(&state.engine.db, id).await? else { return Ok(None) };
    let view = view(row, &state.engine.mappings, true)?;
    if visible.alert(&view.agent) {
        return Ok(Some(view));
    }
    Err(ApiError::forbidden("the response is because of an alert outside your scope"))
}

/// Returns one alert with its raw text
///
/// `id` is Riposte's id or the pipeline's (Wazuh's `1795169472.12345`). If several alerts have a
/// pipeline's id, the response is 409 and lists them.
#[utoipa::path(get, path = "/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = AlertView), (status = 409)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> ApiResult<axum::Json<AlertView>> {
    let row = named(&state, &Visible::to(&caller, &state.engine), &id).await?;
    Ok(axum::Json(view(row, &state.engine.mappings, true)?))
}
