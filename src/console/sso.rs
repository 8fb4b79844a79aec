//! Logging in at an OpenID provider: the browser goes to the provider by way of the API, and comes
//! back here with a login code. The verifier of the code is in a cookie of this browser alone.

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse as _, Redirect};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use super::client::ApiClient;
use super::login::{self, Next};
use super::page::{PageFailure, PageResult, local};
use super::paths::{segment, with_query};
use super::session::Cookies;
use super::state::Console;
use crate::domain::oidc::loopback::challenge;
use crate::engine::secrets::new_secret;
use crate::views::auth::{AskToken, IssuedToken};

/// How long a login at a provider may take, in seconds; as the API's own cookie.
const LOGIN_SECS: u64 = 600;
/// Most characters of a provider's reason.
const MAX_WHY: usize = 300;

/// Sends the browser to the provider.
pub(super) async fn begin(
    State(console): State<Console>,
    Path(provider): Path<String>,
    Query(asked): Query<Next>,
) -> PageResult {
    let verifier = new_secret().map_err(|_| PageFailure::system("the system has no randomness"))?;
    let to = console.engine.providers.console();
    let path = format!("/v1/auth/oidc/{}/start", segment(&provider));
    let place = with_query(&path, [("redirect_uri", to.as_str()), ("code_challenge", challenge(&verifier).as_str())]);
    let mut response = Redirect::to(&place).into_response();
    let cookies = Cookies::new(console.is_tls);
    let next = utf8_percent_encode(local(&asked.next), NON_ALPHANUMERIC).to_string();
    for cookie in [cookies.set("verifier", &verifier, LOGIN_SECS), cookies.set("next", &next, LOGIN_SECS)] {
        response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    }
    Ok(response)
}

/// What the browser brings back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Returned {
    code: String,
    error_description: String,
}

/// Begins the session of a person whom the provider has proven.
pub(super) async fn finish(
    State(console): State<Console>,
    Query(returned): Query<Returned>,
    request: Request,
) -> PageResult {
    let (parts, _) = request.into_parts();
    let cookies = Cookies::new(console.is_tls);
    let Some(verifier) = cookies.sent(&parts.headers, "verifier") else {
        let why = "This login was not begun in this browser, or has taken longer than 10 minutes. Begin again.";
        return Err(PageFailure::new(StatusCode::FORBIDDEN, why));
    };
    if returned.code.is_empty() {
        let why: String = returned.error_description.chars().take(MAX_WHY).collect();
        return Err(PageFailure::new(StatusCode::FORBIDDEN, format!("The provider did not log you in: {why}")));
    }
    let asked =
        AskToken { login_code: Some(returned.code), code_verifier: Some(verifier.to_owned()), ..AskToken::default() };
    let api = ApiClient::of(console.api.clone(), &parts);
    let tokens: IssuedToken = api.post("/v1/auth/token", &asked).await?;
    let next = cookies.sent(&parts.headers, "next").unwrap_or_default();
    let next = percent_decode_str(next).decode_utf8_lossy().into_owned();
    let mut response = login::begun(&console, &tokens, &next, Vec::new())?;
    for cookie in ["verifier", "next"].into_iter().filter_map(|word| cookies.set(word, "", 0)) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}
