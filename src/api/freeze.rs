//! `/v1/freeze`: the switch for the night on which everything goes wrong. While it is on, alerts are taken in and decided,
//! blocks are lifted, and nothing new is delivered.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::AppState;
use super::auth::{Caller, Read, Respond};
use super::error::ApiResult;
use super::extract::{Json, reason};
use crate::store::audit::LedgerTx;
use crate::store::freeze::{self, FreezeRow};

/// The switch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Freeze {
    /// Whether nothing new is delivered.
    pub frozen: bool,
    /// When, by whom and why it was last turned; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_change: Option<FreezeRow>,
}

async fn standing(state: &AppState) -> ApiResult<axum::Json<Freeze>> {
    let last_change = freeze::find(&state.engine.db).await?;
    Ok(axum::Json(Freeze { frozen: last_change.as_ref().is_some_and(|row| row.frozen), last_change }))
}

/// Says whether everything new is stopped
#[utoipa::path(get, path = "/v1/freeze", tag = "freeze", responses((status = 200, body = Freeze)))]
pub async fn find(_: Caller<Read>, State(state): State<AppState>) -> ApiResult<axum::Json<Freeze>> {
    standing(&state).await
}

/// How to turn it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetFreeze {
    /// On or off.
    frozen: bool,
    /// Why; kept in the audit log.
    reason: String,
}

/// Stops everything new, or lets it go on
///
/// What was queued while it was on is delivered when it is off, unless it has expired by then.
#[utoipa::path(put, path = "/v1/freeze", tag = "freeze", request_body = SetFreeze, responses((status = 200, body = Freeze)))]
pub async fn set(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    body: Json<SetFreeze>,
) -> ApiResult<axum::Json<Freeze>> {
    let SetFreeze { frozen, reason: given } = body.value;
    let given = reason(given)?;
    state.engine.set_freeze(frozen, &given, &caller.principal.name).await?;
    standing(&state).await
}
