//! `/v1/effects`: what is in force now, where, why and until when.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use riposte_protocol::target::TargetKind;
use serde::Deserialize;
use uuid::Uuid;

use super::front::auth::{Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Path, Query};
use super::front::page::{cursor_id, limit};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::canonical;
use crate::domain::effect::{Actual, Desired};
use crate::domain::fault::Fault;
use crate::store::ledger::effects::{self, EffectFilter};
use crate::views::effects::{EffectRow, EffectView};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list)).with(operations!(find))
}

/// Filter of an effect list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListEffects {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Agent.
    agent_id: Option<Uuid>,
    /// Wanted state: `in_force` or `absent`.
    desired: Option<String>,
    /// Last reported state: `unknown`, `in_force`, `absent` or `drifted`.
    actual: Option<String>,
    /// Target in canonical form.
    target: Option<String>,
    /// Only effects whose last revert failed.
    #[serde(default)]
    failing: bool,
}

/// Lists effects, newest first
#[utoipa::path(get, path = "/v1/effects", tag = "effects", params(ListEffects),
    responses((status = 200, body = Page<EffectRow>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListEffects>,
    uri: Uri,
) -> ApiResult<Response> {
    let ListEffects { limit: asked, cursor, agent_id, desired, actual, target, failing } = query;
    let not_desired = || ApiError::invalid(vec![Fault::at("/desired", "must be in_force or absent")]);
    let desired = desired.map(|word| Desired::parse(&word).ok_or_else(not_desired)).transpose()?;
    let not_actual = || ApiError::invalid(vec![Fault::at("/actual", "must be unknown, in_force, absent or drifted")]);
    let actual = actual.map(|word| Actual::parse(&word).ok_or_else(not_actual)).transpose()?;
    let visible = Visible::to(&caller, &state.engine);
    let mut page = visible.filling(limit(asked)?, cursor);
    let target = target.map(|text| canonical::target(&text));
    let filter = EffectFilter { agent: agent_id, desired, actual, target, failing };
    while let Some((cursor, count)) = page.wants() {
        let rows = effects::list(&state.engine.db, filter.clone(), cursor_id(cursor.as_deref())?, count).await?;
        let shown = |row: EffectRow| (row.id.clone(), visible.agent(&row.agent_id).then_some(row));
        page.add(rows.into_iter().map(shown).collect());
    }
    Ok(page.page(&uri))
}

/// Returns one effect and the responses that hold it
#[utoipa::path(get, path = "/v1/effects/{id}", tag = "effects", params(("id" = Uuid, Path)),
    responses((status = 200, body = EffectView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<EffectView>> {
    let effect = effects::find(&state.engine.db, id).await?;
    let visible = Visible::to(&caller, &state.engine);
    let effect = effect.filter(|effect| visible.agent(&effect.agent_id));
    let effect = effect.ok_or_else(|| ApiError::not_found("the effect does not exist"))?;
    let held_by = effects::holders(&state.engine.db, id).await?;
    let is_address = effect.target_kind == TargetKind::Ip.as_str();
    let feeds = if is_address { state.engine.feeds_of_target(&effect.target_value).await? } else { Vec::new() };
    Ok(axum::Json(EffectView { effect, held_by, feeds }))
}
