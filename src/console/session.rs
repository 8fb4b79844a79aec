//! Who looks at a page: the person's session, in two cookies that no script can read. They hold what
//! `POST /v1/auth/token` gives a program: an access token, and the refresh token for the next one.
//! Every form carries a token of the session, so that no other site can send one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::header::{COOKIE, HOST, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte_protocol::time::Timestamp;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Console;
use super::client::{ApiClient, Trouble};
use super::login;
use super::shell::{Failure, Nonce};
use crate::domain::ledger_key::{LEDGER_KEY_BYTES, LedgerKey, LedgerKeyError};
use crate::domain::right::Right;
use crate::engine::secrets::hash_secret;
use crate::views::auth::{AskToken, IssuedToken, WhoAmI};

/// What the key of form tokens is derived for.
const PURPOSE: &str = "console forms";
/// The field of a form that holds its token.
pub(super) const FORM_TOKEN: &str = "form_token";
/// Largest form: a policy document with room to spare.
const MAX_FORM: usize = 4 * 1024 * 1024;
/// How long the answer to a refresh is kept for requests of the same browser that ran at the same
/// time.
const KEPT_FOR: Duration = Duration::from_secs(20);
/// Headers of a request that say which site sent it.
const FETCH_SITE: &str = "sec-fetch-site";

/// Makes and checks the tokens of forms.
pub(crate) struct FormTokens(hmac::Key);

impl FormTokens {
    /// Tokens under this ledger key: every manager of a ledger accepts them.
    ///
    /// # Errors
    /// If the library refuses.
    pub(super) fn new(key: &LedgerKey) -> Result<Self, LedgerKeyError> {
        let bytes: [u8; LEDGER_KEY_BYTES] = key.derive(PURPOSE)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    pub(super) fn token(&self, session: Uuid) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, session.as_bytes()).as_ref())
    }

    fn is_right(&self, session: Uuid, token: &str) -> bool {
        let sent = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        hmac::verify(&self.0, session.as_bytes(), &sent).is_ok()
    }
}

/// Answers to refreshes, by the hash of the token that was used up. A browser sends several requests
/// at once, and a refresh token is valid once.
#[derive(Default)]
pub(crate) struct Refreshes(Mutex<HashMap<Vec<u8>, (Instant, Arc<IssuedToken>)>>);

impl Refreshes {
    /// The tokens after `refresh`.
    async fn next(&self, api: &ApiClient, refresh: &str) -> Result<Arc<IssuedToken>, Trouble> {
        let mut kept = self.0.lock().await;
        kept.retain(|_, (at, _)| at.elapsed() < KEPT_FOR);
        let hash = hash_secret(refresh);
        if let Some((_, tokens)) = kept.get(&hash) {
            return Ok(Arc::clone(tokens));
        }
        let asked = AskToken { refresh_token: Some(refresh.to_owned()), ..AskToken::default() };
        let tokens: Arc<IssuedToken> = Arc::new(api.post("/v1/auth/token", &asked).await?);
        kept.insert(hash, (Instant::now(), Arc::clone(&tokens)));
        Ok(tokens)
    }
}

/// The person who looks, and the API with the person's session.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) api: ApiClient,
    pub(super) who: Arc<WhoAmI>,
    /// The token of this session's forms.
    pub(super) form_token: Arc<str>,
    pub(super) nonce: Nonce,
    /// Path and query of the request.
    pub(super) place: Arc<str>,
    /// What was said by the change before this page.
    pub(super) said: Option<Arc<str>>,
    id: Uuid,
    host: Arc<str>,
    console: Console,
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

    pub(super) const fn console(&self) -> &Console {
        &self.console
    }
}

impl FromRequestParts<Console> for Session {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Console) -> Result<Self, Failure> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Failure::system("the page has no session"))
    }
}

/// A form that a person sent, with its token checked.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
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

impl FromRequest<Console> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let session = parts.extensions.get::<Session>().cloned();
        let session = session.ok_or_else(|| Failure::system("the form has no session"))?;
        refuse_other_sites(&parts.headers)?;
        let form = Self(fields(body).await?);
        if console.forms.is_right(session.id, form.get(FORM_TOKEN)) {
            return Ok(form);
        }
        Err(Failure::new(StatusCode::FORBIDDEN, "The form belongs to another session. Open the page again."))
    }
}

/// Refuses a form that the browser says another site has sent.
pub(super) fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(FETCH_SITE).map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Failure::new(StatusCode::FORBIDDEN, "Another site sent this form, so it was not carried out.")),
    }
}

/// The fields of a form's body.
pub(super) async fn fields(body: Body) -> Result<Vec<(String, String)>, Failure> {
    let bytes = to_bytes(body, MAX_FORM).await;
    let bytes = bytes.map_err(|_| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "The form is larger than 4 MiB."))?;
    let pairs = form_urlencoded::parse(&bytes).into_owned();
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

/// Lets a request through with the person's session; without one it answers with the login page.
pub(super) async fn require(State(console): State<Console>, mut request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let cookies = Cookies::new(console.is_tls);
    let found = match find(&console, &mut parts, &cookies).await {
        Ok(found) => found,
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
) -> Result<Option<(Session, Option<Arc<IssuedToken>>)>, Failure> {
    let api = ApiClient::new(console.api.clone(), parts);
    let now = console.engine.clock.now();
    let mut refreshed = None;
    let access = match cookies.sent(&parts.headers, "access") {
        Some(token) if console.engine.access_tokens.verify(token, now).is_ok() => token.to_owned(),
        _ => {
            let Some(refresh) = cookies.sent(&parts.headers, "refresh") else { return Ok(None) };
            match console.refreshes.next(&api, refresh).await {
                Ok(tokens) => refreshed.insert(tokens).access_token.clone(),
                Err(trouble) if trouble.status() == StatusCode::UNAUTHORIZED => return Ok(None),
                // Another manager has just refreshed it: the browser has the new cookies, and comes again with them.
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
    let said = cookies.sent(&parts.headers, "said");
    let said = said.map(|said| percent_encoding::percent_decode_str(said).decode_utf8_lossy().as_ref().into());
    let nonce = parts.extensions.get::<Nonce>().cloned().unwrap_or_default();
    let place = parts.uri.path_and_query().map_or("/", |place| place.as_str()).into();
    let form_token = console.forms.token(claims.sid).into();
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost").into();
    let (who, id, console) = (Arc::new(who), claims.sid, console.clone());
    Ok(Some((Session { api, who, form_token, nonce, place, said, id, host, console }, refreshed)))
}

/// The login page. What a form held is kept in it, so that nothing that was typed is lost.
async fn without_session(console: &Console, parts: Parts, body: Body) -> Response {
    let place = parts.uri.path_and_query().map_or("/", |place| place.as_str());
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return Redirect::to(&login::path_before(place)).into_response();
    }
    // Browsers send no cookie with a form of another site. Its fields must not be kept for the next login.
    let kept = match refuse_other_sites(&parts.headers) {
        Ok(()) => fields(body).await,
        Err(failure) => Err(failure),
    };
    let kept = match kept {
        Ok(fields) => fields,
        Err(failure) => return failure.into_response(),
    };
    let kept = kept.into_iter().filter(|(name, _)| name != FORM_TOKEN).collect();
    login::expired(console, &parts, place, kept).await
}
