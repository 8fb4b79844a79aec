//! The client of a running manager, over the public API.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::header::{IF_MATCH, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use riposte_protocol::PROBLEM;
use serde_json::Value;

use super::terminal::plain;
use super::{complain, keyfiles, say, unreachable};
use crate::domain::api_key;

/// Maximum silence of the manager.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a response after which a hint is printed.
const HINT_AFTER: Duration = Duration::from_secs(5);
/// Time limit of the readiness check, which itself takes at most 2 seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum silence while the manager reads a whole audit log: slightly longer than its own limit.
const LONG_TIMEOUT: Duration = Duration::from_mins(11);

/// The manager, and the API key.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// URL of the manager.
    #[arg(long, env = "RIPOSTE_MANAGER", default_value = "http://127.0.0.1:8480")]
    manager: String,
    /// File with an API key, such as `DATA_DIR/admin.key`.
    #[arg(long, env = "RIPOSTE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// API key; environment variable only, because other users can see arguments.
    #[arg(long, env = "RIPOSTE_KEY", hide = true)]
    key: Option<String>,
}

impl Remote {
    /// The manager at `manager`, with the key in `key_file`.
    pub fn to(manager: &str, key_file: PathBuf) -> Self {
        Self { manager: manager.to_owned(), key_file: Some(key_file), key: None }
    }

    /// The response body of a GET of `path`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// The response body of a POST of `body` to `path`.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body)).await
    }

    fn key(&self) -> anyhow::Result<String> {
        let (key, place) = match (&self.key, &self.key_file) {
            (Some(key), _) => (key.trim().to_owned(), "RIPOSTE_KEY".to_owned()),
            (None, Some(path)) => {
                let place = path.display().to_string();
                (key_file(path).with_context(|| format!("the key file {place}"))?, place)
            }
            (None, None) => bail!("an API key is required: --key-file DATA_DIR/admin.key, or RIPOSTE_KEY"),
        };
        // A key that is not a valid header value would fail without naming the key.
        match api_key::form_fault(&key) {
            Some(why) if !key.bytes().all(|byte| byte.is_ascii_graphic()) || key.is_empty() => bail!("{place}: {why}"),
            _ => Ok(key),
        }
    }

    /// Sends `method` on `path`; returns the body of the answer.
    ///
    /// # Errors
    /// If the manager cannot be reached, or refuses.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        self.send(method, path, None, body).await?.done()
    }

    /// Whether an API key was configured. Without one the command does not contact a manager.
    pub fn has_key(&self) -> bool {
        self.key.is_some() || self.key_file.is_some()
    }

    /// A request that is not sent yet. Its time limit applies to silence, not to the whole
    /// response.
    ///
    /// # Errors
    /// If there is no key.
    pub fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        self.request_within(TIMEOUT, method, path)
    }

    fn request_within(&self, silence: Duration, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let url = format!("{}{path}", self.address()?);
        let client = client(|builder| builder.connect_timeout(CONNECT_TIMEOUT).read_timeout(silence))?;
        Ok(client.request(method, &url).bearer_auth(self.key()?))
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
        body: Option<Value>,
    ) -> anyhow::Result<Reply> {
        let mut request = self.request(method, path)?;
        if let Some(version) = version {
            request = request.header(IF_MATCH, format!("\"{version}\""));
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Reply::read(self.start(request).await?).await
    }

    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// If the manager cannot be reached.
    pub async fn start(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let mut answer = std::pin::pin!(request.send());
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
            anyhow::anyhow!(unreachable::words(&self.manager, &error, silence))
        })?;
        if let Some(why) = self.redirect(&answer) {
            bail!("{why}, and the key is not sent there: use the final address");
        }
        Ok(answer)
    }

    /// The target of a redirect, in words.
    fn redirect(&self, answer: &Response) -> Option<String> {
        let to = || {
            let to = answer.headers().get(LOCATION)?;
            Some(String::from_utf8_lossy(to.as_bytes()).escape_debug().to_string())
        };
        let is_redirect = answer.status().is_redirection();
        let to = is_redirect.then(|| to().unwrap_or_else(|| "an address that it does not name".into()))?;
        Some(format!("{} redirects to {to}", self.manager))
    }

    /// The configured URL, if it is valid.
    fn address(&self) -> anyhow::Result<&str> {
        let manager = self.manager.trim().trim_end_matches('/');
        match manager.split_once("://") {
            Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                Ok(manager)
            }
            Some(_) => bail!("{manager} has an unsupported scheme: write http:// or https://"),
            None => bail!("{manager} has no scheme: write http:// or https:// before it, such as http://{manager}"),
        }
    }

    /// The manager's readiness problems, or that no manager answers; `None` if it is ready.
    ///
    /// # Errors
    /// If the response is not a readiness report.
    async fn not_ready(&self) -> anyhow::Result<Option<String>> {
        let url = format!("{}/readyz", self.address()?);
        let client = client(|builder| builder.timeout(READY_TIMEOUT))?;
        let answer = client.get(&url).send().await;
        let answer =
            answer.map_err(|error| anyhow::anyhow!(unreachable::words(&self.manager, &error, READY_TIMEOUT)))?;
        if let Some(why) = self.redirect(&answer) {
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
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Some(match body["detail"].as_str() {
            Some(detail) if is_problem(&body) => format!("not ready: {detail}"),
            _ => stranger(&self.manager, &status.to_string()),
        }))
    }

    /// One page of the list at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is not a list.
    pub async fn page(&self, path: &str) -> anyhow::Result<Value> {
        let page = self.get(path).await?;
        if !page["items"].is_array() {
            bail!(stranger(&self.manager, &format!("its answer to {path} is no list")));
        }
        Ok(page)
    }

    /// Every item of the list at `path`, page by page.
    ///
    /// # Errors
    /// If a page cannot be read.
    pub async fn items(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let first = format!("{path}{}limit=500", if path.contains('?') { '&' } else { '?' });
        let (mut items, mut next) = (Vec::new(), first.clone());
        loop {
            let mut page = self.page(&next).await?;
            if let Value::Array(found) = page["items"].take() {
                items.extend(found);
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("{first}&cursor={cursor}"),
                None => return Ok(items),
            }
        }
    }
}

/// A response of the manager.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    body: Value,
}

impl Reply {
    /// Reads a response to its end.
    ///
    /// # Errors
    /// If it is incomplete, or not a manager's.
    pub async fn read(answer: Response) -> anyhow::Result<Self> {
        let (status, origin) = (answer.status(), answer.url().origin().ascii_serialization());
        let bytes = answer.bytes().await.context("the manager's answer is incomplete")?;
        if is_https_refusal(status, &bytes) {
            bail!(HTTPS_HINT);
        }
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => bail!(stranger(&origin, &format!("it answers {status} and no JSON"))),
        };
        // A manager refuses by a problem document of its own; a proxy or another program does not.
        if !status.is_success() && !is_problem(&body) {
            bail!(stranger(&origin, &format!("it answers {status}")));
        }
        Ok(Self { status, body })
    }

    /// The body of a successful response.
    ///
    /// # Errors
    /// The manager's problem, if the status is an error.
    pub fn done(self) -> anyhow::Result<Value> {
        if self.status.is_success() { Ok(self.body) } else { bail!("{}: {}", self.status, told(&self.body)) }
    }
}

/// Parses JSON of the manager.
///
/// # Errors
/// If it is invalid.
pub fn json(bytes: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(bytes).context("the manager's answer is not JSON")
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

/// Formats a problem for people.
pub fn told(problem: &Value) -> String {
    format!("{}{}", problem["detail"].as_str().unwrap_or("no reason given"), faults(problem))
}

const HTTPS_HINT: &str = "this port speaks https: write https:// before the manager's address";

/// The error that another program answers where a manager should.
fn stranger(manager: &str, what: &str) -> String {
    format!(
        "what answers at {manager} is not a Riposte manager ({what}); check the address, and the proxy if there is one"
    )
}

/// Whether a body is a manager's own problem document (RFC 9457).
fn is_problem(body: &Value) -> bool {
    body["type"].as_str().is_some_and(|word| word.starts_with(PROBLEM))
}

/// Whether a server complains about plain HTTP on its TLS port, in nginx's or Go's words.
fn is_https_refusal(status: StatusCode, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    status == StatusCode::BAD_REQUEST && is_plain_at_https_port(&text)
}

fn is_plain_at_https_port(text: &str) -> bool {
    text.contains("plain HTTP request was sent to HTTPS port") || text.contains("HTTP request to an HTTPS server")
}

/// A client that follows no redirects, because its key is for one manager. Without certificate
/// authorities, as in a slim container, it still supports plain HTTP.
fn client(with: impl Fn(ClientBuilder) -> ClientBuilder) -> reqwest::Result<Client> {
    let builder = || with(Client::builder().redirect(Policy::none()));
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}

/// Reads the key in a file.
fn key_file(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            if let Some(exposed) = std::fs::metadata(path).ok().and_then(|file| keyfiles::exposed(path, &file)) {
                super::complain(&format!("riposte: warning: {exposed}"));
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

fn faults(problem: &Value) -> String {
    let faults = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    faults.iter().map(|fault| format!("\n  {}: {}", text(&fault["pointer"]), text(&fault["detail"]))).collect()
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

/// `riposte audit verify`
pub async fn verify(remote: Remote, json: bool) -> anyhow::Result<ExitCode> {
    let request = remote.request_within(LONG_TIMEOUT, Method::GET, "/v1/audit/verify")?;
    let proof = Reply::read(remote.start(request).await?).await?.done()?;
    let intact = proof["intact"].as_bool();
    let intact = intact.with_context(|| stranger(&remote.manager, "it says nothing of an audit log"))?;
    if json {
        say(&proof.to_string());
    } else if intact {
        say(&format!("intact: {} entries", proof["entries"]));
    } else {
        say(&format!("BROKEN at entry {}: it, or an entry before it, was changed", proof["broken_at"]));
    }
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
