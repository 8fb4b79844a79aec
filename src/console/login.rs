//! Logging in and out. A form that was sent after the session had ended is kept in the page, and
//! sent again after the login by one click.

use askama::Template;
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::assets;
use super::client::{ApiClient, NO_BODY, Trouble};
use super::page::{PageFailure, PageResult, html, local, with_status};
use super::session::{Cookies, SentForm, Session, fields, refuse_other_sites};
use super::state::Console;
use crate::domain::principal::Role;
use crate::views::auth::{AskToken, ChangePassword, EndedSession, IssuedToken};
use crate::views::oidc::SignOnProviders;
use crate::views::users::{CreateUser, CreatedUser};

/// Largest form of a login, with what is kept in it.
const MAX_LOGIN: usize = 512 * 1024;
/// Prefix of the fields that hold what was typed before the login.
const KEPT: &str = "kept.";

/// The path of the login page for a person who wanted to see `place`.
pub(super) fn path_before(place: &str) -> String {
    match local(place) {
        "/" => "/login".to_owned(),
        place => format!("/login?next={}", utf8_percent_encode(place, NON_ALPHANUMERIC)),
    }
}

#[derive(Template, Default)]
#[template(path = "login.html")]
struct LoginPage {
    assets: String,
    next: String,
    username: String,
    fault: Option<String>,
    /// Whether a one-time code is asked for.
    needs_code: bool,
    /// Whether a new password is asked for.
    needs_password: bool,
    /// Password that was right, while a code is asked for.
    password: String,
    providers: Vec<String>,
    /// What was typed before the session ended.
    kept: Vec<(String, String)>,
    /// Whether the page shows the form for the first person.
    is_first: bool,
}

/// Where to go after the login.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    pub(super) next: String,
}

/// The login page.
pub(super) async fn page(State(console): State<Console>, Query(asked): Query<Next>, request: Request) -> PageResult {
    let (parts, _) = request.into_parts();
    html(&LoginPage { next: local(&asked.next).to_owned(), ..blank(&console, &parts).await? })
}

async fn blank(console: &Console, parts: &Parts) -> Result<LoginPage, PageFailure> {
    let api = ApiClient::of(console.api.clone(), parts);
    let providers: SignOnProviders = api.get("/v1/auth/oidc").await?;
    let providers = providers.providers.into_iter().map(|provider| provider.name).collect();
    let is_first = !console.engine.users.load().values().any(|stored| stored.user.deleted_at.is_none());
    Ok(LoginPage { assets: assets::base(), providers, is_first, next: "/".to_owned(), ..LoginPage::default() })
}

/// The login page for a form that came after the session had ended.
pub(super) async fn expired(console: &Console, parts: &Parts, place: &str, kept: Vec<(String, String)>) -> Response {
    let page = match blank(console, parts).await {
        Ok(page) => page,
        Err(failure) => return failure.into_response(),
    };
    let fault = Some("Your session has ended. What you typed is kept: log in, and send it again.".to_owned());
    let page = LoginPage { next: local(place).to_owned(), kept, fault, ..page };
    with_status(StatusCode::UNAUTHORIZED, &page).unwrap_or_else(axum::response::IntoResponse::into_response)
}

#[derive(Template)]
#[template(path = "resume.html")]
struct ResumePage {
    assets: String,
    place: String,
    form_token: String,
    kept: Vec<(String, String)>,
}

/// Begins a session.
pub(super) async fn begin(State(console): State<Console>, request: Request) -> PageResult {
    let (parts, body) = request.into_parts();
    refuse_other_sites(&parts.headers)?;
    let sent = fields(body, MAX_LOGIN, &console.strangers).await?;
    let field = |name: &str| sent.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
    let kept = sent.iter().filter_map(|(name, value)| Some((name.strip_prefix(KEPT)?.to_owned(), value.clone())));
    let kept: Vec<_> = kept.collect();
    let api = ApiClient::of(console.api.clone(), &parts);
    let (username, next) = (field("username").trim().to_owned(), local(field("next")).to_owned());
    let totp = Some(field("totp").trim().to_owned()).filter(|code| !code.is_empty());
    let mut password = field("password").to_owned();
    let again = async |trouble: Trouble, password: String| -> PageResult {
        let page = LoginPage {
            username: username.clone(),
            next: next.clone(),
            kept: kept.clone(),
            ..blank(&console, &parts).await?
        };
        let page = if trouble.is("totp-required") {
            LoginPage { needs_code: true, password, ..page }
        } else if trouble.is("password-change-required") {
            LoginPage { needs_password: true, needs_code: totp.is_some(), password, ..page }
        } else {
            LoginPage { fault: Some(trouble.to_string()), ..page }
        };
        with_status(trouble.status(), &page)
    };
    if let Some(new) = Some(field("new_password")).filter(|new| !new.is_empty()) {
        let change = ChangePassword {
            username: username.clone(),
            password: password.clone(),
            totp: totp.clone(),
            new_password: new.to_owned(),
        };
        let changed = api.send(Method::POST, "/v1/auth/password", None, Some(&change)).await;
        // A code is valid once: the login asks for the next one.
        let needs_code = totp.is_some() || changed.as_ref().is_err_and(|trouble| trouble.is("totp-required"));
        if changed.is_err() || needs_code {
            let page = LoginPage { next, username, needs_code, kept, ..blank(&console, &parts).await? };
            return match changed {
                Ok(_) => html(&LoginPage { password: new.to_owned(), ..page }),
                Err(trouble) => {
                    let fault = Some(trouble.to_string());
                    with_status(trouble.status(), &LoginPage { needs_password: true, password, fault, ..page })
                }
            };
        }
        new.clone_into(&mut password);
    }
    let asked = AskToken {
        username: Some(username.clone()),
        password: Some(password.clone()),
        totp: totp.clone(),
        ..AskToken::default()
    };
    match api.post::<IssuedToken>("/v1/auth/token", &asked).await {
        Ok(tokens) => Ok(begun(&console, &tokens, &next, kept)?),
        Err(trouble) => again(trouble, password).await,
    }
}

/// Gives the browser its session, and goes on.
pub(super) fn begun(
    console: &Console,
    tokens: &IssuedToken,
    next: &str,
    kept: Vec<(String, String)>,
) -> Result<Response, PageFailure> {
    let now = console.engine.clock.now();
    let mut response = if kept.is_empty() {
        Redirect::to(local(next)).into_response()
    } else {
        let claims = console.engine.access_tokens.verify(&tokens.access_token, now);
        let claims = claims.map_err(|error| PageFailure::system(&error.to_string()))?;
        let form_token = console.forms.token(claims.sid);
        with_status(StatusCode::OK, &ResumePage { assets: assets::base(), place: next.to_owned(), form_token, kept })?
    };
    Cookies::new(console.is_tls).begin(tokens, now, &mut response);
    Ok(response)
}

/// Makes the first person with the admin key, and logs the person in.
pub(super) async fn first(State(console): State<Console>, request: Request) -> PageResult {
    let (parts, body) = request.into_parts();
    refuse_other_sites(&parts.headers)?;
    let sent = fields(body, MAX_LOGIN, &console.strangers).await?;
    let field = |name: &str| sent.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
    let (username, password) = (field("username").trim().to_owned(), Some(field("password").to_owned()));
    let api = ApiClient::of(console.api.clone(), &parts);
    let person = CreateUser { name: username.clone(), role: Role::Admin, password: password.clone(), scope: None };
    let made = api.with(field("key").trim()).post::<CreatedUser>("/v1/users", &person).await;
    let asked = AskToken { username: Some(username.clone()), password, ..AskToken::default() };
    let tokens = match made {
        Ok(_) => api.post::<IssuedToken>("/v1/auth/token", &asked).await,
        Err(trouble) => Err(trouble),
    };
    match tokens {
        Ok(tokens) => begun(&console, &tokens, "/", Vec::new()),
        Err(trouble) => {
            let fault = Some(trouble.to_string());
            with_status(trouble.status(), &LoginPage { username, fault, ..blank(&console, &parts).await? })
        }
    }
}

#[derive(Template)]
#[template(path = "logged_out.html")]
struct LoggedOutPage {
    assets: String,
    /// Where the person ends the session at the OpenID provider.
    place: String,
}

/// Ends the session. A form may not lead to another site, so the page of the provider is a link.
pub(super) async fn end(State(console): State<Console>, session: Session, _: SentForm) -> PageResult {
    let answer = session.api.send(Method::DELETE, "/v1/auth/token", None, NO_BODY).await?;
    let mut response = match answer.read::<EndedSession>() {
        Ok(ended) => html(&LoggedOutPage { assets: assets::base(), place: ended.end_session_url })?,
        Err(_) => Redirect::to("/login").into_response(),
    };
    Cookies::new(console.is_tls).end(&mut response);
    Ok(response)
}
