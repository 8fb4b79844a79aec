//! Enrolment: the agent makes its key, shows the public half and a token to the manager, and keeps what it is told. It
//! happens once; an enrolled state directory is never overwritten.

use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::LOCATION;
use riposte_protocol::jws;
use riposte_protocol::message::{Capability, EnrollRequest, EnrollResponse};
use riposte_protocol::visible::is_hidden;

use crate::identity::{self, Enrolment, IdentityError};
use crate::journal::{self, Book, JournalError, Ledger};
use crate::manager_url::{self, UrlError};
use crate::{durable, platform, unreachable};

/// How long the manager may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the agent was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// It is already.
    #[error("this agent is already enrolled: {directory} holds its identity; {hint}")]
    Already {
        /// Its state directory.
        directory: String,
        /// What has to be done before it can be enrolled anew.
        hint: String,
    },
    /// The manager's address, or one that it names, must not be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The port speaks the other one of http and https.
    #[error("{url} cannot be spoken to: this port speaks {speaks}; write {speaks}:// instead")]
    Scheme {
        /// What was given.
        url: String,
        /// What is spoken there.
        speaks: &'static str,
    },
    /// The address leads elsewhere, and a token is not shown to whomever an answer names.
    #[error("{url} redirects to {to}, and the token is not sent on: enrol at the address that is meant")]
    Redirect {
        /// What was given.
        url: String,
        /// Where it leads.
        to: String,
    },
    /// The authority cannot be used.
    #[error(transparent)]
    Ca(crate::tls::CaError),
    /// The state directory cannot be made.
    #[error("cannot create the state directory {path}")]
    Directory {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key or the identity cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal cannot be begun.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The manager cannot be spoken to, for a reason that is known.
    #[error("{0}")]
    Unspoken(String),
    /// The manager cannot be reached.
    #[error("cannot reach the manager")]
    Unreachable(#[source] reqwest::Error),
    /// The manager said no.
    #[error("the manager did not enrol this agent ({status}): {detail}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// Why, in its own words.
        detail: String,
    },
    /// The manager's answer is not what it should be.
    #[error("the manager's answer cannot be used: {0}")]
    Answer(String),
}

/// How an agent is to be enrolled.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnrollOptions {
    /// The manager revokes the agent that this host had before, and applies again here what is in force there.
    pub replace: bool,
    /// Plain HTTP over a network is not refused.
    pub insecure_http: bool,
}

/// Enrols this agent as `name` at `manager` and keeps its identity in `state_dir`. With `ca`, in PEM, only that
/// authority is believed to certify the manager, now and later.
///
/// # Errors
/// When it is enrolled already, the manager cannot be reached or refuses, or the identity cannot be kept.
pub async fn enroll(
    manager: &str,
    token: String,
    name: &str,
    state_dir: &Path,
    capabilities: Vec<Capability>,
    ca: Option<&[u8]>,
    options: EnrollOptions,
) -> Result<Enrolment, EnrollError> {
    if identity::is_enrolled(state_dir) {
        return Err(already(state_dir));
    }
    let manager = manager_url::typed(manager)?;
    // Before the token leaves this host.
    manager_url::check(manager, [], options.insecure_http)?;
    crate::tls::config(ca).map_err(EnrollError::Ca)?;
    durable::create_directory(state_dir)
        .map_err(|source| EnrollError::Directory { path: state_dir.display().to_string(), source })?;
    // The key is on disk before the manager learns of it: an answer that nobody can use any more would cost a token.
    let key = identity::create_key(state_dir)?;
    let request = EnrollRequest {
        token,
        name: name.into(),
        public_key: jws::public_key_text(&key.verifying_key()),
        platform: platform::describe(),
        version: env!("CARGO_PKG_VERSION").into(),
        capabilities,
        replace: options.replace,
    };
    let answer = post(&format!("{manager}/v1/agents/enroll"), &request, ca).await?;
    identity::pin(&answer.manager_keys).map_err(|error| EnrollError::Answer(error.to_string()))?;
    let enrolment = Enrolment {
        agent_id: answer.agent_id,
        name: name.into(),
        manager: manager.into(),
        manager_keys: answer.manager_keys,
        stream_url: answer.stream_url,
        poll_url: answer.poll_url,
        insecure_http: options.insecure_http && !manager_url::is_protected(manager),
    };
    enrolment.check_transport(options.insecure_http)?;
    Book::begin(&state_dir.join("journal"))?;
    identity::save(state_dir, &enrolment, ca)?;
    Ok(enrolment)
}

/// Another state directory is one more agent on this host: what the first one holds stays in force and is forgotten with it.
fn already(state_dir: &Path) -> EnrollError {
    let directory = state_dir.display().to_string();
    let held = journal::read(&state_dir.join("journal")).map(|contents| Ledger::of(contents.records).held().count());
    let hint = match held {
        Ok(0) => "to enrol it anew, give another state directory or remove that one".to_owned(),
        Ok(held) => {
            let effects = if held == 1 { "1 effect".to_owned() } else { format!("{held} effects") };
            format!(
                "it holds {effects}: lift them first with `riposte-agent release --state-dir {directory}`, then remove that directory \
                 and enrol anew"
            )
        }
        Err(error) => format!(
            "what it holds is not known ({}): look at what is in force on this host before you remove that directory",
            crate::telemetry::chain(&error)
        ),
    };
    EnrollError::Already { directory, hint }
}

async fn post(url: &str, request: &EnrollRequest, ca: Option<&[u8]>) -> Result<EnrollResponse, EnrollError> {
    let client = crate::tls::client(ca, |builder| builder.timeout(TIMEOUT)).map_err(EnrollError::Unreachable)?;
    let sent = client.post(url).json(request).send().await;
    let answer = sent.map_err(|error| match scheme_spoken(url, &error) {
        Some(speaks) => EnrollError::Scheme { url: url.into(), speaks },
        None => match unreachable::words(url, &crate::telemetry::chain(&error)) {
            Some(words) => EnrollError::Unspoken(words),
            None => EnrollError::Unreachable(error),
        },
    })?;
    let status = answer.status();
    if status.is_redirection() {
        let to = answer.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        let to = printable(&to.unwrap_or_else(|| "an address that it does not name".into()));
        return Err(EnrollError::Redirect { url: url.into(), to });
    }
    let body = answer.bytes().await.map_err(EnrollError::Unreachable)?;
    if status == StatusCode::BAD_REQUEST && is_plain_at_https_port(&body) {
        return Err(EnrollError::Scheme { url: url.into(), speaks: "https" });
    }
    if status != StatusCode::CREATED {
        return Err(EnrollError::Refused { status, detail: problem(&body) });
    }
    serde_json::from_slice(&body).map_err(|error| EnrollError::Answer(error.to_string()))
}

/// What is spoken at a port where `error` shows that it is not what the URL says.
fn scheme_spoken(url: &str, error: &reqwest::Error) -> Option<&'static str> {
    let chain = crate::telemetry::chain(error);
    match url.split_once("://")?.0.to_ascii_lowercase().as_str() {
        // What rustls makes of an HTTP answer, and hyper of a TLS alert.
        "https" if chain.contains("InvalidContentType") => Some("http"),
        "http" if chain.contains("invalid HTTP version") => Some("https"),
        _ => None,
    }
}

/// Whether a server's complaint is that it was spoken to without TLS: nginx's and Go's words.
fn is_plain_at_https_port(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("plain HTTP request was sent to HTTPS port") || text.contains("HTTP request to an HTTPS server")
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).take(500).collect()
}

/// What a problem document (RFC 9457) says, made fit for a terminal.
fn problem(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("it gave no reason");
    printable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_managers_words() {
        assert_eq!(
            problem(br#"{"title":"Unauthorized","detail":"the token\u202e has\u001b expired"}"#),
            "the token has expired"
        );
        assert_eq!(problem(br#"{"title":"Unauthorized"}"#), "Unauthorized");
        assert_eq!(problem(b"<html>"), "it gave no reason");
    }

    #[tokio::test]
    async fn an_enrolled_agent_is_not_enrolled_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("agent.json"), "{}").unwrap();
        let error =
            enroll("http://localhost", "t".into(), "n", directory.path(), vec![], None, EnrollOptions::default())
                .await
                .unwrap_err();
        assert!(matches!(error, EnrollError::Already { .. }), "{error}");
        assert!(error.to_string().ends_with("give another state directory or remove that one"), "{error}");
        // What cannot be read may hold something.
        std::fs::create_dir(directory.path().join("journal")).unwrap();
        let error = already(directory.path()).to_string();
        assert!(error.contains("what it holds is not known (") && !error.contains("give another"), "{error}");
    }
}
