//! `PUT /wazuh/active-response`: one response by hand for each call, with everything that
//! `POST /v1/responses` decides about one.

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::caller::WazuhCaller;
use super::login::flag;
use super::refused::Refused;
use crate::api::front::auth::Respond;
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::{Json, Query, read_json, traceparent};
use crate::api::state::AppState;
use crate::compat::wazuh_api::agents::{ChosenAgents, choose, read_ids};
use crate::compat::wazuh_api::command::{self, CalledCommand, CommandFault};
use crate::compat::wazuh_api::outcome::{self, MadeResponse};
use crate::compat::wazuh_api::target::{Aim, aim};
use crate::domain::fault::Fault;
use crate::domain::filing::Filing;
use crate::domain::principal::Principal;
use crate::engine::refusal::Refusal;
use crate::engine::respond::Order;
use crate::store::StoreError;
use crate::store::ledger::responses;
use crate::views::wazuh::{WazuhActiveResponse, WazuhReport};

/// Header of an answer with the id of the response.
const RESPONSE: HeaderName = HeaderName::from_static("riposte-response");
/// Wazuh's numbers: no command, and a message that no agent could take.
const NO_COMMAND: u32 = 1650;
const NO_MESSAGE: u32 = 1012;

/// On which agents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunQuery {
    /// Wazuh ids of agents, separated by commas; all agents with an id if absent.
    agents_list: Option<String>,
    /// Lay the answer out for people.
    #[serde(default, deserialize_with = "flag", rename = "pretty")]
    _pretty: bool,
    /// Without effect: an answer comes once the response is committed.
    #[serde(default, deserialize_with = "flag", rename = "wait_for_complete")]
    _wait_for_complete: bool,
}

/// The body, which must say that it is JSON.
pub(super) struct Called(WazuhActiveResponse);

impl FromRequest<AppState> for Called {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return Err(ApiError::unsupported("Content-Type must be application/json"));
        }
        let body: Json<Box<RawValue>> = Json::from_request(request, state).await?;
        let text = body.value.get();
        // A list would be read as the fields in their order.
        if !text.starts_with('{') {
            return Err(ApiError::malformed("the body must be a JSON object"));
        }
        Ok(Self(read_json(text.as_bytes())?))
    }
}

/// Runs an active response
///
/// It makes one response by hand, under all limits of `POST /v1/responses`. An agent that is away gets the
/// command when it comes back, so it counts as affected. The header `Riposte-Response` has the id of the
/// response; the message says if it waits for approval.
#[utoipa::path(put, path = "/wazuh/active-response", tag = "wazuh", params(RunQuery),
    request_body = WazuhActiveResponse, responses((status = 200, body = WazuhReport<String>)))]
pub(super) async fn run(
    caller: WazuhCaller<Respond>,
    State(state): State<AppState>,
    Query(query): Query<RunQuery>,
    headers: HeaderMap,
    Called(body): Called,
) -> Result<Response, Refused> {
    let ids = query.agents_list.as_deref().map(read_ids).transpose();
    let ids = ids.map_err(|text| {
        Refused::bad_request(format!("'{text}' is not a number of an agent, in 'agents_list'"), None)
    })?;
    let by = &caller.principal;
    let chosen = choose(ids.as_ref(), &state.engine.fleet.load(), &by.scopes);
    let called = match command::read(&body.command, &state.engine.actions.load()) {
        Ok(called) => called,
        Err(fault @ CommandFault::Missing) => return Err(Refused::bad_request(fault.to_string(), Some(NO_COMMAND))),
        Err(fault @ CommandFault::Form(_)) => return Err(Refused::bad_request(fault.to_string(), None)),
        Err(CommandFault::Unknown(why)) => {
            let ChosenAgents { found, failed } = chosen;
            return Ok(axum::Json(outcome::of_unknown_command(&why, &found, failed)).into_response());
        }
    };
    let ChosenAgents { found, failed } = chosen;
    if found.is_empty() {
        return Ok(axum::Json(outcome::report(Vec::new(), failed)).into_response());
    }
    let agents = found.values().map(|agent| agent.id.to_string()).collect();
    let order = order(&state, &called, body, agents, traceparent(&headers))?;
    let made = make(&state, &called, order, by).await?;
    let report = outcome::of_response(&made, &called.action, &found, failed);
    let id = HeaderValue::from_str(&made.id.to_string()).map_err(|error| ApiError::internal(&error))?;
    Ok(([(RESPONSE, id)], axum::Json(report)).into_response())
}

fn order(
    state: &AppState,
    called: &CalledCommand,
    body: WazuhActiveResponse,
    agents: Vec<String>,
    trace: Option<&str>,
) -> Result<Order, Refused> {
    let WazuhActiveResponse { command, arguments, alert } = body;
    let aimed = aim(&called.action, alert.as_ref(), &arguments, &state.engine.rules.mappings);
    let Aim { target, arguments } = aimed.map_err(|faults| not_taken(&faults))?;
    Ok(Order {
        action: called.action.name.clone(),
        target: target.map(|(kind, value)| (Some(kind), value)),
        agents,
        on: None,
        duration: called.duration,
        reason: format!("active response {command} by Wazuh's API"),
        arguments,
        trace: trace.map(str::to_owned),
        break_glass: false,
        filing: Filing::default(),
    })
}

/// Makes the response, and reads what was committed.
async fn make(state: &AppState, called: &CalledCommand, order: Order, by: &Principal) -> Result<MadeResponse, Refused> {
    let id = state.engine.respond(order, None, by).await.map_err(|refusal| match refusal {
        Refusal::Invalid(faults) => not_taken(&faults),
        other => other.into(),
    })?;
    let row = responses::find(&state.engine.db, id).await?.ok_or(StoreError::NotFound)?;
    Ok(MadeResponse {
        id,
        state: row.state,
        detail: row.detail.clone(),
        agents: row.agents.read().map_err(StoreError::from)?,
        is_endless_by_form: called.is_endless_by_form,
    })
}

/// 400: no agent could take this.
fn not_taken(faults: &[Fault]) -> Refused {
    let told: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
    Refused::bad_request(told.join("; "), Some(NO_MESSAGE))
}
