//! `/v1/responses/{id}/bundle`: one incident as a file that can be verified without the manager.

use axum::extract::State;
use uuid::Uuid;

use super::front::auth::{Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Path;
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use super::{alerts, responses};
use crate::engine::incident::{self, Proven};
use crate::store::database::columns;
use crate::store::ledger::audit::{self, AuditFilter};
use crate::store::ledger::responses as stored;
use crate::views::audit::{AuditRow, CheckpointKey};
use crate::views::bundle::{FORMAT, IncidentBundle, IncidentContents};
use crate::views::responses::ResponseView;

/// Maximum number of commands, results and effects in a bundle.
const SHOWN: i64 = 20_000;
/// Maximum number of audit entries of one object.
const ENTRIES: i64 = 500;

/// The operations of this resource; a bundle may read much of the ledger.
pub(super) fn long_routes<T: Table>() -> T {
    T::new().with(operations!(bundle))
}

/// Returns one incident as a sealed file
///
/// It holds the response with its alert, decisions, commands and results, the audit log's entries about
/// them, and the proof that these are under signed checkpoints. `riposte audit verify --bundle` verifies
/// it without the manager. A caller with a scope gets it if the whole response is within.
#[utoipa::path(get, path = "/v1/responses/{id}/bundle", tag = "responses", params(("id" = Uuid, Path)),
    responses((status = 200, body = IncidentBundle)))]
pub async fn bundle(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<IncidentBundle>> {
    let visible = Visible::to(&caller, &state.engine);
    let response = responses::view(&state, &visible, id, SHOWN).await?;
    whole(&state, &visible, id).await?;
    let alert = match &response.response.response.alert_id {
        Some(alert) => alerts::kept(&state, &visible, columns::id(alert)?).await?,
        None => None,
    };
    let audit = history(&state, id, &response).await?;
    let Proven { proofs, checkpoints } = incident::prove(&state.engine, &audit).await?;
    let (made_at, made_by) = (state.engine.clock.now(), caller.principal.actor.to_string());
    let (version, keys) =
        (env!("CARGO_PKG_VERSION").to_owned(), CheckpointKey::all(&state.engine.signer.checkpoint_keys()));
    let contents = IncidentContents { made_at, made_by, version, response, alert, audit, proofs, checkpoints, keys };
    let contents = serde_json::to_string(&contents).map_err(|error| ApiError::internal(&error))?;
    let seal = state.engine.signer.seal(id, &contents, made_at)?;
    Ok(axum::Json(IncidentBundle { format: FORMAT.to_owned(), contents, seal }))
}

/// Refuses a response that also acts on hidden agents: a bundle without them would prove less than it seems to.
async fn whole(state: &AppState, visible: &Visible<'_>, id: Uuid) -> ApiResult<()> {
    let row = stored::find(&state.engine.db, id).await?;
    let mut row = row.ok_or_else(|| ApiError::not_found("the response does not exist"))?;
    if visible.cut_agents(&mut row)? {
        return Err(ApiError::forbidden("the response also acts on agents outside your scope"));
    }
    Ok(())
}

/// The entries about a response, its commands and its effects, oldest first.
async fn history(state: &AppState, id: Uuid, response: &ResponseView) -> ApiResult<Vec<AuditRow>> {
    let commands = response.commands.iter().map(|command| ("command", command.id.clone()));
    let effects = response.effects.iter().map(|effect| ("effect", effect.id.clone()));
    let mut entries = Vec::new();
    for (noun, id) in std::iter::once(("response", id.to_string())).chain(commands).chain(effects) {
        let filter = AuditFilter { noun: Some(noun.to_owned()), noun_id: Some(id) };
        entries.extend(audit::list(&state.engine.db, filter, None, ENTRIES).await?);
    }
    entries.sort_by_key(|entry| entry.seq);
    Ok(entries)
}
