//! `/v1/agent/key`: an agent replaces its own key.

use axum::extract::State;
use riposte_protocol::key_change::{KeyChangeError, KeyChangeRequest, KeyChangeResponse};

use super::front::auth::AgentCaller;
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Json;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::fault::Fault;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(replace))
}

/// Replaces an agent's key
///
/// `by_old` and `by_new` are the same claims, signed by the key to be replaced and by the one that
/// replaces it. The token is signed by the old key, or, when the request is repeated after a lost
/// response, by the new one.
#[utoipa::path(post, path = "/v1/agent/key", tag = "agent protocol", security(("agent_token" = [])),
    request_body = KeyChangeRequest, responses((status = 200, body = KeyChangeResponse), (status = 409)))]
pub async fn replace(
    agent: AgentCaller,
    State(state): State<AppState>,
    body: Json<KeyChangeRequest>,
) -> ApiResult<axum::Json<KeyChangeResponse>> {
    let keys = body.value.open(agent.id, state.engine.clock.now()).map_err(|error| {
        let place = match &error {
            KeyChangeError::New(_) => "/by_new",
            KeyChangeError::Time(time) => return ApiError::wrong_time(time.to_string()),
            KeyChangeError::Old(_) | KeyChangeError::Key(_) | KeyChangeError::Claims => "/by_old",
        };
        ApiError::invalid(vec![Fault::at(place, error.to_string())])
    })?;
    let key_since = state.engine.change_agent_key(agent.id, &keys).await?;
    Ok(axum::Json(KeyChangeResponse { key_since }))
}
