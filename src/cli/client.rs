//! The client of a running manager, over the public API.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Once, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use reqwest::header::{IF_MATCH, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::contexts::{self, CliSession, Contexts, ManagerContext};
use super::output::{complain, say};
use super::reply::{self, HTTPS_HINT, Pending, Reply, is_https_refusal, stranger};
use super::terminal::plain;
use super::{keyfiles, unreachable};
use crate::domain::api_key;
use crate::views::auth::AskToken;
use crate::views::page::Page;

/// Maximum silence of the manager.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a response after which a hint is printed.
const HINT_AFTER: Duration = Duration::from_secs(5);
/// Time limit of the readiness check, which itself takes at most 2 seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum silence while the manager reads a whole audit log: slightly longer than its own limit.
pub(super) const LONG_TIMEOUT: Duration = Duration::from_mins(11);

/// Where a manager on this host listens.
const LOCAL: &str = "http://127.0.0.1:8480";

/// A request without a body.
pub const NO_BODY: Option<&()> = None;

/// The manager, and the credential.
#[derive(Clone, Debug, Default, Args)]
pub struct Remote {
    /// URL of the manager; by default that of the context, or that of this host without one.
    #[arg(long, env = "RIPOSTE_MANAGER")]
    manager: Option<String>,
    /// Context that names the manager and holds the session; by default the current one (`riposte context`).
    #[arg(long, env = "RIPOSTE_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// File with an API key, such as `DATA_DIR/admin.key`.
    #[arg(long, env = "RIPOSTE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// File with the authority of the manager's certificate in PEM, trusted instead of the system's.
    #[arg(long, env = "RIPOSTE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// API key; environment variable only, because other users can see arguments.
    #[arg(long, env = "RIPOSTE_KEY", hide = true)]
    key: Option<String>,
    #[arg(skip)]
    target: OnceLock<Target>,
}

/// The manager that a command talks to, and with what.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its URL, without a slash at the end.
    pub(super) manager: String,
    /// File with the authority of its certificate.
    pub(super) ca: Option<PathBuf>,
    /// Name of its context, if it has one.
    pub(super) context: Option<String>,
    credential: Credential,
}

#[derive(Clone, Debug)]
enum Credential {
    Key {
        key: String,
        place: String,
    },
    KeyFile(PathBuf),
    /// The session in the context of that name.
    Session(String),
    None,
}

impl Remote {
    /// The manager at `manager`, with the key in `key_file`.
    pub fn to(manager: &str, key_file: PathBuf) -> Self {
        Self { manager: Some(manager.to_owned()), key_file: Some(key_file), ..Self::default() }
    }

    /// What the arguments and the contexts say together. A context's credential goes to the
    /// context's manager only.
    ///
    /// # Errors
    /// If a context is needed and cannot be read, or does not exist; or the URL is not one.
    pub(super) fn target(&self) -> anyhow::Result<&Target> {
        if let Some(target) = self.target.get() {
            return Ok(target);
        }
        let given = match (&self.key, &self.key_file) {
            (Some(key), _) => Credential::Key { key: key.trim().to_owned(), place: "RIPOSTE_KEY".to_owned() },
            (None, Some(path)) => Credential::KeyFile(path.clone()),
            (None, None) => Credential::None,
        };
        // A key that is given belongs to the manager that is named, or to that of this host: it is not sent to the
        // manager of whatever context is the current one.
        let needs_none = !matches!(given, Credential::None) && self.context.is_none();
        let contexts = if needs_none { Contexts::default() } else { Contexts::read()? };
        let found = match (&self.context, &self.manager) {
            (Some(name), _) => Some((name.as_str(), contexts.named(name)?)),
            (None, Some(manager)) => contexts.of_manager(manager.trim()),
            (None, None) => contexts.current()?,
        };
        let of_context = found.map(|(_, context)| context.manager.as_str());
        let manager = Self::checked(self.manager.as_deref().or(of_context).unwrap_or(LOCAL))?;
        if let (Some(name), Some(other)) = (&self.context, of_context)
            && Self::checked(other)? != manager
        {
            bail!("the context {name} is of {other}, not of {manager}: its session is not sent there");
        }
        let credential = match (given, found) {
            (Credential::None, Some((name, ManagerContext { session: Some(_), .. }))) => {
                Credential::Session(name.to_owned())
            }
            (Credential::None, Some((_, ManagerContext { key_file: Some(path), .. }))) => {
                Credential::KeyFile(path.clone())
            }
            (given, _) => given,
        };
        let ca = self.ca.clone().or_else(|| found.and_then(|(_, context)| context.ca.clone()));
        let context = found.map(|(name, _)| name.to_owned());
        Ok(self.target.get_or_init(|| Target { manager, ca, context, credential }))
    }

    /// The URL of a manager without a slash at its end, if it is valid.
    ///
    /// # Errors
    /// If it is not a URL of HTTP.
    pub(super) fn checked(manager: &str) -> anyhow::Result<String> {
        let manager = manager.trim().trim_end_matches('/');
        match manager.split_once("://") {
            Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                Ok(manager.to_owned())
            }
            Some(_) => bail!("{manager} has an unsupported scheme: write http:// or https://"),
            None => bail!("{manager} has no scheme: write http:// or https:// before it, such as http://{manager}"),
        }
    }

    /// URL of the manager, and the file with the authority of its certificate.
    ///
    /// # Errors
    /// As [`Remote::target`].
    pub(super) fn place(&self) -> anyhow::Result<(String, Option<PathBuf>)> {
        let target = self.target()?;
        Ok((target.manager.clone(), target.ca.clone()))
    }

    /// URL of the manager, for messages.
    fn manager(&self) -> anyhow::Result<&str> {
        Ok(&self.target()?.manager)
    }

    /// What a GET of `path` returns.
    ///
    /// # Errors
    /// If the manager cannot be reached or refuses, or if its answer does not fit.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(Method::GET, path, None, NO_BODY).await?.done()
    }

    /// What a POST of `body` to `path` returns.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.send(Method::POST, path, None, Some(body)).await?.done()
    }

    /// A client that keeps its connections, and the manager's URL, for programs that send many requests.
    ///
    /// # Errors
    /// If the URL or the authority is wrong.
    pub(super) fn connection(&self, silence: Duration) -> anyhow::Result<(Client, &str)> {
        let client = self.client(|builder| builder.connect_timeout(CONNECT_TIMEOUT).read_timeout(silence))?;
        Ok((client, self.manager()?))
    }

    /// The credential of a request: a key, or the access token of a session.
    pub(super) async fn bearer(&self) -> anyhow::Result<String> {
        let (key, place) = match &self.target()?.credential {
            Credential::Session(context) => {
                return contexts::access_token(context, async |session| self.refreshed(session).await).await;
            }
            Credential::Key { key, place } => (key.clone(), place.clone()),
            Credential::KeyFile(path) => {
                let place = path.display().to_string();
                (key_file(path).with_context(|| format!("the key file {place}"))?, place)
            }
            Credential::None => bail!(
                "no credential for {}: `riposte login`, --key-file DATA_DIR/admin.key, or RIPOSTE_KEY",
                self.manager()?
            ),
        };
        // A key that is not a valid header value would fail without naming the key.
        match api_key::form_fault(&key) {
            Some(why) if !key.bytes().all(|byte| byte.is_ascii_graphic()) || key.is_empty() => bail!("{place}: {why}"),
            _ => Ok(key),
        }
    }

    /// The next session for the present one.
    async fn refreshed(&self, session: &CliSession) -> anyhow::Result<CliSession> {
        let asked = AskToken { refresh_token: Some(session.refresh_token.clone()), ..AskToken::default() };
        let reply = self.post_unsigned("/v1/auth/token", &asked).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            bail!("the session of {} at {} has ended: `riposte login`", session.username, self.manager()?);
        }
        Ok(CliSession::new(session.username.clone(), reply.done()?))
    }

    /// The same manager with a credential that needs no request: a key, or the access token of a session while it is valid.
    /// A session is not renewed: that must not be cut short.
    pub(super) fn without_refresh(&self) -> Option<Self> {
        let Target { manager, ca, credential, .. } = self.target().ok()?;
        let key = match credential {
            Credential::Key { key, .. } => key.clone(),
            Credential::KeyFile(path) => std::fs::read_to_string(path).ok()?.trim().to_owned(),
            Credential::Session(context) => Contexts::read().ok()?.fresh_token(context).ok()??,
            Credential::None => return None,
        };
        Some(Self { manager: Some(manager.clone()), ca: ca.clone(), key: Some(key), ..Self::default() })
    }

    /// Whether the caller named a key or a context. If not, a command that can do without a manager
    /// contacts none, whatever the current context is.
    pub const fn is_named(&self) -> bool {
        self.key.is_some() || self.key_file.is_some() || self.context.is_some()
    }

    /// A request that is not sent yet. Its time limit applies to silence, not to the whole
    /// response.
    ///
    /// # Errors
    /// If there is no credential.
    pub async fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        self.request_within(TIMEOUT, method, path).await
    }

    /// As [`Remote::request`], with a longer silence.
    ///
    /// # Errors
    /// If there is no credential.
    pub(super) async fn request_within(
        &self,
        silence: Duration,
        method: Method,
        path: &str,
    ) -> anyhow::Result<RequestBuilder> {
        Ok(self.unsigned(silence, method, path)?.bearer_auth(self.bearer().await?))
    }

    fn unsigned(&self, silence: Duration, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let url = format!("{}{path}", self.manager()?);
        let (client, _) = self.connection(silence)?;
        Ok(client.request(method, &url))
    }

    /// Posts `body` to `path` without a credential: the body holds one.
    ///
    /// # Errors
    /// As [`Remote::send`].
    pub(super) async fn post_unsigned(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Reply> {
        let request = self.unsigned(TIMEOUT, Method::POST, path)?.json(body);
        Reply::read(self.start(request).await?).await
    }

    /// What a GET of `path` without a credential returns.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub(super) async fn get_unsigned<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.unsigned(TIMEOUT, Method::GET, path)?;
        Reply::read(self.start(request).await?).await?.done()
    }

    /// Why the manager would not answer a browser's GET of `path` by a redirect, if so.
    ///
    /// # Errors
    /// If the manager cannot be reached.
    pub(super) async fn redirects(&self, path: &str) -> anyhow::Result<Option<String>> {
        let manager = self.manager()?;
        let answer = self.unsigned(TIMEOUT, Method::GET, path)?.send().await;
        let response = answer.map_err(|error| anyhow::anyhow!(unreachable::words(manager, &error, TIMEOUT)))?;
        if response.status().is_redirection() {
            return Ok(None);
        }
        let operation = format!("GET {}", response.url().path());
        let refused = Reply::read(Pending { response, operation }).await?.refused();
        Ok(Some(refused.unwrap_or_else(|| stranger(manager, "it sends the browser nowhere"))))
    }

    /// Sends `method` on `path`; `version` is sent as `If-Match`. An error status is a result, not
    /// an error.
    ///
    /// # Errors
    /// If the manager cannot be reached, or the response cannot be read.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        version: Option<i64>,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<Reply> {
        let mut request = self.request(method, path).await?;
        if let Some(version) = version {
            request = request.header(IF_MATCH, format!("\"{version}\""));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Reply::read(self.start(request).await?).await
    }

    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// If the manager cannot be reached.
    pub async fn start(&self, request: RequestBuilder) -> anyhow::Result<Pending> {
        let manager = self.manager()?;
        let (client, request) = request.build_split();
        let unsent = |error| anyhow::anyhow!(unreachable::words(manager, &error, TIMEOUT));
        let request = request.map_err(unsent)?;
        let operation = format!("{} {}", request.method(), request.url().path());
        let mut answer = std::pin::pin!(client.execute(request));
        let early = tokio::time::timeout(HINT_AFTER, &mut answer).await;
        let answer = match early {
            Ok(answer) => answer,
            Err(_) => {
                if let Some(why) = self.not_ready().await? {
                    complain(&format!("riposte: no answer within {} s; {why}. Still waiting", HINT_AFTER.as_secs()));
                }
                answer.await
            }
        };
        let answer = answer.map_err(|error| {
            let silence = if error.is_connect() { CONNECT_TIMEOUT } else { TIMEOUT };
            anyhow::anyhow!(unreachable::words(manager, &error, silence))
        })?;
        if let Some(why) = redirect(manager, &answer) {
            bail!("{why}, and the credential is not sent there: use the final address");
        }
        Ok(Pending { response: answer, operation })
    }

    /// An HTTP client that trusts the authority of `--ca`, or the system's, and follows no redirects.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    fn client(&self, with: impl Fn(ClientBuilder) -> ClientBuilder) -> anyhow::Result<Client> {
        let builder = || with(Client::builder().redirect(Policy::none()));
        let Some(path) = &self.target()?.ca else {
            // A system without authorities can still reach a manager over plain HTTP.
            return Ok(builder().build().or_else(|_| builder().tls_certs_only([]).build())?);
        };
        let place = path.display();
        let pem = std::fs::read(path).with_context(|| format!("cannot read the authority in {place}"))?;
        let authority = Certificate::from_pem_bundle(&pem).with_context(|| format!("{place} is not PEM"))?;
        ensure!(!authority.is_empty(), "{place} holds no certificate");
        Ok(builder().tls_certs_only(authority).build()?)
    }

    /// The manager's readiness problems, or that no manager answers; `None` if it is ready.
    ///
    /// # Errors
    /// If the response is not a readiness report.
    async fn not_ready(&self) -> anyhow::Result<Option<String>> {
        let manager = self.manager()?;
        let url = format!("{manager}/readyz");
        let client = self.client(|builder| builder.timeout(READY_TIMEOUT))?;
        let answer = client.get(&url).send().await;
        let answer = answer.map_err(|error| anyhow::anyhow!(unreachable::words(manager, &error, READY_TIMEOUT)))?;
        if let Some(why) = redirect(manager, &answer) {
            return Ok(Some(format!("{why}: use the final address")));
        }
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap_or_default();
        if status.is_success() && bytes.trim_ascii() == b"ok" {
            return Ok(None);
        }
        if is_https_refusal(status, &bytes) {
            bail!(HTTPS_HINT);
        }
        Ok(Some(match serde_json::from_slice(&bytes).ok().and_then(|body| reply::problem(&body)) {
            Some(problem) => format!("not ready: {}", problem.detail),
            None => stranger(manager, &status.to_string()),
        }))
    }

    /// Every item of the list at `path`, page by page.
    ///
    /// # Errors
    /// If a page cannot be read.
    pub async fn items<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let first = format!("{path}{}limit=500", if path.contains('?') { '&' } else { '?' });
        let (mut items, mut next) = (Vec::new(), first.clone());
        loop {
            let page: Page<T> = self.get(&next).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(cursor) => next = format!("{first}&cursor={cursor}"),
                None => return Ok(items),
            }
        }
    }
}

/// The target of a redirect, in words.
fn redirect(manager: &str, answer: &Response) -> Option<String> {
    let to = || {
        let to = answer.headers().get(LOCATION)?;
        Some(String::from_utf8_lossy(to.as_bytes()).escape_debug().to_string())
    };
    let is_redirect = answer.status().is_redirection();
    let to = is_redirect.then(|| to().unwrap_or_else(|| "an address that it does not name".into()))?;
    Some(format!("{manager} redirects to {to}"))
}

/// Escapes a path segment or query value.
pub fn segment(word: &str) -> String {
    let mut encoded = String::with_capacity(word.len());
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(["%", &format!("{byte:02X}")]);
        }
    }
    encoded
}

/// Reads the key in a file.
fn key_file(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            // Once, though it is read for every request.
            static WARNED: Once = Once::new();
            if let Some(exposed) = std::fs::metadata(path).ok().and_then(|file| keyfiles::exposed(path, &file)) {
                WARNED.call_once(|| complain(&format!("riposte: warning: {exposed}")));
            }
            Ok(text.trim().to_owned())
        }
        Err(error) => match error.kind() {
            ErrorKind::NotFound => bail!("is not there; the manager makes DATA_DIR/admin.key at its first start"),
            ErrorKind::PermissionDenied => bail!("may not be read by this user; use its owner's account, or sudo"),
            ErrorKind::IsADirectory => bail!("is a folder; name the file in it, such as admin.key"),
            _ => Err(error.into()),
        },
    }
}

/// `riposte status`
pub async fn status(remote: Remote) -> anyhow::Result<ExitCode> {
    let (line, code) = match remote.not_ready().await {
        Ok(None) => ("ready".to_owned(), ExitCode::SUCCESS),
        Ok(Some(why)) => (why, ExitCode::FAILURE),
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    say(&plain(&line));
    Ok(code)
}
