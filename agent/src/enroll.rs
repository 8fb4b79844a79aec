//! Enrolment: the agent makes its key, sends the public half and a token to the manager, and stores
//! the answer. It happens once; an enrolled state directory is never overwritten.

use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::LOCATION;
use riposte_protocol::command::ManagerKey;
use riposte_protocol::enrolment::{EnrolmentToken, EnrolmentTokenError};
use riposte_protocol::key::VerifyingKey;
use riposte_protocol::message::{Capability, EnrollRequest, EnrollResponse, WazuhIdentity};
use riposte_protocol::visible::is_hidden;

use crate::identity::{self, Enrolment, IdentityError};
use crate::journal::{self, Journal, JournalError, JournalState};
use crate::manager_url::{self, UrlError};
use crate::pin::{self, AuthorityError};
use crate::tls::Trust;
use crate::{durable, platform, unreachable};

/// Time limit for the manager's answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the agent was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The agent is already enrolled.
    #[error("this agent is already enrolled: {directory} holds its identity; {hint}")]
    Already {
        /// Its state directory.
        directory: String,
        /// What to do before it can be enrolled again.
        hint: String,
    },
    /// The manager's address, or one in its answer, must not be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The port speaks https where http was tried, or the reverse.
    #[error("{url} cannot be spoken to: this port speaks {speaks}; write {speaks}:// instead")]
    Scheme {
        /// The address that was typed.
        url: String,
        /// The scheme that the port speaks.
        speaks: &'static str,
    },
    /// The address redirects elsewhere, and the token is not sent to the target of a redirect.
    #[error("{url} redirects to {to}, and the token is not sent on: enrol at the manager's own address")]
    Redirect {
        /// The address that was typed.
        url: String,
        /// Target of the redirect.
        to: String,
    },
    /// The certificate authority or the agent's own certificate cannot be used.
    #[error(transparent)]
    Tls(crate::tls::TlsError),
    /// The token is damaged.
    #[error(transparent)]
    Token(#[from] EnrolmentTokenError),
    /// The authority that the token names was not found.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The manager signs with another key than the token names.
    #[error(
        "the manager that answered is not the one that made this token: it signs with another key. No order is \
         accepted here; another program may stand between, and has this token now: delete it at the manager"
    )]
    OtherKey,
    /// The state directory cannot be created.
    #[error("cannot create the state directory {path}")]
    Directory {
        /// Path of the state directory.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The key or the identity cannot be stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal cannot be created.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The manager cannot be spoken to, for a reason that is known.
    #[error("{0}")]
    Unspoken(String),
    /// The manager cannot be reached.
    #[error("cannot reach the manager")]
    Unreachable(#[source] reqwest::Error),
    /// The manager refused the enrolment.
    #[error("the manager did not enrol this agent ({status}): {detail}")]
    Refused {
        /// HTTP status of its answer.
        status: StatusCode,
        /// The reason, in the manager's words.
        detail: String,
    },
    /// The manager's answer does not have the expected form.
    #[error("the manager's answer cannot be used: {0}")]
    Answer(String),
}

/// Options of an enrolment.
#[derive(Clone, Debug, Default)]
pub struct EnrollOptions {
    /// The manager revokes the agent that this host had before, and applies its effects here again.
    pub replace: bool,
    /// Allow plain HTTP over a network.
    pub insecure_http: bool,
    /// Which agent of Wazuh the host says it is.
    pub wazuh: Option<WazuhIdentity>,
}

/// Enrols this agent as `name` at `manager` and stores its identity in `state_dir`. With an
/// authority in `trust`, only that one may certify the manager, now and later; without it, the one
/// that the token names, if it names one.
///
/// # Errors
/// When the agent is already enrolled, the manager cannot be reached or refuses, or the identity
/// cannot be stored.
pub async fn enroll(
    manager: &str,
    token: &str,
    name: &str,
    state_dir: &Path,
    capabilities: Vec<Capability>,
    mut trust: Trust,
    options: EnrollOptions,
) -> Result<Enrolment, EnrollError> {
    if identity::is_enrolled(state_dir) {
        return Err(already(state_dir));
    }
    let manager = manager_url::typed(manager)?;
    // Before the token leaves this host.
    manager_url::check(manager, [], options.insecure_http)?;
    crate::tls::config(&trust).map_err(EnrollError::Tls)?;
    let pins = EnrolmentToken::parse(token)?;
    if let (None, Some(authority), true) = (&trust.ca, pins.authority, manager_url::is_encrypted(manager)) {
        trust.ca = Some(pin::authority(manager, authority).await?);
    }
    durable::create_directory(state_dir)
        .map_err(|source| EnrollError::Directory { path: state_dir.display().to_string(), source })?;
    // The key is on disk before the manager learns of it: enrolling with a key that is then lost
    // would waste a token.
    let key = identity::create_key(state_dir)?;
    let request = EnrollRequest {
        token: pins.token.into(),
        name: name.into(),
        public_key: key.verifying_key().text(),
        platform: platform::describe(),
        version: env!("CARGO_PKG_VERSION").into(),
        capabilities,
        replace: options.replace,
        wazuh: options.wazuh,
    };
    let answer = post(&format!("{manager}/v1/agents/enroll"), &request, &trust).await?;
    let mut answer = answer;
    if let Some(pinned) = pins.signing_key {
        let is_pinned =
            |key: &ManagerKey| VerifyingKey::parse(&key.public_key).is_ok_and(|key| key.fingerprint() == pinned);
        // Other keys could be those of a program in between that passes the right one on.
        answer.manager_keys.retain(is_pinned);
        if answer.manager_keys.is_empty() {
            return Err(EnrollError::OtherKey);
        }
    }
    identity::pin(&answer.manager_keys).map_err(|error| EnrollError::Answer(error.to_string()))?;
    let enrolment = Enrolment {
        agent_id: answer.agent_id,
        name: name.into(),
        manager: manager.into(),
        manager_keys: answer.manager_keys,
        stream_url: answer.stream_url,
        poll_url: answer.poll_url,
        insecure_http: options.insecure_http && !manager_url::is_protected(manager),
        key_number: answer.key_number,
        // It comes by a statement that a pinned key signed.
        recovery_key: None,
        revocations: 0,
    };
    enrolment.check_transport(options.insecure_http)?;
    Journal::begin(&state_dir.join("journal"))?;
    identity::save(state_dir, &enrolment, &trust)?;
    Ok(enrolment)
}

/// Another state directory is one more agent on this host: what the first one holds stays in force and is forgotten with it.
fn already(state_dir: &Path) -> EnrollError {
    let directory = state_dir.display().to_string();
    let held =
        journal::read(&state_dir.join("journal")).map(|contents| JournalState::of(contents.records).held().count());
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

async fn post(url: &str, request: &EnrollRequest, trust: &Trust) -> Result<EnrollResponse, EnrollError> {
    let client = crate::tls::client(trust, |builder| builder.timeout(TIMEOUT)).map_err(EnrollError::Unreachable)?;
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
        let to = printable(&to.unwrap_or_else(|| "an unknown address".into()));
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

/// The scheme that a port speaks, where `error` shows that it is not the URL's.
fn scheme_spoken(url: &str, error: &reqwest::Error) -> Option<&'static str> {
    let chain = crate::telemetry::chain(error);
    match url.split_once("://")?.0.to_ascii_lowercase().as_str() {
        // The errors of rustls on an HTTP answer, and of hyper on a TLS alert.
        "https" if chain.contains("InvalidContentType") => Some("http"),
        "http" if chain.contains("invalid HTTP version") => Some("https"),
        _ => None,
    }
}

/// Whether a server complains that a request came without TLS, in nginx's or Go's words.
fn is_plain_at_https_port(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("plain HTTP request was sent to HTTPS port") || text.contains("HTTP request to an HTTPS server")
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).take(500).collect()
}

/// The detail of a problem document (RFC 9457), made fit for a terminal.
fn problem(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("no reason in the answer");
    printable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_reported_in_the_managers_words() {
        assert_eq!(
            problem(br#"{"title":"Unauthorized","detail":"the token\u202e has\u001b expired"}"#),
            "the token has expired"
        );
        assert_eq!(problem(br#"{"title":"Unauthorized"}"#), "Unauthorized");
        assert_eq!(problem(b"<html>"), "no reason in the answer");
    }

    #[tokio::test]
    async fn an_enrolled_agent_is_not_enrolled_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("agent.json"), "{}").unwrap();
        let error =
            enroll("http://localhost", "t", "n", directory.path(), vec![], Trust::default(), EnrollOptions::default())
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
