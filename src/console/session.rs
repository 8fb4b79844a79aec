//! Who looks at a page: the person's session, in two cookies that no script can read. They hold what
//! `POST /v1/auth/token` gives a program: an access token, and the refresh token for the next one.
//! Every form carries a token of the session, so that no other site can send one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::client::ApiClient;
use super::page::{Nonce, PageFailure};
use super::state::Console;
use crate::api::front::extract::Payload;
use crate::api::front::memory::MemoryBudget;
use crate::domain::right::Right;
use crate::views::auth::{IssuedToken, WhoAmI};

/// The field of a form that holds its token.
pub(super) const FORM_TOKEN: &str = "form_token";
/// Largest form: a policy document with room to spare.
const MAX_FORM: usize = 4 * 1024 * 1024;
/// Headers of a request that say which site sent it.
const FETCH_SITE: &str = "sec-fetch-site";

/// The person who looks, and the API with the person's session.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) api: ApiClient,
    pub(super) who: Arc<WhoAmI>,
    /// The token of this session's forms.
    pub(super) form_token: Arc<str>,
    pub(super) nonce: Nonce,
    /// What was said by the change before this page.
    pub(super) said: Option<Arc<str>>,
    /// Id of the session.
    pub(super) id: Uuid,
    /// Host by which the browser reaches the manager.
    pub(super) host: Arc<str>,
    pub(super) console: Console,
}

impl Session {
    /// Whether the person has the right.
    pub(super) fn may(&self, right: Right) -> bool {
        self.who.rights.iter().any(|has| has == right.as_str())
    }

    /// Whether deliveries are frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.console.engine.frozen.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.console.engine.clock.now()
    }

    /// The address at which the browser reaches the manager.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.console.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }
}

impl FromRequestParts<Console> for Session {
    type Rejection = PageFailure;

    async fn from_request_parts(parts: &mut Parts, _: &Console) -> Result<Self, PageFailure> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| PageFailure::system("the page has no session"))
    }
}

/// A form that a person sent, with its token checked.
pub(super) struct SentForm(Vec<(String, String)>);

impl SentForm {
    /// Value of a field; empty if it was not sent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str())
    }

    /// Value of a field without blanks around it; `None` if it is empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        Some(self.get(name).trim()).filter(|value| !value.is_empty())
    }

    /// All fields with their values.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl FromRequest<Console> for SentForm {
    type Rejection = PageFailure;

    async fn from_request(request: Request, console: &Console) -> Result<Self, PageFailure> {
        let (parts, body) = request.into_parts();
        let session = parts.extensions.get::<Session>().cloned();
        let session = session.ok_or_else(|| PageFailure::system("the form has no session"))?;
        refuse_other_sites(&parts.headers)?;
        let form = Self(fields(body, MAX_FORM, &console.people).await?);
        if console.forms.is_right(session.id, form.get(FORM_TOKEN)) {
            return Ok(form);
        }
        Err(PageFailure::new(StatusCode::FORBIDDEN, "The form belongs to another session. Open the page again."))
    }
}

/// Refuses a form that the browser says another site has sent. A browser says so by `Sec-Fetch-Site`, or over plain
/// HTTP and if it is an old one by `Origin`.
pub(super) fn refuse_other_sites(headers: &HeaderMap) -> Result<(), PageFailure> {
    let is_own = match headers.get(FETCH_SITE).map(HeaderValue::as_bytes) {
        Some(site) => site == b"same-origin" || site == b"none",
        None => headers.get(ORIGIN).is_none_or(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            origin.split_once("://").map(|(_, host)| host) == host
        }),
    };
    if is_own {
        return Ok(());
    }
    Err(PageFailure::new(StatusCode::FORBIDDEN, "Another site sent this form, so it was not carried out."))
}

/// The fields of a form's body of at most `limit` bytes, with memory of `budget`.
///
/// # Errors
/// As [`Payload::read`].
pub(super) async fn fields(
    body: Body,
    limit: usize,
    budget: &MemoryBudget,
) -> Result<Vec<(String, String)>, PageFailure> {
    let payload = Payload::read(Request::new(body), limit, budget).await.map_err(|error| {
        let problem = error.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
        PageFailure::new(status, problem.detail)
    })?;
    let pairs = form_urlencoded::parse(&payload.bytes).into_owned();
    // A text field sends its lines so.
    Ok(pairs.map(|(name, value)| (name, value.replace("\r\n", "\n"))).collect())
}

/// Names of the cookies: browsers accept those with the prefix only over TLS, for this host alone.
pub(super) struct Cookies {
    is_tls: bool,
}

impl Cookies {
    pub(super) const fn new(is_tls: bool) -> Self {
        Self { is_tls }
    }

    fn name(&self, word: &str) -> String {
        let prefix = if self.is_tls { "__Host-" } else { "" };
        format!("{prefix}riposte_{word}")
    }

    /// A cookie that no script can read, for `secs` seconds.
    pub(super) fn set(&self, word: &str, value: &str, secs: u64) -> Option<HeaderValue> {
        let secure = if self.is_tls { "; Secure" } else { "" };
        let name = self.name(word);
        HeaderValue::from_str(&format!("{name}={value}; Path=/; Max-Age={secs}; HttpOnly; SameSite=Lax{secure}")).ok()
    }

    /// The value that the browser sent.
    pub(super) fn sent<'a>(&self, headers: &'a HeaderMap, word: &str) -> Option<&'a str> {
        let name = self.name(word);
        let sent = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs = sent.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(sent, _)| *sent == name).map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    /// Gives the browser the tokens of a session.
    pub(super) fn begin(&self, tokens: &IssuedToken, now: Timestamp, response: &mut Response) {
        let left = tokens.refresh_expires_at.since(now).as_secs();
        let set = [
            self.set("access", &tokens.access_token, tokens.expires_in),
            self.set("refresh", &tokens.refresh_token, left),
        ];
        for cookie in set.into_iter().flatten() {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// Takes the session from the browser.
    pub(super) fn end(&self, response: &mut Response) {
        for cookie in ["access", "refresh"].into_iter().filter_map(|word| self.set(word, "", 0)) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}
