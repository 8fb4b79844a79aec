//! `/v1/protected`: targets that no response may touch. A new entry lifts existing effects on its
//! targets; `dry_run=true` lists them.

use crate::domain::audit::reason_fault;
use crate::engine::refusal::{Refusal, UseCase};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::front::auth::{Caller, Read, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query};
use super::front::page::{cursor_id, limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::effect::Until;
use crate::domain::fault::Fault;
use crate::domain::id::new_id;
use crate::domain::policy;
use crate::domain::protected::{Covered, CoveredError, ProtectedEntry, ProtectedSet};
use crate::domain::response::Hold;
use crate::engine::Engine;
use crate::store::configured::protected;
use crate::views::page::Page;
use crate::views::protected::{CreateProtected, CreatedProtected, ProtectedRow};

/// Maximum number of policies per entry.
const MAX_POLICIES: usize = 256;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list, create)).with(operations!(find, delete))
}

/// Query of a creation.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HowToCreate {
    /// Only return what would be lifted.
    #[serde(default)]
    dry_run: bool,
}

/// Protects a target
///
/// Existing effects on the target are lifted at once.
#[utoipa::path(post, path = "/v1/protected", tag = "protected",
    params(HowToCreate, ("Idempotency-Key" = Option<String>, Header)), request_body = CreateProtected,
    responses((status = 201, body = CreatedProtected), (status = 409),
        (status = 200, description = "A dry run", body = CreatedProtected)))]
pub async fn create(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Query(how): Query<HowToCreate>,
    body: Json<CreateProtected>,
) -> ApiResult<(StatusCode, axum::Json<CreatedProtected>)> {
    caller.unlimited("protected entries apply to all agents")?;
    let engine = &state.engine;
    if how.dry_run {
        let entry = read(&state, body.value)?;
        let lifts = protected::against(&engine.db, &ProtectedSet::new(vec![entry.clone()]), engine.clock.now()).await?;
        return Ok((StatusCode::OK, axum::Json(answer(engine, None, &entry, lifts))));
    }
    let once = body.once(&caller.principal);
    let (entry, lifts) = engine.protect(|| read(&state, body.value), once, &caller.principal.at()).await?;
    Ok((StatusCode::CREATED, axum::Json(answer(engine, Some(entry.id), &entry, lifts))))
}

fn answer(engine: &Engine, id: Option<Uuid>, entry: &ProtectedEntry, lifts: Vec<Hold>) -> CreatedProtected {
    let ProtectedEntry { covered, until, policies, .. } = entry;
    let known = engine.policies.load();
    let unknown = policies
        .iter()
        .enumerate()
        .filter(|(_, name)| !known.policies().iter().any(|known| known.policy.name == **name));
    let mut warnings: Vec<Fault> = unknown
        .map(|(index, name)| Fault::at(format!("/policies/{index}"), format!("there is no policy called {name}")))
        .collect();
    if let Covered::Network(net) = covered
        && net.prefix_len() == 0
    {
        warnings.push(Fault::at("/value", "covers every address of its family: no address can be blocked"));
    }
    let (kind, value, expires_at) = (covered.kind().to_owned(), covered.value(), until.instant());
    CreatedProtected { id, kind, value, expires_at, lifts, warnings }
}

fn read(state: &AppState, asked: CreateProtected) -> UseCase<ProtectedEntry> {
    let CreateProtected { kind, value, policies, reason, expires_in } = asked;
    let mut faults = Vec::new();
    let covered = match kind.as_str() {
        "ip" => Covered::network(&value),
        "user" => Covered::user(&value),
        "file" => Covered::file(&value),
        "process" => Covered::process(&value),
        "host" | "agent" => {
            let covers = if kind == "host" { Covered::Host } else { Covered::Agent };
            let fleet = state.engine.fleet.load();
            fleet.called(&value).map(|agent| covers(agent.id)).ok_or(CoveredError::Agent)
        }
        _ => {
            faults.push(Fault::at("/kind", "must be ip, user, file, process, host or agent"));
            Err(CoveredError::Network)
        }
    };
    if let Err(error) = &covered
        && faults.is_empty()
    {
        faults.push(Fault::at("/value", error.to_string()));
    }
    for (index, name) in policies.iter().enumerate() {
        if !policy::is_name(name) || index >= MAX_POLICIES {
            faults.push(Fault::at(format!("/policies/{index}"), "is not a valid policy name, or exceeds the limit"));
        }
    }
    faults.extend(reason_fault(&reason));
    let now = state.engine.clock.now();
    let until = expires_in.map_or(Until::Never, |span| Until::At(now.plus(span.duration())));
    match covered {
        Ok(covered) if faults.is_empty() => Ok(ProtectedEntry { id: new_id(now), covered, policies, until, reason }),
        _ => Err(Refusal::Invalid(faults)),
    }
}

/// Filter of a list of protected entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListProtected {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists protected entries, oldest first
#[utoipa::path(get, path = "/v1/protected", tag = "protected", params(ListProtected),
    responses((status = 200, body = Page<ProtectedRow>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListProtected>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, after) = (limit(query.limit)?, cursor_id(query.cursor.as_deref())?);
    let rows = protected::list(&state.engine.db, after, limit + 1).await?;
    Ok(page(rows, limit, &uri, |row| row.id.clone()))
}

/// Returns one protected entry
#[utoipa::path(get, path = "/v1/protected/{id}", tag = "protected", params(("id" = Uuid, Path)),
    responses((status = 200, body = ProtectedRow)))]
pub async fn find(
    _: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<ProtectedRow>> {
    let row = protected::find(&state.engine.db, id).await?;
    Ok(axum::Json(row.ok_or_else(|| ApiError::not_found("the protected entry does not exist"))?))
}

/// Deletes a protected entry
#[utoipa::path(delete, path = "/v1/protected/{id}", tag = "protected", params(("id" = Uuid, Path)),
    responses((status = 204)))]
pub async fn delete(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    caller.unlimited("protected entries apply to all agents")?;
    state.engine.unprotect(id, &caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}
