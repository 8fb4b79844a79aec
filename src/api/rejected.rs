//! `/v1/pipelines` and `/v1/rejected`: how foreign alerts are read, and what was not taken in.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::alerts;
use super::front::auth::{Caller, Ingest, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Path, Query};
use super::front::page::{cursor_id, limit, page};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::store::ledger::rejected;
use crate::views::alerts::{Intake, PipelineView, RejectedAlert};
use crate::views::page::Page;

/// The operations of these resources.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(pipelines)).with(operations!(list)).with(operations!(find)).with(operations!(resend))
}

/// Lists the mappings of foreign alerts
///
/// Those that come with Riposte, and those of the configuration, by the name of their pipeline.
#[utoipa::path(get, operation_id = "pipelines_list", path = "/v1/pipelines", tag = "alerts", responses((status = 200, body = Page<PipelineView>)))]
pub async fn pipelines(_: Caller<Read>, State(state): State<AppState>) -> axum::Json<Page<PipelineView>> {
    let mappings = &state.engine.mappings;
    let view = |(name, mapping): (&str, &crate::domain::formats::PipelineMapping)| PipelineView {
        name: name.to_owned(),
        source: mappings.source(name).to_owned(),
        mapping: mapping.spec().clone(),
    };
    axum::Json(Page { items: mappings.all().map(view).collect(), next_cursor: None })
}

/// Filter of a list of rejected alerts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListRejected {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Pipeline of the sender's key.
    pipeline: Option<String>,
}

/// Lists alerts that were not taken in, newest first
///
/// They are kept for a week, and for each sender the last thousand. A caller with a scope sees none: of what cannot be read it is
/// not known whom it is about.
#[utoipa::path(get, operation_id = "rejected_list", path = "/v1/rejected", tag = "alerts", params(ListRejected),
    responses((status = 200, body = Page<RejectedAlert>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListRejected>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, before) = (limit(query.limit)?, cursor_id(query.cursor.as_deref())?);
    let rows = if Visible::to(&caller, &state.engine).hides() {
        Vec::new()
    } else {
        rejected::list(&state.engine.db, query.pipeline.as_deref(), before, limit + 1).await?
    };
    Ok(page(rows, limit, &uri, |row: &RejectedAlert| row.id.clone()))
}

/// Returns one rejected alert with its bytes, as text
#[utoipa::path(get, operation_id = "rejected_find", path = "/v1/rejected/{id}", tag = "alerts", params(("id" = Uuid, Path)),
    responses((status = 200, body = RejectedAlert)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<RejectedAlert>> {
    let mut row = row(&state, id, !Visible::to(&caller, &state.engine).hides()).await?;
    let raw = rejected::raw(&state.engine.db, id).await?;
    row.raw = raw.map(|raw| String::from_utf8_lossy(&raw).into_owned());
    Ok(axum::Json(row))
}

/// Takes a rejected alert in again
///
/// It is read as an alert of the same pipeline, by the mappings of now, and then is in the list no more. If it is rejected again,
/// the response is 422 with the reasons.
#[utoipa::path(post, operation_id = "rejected_resend", path = "/v1/rejected/{id}/resend", tag = "alerts", params(("id" = Uuid, Path)),
    responses((status = 200, body = Intake), (status = 409), (status = 422)))]
pub async fn resend(
    caller: Caller<Ingest>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    _: HeaderMap,
) -> ApiResult<axum::Json<Intake>> {
    let row = row(&state, id, !Visible::to(&caller, &state.engine).hides()).await?;
    let own = &caller.principal.pipeline;
    if own.is_some() && *own != row.pipeline {
        return Err(ApiError::forbidden("the alert is one of another pipeline than that of the key"));
    }
    let permit = state.memory.alerts.take(usize::try_from(row.size).unwrap_or(usize::MAX))?;
    let receipt = state.engine.resend(&row, id, &caller.principal, permit).await?;
    let receipt = receipt.ok_or_else(|| ApiError::conflict("the alert was too large to be kept: send it again"))?;
    Ok(axum::Json(alerts::answer(receipt, false)?))
}

async fn row(state: &AppState, id: Uuid, is_visible: bool) -> ApiResult<RejectedAlert> {
    let row = if is_visible { rejected::find(&state.engine.db, id).await? } else { None };
    row.ok_or_else(|| {
        ApiError::not_found("the rejected alert does not exist, was taken in, or was removed after a week")
    })
}
