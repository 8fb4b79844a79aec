//! Enrolment: the agent makes its key, shows the public half and a token to the manager, and keeps what it is told. It
//! happens once; an enrolled state directory is never overwritten.

use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use riposte_protocol::jws;
use riposte_protocol::message::{Capability, EnrollRequest, EnrollResponse};

use crate::identity::{self, Enrolment, IdentityError};
use crate::journal::{Book, JournalError};
use crate::{durable, platform};

/// How long the manager may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the agent was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// It is already.
    #[error(
        "this agent is already enrolled: {0} holds its identity; to enrol it anew, give another state directory or remove that one"
    )]
    Already(String),
    /// The manager's address is no http or https URL.
    #[error("the manager's URL must begin with http:// or https://")]
    Url,
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
) -> Result<Enrolment, EnrollError> {
    if identity::is_enrolled(state_dir) {
        return Err(EnrollError::Already(state_dir.display().to_string()));
    }
    let manager = manager.trim_end_matches('/');
    if !manager.starts_with("http://") && !manager.starts_with("https://") {
        return Err(EnrollError::Url);
    }
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
    };
    Book::begin(&state_dir.join("journal"))?;
    identity::save(state_dir, &enrolment, ca)?;
    Ok(enrolment)
}

async fn post(url: &str, request: &EnrollRequest, ca: Option<&[u8]>) -> Result<EnrollResponse, EnrollError> {
    let client = crate::tls::client(ca, |builder| builder.timeout(TIMEOUT)).map_err(EnrollError::Unreachable)?;
    let answer = client.post(url).json(request).send().await.map_err(EnrollError::Unreachable)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(EnrollError::Unreachable)?;
    if status != StatusCode::CREATED {
        return Err(EnrollError::Refused { status, detail: problem(&body) });
    }
    serde_json::from_slice(&body).map_err(|error| EnrollError::Answer(error.to_string()))
}

/// What a problem document (RFC 9457) says, made fit for a terminal.
fn problem(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("it gave no reason");
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_managers_words() {
        assert_eq!(
            problem(br#"{"title":"Unauthorized","detail":"the token has\u001b expired"}"#),
            "the token has expired"
        );
        assert_eq!(problem(br#"{"title":"Unauthorized"}"#), "Unauthorized");
        assert_eq!(problem(b"<html>"), "it gave no reason");
    }

    #[tokio::test]
    async fn an_enrolled_agent_is_not_enrolled_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("agent.json"), "{}").unwrap();
        let error = enroll("http://localhost", "t".into(), "n", directory.path(), vec![], None).await.unwrap_err();
        assert!(matches!(error, EnrollError::Already(_)), "{error}");
    }
}
