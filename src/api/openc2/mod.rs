//! `/openc2` and `/.well-known/openc2`: commands of OpenC2 1.0 with the profile SLPF, for orchestrators that
//! speak it. What a command means is in `src/compat/openc2/`; `act.rs` carries it out by responses by hand,
//! with everything that `POST /v1/responses` decides about one. [`shape`] puts errors into OpenC2's form.

mod act;
mod caller;
pub mod shape;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};

use self::caller::OpenC2Caller;
use self::shape::MEDIA_TYPE;
use super::front::auth::Read;
use super::front::controls;
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Payload, is_json, read_json, traceparent};
use super::state::AppState;
use crate::api::front::table::{Table, operations};
use crate::compat::openc2::command::{self, ResponseRequested};
use crate::compat::openc2::message::{self, ProducerMessage};

/// Maximum size of a message, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(run)).with(operations!(run_well_known))
}

/// The message of a request. What is a JSON object is answered in the words of OpenC2, whatever is in it.
struct Sent(ProducerMessage);

impl FromRequest<AppState> for Sent {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let budget = state.memory.of(request.uri().path());
        let payload = Payload::read(request, MAX_BYTES, budget).await?;
        if !payload.media_type.is_empty() && !is_json(&payload.media_type) {
            return Err(ApiError::unsupported("Content-Type must be application/openc2+json;version=1.0"));
        }
        let mut message = message::open(read_json::<Map<String, Value>>(&payload.bytes)?);
        if let Err(error) = controls::check_body(&payload.bytes) {
            message.command = Err(shape::of_problem(&error.problem()));
        }
        Ok(Self(message))
    }
}

/// Carries out an OpenC2 command
///
/// `query features`, `deny`, `allow`, `contain`, `restore`, `cancel`, `delete slpf:rule_number`. The message
/// is that of OpenC2's HTTPS transfer, or the command alone; the answer has the same form. The status of
/// the command is in the answer: 200 if it is committed, 102 while people have to approve it, 400 if it has
/// faults, 404 if it names nothing, 501 if Riposte cannot do exactly that.
#[utoipa::path(post, path = "/openc2", tag = "openc2",
    request_body(content = Object, content_type = "application/openc2+json"),
    responses((status = 200, body = Object, content_type = "application/openc2+json"),
        (status = 204, description = "No response was requested")))]
async fn run(
    caller: OpenC2Caller<Read>,
    State(state): State<AppState>,
    headers: HeaderMap,
    Sent(message): Sent,
) -> ApiResult<Response> {
    let ProducerMessage { headers: envelope, command } = message;
    let read = command.and_then(|command| command::read(&command).map(|read| (read, command)));
    let mut requested = ResponseRequested::Outcome;
    let answer = match read {
        Err(fault) => fault,
        Ok((read, command)) => {
            requested = read.requested;
            let request_id = envelope.as_ref().and_then(|envelope| envelope.request_id.as_deref());
            let trace = traceparent(&headers).map(str::to_owned);
            act::carry_out(&state, &caller, read, act::Given { command: &command, request_id, trace }).await?
        }
    };
    if requested == ResponseRequested::None {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let body = answer.write(envelope.as_ref(), state.engine.clock.now()).to_string();
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], body).into_response())
}

/// Carries out an OpenC2 command, at the well-known path
#[utoipa::path(post, path = "/.well-known/openc2", tag = "openc2",
    request_body(content = Object, content_type = "application/openc2+json"),
    responses((status = 200, body = Object, content_type = "application/openc2+json"),
        (status = 204, description = "No response was requested")))]
async fn run_well_known(
    caller: OpenC2Caller<Read>,
    state: State<AppState>,
    headers: HeaderMap,
    body: Sent,
) -> ApiResult<Response> {
    run(caller, state, headers, body).await
}
