//! `/v1/auth/oidc`: a person's browser goes to an OpenID provider and comes back. A cookie ties the
//! login to the browser that began it. `/v1/users/{name}/identities`: which person that is.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::auth::ClientOrigin;
use super::front::auth::{Administer, Caller};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::engine::sign_on::{BegunSignOn, SignOnAnswer};
use crate::store::configured::{identities, users};
use crate::views::oidc::{LinkIdentity, SignOnProvider, SignOnProviders, UserIdentities};

/// Beginning of the name of a login's cookie. Each login has its own, so that two in one browser do
/// not disturb each other.
const COOKIE: &str = "riposte_login_";
/// Characters of the `state` in the name of the cookie.
const COOKIE_STATE: usize = 16;
/// How long the cookie is kept, in seconds: as long as the login may take.
const COOKIE_SECS: u32 = 600;
/// Where the cookie is sent.
const COOKIE_PATH: &str = "/v1/auth/oidc/";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(list))
        .with(operations!(start))
        .with(operations!(callback))
        .with(operations!(list_identities))
        .with(operations!(link, unlink))
}

/// Lists the OpenID providers at which people can log in
#[utoipa::path(get, path = "/v1/auth/oidc", tag = "auth", security(()),
    responses((status = 200, body = SignOnProviders)))]
pub async fn list(State(state): State<AppState>) -> axum::Json<SignOnProviders> {
    let names = state.engine.providers.names().into_iter();
    axum::Json(SignOnProviders { providers: names.map(|name| SignOnProvider { name }).collect() })
}

/// A program that logs a person in.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StartSignOn {
    /// Loopback address at which the program receives the login code (RFC 8252).
    #[param(max_length = 256)]
    redirect_uri: String,
    /// S256 challenge (RFC 7636) of a verifier that the program keeps.
    code_challenge: String,
}

/// Sends a browser to an OpenID provider
///
/// A program opens this address in a browser. After the login the browser goes to `redirect_uri`
/// with `code`, which `POST /v1/auth/token` exchanges, or with `error` and `error_description`. A
/// provider that does not answer gets 503.
#[utoipa::path(get, path = "/v1/auth/oidc/{provider}/start", tag = "auth", security(()),
    params(("provider" = String, Path), StartSignOn), responses((status = 303), (status = 429)))]
pub async fn start(
    State(state): State<AppState>,
    ClientOrigin(origin): ClientOrigin,
    Path(provider): Path<String>,
    Query(asked): Query<StartSignOn>,
) -> ApiResult<Response> {
    state.caller_limits.count_sign_on(origin.network)?;
    let begun = state.engine.begin_sign_on(&provider, asked.redirect_uri, asked.code_challenge).await?;
    let BegunSignOn { location, state, browser, is_https } = begun;
    let cookie = cookie(&state, &browser, COOKIE_SECS, is_https);
    Ok(to(location, cookie))
}

/// What a provider sends with a browser. It may send more.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SignOnReturn {
    /// The `state` of the login.
    #[param(max_length = 4096)]
    state: Option<String>,
    /// The provider's code.
    #[param(max_length = 4096)]
    code: Option<String>,
    /// Why there is no code.
    #[param(max_length = 4096)]
    error: Option<String>,
    /// Issuer (RFC 9207).
    #[param(max_length = 4096)]
    iss: Option<String>,
}

/// Receives a browser back from an OpenID provider
///
/// The browser goes on to the program that began the login. A browser that did not begin it gets
/// 403.
#[utoipa::path(get, path = "/v1/auth/oidc/{provider}/callback", tag = "auth", security(()),
    params(("provider" = String, Path), SignOnReturn), responses((status = 303), (status = 403), (status = 429)))]
pub async fn callback(
    State(state): State<AppState>,
    ClientOrigin(origin): ClientOrigin,
    Path(provider): Path<String>,
    Query(returned): Query<SignOnReturn>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    state.caller_limits.count_sign_on(origin.network)?;
    let SignOnReturn { state: login, code, error, iss } = returned;
    let login = login.unwrap_or_default();
    let browser = sent_cookie(&headers, &login);
    let answer = SignOnAnswer { state: login.clone(), code, error, iss };
    let location = state.engine.finish_sign_on(&provider, answer, browser.as_deref(), origin).await?;
    Ok(to(location, cookie(&login, "", 0, state.engine.providers.is_https())))
}

/// A redirect that no cache keeps and that tells no page where it came from.
fn to(location: String, cookie: String) -> Response {
    let headers = [
        (header::LOCATION, location),
        (header::SET_COOKIE, cookie),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn cookie_name(state: &str) -> String {
    let part = state.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(COOKIE_STATE);
    format!("{COOKIE}{}", part.collect::<String>())
}

fn cookie(state: &str, value: &str, secs: u32, is_https: bool) -> String {
    let secure = if is_https { "; Secure" } else { "" };
    format!("{}={value}; Path={COOKIE_PATH}; Max-Age={secs}; HttpOnly; SameSite=Lax{secure}", cookie_name(state))
}

fn sent_cookie(headers: &HeaderMap, state: &str) -> Option<String> {
    let name = cookie_name(state);
    let sent = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = sent.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(sent, _)| *sent == name).map(|(_, value)| value.to_owned())
}

async fn identities_of(state: &AppState, name: &str) -> ApiResult<axum::Json<UserIdentities>> {
    let user = users::find(&state.engine.db, name).await?;
    user.ok_or_else(|| ApiError::not_found(format!("there is no user called {name:?}")))?;
    Ok(axum::Json(UserIdentities { identities: identities::of_user(&state.engine.db, name).await? }))
}

/// Lists the identities of a user at OpenID providers
#[utoipa::path(get, path = "/v1/users/{name}/identities", tag = "users", params(("name" = String, Path)),
    responses((status = 200, body = UserIdentities)))]
pub async fn list_identities(
    _: Caller<Administer>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<axum::Json<UserIdentities>> {
    identities_of(&state, &name).await
}

/// Links a user to a person at an OpenID provider
///
/// The person then logs in there as this user. A user has one identity at a provider.
#[utoipa::path(put, path = "/v1/users/{name}/identities/{provider}", tag = "users",
    params(("name" = String, Path), ("provider" = String, Path)), request_body = LinkIdentity,
    responses((status = 200, body = UserIdentities), (status = 409)))]
pub async fn link(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path((name, provider)): Path<(String, String)>,
    body: Json<LinkIdentity>,
) -> ApiResult<axum::Json<UserIdentities>> {
    state.engine.link_identity(&name, &provider, body.value, &caller.principal.at()).await?;
    identities_of(&state, &name).await
}

/// Ends a user's link to an OpenID provider
///
/// All sessions of the user end.
#[utoipa::path(delete, path = "/v1/users/{name}/identities/{provider}", tag = "users",
    params(("name" = String, Path), ("provider" = String, Path)), responses((status = 204)))]
pub async fn unlink(
    caller: Caller<Administer>,
    State(state): State<AppState>,
    Path((name, provider)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    state.engine.unlink_identity(&name, &provider, &caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}
