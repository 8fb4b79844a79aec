//! `/v1/audit`: who did what, and the proof that the log was not edited.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::Query;
use super::front::page::{cursor_number, limit};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::canonical;
use crate::store::ledger::audit::{self, AuditFilter};
use crate::store::ledger::{checkpoints, commands, effects, responses};
use crate::views::audit::{AuditProof, AuditRow};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list))
}

/// Those that may read the whole ledger.
pub(super) fn long_routes<T: Table>() -> T {
    T::new().with(operations!(verify))
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
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListAudit>,
    uri: Uri,
) -> ApiResult<Response> {
    let visible = Visible::to(&caller, &state.engine);
    let mut page = visible.filling(limit(query.limit)?, query.cursor);
    let filter = AuditFilter { noun: query.noun, noun_id: query.noun_id.map(|id| canonical::id(&id)) };
    let own = caller.principal.actor.to_string();
    while let Some((cursor, count)) = page.wants() {
        let before = cursor_number(cursor.as_deref())?;
        let mut shown = Vec::new();
        for row in audit::list(&state.engine.db, filter.clone(), before, count).await? {
            let is_shown = visible.is_everything() || row.actor == own || concerns(&state, &visible, &row).await?;
            shown.push((row.seq.to_string(), is_shown.then_some(row)));
        }
        page.add(shown);
    }
    Ok(page.page(&uri))
}

/// Whether the entry is about something that is visible. What concerns the whole installation is
/// hidden from a caller with a scope.
async fn concerns(state: &AppState, visible: &Visible<'_>, row: &AuditRow) -> ApiResult<bool> {
    let (db, id) = (&state.engine.db, row.noun_id.parse::<Uuid>());
    Ok(match (row.noun.as_str(), id) {
        ("response", Ok(id)) => match responses::find(db, id).await? {
            Some(response) => visible.response(&response)?,
            None => false,
        },
        ("command", Ok(id)) => commands::find(db, id).await?.is_some_and(|command| visible.agent(&command.agent_id)),
        ("effect", Ok(id)) => effects::find(db, id).await?.is_some_and(|effect| visible.agent(&effect.agent_id)),
        ("agent", _) => visible.agent(&row.noun_id),
        ("policy", _) => visible.policy(&row.noun_id),
        _ => false,
    })
}

/// Recomputes the hash chain, and compares it with the stored checkpoints
///
/// If retention removed entries at the beginning, the chain is recomputed from where the manager has signed
/// that the log begins.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit", responses((status = 200, body = AuditProof)))]
pub async fn verify(_: Caller<Read>, State(state): State<AppState>) -> ApiResult<axum::Json<AuditProof>> {
    let keys = state.engine.signer.checkpoint_keys();
    let begins = state.engine.log_beginning.load_full();
    let forgetting = state.engine.forgetting_key()?;
    Ok(axum::Json(checkpoints::prove(&state.engine.db, &keys, begins.as_deref(), Some(&forgetting), |_, _| ()).await?))
}
