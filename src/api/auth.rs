//! `/v1/auth` and the key set of access tokens: a person logs in, refreshes and ends the session,
//! changes the password, and sets up one-time codes.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};

use super::front::auth::{Caller, Identify};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Json;
use super::front::limits::network;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::fault::Fault;
use crate::domain::principal::Credentials;
use crate::engine::login::{Login, LoginOrigin, Tokens};
use crate::views::auth::{AskToken, ChangePassword, EndedSession, IssuedToken, KeySet, NewTotp, PublicJwk, TotpCode};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(issue, end))
        .with(operations!(change_password))
        .with(operations!(offer_totp, remove_totp))
        .with(operations!(confirm_totp))
        .with(operations!(key_set))
}

/// Client address of a request without credentials.
#[derive(Clone, Copy, Debug)]
pub struct ClientOrigin(pub(super) LoginOrigin);

impl FromRequestParts<AppState> for ClientOrigin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        Ok(Self(origin(state.auth_failures.origin(parts))))
    }
}

fn origin(address: IpAddr) -> LoginOrigin {
    LoginOrigin { address, network: network(address) }
}

/// Begins a session, or refreshes it
///
/// With `username` and `password`, and `totp` where it is needed, a session begins; or with the
/// `login_code` of a login at an OpenID provider and its `code_verifier`. With `refresh_token` it continues; each refresh token is valid once. An unknown user, a wrong
/// password, a disabled and a locked user get the same 401. A 403 of the type
/// `password-change-required` asks for `POST /v1/auth/password` first, a 401 of the type
/// `totp-required` for a one-time code. A refresh token that was used a moment ago gets 409.
#[utoipa::path(post, path = "/v1/auth/token", tag = "auth", request_body = AskToken, security(()),
    responses((status = 200, body = IssuedToken), (status = 401), (status = 403), (status = 409), (status = 429)))]
pub async fn issue(
    State(state): State<AppState>,
    ClientOrigin(origin): ClientOrigin,
    body: Json<AskToken>,
) -> ApiResult<axum::Json<IssuedToken>> {
    let engine = &state.engine;
    let issued = match body.value {
        AskToken {
            username: None,
            password: None,
            totp: None,
            refresh_token: Some(token),
            login_code: None,
            code_verifier: None,
        } => engine.refresh_session(&token, origin).await,
        AskToken {
            username: Some(username),
            password: Some(password),
            totp,
            refresh_token: None,
            login_code: None,
            code_verifier: None,
        } => engine.log_in(Login { username, password, totp }, origin).await,
        AskToken {
            username: None,
            password: None,
            totp: None,
            refresh_token: None,
            login_code: Some(code),
            code_verifier: Some(verifier),
        } => engine.exchange_login_code(&code, &verifier, origin).await,
        _ => {
            let why = "must hold username and password, with totp where it is needed, or login_code and code_verifier, \
                       or refresh_token alone";
            return Err(ApiError::invalid(vec![Fault::at("", why)]));
        }
    };
    let Tokens { access, expires_in, refresh, refresh_expires_at, rights, user } = issued?;
    Ok(axum::Json(IssuedToken {
        access_token: access,
        token_type: "Bearer".to_owned(),
        expires_in,
        refresh_token: refresh,
        refresh_expires_at,
        scope: rights,
        username: user,
    }))
}

/// Ends the session of the access token
///
/// After a login at an OpenID provider the response is 200, and says where the person ends the
/// session there too.
#[utoipa::path(delete, path = "/v1/auth/token", tag = "auth",
    responses((status = 200, body = EndedSession), (status = 204), (status = 409)))]
pub async fn end(caller: Caller<Identify>, State(state): State<AppState>) -> ApiResult<Response> {
    let (Credentials::Session(session), Some(user)) = (&caller.principal.via, caller.principal.person()) else {
        return Err(ApiError::conflict("an API key has no session; it is valid until it expires or is revoked"));
    };
    Ok(match state.engine.log_out(user, *session).await? {
        Some(end_session_url) => axum::Json(EndedSession { end_session_url }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Changes one's own password
///
/// Needs no token, so that a temporary password can be changed. All sessions of the user end.
#[utoipa::path(post, path = "/v1/auth/password", tag = "auth", request_body = ChangePassword, security(()),
    responses((status = 204), (status = 401), (status = 429)))]
pub async fn change_password(
    State(state): State<AppState>,
    ClientOrigin(origin): ClientOrigin,
    body: Json<ChangePassword>,
) -> ApiResult<StatusCode> {
    let ChangePassword { username, password, totp, new_password } = body.value;
    state.engine.change_password(Login { username, password, totp }, new_password, origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a secret for one-time codes
///
/// Needs an access token. The secret is shown once. Logins need a code only after
/// `POST /v1/auth/totp/confirm`.
#[utoipa::path(post, path = "/v1/auth/totp", tag = "auth", responses((status = 200, body = NewTotp), (status = 409)))]
pub async fn offer_totp(caller: Caller<Identify>, State(state): State<AppState>) -> ApiResult<axum::Json<NewTotp>> {
    let user = caller.logged_in("one-time codes belong to a person")?;
    Ok(axum::Json(state.engine.offer_totp(user).await?))
}

/// Confirms the secret by a code
#[utoipa::path(post, path = "/v1/auth/totp/confirm", tag = "auth", request_body = TotpCode,
    responses((status = 204), (status = 409)))]
pub async fn confirm_totp(
    caller: Caller<Identify>,
    State(state): State<AppState>,
    body: Json<TotpCode>,
) -> ApiResult<StatusCode> {
    let user = caller.logged_in("one-time codes belong to a person")?;
    state.engine.confirm_totp(user, &body.value.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the need of one-time codes, with one more of them
///
/// A person who lost the device asks an administrator for a reset with `remove_totp`.
#[utoipa::path(delete, path = "/v1/auth/totp", tag = "auth", request_body = TotpCode,
    responses((status = 204), (status = 409)))]
pub async fn remove_totp(
    caller: Caller<Identify>,
    State(state): State<AppState>,
    body: Json<TotpCode>,
) -> ApiResult<StatusCode> {
    let user = caller.logged_in("one-time codes belong to a person")?;
    state.engine.remove_totp(user, &body.value.code, origin(caller.address)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the public keys of access tokens
///
/// The previous, the current and the next key, so that a program that keeps the set for days knows
/// each key before it signs. During a rotation of the signing key, those of the new one too, and
/// after it those of the old one.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()),
    responses((status = 200, body = KeySet)))]
pub async fn key_set(State(state): State<AppState>) -> axum::Json<KeySet> {
    let keys = state.engine.access_tokens.keys(state.engine.clock.now());
    let jwk = |key: &crate::domain::access_token::PeriodKey| PublicJwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: key.public().text(),
        kid: key.kid.clone(),
        alg: "EdDSA".to_owned(),
        usage: "sig".to_owned(),
    };
    let others = state.engine.access_tokens.other_keys();
    let all = keys.all().iter().chain(others.iter().flat_map(|keys| keys.all()));
    axum::Json(KeySet { keys: all.map(jwk).collect() })
}
