//! The keys that commands are signed with. Private keys stay here; agents get the public ones.

use riposte_protocol::command::{Command, ManagerKey};
use riposte_protocol::key::SigningKey;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::checkpoint::{Checkpoint, CheckpointKeys};
use crate::domain::incident_seal::IncidentSeal;
use crate::store::database::{Result, StoreError};

/// The manager's signing keys: the first one signs, agents pin all.
#[derive(Debug)]
pub struct Signer {
    keys: Vec<(String, SigningKey)>,
}

impl Signer {
    /// Creates a signer from keys with their ids; the first one signs.
    pub fn new(keys: Vec<(String, SigningKey)>) -> Self {
        Self { keys }
    }

    /// The public keys that an agent pins.
    pub fn pinned(&self) -> Vec<ManagerKey> {
        let public =
            |(kid, key): &(String, SigningKey)| ManagerKey { kid: kid.clone(), public_key: key.verifying_key().text() };
        self.keys.iter().map(public).collect()
    }

    /// The key that signs, for keys of other purposes that follow from it.
    pub(super) fn root(&self) -> Option<SigningKey> {
        self.keys.first().map(|(_, key)| key.clone())
    }

    /// The public keys under whose signatures checkpoints of the audit log count.
    pub fn checkpoint_keys(&self) -> CheckpointKeys {
        CheckpointKeys::new(self.keys.iter().map(|(_, key)| key.verifying_key()))
    }

    /// Signs a checkpoint with the first key.
    ///
    /// # Errors
    /// If there is no key, or the library cannot sign.
    pub(super) fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<String> {
        let signed = self.keys.first().and_then(|(_, key)| checkpoint.sign(key).ok());
        signed
            .ok_or_else(|| StoreError::Corrupt(format!("the checkpoint of entry {} cannot be signed", checkpoint.seq)))
    }

    /// Seals the contents of an incident bundle with the first key.
    ///
    /// # Errors
    /// As [`Signer::sign_checkpoint`].
    pub fn seal(&self, response: Uuid, contents: &str, now: Timestamp) -> Result<String> {
        let seal = IncidentSeal::of(response, contents, now);
        let signed = self.keys.first().and_then(|(_, key)| seal.sign(key).ok());
        signed.ok_or_else(|| StoreError::Corrupt(format!("the bundle of {response} cannot be sealed")))
    }

    /// Fingerprint of the key that signs.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        self.keys.first().map(|(_, key)| key.verifying_key().fingerprint())
    }

    /// Signs a command with the first key.
    ///
    /// # Errors
    /// If there is no key, or the command cannot be encoded.
    pub(super) fn sign(&self, command: &Command) -> Result<String> {
        let signed = self.keys.first().and_then(|(kid, key)| command.sign(key, kid).ok());
        signed.ok_or_else(|| StoreError::Corrupt(format!("command {} cannot be signed", command.jti)))
    }
}
