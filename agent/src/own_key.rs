//! The rotation of the agent's own key: the next key is on disk before the manager learns of it, the
//! manager commits, and then the next key takes the place of the old one. A process that is killed in
//! between leaves both keys, and the next connection takes the rotation to its end.
//!
//! The command line and the running agent both do this, one at a time: `DIR/key.lock`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{StatusCode, header};
use riposte_protocol::PROBLEM;
use riposte_protocol::jws::JwsError;
use riposte_protocol::key::SigningKey;
use riposte_protocol::key_change::{KeyChange, KeyChangeResponse};
use riposte_protocol::time::Timestamp;
use riposte_protocol::visible::is_hidden;

use crate::durable;
use crate::identity::{self, Identity, IdentityError};

/// Time limit for the manager's answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for another process that rotates the key: longer than its two requests.
const LOCK_TIMEOUT: Duration = Duration::from_secs(70);
const LOCK_RETRY: Duration = Duration::from_millis(50);
/// Longest quote of the manager's reason, in characters.
const MAX_QUOTE: usize = 500;

/// Why the key was not replaced. The next key, if it was made, is kept: the manager may have it.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Another process holds the lock.
    #[error("another process is rotating the key of this agent")]
    Locked,
    /// The lock cannot be made.
    #[error("cannot make the lock of the key")]
    Lock(#[source] io::Error),
    /// A key cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The request cannot be signed.
    #[error(transparent)]
    Sign(#[from] JwsError),
    /// The manager cannot be reached.
    #[error("cannot reach the manager")]
    Unreachable(#[source] reqwest::Error),
    /// The manager has no such operation.
    #[error("this manager is of a version that cannot replace the keys of agents: update it")]
    Unsupported,
    /// The manager, or a server on the way, refused.
    #[error("the manager did not replace the key ({status}): {detail}")]
    Refused {
        /// HTTP status of the answer.
        status: StatusCode,
        /// The reason, in the manager's words.
        detail: String,
        /// Whether the manager itself said that the token is not the agent's.
        is_unknown_key: bool,
    },
}

/// Replaces the key: makes the next one, or takes the one that an interrupted rotation left. Returns
/// since when the new key counts.
///
/// # Errors
/// If it was not replaced, as far as this host knows.
pub async fn rotate(identity: &mut Identity, now: Timestamp) -> Result<Timestamp, RotationError> {
    let _lock = wait_for_lock(identity.state_dir()).await?;
    identity.reload_key()?;
    let (next, is_first) = match next_key(identity)? {
        Some(next) => (next, false),
        None => (identity::make_key(&next_key_path(identity))?, true),
    };
    replace(identity, &next, is_first, now).await
}

/// Takes a rotation that was begun to its end, and reads the key anew. With `is_first` the manager was
/// not asked yet. Returns whether it is another key than before.
///
/// # Errors
/// If a rotation is under way and could not be ended.
pub async fn renew(identity: &mut Identity, is_first: bool, now: Timestamp) -> Result<bool, RotationError> {
    let before = identity.key().verifying_key();
    let lock = wait_for_lock(identity.state_dir()).await;
    identity.reload_key()?;
    if let Some(next) = next_key(identity)? {
        let _lock = lock?;
        replace(identity, &next, is_first, now).await?;
    }
    Ok(identity.key().verifying_key() != before)
}

/// Begins a rotation, if the manager asks for one of this key. Returns whether the next key was made
/// now; the next connection does the rest.
///
/// # Errors
/// If the next key cannot be made.
pub fn begin(identity: &Identity, asked: Option<&str>) -> Result<bool, RotationError> {
    if asked != Some(&identity.key().verifying_key().text()) {
        return Ok(false);
    }
    match lock(identity.state_dir()) {
        Ok(_lock) if next_key(identity)?.is_none() => Ok(identity::make_key(&next_key_path(identity)).map(|_| true)?),
        Ok(_) | Err(RotationError::Locked) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The manager may have committed an earlier attempt. Then it knows the new key, and use of the old
/// one would look like a copy of it.
async fn replace(
    identity: &mut Identity,
    next: &SigningKey,
    is_first: bool,
    now: Timestamp,
) -> Result<Timestamp, RotationError> {
    let asked = if is_first {
        ask(identity, next, identity.key(), now).await
    } else {
        match ask(identity, next, next, now).await {
            Err(RotationError::Refused { is_unknown_key: true, .. }) => ask(identity, next, identity.key(), now).await,
            other => other,
        }
    };
    let since = asked?;
    let (path, own) = (next_key_path(identity), identity::key_path(identity.state_dir()));
    durable::rename(&path, &own).map_err(|source| IdentityError::File { path, source })?;
    identity.reload_key()?;
    Ok(since)
}

async fn ask(
    identity: &Identity,
    next: &SigningKey,
    speaker: &SigningKey,
    now: Timestamp,
) -> Result<Timestamp, RotationError> {
    let (old, new) = (identity.key().verifying_key(), next.verifying_key());
    let request = KeyChange::new(identity.agent_id(), &old, &new, now).sign(identity.key(), next)?;
    let unreachable = |error: reqwest::Error| RotationError::Unreachable(error);
    let client = crate::tls::client(identity.trust(), |builder| builder.timeout(TIMEOUT)).map_err(unreachable)?;
    let bearer = identity.bearer_by(speaker, now)?;
    let answer = client.post(url(identity)).header(header::AUTHORIZATION, bearer).json(&request).send().await;
    let answer = answer.map_err(unreachable)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(unreachable)?;
    if let (StatusCode::OK, Ok(KeyChangeResponse { key_since })) = (status, serde_json::from_slice(&body)) {
        return Ok(key_since);
    }
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let word = problem["type"].as_str().and_then(|kind| kind.strip_prefix(PROBLEM));
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) && word.is_some() {
        return Err(RotationError::Unsupported);
    }
    let detail = problem["detail"].as_str().unwrap_or("the answer has no reason");
    let detail = detail.chars().filter(|c| !is_hidden(*c)).take(MAX_QUOTE).collect();
    Err(RotationError::Refused { status, detail, is_unknown_key: word == Some("unauthenticated") })
}

/// The key that is to replace the agent's own, if a rotation was begun.
fn next_key(identity: &Identity) -> Result<Option<SigningKey>, IdentityError> {
    identity::load_key(&next_key_path(identity))
}

fn next_key_path(identity: &Identity) -> PathBuf {
    identity.state_dir().join("key.next")
}

/// Beside the address to poll.
fn url(identity: &Identity) -> String {
    let enrolment = &identity.enrolment;
    match enrolment.poll_url.strip_suffix("/poll") {
        Some(base) => format!("{base}/key"),
        None => format!("{}/v1/agent/key", enrolment.manager.trim_end_matches('/')),
    }
}

async fn wait_for_lock(state_dir: &Path) -> Result<File, RotationError> {
    let until = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock(state_dir) {
            Err(RotationError::Locked) if tokio::time::Instant::now() < until => tokio::time::sleep(LOCK_RETRY).await,
            other => return other,
        }
    }
}

/// It ends with the process, however that ends.
fn lock(state_dir: &Path) -> Result<File, RotationError> {
    let file = durable::append(&state_dir.join("key.lock")).map_err(RotationError::Lock)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RotationError::Locked),
        Err(TryLockError::Error(error)) => Err(RotationError::Lock(error)),
    }
}
