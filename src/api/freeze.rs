//! `/v1/freeze`: the emergency stop. During a freeze, alerts are still ingested and decided, and
//! reverts are delivered; no other command is.

use axum::extract::State;

use super::front::auth::{Caller, Read, Respond};
use super::front::error::ApiResult;
use super::front::extract::{Json, reason};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::store::configured::freeze;
use crate::views::freeze::{Freeze, SetFreeze};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(find, set))
}

async fn standing(state: &AppState) -> ApiResult<axum::Json<Freeze>> {
    let last_change = freeze::find(&state.engine.db).await?;
    let frozen = last_change.as_ref().is_some_and(|row| row.frozen);
    let held_back = if frozen { freeze::held_back(&state.engine.db).await? } else { 0 };
    Ok(axum::Json(Freeze { frozen, held_back, last_change }))
}

/// Returns whether deliveries are frozen, and how many commands wait because of it
#[utoipa::path(get, path = "/v1/freeze", tag = "freeze", responses((status = 200, body = Freeze)))]
pub async fn find(_: Caller<Read>, State(state): State<AppState>) -> ApiResult<axum::Json<Freeze>> {
    standing(&state).await
}

/// Freezes or resumes the delivery of commands
///
/// Reverts are always delivered. Commands queued during the freeze are delivered afterwards, unless
/// they have expired.
#[utoipa::path(put, path = "/v1/freeze", tag = "freeze", request_body = SetFreeze,
    responses((status = 200, body = Freeze)))]
pub async fn set(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    body: Json<SetFreeze>,
) -> ApiResult<axum::Json<Freeze>> {
    caller.unlimited("the freeze stops all agents")?;
    let SetFreeze { frozen, reason: given } = body.value;
    let given = reason(given)?;
    state.engine.set_freeze(frozen, &given, &caller.principal.at()).await?;
    standing(&state).await
}
