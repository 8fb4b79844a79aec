//! The seal of an incident bundle: the manager's signature under the hash of its contents, so that a
//! bundle is the same long after it was made, and far from the manager.

use riposte_protocol::MANAGER;
use riposte_protocol::jws::{self, JwsError, Unverified};
use riposte_protocol::key::{SigningKey, VerifyingKey};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::ChainHash;

/// The `typ` of a seal.
pub const TYP: &str = "riposte-incident+jwt";

/// The claims of a seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentSeal {
    /// Always [`MANAGER`].
    pub iss: String,
    /// The response.
    pub response: Uuid,
    /// SHA-256 of the contents.
    pub contents: ChainHash,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
}

impl IncidentSeal {
    /// The seal of these contents.
    pub fn of(response: Uuid, contents: &str, now: Timestamp) -> Self {
        Self { iss: MANAGER.into(), response, contents: ChainHash::of_text(contents), iat: now.as_secs() }
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] if the library cannot sign.
    pub fn sign(&self, key: &SigningKey) -> Result<String, JwsError> {
        jws::sign(key, TYP, &key.verifying_key().kid(), self)
    }

    /// Verifies a token with one of `keys`, and returns its claims and the id of the key.
    ///
    /// # Errors
    /// Why it is not a seal of one of these keys.
    pub fn open(token: &str, keys: &[VerifyingKey]) -> Result<(Self, String), JwsError> {
        let unverified = Unverified::parse(token, TYP, false)?;
        let kid = unverified.header.kid.clone().unwrap_or_default();
        let key = keys.iter().find(|key| key.kid() == kid).ok_or(JwsError::UnknownKey)?;
        let seal: Self = unverified.verify(key)?;
        if seal.iss == MANAGER { Ok((seal, kid)) } else { Err(JwsError::Kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_its_contents_and_key() {
        let key = |seed: u8| SigningKey::from_seed(&[seed; 32]).unwrap();
        let seal = IncidentSeal::of(Uuid::from_u128(7), "{}", Timestamp::from_millis(1000));
        let token = seal.sign(&key(1)).unwrap();
        let known = [key(1).verifying_key()];
        assert_eq!(IncidentSeal::open(&token, &known), Ok((seal.clone(), known[0].kid())));
        assert_eq!(IncidentSeal::open(&token, &[key(2).verifying_key()]), Err(JwsError::UnknownKey));
        let other = jws::sign(&key(1), super::super::checkpoint::TYP, &known[0].kid(), &seal).unwrap();
        assert_eq!(IncidentSeal::open(&other, &known), Err(JwsError::Kind), "a checkpoint is no seal");
    }
}
