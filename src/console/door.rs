//! The way in: a request goes on with the person's session, or is answered with the login page.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::client::ApiClient;
use super::login;
use super::page::{Nonce, PageFailure, local};
use super::session::{Cookies, FORM_TOKEN, Session, fields, refuse_other_sites};
use super::state::Console;
use crate::views::auth::{IssuedToken, WhoAmI};

/// Largest form that is kept over a login.
const MAX_KEPT: usize = 256 * 1024;
/// Fields that are not kept over a login: the token of the form, and that its plan was seen.
const NOT_KEPT: [&str; 3] = [FORM_TOKEN, "seen", "step"];
/// How long a request waits for the cookies of another manager's refresh.
const REFRESHED_ELSEWHERE: Duration = Duration::from_millis(500);
/// Header of a page's script that loads an open page anew.
const RELOADS: &str = "riposte-reloads";

/// Lets a request through with the person's session; without one it answers with the login page.
pub(super) async fn require(State(console): State<Console>, mut request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let cookies = Cookies::new(console.is_tls);
    let found = match find(&console, &mut parts, &cookies).await {
        Ok(found) => found,
        // Another manager has just refreshed the session: the browser gets the new cookies from there.
        Err(failure) if failure.is_conflict() && parts.method == Method::GET => {
            tokio::time::sleep(REFRESHED_ELSEWHERE).await;
            let place = parts.uri.path_and_query().map_or("/", |place| place.as_str());
            return Redirect::to(local(place)).into_response();
        }
        Err(failure) if failure.is_conflict() => return without_session(&console, parts, body).await,
        Err(failure) => return failure.into_response(),
    };
    let Some((session, refreshed)) = found else { return without_session(&console, parts, body).await };
    let said = session.said.is_some();
    parts.extensions.insert(session);
    request = Request::from_parts(parts, body);
    let mut response = next.run(request).await;
    if let Some(tokens) = refreshed {
        cookies.begin(&tokens, console.engine.clock.now(), &mut response);
    }
    if said && let Some(cookie) = cookies.set("said", "", 0) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// The session of a request, and its new tokens if it was refreshed for it; `None` if there is none.
async fn find(
    console: &Console,
    parts: &mut Parts,
    cookies: &Cookies,
) -> Result<Option<(Session, Option<Arc<IssuedToken>>)>, PageFailure> {
    let api = ApiClient::of(console.api.clone(), parts);
    let now = console.engine.clock.now();
    let mut refreshed = None;
    let access = match cookies.sent(&parts.headers, "access") {
        Some(token) if console.engine.access_tokens.verify(token, now).is_ok() => token.to_owned(),
        _ => {
            let Some(refresh) = cookies.sent(&parts.headers, "refresh") else { return Ok(None) };
            match console.refreshes.next(&console.engine.tasks, &api, refresh).await {
                Ok(tokens) => refreshed.insert(tokens).access_token.clone(),
                Err(trouble) if trouble.status() == StatusCode::UNAUTHORIZED => return Ok(None),
                Err(trouble) => return Err(trouble.into()),
            }
        }
    };
    let Ok(claims) = console.engine.access_tokens.verify(&access, now) else { return Ok(None) };
    let api = api.with(&access);
    let who: WhoAmI = match api.get("/v1/whoami").await {
        Ok(who) => who,
        Err(trouble) if trouble.status() == StatusCode::UNAUTHORIZED => return Ok(None),
        Err(trouble) => return Err(trouble.into()),
    };
    let api = if parts.headers.contains_key(RELOADS) { api.sharing(&console.reads, &sight(&who)) } else { api };
    let said = cookies.sent(&parts.headers, "said");
    let said = said.map(|said| percent_encoding::percent_decode_str(said).decode_utf8_lossy().as_ref().into());
    let nonce = parts.extensions.get::<Nonce>().cloned().unwrap_or_default();
    let form_token = console.forms.token(claims.sid).into();
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost").into();
    let (who, id, console) = (Arc::new(who), claims.sid, console.clone());
    Ok(Some((Session { api, who, form_token, nonce, said, id, host, console }, refreshed)))
}

/// What a person may see: lists are the same for everyone with the same.
fn sight(who: &WhoAmI) -> String {
    let WhoAmI { rights, scopes, .. } = who;
    serde_json::json!({ "rights": rights, "scopes": scopes }).to_string()
}

/// The login page. What a form held is kept in it, so that nothing that was typed is lost.
async fn without_session(console: &Console, parts: Parts, body: Body) -> Response {
    let place = parts.uri.path_and_query().map_or("/", |place| place.as_str());
    if parts.method == Method::GET || parts.method == Method::HEAD || place == "/logout" {
        return Redirect::to(&login::path_before(if place == "/logout" { "/" } else { place })).into_response();
    }
    // Browsers send no cookie with a form of another site. Its fields must not be kept for the next login.
    let sent = match refuse_other_sites(&parts.headers) {
        Ok(()) => fields(body, MAX_KEPT, &console.strangers).await,
        Err(failure) => Err(failure),
    };
    let kept = match sent {
        Ok(fields) => fields,
        Err(failure) => return failure.into_response(),
    };
    // Passwords and secrets are not kept, and the person sees the plan once more.
    let is_secret = place.starts_with("/account");
    let is_kept = |name: &str| !is_secret && !NOT_KEPT.contains(&name);
    let kept = kept.into_iter().filter(|(name, _)| is_kept(name)).collect();
    login::expired(console, &parts, if is_secret { "/account" } else { place }, kept).await
}
