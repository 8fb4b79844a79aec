//! `/wazuh/security/user/authenticate`: a name and a password become a token. The password is that of a person,
//! or an API key beside any name.

use axum::extract::{FromRequestParts, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::caller::WazuhCaller;
use super::refused::Refused;
use crate::api::front::auth::{Caller, Identify, basic, of_key};
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::Query;
use crate::api::front::limits::network;
use crate::api::state::AppState;
use crate::domain::access_token::LIFETIME;
use crate::domain::api_key;
use crate::domain::principal::Credentials;
use crate::engine::login::{Login, LoginOrigin};
use crate::engine::refusal::Refusal;
use crate::views::wazuh::{WazuhLogin, WazuhLogout, WazuhToken};

/// What Wazuh says of every login that failed.
const INVALID: &str = "Invalid credentials";

/// How the token is returned.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LoginQuery {
    /// Return the token alone, as text.
    #[serde(default, deserialize_with = "flag")]
    raw: bool,
    /// Lay the answer out for people.
    #[serde(default, deserialize_with = "flag", rename = "pretty")]
    _pretty: bool,
    /// Without effect: a login does not end early.
    #[serde(default, deserialize_with = "flag", rename = "wait_for_complete")]
    _wait_for_complete: bool,
}

/// A flag as clients of Wazuh write one: `true`, and Python's `True`.
///
/// # Errors
/// For any other word.
pub(super) fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let word = String::deserialize(deserializer)?;
    match word.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(serde::de::Error::custom("must be true or false")),
    }
}

/// The credentials of a login, and the request around them.
pub(super) struct LoginRequest {
    parts: Parts,
    /// Name and password; `None` if there are none that can be read.
    credentials: Option<(String, String)>,
}

impl FromRequestParts<AppState> for LoginRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> ApiResult<Self> {
        let is_text = |text: &str| !text.chars().any(char::is_control);
        let credentials = basic(parts).filter(|(name, password)| is_text(name) && is_text(password));
        Ok(Self { parts: parts.clone(), credentials })
    }
}

/// Logs in
///
/// With Basic authentication: the name and the password of a person, or any name and an API key as the
/// password. The token is valid for 15 minutes, and no longer than the key. A person with one-time codes
/// cannot log in here.
#[utoipa::path(post, path = "/wazuh/security/user/authenticate", tag = "wazuh", params(LoginQuery), security(()),
    responses((status = 200, content((WazuhLogin = "application/json"), (String = "text/plain"))), (status = 401),
        (status = 403), (status = 429)))]
pub(super) async fn issue(
    request: LoginRequest,
    State(state): State<AppState>,
    Query(query): Query<LoginQuery>,
) -> Result<Response, Refused> {
    let token = token(&state, request).await?;
    if query.raw {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], token).into_response());
    }
    Ok(axum::Json(WazuhLogin { data: WazuhToken { token }, error: 0 }).into_response())
}

/// Logs in, as older clients do
#[utoipa::path(get, path = "/wazuh/security/user/authenticate", tag = "wazuh", params(LoginQuery), security(()),
    responses((status = 200, content((WazuhLogin = "application/json"), (String = "text/plain"))), (status = 401),
        (status = 403), (status = 429)))]
pub(super) async fn issue_by_get(
    request: LoginRequest,
    state: State<AppState>,
    query: Query<LoginQuery>,
) -> Result<Response, Refused> {
    issue(request, state, query).await
}

async fn token(state: &AppState, request: LoginRequest) -> Result<String, Refused> {
    let LoginRequest { parts, credentials } = request;
    let engine = &state.engine;
    let failed = |why: &str| {
        let error = state.auth_failures.refuse(engine, &parts, why);
        if error.status().as_u16() == 401 { Refused::login(INVALID) } else { error.into() }
    };
    let Some((username, password)) = credentials else {
        return Err(failed("a login needs a name and a password: Authorization: Basic …"));
    };
    if api_key::form_fault(&password).is_none() {
        let principal = of_key(engine, &password).ok_or_else(|| failed("the password is no valid API key"))?;
        let caller = Caller::<Identify>::admit(&parts, state, principal)?;
        let Credentials::Key(id) = &caller.principal.via else { return Err(failed("no API key")) };
        return Ok(engine.issue_key_token(id)?);
    }
    let address = state.auth_failures.origin(&parts);
    let origin = LoginOrigin { address, network: network(address) };
    let login = Login { username, password, totp: None };
    match engine.log_in_for(login, origin, LIFETIME).await {
        Ok(tokens) => Ok(tokens.access),
        Err(Refusal::Credentials(_)) => Err(Refused::login(INVALID)),
        Err(Refusal::TotpRequired) => Err(Refused::login(
            "this user needs a one-time code, for which Wazuh's API has no place: log in with an API key as the password",
        )),
        Err(refusal @ Refusal::PasswordChangeRequired) => Err(Refused::login(refusal.to_string())),
        Err(Refusal::TooMany(_, secs)) => Err(Refused::blocked(secs)),
        Err(other) => Err(other.into()),
    }
}

/// Logs out
///
/// The session of the token ends; of an API key, all its tokens.
#[utoipa::path(delete, path = "/wazuh/security/user/authenticate", tag = "wazuh",
    responses((status = 200, body = WazuhLogout)))]
pub(super) async fn end(
    caller: WazuhCaller<Identify>,
    State(state): State<AppState>,
) -> Result<axum::Json<WazuhLogout>, Refused> {
    let by = &caller.principal;
    let name = match (&by.via, by.person()) {
        (Credentials::Session(session), Some(user)) => {
            state.engine.log_out(user, *session).await?;
            user.to_owned()
        }
        (Credentials::Key(id), _) => {
            state.engine.end_key_tokens(id, by).await?;
            by.actor.to_string()
        }
        (Credentials::Session(_), None) | (Credentials::Link(_), _) => by.actor.to_string(),
    };
    Ok(axum::Json(WazuhLogout { message: format!("User {name} was successfully logged out"), error: 0 }))
}
