//! `/v1/commands`: what was sent to whom, and what became of it.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::AppState;
use super::auth::{Caller, Read, Respond};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Path, Query, reason};
use super::page::{Page, cursor_id, limit, page};
use crate::domain::command::CommandState;
use crate::domain::fault::Fault;
use crate::store::commands::{self, CommandFilter, CommandRow, ResultRow};

/// Which commands to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListCommands {
    limit: Option<i64>,
    cursor: Option<String>,
    /// For this agent.
    agent_id: Option<Uuid>,
    /// In this state.
    state: Option<String>,
    /// About this effect.
    effect_id: Option<Uuid>,
    /// Asked for by this response.
    response_id: Option<Uuid>,
}

/// A command with its result.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CommandView {
    /// The command.
    #[serde(flatten)]
    pub command: CommandRow,
    /// What the agent said, if it has.
    pub result: Option<ResultRow>,
}

/// Lists commands, newest first
#[utoipa::path(get, path = "/v1/commands", tag = "commands", params(ListCommands), responses((status = 200, body = Page<CommandRow>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListCommands>,
    uri: Uri,
) -> ApiResult<Response> {
    let ListCommands { limit: asked, cursor, agent_id, state: in_state, effect_id, response_id } = query;
    if in_state.as_deref().is_some_and(|word| CommandState::parse(word).is_none()) {
        return Err(ApiError::invalid(vec![Fault::at("/state", "is not a state of a command")]));
    }
    let (limit, before) = (limit(asked)?, cursor_id(cursor.as_deref())?);
    let filter = CommandFilter { agent: agent_id, state: in_state, effect: effect_id, response: response_id };
    let rows = commands::list(&state.engine.db, filter, before, limit + 1).await?;
    Ok(page(rows, limit, &uri, |row| row.id.clone()))
}

/// Gives one command with its result
#[utoipa::path(get, path = "/v1/commands/{id}", tag = "commands", params(("id" = Uuid, Path)), responses((status = 200, body = CommandView)))]
pub async fn find(
    _: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<CommandView>> {
    Ok(axum::Json(view(&state, id).await?))
}

async fn view(state: &AppState, id: Uuid) -> ApiResult<CommandView> {
    let command = commands::find(&state.engine.db, id).await?;
    let command = command.ok_or_else(|| ApiError::not_found("there is no such command"))?;
    Ok(CommandView { command, result: commands::result(&state.engine.db, id).await? })
}

/// Why a command is called back.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Kept in the audit log.
    reason: String,
}

/// Calls back a command that was not sent yet
///
/// 409 if it was sent, is over, or lifts something: lifting is owed whatever anybody says.
#[utoipa::path(post, path = "/v1/commands/{id}/cancel", tag = "commands", params(("id" = Uuid, Path)), request_body = Cancel,
    responses((status = 200, body = CommandView)))]
pub async fn cancel(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Cancel>,
) -> ApiResult<axum::Json<CommandView>> {
    let reason = reason(body.value.reason)?;
    state.engine.cancel(id, &reason, &caller.principal.name).await?;
    Ok(axum::Json(view(&state, id).await?))
}
