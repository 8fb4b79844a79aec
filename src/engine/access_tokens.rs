//! Access tokens: signed at a login, verified at each request. Verified tokens are remembered, so
//! that a signature is checked once. A token alone allows nothing: the session and the user are
//! looked up in memory at each request (`api/front/auth.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use riposte_protocol::key::{KeyError, SigningKey};
use riposte_protocol::time::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::refusal::{Refusal, UseCase};
use crate::domain::access_token::{AccessClaims, AccessKeys, AccessTokenError, ISSUER, LIFETIME};
use crate::domain::id::new_id;

/// Maximum number of remembered tokens. Beyond it, the expired ones are forgotten, and if that is
/// not enough, all.
const REMEMBERED: usize = 10_000;

/// The keys of access tokens, and the tokens that were verified.
#[derive(Debug)]
pub struct AccessTokens {
    root: SigningKey,
    keys: ArcSwap<AccessKeys>,
    verified: Mutex<HashMap<[u8; 32], Arc<AccessClaims>>>,
}

impl AccessTokens {
    /// Derives the keys from the manager's signing key.
    ///
    /// # Errors
    /// If the library fails.
    pub fn new(root: SigningKey, now: Timestamp) -> Result<Self, KeyError> {
        let keys = ArcSwap::from_pointee(AccessKeys::derive(&root, now)?);
        Ok(Self { root, keys, verified: Mutex::default() })
    }

    /// The keys at `now`.
    pub fn keys(&self, now: Timestamp) -> Arc<AccessKeys> {
        let keys = self.keys.load_full();
        if keys.are_current(now) {
            return keys;
        }
        // A new period, which happens once in 30 days. The old keys go on if the library fails.
        let Ok(next) = AccessKeys::derive(&self.root, now) else { return keys };
        let next = Arc::new(next);
        self.keys.store(Arc::clone(&next));
        next
    }

    /// Issues the access token of a session, which ends at `until` at the latest. Returns it with
    /// its validity in seconds.
    ///
    /// # Errors
    /// If the library cannot sign.
    pub fn issue(
        &self,
        user: &str,
        rights: &str,
        session: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> UseCase<(String, u64)> {
        let exp = now.plus(LIFETIME).min(until).as_secs();
        let claims = AccessClaims {
            iss: ISSUER.into(),
            aud: ISSUER.into(),
            sub: user.into(),
            jti: new_id(now),
            sid: session,
            iat: now.as_secs(),
            exp,
            scope: rights.to_owned(),
        };
        let token = self.keys(now).sign(&claims).map_err(|error| Refusal::System(error.to_string()))?;
        Ok((token, u64::try_from(exp - now.as_secs()).unwrap_or_default()))
    }

    /// Verifies a token and returns its claims.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<AccessClaims>, AccessTokenError> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).map(Arc::clone);
        if let Some(claims) = known {
            return if claims.exp > now.as_secs() { Ok(claims) } else { Err(AccessTokenError::Expired) };
        }
        let claims = Arc::new(self.keys(now).verify(token, now)?);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.retain(|_, claims| claims.exp > now.as_secs());
            if verified.len() >= REMEMBERED {
                verified.clear();
            }
        }
        verified.insert(hash, Arc::clone(&claims));
        Ok(claims)
    }
}
