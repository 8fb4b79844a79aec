//! `/v1/commands`: commands and their results.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::front::auth::{Caller, Read, Respond};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query, reason};
use super::front::page::{cursor_id, limit};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::command::CommandState;
use crate::domain::fault::Fault;
use crate::store::ledger::commands::{self, CommandFilter};
use crate::views::commands::{Cancel, CommandRow, CommandView};
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list)).with(operations!(find)).with(operations!(cancel))
}

/// Filter of a command list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListCommands {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Receiving agent.
    agent_id: Option<Uuid>,
    /// State.
    state: Option<String>,
    /// Effect.
    effect_id: Option<Uuid>,
    /// Response that requested the command.
    response_id: Option<Uuid>,
}

/// Lists commands, newest first
#[utoipa::path(get, path = "/v1/commands", tag = "commands", params(ListCommands),
    responses((status = 200, body = Page<CommandRow>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListCommands>,
    uri: Uri,
) -> ApiResult<Response> {
    let ListCommands { limit: asked, cursor, agent_id, state: in_state, effect_id, response_id } = query;
    let no_state = || ApiError::invalid(vec![Fault::at("/state", "is not a command state")]);
    let in_state = in_state.map(|word| CommandState::parse(&word).ok_or_else(no_state)).transpose()?;
    let visible = Visible::to(&caller, &state.engine);
    let mut page = visible.filling(limit(asked)?, cursor);
    let filter = CommandFilter { agent: agent_id, state: in_state, effect: effect_id, response: response_id };
    while let Some((cursor, count)) = page.wants() {
        let rows = commands::list(&state.engine.db, filter.clone(), cursor_id(cursor.as_deref())?, count).await?;
        let shown = |row: CommandRow| (row.id.clone(), visible.agent(&row.agent_id).then_some(row));
        page.add(rows.into_iter().map(shown).collect());
    }
    Ok(page.page(&uri))
}

/// Returns one command with its result
#[utoipa::path(get, path = "/v1/commands/{id}", tag = "commands", params(("id" = Uuid, Path)),
    responses((status = 200, body = CommandView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<CommandView>> {
    Ok(axum::Json(view(&state, &Visible::to(&caller, &state.engine), id).await?))
}

async fn view(state: &AppState, visible: &Visible<'_>, id: Uuid) -> ApiResult<CommandView> {
    let command = commands::find(&state.engine.db, id).await?;
    let command = command.filter(|command| visible.agent(&command.agent_id));
    let command = command.ok_or_else(|| ApiError::not_found("the command does not exist"))?;
    Ok(CommandView { command, result: commands::result(&state.engine.db, id).await? })
}

/// Cancels a command that was not sent yet
///
/// The response is 409 if the command was sent or is final, or if it is a revert, which cannot be
/// cancelled.
#[utoipa::path(post, path = "/v1/commands/{id}/cancel", tag = "commands", params(("id" = Uuid, Path)),
    request_body = Cancel, responses((status = 200, body = CommandView), (status = 409)))]
pub async fn cancel(
    caller: Caller<Respond>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<Cancel>,
) -> ApiResult<axum::Json<CommandView>> {
    let reason = reason(body.value.reason)?;
    state.engine.cancel(id, &reason, &caller.principal).await?;
    Ok(axum::Json(view(&state, &Visible::to(&caller, &state.engine), id).await?))
}
