//! The agent's identity: its own key (`DIR/key`), during a rotation the one that replaces it
//! (`DIR/key.next`), the manager's answer at enrolment
//! (`DIR/agent.json`), and the authority that certifies the manager if it is not one of the
//! system's (`DIR/ca.pem`). All are private files. The key never leaves this host; only short-lived
//! tokens signed with it do.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte_protocol::command::ManagerKey;
use riposte_protocol::jws::JwsError;
use riposte_protocol::key::{KeyError, SigningKey, VerifyingKey};
use riposte_protocol::key_statement::{KeyStatement, KeyTrust, StatementError};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::durable;
use crate::platform::guarded;

/// Largest size of each file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
use crate::manager_url::{self, UrlError};
use crate::tls::Trust;

/// The manager's answer at enrolment, as stored in `agent.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The agent's id, assigned by the manager.
    pub agent_id: Uuid,
    /// The name it was enrolled with.
    pub name: String,
    /// The manager's address at enrolment.
    pub manager: String,
    /// The pinned keys: only orders that one of them signed are executed.
    pub manager_keys: Vec<ManagerKey>,
    /// URL of the stream.
    pub stream_url: String,
    /// URL to poll.
    pub poll_url: String,
    /// Whether plain HTTP over a network was allowed at enrolment. Absent in identities of older
    /// agents, which did not ask.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_http: bool,
    /// Number of the last statement about the manager's keys that was accepted; `manager_keys` are
    /// the keys that it names. 0: none was.
    #[serde(default, skip_serializing_if = "is_none")]
    pub key_number: u64,
    /// The manager's recovery key, which revokes the others: 32 raw bytes in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_key: Option<String>,
    /// How many revocations were accepted.
    #[serde(default, skip_serializing_if = "is_none")]
    pub revocations: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own signature")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

impl Enrolment {
    /// Checks that the connection is private, or that plain HTTP was allowed, at enrolment or now.
    ///
    /// # Errors
    /// The address that must not be used.
    pub fn check_transport(&self, is_allowed: bool) -> Result<(), UrlError> {
        let named = [self.stream_url.as_str(), self.poll_url.as_str()];
        manager_url::check(&self.manager, named, is_allowed || self.insecure_http)
    }

    /// Reads the stored answer of the enrolment from the state directory.
    ///
    /// # Errors
    /// When the agent is not enrolled, or the file is unreadable or damaged.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = enrolment_path(state_dir);
        let text = read(&path)?.ok_or_else(|| IdentityError::NotEnrolled(path.clone()))?;
        let damaged =
            |error: serde_json::Error| IdentityError::Damaged { path: path.clone(), reason: error.to_string() };
        serde_json::from_slice(&text).map_err(damaged)
    }
}

/// This agent's identity: its key, and what was agreed at enrolment.
#[derive(Debug)]
pub struct Identity {
    /// The manager's answer at enrolment.
    pub enrolment: Enrolment,
    key: SigningKey,
    pinned: Vec<(String, VerifyingKey)>,
    trust: Trust,
    state_dir: PathBuf,
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// `agent.json` is not there.
    #[error("this agent is not enrolled: {0} does not exist; run `riposte-agent enroll` first")]
    NotEnrolled(PathBuf),
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Other accounts can read or write a file that must be the agent's alone.
    #[error("{path} {what}: {mend}")]
    Exposed {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with its owner or mode.
        what: String,
        /// The command that fixes it.
        mend: String,
    },
    /// A file's content is not valid.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Identity {
    /// Reads the identity from the state directory.
    ///
    /// # Errors
    /// When the agent is not enrolled, or a file is unreadable or damaged.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let enrolment = Enrolment::load(state_dir)?;
        let damaged = |reason: String| IdentityError::Damaged { path: enrolment_path(state_dir), reason };
        let pinned = pin(&enrolment.manager_keys).map_err(|error| damaged(error.to_string()))?;
        let key = load_key(&key_path(state_dir))?;
        let key = key.ok_or_else(|| damaged("the agent's key is missing beside it".into()))?;
        let client = read(&client_path(state_dir))?;
        if client.is_some() {
            check_secret(&client_path(state_dir))?;
        }
        let trust = Trust { ca: read(&ca_path(state_dir))?, client };
        Ok(Self { enrolment, key, pinned, trust, state_dir: state_dir.to_owned() })
    }

    /// The agent's id.
    pub fn agent_id(&self) -> Uuid {
        self.enrolment.agent_id
    }

    /// The manager's keys by id.
    pub fn pinned(&self) -> &[(String, VerifyingKey)] {
        &self.pinned
    }

    /// Takes in a statement about the manager's keys: stores the keys that it names durably, and
    /// trusts them and no others from then on. Returns whether they are news.
    ///
    /// # Errors
    /// If the statement is not to be believed, or cannot be stored. Then nothing has changed.
    pub fn learn(&mut self, statement: &str) -> Result<bool, LearnError> {
        let recovery = self.enrolment.recovery_key.as_deref().map(VerifyingKey::parse).transpose();
        let trust = KeyTrust {
            keys: &self.pinned,
            number: self.enrolment.key_number,
            recovery: recovery.map_err(PinError::from)?,
            revocations: self.enrolment.revocations,
        };
        let statement = KeyStatement::open(statement, &trust)?;
        if statement.number == trust.number {
            return Ok(false);
        }
        let pinned = pin(&statement.keys)?;
        let mut enrolment = self.enrolment.clone();
        // The first one stays: a thief of a signing key could name another.
        enrolment.recovery_key = enrolment.recovery_key.or(statement.recovery);
        enrolment.revocations = statement.revocation.unwrap_or(enrolment.revocations);
        (enrolment.manager_keys, enrolment.key_number) = (statement.keys, statement.number);
        write_enrolment(&self.state_dir, &enrolment)?;
        (self.enrolment, self.pinned) = (enrolment, pinned);
        Ok(true)
    }

    /// What its connections trust, and what they show.
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Where it is stored.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The agent's own key.
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Reads the agent's own key again: another process may have replaced it.
    ///
    /// # Errors
    /// When it cannot be read. Then the one in memory stays.
    pub fn reload_key(&mut self) -> Result<(), IdentityError> {
        if let Some(key) = load_key(&key_path(&self.state_dir))? {
            self.key = key;
        }
        Ok(())
    }

    /// A fresh `Authorization` header value.
    ///
    /// # Errors
    /// Never in practice: only if the claims could not be written as JSON.
    pub fn bearer(&self, now: Timestamp) -> Result<String, JwsError> {
        self.bearer_by(&self.key, now)
    }

    /// The same, signed by another key of this agent.
    ///
    /// # Errors
    /// As [`Identity::bearer`].
    pub fn bearer_by(&self, key: &SigningKey, now: Timestamp) -> Result<String, JwsError> {
        let jti = Uuid::now_v7();
        let lifetime = riposte_protocol::identity::MAX_LIFETIME;
        let token = riposte_protocol::identity::issue(key, self.agent_id(), jti, now, lifetime)?;
        Ok(format!("Bearer {token}"))
    }
}

/// Why a statement about the manager's keys is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// It is not to be believed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A key cannot be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// It cannot be stored.
    #[error("the manager's new keys cannot be stored")]
    Store(#[from] IdentityError),
}

/// Why a manager's keys cannot be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// No order could ever be verified.
    #[error("it names no key of the manager")]
    NoKey,
    /// A key is invalid.
    #[error("a key of the manager is {0}")]
    Key(#[from] KeyError),
}

/// Reads the keys to pin.
///
/// # Errors
/// If a key is invalid, or there is none.
pub fn pin(keys: &[ManagerKey]) -> Result<Vec<(String, VerifyingKey)>, PinError> {
    if keys.is_empty() {
        return Err(PinError::NoKey);
    }
    keys.iter().map(|key| Ok((key.kid.clone(), VerifyingKey::parse(&key.public_key)?))).collect()
}

/// Reads the key in the state directory, or creates it. A key that an interrupted enrolment left
/// behind is used again, so that a retry is the same agent to the manager.
///
/// # Errors
/// When the file cannot be read or written, or the system has no randomness.
pub fn create_key(state_dir: &Path) -> Result<SigningKey, IdentityError> {
    match load_key(&key_path(state_dir))? {
        Some(key) => Ok(key),
        None => make_key(&key_path(state_dir)),
    }
}

pub(crate) fn make_key(path: &Path) -> Result<SigningKey, IdentityError> {
    let file_error = |source| IdentityError::File { path: path.into(), source };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| file_error(io::Error::other(error.to_string())))?;
    durable::replace(path, URL_SAFE_NO_PAD.encode(seed).as_bytes()).map_err(file_error)?;
    SigningKey::from_seed(&seed).map_err(|error| file_error(io::Error::other(error)))
}

/// Writes `agent.json`, and before it `ca.pem` and `client.pem` if there are any.
///
/// # Errors
/// When a file cannot be written durably.
pub fn save(state_dir: &Path, enrolment: &Enrolment, trust: &Trust) -> Result<(), IdentityError> {
    for (pem, path) in [(&trust.ca, ca_path(state_dir)), (&trust.client, client_path(state_dir))] {
        if let Some(pem) = pem {
            durable::replace(&path, pem).map_err(|source| IdentityError::File { path, source })?;
        }
    }
    write_enrolment(state_dir, enrolment)
}

fn write_enrolment(state_dir: &Path, enrolment: &Enrolment) -> Result<(), IdentityError> {
    let path = enrolment_path(state_dir);
    let text = serde_json::to_vec_pretty(enrolment).map_err(io::Error::from);
    text.and_then(|text| durable::replace(&path, &text)).map_err(|source| IdentityError::File { path, source })
}

/// Whether the state directory holds an enrolment, readable or not.
pub fn is_enrolled(state_dir: &Path) -> bool {
    enrolment_path(state_dir).exists()
}

/// Refuses a secret that other accounts can read: its reader can pose as this agent.
fn check_secret(path: &Path) -> Result<(), IdentityError> {
    let exposure = guarded::exposure(path).map_err(|source| IdentityError::File { path: path.into(), source })?;
    let Some((what, command)) = exposure else { return Ok(()) };
    let mend = format!("run `{command}`; enrol again if another account may have read it");
    Err(IdentityError::Exposed { path: path.into(), what, mend })
}

pub(crate) fn load_key(path: &Path) -> Result<Option<SigningKey>, IdentityError> {
    let Some(text) = read(path)? else { return Ok(None) };
    check_secret(path)?;
    let path = path.to_owned();
    let seed: Option<[u8; 32]> = URL_SAFE_NO_PAD.decode(text.trim_ascii()).ok().and_then(|seed| seed.try_into().ok());
    let Some(seed) = seed else { return Err(IdentityError::Damaged { path, reason: "not a key".into() }) };
    let key = SigningKey::from_seed(&seed);
    key.map(Some).map_err(|error| IdentityError::File { path, source: io::Error::other(error) })
}

/// Reads a file if it exists. Refuses one that another account could have written.
fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match guarded::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(IdentityError::File { path: path.into(), source: error.into() }),
    }
}

pub(crate) fn key_path(state_dir: &Path) -> PathBuf {
    state_dir.join("key")
}

fn ca_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca.pem")
}

fn client_path(state_dir: &Path) -> PathBuf {
    state_dir.join("client.pem")
}

fn enrolment_path(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolment(manager_keys: Vec<ManagerKey>) -> Enrolment {
        Enrolment {
            agent_id: Uuid::from_u128(1),
            name: "web-1".into(),
            manager: "http://localhost".into(),
            manager_keys,
            stream_url: "ws://localhost/".into(),
            poll_url: "http://localhost/".into(),
            insecure_http: false,
            key_number: 0,
            recovery_key: None,
            revocations: 0,
        }
    }

    #[test]
    fn a_key_is_made_once_and_stored() {
        let directory = tempfile::tempdir().unwrap();
        let first = create_key(directory.path()).unwrap();
        assert_eq!(create_key(directory.path()).unwrap().verifying_key(), first.verifying_key());
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let manager_keys = vec![ManagerKey {
            kid: "k1".into(),
            public_key: SigningKey::from_seed(&[7; 32]).unwrap().verifying_key().text(),
        }];
        let enrolment = enrolment(manager_keys);
        create_key(directory.path()).unwrap();
        let trust = Trust { ca: Some(b"a certificate".into()), client: Some(b"a certificate and its key".into()) };
        save(directory.path(), &enrolment, &trust).unwrap();
        Identity::load(directory.path()).unwrap();
        for (name, mode, is_refused) in [
            ("key", 0o640, true),
            ("key", 0o604, true),
            ("key", 0o660, true),
            ("key", 0o400, false),
            ("agent.json", 0o620, true),
            ("agent.json", 0o602, true),
            ("agent.json", 0o644, false),
            ("ca.pem", 0o666, true),
            ("ca.pem", 0o644, false),
            ("client.pem", 0o644, true),
            ("client.pem", 0o600, false),
        ] {
            let path = directory.path().join(name);
            let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            set(mode);
            let loaded = Identity::load(directory.path());
            set(0o600);
            assert_eq!(loaded.is_err(), is_refused, "{name} {mode:o}");
            if let Err(error) = loaded {
                let said = crate::telemetry::chain(&error);
                assert!(said.contains("chmod ") && said.contains(&path.display().to_string()), "{said}");
            }
            // Only root can change the owner of a file.
            if nix::unistd::geteuid().is_root() {
                std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
                let refused = Identity::load(directory.path());
                std::os::unix::fs::chown(&path, Some(0), None).unwrap();
                let said = crate::telemetry::chain(&refused.unwrap_err());
                assert!(said.contains("chown ") && said.contains("12345"), "{said}");
            }
        }
    }

    #[test]
    fn a_new_key_is_on_disk_before_it_is_trusted_and_a_statement_is_believed_once() {
        let directory = tempfile::tempdir().unwrap();
        let signer = |seed: u8| SigningKey::from_seed(&[seed; 32]).unwrap();
        let key = |seed: u8| ManagerKey { kid: format!("k{seed}"), public_key: signer(seed).verifying_key().text() };
        let statement = |number, keys: &[u8], by: u8| {
            let keys = keys.iter().map(|seed| key(*seed)).collect();
            let statement = KeyStatement {
                iss: riposte_protocol::MANAGER.into(),
                number,
                keys,
                iat: 0,
                recovery: None,
                revocation: None,
            };
            statement.sign(&signer(by), &format!("k{by}")).unwrap()
        };
        let enrolment = enrolment(vec![key(1)]);
        create_key(directory.path()).unwrap();
        save(directory.path(), &enrolment, &Trust::default()).unwrap();
        let mut identity = Identity::load(directory.path()).unwrap();
        let kids = |identity: &Identity| identity.pinned().iter().map(|(kid, _)| kid.clone()).collect::<Vec<_>>();

        let both = statement(1, &[1, 2], 1);
        identity.learn(&statement(1, &[2], 2)).unwrap_err();
        assert!(identity.learn(&both).unwrap());
        assert_eq!(kids(&identity), ["k1", "k2"]);
        assert_eq!(kids(&Identity::load(directory.path()).unwrap()), ["k1", "k2"], "after a crash");
        assert!(!identity.learn(&both).unwrap(), "it is known");
        // The file cannot be replaced: nothing changes.
        let in_the_way = directory.path().join("agent.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(matches!(identity.learn(&statement(2, &[2], 2)), Err(LearnError::Store(_))));
        assert_eq!((kids(&identity), identity.enrolment.key_number), (vec!["k1".into(), "k2".into()], 1));
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(identity.learn(&statement(2, &[2], 2)).unwrap());
        // The old key signs nothing any more, and what it signed before is not believed again.
        for (old, why) in
            [(both, "unknown key"), (statement(3, &[1], 1), "unknown key"), (statement(1, &[1], 2), "older")]
        {
            let refused = identity.learn(&old).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let loaded = Identity::load(directory.path()).unwrap();
        assert_eq!((kids(&loaded), loaded.enrolment.key_number), (vec!["k2".to_owned()], 2));
    }

    #[test]
    fn an_identity_without_a_manager_key_is_refused() {
        assert_eq!(pin(&[]).unwrap_err(), PinError::NoKey);
    }
}
