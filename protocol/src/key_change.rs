//! How an agent replaces its own key: it signs one change with the old key, which shows who it is, and
//! with the new one, which shows that it has it. The change names both keys, so a copy of it changes
//! nothing once the old key is replaced.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::MANAGER;
use crate::identity::{LEEWAY, MAX_LIFETIME, TokenError};
use crate::jws::{self, JwsError, Unverified};
use crate::key::{KeyError, SigningKey, VerifyingKey};
use crate::time::Timestamp;

/// The `typ` of a change, so that no token or order can pass for one.
pub const TYP: &str = "riposte-agent-key+jwt";
/// How long after a change a token of the old key may have been on its way. A later one shows that
/// two hosts have the key.
pub const OLD_TOKEN_GRACE: Duration = Duration::from_mins(2);

/// The claims of a change. Unknown claims are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The agent's id.
    pub iss: Uuid,
    /// Always [`MANAGER`].
    pub aud: String,
    /// The key to be replaced, 32 raw bytes in base64url.
    pub old: String,
    /// The key that replaces it.
    pub new: String,
    /// When it was signed, in seconds since the epoch.
    pub iat: i64,
}

/// `POST /v1/agent/key`: the same claims, signed by either key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyChangeRequest {
    /// Compact JWS, signed by the old key.
    pub by_old: String,
    /// Compact JWS, signed by the new key.
    pub by_new: String,
}

/// The answer: the new key is the agent's, and the old one is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyChangeResponse {
    /// Since when.
    pub key_since: Timestamp,
}

/// The two keys of a verified change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedKeys {
    /// The key to be replaced.
    pub old: VerifyingKey,
    /// The key that replaces it.
    pub new: VerifyingKey,
}

/// Why a change is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyChangeError {
    /// `by_old` is not valid.
    #[error("by_old: {0}")]
    Old(JwsError),
    /// `by_new` is not valid.
    #[error("by_new: {0}")]
    New(JwsError),
    /// A key is invalid.
    #[error("a key of the change is {0}")]
    Key(#[from] KeyError),
    /// The two parts say different things, or name another agent or receiver, or one key twice.
    #[error("by_old and by_new do not name one change of this agent's key")]
    Claims,
    /// It was signed long ago, or in the future.
    #[error(transparent)]
    Time(TokenError),
}

impl KeyChange {
    /// A change of the key of `agent`.
    pub fn new(agent: Uuid, old: &VerifyingKey, new: &VerifyingKey, now: Timestamp) -> Self {
        Self { iss: agent, aud: MANAGER.into(), old: old.text(), new: new.text(), iat: now.as_secs() }
    }

    /// Signs it with both keys.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] if the claims cannot be written as JSON.
    pub fn sign(&self, old: &SigningKey, new: &SigningKey) -> Result<KeyChangeRequest, JwsError> {
        let kid = self.iss.to_string();
        Ok(KeyChangeRequest { by_old: jws::sign(old, TYP, &kid, self)?, by_new: jws::sign(new, TYP, &kid, self)? })
    }
}

impl KeyChangeRequest {
    /// Verifies a change of the key of `agent` with the keys that it names. Whether the old one is
    /// the agent's is for the caller to check.
    ///
    /// # Errors
    /// The first reason not to believe it.
    pub fn open(&self, agent: Uuid, now: Timestamp) -> Result<ChangedKeys, KeyChangeError> {
        let by_old = Unverified::parse(&self.by_old, TYP, false).map_err(KeyChangeError::Old)?;
        let by_new = Unverified::parse(&self.by_new, TYP, false).map_err(KeyChangeError::New)?;
        let named: KeyChange = by_old.peek().map_err(KeyChangeError::Old)?;
        let (old, new) = (VerifyingKey::parse(&named.old)?, VerifyingKey::parse(&named.new)?);
        let claims: KeyChange = by_old.verify(&old).map_err(KeyChangeError::Old)?;
        let same: KeyChange = by_new.verify(&new).map_err(KeyChangeError::New)?;
        if claims != same || claims.iss != agent || claims.aud != MANAGER || old == new {
            return Err(KeyChangeError::Claims);
        }
        let earliest = now.minus(MAX_LIFETIME).minus(LEEWAY).as_secs();
        if !(earliest..=now.plus(LEEWAY).as_secs()).contains(&claims.iat) {
            return Err(KeyChangeError::Time(TokenError::Time(claims.iat.saturating_sub(now.as_secs()))));
        }
        Ok(ChangedKeys { old, new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);
    const AGENT: Uuid = Uuid::from_u128(1);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn change() -> KeyChange {
        KeyChange::new(AGENT, &key(1).verifying_key(), &key(2).verifying_key(), NOW)
    }

    #[test]
    fn the_claims_are_the_documented_ones() {
        insta::assert_json_snapshot!(change(), @r#"
        {
          "iss": "00000000-0000-0000-0000-000000000001",
          "aud": "riposte",
          "old": "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w",
          "new": "gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q",
          "iat": 1795514400
        }
        "#);
    }

    #[test]
    fn a_change_needs_the_signatures_of_both_keys_over_the_same_claims() {
        let keys = ChangedKeys { old: key(1).verifying_key(), new: key(2).verifying_key() };
        let signed = change().sign(&key(1), &key(2)).unwrap();
        assert_eq!(signed.open(AGENT, NOW), Ok(keys));
        assert_eq!(signed.open(Uuid::from_u128(2), NOW), Err(KeyChangeError::Claims), "another agent's");
        let signature = JwsError::Signature;
        assert_eq!(change().sign(&key(3), &key(2)).unwrap().open(AGENT, NOW), Err(KeyChangeError::Old(signature)));
        assert_eq!(change().sign(&key(1), &key(3)).unwrap().open(AGENT, NOW), Err(KeyChangeError::New(signature)));
        // The parts of two changes, each signed well.
        let later = KeyChange { iat: NOW.as_secs() + 1, ..change() }.sign(&key(1), &key(2)).unwrap();
        let mixed = KeyChangeRequest { by_new: later.by_new, ..signed.clone() };
        assert_eq!(mixed.open(AGENT, NOW), Err(KeyChangeError::Claims));
        let stranger = KeyChange { aud: "other".into(), ..change() }.sign(&key(1), &key(2)).unwrap();
        assert_eq!(stranger.open(AGENT, NOW), Err(KeyChangeError::Claims));
        let same = KeyChange::new(AGENT, &keys.old, &keys.old, NOW).sign(&key(1), &key(1)).unwrap();
        assert_eq!(same.open(AGENT, NOW), Err(KeyChangeError::Claims), "one key twice");
        let token = jws::sign(&key(1), "JWT", "", &change()).unwrap();
        let of_another_kind = KeyChangeRequest { by_old: token, ..signed };
        assert_eq!(of_another_kind.open(AGENT, NOW), Err(KeyChangeError::Old(JwsError::Kind)));
        for (ahead, is_accepted) in [(-361, false), (-360, true), (60, true), (61, false)] {
            let dated = KeyChange { iat: NOW.as_secs() + ahead, ..change() }.sign(&key(1), &key(2)).unwrap();
            assert_eq!(dated.open(AGENT, NOW).is_ok(), is_accepted, "{ahead}");
        }
    }
}
