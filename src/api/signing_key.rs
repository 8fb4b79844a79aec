//! `/v1/signing-key`: the key that signs commands, and its rotation. Private keys are nowhere here.

use axum::extract::State;
use axum::http::StatusCode;

use super::front::auth::{Administer, Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Json;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::engine::key_rotation::{Rotation, Unconfirmed};
use crate::views::signing_key::{
    FinishRotation, FinishedRotation, PreparedRevocation, RotationView, SetRecoveryKey, SignedRevocation,
    SigningKeyView, WaitingAgent,
};

/// Maximum number of agents in a list.
const LISTED: usize = 1000;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(find))
        .with(operations!(rotate, cancel))
        .with(operations!(finish))
        .with(operations!(set_recovery_key))
        .with(operations!(prepare, revoke))
}

fn waiting(agents: Vec<Unconfirmed>) -> Vec<WaitingAgent> {
    let view = |Unconfirmed { id, name, reason }| WaitingAgent { id, name, reason: reason.to_owned() };
    agents.into_iter().take(LISTED).map(view).collect()
}

fn standing(state: &AppState) -> axum::Json<SigningKeyView> {
    let (key, rotation) = state.engine.signing_key();
    let rotation = rotation.map(|Rotation { next, started_at, started_by, confirmed, waiting: agents }| RotationView {
        kid: next.kid,
        public_key: next.public_key,
        started_at: started_at.into(),
        started_by,
        confirmed,
        waiting_count: agents.len(),
        waiting: waiting(agents),
    });
    let recovery_key = state.engine.recovery_key();
    axum::Json(SigningKeyView { kid: key.kid, public_key: key.public_key, recovery_key, rotation })
}

/// Returns the key that signs commands, and its rotation
#[utoipa::path(get, path = "/v1/signing-key", tag = "signing key", responses((status = 200, body = SigningKeyView)))]
pub async fn find(_: Caller<Read>, State(state): State<AppState>) -> axum::Json<SigningKeyView> {
    standing(&state)
}

/// Starts a rotation of the signing key
///
/// Makes a new key and announces it to all agents by a statement that the old key signs. The
/// rotation ends by itself when all agents have confirmed the new key.
#[utoipa::path(post, path = "/v1/signing-key/rotation", tag = "signing key",
    responses((status = 201, body = SigningKeyView), (status = 409)))]
pub async fn rotate(
    caller: Caller<Administer>,
    State(state): State<AppState>,
) -> ApiResult<(StatusCode, axum::Json<SigningKeyView>)> {
    state.engine.rotate_signing_key(&caller.principal.at()).await?;
    Ok((StatusCode::CREATED, standing(&state)))
}

/// Takes a rotation of the signing key back
///
/// The old key signs as before, and agents drop the new one.
#[utoipa::path(delete, path = "/v1/signing-key/rotation", tag = "signing key",
    responses((status = 204), (status = 409)))]
pub async fn cancel(caller: Caller<Administer>, State(state): State<AppState>) -> ApiResult<StatusCode> {
    state.engine.cancel_rotation(&caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a rotation of the signing key
///
/// Without `force` only if all agents have confirmed the new key.
#[utoipa::path(post, path = "/v1/signing-key/rotation/finish", tag = "signing key", request_body = FinishRotation,
    responses((status = 200, body = FinishedRotation), (status = 409)))]
pub async fn finish(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<FinishRotation>,
) -> ApiResult<axum::Json<FinishedRotation>> {
    let left_behind = state.engine.finish_rotation(body.value.force, &caller.principal.at()).await?;
    let (key, _) = state.engine.signing_key();
    let left_behind_count = left_behind.len();
    Ok(axum::Json(FinishedRotation { kid: key.kid, left_behind_count, left_behind: waiting(left_behind) }))
}

/// Sets the recovery key, which can revoke a stolen signing key
///
/// Agents learn it by a statement that the signing key signs, and keep the first one that they learn.
#[utoipa::path(post, path = "/v1/signing-key/recovery-key", tag = "signing key", request_body = SetRecoveryKey,
    responses((status = 201, body = SigningKeyView), (status = 409)))]
pub async fn set_recovery_key(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<SetRecoveryKey>,
) -> ApiResult<(StatusCode, axum::Json<SigningKeyView>)> {
    state.engine.set_recovery_key(&body.value.public_key, &caller.principal.at()).await?;
    Ok((StatusCode::CREATED, standing(&state)))
}

/// Prepares the revocation of the signing key
///
/// Makes a new key, and returns the statement that the recovery key has to sign. Nothing changes
/// until it is sent back.
#[utoipa::path(post, path = "/v1/signing-key/revocation", tag = "signing key",
    responses((status = 201, body = PreparedRevocation), (status = 409)))]
pub async fn prepare(
    _: Caller<Administer>,
    State(state): State<AppState>,
) -> ApiResult<(StatusCode, axum::Json<PreparedRevocation>)> {
    let statement = state.engine.prepare_revocation().await?;
    let claims = serde_json::to_value(statement).map_err(|error| ApiError::internal(&error))?;
    Ok((StatusCode::CREATED, axum::Json(PreparedRevocation { claims })))
}

/// Revokes the signing key
///
/// The statement is the one that was prepared, signed by the recovery key. From now on the new key
/// signs, and agents drop all keys of before.
#[utoipa::path(put, path = "/v1/signing-key/revocation", tag = "signing key", request_body = SignedRevocation,
    responses((status = 200, body = SigningKeyView), (status = 409)))]
pub async fn revoke(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    body: Json<SignedRevocation>,
) -> ApiResult<axum::Json<SigningKeyView>> {
    state.engine.revoke_signing_key(&body.value.statement, &caller.principal.at()).await?;
    Ok(standing(&state))
}
