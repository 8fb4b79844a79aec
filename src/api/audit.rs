//! `/v1/audit`: who did what, and the proof that the log was not edited.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::Query;
use super::front::page::{cursor_number, limit, page};
use super::state::AppState;
use crate::domain::canonical;
use crate::store::ledger::audit::{self, AuditFilter};
use crate::views::audit::{AuditProof, AuditRow};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Those that may read the whole ledger.
pub(super) fn long_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(verify))
}

/// Filter of an audit log list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAudit {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Kind of object: `response`, `command`, `policy`, `agent` …
    noun: Option<String>,
    /// Id of the object.
    noun_id: Option<String>,
}

/// Lists the audit log, newest first
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(ListAudit),
    responses((status = 200, body = Page<AuditRow>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListAudit>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, before) = (limit(query.limit)?, cursor_number(query.cursor.as_deref())?);
    let filter = AuditFilter { noun: query.noun, noun_id: query.noun_id.map(|id| canonical::id(&id)) };
    let rows = audit::list(&state.engine.db, filter, before, limit + 1).await?;
    Ok(page(rows, limit, &uri, |row| row.seq.to_string()))
}

/// Recomputes the hash chain from its beginning
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit", responses((status = 200, body = AuditProof)))]
pub async fn verify(_: Caller<Read>, State(state): State<AppState>) -> ApiResult<axum::Json<AuditProof>> {
    Ok(axum::Json(audit::verify(&state.engine.db).await?))
}
