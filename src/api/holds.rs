//! `/v1/holds`: legal holds. What they cover is removed by no retention.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::front::auth::{Administer, Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query};
use super::front::page::{cursor_id, cut, limit, page_until};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::store::configured::legal_holds;
use crate::store::ledger::responses;
use crate::views::legal_holds::{CreateLegalHold, LegalHoldRow};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list, create)).with(operations!(find, release))
}

/// Filter of a list of legal holds.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListHolds {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Places a legal hold
///
/// From then on no retention removes what it covers: responses with their alerts, commands and results,
/// and the audit log from the earliest entry about them on.
#[utoipa::path(post, path = "/v1/holds", tag = "holds",
    params(("Idempotency-Key" = Option<String>, Header)), request_body = CreateLegalHold,
    responses((status = 201, body = LegalHoldRow), (status = 409)))]
pub async fn create(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<CreateLegalHold>,
) -> ApiResult<(StatusCode, axum::Json<LegalHoldRow>)> {
    caller.unlimited("legal holds apply to all agents and policies")?;
    let once = body.once(&caller.principal);
    let row = state.engine.hold(body.value, once, &caller.principal.at()).await?;
    Ok((StatusCode::CREATED, axum::Json(row)))
}

/// Lists legal holds, oldest first
#[utoipa::path(get, path = "/v1/holds", tag = "holds", params(ListHolds),
    responses((status = 200, body = Page<LegalHoldRow>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListHolds>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, after) = (limit(query.limit)?, cursor_id(query.cursor.as_deref())?);
    let rows = legal_holds::list(&state.engine.db, after, limit + 1).await?;
    let (rows, next) = cut(rows, limit, |row: &LegalHoldRow| row.id.clone());
    let visible = Visible::to(&caller, &state.engine);
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        if concerns(&state, &visible, &row).await? {
            shown.push(row);
        }
    }
    Ok(page_until(shown, next, &uri))
}

/// Whether what the hold covers is visible. A target or a time is one of the whole installation.
async fn concerns(state: &AppState, visible: &Visible<'_>, row: &LegalHoldRow) -> ApiResult<bool> {
    if !visible.hides() {
        return Ok(true);
    }
    Ok(match (row.kind.as_str(), row.value.parse::<Uuid>()) {
        ("response", Ok(id)) => match responses::find(&state.engine.db, id).await? {
            Some(response) => visible.response(&response)?,
            None => false,
        },
        ("agent", _) => visible.hides_agents() && visible.agent(&row.value),
        ("policy", _) => !visible.hides_agents() && visible.policy(&row.value),
        _ => false,
    })
}

/// Returns one legal hold
#[utoipa::path(get, path = "/v1/holds/{id}", tag = "holds", params(("id" = Uuid, Path)),
    responses((status = 200, body = LegalHoldRow)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<LegalHoldRow>> {
    let missing = || ApiError::not_found("the legal hold does not exist");
    let row = legal_holds::find(&state.engine.db, id).await?.ok_or_else(missing)?;
    let is_visible = concerns(&state, &Visible::to(&caller, &state.engine), &row).await?;
    if is_visible { Ok(axum::Json(row)) } else { Err(missing()) }
}

/// Releases a legal hold
///
/// What is over and older than the retention goes with the next removal.
#[utoipa::path(delete, path = "/v1/holds/{id}", tag = "holds", params(("id" = Uuid, Path)),
    responses((status = 204)))]
pub async fn release(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    caller.unlimited("legal holds apply to all agents and policies")?;
    state.engine.release_hold(id, &caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}
